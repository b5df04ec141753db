/**
 * What a server knows of one record in its own tdb: whether it is here, who waits for it, and what was promised to
 * others. Plain data; holdings.ts changes it.
 */
import type { DatabaseId, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { turn as toTurn } from '../../base/ids.js';
import type { AccessMode, Micros, RecordOp } from '../effects.js';
import type { RecordMessage } from '../../wire/record-messages.js';

/** A busy chain is tried again after this time at first, then after twice as long each time. */
export const BUSY_RETRY_MICROS_MIN = 100;

export interface Waiter {
  token: number;
  /** 'owned' reads only if the record is ours (traversal). */
  mode: AccessMode | 'owned';
  since: Micros;
}

export interface PendingGive {
  turn: Turn;
  to: NodeId;
  run: number;
  mode: AccessMode;
}

export interface Holding {
  database: DatabaseId;
  key: RecordKey;
  /** Younger ones have higher numbers. */
  serial: number;
  /** 'backup': given away; the payload stays here until the home says that a newer backup exists. */
  state: 'none' | 'owned' | 'copy' | 'backup';
  turn: Turn;
  /** Owned, but others have read copies: local writers must ask. */
  shared: boolean;
  /** The last turn in which a copy was given. */
  sharedTurn: Turn;
  /** Not given away before. */
  holdUntil: Micros;
  /** Of the payload as it came (hold-times.markOf), and whether it left as it came: nobody here got to use it. */
  mark: number;
  leftUnused: boolean;
  /** Operations of the VFS module that need the record here, and until when each may keep it. */
  pins: Map<number, Micros> | null;
  /** Since when the home wants the record elsewhere, and how many operations were begun here since. */
  giveSince: Micros;
  cohort: number;
  /** A timer for the end of hold and pins is set. */
  holdTimer: boolean;
  asked: AccessMode | null;
  askedOf: NodeId | null;
  waiters: Waiter[];
  /** The answer to our ask, to be stored, and who sent it. */
  arrived: (Extract<RecordMessage, { kind: 'record' }> & { from: NodeId }) | null;
  give: PendingGive | null;
  /** The order that the store operation under way obeys; it may be void by the time the store answers. */
  giving: PendingGive | null;
  /**
   * A copy or backup to be deleted; `confirm`: the home waits for 'revoked'; `keep`: a copy that took the place of the
   * backup becomes the backup.
   */
  discard: { turn: Turn; confirm: boolean; keep: boolean }[];
  /** A copy that was stored over the backup, and is a newer one. */
  isBackupToo: boolean;
  reclaim: Turn | null;
  /** It came here as one that existed nowhere, and never left: others have nothing in it. */
  isFresh: boolean;
  /** Who shall get a backup of what we own. */
  mirrorTo: NodeId | null;
  /** A backup of what another server owns, to be stored. */
  toKeep: Extract<RecordOp, { op: 'keep' }> | null;
  erase: boolean;
  /** The store operation under way. */
  operation: RecordOp | null;
  busySince: Micros | null;
  busyDelay: Micros;
  busyWarned: boolean;
  retrying: boolean;
  deletionQueued: boolean;
  /** An operation of the VFS module needed it since it was queued for deletion. */
  wasUsed: boolean;
}

export function newHolding(database: DatabaseId, key: RecordKey, serial: number): Holding {
  return {
    database,
    key,
    serial,
    state: 'none',
    turn: toTurn(0),
    shared: false,
    sharedTurn: toTurn(0),
    holdUntil: 0,
    mark: 0,
    leftUnused: false,
    pins: null,
    giveSince: 0,
    cohort: 0,
    holdTimer: false,
    asked: null,
    askedOf: null,
    waiters: [],
    arrived: null,
    give: null,
    giving: null,
    discard: [],
    isBackupToo: false,
    reclaim: null,
    isFresh: false,
    mirrorTo: null,
    toKeep: null,
    erase: false,
    operation: null,
    busySince: null,
    busyDelay: BUSY_RETRY_MICROS_MIN,
    busyWarned: false,
    retrying: false,
    deletionQueued: false,
    wasUsed: false,
  };
}

/** Whole names: one put together for each record costs more than the counting. */
export const ARRIVED = {
  move: 'record.arrived.move',
  fresh: 'record.arrived.fresh',
  keep: 'record.arrived.keep',
  copy: 'record.arrived.copy',
} as const;
export const GIVEN = { move: 'record.given.move', copy: 'record.given.copy' } as const;

/** Whether we own the record, or shall when what arrived could be stored. */
export function isOwner({ state, arrived }: Holding): boolean {
  return state === 'owned' || (arrived !== null && arrived.what !== 'copy');
}

/** Whether something of it is under way that a change of the view may concern. */
export function isActive({ asked, waiters, arrived, give, discard, reclaim, mirrorTo, toKeep }: Holding): boolean {
  return asked !== null || waiters.length > 0 || arrived !== null || give !== null || discard.length > 0
    || reclaim !== null || mirrorTo !== null || toKeep !== null;
}

/** Whether a process that wants it so could use the record as it is here. */
export function canServe({ state, shared }: Holding, mode: Waiter['mode']): boolean {
  if (mode === 'owned') return true;
  if (state === 'owned') return mode === 'read' || !shared;
  return state === 'copy' && mode === 'read';
}

/** Whether it is a copy that the home wants to go; an order older than the copy meant what was here before. */
export function isCopyToGo({ state, turn, discard }: Holding): boolean {
  return state === 'copy' && discard.some((order) => order.turn >= turn);
}

/** Whether local processes may not be able to use the record once this is done. */
export function isLeaving(operation: RecordOp | null): boolean {
  const op = operation?.op;
  return op === 'give' || op === 'share' || op === 'erase' || op === 'discard';
}
