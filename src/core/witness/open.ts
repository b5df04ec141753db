/**
 * One handle of a smbd as its module told us, with its byte-range locks and the tries for one. Reports only: a lost one
 * is mended by the next resync.
 */
import type { FileId, OpenTerms } from '../../wire/ring-ops.js';
import type { Micros } from '../effects.js';

/** smbd's numbers: an open under a lease; exclusive and batch. */
const LEASE_OPLOCK = 0x100;
const EXCLUSIVE_OPLOCKS = 3;
/** [MS-SMB2] SMB2_LEASE_WRITE_CACHING. */
const LEASE_WRITE = 4;

/** Byte-range locks remembered per open; more exist in brlock.tdb, people see these. */
const LOCKS_PER_OPEN_MAX = 1024;
/** Refused locks of an open remembered to tell a waiting one from a failed one. */
const TRIES_PER_OPEN_MAX = 64;
/** A lock that smbd tries again within this time is waiting. */
const LOCK_TRY_MICROS = 30_000_000;

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

/** Its client may keep writes to itself: a lease with W, an exclusive or batch oplock. */
export function isCaching({ oplock, leaseState }: Open): boolean {
  return (oplock & LEASE_OPLOCK) !== 0 ? (leaseState & LEASE_WRITE) !== 0 : (oplock & EXCLUSIVE_OPLOCKS) !== 0;
}

/** Adds or removes a lock as smbd reports it. */
export function lockChanged(open: Open, lock: HeldLock, isHeld: boolean): void {
  open.lockTries = open.lockTries.filter((other) => !isSameRange(other, lock));
  const at = open.locks.findIndex((other) => isSameRange(other, lock));
  if (isHeld && open.locks.length < LOCKS_PER_OPEN_MAX) open.locks.push(lock);
  else if (!isHeld && at >= 0) open.locks.splice(at, 1);
}

export function lockRefused(open: Open, lock: HeldLock, blocker: bigint, now: Micros): void {
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

export function waitingLocks(open: Open, now: Micros): LockTry[] {
  return open.lockTries.filter((attempt) => attempt.tries > 1 && now - attempt.last < LOCK_TRY_MICROS);
}

function isSameRange(a: HeldLock, b: HeldLock): boolean {
  return a.start === b.start && a.size === b.size;
}
