/**
 * What a run leaves to the one that continues it (docs/decisions/standby.md): written into the pump's memory as the
 * core says, and read from there once, as inputs. Used by PoolHost; decides nothing.
 */
import type { ClientId, DatabaseId, Incarnation, NodeId, RecordKey, Turn } from '../base/ids.js';
import { databaseIdOf } from '../base/jenkins.js';
import type { KeptInput } from '../core/effects.js';
import type { Log } from '../ports/log.js';
import { DecodeError } from '../base/bytes.js';
import { KEY_BYTES_MAX } from '../wire/record-messages.js';
import { RECORD_HEADER_BYTES, decodeRecordHeader } from '../wire/record-header.js';
import type { KeptPort } from './core-loop.js';
import type { KeptConnection } from './native.js';
import type { TdbPersistentStore } from './persistent-store.js';
import type { Pump } from './pump.js';
import type { TdbRecordStore } from './record-store.js';

/** What a standby has of the active daemon, and has opened already. */
export interface Inheritance {
  /** Descriptors; they go over to the new host. */
  streams: number;
  listener: number;
  connections: readonly KeptConnection[];
  records: TdbRecordStore;
  persistent: TdbPersistentStore;
}

/** Of the daemon as a whole, as JSON in the kept memory. */
export interface KeptRun {
  /** The run that was a plain start; all since then continued the one before. */
  first: number;
  databases: { name: string; state: string }[];
  /** Public addresses that may be on an interface. */
  addresses: string[];
  /** Why no run can continue this one. */
  broken?: string;
}

export function readKeptRun(state: Uint8Array): KeptRun {
  return JSON.parse(Buffer.from(state).toString('utf8')) as KeptRun;
}

export class Keeping implements KeptPort {
  private readonly run: KeptRun;
  private readonly keyBytes = Buffer.alloc(KEY_BYTES_MAX);

  constructor(
    private readonly pump: Pump,
    first: Incarnation,
    private readonly log: Log,
    /** A database is kept that was not before. */
    private readonly onDatabase: (name: string) => void,
    inherited?: KeptRun,
  ) {
    this.run = inherited ?? { first, databases: [], addresses: [] };
    this.write();
  }

  client(client: ClientId, state: Uint8Array): void {
    if (!this.pump.keepState(client, state)) this.fail('the state of a client is too large');
  }

  database(database: DatabaseId, name: string, state: Uint8Array): void {
    const text = Buffer.from(state).toString('base64');
    const known = this.run.databases.find((one) => one.name === name);
    if (known === undefined) this.run.databases.push({ name, state: text });
    else known.state = text;
    this.write();
    if (known === undefined) this.onDatabase(name);
  }

  erasure(database: DatabaseId, key: RecordKey, turn: Turn): void {
    const length = this.keyBytes.write(key, 'latin1');
    this.pump.keepErasure(database, this.keyBytes.subarray(0, length), turn);
  }

  /** Those that are taken now. */
  addresses(taken: readonly string[]): void {
    this.run.addresses = [...taken];
    this.write();
  }

  databaseNames(): string[] {
    return this.run.databases.map(({ name }) => name);
  }

  private write(): void {
    if (this.pump.keepGlobal(Buffer.from(JSON.stringify(this.run)))) return;
    this.fail('there are too many databases');
  }

  /** A standby that would know less than all must not go on. */
  private fail(why: string): void {
    if (this.run.broken !== undefined) return;
    this.run.broken = why;
    const remedy = 'please report it; a crash ends the smbds of this server';
    this.log.log('error', 'standby.useless', { why, remedy });
    const useless: KeptRun = { first: this.run.first, databases: [], addresses: [], broken: why };
    this.pump.keepGlobal(Buffer.from(JSON.stringify(useless)));
  }
}

/**
 * All that was kept, in the order that the core wants; a database is opened when the standby had not heard of it.
 * @throws DecodeError when a record has no header: the run cannot be continued.
 */
export function* keptInputs(run: KeptRun, pump: Pump, records: TdbRecordStore): Generator<KeptInput> {
  for (const { name, state } of run.databases) {
    const database = databaseIdOf(name);
    const { path, flags } = records.open(database, name);
    yield { kind: 'database-kept', database, name, path, flags, state: Buffer.from(state, 'base64') };
  }
  for (const { name } of run.databases) {
    const database = databaseIdOf(name);
    yield* keptRecords(database, records.scan(database));
  }
  yield* keptErasures(pump.heirloom().erasures);
  for (const address of run.addresses) yield { kind: 'address-kept', address };
  for (const { client, pid, state } of pump.kept()) {
    yield { kind: 'client-kept', client: client as ClientId, pid, state };
  }
}

function* keptRecords(database: DatabaseId, scanned: Buffer): Generator<KeptInput> {
  for (let at = 0; at < scanned.length; ) {
    const keyLength = scanned.readUInt32LE(at);
    const valueLength = scanned.readUInt32LE(at + 4);
    const headerAt = at + 8;
    const keyAt = headerAt + RECORD_HEADER_BYTES;
    at = keyAt + ((keyLength + 3) & ~3);
    // too short to be a record: nobody uses it as one
    if (valueLength < RECORD_HEADER_BYTES) continue;
    const { dmaster, rsn, flags } = decodeRecordHeader(scanned.subarray(headerAt, keyAt));
    const key = scanned.toString('latin1', keyAt, keyAt + keyLength) as RecordKey;
    const isEmpty = valueLength === RECORD_HEADER_BYTES;
    yield { kind: 'record-kept', database, key, dmaster: dmaster as NodeId, turn: rsn as Turn, flags, isEmpty };
  }
}

/** {u32 database, u32 length of the key, u64 turn, key, padding to 8}. */
function* keptErasures(log: Buffer): Generator<KeptInput> {
  for (let at = 0; at < log.length; ) {
    const length = log.readUInt32LE(at + 4);
    if (at + 16 + length > log.length) throw new DecodeError('kept-erasures', `${at}`);
    const key = log.toString('latin1', at + 16, at + 16 + length) as RecordKey;
    const turn = Number(log.readBigUInt64LE(at + 8)) as Turn;
    yield { kind: 'erasure-kept', database: log.readUInt32LE(at) as DatabaseId, key, turn };
    at += 16 + ((length + 7) & ~7);
  }
}
