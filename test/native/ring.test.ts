/** The rings through the addon: real clients in processes of their own attach, talk, stall, lie and die. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { nodeId } from '../../src/base/ids.js';
import { Pump } from '../../src/host/pump.js';
import { decodeNodePage } from '../../src/wire/node-page.js';
import { eventually, ownDirectory, sleep } from '../support/native-helpers.js';
import { RingProbe } from '../support/ring-probe.js';

const OPEN_BEGIN = 4;
const LOCK = 8;
const OPEN_READY = 33;
const MESSAGE_BYTES_MAX = 5104;
const SLOTS = 64;
const GENERATION = 77;
/** Offsets of the node page, native/shared/smbpool_layout.h. */
/** A pump with a ring that notes what comes; answers each OPEN_BEGIN with the same bytes if `echo`. */
class Served {
  readonly path: string;
  readonly pagePath: string;
  readonly gatePath: string;
  readonly pump: Pump;
  readonly story: string[] = [];
  readonly messages: { attachment: number; op: number; payload: Buffer }[] = [];
  echo = false;

  constructor(t: TestContext, directory = ownDirectory(t)) {
    this.path = join(directory, 'ring.socket');
    this.pagePath = join(directory, 'node.page');
    this.gatePath = join(directory, 'gate.socket');
    this.pump = new Pump({
      socketPath: this.gatePath,
      ring: { socketPath: this.path, pagePath: this.pagePath, generation: GENERATION, self: nodeId(3) },
      listener: {
        clientOpened: () => undefined,
        clientPacket: () => this.story.push('packet'),
        clientClosed: () => undefined,
        ring: {
          ringAttached: (attachment, pid) => this.story.push(`attached ${attachment} ${pid}`),
          ringMessage: (attachment, op, payload) => {
            this.story.push(`message ${attachment} ${op}`);
            this.messages.push({ attachment, op, payload: Buffer.from(payload) });
            if (this.echo) this.pump.sendToRing(attachment, OPEN_READY, payload);
          },
          ringDetached: (attachment, bad) => this.story.push(`detached ${attachment}${bad ? ' bad' : ''}`),
        },
        frame: () => assert.fail('no frames here'),
        endOfBatch: () => Infinity,
      },
    });
    t.after(() => this.pump.close());
  }

  async tells(line: string): Promise<void> {
    await eventually(`${line} in ${this.story.slice(-5).join(', ')}`, () => this.story.includes(line));
  }

  count(name: string): number {
    return this.pump.counters()[name]!;
  }
}

/** Holds this thread, as a long turn would. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function ringMappings(): number {
  return readFileSync('/proc/self/maps', 'latin1').split('\n').filter((line) => line.includes('smbpool-ring')).length;
}

test('a client attaches, is heard, answered, and leaves', async (t) => {
  const served = new Served(t);
  served.echo = true;
  const probe = await RingProbe.attached(t, served.path);
  await served.tells(`attached 1 ${probe.pid}`);
  assert.equal(served.pump.attachments(), 1);
  for (const length of [0, 1, 240, 241, MESSAGE_BYTES_MAX]) {
    const payload = Buffer.alloc(length, length).toString('hex');
    assert.equal(await probe.asks(`send ${OPEN_BEGIN} ${payload}`, /^reply/), `reply ${OPEN_READY} ${payload}`);
  }
  assert.equal(served.messages[3]!.payload.length, 241);
  await probe.asks(`send ${OPEN_BEGIN} ${'00'.repeat(MESSAGE_BYTES_MAX + 1)}`, /^bad$/);
  probe.kill();
  await served.tells('detached 1');
  assert.equal(served.pump.attachments(), 0);
  assert.equal(served.count('ring.attached'), 1);
  assert.equal(served.count('ring.detached'), 1);
});

test('what was said right before death is heard first', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  await served.tells(`attached 1 ${probe.pid}`);
  await probe.asks(`post ${LOCK} 01`, /^sent$/);
  probe.kill();
  await served.tells('detached 1');
  assert.deepEqual(served.story.slice(1), [`message 1 ${LOCK}`, 'detached 1']);
});

test('a report that nobody rang for is heard all the same', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  await probe.asks(`post ${LOCK} 02`, /^sent$/);
  await served.tells(`message 1 ${LOCK}`);
});

test('in a turn the ring is heard before the gate', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  const socket = connect(served.gatePath);
  t.after(() => socket.destroy());
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  const packet = Buffer.alloc(32);
  packet.writeUInt32LE(32, 0);
  packet.writeUInt32LE(0x4354_4442, 4);
  packet.writeUInt32LE(1, 8);
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      socket.write(packet);
      probe.tell(`send ${OPEN_BEGIN} 03`);
      block(200);
      resolve();
    });
  });
  await served.tells('packet');
  const order = served.story.filter((line) => line === 'packet' || line.startsWith('message'));
  assert.deepEqual(order, [`message 1 ${OPEN_BEGIN}`, 'packet']);
});

test('a full ring loses nothing of what was accepted', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      probe.tell(`flood ${LOCK} 04`);
      block(300);
      resolve();
    });
  });
  const accepted = Number((await probe.says(/^flooded/)).split(' ')[1]);
  assert.ok(accepted >= SLOTS, `${accepted} messages found room`);
  await eventually('all are heard', () => served.messages.length === accepted);
  await probe.asks(`send ${LOCK} 05`, /^sent$/);
  await eventually('and the next', () => served.messages.at(-1)!.payload[0] === 5);
});

test('replies to a client that does not read are kept in order, and go out when it reads', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  await served.tells(`attached 1 ${probe.pid}`);
  await probe.asks('pause', /^paused$/);
  for (let i = 0; i < 200; i++) served.pump.sendToRing(1, OPEN_READY, Buffer.from([i]));
  served.pump.flush();
  assert.equal(served.count('ring.replies-kept'), 200 - SLOTS);
  await sleep(100);
  probe.tell('resume');
  await eventually('all are read', () => probe.lines.length === 200);
  const order = Array.from({ length: 200 }, (_, i) => `reply 33 ${i.toString(16).padStart(2, '0')}`);
  assert.deepEqual(probe.lines, order);
  await eventually('all went out', () => served.count('ring.replies') === 200);
  assert.equal(served.story.length, 1);
});

test('a client that leaves too much unread loses its attachment, the others do not notice', async (t) => {
  const served = new Served(t);
  const stalled = await RingProbe.attached(t, served.path);
  const other = await RingProbe.attached(t, served.path);
  await stalled.asks('pause', /^paused$/);
  for (let i = 0; i < 6 * SLOTS; i++) served.pump.sendToRing(1, OPEN_READY, Buffer.from([i & 255]));
  served.pump.sendToRing(2, OPEN_READY, Buffer.from([9]));
  served.pump.flush();
  await served.tells('detached 1');
  await stalled.says(/^down/);
  await other.says(/^reply 33 09$/);
  assert.equal(served.count('ring.dropped.backlog'), 1);
  assert.ok(served.count('ring.replies-nobody') > 0);
  assert.equal(served.pump.attachments(), 1);
});

test('a client that waits in the futex is woken', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  await served.tells(`attached 1 ${probe.pid}`);
  probe.tell('wait 8000');
  await sleep(50);
  served.pump.sendToRing(1, OPEN_READY, Buffer.from([1]));
  served.pump.flush();
  await probe.says(/^waited 1$/);
  await probe.says(/^reply 33 01$/);
  assert.equal(served.count('ring.wakes.futex'), 1);
});

test('a client that lies about its ring loses it, the others do not notice', async (t) => {
  const served = new Served(t);
  served.echo = true;
  const liar = await RingProbe.attached(t, served.path);
  const other = await RingProbe.attached(t, served.path);
  await liar.asks('break', /^broken$/);
  await served.tells('detached 1 bad');
  await liar.says(/^down/);
  assert.equal(served.count('ring.bad-rings'), 1);
  await other.asks(`send ${OPEN_BEGIN} 0a`, /^reply 33 0a$/);
});

test('a hundred clients killed while they ask leave nothing behind', async (t) => {
  const served = new Served(t);
  served.echo = true;
  const settle = await RingProbe.attached(t, served.path);
  settle.kill();
  await served.tells('detached 1');
  await eventually('its pipes are closed', () => settle.ended);
  await sleep(20);
  const before = { descriptors: descriptors(), mappings: ringMappings() };
  const crowd = await RingProbe.start(t, served.path, '--crowd', '100');
  await eventually('all are attached', () => served.pump.attachments() === 100, 30_000);
  await eventually('all are heard', () => new Set(served.messages.map(({ attachment }) => attachment)).size >= 100);
  assert.equal(ringMappings(), before.mappings + 100);
  crowd.kill();
  await eventually('all are gone', () => served.pump.attachments() === 0);
  const ends = (): number => served.story.filter((line) => line.startsWith('detached')).length;
  await eventually('all ends are told', () => ends() === 101);
  assert.equal(ringMappings(), before.mappings);
  // those of the programs that this test started go a little later
  await eventually('the descriptors are closed', () => descriptors() === before.descriptors);
  assert.equal(served.count('ring.bad-rings'), 0);
});

test('the node page says what is here, how long it took and what went wrong', async (t) => {
  const served = new Served(t);
  const probe = await RingProbe.attached(t, served.path);
  const key = Buffer.alloc(24, 5);
  const hex = key.toString('hex');
  await probe.asks(`home 1 ${hex}`, /^home 0$/);
  served.pump.setHome(true, 1, key);
  served.pump.recordLatency(0, 5);
  served.pump.flush();
  await probe.asks(`home 1 ${hex}`, /^home 1$/);
  await probe.asks(`home 2 ${hex}`, /^home 0$/);
  served.pump.setHome(false, 1, key);
  served.pump.flush();
  await probe.asks(`home 1 ${hex}`, /^home 0$/);
  served.pump.setServing(true);
  served.pump.recordError(2, 'peer.down', 1_000_000);
  served.pump.recordError(2, 'peer.down', 2_000_000);
  served.pump.recordError(1, 'x'.repeat(500), 3_000_000);
  for (const micros of [0, 3, 3, 900]) served.pump.recordLatency(2, micros);
  served.pump.setHome(true, 2, Buffer.alloc(32, 6));
  served.pump.flush();
  served.pump.beat(Float64Array.from([7, 0, 9]));
  const page = decodeNodePage(readFileSync(served.pagePath));
  assert.deepEqual([page.generation, page.node, page.serving, page.daemonPid], [GENERATION, 3, true, process.pid]);
  assert.ok(Math.abs(page.startedMicros - Date.now() * 1000) < 60_000_000);
  const heartbeatAgo = Number(process.hrtime.bigint() / 1000n) - page.heartbeatMicros;
  assert.ok(heartbeatAgo >= 0 && heartbeatAgo < 10_000_000, `${heartbeatAgo}`);
  assert.deepEqual([page.leaseDeadlineMicros, page.keysHome, page.errorsUnread], [0, 1, 0]);
  const [open, , move, turn] = page.latencies;
  assert.deepEqual(open, { name: 'open: records', count: 1, medianMicros: 5, p99Micros: 5, maxMicros: 5 });
  assert.deepEqual(move, { name: 'move of a record', count: 4, medianMicros: 3, p99Micros: 900, maxMicros: 900 });
  assert.ok(turn!.count > 0, 'the turns of this loop were measured');
  const [newest, other] = page.errors;
  assert.deepEqual(newest, { code: 1, text: 'x'.repeat(216), count: 1, firstMicros: 3_000_000, lastMicros: 3_000_000 });
  assert.deepEqual(other, { code: 2, text: 'peer.down', count: 2, firstMicros: 1_000_000, lastMicros: 2_000_000 });
  assert.deepEqual([page.counters['record.arrived.move'], page.counters['record.arrived.keep']], [7, 9]);
  assert.deepEqual([page.counters['ring.attached'], page.counters['ring.home.added']], [1, 2]);
});

test('a pump that closes ends its clients and takes its files away; its place can be taken', async (t) => {
  const directory = ownDirectory(t);
  const served = new Served(t, directory);
  const probe = await RingProbe.attached(t, served.path);
  assert.throws(() => new Served(t, directory), { code: 'ERR_POOL_RING', message: /another smbpoold serves there/ });
  assert.ok(existsSync(served.pagePath), 'the page of the one that serves stays');
  served.pump.close();
  await probe.says(/^down/);
  assert.deepEqual([existsSync(served.path), existsSync(served.pagePath)], [false, false]);
  // left behind by a daemon that was killed
  writeFileSync(served.pagePath, 'old');
  const again = new Served(t, directory);
  await RingProbe.attached(t, again.path);
});

test('a ring that cannot be made is told with its paths', (t) => {
  const directory = ownDirectory(t);
  writeFileSync(join(directory, 'ring.socket'), 'a file');
  assert.throws(() => new Served(t, directory), { code: 'ERR_POOL_RING', message: /ring\.socket.*check these paths/ });
  assert.equal(readFileSync(join(directory, 'ring.socket'), 'utf8'), 'a file');
});
