/**
 * What the gate needs from the other parts of the core and what they may ask of it. Interfaces only.
 */
import type { ClientId, DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { Connection } from '../../wire/address-messages.js';
import type { PersistentRow } from '../effects.js';

/**
 * The record engine as the gate sees it. Tokens are made by the gate and answered exactly once through RecordsEvents.
 */
export interface RecordsForGate {
  /** A volatile database exists here from now on; its 'database-open' effect was emitted just before. */
  addDatabase(database: DatabaseId, name: string): void;
  /**
   * A local process wants to own the record; answered by `migrated`. `isAgain`: it asked for the same one just
   * before, so it had left before the process was done with it.
   */
  migrate(database: DatabaseId, key: RecordKey, token: number, isAgain: boolean): void;
  /** A local process wants the payload; answered by `fetched`. */
  fetch(database: DatabaseId, key: RecordKey, token: number): void;
  /** A local process looks once and keeps nothing; answered by `fetched`, or by `migrated` when it had to come here. */
  look(database: DatabaseId, key: RecordKey, token: number): void;
  /** The asker is gone: no answer is wanted. */
  cancel(token: number): void;
  /** A local process emptied the record. A hint: it may be stale. */
  scheduleDeletion(database: DatabaseId, key: RecordKey): void;
  ownedKeys(database: DatabaseId): RecordKey[];
  /** The payload if the record is owned here, else empty; answered by `fetched`. */
  peek(database: DatabaseId, key: RecordKey, token: number): void;
}

/** Answers of the record engine, by token; possibly inside the call that asked. */
export interface RecordsEvents {
  migrated(token: number): void;
  /** `data` without the record's header; empty = no such record. */
  fetched(token: number, data: Uint8Array): void;
  failed(token: number, why: string): void;
}

/** Why a wait ended: null is success, else a sentence for the log and the client. */
export type Refusal = string | null;

/** The persistent databases as the gate sees them. Callbacks run once, possibly inside the call. */
export interface PersistentForGate {
  /** The file of a persistent database is about to be opened; if that fails, it is so again at the next try. */
  databaseOpening(database: DatabaseId): void;
  /** It is open here. */
  databaseOpened(database: DatabaseId, name: string): void;
  /** Calls back once the database is in sync on a majority, ourselves included, or a bounded wait is over. */
  whenInSync(database: DatabaseId, done: (refusal: Refusal) => void): void;
  /** Commits rows that smbd marshalled. `refusal` null: durable on a majority and applied here. */
  commit(database: DatabaseId, rows: PersistentRow[], done: (refusal: Refusal) => void): void;
  /** The local rows, read once. */
  readRows(database: DatabaseId, done: (rows: PersistentRow[] | string) => void): void;
  /** The value of `__db_sequence_number__` last applied here. */
  sequence(database: DatabaseId): number;
  /** The server that orders commits, shown to people as the leader. */
  leader(): NodeId;
}

/** Public addresses as the gate sees them. */
export interface AddressesForGate {
  /** A process serves a client's TCP connection. */
  connected(client: ClientId, connection: Connection): void;
  /** A process is gone. */
  disconnected(client: ClientId): void;
  /** Whether a smbd serves here. */
  setAble(able: boolean): void;
  /** Addresses that move between servers; null: nobody has it now. */
  holders(): { address: string; holder: NodeId | null }[];
}

export interface GateOptions {
  /** The address of each server as text, shown by GET_NODEMAP; one that is missing shows as 0.0.0.0. */
  addresses: ReadonlyMap<NodeId, string>;
  /** The daemon's process id, shown to people. */
  pid: number;
  /** Wall-clock time, in microseconds since 1970, at which the core's monotonic clock stood at 0; shown to people. */
  wallClockOriginMicros: number;
  /** The Samba of this server, as "4.17"; without it nothing is compared with the other servers. */
  samba?: string;
  /** Names of the persistent databases that have a file on this server's disk; absent: none. */
  persistentDatabases?: readonly string[];
}
