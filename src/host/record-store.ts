/**
 * The volatile databases: tdb files on tmpfs that smbd has open too. Performs the core's record operations, each under
 * the record's chain, taken without waiting; called by the host's loop only. It must never wait for a chain: smbd holds
 * one while it waits for our answer.
 */
import { constants, mkdirSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { DatabaseId, NodeId, RecordKey } from '../base/ids.js';
import type { RecordOp, RecordOutcome } from '../core/effects.js';
import type { OpenedDatabase, RecordStore } from '../ports/record-store.js';
import {
  FLAG_HAVE_DELEGATIONS,
  FLAG_HAVE_READONLY,
  RECORD_HEADER_BYTES,
  decodeRecordHeader,
  encodeRecordHeader,
} from '../wire/record-header.js';
import type { RecordHeader } from '../wire/record-header.js';
import { messageOf, PoolError } from './errors.js';
import {
  loadNative,
  TDB_CLEAR_IF_FIRST,
  TDB_DISALLOW_NESTING,
  TDB_INCOMPATIBLE_HASH,
  TDB_MUTEX_LOCKING,
  TDB_NOSYNC,
  TDB_SEQNUM,
} from './native.js';
import type { Tdb } from './native.js';

/** Chains per database; docs/decisions/volatile-databases.md says why not CTDB's 100001. */
export const VOLATILE_HASH_SIZE = 10_007;

/** What we open with and what smbd is told to open with: CTDB's flags, and SEQNUM from the start. */
export const VOLATILE_FLAGS =
  TDB_NOSYNC | TDB_CLEAR_IF_FIRST | TDB_INCOMPATIBLE_HASH | TDB_MUTEX_LOCKING | TDB_DISALLOW_NESTING | TDB_SEQNUM;

/** A file name must hold it and the node's number. */
const DATABASE_NAME_BYTES_MAX = 200;
/** smbd's records are a few hundred bytes; the buffers grow for larger ones and stay so. */
const VALUE_BYTES_INITIAL = 65_536;
const KEY_BYTES_INITIAL = 1_024;

/** The smbds of a daemon that ended notice within milliseconds; one that is stuck in the kernel does not. */
const USERS_GONE_TIMEOUT_MS = 5_000;
const USERS_GONE_INTERVAL_MS = 50;

const EMPTY = new Uint8Array(0);

/** Throws PoolError for a name that is no plain file name. */
export function databasePath(directory: string, name: string, self: NodeId): string {
  const plain = name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');
  if (!plain || Buffer.byteLength(name) > DATABASE_NAME_BYTES_MAX) {
    throw new PoolError('ERR_POOL_DATABASE', `${JSON.stringify(name)} cannot be the name of a database's file`);
  }
  return join(directory, `${name}.${self}`);
}

/**
 * Removes what an earlier daemon of this server left in the directory, once nobody has it open any more.
 * @throws PoolError when a process goes on using it.
 */
export async function clearVolatileDirectory(directory: string, self: NodeId): Promise<void> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const suffix = `.${self}`;
  const files = readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(`.tdb${suffix}`))
    .map((entry) => join(directory, entry.name));
  const deadline = Date.now() + USERS_GONE_TIMEOUT_MS;
  for (const file of files) {
    for (let user = probe(file); user !== 0; user = probe(file)) {
      if (Date.now() > deadline) {
        throw new PoolError(
          'ERR_POOL_DATABASES_IN_USE',
          `${file} is still in use by process ${user}: stop that smbd, or the other daemon of this server`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, USERS_GONE_INTERVAL_MS));
    }
    unlinkSync(file);
  }
}

function probe(file: string): number {
  return loadNative().probeTdbUser(file);
}

interface VolatileDatabase extends OpenedDatabase {
  tdb: Tdb;
}

/** What an operation found under the chain: null for no record, or one too short to be one. */
type Found = { header: RecordHeader; length: number } | null;

export class TdbRecordStore implements RecordStore {
  private readonly databases = new Map<DatabaseId, VolatileDatabase>();
  private key = Buffer.alloc(KEY_BYTES_INITIAL);
  private value = new Uint8Array(VALUE_BYTES_INITIAL);

  constructor(
    private readonly directory: string,
    private readonly self: NodeId,
  ) {}

  open(database: DatabaseId, name: string): OpenedDatabase {
    const known = this.databases.get(database);
    if (known !== undefined) return known;
    const path = databasePath(this.directory, name, this.self);
    const { Tdb: TdbClass } = loadNative();
    const tdb = new TdbClass(path, {
      hashSize: VOLATILE_HASH_SIZE,
      tdbFlags: VOLATILE_FLAGS,
      openFlags: constants.O_RDWR | constants.O_CREAT,
      mode: 0o600,
    });
    const opened = { tdb, path, flags: VOLATILE_FLAGS };
    this.databases.set(database, opened);
    return opened;
  }

  bumpSequence(database: DatabaseId): void {
    this.databases.get(database)?.tdb.incrementSequenceNumber();
  }

  close(): void {
    for (const { tdb } of this.databases.values()) tdb.close();
    this.databases.clear();
  }

  perform(database: DatabaseId, key: RecordKey, op: RecordOp): RecordOutcome {
    const tdb = this.databases.get(database)?.tdb;
    if (tdb === undefined) return { result: 'failed', why: 'the database is not open' };
    const bytes = this.keyBytes(key);
    try {
      if (!tdb.chainlockNonblock(bytes)) return { result: 'busy' };
    } catch (error) {
      return { result: 'failed', why: messageOf(error) };
    }
    try {
      return this.performLocked(tdb, bytes, op);
    } catch (error) {
      return { result: 'failed', why: messageOf(error) };
    } finally {
      tdb.chainunlock(bytes);
    }
  }

  /** A view of a buffer that the next operation overwrites. */
  private keyBytes(key: RecordKey): Uint8Array {
    if (key.length > this.key.length) this.key = Buffer.alloc(key.length * 2);
    return this.key.subarray(0, this.key.write(key, 'latin1'));
  }

  private performLocked(tdb: Tdb, key: Uint8Array, op: RecordOp): RecordOutcome {
    if (op.op === 'take') {
      const header =
        op.copyOf === null
          ? { rsn: op.turn, dmaster: this.self, flags: 0 }
          : { rsn: op.turn, dmaster: op.copyOf, flags: FLAG_HAVE_READONLY };
      this.put(tdb, key, header, op.data);
      return { result: 'done' };
    }
    const found = this.find(tdb, key);
    switch (op.op) {
      case 'discard':
        return this.discard(tdb, key, found, op);
      case 'reclaim':
        if (found === null) return { result: 'refused', why: 'absent' };
        return this.rewrite(tdb, key, found, { rsn: op.turn, dmaster: this.self, flags: 0 });
      case 'peek':
        return this.peek(found, op.mode);
      default:
        if (found === null) return { result: 'refused', why: 'absent' };
        if (found.header.dmaster !== this.self) return { result: 'refused', why: 'not-ours' };
        return this.performOnOwn(tdb, key, op, found);
    }
  }

  private performOnOwn(
    tdb: Tdb,
    key: Uint8Array,
    op: Extract<RecordOp, { op: 'give' | 'share' | 'unshare' | 'erase' }>,
    found: NonNullable<Found>,
  ): RecordOutcome {
    const { header } = found;
    switch (op.op) {
      case 'give':
        // the turn stays: the backup is the version of its last owner's turn
        return this.rewrite(tdb, key, found, { rsn: header.rsn, dmaster: op.to, flags: 0 });
      case 'share':
        return this.rewrite(tdb, key, found, { ...header, flags: header.flags | FLAG_HAVE_DELEGATIONS });
      case 'unshare':
        return this.rewrite(tdb, key, found, { rsn: op.turn, dmaster: this.self, flags: 0 });
      case 'erase':
        if (found.length > RECORD_HEADER_BYTES) return { result: 'refused', why: 'not-empty' };
        if (header.rsn !== op.turn) return { result: 'refused', why: 'other-turn' };
        tdb.delete(key);
        return { result: 'done' };
      default:
        return unreachable(op);
    }
  }

  private discard(
    tdb: Tdb,
    key: Uint8Array,
    found: Found,
    { turn, keep }: Extract<RecordOp, { op: 'discard' }>,
  ): RecordOutcome {
    if (found === null) {
      // nothing, or bytes that are no record of ours to keep
      tdb.delete(key);
      return { result: 'done' };
    }
    if (found.header.dmaster === this.self) return { result: 'refused', why: 'ours' };
    if (found.header.rsn > turn) return { result: 'refused', why: 'other-turn' };
    if (keep) return this.rewrite(tdb, key, found, { ...found.header, flags: 0 });
    tdb.delete(key);
    return { result: 'done' };
  }

  private peek(found: Found, mode: 'read' | 'write'): RecordOutcome {
    if (found === null) return { result: 'refused', why: 'absent' };
    const { dmaster, flags } = found.header;
    const own = dmaster === this.self;
    if (!own && (mode === 'write' || (flags & FLAG_HAVE_READONLY) === 0)) return { result: 'refused', why: 'not-ours' };
    if (own && mode === 'write' && (flags & FLAG_HAVE_DELEGATIONS) !== 0) return { result: 'refused', why: 'shared' };
    return { result: 'done', data: this.payload(found) };
  }

  /** Reads the record into this.value. */
  private find(tdb: Tdb, key: Uint8Array): Found {
    let length = tdb.parse(key, this.value);
    if (length > this.value.length) {
      this.value = new Uint8Array(length * 2);
      length = tdb.parse(key, this.value);
    }
    if (length < 0) return null;
    try {
      return { header: decodeRecordHeader(this.value.subarray(0, length)), length };
    } catch (error) {
      if (error instanceof DecodeError) return null;
      throw error;
    }
  }

  private payload({ length }: NonNullable<Found>): Uint8Array {
    return length === RECORD_HEADER_BYTES ? EMPTY : this.value.slice(RECORD_HEADER_BYTES, length);
  }

  /** Stores the found record under another header and answers its payload. */
  private rewrite(tdb: Tdb, key: Uint8Array, found: NonNullable<Found>, header: RecordHeader): RecordOutcome {
    this.value.set(encodeRecordHeader(header));
    tdb.store(key, this.value.subarray(0, found.length));
    return { result: 'done', data: this.payload(found) };
  }

  private put(tdb: Tdb, key: Uint8Array, header: RecordHeader, data: Uint8Array): void {
    const length = RECORD_HEADER_BYTES + data.length;
    if (length > this.value.length) this.value = new Uint8Array(length * 2);
    this.value.set(encodeRecordHeader(header));
    this.value.set(data, RECORD_HEADER_BYTES);
    tdb.store(key, this.value.subarray(0, length));
  }
}
