/** The socket of the local processes: packets cut anywhere, hostile bytes, clients that die or stall. */
import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import type { ClientId } from '../../src/base/ids.js';
import { loadNative } from '../../src/host/native.js';
import { Pump } from '../../src/host/pump.js';
import { eventually, ownDirectory, sleep } from '../support/native-helpers.js';

const MAGIC = 0x4354_4442;

interface Wrong {
  length?: number;
  magic?: number;
  version?: number;
}

function packet(payload: Uint8Array | string, options: Wrong = {}): Buffer {
  const bytes = Buffer.from(payload);
  const whole = Buffer.alloc(32 + bytes.length);
  whole.writeUInt32LE(options.length ?? whole.length, 0);
  whole.writeUInt32LE(options.magic ?? MAGIC, 4);
  whole.writeUInt32LE(options.version ?? 1, 8);
  whole.set(bytes, 32);
  return whole;
}

/** A gate that notes what comes, and answers with the same packet if `echo`. */
class Served {
  readonly path: string;
  readonly pump: Pump;
  readonly story: string[] = [];
  readonly packets = new Map<ClientId, Buffer[]>();
  readonly pids = new Map<ClientId, number>();
  echo = false;
  patient = false;
  batches = 0;
  lastAt = 0;

  constructor(t: TestContext, path = join(ownDirectory(t), 'gate.socket')) {
    this.path = path;
    this.pump = new Pump({
      socketPath: path,
      listener: {
        clientOpened: (client, pid) => {
          this.story.push(`opened ${client}`);
          this.pids.set(client, pid);
          this.packets.set(client, []);
        },
        clientPacket: (client, bytes) => {
          this.packets.get(client)!.push(Buffer.from(bytes));
          this.lastAt = loadNative().now();
          if (this.echo) this.pump.sendPacket(client, bytes);
        },
        clientClosed: (client) => this.story.push(`closed ${client}`),
        frame: () => assert.fail('no frames here'),
        isPatient: () => this.patient,
        endOfBatch: () => {
          this.batches++;
          return Infinity;
        },
      },
    });
    t.after(() => this.pump.close());
  }

  count(name: string): number {
    const value = this.pump.counters()[`socket.${name}`];
    assert.notEqual(value, undefined, name);
    return value!;
  }

  texts(client = 1): string[] {
    return (this.packets.get(client as ClientId) ?? []).map((bytes) => bytes.toString('latin1', 32));
  }
}

async function client(t: TestContext, served: Served): Promise<Socket> {
  const socket = connect(served.path);
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

test('only root can reach the socket, and it goes away with the daemon', (t) => {
  const served = new Served(t);
  assert.equal(statSync(served.path).mode & 0o777, 0o600);
  assert.ok(statSync(served.path).isSocket());
  served.pump.close();
  served.pump.close();
  assert.throws(() => statSync(served.path), { code: 'ENOENT' });
  assert.throws(() => served.pump.counters(), { code: 'ERR_POOL_CLOSED' });
});

test('a stale socket is replaced; one that is served, and another kind of file, are refused', async (t) => {
  const directory = ownDirectory(t);
  const path = join(directory, 'stale.socket');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
  await new Promise((resolve) => spawn(process.execPath, ['-e', script]).once('exit', resolve));
  assert.ok(statSync(path).isSocket(), 'left by a killed process');
  new Served(t, path);
  assert.throws(() => new Served(t, path), { code: 'ERR_POOL_SOCKET_IN_USE' });
  const other = createServer().listen(join(directory, 'other.socket'));
  t.after(() => other.close());
  await new Promise((resolve) => other.once('listening', resolve));
  assert.throws(() => new Served(t, join(directory, 'other.socket')), { code: 'ERR_POOL_SOCKET_IN_USE' });
  writeFileSync(join(directory, 'file'), 'keep me');
  assert.throws(() => new Served(t, join(directory, 'file')), { code: 'ERR_POOL_SOCKET' });
  assert.throws(() => new Served(t, join(directory, 'missing', 'socket')), { code: 'ERR_POOL_SOCKET' });
  assert.throws(() => new Served(t, join(directory, 'x'.repeat(200))), { code: 'ERR_POOL_SOCKET' });
});

test('packets arrive whole and in order wherever the stream is cut, with the pid of the sender', async (t) => {
  const served = new Served(t);
  const socket = await client(t, served);
  const stream = Buffer.concat(['one', '', 'three', 'x'.repeat(1000)].map((text) => packet(text)));
  socket.setNoDelay(true);
  for (let at = 0; at < stream.length; at += 7) {
    socket.write(stream.subarray(at, at + 7));
    if (at % 70 === 0) await sleep(1);
  }
  await eventually('four packets', () => served.texts().length === 4);
  assert.deepEqual(served.texts(), ['one', '', 'three', 'x'.repeat(1000)]);
  assert.equal(served.pids.get(1 as ClientId), process.pid);
});

/** REQ_CONTROL as smbd sends it: opcode, flags. */
function controlPacket(opcode: number, flags: number): Buffer {
  const whole = packet(Buffer.alloc(28));
  whole.writeUInt32LE(7, 16);
  whole.writeUInt32LE(opcode, 32);
  whole.writeUInt32LE(flags, 52);
  return whole;
}

test('news of emptied records wait for company: alone they come later, never out of order', async (t) => {
  const served = new Served(t);
  const socket = await client(t, served);
  served.patient = true;
  socket.write(packet('before'));
  await eventually('the first packet', () => served.texts().length === 1);
  const { now } = loadNative();
  const sent = now();
  socket.write(controlPacket(128, 1));
  await eventually('the news', () => served.texts().length === 2);
  assert.ok(served.lastAt - sent >= 2_000, `came after ${served.lastAt - sent} us`);
  const batches = served.batches;
  const news = controlPacket(128, 1);
  socket.write(Buffer.concat([news, news, packet('after'), news]));
  await eventually('all of them', () => served.texts().length === 6);
  assert.deepEqual(served.texts().map((text) => text === 'after'), [false, false, false, false, true, false]);
  assert.equal(served.batches, batches + 1, 'brought along');
});

test('wrong magic or version: the packet is dropped and counted, the connection kept', async (t) => {
  const served = new Served(t);
  const socket = await client(t, served);
  socket.write(packet('bad', { magic: 0x1234 }));
  socket.write(packet('bad', { version: 9 }));
  socket.write(packet('good'));
  await eventually('the good one', () => served.texts().length === 1);
  assert.deepEqual(served.texts(), ['good']);
  assert.equal(served.count('packet.refused.magic'), 1);
  assert.equal(served.count('packet.refused.version'), 1);
  assert.deepEqual(served.story, ['opened 1']);
});

for (const length of [0, 1, 31, 0x0400_0001, 0xffff_ffff]) {
  test(`a length word of ${length} ends that connection and no other`, async (t) => {
    const served = new Served(t);
    const good = await client(t, served);
    const bad = await client(t, served);
    await eventually('both', () => served.story.length === 2);
    bad.write(Buffer.concat([packet('before'), packet('bad', { length })]));
    await eventually('closed', () => served.story.includes('closed 2'));
    assert.deepEqual(served.texts(2), ['before']);
    assert.equal(served.count('client.closed.length'), 1);
    good.write(packet('still here'));
    await eventually('the other', () => served.texts(1).length === 1);
  });
}

test('packets larger than the buffers travel both ways, also behind and before small ones', async (t) => {
  const served = new Served(t);
  served.echo = true;
  const socket = await client(t, served);
  const texts = ['small', 'L'.repeat(3_000_000), 'M'.repeat(2_000_000), 'end'];
  const sent = Buffer.concat(texts.map((text) => packet(text)));
  const received: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => received.push(bytes));
  socket.write(sent);
  await eventually('all four', () => served.texts().length === 4);
  assert.deepEqual(served.texts().map((text) => text.length), texts.map((text) => text.length));
  await eventually('the echo', () => received.reduce((sum, { length }) => sum + length, 0) >= sent.length);
  assert.ok(Buffer.concat(received).equals(sent));
});

test('many clients at once: each gets its own answers', async (t) => {
  const served = new Served(t);
  served.echo = true;
  const sockets = await Promise.all(Array.from({ length: 40 }, () => client(t, served)));
  const answers = sockets.map((socket) => {
    const chunks: Buffer[] = [];
    socket.on('data', (bytes: Buffer) => chunks.push(bytes));
    return chunks;
  });
  const expected = sockets.map((socket, index) => {
    const stream = Buffer.concat(Array.from({ length: 300 }, (_, i) => packet(`client ${index} packet ${i}`)));
    socket.write(stream);
    return stream;
  });
  await eventually('all answers', () =>
    answers.every((chunks, i) => chunks.reduce((sum, { length }) => sum + length, 0) === expected[i]!.length),
  );
  answers.forEach((chunks, i) => assert.ok(Buffer.concat(chunks).equals(expected[i]!), `client ${i}`));
  assert.equal(served.count('packet.in'), 12_000);
  assert.equal(served.count('packet.out'), 12_000);
});

test('a client killed in the middle of a packet is reported once; answers to it are dropped', async (t) => {
  const served = new Served(t);
  const half = JSON.stringify([...packet('whole'), ...packet('x'.repeat(100)).subarray(0, 50)]);
  const script = `const s = require('net').connect(${JSON.stringify(served.path)}, () => {
    s.write(Buffer.from(${half}), () => setTimeout(() => process.kill(process.pid, 9), 20)); });`;
  const child = spawn(process.execPath, ['-e', script]);
  await eventually('its end', () => served.story.includes('closed 1'));
  assert.equal(served.pids.get(1 as ClientId), child.pid);
  assert.deepEqual(served.texts(), ['whole']);
  served.pump.sendPacket(1 as ClientId, packet('late'));
  served.pump.flush();
  assert.equal(served.count('packet.out-nobody'), 1);
  assert.equal(served.count('client.closed.by-peer'), 1);
  assert.deepEqual(served.story, ['opened 1', 'closed 1']);
});

test('a client that does not read is ended at the bound, and nobody else notices', async (t) => {
  const served = new Served(t);
  const stalled = await client(t, served);
  stalled.pause();
  const other = await client(t, served);
  await eventually('both', () => served.story.length === 2);
  const bytes = packet(Buffer.alloc(1_000_000));
  for (let i = 0; i < 80; i++) {
    served.pump.sendPacket(1 as ClientId, bytes);
    served.pump.flush();
  }
  await eventually('its end', () => served.story.includes('closed 1'));
  assert.equal(served.count('client.closed.output-overflow'), 1);
  other.write(packet('fine'));
  await eventually('the other', () => served.texts(2).length === 1);
});

test('a client that reads slowly gets everything', async (t) => {
  const served = new Served(t);
  const socket = await client(t, served);
  await eventually('it', () => served.story.length === 1);
  let received = 0;
  const bytes = packet(Buffer.alloc(1_000_000, 7));
  for (let i = 0; i < 20; i++) served.pump.sendPacket(1 as ClientId, bytes);
  served.pump.flush();
  socket.on('data', (chunk: Buffer) => {
    received += chunk.length;
    socket.pause();
    setTimeout(() => socket.resume(), 1);
  });
  await eventually('all bytes', () => received === 20 * bytes.length, 20_000);
});

test('ending a connection delivers what was queued before', async (t) => {
  const served = new Served(t);
  const socket = await client(t, served);
  await eventually('it', () => served.story.length === 1);
  const chunks: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => chunks.push(bytes));
  served.pump.sendPacket(1 as ClientId, packet('farewell'));
  served.pump.closeClient(1 as ClientId);
  served.pump.flush();
  await eventually('the end', () => served.story.includes('closed 1'));
  await eventually('the packet', () => Buffer.concat(chunks).equals(packet('farewell')));
  assert.equal(served.count('client.closed.by-us'), 1);
});

test('the timer calls at its deadline, with better than a millisecond', async (t) => {
  const directory = ownDirectory(t);
  const { now } = loadNative();
  let deadline = Infinity;
  const late: number[] = [];
  const pump = new Pump({
    socketPath: join(directory, 's'),
    listener: {
      clientOpened: () => undefined,
      clientPacket: () => undefined,
      clientClosed: () => undefined,
      frame: () => undefined,
      endOfBatch: () => {
        if (now() >= deadline) {
          late.push(now() - deadline);
          deadline = late.length < 50 ? now() + 300 : Infinity;
        }
        return deadline;
      },
    },
  });
  t.after(() => pump.close());
  deadline = now() + 300;
  pump.setDeadline(deadline);
  pump.flush();
  await eventually('fifty calls', () => late.length === 50);
  late.sort((a, b) => a - b);
  t.diagnostic(`late by ${late[25]} us (median), ${late[49]} us (most)`);
  assert.ok(late[25]! < 1000, `median ${late[25]} us late`);
});

test('an exception in a handler is an uncaught exception, as in any callback', async (t) => {
  const path = join(ownDirectory(t), 's');
  const module = JSON.stringify(new URL('../../src/host/pump.js', import.meta.url).href);
  const script = `const { Pump } = await import(${module});
    const { connect } = await import('node:net');
    process.on('uncaughtException', (e) => { console.log('caught ' + e.message); pump.close(); socket.destroy(); });
    const pump = new Pump({ socketPath: ${JSON.stringify(path)}, listener: {
      clientOpened() { throw new Error('mine'); }, endOfBatch() { return Infinity; } } });
    const socket = connect(${JSON.stringify(path)});`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
  let output = '';
  child.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
  child.stderr.on('data', (bytes: Buffer) => (output += bytes.toString()));
  // 'close', not 'exit': by then all it wrote has been read
  const code = await new Promise((resolve) => child.once('close', resolve));
  assert.equal(output.trim(), 'caught mine');
  assert.equal(code, 0, 'and closing there lets the process end');
});

test('the bounds on clients and unfinished input cost only the client that reaches them', async (t) => {
  const path = join(ownDirectory(t), 's');
  const { Pump: NativePumpClass } = loadNative();
  let batches = 0;
  const native = new NativePumpClass({
    inBytes: 65_536,
    outBytes: 65_536,
    gate: { path, clientsMax: 2, inputBytesMax: 100_000 },
    onBatch: () => {
      batches++;
      return 0;
    },
  });
  t.after(() => native.close());
  const count = (name: string): number => native.counters()[`socket.client.${name}`]!;
  const open = async (): Promise<Socket> => {
    const socket = connect(path);
    socket.on('error', () => undefined);
    t.after(() => socket.destroy());
    await new Promise((resolve) => socket.once('connect', resolve));
    return socket;
  };
  const greedy = await open();
  await open();
  await eventually('two clients', () => count('accepted') === 2);
  const third = await open();
  await new Promise((resolve) => third.resume().once('close', resolve));
  assert.equal(count('refused.too-many'), 1);
  // it promises a megabyte and sends a part of it
  greedy.write(packet(Buffer.alloc(150_000), { length: 1_000_000 }));
  await new Promise((resolve) => greedy.resume().once('close', resolve));
  assert.equal(count('closed.input-memory'), 1);
  await eventually('its place is free', () => native.describe().clients === 1);
  await open();
  await eventually('another one', () => count('accepted') === 3);
  const idle = batches;
  await sleep(50);
  assert.ok(batches - idle < 3, 'and then the loop rests');
});

test('out of descriptors, new connections are refused and the loop does not spin', async (t) => {
  const path = join(ownDirectory(t), 's');
  const module = JSON.stringify(new URL('../../src/host/pump.js', import.meta.url).href);
  const script = `const { Pump } = await import(${module});
    const { openSync } = await import('node:fs');
    const pump = new Pump({ socketPath: ${JSON.stringify(path)}, listener: {
      clientOpened() {}, clientPacket() {}, clientClosed() {}, endOfBatch() { return Infinity; } } });
    try { for (;;) openSync('/dev/null'); } catch { console.log('full'); }
    setTimeout(() => { const c = pump.counters();
      console.log(c['socket.client.refused.no-descriptor'] > 0, c['loop.batches'] < 100);
      process.exit(); }, 300);`;
  const limited = `ulimit -n 200; exec "$0" --input-type=module -e "$1"`;
  const child = spawn('bash', ['-c', limited, process.execPath, script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  let output = '';
  child.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
  await eventually('it to be full', () => output.includes('full'));
  const socket = connect(path);
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await ended;
  assert.equal(output.trim(), 'full\ntrue true');
});
