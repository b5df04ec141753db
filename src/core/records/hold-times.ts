/**
 * How long a record stays before another server may have it. Normally the shortest hold; longer where that was too
 * short: a smbd that asks for the same record twice in a row did not get to use it, or was not done, when it left. On
 * a busy server a smbd may not even run before the shortest hold is over, and could otherwise lose each record before
 * using it once. Longer also where several have waited: each has its own open to do, and one after the other they
 * would not be done in the time of one. Bounded; forgets the oldest first. Used by holdings.ts.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import type { Micros } from '../effects.js';

/** Records remembered. Contended ones are few; a forgotten one only starts again at the shortest hold. */
const REMEMBERED_MAX = 4096;
/** The hold doubles up to this many times: 1 ms to 8 ms. */
const LEVEL_MAX = 3;
/** A record that was not lost too early for so long is held for the shortest time again. */
const CALM_MICROS = 1_000_000;

interface Level {
  level: number;
  at: Micros;
}

export class HoldTimes {
  private readonly levels = new Map<string, Level>();

  /** The record left before its user here was done. */
  tooShort(database: DatabaseId, key: RecordKey, now: Micros): void {
    const name = nameOf(database, key);
    const level = Math.min(this.levelOf(name, now) + 1, LEVEL_MAX);
    this.levels.delete(name);
    this.levels.set(name, { level, at: now });
    if (this.levels.size <= REMEMBERED_MAX) return;
    const oldest = this.levels.keys().next();
    if (!oldest.done) this.levels.delete(oldest.value);
  }

  /** Somebody here asks for it anew: those before were done. */
  longEnough(database: DatabaseId, key: RecordKey): void {
    if (this.levels.size === 0) return;
    const name = nameOf(database, key);
    const known = this.levels.get(name);
    if (known === undefined) return;
    if (known.level > 1) known.level -= 1;
    else this.levels.delete(name);
  }

  /** How long the record stays when it comes now, for so many processes that waited for it. */
  holdMicros(
    database: DatabaseId,
    key: RecordKey,
    { shortest, now, waiting }: { shortest: Micros; now: Micros; waiting: number },
  ): Micros {
    const level = this.levels.size === 0 ? 0 : this.levelOf(nameOf(database, key), now);
    return shortest * Math.min(1 << LEVEL_MAX, Math.max(1, waiting) << level);
  }

  private levelOf(name: string, now: Micros): number {
    const known = this.levels.get(name);
    return known === undefined || now - known.at > CALM_MICROS ? 0 : known.level;
  }
}

/** Bytes looked at on either end: what smbd changes with each use is at the start, entries are added at the end. */
const MARK_BYTES = 64;

/** Tells whether a payload was written: the same for the same bytes, and hardly ever for others (FNV-1a). */
export function markOf(data: Uint8Array): number {
  let hash = 0x811c9dc5 ^ data.length;
  for (let i = 0; i < data.length; i++) {
    if (i === MARK_BYTES) i = Math.max(i, data.length - MARK_BYTES);
    hash = Math.imul(hash ^ data[i]!, 0x01000193);
  }
  return hash;
}

function nameOf(database: DatabaseId, key: RecordKey): string {
  return `${database}:${key}`;
}
