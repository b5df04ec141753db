/**
 * Remembers which records left this server a moment ago, to hold a record longer the next time if its users were not
 * done: an open is several locked sections, and a smbd may not even have run before the shortest hold was over. Without
 * this, a busy server could lose each record before using it once. Bounded; forgets the oldest first. Used by
 * core/holdings.
 */
import type { DatabaseId, RecordKey } from '../base/ids.js';
import type { Micros } from './effects.js';

/** Records remembered. Contended ones are few; a forgotten one only starts again at the shortest hold. */
const REMEMBERED_MAX = 4096;
/** Wanted again within this time after it was given away: the hold was too short. */
const WANTED_AGAIN_MICROS = 20_000;
/** The hold doubles up to this many times: 1 ms to 16 ms. */
const LEVEL_MAX = 4;

interface Recent {
  gaveAt: Micros;
  level: number;
  written: boolean;
}

export class RecentGives {
  private readonly recent = new Map<string, Recent>();

  /** @param written whether a local process changed the record while it was here */
  gave(database: DatabaseId, key: RecordKey, now: Micros, written: boolean): void {
    const name = nameOf(database, key);
    const level = written ? 0 : (this.recent.get(name)?.level ?? 0);
    this.recent.delete(name);
    this.recent.set(name, { gaveAt: now, level, written });
    if (this.recent.size > REMEMBERED_MAX) {
      const oldest = this.recent.keys().next();
      if (!oldest.done) this.recent.delete(oldest.value);
    }
  }

  /** A local process wants the record; returns whether it left too early, that is unused. */
  wantedAgain(database: DatabaseId, key: RecordKey, now: Micros): boolean {
    const recent = this.recent.get(nameOf(database, key));
    if (recent === undefined) return false;
    const tooEarly = !recent.written && now - recent.gaveAt <= WANTED_AGAIN_MICROS;
    recent.level = tooEarly ? Math.min(recent.level + 1, LEVEL_MAX) : 0;
    return tooEarly;
  }

  /** How long the record stays this time. */
  holdMicros(database: DatabaseId, key: RecordKey, shortest: Micros): Micros {
    return shortest * 2 ** (this.recent.get(nameOf(database, key))?.level ?? 0);
  }
}

function nameOf(database: DatabaseId, key: RecordKey): string {
  return `${database}:${key}`;
}
