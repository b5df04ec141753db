/** What local smbds do with the records of a RecordsPool, and what tests want to know of it. */
import assert from 'node:assert/strict';
import { databaseId } from '../../src/base/ids.js';
import type { RecordKey } from '../../src/base/ids.js';
import type { RecordsPool } from './records-pool.js';

export const LOCKING = databaseId(1);
export const OPENS = databaseId(2);
export const DATABASES = new Map([
  [LOCKING, 'locking.tdb'],
  [OPENS, 'smbXsrv_open_global.tdb'],
]);

let lastToken = 0;

export function newToken(): number {
  return ++lastToken;
}

export function migrate(pool: RecordsPool, server: number, key: RecordKey, database = LOCKING): number {
  const token = newToken();
  pool.server(server).act((records) => records.migrate(database, key, token));
  return token;
}

export function fetch(pool: RecordsPool, server: number, key: RecordKey, database = LOCKING): number {
  const token = newToken();
  pool.server(server).act((records) => records.fetch(database, key, token));
  return token;
}

export function answered(pool: RecordsPool, server: number, token: number): string | undefined {
  const answer = pool.server(server).answers.get(token);
  return answer === undefined ? undefined : `${answer.what} ${answer.data}`.trim();
}

/** What a local smbd does under the chain once the record is here. */
export function write(pool: RecordsPool, server: number, key: RecordKey, data: string, database = LOCKING): void {
  const record = pool.find(server, database, key);
  assert.ok(record !== undefined && record.dmaster === server && record.flags === 0, 'smbd may write');
  record.data = data;
}

export function look(pool: RecordsPool, server: number, key: RecordKey): number {
  const token = newToken();
  pool.server(server).act((records) => records.look(LOCKING, key, token));
  return token;
}

/** Migrates, and writes `data` over what is there; returns that. */
export function use(pool: RecordsPool, server: number, key: RecordKey, data: string, database = LOCKING): string {
  const token = migrate(pool, server, key, database);
  pool.deliverAll();
  pool.advance(3_000);
  assert.equal(answered(pool, server, token), 'migrated');
  const found = pool.find(server, database, key)!.data;
  write(pool, server, key, data, database);
  return found;
}

/** A local process emptied the record. */
export function empty(pool: RecordsPool, server: number, key: RecordKey, database = LOCKING): void {
  write(pool, server, key, '', database);
  pool.server(server).act((records) => records.scheduleDeletion(database, key));
}

/** All install the newest view, one after the other. */
export function installAll(pool: RecordsPool): void {
  for (const id of pool.behind()) {
    pool.install(id);
    pool.deliverAll();
  }
  pool.advance(2_000);
}

/** A server dies and comes back, and all hear of it. */
export function restart(pool: RecordsPool, id: number): void {
  pool.restart(id);
  installAll(pool);
}

/** A server dies for good, and all hear of it. */
export function lose(pool: RecordsPool, id: number): void {
  pool.lose(id);
  installAll(pool);
}
