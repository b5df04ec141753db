/** Whole hosts over UDP, raw Ethernet and with frames lost: they meet, move records between real tdbs, stop. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { createSocket } from 'node:dgram';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import { PoolHost } from '../../src/host/pool-host.js';
import type { HostOptions, TransportOptions } from '../../src/host/pool-host.js';
import { makeInterfaces, whyNoEthernet } from '../support/ethernet-bridge.js';
import { eventually, ownDirectory, sleep } from '../support/native-helpers.js';
import { RingProbe } from '../support/ring-probe.js';

const noEthernet = whyNoEthernet();

async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  socket.close();
  return port;
}

async function udp(count: number): Promise<TransportOptions[]> {
  const ports = await Promise.all(Array.from({ length: count }, freePort));
  return ports.map((port, self) => ({
    kind: 'udp',
    address: '127.0.0.1',
    port,
    peers: ports.flatMap((peer, id) => (id === self ? [] : [{ id: nodeId(id), address: '127.0.0.1', port: peer }])),
  }));
}

function optionsFor(directory: string, self: number, transport: TransportOptions, count: number): HostOptions {
  return {
    self: nodeId(self),
    members: Array.from({ length: count }, (_, id) => ({ id: nodeId(id), name: `n${id}`, address: `10.0.0.${id}` })),
    incarnation: incarnation(Date.now()),
    epoch: epoch(1),
    socketPath: join(directory, String(self), 'socket'),
    volatileDirectory: join(directory, String(self), 'volatile'),
    persistentDirectory: join(directory, String(self), 'persistent'),
    transport,
    poolName: 'test',
    poolKey: Buffer.alloc(32, 3),
    log: { log: () => undefined },
  };
}

interface Pool {
  hosts: PoolHost[];
  options: HostOptions[];
}

type More = Partial<HostOptions>;

async function startPool(t: TestContext, transports: TransportOptions[], more: More = {}): Promise<Pool> {
  const directory = ownDirectory(t);
  const options = transports.map((transport, self) => ({
    ...optionsFor(directory, self, transport, transports.length), ...more,
  }));
  const hosts: PoolHost[] = [];
  t.after(() => Promise.all(hosts.map((host) => host.stop())));
  for (const one of options) hosts.push(await PoolHost.start(one));
  await eventually('all servers up', () => hosts.every((host) => host.status().links.every(({ up }) => up)));
  return { hosts, options };
}

/** A stand-in for a smbd's connection: one request at a time. */
class Client {
  private readonly socket: Socket;
  private received = Buffer.alloc(0);
  private waiting: ((packet: Buffer) => void) | null = null;

  constructor(t: TestContext, path: string) {
    this.socket = connect(path);
    t.after(() => this.socket.destroy());
    this.socket.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
      const length = this.received.length < 4 ? Infinity : this.received.readUInt32LE(0);
      if (this.received.length < length) return;
      const packet = this.received.subarray(0, length);
      this.received = this.received.subarray(length);
      this.waiting?.(packet);
    });
  }

  private request(operation: number, body: Buffer): Promise<Buffer> {
    const header = Buffer.alloc(32);
    header.writeUInt32LE(32 + body.length, 0);
    header.writeUInt32LE(0x4354_4442, 4);
    header.writeUInt32LE(1, 8);
    header.writeUInt32LE(operation, 16);
    header.writeUInt32LE(0xf000_0001, 20);
    header.writeUInt32LE(7, 28);
    return new Promise((resolve) => {
      this.waiting = resolve;
      this.socket.write(Buffer.concat([header, body]));
    });
  }

  /** REQ_CONTROL; answers status and data. */
  async control(opcode: number, data: Buffer): Promise<{ status: number; data: Buffer }> {
    const body = Buffer.alloc(28);
    body.writeUInt32LE(opcode, 0);
    body.writeUInt32LE(data.length, 24);
    const reply = await this.request(7, Buffer.concat([body, data]));
    assert.equal(reply.readUInt32LE(16), 8, 'REPLY_CONTROL');
    const length = reply.readUInt32LE(36);
    return { status: reply.readInt32LE(32), data: reply.subarray(44, 44 + length) };
  }

  attach(name: string): Promise<{ status: number; data: Buffer }> {
    return this.control(18, Buffer.from(`${name}\0`));
  }

  /** REQ_CALL that makes this server the record's owner. */
  async migrate(database: Buffer, key: Buffer): Promise<void> {
    const body = Buffer.alloc(24);
    body.writeUInt32LE(1, 0);
    database.copy(body, 4);
    body.writeUInt32LE(0xff00_0001, 8);
    body.writeUInt32LE(key.length, 16);
    const reply = await this.request(0, Buffer.concat([body, key]));
    assert.equal(reply.readUInt32LE(16), 1, 'REPLY_CALL');
  }
}

async function moveRecordsAround(t: TestContext, pool: Pool): Promise<void> {
  const clients = pool.options.map(({ socketPath }) => new Client(t, socketPath));
  const attached = await Promise.all(clients.map((client) => client.attach('locking.tdb')));
  const database = attached[0]!.data;
  assert.equal(database.length, 4);
  const last = clients.length - 1;
  const path = await clients[last]!.control(4, database);
  assert.equal(path.data.toString('latin1'), `${join(pool.options[last]!.volatileDirectory, `locking.tdb.${last}`)}\0`);
  for (let i = 0; i < 60; i++) {
    await clients[i % clients.length]!.migrate(database, Buffer.from(`key ${i % 4}`));
  }
  // the record's home may hear of the last move after the client did, when that frame was lost
  let description = await pool.hosts[0]!.describeRecord('locking.tdb', Buffer.from('key 3'));
  for (let i = 0; i < 50 && description.owner !== 59 % clients.length; i++) {
    await sleep(20);
    description = await pool.hosts[0]!.describeRecord('locking.tdb', Buffer.from('key 3'));
  }
  assert.equal(description.owner, 59 % clients.length);
  if (clients.length > 1) assert.ok(description.history.length > 1);
}

test('three hosts over UDP move records', async (t) => {
  const pool = await startPool(t, await udp(3));
  await moveRecordsAround(t, pool);
  const { counters } = pool.hosts[0]!.status();
  assert.ok(counters['socket.packet.in']! > 20);
  assert.equal(counters['interconnect.refused.seal'], 0);
});

test('three hosts over raw Ethernet move records', { skip: noEthernet }, async (t) => {
  const transports = makeInterfaces(t, 3).map((name): TransportOptions => ({ kind: 'ethernet', interface: name }));
  const pool = await startPool(t, transports);
  await moveRecordsAround(t, pool);
  const { peers } = pool.hosts[0]!.status().interconnect;
  assert.match(peers[0]!.address, /^[0-9a-f:]{17}$/);
});

test('a tenth of the frames lost, some doubled and late: records move all the same', async (t) => {
  const pool = await startPool(t, await udp(3), {
    faults: { lossPercent: 10, duplicatePercent: 3, delayMsMax: 2, seed: 5 },
  });
  await moveRecordsAround(t, pool);
  assert.ok(pool.hosts[0]!.status().counters['interconnect.fault.lost']! > 0);
});

test('one server alone serves', async (t) => {
  await moveRecordsAround(t, await startPool(t, await udp(1)));
});

test('a host stops with clients connected and questions open, and its place can be taken', async (t) => {
  const { hosts, options } = await startPool(t, await udp(1));
  const client = new Client(t, options[0]!.socketPath);
  await client.attach('brlock.tdb');
  await hosts[0]!.stop();
  await hosts[0]!.stop();
  await assert.rejects(hosts[0]!.describeRecord('brlock.tdb', Buffer.from('x')), { code: 'ERR_POOL_STOPPED' });
  assert.equal(hosts[0]!.status().counters['socket.packet.in'], undefined);
  const again = await PoolHost.start({ ...options[0]!, incarnation: incarnation(Date.now() + 1) });
  t.after(() => again.stop());
  await new Client(t, options[0]!.socketPath).attach('brlock.tdb');
});

test('a host refuses to start where it cannot serve, and leaves nothing behind', async (t) => {
  const [transport] = await udp(1);
  const options = optionsFor(ownDirectory(t), 0, transport!, 1);
  const host = await PoolHost.start(options);
  t.after(() => host.stop());
  await new Client(t, options.socketPath).attach('leases.tdb');
  const elsewhere = { ...options, volatileDirectory: `${options.volatileDirectory}2` };
  await assert.rejects(PoolHost.start(elsewhere), { code: 'ERR_POOL_ADDRESS' });
  const other = { ...transport!, port: await freePort() } as TransportOptions;
  await assert.rejects(PoolHost.start({ ...elsewhere, transport: other }), { code: 'ERR_POOL_SOCKET_IN_USE' });
  const own = { ...elsewhere, transport: other, socketPath: `${options.socketPath}2` };
  const missing: TransportOptions = { kind: 'ethernet', interface: 'nosuch0' };
  await assert.rejects(PoolHost.start({ ...own, transport: missing }), (error: { code: string }) =>
    error.code === 'ERR_POOL_INTERFACE' || error.code === 'ERR_POOL_CAPABILITY',
  );
  await (await PoolHost.start(own)).stop();
});

test('nobody knows a database: the question is answered with that', async (t) => {
  const { hosts } = await startPool(t, await udp(1));
  await assert.rejects(hosts[0]!.describeRecord('nosuch.tdb', Buffer.from('x')), { code: 'ERR_POOL_RECORD' });
});

test('VFS modules attach to a host that has a ring, and lose it when the host stops', async (t) => {
  const directory = ownDirectory(t);
  const ring = { ringSocketPath: join(directory, 'r', 'ring.socket'), pagePath: join(directory, 'r', 'node.page') };
  const { hosts } = await startPool(t, await udp(1), ring);
  const probe = await RingProbe.attached(t, ring.ringSocketPath);
  await eventually('it is attached', () => hosts[0]!.status().ring.attachments === 1);
  assert.equal(hosts[0]!.status().counters['ring.attached'], 1);
  // no message of the ring: costs the sender its attachment at most
  await probe.asks('send 9999 00ff', /^sent$/);
  await hosts[0]!.stop();
  await probe.says(/^down/);
  assert.equal(hosts[0]!.status().ring.attachments, 0);
  assert.deepEqual([existsSync(ring.ringSocketPath), existsSync(ring.pagePath)], [false, false]);
});
