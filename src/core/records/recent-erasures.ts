/**
 * Remembers which records were erased here a moment ago. If their home dies before it heard of it, it must not bring
 * them back from an older backup; whoever erased a record tells the home's next run. Bounded by time and number. Used
 * by holdings.ts and recovery.ts.
 */
import type { DatabaseId, RecordKey, Turn } from '../../base/ids.js';
import type { Micros } from '../effects.js';

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
  /** Oldest first from `head` on. A record erased twice is here twice: the home goes by the later turn. */
  private recent: Erasure[] = [];
  private head = 0;

  erased(database: DatabaseId, key: RecordKey, turn: Turn, now: Micros): void {
    this.recent.push({ database, key, turn, at: now });
    while (this.recent.length - this.head > REMEMBERED_MAX || now - this.recent[this.head]!.at > REMEMBERED_MICROS) {
      this.head++;
    }
    // given back in large pieces: each costs as much as what is left
    if (this.head < REMEMBERED_MAX) return;
    this.recent = this.recent.slice(this.head);
    this.head = 0;
  }

  /** The latest turn of those of this record; null: it was not erased here. */
  of(database: DatabaseId, key: RecordKey): Turn | null {
    const isSame = (one: Erasure): boolean => one.key === key && one.database === database;
    const last = this.recent.findLastIndex(isSame);
    return last < this.head ? null : this.recent[last]!.turn;
  }

  /** Oldest first. */
  all(): readonly Erasure[] {
    return this.recent.slice(this.head);
  }
}
