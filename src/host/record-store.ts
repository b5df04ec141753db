/**
 * The volatile databases: tdb files on tmpfs that smbd has open too. Performs the core's record operations, each under
 * the record's chain, taken without waiting; called by the host's loop only. It must never wait for a chain: smbd holds
 * one while it waits for our answer.
 */
import { constants, mkdirSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { briefCopy, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { DatabaseId, NodeId, RecordKey, Turn } from '../base/ids.js';
import type { RecordOp, RecordOutcome } from '../core/effects.js';
import type { OpenedDatabase, RecordStore } from '../ports/record-store.js';
import {
  FLAG_HAVE_DELEGATIONS,
  FLAG_HAVE_READONLY,
  RECORD_HEADER_BYTES,
  decodeRecordHeader,
  writeRecordHeader,
} from '../wire/record-header.js';
import type { RecordHeader } from '../wire/record-header.js';
import { KEY_BYTES_MAX } from '../wire/record-messages.js';
import { PoolError } from './errors.js';
import {
  CHAIN_ABSENT,
  CHAIN_ACTION,
  CHAIN_BUSY,
  loadNative,
  TDB_CLEAR_IF_FIRST,
  TDB_DISALLOW_NESTING,
  TDB_INCOMPATIBLE_HASH,
  TDB_MUTEX_LOCKING,
  TDB_NOSYNC,
  TDB_SEQNUM,
  TDB_VOLATILE,
} from './native.js';
import type { Tdb, TdbChains } from './native.js';

/** Chains per database; docs/decisions/volatile-databases.md says why not CTDB's 100001. */
export const VOLATILE_HASH_SIZE = 10_007;

/**
 * What we open with and what smbd is told to open with: CTDB's flags, SEQNUM from the start, and VOLATILE, with which
 * deleted records of a chain are used again there: storing hardly ever waits for the file's one list of free space,
 * which an smbd may hold that is not running.
 */
export const VOLATILE_FLAGS =
  TDB_NOSYNC | TDB_CLEAR_IF_FIRST | TDB_INCOMPATIBLE_HASH | TDB_MUTEX_LOCKING | TDB_DISALLOW_NESTING | TDB_SEQNUM |
  TDB_VOLATILE;

/** A file name must hold it and the node's number. */
const DATABASE_NAME_BYTES_MAX = 200;
/** smbd's records are a few hundred bytes; the buffer grows for larger ones and stays so. */
const VALUE_BYTES_INITIAL = 65_536;
/** Twice the longest key that travels. */
const KEY_BYTES = 2 * KEY_BYTES_MAX;

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
  chains: TdbChains;
}

/** The record worked on: its chain is held until `finish`. */
interface Chain {
  chains: TdbChains;
  keyLength: number;
}

/** What an operation found under the chain: null for no record, or one too short to be one. */
type Found = { header: RecordHeader; length: number } | null;

export class TdbRecordStore implements RecordStore {
  private readonly databases = new Map<DatabaseId, VolatileDatabase>();
  /** Key and value of the record being worked on; the addon reads and writes here. */
  private buffer = new ArrayBuffer(KEY_BYTES + VALUE_BYTES_INITIAL);
  private key = Buffer.from(this.buffer, 0, KEY_BYTES);
  private value = new Uint8Array(this.buffer, KEY_BYTES);

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
    const opened = { tdb, chains: tdb.chains(this.buffer, KEY_BYTES), path, flags: VOLATILE_FLAGS };
    this.databases.set(database, opened);
    return opened;
  }

  /** All records' headers and keys: Tdb.scanHeaders with RECORD_HEADER_BYTES. */
  scan(database: DatabaseId): Buffer {
    const opened = this.databases.get(database);
    return opened === undefined ? Buffer.alloc(0) : opened.tdb.scanHeaders(RECORD_HEADER_BYTES);
  }

  close(): void {
    for (const { tdb } of this.databases.values()) tdb.close();
    this.databases.clear();
  }

  perform(database: DatabaseId, key: RecordKey, op: RecordOp): RecordOutcome {
    const opened = this.databases.get(database);
    if (opened === undefined) return { result: 'failed', why: 'the database is not open' };
    if (key.length > KEY_BYTES) return { result: 'failed', why: 'the key is too long' };
    const chain = { chains: opened.chains, keyLength: this.key.write(key, 'latin1') };
    let length = chain.chains.begin(chain.keyLength);
    if (length === CHAIN_BUSY) return { result: 'busy' };
    if (length > this.value.length) {
      // nothing was read: once more with a larger buffer
      chain.chains.finish(CHAIN_ACTION.leave, chain.keyLength, 0);
      this.grow(length);
      return this.perform(database, key, op);
    }
    if (length < CHAIN_ABSENT) return { result: 'failed', why: loadNative().tdbErrorText(length) };
    if (op.op !== 'take' && op.op !== 'keep') return this.performOn(chain, length, op);
    const refused = op.op === 'keep' ? this.whyNotKept(this.found(length), op.turn) : null;
    if (refused !== null) return refuse(chain, refused);
    length = RECORD_HEADER_BYTES + op.data.length;
    if (length > this.value.length) {
      chain.chains.finish(CHAIN_ACTION.leave, chain.keyLength, 0);
      this.grow(length);
      return this.perform(database, key, op);
    }
    this.value.set(op.data, RECORD_HEADER_BYTES);
    writeRecordHeader(this.value, this.headerOf(op));
    return finish(chain, CHAIN_ACTION.store, length, DONE);
  }

  private headerOf(op: Extract<RecordOp, { op: 'take' | 'keep' }>): RecordHeader {
    // what we had given away in that turn would have the turn before it
    if (op.op === 'keep') return { rsn: op.turn - 1, dmaster: op.owner, flags: 0 };
    if (op.copyOf !== null) return { rsn: op.turn, dmaster: op.copyOf, flags: FLAG_HAVE_READONLY };
    return { rsn: op.turn, dmaster: this.self, flags: 0 };
  }

  private whyNotKept(found: Found, turn: Turn): 'ours' | 'other-turn' | null {
    if (found === null) return null;
    if (found.header.dmaster === this.self) return 'ours';
    return found.header.rsn >= turn ? 'other-turn' : null;
  }

  /** Larger records than ever before: what was opened goes over to the new buffer. */
  private grow(length: number): void {
    this.buffer = new ArrayBuffer(KEY_BYTES + length * 2);
    this.key = Buffer.from(this.buffer, 0, KEY_BYTES);
    this.value = new Uint8Array(this.buffer, KEY_BYTES);
    for (const opened of this.databases.values()) opened.chains = opened.tdb.chains(this.buffer, KEY_BYTES);
  }

  /** `length` of the value that was read, or CHAIN_ABSENT. */
  private performOn(chain: Chain, length: number, op: Exclude<RecordOp, { op: 'take' | 'keep' }>): RecordOutcome {
    const found = this.found(length);
    switch (op.op) {
      case 'discard':
        return this.discard(chain, found, op);
      case 'reclaim':
        if (found === null) return refuse(chain, 'absent');
        writeRecordHeader(this.value, { rsn: op.turn, dmaster: this.self, flags: 0 });
        return finish(chain, CHAIN_ACTION.store, found.length, {
          result: 'done', isEmpty: found.length === RECORD_HEADER_BYTES,
        });
      case 'peek':
        return this.peek(chain, found, op.mode);
      default:
        if (found === null) return refuse(chain, 'absent');
        if (found.header.dmaster !== this.self) return refuse(chain, 'not-ours');
        return this.performOnOwn(chain, op, found);
    }
  }

  private performOnOwn(
    chain: Chain,
    op: Extract<RecordOp, { op: 'give' | 'share' | 'unshare' | 'erase' }>,
    found: NonNullable<Found>,
  ): RecordOutcome {
    const { header } = found;
    switch (op.op) {
      case 'give':
        // the turn stays: the backup is the version of its last owner's turn
        return this.rewrite(chain, found, { rsn: header.rsn, dmaster: op.to, flags: 0 });
      case 'share':
        return this.rewrite(chain, found, { ...header, flags: header.flags | FLAG_HAVE_DELEGATIONS });
      case 'unshare':
        return this.rewrite(chain, found, { rsn: op.turn, dmaster: this.self, flags: 0 });
      case 'erase':
        if (found.length > RECORD_HEADER_BYTES) return refuse(chain, 'not-empty');
        if (header.rsn !== op.turn) return refuse(chain, 'other-turn');
        return finish(chain, CHAIN_ACTION.delete, 0, DONE);
      default:
        return unreachable(op);
    }
  }

  private discard(chain: Chain, found: Found, { turn, keep }: Extract<RecordOp, { op: 'discard' }>): RecordOutcome {
    // nothing, or bytes that are no record of ours to keep
    if (found === null) return finish(chain, CHAIN_ACTION.delete, 0, DONE);
    if (found.header.dmaster === this.self) return refuse(chain, 'ours');
    if (found.header.rsn > turn) return refuse(chain, 'other-turn');
    if (keep) return this.rewrite(chain, found, { ...found.header, flags: 0 });
    return finish(chain, CHAIN_ACTION.delete, 0, DONE);
  }

  private peek(chain: Chain, found: Found, mode: 'read' | 'write'): RecordOutcome {
    if (found === null) return refuse(chain, 'absent');
    const { dmaster, flags } = found.header;
    const own = dmaster === this.self;
    const readable = own || (mode === 'read' && (flags & FLAG_HAVE_READONLY) !== 0);
    if (!readable) return refuse(chain, 'not-ours');
    if (own && mode === 'write' && (flags & FLAG_HAVE_DELEGATIONS) !== 0) return refuse(chain, 'shared');
    return finish(chain, CHAIN_ACTION.leave, 0, { result: 'done', data: this.payload(found) });
  }

  /** The record in this.value. */
  private found(length: number): Found {
    if (length < RECORD_HEADER_BYTES) return null;
    try {
      return { header: decodeRecordHeader(this.value), length };
    } catch (error) {
      if (error instanceof DecodeError) return null;
      throw error;
    }
  }

  private payload({ length }: NonNullable<Found>): Uint8Array {
    return length === RECORD_HEADER_BYTES ? EMPTY : briefCopy(this.value, RECORD_HEADER_BYTES, length);
  }

  /** Stores the found record under another header and answers its payload. */
  private rewrite(chain: Chain, found: NonNullable<Found>, header: RecordHeader): RecordOutcome {
    writeRecordHeader(this.value, header);
    return finish(chain, CHAIN_ACTION.store, found.length, { result: 'done', data: this.payload(found) });
  }
}

const DONE: RecordOutcome = { result: 'done' };

/** Does the action, lets go of the chain, and answers `outcome` if that succeeded. */
function finish(
  { chains, keyLength }: Chain,
  action: number,
  valueLength: number,
  outcome: RecordOutcome,
): RecordOutcome {
  const result = chains.finish(action, keyLength, valueLength);
  return result === 0 ? outcome : { result: 'failed', why: loadNative().tdbErrorText(result) };
}

function refuse(chain: Chain, why: Extract<RecordOutcome, { result: 'refused' }>['why']): RecordOutcome {
  return finish(chain, CHAIN_ACTION.leave, 0, { result: 'refused', why });
}
