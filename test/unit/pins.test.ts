/** Pins: an operation's records come in one batch, stay for its length, and not longer than others can wait. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { databaseId } from '../../src/base/ids.js';
import type { RecordKey } from '../../src/base/ids.js';
import type { AccessMode } from '../../src/core/effects.js';
import { KEYS_PER_OPERATION_MAX, PIN_MICROS } from '../../src/core/records/pins.js';
import type { NeededRecord } from '../../src/core/records/pins.js';
import { RecordsPool, keysWithHome } from '../support/records-pool.js';

const LOCKING = databaseId(1);
/** What core/records/holdings allows while another server waits. */
const COHORT_MICROS = 20_000;
const COHORT_OPERATIONS_MAX = 16;

let lastNumber = 0;
let lastToken = 0;

interface Begun {
  number: number;
  /** Null: not answered yet. */
  all: boolean | null;
}

function begin(pool: RecordsPool, server: number, keys: RecordKey[], mode: AccessMode = 'write'): Begun {
  const begun: Begun = { number: ++lastNumber, all: null };
  const names = keys.map((key): NeededRecord => ({ database: LOCKING, key, mode }));
  pool.server(server).act((records) => records.beginOperation(begun.number, names, (all) => (begun.all = all)));
  return begun;
}

function end(pool: RecordsPool, server: number, { number }: Begun): void {
  pool.server(server).act((records) => records.endOperation(number));
}

function migrate(pool: RecordsPool, server: number, key: RecordKey): number {
  const token = ++lastToken;
  pool.server(server).act((records) => records.migrate(LOCKING, key, token));
  return token;
}

function isAnswered(pool: RecordsPool, server: number, token: number): boolean {
  return pool.server(server).answers.has(token);
}

/** Keys with the given home. */
test('a batch asks each home once and is ready when all records are here', () => {
  const pool = new RecordsPool(3);
  const keys = [...keysWithHome(pool, 1, 3), ...keysWithHome(pool, 2, 2)];
  const batch = begin(pool, 0, keys);
  pool.deliver('0>1');
  assert.equal(pool.busyWires().includes('0>1'), false, 'one message for three keys');
  while (pool.busyWires().includes('1>0')) pool.deliver('1>0');
  assert.equal(batch.all, null, 'two are missing');
  pool.deliverAll();
  assert.equal(batch.all, true);
  for (const key of keys) assert.equal(pool.find(0, LOCKING, key)?.dmaster, 0);
});

test('where several have waited, each gets the time of one', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 0, 1);
  migrate(pool, 0, key!);
  const tokens = [1, 2, 3].map(() => migrate(pool, 1, key!));
  pool.deliverAll();
  pool.advance(1_100);
  for (const token of tokens) assert.ok(isAnswered(pool, 1, token));
  const next = migrate(pool, 0, key!);
  pool.deliverAll();
  pool.advance(2_700);
  assert.ok(!isAnswered(pool, 0, next));
  pool.advance(400);
  assert.ok(isAnswered(pool, 0, next));
});

test('pinned records stay until the operation ends, and leave then', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  const batch = begin(pool, 0, [key!]);
  pool.deliverAll();
  const other = migrate(pool, 1, key!);
  pool.deliverAll();
  pool.advance(PIN_MICROS - 1_000);
  assert.equal(isAnswered(pool, 1, other), false);
  end(pool, 0, batch);
  pool.deliverAll();
  assert.equal(isAnswered(pool, 1, other), true);
});

test('an operation that is never ended keeps its records for the length of a pin', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  const batch = begin(pool, 0, [key!]);
  pool.deliverAll();
  const other = migrate(pool, 1, key!);
  pool.advance(PIN_MICROS + 1_000);
  assert.equal(batch.all, true);
  assert.equal(isAnswered(pool, 1, other), true);
});

test('while another server waits, no chain of operations keeps the record for longer than a cohort', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  let running = begin(pool, 0, [key!]);
  pool.deliverAll();
  const other = migrate(pool, 1, key!);
  pool.deliverAll();
  const since = pool.time;
  while (!isAnswered(pool, 1, other)) {
    assert.ok(pool.time - since <= COHORT_MICROS + 2_000, 'kept for too long');
    const next = begin(pool, 0, [key!]);
    end(pool, 0, running);
    running = next;
    pool.advance(2_000);
  }
  assert.ok(pool.time - since >= COHORT_MICROS, 'not taken away before');
});

test('while another server waits, only so many operations keep the record', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  const first = begin(pool, 0, [key!]);
  pool.deliverAll();
  pool.advance(1_500);
  const other = migrate(pool, 1, key!);
  pool.deliverAll();
  const cohort = Array.from({ length: COHORT_OPERATIONS_MAX }, () => begin(pool, 0, [key!]));
  end(pool, 0, first);
  for (const operation of cohort.slice(1)) end(pool, 0, operation);
  pool.deliverAll();
  assert.equal(isAnswered(pool, 1, other), false, 'the first of the cohort still runs');
  const late = begin(pool, 0, [key!]);
  assert.equal(late.all, true, 'the record is here');
  end(pool, 0, cohort[0]!);
  pool.deliverAll();
  assert.equal(isAnswered(pool, 1, other), true, 'one more than the cohort does not keep it');
});

test('two batches that meet half-way both get all their records', () => {
  const pool = new RecordsPool(2);
  const [a, b] = [keysWithHome(pool, 0, 1)[0]!, keysWithHome(pool, 1, 1)[0]!];
  // each server has what the other asks for first
  migrate(pool, 0, b);
  migrate(pool, 1, a);
  pool.deliverAll();
  const batches = [begin(pool, 0, [a, b]), begin(pool, 1, [b, a])];
  for (let i = 0; i < 60 && batches.some(({ all }) => all === null); i++) {
    pool.advance(1_000);
    batches.forEach((batch, server) => {
      if (batch.all !== null) end(pool, server, batch);
    });
  }
  assert.deepEqual(batches.map(({ all }) => all), [true, true]);
});

test('an operation with too many keys is told so', () => {
  const pool = new RecordsPool(1);
  assert.equal(begin(pool, 0, keysWithHome(pool, 0, KEYS_PER_OPERATION_MAX)).all, true);
  assert.equal(begin(pool, 0, keysWithHome(pool, 0, KEYS_PER_OPERATION_MAX + 1)).all, false);
});

test('an operation that only reads is content with a copy, and later ones with the same', () => {
  const pool = new RecordsPool(3);
  const [key] = keysWithHome(pool, 1, 1);
  migrate(pool, 0, key!);
  pool.deliverAll();
  pool.find(0, LOCKING, key!)!.data = 'ranges';
  pool.advance(2_000);
  const first = begin(pool, 2, [key!], 'read');
  pool.advance(2_000);
  assert.equal(first.all, true);
  end(pool, 2, first);
  assert.equal(pool.find(0, LOCKING, key!)?.dmaster, 0);
  // and nothing crosses the wire any more
  const again = [begin(pool, 2, [key!], 'read'), begin(pool, 0, [key!], 'read')];
  assert.deepEqual(again.map(({ all }) => all), [true, true]);
});

test('a copy stays for the operation that reads it, and goes then, though others begin', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 0, 1);
  migrate(pool, 0, key!);
  pool.find(0, LOCKING, key!)!.data = 'ranges';
  pool.advance(2_000);
  const reading = begin(pool, 1, [key!], 'read');
  pool.advance(2_000);
  assert.equal(reading.all, true);
  const writing = begin(pool, 0, [key!]);
  pool.advance(PIN_MICROS / 4);
  assert.equal(writing.all, null);
  // begun after the home wanted the copy back: it finds the copy, and keeps it no longer
  const late = begin(pool, 1, [key!], 'read');
  assert.equal(late.all, true);
  end(pool, 1, reading);
  pool.advance(1_000);
  assert.equal(writing.all, true);
});

test('an operation that needs more is answered, however long that takes', () => {
  const pool = new RecordsPool(2);
  const [mine, more] = keysWithHome(pool, 1, 2);
  const batch = begin(pool, 0, [mine!]);
  pool.deliverAll();
  assert.equal(batch.all, true);
  migrate(pool, 1, more!);
  pool.server(1).heldChains.add(`${LOCKING}/${more}`);
  let all: boolean | null = null;
  const names: NeededRecord[] = [{ database: LOCKING, key: more!, mode: 'write' }];
  pool.server(0).act((records) => records.extendOperation(batch.number, names, (answer) => (all = answer)));
  pool.advance(5 * PIN_MICROS);
  assert.equal(all, null);
  pool.server(1).heldChains.clear();
  pool.advance(5_000);
  assert.equal(all, true);
  assert.equal(pool.find(0, LOCKING, mine!)?.dmaster, 0);
});

test('an operation is not ready with a record that is just leaving', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 0, 1);
  migrate(pool, 0, key!);
  pool.advance(2_000);
  let wasReady: boolean | null = null;
  const token = ++lastToken;
  pool.server(1).act((records) => records.migrate(LOCKING, key!, token));
  const ask = pool.take('1>0');
  pool.server(0).act((records) => {
    records.onMessage(pool.members[1]!, ask);
    // the store has not given it yet
    const needed: NeededRecord = { database: LOCKING, key: key!, mode: 'write' };
    records.beginOperation(++lastNumber, [needed], (all) => (wasReady ??= all));
    assert.equal(wasReady, null);
  });
  pool.advance(5_000);
  assert.equal(wasReady, true, 'when it came back');
});

test('an empty record stays as long as operations use it, and goes when none does', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  end(pool, 0, begin(pool, 0, [key!]));
  pool.deliverAll();
  const asked = (): boolean => pool.busyWires().includes('0>1');
  for (let second = 0; second < 30; second += 3) {
    pool.advance(3_000_000);
    const batch = begin(pool, 0, [key!]);
    assert.ok(!asked(), `nobody is asked after ${second} s`);
    assert.equal(batch.all, true);
    end(pool, 0, batch);
  }
  pool.advance(12_000_000);
  assert.equal(pool.find(0, LOCKING, key!), undefined);
});

test('a record goes a second after it was emptied, whatever used it before', () => {
  const pool = new RecordsPool(2);
  const [key] = keysWithHome(pool, 1, 1);
  end(pool, 0, begin(pool, 0, [key!]));
  pool.deliverAll();
  pool.find(0, LOCKING, key!)!.data = 'somebody has it open';
  pool.advance(20_000_000);
  end(pool, 0, begin(pool, 0, [key!]));
  pool.find(0, LOCKING, key!)!.data = '';
  pool.server(0).act((records) => records.scheduleDeletion(LOCKING, key!));
  pool.advance(900_000);
  assert.notEqual(pool.find(0, LOCKING, key!), undefined);
  pool.advance(200_000);
  assert.equal(pool.find(0, LOCKING, key!), undefined);
});
