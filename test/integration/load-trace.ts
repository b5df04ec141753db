/**
 * Judges a random load from outside: what the clients were granted, and when, must be what one server could have
 * granted. A holding counts from the moment its client had the grant until the moment the client began to give it up,
 * so two conflicting holdings that overlap are an error whatever the delays were. Times are seconds of one machine-wide
 * clock.
 */

/**
 * How long an exclusive oplock and somebody else's open may overlap. One unclustered smbd under this load, too, now and
 * then answers an open some milliseconds before its break reaches the holder; a break that is missing lasts.
 */
const BREAK_SECONDS_MAX = 0.1;

export interface OpenHolding {
  kind: 'open';
  client: number;
  handle: number;
  fileId: string;
  from: number;
  to: number;
  access: { read: boolean; write: boolean; delete: boolean };
  share: { read: boolean; write: boolean; delete: boolean };
}

/** An oplock or lease under which nobody else may have the file open for reading or writing. */
export interface ExclusiveHolding {
  kind: 'exclusive';
  /** What was granted, and what ended it: for people. */
  granted: string;
  ended: string;
  client: number;
  handle: number;
  fileId: string;
  from: number;
  to: number;
}

export interface LockHolding {
  kind: 'lock';
  client: number;
  handle: number;
  fileId: string;
  from: number;
  to: number;
  start: number;
  length: number;
  exclusive: boolean;
}

export type Holding = OpenHolding | ExclusiveHolding | LockHolding;

function sharesWith(a: OpenHolding, b: OpenHolding): boolean {
  return (['read', 'write', 'delete'] as const).every(
    (what) => (!a.access[what] || b.share[what]) && (!b.access[what] || a.share[what]),
  );
}

function rangesMeet(a: LockHolding, b: LockHolding): boolean {
  return a.start < b.start + b.length && b.start < a.start + a.length;
}

/**
 * Takes out of a handle's locks (in the order they were granted) the one that an unlock of this range releases. A
 * handle may lock a range shared that it holds exclusively already; smbd then releases the first of the two, the
 * exclusive one (brl_unlock_windows_default in Samba's source3/locking/brlock.c), and the shared one stays.
 */
export function takeReleased<T extends { start: number; length: number }>(
  locks: T[],
  range: { start: number; length: number },
): T | undefined {
  const first = locks.findIndex((lock) => lock.start === range.start && lock.length === range.length);
  return first < 0 ? undefined : locks.splice(first, 1)[0];
}

/** Why the two cannot be held at the same time; null when they can. */
export function conflict(a: Holding, b: Holding): string | null {
  if (a.client === b.client && a.handle === b.handle) return null;
  if (a.kind === 'open' && b.kind === 'open') return sharesWith(a, b) ? null : 'share modes exclude each other';
  if (a.kind === 'lock' && b.kind === 'lock') {
    return (a.exclusive || b.exclusive) && rangesMeet(a, b) ? 'byte-range locks exclude each other' : null;
  }
  const pair = [a.kind, b.kind].sort().join();
  const excluding = pair === 'exclusive,open' || pair === 'exclusive,exclusive';
  const unbroken = excluding && Math.min(a.to, b.to) - Math.max(a.from, b.from) > BREAK_SECONDS_MAX;
  return unbroken ? 'an exclusive oplock or lease was not broken' : null;
}

/** All pairs of conflicting holdings that were held at the same time, in words; at most `max` of them. */
export function conflicts(holdings: readonly Holding[], max = 10): string[] {
  const found: string[] = [];
  const byFile = new Map<string, Holding[]>();
  for (const holding of holdings) {
    const ofFile = byFile.get(holding.fileId);
    if (ofFile) ofFile.push(holding);
    else byFile.set(holding.fileId, [holding]);
  }
  for (const [fileId, ofFile] of byFile) {
    ofFile.sort((a, b) => a.from - b.from);
    // those that may still be held when the next one begins
    let active: Holding[] = [];
    for (const next of ofFile) {
      active = active.filter((holding) => holding.to > next.from);
      for (const earlier of active) {
        const why = conflict(earlier, next);
        if (why === null) continue;
        found.push(`file ${fileId}: ${why}: ${JSON.stringify(earlier)} and ${JSON.stringify(next)}`);
        if (found.length >= max) return found;
      }
      active.push(next);
    }
  }
  return found;
}
