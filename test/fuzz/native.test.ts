/**
 * The decoders of the addon against what comes from outside: frames (changed, cut, replayed, forged) and the byte
 * streams of local processes, cut anywhere and spoilt. A model says for each what must happen; a crash ends the test.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import type { ClientId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import { loadNative } from '../../src/host/native.js';
import type { FrameChannel } from '../../src/host/native.js';
import { Pump } from '../../src/host/pump.js';
import { chooseSeed, eventually, fuzzMs, ownDirectory } from '../support/native-helpers.js';

const SECRET = { poolName: 'fuzz', poolKey: Buffer.alloc(32, 8) };
const PACKET_BYTES_MAX = 64 * 1024 * 1024;
const MAGIC = 0x4354_4442;

function channel(self: number, incarnation: number): FrameChannel {
  const { FrameChannel: FrameChannelClass } = loadNative();
  return new FrameChannelClass({ self, members: [0, 1, 2], incarnation, ...SECRET });
}

function refusals(receiver: FrameChannel): number {
  return Object.entries(receiver.counters())
    .filter(([name]) => name.startsWith('interconnect.refused.'))
    .reduce((sum, [, value]) => sum + value, 0);
}

/** Changes, cuts or lengthens a frame; may by chance leave it as it was. */
function spoil(prng: Prng, frame: Buffer): Buffer {
  const copy = Buffer.from(frame);
  for (let i = 1 + prng.below(3); i > 0; i--) copy[prng.below(copy.length)] = prng.below(256);
  switch (prng.below(4)) {
    case 0:
      return copy.subarray(0, prng.below(copy.length + 1));
    case 1:
      return Buffer.concat([copy, prng.bytes(prng.below(100))]);
    default:
      return copy;
  }
}

test('frames: only what a member sealed for us is opened, once, unchanged; all else is counted', (t) => {
  const prng = new Prng(chooseSeed(t));
  const end = Date.now() + fuzzMs();
  const receiver = channel(1, 1);
  let senderIncarnation = 1;
  let sender = channel(0, senderIncarnation);
  let rounds = 0;
  const kept: Buffer[] = [];
  while (Date.now() < end) {
    rounds++;
    const body = Buffer.from(prng.bytes(1 + prng.below(prng.chance(0.02) ? 60_000 : 300)));
    const frame = sender.seal(1, body)!;
    const before = refusals(receiver);
    const spoilt = spoil(prng, frame);
    // what was only lengthened is still authentic: the wire pads short frames
    const same = spoilt.length >= frame.length && spoilt.subarray(0, frame.length).equals(frame);
    if (!same) {
      assert.equal(receiver.open(spoilt), null);
      assert.equal(receiver.open(Buffer.from(prng.bytes(prng.below(200)))), null);
      assert.equal(refusals(receiver), before + 2);
    }
    assert.deepEqual(receiver.open(frame), { peer: 0, incarnation: senderIncarnation, body });
    assert.equal(receiver.open(frame), null, 'a replay');
    kept.push(frame);
    const old = kept.length > 2000 ? kept.shift()! : prng.pick(kept);
    assert.equal(receiver.open(old), null, 'an older replay');
    if (prng.chance(0.001)) {
      senderIncarnation += 1 + prng.below(1000);
      sender = channel(0, senderIncarnation);
    }
  }
  t.diagnostic(`${rounds} frames`);
  assert.ok(rounds > 100);
});

test('frames: out of order within the window each is opened once; a canary shows that the check notices', (t) => {
  const prng = new Prng(chooseSeed(t));
  const sender = channel(0, 1);
  const receiver = channel(1, 1);
  const frames = Array.from({ length: 3000 }, (_, i) => sender.seal(1, Buffer.from(`frame ${i}`))!);
  // overtaking by less than the window of 1024
  const order = frames.map((frame, i) => ({ frame, at: i + prng.below(900) })).sort((a, b) => a.at - b.at);
  const opened = new Set<string>();
  for (const { frame } of order) {
    const result = receiver.open(frame);
    assert.ok(result?.body !== undefined, 'inside the window');
    opened.add(result.body.toString());
    assert.equal(receiver.open(frame), null);
  }
  assert.equal(opened.size, frames.length);
  assert.equal(receiver.open(sender.seal(1, Buffer.from('next'))!)?.body?.toString(), 'next');
  // the canary: another receiver has seen none of them, so a window shared by mistake would be noticed here
  assert.ok(channel(1, 2).open(frames[0]!) !== null);
  for (let i = 0; i < 1100; i++) receiver.open(sender.seal(1, Buffer.from('advance'))!);
  const late = frames[frames.length - 1]!;
  assert.equal(receiver.open(late), null, 'older than the window');
});

test('frames by two interfaces: one that came is opened once, by whichever; all else is a copy or refused', (t) => {
  const prng = new Prng(chooseSeed(t));
  const end = Date.now() + fuzzMs();
  const sender = channel(0, 1);
  const receiver = channel(1, 1);
  // of each frame that was sent: by which interfaces it came already
  const sent: { frame: Buffer; cameBy: Set<number>; isOpened: boolean }[] = [];
  const seen = { first: 0, copy: 0, again: 0, forged: 0 };
  while (Date.now() < end) {
    const sealed = sender.seal(1, Buffer.from(prng.bytes(1 + prng.below(200))))!;
    sent.push({ frame: sealed, cameBy: new Set(), isOpened: false });
    if (sent.length > 500) sent.shift();
    for (let i = prng.below(5); i > 0; i--) {
      const one = prng.pick(sent);
      const by = prng.below(2);
      const isAgain = one.cameBy.has(by);
      const spoilt = spoil(prng, one.frame);
      if (prng.chance(0.1) && !spoilt.subarray(0, one.frame.length).equals(one.frame)) {
        const result = receiver.open(spoilt, by);
        assert.equal(result?.body, undefined, 'a changed frame was opened');
        // a changed copy is taken for one by its header, and proves nothing
        assert.notEqual(result?.isAuthentic, true);
        // its header may have been that of another frame, which then counts as come
        if (result !== null) for (const other of sent) if (sameNumber(other.frame, spoilt)) other.cameBy.add(by);
        seen.forged++;
        continue;
      }
      const result = receiver.open(one.frame, by);
      if (isAgain) {
        assert.equal(result, null, 'twice by one interface');
        seen.again++;
      } else if (one.isOpened) {
        assert.deepEqual(result, { peer: 0, isAuthentic: true });
        seen.copy++;
      } else {
        assert.ok(result?.body !== undefined, 'the first');
        seen.first++;
      }
      one.cameBy.add(by);
      one.isOpened = true;
    }
  }
  t.diagnostic(JSON.stringify(seen));
  assert.ok(Object.values(seen).every((count) => count > 20), JSON.stringify(seen));
});

/** Whether the headers name one frame: at 20 stands its number (docs/protocol.md). */
function sameNumber(frame: Buffer, other: Buffer): boolean {
  return frame.readBigUInt64LE(20) === other.readBigUInt64LE(20);
}

/** What a stream of packets must lead to: the good packets before the first fatal length word, if there is one. */
interface Expected {
  stream: Buffer;
  good: Buffer[];
  refused: number;
  fatal: boolean;
}

function makeStream(prng: Prng): Expected {
  const expected: Expected = { stream: Buffer.alloc(0), good: [], refused: 0, fatal: false };
  const parts: Buffer[] = [];
  for (let i = prng.below(30); i > 0 && !expected.fatal; i--) {
    const size = prng.chance(0.01) ? 1_200_000 + prng.below(1_000_000) : prng.below(prng.chance(0.1) ? 50_000 : 300);
    const packet = Buffer.concat([Buffer.alloc(32), prng.bytes(size % 5000), Buffer.alloc(size - (size % 5000), i)]);
    packet.writeUInt32LE(packet.length, 0);
    packet.writeUInt32LE(MAGIC, 4);
    packet.writeUInt32LE(1, 8);
    const kind = prng.below(20);
    if (kind === 0) {
      packet.writeUInt32LE(prng.chance(0.5) ? prng.below(32) : PACKET_BYTES_MAX + 1 + prng.below(1 << 30), 0);
      expected.fatal = true;
    } else if (kind === 1) {
      packet.writeUInt32LE((MAGIC ^ (1 + prng.below(0xffff))) >>> 0, 4);
      expected.refused++;
    } else if (kind === 2) {
      packet.writeUInt32LE(2 + prng.below(1000), 8);
      expected.refused++;
    } else {
      expected.good.push(packet);
    }
    parts.push(packet);
  }
  // an unfinished packet at the end is forgotten with the client
  if (!expected.fatal && prng.chance(0.5)) parts.push(Buffer.from([200, 0, 0, 0, ...prng.bytes(prng.below(150))]));
  expected.stream = Buffer.concat(parts);
  return expected;
}

/** Writes in random pieces, then ends or breaks the connection. */
async function play(prng: Prng, path: string, stream: Buffer): Promise<void> {
  const socket: Socket = connect(path);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('connect', resolve));
  for (let at = 0; at < stream.length && !socket.destroyed; ) {
    const count = 1 + prng.below(prng.chance(0.5) ? 50 : 100_000);
    const more = socket.write(stream.subarray(at, at + count));
    at += count;
    if (!more || prng.chance(0.2)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await new Promise<void>((resolve) => (socket.destroyed ? resolve() : socket.end(resolve)));
  socket.destroy();
}

test('streams of local processes: exactly the good packets arrive, whole, whatever surrounds them', async (t) => {
  const seed = chooseSeed(t);
  const path = join(ownDirectory(t), 'socket');
  const received = new Map<ClientId, Buffer[]>();
  const closed = new Set<ClientId>();
  let last = 0;
  const pump = new Pump({
    socketPath: path,
    listener: {
      clientOpened: (client) => {
        last = client;
        received.set(client, []);
      },
      clientPacket: (client, packet) => void received.get(client)!.push(Buffer.from(packet)),
      clientClosed: (client) => void closed.add(client),
      frame: () => assert.fail('no frames'),
      endOfBatch: () => Infinity,
    },
  });
  t.after(() => pump.close());
  const refused = (): number => {
    const counters = pump.counters();
    return counters['socket.packet.refused.magic']! + counters['socket.packet.refused.version']!;
  };
  const end = Date.now() + fuzzMs();
  let rounds = 0;
  for (; Date.now() < end; rounds++) {
    const prng = new Prng(seed + rounds);
    const { stream, good, refused: expectedRefused } = makeStream(prng);
    const refusedBefore = refused();
    const id = last + 1;
    await play(prng, path, stream);
    await eventually('the end of the client', () => closed.has(id as ClientId));
    const packets = received.get(id as ClientId)!;
    assert.equal(packets.length, good.length, `seed ${seed + rounds}`);
    packets.forEach((packet, i) => assert.ok(packet.equals(good[i]!), `seed ${seed + rounds}, packet ${i}`));
    assert.equal(refused() - refusedBefore, expectedRefused, `seed ${seed + rounds}`);
    received.delete(id as ClientId);
  }
  t.diagnostic(`${rounds} streams`);
  assert.ok(rounds > 10);
});
