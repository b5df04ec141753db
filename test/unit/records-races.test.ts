/** Records when two things happen at once: stories that the simulator found. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { databaseId } from '../../src/base/ids.js';
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { RecordsPool, keyWithHome } from '../support/records-pool.js';

const LOCKING = databaseId(1);
const OPENS = databaseId(2);

const DATABASES = new Map([
  [LOCKING, 'locking.tdb'],
  [OPENS, 'smbXsrv_open_global.tdb'],
]);

let lastToken = 0;

function ask(pool: RecordsPool, server: number, how: 'migrate' | 'fetch', key: RecordKey, database = LOCKING): number {
  const token = ++lastToken;
  pool.server(server).act((records) => records[how](database, key, token));
  return token;
}

function answer(pool: RecordsPool, server: number, token: number): string | undefined {
  const given = pool.server(server).answers.get(token);
  return given === undefined ? undefined : `${given.what} ${given.data}`.trim();
}

function write(pool: RecordsPool, server: number, key: RecordKey, data: string, database: DatabaseId = LOCKING): void {
  const record = pool.find(server, database, key);
  assert.ok(record?.dmaster === server && record.flags === 0, 'smbd may write');
  record.data = data;
}

test('a record that takes the place of a copy not stored yet is not lost', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = keyWithHome(pool, 1);
  ask(pool, 1, 'migrate', key);
  pool.advance(2_000);
  write(pool, 1, key, '');
  const reader = pool.server(0);
  reader.heldChains.add(`${LOCKING}/${key}`);
  const token = ask(pool, 0, 'fetch', key);
  pool.deliverAll();
  // the copy is on its way in, and the owner deletes the empty record
  pool.server(1).act((records) => records.scheduleDeletion(LOCKING, key));
  pool.advance(6_000_000);
  assert.equal(pool.find(1, LOCKING, key), undefined);
  assert.equal(answer(pool, 0, token), undefined, 'a smbd holds the chain');
  reader.heldChains.clear();
  pool.advance(20_000);
  assert.equal(answer(pool, 0, token), 'fetched');
  const writer = ask(pool, 2, 'migrate', key);
  pool.advance(20_000);
  assert.equal(answer(pool, 2, writer), 'migrated', 'the home does not wait for the copy');
});

test('what was erased while its home wanted it back does not come back from an older backup', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = keyWithHome(pool, 1);
  ask(pool, 1, 'migrate', key);
  write(pool, 1, key, 'old');
  pool.advance(2_000);
  ask(pool, 0, 'migrate', key);
  pool.advance(2_000);
  write(pool, 0, key, '');
  assert.equal(pool.find(1, LOCKING, key)?.data, 'old', 'the backup');
  ask(pool, 2, 'migrate', key);
  pool.deliver('2>1');
  // the asker dies before the owner has heard of it: the home wants the record back from the owner
  pool.restart(2);
  pool.installAll();
  for (const wire of ['0>1', '2>1']) while (pool.busyWires().includes(wire)) pool.deliver(wire);
  pool.server(0).act((records) => records.scheduleDeletion(LOCKING, key));
  pool.passTime(1_500_000);
  pool.passTime(1_500_000);
  assert.equal(pool.find(0, LOCKING, key), undefined, 'erased');
  pool.advance(20_000);
  const token = ask(pool, 2, 'migrate', key);
  pool.advance(20_000);
  assert.equal(answer(pool, 2, token), 'migrated');
  assert.equal(pool.find(2, LOCKING, key)?.data, '');
  assert.deepEqual(pool.errors, []);
});

test('an empty record that comes back from a backup is deleted like any other', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = keyWithHome(pool, 1);
  ask(pool, 0, 'migrate', key);
  pool.advance(2_000);
  ask(pool, 2, 'migrate', key);
  pool.advance(2_000);
  assert.equal(pool.find(0, LOCKING, key)?.dmaster, 2, 'the backup');
  write(pool, 2, key, 'lost with its server');
  pool.advance(6_000_000);
  pool.restart(2);
  pool.installAll();
  pool.advance(20_000);
  assert.equal(pool.find(0, LOCKING, key)?.dmaster, 0, 'restored');
  pool.advance(12_000_000);
  assert.equal(pool.find(0, LOCKING, key), undefined);
});

test('a random key is known although its maker died before it could tell everybody', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  ask(pool, 1, 'migrate', key, OPENS);
  pool.deliver('1>0');
  pool.time += 2_000;
  ask(pool, 0, 'migrate', key, OPENS);
  for (let i = 0; i < 4; i++) ['0>1', '1>0'].forEach((wire) => pool.deliver(wire));
  pool.passTime(2_000);
  for (let i = 0; i < 4; i++) ['0>1', '1>0'].forEach((wire) => pool.deliver(wire));
  write(pool, 0, key, 'moved here', OPENS);
  pool.restart(1);
  pool.install(0);
  pool.install(2);
  while (pool.busyWires().includes('0>2')) pool.deliver('0>2');
  const token = ask(pool, 2, 'fetch', key, OPENS);
  assert.equal(answer(pool, 2, token), undefined, 'not taken for a key that nobody has');
  pool.installAll();
  pool.advance(50_000);
  assert.equal(answer(pool, 2, token), 'fetched moved here');
});
