/** The record operations of the core on a real tdb: outcomes, headers as smbd sees them, chains held by others. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { databaseId, keyOf, nodeId, turn } from '../../src/base/ids.js';
import type { NodeId, RecordKey } from '../../src/base/ids.js';
import type { RecordOp, RecordOutcome } from '../../src/core/effects.js';
import { clearVolatileDirectory, TdbRecordStore, VOLATILE_FLAGS } from '../../src/host/record-store.js';
import { decodeRecordHeader, FLAG_HAVE_DELEGATIONS, FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';
import type { RecordHeader } from '../../src/wire/record-header.js';
import { loadNative } from '../../src/host/native.js';
import type { Tdb } from '../../src/host/native.js';
import { ownDirectory } from '../support/native-helpers.js';
import { Holder } from './holder.js';

const SELF = nodeId(1);
const OTHER = nodeId(2);
const DATABASE = databaseId(0x1234);
const KEY = keyOf(Buffer.from([0, 1, 0xff, 0x80]));
const DATA = Buffer.from('payload');
const DONE: RecordOutcome = { result: 'done' };

class Fixture {
  readonly store: TdbRecordStore;
  readonly path: string;

  constructor(t: TestContext) {
    this.store = new TdbRecordStore(ownDirectory(t), SELF);
    t.after(() => this.store.close());
    const { path, flags } = this.store.open(DATABASE, 'test.tdb');
    assert.equal(flags, VOLATILE_FLAGS);
    this.path = path;
  }

  perform(op: RecordOp, key: RecordKey = KEY): RecordOutcome {
    return this.store.perform(DATABASE, key, op);
  }

  take(at: number, data: Uint8Array = DATA, copyOf: NodeId | null = null): void {
    assert.deepEqual(this.perform({ op: 'take', turn: turn(at), data, copyOf }), DONE);
  }

  /** The stored header, read as another process reads it. */
  header(): RecordHeader | null {
    // a second open in this process would drop the store's locks: look through the store's own handle
    const { tdb } = (this.store as unknown as { databases: Map<number, { tdb: Tdb }> }).databases.get(DATABASE)!;
    const key = Buffer.from(KEY, 'latin1');
    assert.ok(tdb.chainlockNonblock(key));
    const value = tdb.fetch(key);
    tdb.chainunlock(key);
    return value === null ? null : decodeRecordHeader(value);
  }
}

function dataOf(outcome: RecordOutcome): string | undefined {
  assert.equal(outcome.result, 'done');
  return outcome.result === 'done' && outcome.data !== undefined ? Buffer.from(outcome.data).toString() : undefined;
}

const refused = (why: string): unknown => ({ result: 'refused', why });

test('take makes us owner, give writes the new owner and keeps the payload as backup', (t) => {
  const f = new Fixture(t);
  f.take(7);
  assert.deepEqual(f.header(), { rsn: 7, dmaster: SELF, flags: 0 });
  assert.equal(dataOf(f.perform({ op: 'give', turn: turn(8), to: OTHER })), 'payload');
  assert.deepEqual(f.header(), { rsn: 7, dmaster: OTHER, flags: 0 });
  assert.deepEqual(f.perform({ op: 'give', turn: turn(9), to: OTHER }), refused('not-ours'));
  assert.deepEqual(f.perform({ op: 'peek', mode: 'read' }), refused('not-ours'), 'a backup is not for reading');
  assert.deepEqual(f.perform({ op: 'reclaim', turn: turn(10) }), { result: 'done', isEmpty: false });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'read' })), 'payload');
  assert.deepEqual(f.header(), { rsn: 10, dmaster: SELF, flags: 0 });
});

test('keep stores a backup as if we had given the record away, and never over something newer', (t) => {
  const f = new Fixture(t);
  const keep = (at: number, text: string): RecordOutcome =>
    f.perform({ op: 'keep', turn: turn(at), owner: OTHER, data: Buffer.from(text) });
  assert.deepEqual(keep(8, 'kept'), DONE);
  assert.deepEqual(f.header(), { rsn: 7, dmaster: OTHER, flags: 0 });
  assert.deepEqual(f.perform({ op: 'peek', mode: 'read' }), refused('not-ours'), 'a backup is not for reading');
  assert.deepEqual(keep(7, 'older'), refused('other-turn'));
  assert.deepEqual(keep(9, 'newer'), DONE);
  assert.deepEqual(f.perform({ op: 'reclaim', turn: turn(10) }), { result: 'done', isEmpty: false });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'read' })), 'newer');
  assert.deepEqual(keep(11, 'of ours'), refused('ours'));
});

test('share tells local writers to ask first, unshare ends it', (t) => {
  const f = new Fixture(t);
  f.take(1);
  assert.equal(dataOf(f.perform({ op: 'share', turn: turn(1) })), 'payload');
  assert.deepEqual(f.header(), { rsn: 1, dmaster: SELF, flags: FLAG_HAVE_DELEGATIONS });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'read' })), 'payload');
  assert.deepEqual(f.perform({ op: 'peek', mode: 'write' }), refused('shared'));
  assert.equal(f.perform({ op: 'unshare', turn: turn(4) }).result, 'done');
  assert.deepEqual(f.header(), { rsn: 4, dmaster: SELF, flags: 0 });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'write' })), 'payload');
});

test('a copy is for reading only and is discarded up to its turn', (t) => {
  const f = new Fixture(t);
  f.take(5, DATA, OTHER);
  assert.deepEqual(f.header(), { rsn: 5, dmaster: OTHER, flags: FLAG_HAVE_READONLY });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'read' })), 'payload');
  assert.deepEqual(f.perform({ op: 'peek', mode: 'write' }), refused('not-ours'));
  assert.deepEqual(f.perform({ op: 'discard', turn: turn(4), keep: false }), refused('other-turn'));
  assert.deepEqual(f.perform({ op: 'discard', turn: turn(5), keep: false }), DONE);
  assert.equal(f.header(), null);
  assert.deepEqual(f.perform({ op: 'discard', turn: turn(5), keep: false }), DONE, 'nothing there is done too');
});

test('a copy that was stored over the backup becomes the backup', (t) => {
  const f = new Fixture(t);
  f.take(5, DATA, OTHER);
  assert.deepEqual(f.perform({ op: 'discard', turn: turn(4), keep: true }), refused('other-turn'));
  assert.equal(f.perform({ op: 'discard', turn: turn(6), keep: true }).result, 'done');
  assert.deepEqual(f.header(), { rsn: 5, dmaster: OTHER, flags: 0 });
  assert.deepEqual(f.perform({ op: 'peek', mode: 'read' }), refused('not-ours'));
  assert.deepEqual(f.perform({ op: 'reclaim', turn: turn(7) }), { result: 'done', isEmpty: false });
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'read' })), 'payload');
});

test('erase removes only our own empty record of that turn', (t) => {
  const f = new Fixture(t);
  assert.deepEqual(f.perform({ op: 'erase', turn: turn(1) }), refused('absent'));
  f.take(3);
  assert.deepEqual(f.perform({ op: 'erase', turn: turn(3) }), refused('not-empty'));
  assert.deepEqual(f.perform({ op: 'discard', turn: turn(3), keep: false }), refused('ours'));
  f.take(3, new Uint8Array(0));
  assert.deepEqual(f.perform({ op: 'erase', turn: turn(2) }), refused('other-turn'));
  assert.deepEqual(f.perform({ op: 'erase', turn: turn(3) }), DONE);
  assert.equal(f.header(), null);
});

test('what is not there is refused', (t) => {
  const f = new Fixture(t);
  for (const op of [
    { op: 'give', turn: turn(1), to: OTHER },
    { op: 'share', turn: turn(1) },
    { op: 'unshare', turn: turn(1) },
    { op: 'reclaim', turn: turn(1) },
    { op: 'peek', mode: 'read' },
  ] as const) {
    assert.deepEqual(f.perform(op), refused('absent'), op.op);
  }
  assert.deepEqual(f.store.perform(databaseId(9), KEY, { op: 'peek', mode: 'read' }), {
    result: 'failed', why: 'the database is not open',
  });
});

test('a chain held by a smbd makes every operation busy, and nothing changes', async (t) => {
  const f = new Fixture(t);
  const key = keyOf(Buffer.from('plain'));
  assert.equal(f.perform({ op: 'take', turn: turn(1), data: DATA, copyOf: null }, key).result, 'done');
  const holder = new Holder(t);
  await holder.ask({ do: 'open', path: f.path, flags: VOLATILE_FLAGS });
  await holder.ask({ do: 'lock', key: 'plain' });
  const ops: RecordOp[] = [
    { op: 'take', turn: turn(2), data: DATA, copyOf: null },
    { op: 'keep', turn: turn(2), owner: OTHER, data: DATA },
    { op: 'give', turn: turn(2), to: OTHER },
    { op: 'discard', turn: turn(2), keep: false },
    { op: 'reclaim', turn: turn(2) },
    { op: 'peek', mode: 'write' },
  ];
  for (const op of ops) assert.deepEqual(f.perform(op, key), { result: 'busy' }, op.op);
  await holder.kill();
  assert.equal(dataOf(f.perform({ op: 'peek', mode: 'write' }, key)), 'payload');
});

test('records larger than the prepared buffers, and long keys', (t) => {
  const f = new Fixture(t);
  const large = Buffer.alloc(300_000, 'x');
  const key = keyOf(Buffer.alloc(5_000, 'k'));
  assert.equal(f.perform({ op: 'take', turn: turn(1), data: large, copyOf: null }, key).result, 'done');
  const fresh = new TdbRecordStore('/nonexistent', SELF);
  assert.throws(() => fresh.open(DATABASE, 'x.tdb'), { code: 'ENOENT' });
  const outcome = f.perform({ op: 'give', turn: turn(2), to: OTHER }, key);
  assert.equal(dataOf(outcome), large.toString());
});

test('names that are no file names are refused', (t) => {
  const f = new Fixture(t);
  for (const name of ['', '.', '..', 'a/b', '../x', 'nul\0', 'x'.repeat(300)]) {
    assert.throws(() => f.store.open(databaseId(77), name), { code: 'ERR_POOL_DATABASE' }, JSON.stringify(name));
  }
});

test('files of an earlier run are removed, unless a process still has them open', async (t) => {
  const directory = ownDirectory(t);
  const first = new TdbRecordStore(directory, SELF);
  const { path } = first.open(DATABASE, 'left.tdb');
  const holder = new Holder(t);
  await holder.ask({ do: 'open', path, flags: VOLATILE_FLAGS });
  first.close();
  const cleared = clearVolatileDirectory(directory, SELF);
  setTimeout(() => void holder.kill(), 200);
  await cleared;
  assert.equal(loadNative().probeTdbUser(path), 0);
  const second = new TdbRecordStore(directory, SELF);
  t.after(() => second.close());
  second.open(DATABASE, 'left.tdb');
  assert.deepEqual(second.perform(DATABASE, KEY, { op: 'peek', mode: 'read' }), { result: 'refused', why: 'absent' });
});
