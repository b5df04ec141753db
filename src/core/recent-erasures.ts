/**
 * Remembers which records were erased here a moment ago. If their home dies before it heard of it, it must not bring
 * them back from an older backup; whoever erased a record tells the home's next run. Bounded by time and number. Used
 * by core/holdings and core/restarts.
 */
import type { DatabaseId, RecordKey, Turn } from '../base/ids.js';
import type { Micros } from './effects.js';

/** Longer than a home can be dead before we notice; nothing is erased while it is known to be away. */
const REMEMBERED_MICROS = 10_000_000;
/** A few seconds of a very busy server. When more are erased, a home's death may bring back some of the oldest. */
const REMEMBERED_MAX = 16_384;

interface Erasure {
  database: DatabaseId;
  key: RecordKey;
  turn: Turn;
  at: Micros;
}

export class RecentErasures {
  private readonly recent = new Map<string, Erasure>();

  erased(database: DatabaseId, key: RecordKey, turn: Turn, now: Micros): void {
    const name = `${database}/${key}`;
    this.recent.delete(name);
    this.recent.set(name, { database, key, turn, at: now });
    for (const [oldest, { at }] of this.recent) {
      if (this.recent.size <= REMEMBERED_MAX && now - at <= REMEMBERED_MICROS) break;
      this.recent.delete(oldest);
    }
  }

  /** Oldest first. */
  all(): Iterable<Erasure> {
    return this.recent.values();
  }
}
