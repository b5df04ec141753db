/**
 * Much work of one kind in small pieces: others are served between two. For what a view change asks for all records at
 * once. Used by recovery.ts and records.ts.
 */
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** Some hundred microseconds to a millisecond of work. */
export const SLICE = 128;

/** Work done piece by piece: the first at once, the next when the loop came round. */
export class Slices {
  private timer: Timer | null = null;

  /** @param work does so many pieces at most; false when nothing is left */
  constructor(
    private readonly context: Pick<CoreContext, 'now' | 'timers'>,
    private readonly size: number,
    private readonly pauseMicros: Micros,
    private readonly work: (pieces: number) => boolean,
  ) {}

  /** There is work; nothing new if some is under way already. */
  begin(): void {
    if (this.timer === null) this.step();
  }

  cancel(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  private step(): void {
    this.timer = null;
    if (!this.work(this.size) || this.timer !== null) return;
    this.timer = this.context.timers.at(this.context.now() + Math.max(1, this.pauseMicros), () => this.step());
  }
}
