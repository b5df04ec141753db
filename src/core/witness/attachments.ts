/**
 * What the VFS modules of this server have told us: each smbd with its client, trees, opens, byte-range locks and
 * waits. Reports only: nothing here decides who may do what, and a lost report is mended by the next resync. Used by
 * core/witness/witness.
 */
import type { FileId, OpenTerms } from '../../wire/ring-ops.js';
import type { Micros } from '../effects.js';
import type { NeededRecord } from '../records/pins.js';

/** An honest smbd has some thousand opens at most; one that reports more is cut off. */
export const OPENS_PER_ATTACHMENT_MAX = 65_536;
/** Byte-range locks remembered per open; more exist in brlock.tdb, people see these. */
const LOCKS_PER_OPEN_MAX = 1024;
/** Refused locks of an open remembered to tell a waiting one from a failed one. */
const TRIES_PER_OPEN_MAX = 64;
/** A lock that smbd tries again within this time is waiting. */
const LOCK_TRY_MICROS = 30_000_000;

export interface Tree {
  share: string;
  user: string;
  path: string;
}

export interface HeldLock {
  start: bigint;
  size: bigint;
  type: 'read' | 'write';
}

/** A refused byte-range lock; tried more than once it is one that waits. */
export interface LockTry extends HeldLock {
  since: Micros;
  last: Micros;
  tries: number;
  blocker: bigint;
}

export interface Open extends OpenTerms {
  file: FileId;
  shareFileId: bigint;
  persistentId: bigint;
  tree: bigint;
  path: string;
  since: Micros;
  flags: number;
  locks: HeldLock[];
  lockTries: LockTry[];
}

/** A create that waits: for records ('records') or for a holder to give up its oplock ('break'). */
export interface WaitingOpen extends OpenTerms {
  operation: bigint;
  /** Of the pins; unique among all attachments. */
  number: number;
  tree: bigint;
  file: FileId;
  path: string;
  since: Micros;
  what: 'running' | 'records' | 'break';
  /** When its records were pinned for it. */
  readyAt: Micros | null;
  flags: number;
  /** What it needs here, as far as known. */
  names: readonly NeededRecord[];
}

export class Attachment {
  clientGuid = '';
  address = '';
  name = '';
  readonly trees = new Map<bigint, Tree>();
  /** Changed by OpenIndex only. */
  readonly opens = new Map<bigint, Open>();
  readonly operations = new Map<bigint, WaitingOpen>();
  /** Creates that smbd parked for a break, by file; the retry of the same file ends it. */
  readonly breakWaits: WaitingOpen[] = [];

  constructor(
    readonly id: number,
    readonly pid: number,
  ) {}

  /** Adds or removes a lock as smbd reports it. */
  lockChanged(open: Open, lock: HeldLock, isHeld: boolean): void {
    open.lockTries = open.lockTries.filter((other) => !isSameRange(other, lock));
    const at = open.locks.findIndex((other) => isSameRange(other, lock));
    if (isHeld && open.locks.length < LOCKS_PER_OPEN_MAX) open.locks.push(lock);
    else if (!isHeld && at >= 0) open.locks.splice(at, 1);
  }

  lockRefused(open: Open, lock: HeldLock, blocker: bigint, now: Micros): void {
    open.lockTries = open.lockTries.filter((other) => now - other.last < LOCK_TRY_MICROS);
    const known = open.lockTries.find((other) => isSameRange(other, lock));
    if (known !== undefined) {
      known.tries += 1;
      known.last = now;
      known.blocker = blocker;
    } else if (open.lockTries.length < TRIES_PER_OPEN_MAX) {
      open.lockTries.push({ ...lock, since: now, last: now, tries: 1, blocker });
    }
  }

  waitingLocks(open: Open, now: Micros): LockTry[] {
    return open.lockTries.filter((attempt) => attempt.tries > 1 && now - attempt.last < LOCK_TRY_MICROS);
  }
}

function isSameRange(a: HeldLock, b: HeldLock): boolean {
  return a.start === b.start && a.size === b.size;
}
