/**
 * Much work of one kind in small pieces: others are served between two. For what a view change asks for all records at
 * once. Used by recovery.ts and records.ts.
 */
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** Some hundred microseconds to a millisecond of work. */
export const SLICE = 128;

/** Between two slices others have `min` at least, and so many times as long as the slice before took. */
export interface Rest {
  min: Micros;
  times: number;
}

/**
 * For what nobody waits for: who asks for a record gets it first. Each slice makes as much work for other members as
 * here, which theirs make for us, so most of each processor is left to smbd.
 */
export const UNHURRIED: Rest = { min: 2_000, times: 8 };

/**
 * For what moves records, or copies of them: so many at a time, and as long a rest as there is. How long a slice took
 * here says little, since most of its work is in the files of others, with messages to and fro.
 */
export const RESTORE_SLICE = 32;
export const SPARING: Rest = { min: 10_000, times: 8 };

/**
 * Restores, and as many backups made anew, that are ordered and not answered: streams are in order, and what somebody
 * waits for stands behind these.
 */
export const RESTORES_UNDER_WAY_MAX = 64;

/** Whatever a slice took: the loop may have waited for its processor. */
const REST_MICROS_MAX = 10_000;

/** Work done piece by piece: the first at once, the next when others had their turn. */
export class Slices {
  private timer: Timer | null = null;

  /** @param work does so many pieces at most; false when nothing is left */
  constructor(
    private readonly context: Pick<CoreContext, 'now' | 'timers'>,
    private readonly size: number,
    private readonly rest: Rest,
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
    const began = this.context.now();
    // how long it took, what it caused in the tdbs included, is known when the loop comes round
    this.timer = this.context.timers.at(began + 1, () => this.pause(this.context.now() - began));
  }

  private pause(took: Micros): void {
    const { min, times } = this.rest;
    const micros = Math.min(REST_MICROS_MAX, Math.max(min, Math.round(times * took)));
    this.timer = this.context.timers.at(this.context.now() + micros, () => this.step());
  }
}
