/** Persistent databases in their thread: all or nothing, in order, durable across kills, readable by others. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { constants } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { databaseId, nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { PersistentRow } from '../../src/core/effects.js';
import { loadNative, TDB_DISALLOW_NESTING, TDB_SEQNUM } from '../../src/host/native.js';
import { TdbPersistentStore } from '../../src/host/persistent-store.js';
import { SEQUENCE_KEY } from '../../src/wire/persistent-rows.js';
import { encodeRecord } from '../../src/wire/record-header.js';
import { chooseSeed, ownDirectory, sleep } from '../support/native-helpers.js';
import { Holder } from './holder.js';

const DATABASE = databaseId(5);
const OTHER = databaseId(6);
const SELF = nodeId(0);
const FLAGS = TDB_DISALLOW_NESTING | TDB_SEQNUM;

function row(key: string, value: string): PersistentRow {
  return { key: Buffer.from(key), value: encodeRecord({ rsn: 1, dmaster: 0, flags: 0 }, Buffer.from(value)) };
}

function sequenceRow(sequence: number): PersistentRow {
  const data = Buffer.alloc(8);
  data.writeBigUInt64LE(BigInt(sequence));
  return { key: SEQUENCE_KEY, value: encodeRecord({ rsn: 1, dmaster: 0, flags: 0 }, data) };
}

function textOf(rows: readonly PersistentRow[] | undefined): string[] {
  const text = (bytes: Uint8Array, from = 0): string => Buffer.from(bytes).toString('latin1', from);
  return (rows ?? [])
    .filter(({ key }) => Buffer.compare(key, SEQUENCE_KEY) !== 0)
    .map(({ key, value }) => `${text(key)}=${text(value, 24)}`)
    .sort();
}

async function openStore(t: TestContext): Promise<{ store: TdbPersistentStore; path: string }> {
  const store = new TdbPersistentStore(ownDirectory(t), SELF);
  t.after(() => store.close());
  const { path, flags } = await store.open(DATABASE, 'secrets.tdb');
  assert.equal(flags, FLAGS);
  return { store, path };
}

test('rows are applied, read back with the sequence number, and replaced', async (t) => {
  const { store } = await openStore(t);
  assert.deepEqual(await store.perform(DATABASE, { op: 'read' }), { ok: true, rows: [], sequence: 0 });
  const applied = await store.perform(DATABASE, { op: 'apply', rows: [row('a', '1'), row('b', '2'), sequenceRow(1)] });
  assert.deepEqual(applied, { ok: true, sequence: 1 });
  await store.perform(DATABASE, { op: 'apply', rows: [row('b', '3'), row('c', ''), sequenceRow(2)] });
  const read = await store.perform(DATABASE, { op: 'read' });
  assert.ok(read.ok);
  assert.equal(read.sequence, 2);
  assert.deepEqual(textOf(read.rows), ['a=1', 'b=3', 'c=']);
  assert.deepEqual(await store.perform(DATABASE, { op: 'replace', rows: [row('z', '9'), sequenceRow(7)] }), {
    ok: true, sequence: 7,
  });
  const replaced = await store.perform(DATABASE, { op: 'read' });
  assert.deepEqual(replaced.ok && textOf(replaced.rows), ['z=9']);
});

test('works of one database are performed in the order they were asked', async (t) => {
  const { store } = await openStore(t);
  const works = Array.from({ length: 50 }, (_, i) =>
    store.perform(DATABASE, { op: 'apply', rows: [row('k', String(i)), sequenceRow(i + 1)] }),
  );
  const results = await Promise.all(works);
  assert.deepEqual(results, works.map((_, i) => ({ ok: true, sequence: i + 1 })));
});

test('rows that are views of large buffers cross alone, and the caller may reuse them at once', async (t) => {
  const { store } = await openStore(t);
  const shared = Buffer.alloc(1 << 20);
  shared.write('key!');
  shared.set(encodeRecord({ rsn: 1, dmaster: 0, flags: 0 }, Buffer.from('value')), 8);
  const done = store.perform(DATABASE, {
    op: 'apply', rows: [{ key: shared.subarray(0, 4), value: shared.subarray(8, 8 + 29) }],
  });
  shared.fill(0);
  await done;
  const read = await store.perform(DATABASE, { op: 'read' });
  assert.deepEqual(read.ok && textOf(read.rows), ['key!=value']);
});

test('another process sees whole commits; its transaction makes us wait, not fail', async (t) => {
  const { store, path } = await openStore(t);
  const holder = new Holder(t);
  await holder.ask({ do: 'open', path, flags: FLAGS });
  await store.perform(DATABASE, { op: 'apply', rows: [row('a', 'seen')] });
  assert.match(String(await holder.ask({ do: 'fetch', key: 'a' })), /seen$/);
  await holder.ask({ do: 'transaction' });
  let finished = false;
  const waiting = store.perform(DATABASE, { op: 'apply', rows: [row('a', 'later')] }).then((result) => {
    finished = true;
    return result;
  });
  await sleep(100);
  assert.equal(finished, false);
  await holder.ask({ do: 'commit' });
  assert.equal((await waiting).ok, true);
});

test('a database that cannot be opened, is not open or is closed: an answer, not a crash', async (t) => {
  const { store } = await openStore(t);
  await assert.rejects(store.open(OTHER, '../escape'), { code: 'ERR_POOL_DATABASE' });
  assert.deepEqual(await store.perform(OTHER, { op: 'read' }), { ok: false, why: 'the database is not open' });
  assert.deepEqual(await store.open(DATABASE, 'secrets.tdb'), await store.open(DATABASE, 'secrets.tdb'));
  const last = store.perform(DATABASE, { op: 'apply', rows: [row('x', 'y')] });
  await store.close();
  assert.equal((await last).ok, true, 'what was asked before the end is done');
  await store.close();
  assert.equal((await store.perform(DATABASE, { op: 'read' })).ok, false);
  await assert.rejects(store.open(OTHER, 'other.tdb'), { code: 'ERR_POOL_DATABASE' });
});

test('killed at any moment, the file holds exactly the commits up to one, at least those answered', async (t) => {
  const prng = new Prng(chooseSeed(t));
  const directory = ownDirectory(t);
  let answered = 0;
  for (let round = 0; round < 8; round++) {
    const child = fork(new URL('./persistent-writer.js', import.meta.url), [directory, String(answered)]);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.on('message', (sequence: number) => (answered = sequence));
    await new Promise((resolve) => child.once('message', resolve));
    await sleep(prng.below(40));
    child.kill('SIGKILL');
    await ended;
    const { Tdb } = loadNative();
    const options = { hashSize: 0, tdbFlags: FLAGS, openFlags: constants.O_RDWR, mode: 0o600 };
    const tdb = new Tdb(join(directory, 'crash.tdb.0'), options);
    const number = (key: Uint8Array): number => Number(tdb.fetch(key)?.readBigUInt64LE(24) ?? 0);
    const sequence = number(SEQUENCE_KEY);
    // a commit may have been finished and its answer lost
    assert.ok(sequence >= answered && sequence <= answered + 2, `${sequence} in the file, ${answered} answered`);
    for (const name of ['left', 'middle', 'right']) assert.equal(number(Buffer.from(name)), sequence, name);
    tdb.close();
    answered = sequence;
  }
  assert.ok(answered > 8, `${answered} commits in all`);
});
