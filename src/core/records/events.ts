/**
 * What the parts that keep and move records tell those around them: holdings.ts to records.ts, and that to the gate,
 * the operations and the witness. Interfaces only.
 */
import type { DatabaseId, Epoch, NodeId, RecordKey } from '../../base/ids.js';
import type { Micros, RecordDescription } from '../effects.js';

/** Answers to local processes and people. */
export interface RecordsEvents {
  /** The record is ours and in the tdb. */
  migrated(token: number): void;
  /** The payload, without header; empty if there is no such record. */
  fetched(token: number, data: Uint8Array): void;
  failed(token: number, why: string): void;
  described(number: number, answer: RecordDescription | { error: string }): void;
  /** What the view of this epoch asked of us is done: all homes know what we have of their keys. */
  recovered(epoch: Epoch): void;
}

/** For people: how far the records are with the newest view. */
export interface RecoveryWatcher {
  /** All members have installed it. */
  settled(): void;
  /** All members, we included, have told the homes what they have. */
  recovered(): void;
}

/** Who notes what is here, and from where it came. */
export interface RecordsWatcher {
  came(database: DatabaseId, key: RecordKey): void;
  /** From another owner; `micros` as in HoldingEvents. */
  moved(database: DatabaseId, key: RecordKey, from: NodeId, micros: Micros | null): void;
  leaving(database: DatabaseId, key: RecordKey): void;
}

/** Reasons of a room's own for which records of a database stay, besides what holds for all records. */
export interface Guard {
  /** Whether another server may have a copy of what we own; if not, `guardOpened` follows. */
  mayBeShared(key: RecordKey): boolean;
  /**
   * Whether the record, or the copy, may leave; if not, `guardOpened` follows. Asked because somebody wants it: what
   * has to be done first is begun.
   */
  mayLeave(key: RecordKey): boolean;
  /** Whether there is such a reason; nothing is begun. */
  isInUse(key: RecordKey): boolean;
}

/** Answers to those who asked, and what becomes of a record here. */
export interface HoldingEvents {
  migrated(token: number): void;
  fetched(token: number, data: Uint8Array): void;
  failed(token: number, why: string): void;
  /** An empty record was stored because somebody asked for a key that does not exist. */
  emptyTaken(database: DatabaseId, key: RecordKey): void;
  /** Local writers can use the record from now on. */
  came(database: DatabaseId, key: RecordKey): void;
  /** It came from another owner; `micros` is how long the first here who asked has waited, if he still does. */
  moved(database: DatabaseId, key: RecordKey, from: NodeId, micros: Micros | null): void;
  /** They may not be able to any more; called before the tdb is touched. */
  leaving(database: DatabaseId, key: RecordKey): void;
}
