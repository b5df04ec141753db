/**
 * The databases of this server, as the host's loop uses them: volatile ones at once and without waiting, persistent
 * ones beside the loop. The adapters are host/record-store and host/persistent-store, both over libtdb.
 */
import type { DatabaseId, RecordKey } from '../base/ids.js';
import type { PersistentOp, PersistentRow, RecordOp, RecordOutcome } from '../core/effects.js';

/** Where smbd finds a database and how it must open it (flags of tdb.h). */
export interface OpenedDatabase {
  path: string;
  flags: number;
}

export interface RecordStore {
  /** Opens or creates an empty volatile database; opening it again answers the same. Throws when it cannot. */
  open(database: DatabaseId, name: string): OpenedDatabase;
  /** Performs one step on a record as core/effects.ts describes it. Never waits, never throws. */
  perform(database: DatabaseId, key: RecordKey, op: RecordOp): RecordOutcome;
  close(): void;
}

export type PersistentResult = { ok: true; rows?: PersistentRow[]; sequence: number } | { ok: false; why: string };

export interface PersistentStore {
  /** Rejects when the database cannot be opened. */
  open(database: DatabaseId, name: string): Promise<OpenedDatabase>;
  /** Works for one database are performed one after the other, in the order of the calls. Never rejects. */
  perform(database: DatabaseId, work: PersistentOp): Promise<PersistentResult>;
  /** Finishes what was asked, then closes. */
  close(): Promise<void>;
}
