/**
 * Garbage from the wire: spoiled frames against the seal, spoiled bodies and messages against their decoders, and a
 * whole node whose peer is authentic but talks nonsense. Only DecodeError may be thrown by a decoder, nothing by the
 * node, and what was decoded encodes to the same value.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { databaseId, epoch, incarnation, keyOf, nodeId, turn } from '../../src/base/ids.js';
import type { NodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import { databaseIdOf } from '../../src/base/jenkins.js';
import type { Effect, Input, RecordOutcome } from '../../src/core/effects.js';
import { PoolNode } from '../../src/core/node.js';
import { loadNative } from '../../src/host/native.js';
import type { Frame, FrameContent, FrameHeader } from '../../src/wire/frame.js';
import { decodeFrame, encodeFrame } from '../../src/wire/frame.js';
import { encodeGateMessage } from '../../src/wire/gate-messages.js';
import { decodeRecordMessage, encodeRecordMessage } from '../../src/wire/record-messages.js';
import type { RecordMessage } from '../../src/wire/record-messages.js';
import { ANNOUNCEMENT } from '../support/announcement.js';
import { SEED, fuzz, spoil } from '../support/fuzzing.js';

console.log(`seed ${SEED}`);

const LOCKING = databaseIdOf('locking.tdb');
const OPENS = databaseIdOf('smbXsrv_open_global.tdb');
const PEERS = [nodeId(1), nodeId(2)];

test('canary: a decoder that throws something else is found', () => {
  const careless = (bytes: Uint8Array): void => {
    if (bytes.length > 3 && bytes[0] === 0xff) throw new RangeError('not a DecodeError');
  };
  const round = (prng: Prng): void => void decodes(careless, spoil(prng, new Uint8Array(8)));
  assert.throws(() => fuzz(round, 10), /SEED=\d+: not a DecodeError/);
});

/** Decodes; the value, or null when the bytes were refused. */
function decodes<T>(decode: (bytes: Uint8Array) => T, bytes: Uint8Array): T | null {
  try {
    return decode(bytes);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

test('frame bodies', () => {
  fuzz((prng) => {
    const bytes = prng.chance(0.1) ? prng.bytes(prng.below(200)) : spoil(prng, randomFrame(prng));
    const frame = decodes(decodeFrame, bytes);
    if (frame !== null) assert.deepEqual(decodeFrame(encodeFrame(frame, contentOf(frame))), frame);
  });
});

function contentOf(frame: Frame): FrameContent {
  return frame;
}

function randomFrame(prng: Prng): Uint8Array {
  const header: FrameHeader = {
    epoch: epoch(prng.below(3)),
    toIncarnation: incarnation(prng.u32()),
    window: 1 + prng.below(64),
    stream: 1 + prng.below(3),
    ackStream: prng.below(3),
    ack: prng.below(100),
    ackMapLow: prng.u32() & ~1,
    ackMapHigh: prng.u32(),
  };
  const times = { sentAt: prng.u32(), echoOf: prng.u32(), echoHeldMicros: prng.u32() };
  const min = 1 + prng.below(3);
  const announcement = { speaks: { min, max: min + prng.below(3) }, release: prng.pick(['', '0.1.0', '~'.repeat(32)]) };
  const records = Array.from({ length: 1 + prng.below(4) }, () => {
    return { first: prng.chance(0.5), last: prng.chance(0.5), bytes: prng.bytes(prng.below(40)) };
  });
  return encodeFrame(
    header,
    prng.pick<FrameContent>([
      { kind: 'hello', answerWanted: prng.chance(0.5), times, announcement },
      { kind: 'heartbeat', times, announcement },
      { kind: 'data', sequence: 1 + prng.below(100), records },
      { kind: 'ack' },
    ]),
  );
}

/** A record message, of few keys and turns, so that messages have to do with each other. */
function randomRecordMessage(prng: Prng): RecordMessage {
  const database = prng.pick([LOCKING, LOCKING, OPENS, databaseId(7)]);
  const key = keyOf(prng.bytes(1).map((byte) => byte % 3));
  const head = { database, key, turn: turn(prng.pick([0, 1, 2, prng.below(9), 2 ** 52])) };
  const node = nodeId(prng.pick([0, 1, 2, 5, 63]));
  const run = prng.pick([1, 2, prng.u32()]);
  const mode = prng.pick(['read', 'write'] as const);
  const number = prng.below(4);
  const what = prng.pick(['move', 'fresh', 'keep', 'copy'] as const);
  return prng.pick<RecordMessage>([
    { kind: 'ask', asker: node, run, mode, keys: [{ database, key }] },
    { kind: 'give', ...head, to: node, run, mode },
    { kind: 'record', ...head, run, what, owner: node, data: prng.bytes(prng.below(9)) },
    { kind: prng.pick(['have', 'revoke', 'revoked', 'release', 'drop', 'missing', 'reclaim'] as const), ...head },
    { kind: 'mirror', ...head, to: node },
    { kind: 'backup', ...head, data: prng.bytes(prng.below(9)) },
    { kind: 'kept', ...head },
    { kind: 'not-kept', ...head },
    { kind: prng.pick(['exists', 'gone'] as const), database, keys: [key] },
    { kind: prng.pick(['barrier', 'barrier-passed'] as const), number },
    { kind: 'claim', ...head, what: prng.pick(['owner', 'backup'] as const) },
    {
      kind: 'many', of: prng.pick(['claim', 'reclaim', 'have'] as const), what: prng.pick(['owner', 'backup'] as const),
      database, records: Array.from({ length: 1 + prng.below(3) }, () => ({ key, turn: head.turn })),
    },
    { kind: prng.pick(['claims-done', 'keys-unknown', 'view'] as const), epoch: epoch(1 + prng.below(3)) },
    { kind: prng.pick(['claim-now', 'claimed-now'] as const), epoch: epoch(1 + prng.below(3)), database, key },
    { kind: 'orphans', database, epoch: epoch(1 + prng.below(3)), keys: [key] },
    { kind: 'orphans-done', database, epoch: epoch(1 + prng.below(3)) },
    { kind: 'describe', database, key, number },
    { kind: 'description', number, text: prng.pick(['', '{}', '{"error":"x"}', 'null', '[']) },
  ]);
}

test('record messages', () => {
  fuzz((prng) => {
    const bytes = spoil(prng, encodeRecordMessage(randomRecordMessage(prng)));
    const message = decodes(decodeRecordMessage, bytes);
    if (message !== null) assert.deepEqual(decodeRecordMessage(encodeRecordMessage(message)), message);
  });
});

test('sealed frames: nothing but what a peer sealed, once, is opened', () => {
  const { FrameChannel } = loadNative();
  const options = { members: [0, 1], incarnation: 9, poolName: 'fuzz', poolKey: new Uint8Array(32).fill(7) };
  const sender = new FrameChannel({ self: 0, ...options });
  const receiver = new FrameChannel({ self: 1, ...options });
  fuzz((prng) => {
    const body = prng.bytes(1 + prng.below(100));
    const frame = sender.seal(1, body);
    assert.ok(frame);
    const spoilt = spoil(prng, frame);
    // what follows the frame's own length is padding
    const isGenuine = Buffer.from(spoilt).subarray(0, frame.length).equals(frame);
    if (!isGenuine) assert.equal(receiver.open(spoilt), null);
    assert.deepEqual(receiver.open(frame)?.body, Buffer.from(body));
    assert.equal(receiver.open(frame), null, 'a second time');
  });
});

/** A node with two peers, played by the test with authentic frames. Its store takes records and gives none. */
class Victim {
  private now = 1_000_000;
  private readonly sequences = new Map<NodeId, number>();
  readonly node = new PoolNode({
    self: nodeId(0),
    servers: [0, 1, 2].map(nodeId),
    incarnation: incarnation(5),
    frameBodyBytesMax: 1400,
    receiveFramesMax: 256,
    gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
  });

  constructor(private readonly prng: Prng) {
    const members = [0, 1, 2].map((node) => {
      return { node: nodeId(node), incarnation: incarnation(node === 0 ? 5 : 3), since: epoch(1) };
    });
    const view = { epoch: epoch(1), leader: nodeId(1), members, protocol: 1, holders: [], former: [], past: [] };
    this.step({ kind: 'view', view });
    for (const peer of PEERS) {
      const times = { sentAt: 1, echoOf: 0, echoHeldMicros: 0 };
      this.frame(peer, { kind: 'hello', answerWanted: true, times, announcement: ANNOUNCEMENT });
      this.message(peer, encodeRecordMessage({ kind: 'view', epoch: epoch(1) }));
    }
    for (const name of ['locking.tdb', 'smbXsrv_open_global.tdb']) {
      const database = databaseIdOf(name);
      const announcement = { kind: 'database', database, type: 'volatile', readonly: false, name } as const;
      this.message(prng.pick(PEERS), encodeGateMessage(announcement));
    }
    assert.deepEqual(this.node.status().awaiting, [], 'messages arrive');
  }

  message(peer: NodeId, bytes: Uint8Array): void {
    const sequence = (this.sequences.get(peer) ?? 0) + 1;
    this.sequences.set(peer, sequence);
    this.frame(peer, { kind: 'data', sequence, records: [{ first: true, last: true, bytes }] });
  }

  private frame(peer: NodeId, content: FrameContent): void {
    const header: FrameHeader = {
      epoch: epoch(1), toIncarnation: incarnation(5), window: 64, stream: 1, ackStream: 0, ack: 0, ackMapLow: 0,
      ackMapHigh: 0,
    };
    const body = encodeFrame(header, content);
    this.step({ kind: 'frame', peer, incarnation: incarnation(3), body });
    this.step({ kind: 'turn-end' });
    this.now += this.prng.below(3_000);
    if (this.node.deadline() <= this.now) this.step({ kind: 'tick' });
  }

  private step(input: Input): void {
    const effects = this.node.step(input, this.now);
    for (const effect of effects) this.perform(effect);
  }

  private perform(effect: Effect): void {
    if (effect.kind === 'database-open') {
      this.step({ kind: 'database-opened', database: effect.database, path: `/${effect.name}`, flags: 0 });
    } else if (effect.kind === 'record') {
      const { database, key, op } = effect;
      const outcome: RecordOutcome = op.op === 'take' ? { result: 'done' } : { result: 'refused', why: 'absent' };
      this.step({ kind: 'record-done', database, key, op, outcome });
    }
  }
}

test('peers that are authentic and talk nonsense', () => {
  fuzz((prng) => {
    const victim = new Victim(prng);
    for (let i = 0; i < 30; i++) {
      const good = encodeRecordMessage(randomRecordMessage(prng));
      const type = Uint8Array.of(prng.below(256));
      const noise = Buffer.concat([type, prng.bytes(prng.below(20))]);
      victim.message(prng.pick(PEERS), prng.pick([good, good, good, spoil(prng, good), noise, type]));
    }
  });
});
