/**
 * Virtual time for tests and the simulator: whole microseconds that pass only when told to. Actions set for the same
 * time run in the order they were set, so a run repeats exactly.
 */
import type { Micros } from '../../src/core/effects.js';
import type { Timer } from '../../src/core/timers.js';
import { Timers } from '../../src/core/timers.js';

export class SimulatedTime {
  private readonly actions = new Timers();
  private nowMicros: Micros = 0;

  constructor(startMicros: Micros = 1_000_000) {
    this.nowMicros = startMicros;
  }

  get now(): Micros {
    return this.nowMicros;
  }

  after(delayMicros: Micros, action: () => void): Timer {
    return this.actions.at(this.nowMicros + Math.max(0, delayMicros), action);
  }

  /** Runs the next action; false when none is set before `until`. */
  step(until: Micros = Infinity): boolean {
    const next = this.actions.deadline();
    if (next === Infinity || next > until) return false;
    this.nowMicros = Math.max(this.nowMicros, next);
    this.actions.runOne(this.nowMicros);
    return true;
  }

  /** Lets time pass with all that happens meanwhile. */
  advance(micros: Micros): void {
    const until = this.nowMicros + micros;
    while (this.step(until)) {
      // each step runs one action
    }
    this.nowMicros = until;
  }
}
