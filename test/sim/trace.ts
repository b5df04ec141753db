/** The last lines of what happened in a simulated run, made into text only when somebody wants to read them. */
import type { Micros } from '../../src/core/effects.js';

/** Enough to see the whole life of one record before things went wrong. */
const TRACE_LINES_MAX = 1500;
const SERVER_EVENT = / (dies|is cut off|faults stop)$/;

export class Trace {
  private lines: { at: Micros; text: () => string }[] = [];

  /** Hears each line as it is added; for scenarios. */
  onLine: ((at: Micros, text: string) => void) | null = null;

  add(at: Micros, text: () => string): void {
    this.onLine?.(at, text());
    this.lines.push({ at, text });
    if (this.lines.length > 2 * TRACE_LINES_MAX) this.lines = this.lines.slice(-TRACE_LINES_MAX);
  }

  /** The last lines; if a needle is given, those only that hold it, and what happened to the servers. */
  tail(count: number, needle = ''): string[] {
    const texts = this.lines.map(({ at, text }) => `${(at / 1000).toFixed(3).padStart(12)} ms  ${text()}`);
    return texts.filter((line) => line.includes(needle) || SERVER_EVENT.test(line)).slice(-count);
  }
}
