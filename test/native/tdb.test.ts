/** The addon's Tdb: under contention with a second process, when that process is killed, and used wrongly. */
import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { loadNative, TDB_DISALLOW_NESTING, TDB_SEQNUM } from '../../src/host/native.js';
import type { Tdb } from '../../src/host/native.js';
import { VOLATILE_FLAGS } from '../../src/host/record-store.js';
import { ownDirectory } from '../support/native-helpers.js';
import { Holder } from './holder.js';

const CREATE = constants.O_RDWR | constants.O_CREAT;
const KEY = Buffer.from('key');
/** On a busy machine; it takes microseconds. */
const STORED_MILLIS_MAX = 5_000;
const PERSISTENT = TDB_DISALLOW_NESTING | TDB_SEQNUM;

function openTdb(t: TestContext, flags: number, hashSize = 1009): { tdb: Tdb; path: string } {
  const path = join(ownDirectory(t), 'test.tdb');
  const { Tdb: TdbClass } = loadNative();
  const tdb = new TdbClass(path, { hashSize, tdbFlags: flags, openFlags: CREATE, mode: 0o600 });
  t.after(() => tdb.close());
  return { tdb, path };
}

function locked<T>(tdb: Tdb, key: Uint8Array, action: () => T): T {
  assert.ok(tdb.chainlockNonblock(key), 'the chain is free');
  try {
    return action();
  } finally {
    tdb.chainunlock(key);
  }
}

async function openBoth(t: TestContext, flags: number): Promise<{ tdb: Tdb; path: string; holder: Holder }> {
  const { tdb, path } = openTdb(t, flags);
  const holder = new Holder(t);
  await holder.ask({ do: 'open', path, flags });
  return { tdb, path, holder };
}

test('a record is stored, read, replaced and deleted', (t) => {
  const { tdb } = openTdb(t, VOLATILE_FLAGS);
  locked(tdb, KEY, () => {
    assert.equal(tdb.fetch(KEY), null);
    assert.equal(tdb.parse(KEY, Buffer.alloc(10)), -1);
    tdb.store(KEY, Buffer.from('first'));
    tdb.store(KEY, Buffer.from('second value'));
    const target = Buffer.alloc(20);
    assert.equal(tdb.parse(KEY, target), 12);
    assert.equal(target.toString('latin1', 0, 12), 'second value');
    assert.equal(tdb.parse(KEY, target.fill(0).subarray(0, 11)), 12, 'the length, though it does not fit');
    assert.equal(target[0], 0, 'nothing copied then');
    tdb.store(KEY, Buffer.alloc(0));
    assert.equal(tdb.fetch(KEY)?.length, 0);
    assert.equal(tdb.delete(KEY), true);
    assert.equal(tdb.delete(KEY), false);
  });
});

test('a chain held by another process is busy, others are not, and it is free afterwards', async (t) => {
  const { tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  assert.equal(await holder.ask({ do: 'lock', key: 'key' }), true);
  assert.equal(tdb.chainlockNonblock(KEY), false);
  let free = 0;
  for (let i = 0; i < 20; i++) {
    const other = Buffer.from(`other ${i}`);
    if (!tdb.chainlockNonblock(other)) continue;
    free++;
    tdb.chainunlock(other);
  }
  assert.ok(free >= 18, `${free} of 20 other keys are free: at most their chain is the same`);
  await holder.ask({ do: 'unlock', key: 'key' });
  locked(tdb, KEY, () => undefined);
});

test('we hold a chain: another process finds it busy', async (t) => {
  const { tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  assert.ok(tdb.chainlockNonblock(KEY));
  assert.equal(await holder.ask({ do: 'lock', key: 'key' }), false);
  tdb.chainunlock(KEY);
  assert.equal(await holder.ask({ do: 'lock', key: 'key' }), true);
});

test('a process killed while it holds a chain leaves it usable, with the last whole record', async (t) => {
  const { tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  await holder.ask({ do: 'lock', key: 'key' });
  await holder.ask({ do: 'store', key: 'key', value: 'from the dead' });
  assert.equal(tdb.chainlockNonblock(KEY), false);
  await holder.kill();
  locked(tdb, KEY, () => assert.equal(tdb.fetch(KEY)?.toString(), 'from the dead'));
});

test('two processes count under one chain and lose nothing', async (t) => {
  const { tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  const rounds = 20_000;
  const other = holder.ask({ do: 'hammer', key: 'key', rounds });
  let busy = 0;
  for (let i = 0; i < rounds; ) {
    if (!tdb.chainlockNonblock(KEY)) {
      busy++;
      continue;
    }
    const value = tdb.fetch(KEY) ?? Buffer.alloc(8);
    value.writeBigUInt64LE(value.readBigUInt64LE() + 1n);
    tdb.store(KEY, value);
    tdb.chainunlock(KEY);
    if (++i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await other, rounds);
  t.diagnostic(`busy ${busy} times`);
  locked(tdb, KEY, () => assert.equal(tdb.fetch(KEY)?.readBigUInt64LE(), BigInt(2 * rounds)));
});

test('the sequence number moves with stores of either process', async (t) => {
  const { tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  const before = tdb.sequenceNumber();
  locked(tdb, KEY, () => tdb.store(KEY, Buffer.from('x')));
  assert.ok(tdb.sequenceNumber() > before, 'our store');
  const stored = tdb.sequenceNumber();
  assert.equal(await holder.ask({ do: 'sequence' }), stored);
  await holder.ask({ do: 'lock', key: 'key' });
  await holder.ask({ do: 'store', key: 'key', value: 'y' });
  assert.ok(tdb.sequenceNumber() > stored, 'the store of the other');
});

test('who has a shared tdb open is found out', async (t) => {
  const path = join(ownDirectory(t), 'test.tdb');
  const { probeTdbUser } = loadNative();
  assert.equal(probeTdbUser(path), 0, 'no such file');
  const { path: open, tdb, holder } = await openBoth(t, VOLATILE_FLAGS);
  // probing drops our own locks on the file, so close first
  tdb.close();
  assert.equal(probeTdbUser(open), holder.pid);
  await holder.kill();
  assert.equal(probeTdbUser(open), 0);
});

test('a transaction is all or nothing, and only one process is in one', async (t) => {
  const { tdb, holder } = await openBoth(t, PERSISTENT);
  assert.ok(tdb.transactionStartNonblock());
  tdb.store(KEY, Buffer.from('never'));
  tdb.transactionCancel();
  assert.equal(tdb.fetch(KEY), null);
  assert.equal(await holder.ask({ do: 'transaction' }), true);
  assert.equal(tdb.transactionStartNonblock(), false, 'the other process is in one');
  await holder.ask({ do: 'store', key: 'key', value: 'theirs' });
  assert.equal(tdb.fetch(KEY), null, 'not committed yet');
  await holder.ask({ do: 'commit' });
  assert.equal(tdb.fetch(KEY)?.toString(), 'theirs');
  assert.ok(tdb.transactionStartNonblock());
  tdb.store(KEY, Buffer.from('ours'));
  tdb.transactionCommit();
  assert.equal(await holder.ask({ do: 'fetch', key: 'key' }), 'ours');
});

test('a process killed in a transaction changes nothing', async (t) => {
  const { tdb, holder } = await openBoth(t, PERSISTENT);
  tdb.store(KEY, Buffer.from('before'));
  await holder.ask({ do: 'transaction' });
  await holder.ask({ do: 'store', key: 'key', value: 'half' });
  await holder.kill();
  assert.equal(tdb.fetch(KEY)?.toString(), 'before');
  assert.ok(tdb.transactionStartNonblock());
  tdb.transactionCancel();
});

test('traversing in slices finds each record once', (t) => {
  const { tdb } = openTdb(t, PERSISTENT, 53);
  for (let i = 0; i < 500; i++) tdb.store(Buffer.from(`key ${i}`), Buffer.from(`value ${i}`));
  const seen = new Map<string, string>();
  let slices = 0;
  for (let chain = 0; chain < tdb.hashSize(); slices++) {
    const { next, records } = tdb.traverse(chain, 20);
    assert.ok(next > chain, 'each slice gets on');
    assert.ok(records.length < 20 + 60, 'a slice ends with the chain that reaches its bound');
    for (const [key, value] of records) {
      assert.ok(!seen.has(key.toString()));
      seen.set(key.toString(), value.toString());
    }
    chain = next;
  }
  assert.equal(seen.size, 500);
  assert.equal(seen.get('key 123'), 'value 123');
  assert.ok(slices > 5);
  tdb.wipe();
  assert.deepEqual(tdb.traverse(0, 10).records, []);
});

test('a shared tdb is not touched without the chain of that very key', (t) => {
  const { tdb } = openTdb(t, VOLATILE_FLAGS);
  const refused = { code: 'ERR_POOL_TDB' };
  assert.throws(() => tdb.fetch(KEY), refused);
  assert.throws(() => tdb.store(KEY, KEY), refused);
  assert.throws(() => tdb.delete(KEY), refused);
  assert.throws(() => tdb.chainunlock(KEY), refused);
  assert.throws(() => tdb.wipe(), refused);
  locked(tdb, KEY, () => {
    assert.throws(() => tdb.fetch(Buffer.from('another')), refused);
    assert.throws(() => tdb.chainlockNonblock(Buffer.from('another')), refused, 'one chain at a time');
    assert.throws(() => tdb.transactionStartNonblock(), refused);
    assert.throws(() => tdb.traverse(0, 1), refused);
  });
});

test('closed, called with nonsense or on another object: an error, never a crash', (t) => {
  const { tdb, path } = openTdb(t, VOLATILE_FLAGS);
  const { Tdb: TdbClass, FrameChannel } = loadNative();
  const options = { hashSize: 10, tdbFlags: 0, openFlags: constants.O_RDWR, mode: 0o600 };
  assert.throws(() => new TdbClass(`${path}.missing`, options), { code: 'ENOENT' });
  assert.throws(() => new TdbClass(path, options), { code: 'EBUSY' }, 'also with other flags');
  const again = { ...options, tdbFlags: VOLATILE_FLAGS };
  assert.throws(() => new TdbClass(path, again), { code: 'EBUSY' }, 'twice in one process');
  locked(tdb, KEY, () => tdb.store(KEY, Buffer.from('unharmed')));
  assert.throws(() => loadNative().probeTdbUser(path), { code: 'EBUSY' });
  assert.throws(() => new TdbClass(path, {} as never), { code: 'ERR_INVALID_ARG_TYPE' });
  for (const nonsense of [undefined, null, 1, 'key', {}, [], new Float64Array(2)]) {
    assert.throws(() => tdb.chainlockNonblock(nonsense as never), { code: 'ERR_INVALID_ARG_TYPE' });
    assert.throws(() => tdb.store(KEY, nonsense as never), { code: 'ERR_INVALID_ARG_TYPE' });
  }
  const channel = new FrameChannel({
    self: 0, members: [0, 1], incarnation: 1, poolName: 'x', poolKey: Buffer.alloc(32),
  });
  const { fetch } = tdb;
  assert.throws(() => fetch.call(channel as never, KEY), TypeError);
  assert.throws(() => fetch.call({} as never, KEY), TypeError);
  assert.ok(tdb.chainlockNonblock(KEY), 'closing gives the chain up too');
  tdb.close();
  tdb.close();
  assert.throws(() => tdb.fetch(KEY), { code: 'ERR_POOL_CLOSED' });
});

test('the addon works in a worker too, and a worker that ends with things open ends cleanly', async (t) => {
  const directory = ownDirectory(t);
  for (let round = 0; round < 3; round++) {
    const worker = new Worker(new URL('./addon-in-worker.js', import.meta.url), { workerData: { directory, round } });
    // heard from the start: a worker that ends at once does so in the tick that brings its last message
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    const answer = await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    assert.equal(answer, 'stored');
    if (round === 2) await worker.terminate();
    else assert.equal(await ended, 0);
  }
});

test('storing does not wait for a process that stopped while it held the list of free space', async (t) => {
  const { path, holder: writer } = await openBoth(t, VOLATILE_FLAGS);
  const other = new Holder(t);
  await other.ask({ do: 'open', path, flags: VOLATILE_FLAGS });
  // each of them leaves deleted records, as smbds do all the time
  await other.ask({ do: 'churn', key: 'other', rounds: 2_000 });
  for (let round = 0; round < 40; round++) {
    const writing = writer.ask({ do: 'churn', key: 'writer', rounds: 5_000 });
    // at another place of its work each time
    await pause(round % 5);
    process.kill(writer.pid, 'SIGSTOP');
    const stored = other.ask({ do: 'churn', key: 'other', rounds: 20 }).then(() => true);
    const waits = pause(STORED_MILLIS_MAX, false, { ref: false });
    try {
      assert.ok(await Promise.race([stored, waits]), `round ${round}: it waits`);
    } finally {
      process.kill(writer.pid, 'SIGCONT');
    }
    await writing;
  }
});
