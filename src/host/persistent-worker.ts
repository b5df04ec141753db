/**
 * The worker thread of host/persistent-store: the only place where persistent databases are open. It waits for the
 * disk, so that the loop does not. One request after the other, whatever the database: that is also their order on
 * disk.
 */
import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { parentPort } from 'node:worker_threads';
import type { DatabaseId } from '../base/ids.js';
import type { PersistentOp, PersistentRow } from '../core/effects.js';
import type { PersistentResult } from '../ports/record-store.js';
import { SEQUENCE_KEY } from '../wire/persistent-rows.js';
import { RECORD_HEADER_BYTES } from '../wire/record-header.js';
import { messageOf } from './errors.js';
import { loadNative, TDB_DISALLOW_NESTING, TDB_SEQNUM } from './native.js';
import type { Tdb } from './native.js';
import type { PersistentReply, PersistentRequest } from './persistent-messages.js';

/** CTDB's flags for persistent databases, and SEQNUM from the start. */
const PERSISTENT_FLAGS = TDB_DISALLOW_NESTING | TDB_SEQNUM;
/** libtdb's default for its own choice of hash size. */
const HASH_SIZE_DEFAULT = 0;
/** A tool (tdbtool, tdbbackup) may be in a transaction: wait so long for it. smbd never is. */
const TRANSACTION_TRIES_MAX = 500;
const TRANSACTION_INTERVAL_MS = 10;
/** Records copied out of the file at a time. */
const TRAVERSE_SLICE_RECORDS = 1_000;

const databases = new Map<DatabaseId, Tdb>();
const sleeper = new Int32Array(new SharedArrayBuffer(4));

function open(database: DatabaseId, path: string): void {
  if (databases.has(database)) return;
  const { Tdb: TdbClass } = loadNative();
  const tdb = new TdbClass(path, {
    hashSize: HASH_SIZE_DEFAULT,
    tdbFlags: PERSISTENT_FLAGS,
    openFlags: constants.O_RDWR | constants.O_CREAT,
    mode: 0o600,
  });
  databases.set(database, tdb);
  // a new file's name must be on the disk before anything in the file counts as durable
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

function readRows(tdb: Tdb): PersistentRow[] {
  const rows: PersistentRow[] = [];
  const end = tdb.hashSize();
  for (let chain = 0; chain < end; ) {
    const { next, records } = tdb.traverse(chain, TRAVERSE_SLICE_RECORDS);
    for (const [key, value] of records) rows.push({ key, value });
    chain = next;
  }
  return rows;
}

/** The number in the sequence row's payload; 0 when the database has none. */
function readSequence(tdb: Tdb): number {
  const value = tdb.fetch(SEQUENCE_KEY);
  if (value === null || value.length < RECORD_HEADER_BYTES + 8) return 0;
  return Number(value.readBigUInt64LE(RECORD_HEADER_BYTES));
}

function inTransaction(tdb: Tdb, write: () => void): void {
  let tries = 1;
  while (!tdb.transactionStartNonblock()) {
    if (tries++ >= TRANSACTION_TRIES_MAX) throw new Error('another process is in a transaction on the database');
    Atomics.wait(sleeper, 0, 0, TRANSACTION_INTERVAL_MS);
  }
  try {
    write();
  } catch (error) {
    tdb.transactionCancel();
    throw error;
  }
  // a commit that fails has ended the transaction and changed nothing
  tdb.transactionCommit();
}

function replaceAll(tdb: Tdb, rows: readonly PersistentRow[]): void {
  const wanted = new Set(rows.map(({ key }) => Buffer.from(key).toString('latin1')));
  const old = readRows(tdb).filter(({ key }) => !wanted.has(Buffer.from(key).toString('latin1')));
  inTransaction(tdb, () => {
    for (const { key } of old) tdb.delete(key);
    for (const { key, value } of rows) tdb.store(key, value);
  });
}

function work(database: DatabaseId, op: PersistentOp): PersistentResult {
  const tdb = databases.get(database);
  if (tdb === undefined) return { ok: false, why: 'the database is not open' };
  try {
    if (op.op === 'apply') {
      inTransaction(tdb, () => {
        for (const { key, value } of op.rows) tdb.store(key, value);
      });
    } else if (op.op === 'replace') {
      replaceAll(tdb, op.rows);
    } else {
      return { ok: true, rows: readRows(tdb), sequence: readSequence(tdb) };
    }
    return { ok: true, sequence: readSequence(tdb) };
  } catch (error) {
    return { ok: false, why: messageOf(error) };
  }
}

function answer(request: PersistentRequest): PersistentReply {
  const { id } = request;
  switch (request.kind) {
    case 'open':
      try {
        open(request.database, request.path);
        return { id, kind: 'opened', opened: { path: request.path, flags: PERSISTENT_FLAGS } };
      } catch (error) {
        return { id, kind: 'refused', why: messageOf(error) };
      }
    case 'work':
      return { id, kind: 'worked', result: work(request.database, request.work) };
    case 'close':
      for (const tdb of databases.values()) tdb.close();
      databases.clear();
      return { id, kind: 'closed' };
  }
}

// a worker's module is its program
parentPort?.on('message', (request: PersistentRequest) => {
  parentPort?.postMessage(answer(request));
  if (request.kind === 'close') parentPort?.close();
});
