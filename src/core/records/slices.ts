/**
 * Much work of one kind in small pieces: others are served between two. For what a view change asks for all records at
 * once. Used by recovery.ts and records.ts.
 */
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** Some hundred microseconds to a millisecond of work. */
export const SLICE = 128;

/** How much of a loop's time the slices leave to others: between two of them passes `min`, when it is busy up to `max`. */
export interface Rest {
  min: Micros;
  max: Micros;
}

/** Work done piece by piece: the first at once, the next when the loop came round. */
export class Slices {
  private timer: Timer | null = null;
  private rest: Micros;
  private dueAt: Micros = 0;

  /** @param work does so many pieces at most; false when nothing is left */
  constructor(
    private readonly context: Pick<CoreContext, 'now' | 'timers'>,
    private readonly size: number,
    private readonly rests: Rest,
    private readonly work: (pieces: number) => boolean,
  ) {
    this.rest = rests.min;
  }

  /** There is work; nothing new if some is under way already. */
  begin(): void {
    if (this.timer !== null) return;
    this.rest = this.rests.min;
    this.step();
  }

  cancel(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  private step(): void {
    this.timer = null;
    if (!this.work(this.size) || this.timer !== null) return;
    this.dueAt = this.context.now() + Math.max(1, this.rest);
    this.timer = this.context.timers.at(this.dueAt, () => {
      this.adapt();
      this.step();
    });
  }

  /**
   * A slice takes time that its own step cannot see, and causes work here and elsewhere. When it was not over before
   * the next one was due, the loop had no rest at all, and smbd, whose processor it may be, had none either.
   */
  private adapt(): void {
    const late = this.context.now() - this.dueAt;
    const rest = late > this.rest / 4 ? 2 * (this.rest + late) : this.rest - this.rest / 8;
    this.rest = Math.round(Math.min(this.rests.max, Math.max(this.rests.min, rest)));
  }
}
