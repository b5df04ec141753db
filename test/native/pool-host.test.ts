/** Whole hosts over UDP, raw Ethernet and with frames lost: they meet, move records between real tdbs, stop. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { incarnation } from '../../src/base/ids.js';
import { PoolHost } from '../../src/host/pool-host.js';
import type { TransportOptions } from '../../src/host/pool-host.js';
import { makeInterfaces, whyNoEthernet } from '../support/ethernet-bridge.js';
import { GateClient } from '../support/gate-client.js';
import { freePort, optionsFor, startPool, udp } from '../support/host-pool.js';
import type { Pool } from '../support/host-pool.js';
import { eventually, ownDirectory, sleep } from '../support/native-helpers.js';
import { RingProbe } from '../support/ring-probe.js';

const noEthernet = whyNoEthernet();

async function moveRecordsAround(t: TestContext, pool: Pool): Promise<void> {
  const clients = pool.options.map(({ socketPath }) => new GateClient(t, socketPath));
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
  const transports = makeInterfaces(t, 3).map((name, self): TransportOptions => {
    return { kind: 'ethernet', ways: [{ interface: name, peers: [0, 1, 2].filter((id) => id !== self) }] };
  });
  const pool = await startPool(t, transports);
  await moveRecordsAround(t, pool);
  const { peers } = pool.hosts[0]!.status().interconnect;
  assert.match(peers[0]!.addresses[0]!, /^[0-9a-f:]{17}$/);
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
  const client = new GateClient(t, options[0]!.socketPath);
  await client.attach('brlock.tdb');
  await hosts[0]!.stop();
  await hosts[0]!.stop();
  await assert.rejects(hosts[0]!.describeRecord('brlock.tdb', Buffer.from('x')), { code: 'ERR_POOL_STOPPED' });
  assert.equal(hosts[0]!.status().counters['socket.packet.in'], undefined);
  const again = await PoolHost.start({ ...options[0]!, incarnation: incarnation(Date.now() + 1) });
  t.after(() => again.stop());
  await new GateClient(t, options[0]!.socketPath).attach('brlock.tdb');
});

test('a host refuses to start where it cannot serve, and leaves nothing behind', async (t) => {
  const [transport] = await udp(1);
  const options = optionsFor(ownDirectory(t), 0, transport!, 1);
  const host = await PoolHost.start(options);
  t.after(() => host.stop());
  await new GateClient(t, options.socketPath).attach('leases.tdb');
  const elsewhere = { ...options, volatileDirectory: `${options.volatileDirectory}2` };
  await assert.rejects(PoolHost.start(elsewhere), { code: 'ERR_POOL_ADDRESS' });
  const way = { address: '127.0.0.1', port: await freePort(), peers: [] };
  const other: TransportOptions = { kind: 'udp', ways: [way] };
  await assert.rejects(PoolHost.start({ ...elsewhere, transport: other }), { code: 'ERR_POOL_SOCKET_IN_USE' });
  const own = { ...elsewhere, transport: other, socketPath: `${options.socketPath}2` };
  const missing: TransportOptions = { kind: 'ethernet', ways: [{ interface: 'nosuch0', peers: [] }] };
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
  const { hosts, options } = await startPool(t, await udp(1), {}, 'with rings');
  const ringSocket = options[0]!.ringSocketPath!;
  const probe = await RingProbe.attached(t, ringSocket);
  await eventually('it is attached', () => hosts[0]!.status().ring.attachments === 1);
  assert.equal(hosts[0]!.status().counters['ring.attached'], 1);
  // no message of the ring: costs the sender its attachment at most
  await probe.asks('send 9999 00ff', /^sent$/);
  await hosts[0]!.stop();
  await probe.says(/^down/);
  assert.equal(hosts[0]!.status().ring.attachments, 0);
  assert.deepEqual([existsSync(ringSocket), existsSync(options[0]!.pagePath!)], [false, false]);
});
