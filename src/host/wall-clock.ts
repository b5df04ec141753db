/**
 * Where the wall clock stands when the monotonic clock stands at 0: once at start, so that times told by several
 * servers can be put in order. Used by pool-host; blocks for some milliseconds.
 */
import type { Micros } from '../core/effects.js';

/** Whoever is interrupted by another process at each of so many looks has other worries. */
const LOOKS = 8;

/**
 * Microseconds since 1970 at which `now` was 0. The wall clock is seen to tick, as it counts whole milliseconds only;
 * whatever comes between seeing that and asking `now` makes a result too small, so the largest of several is taken.
 */
export function wallClockOriginMicros(now: () => Micros): number {
  let best = -Infinity;
  for (let look = 0; look < LOOKS; look++) {
    const before = Date.now();
    let millis = before;
    while (millis === before) millis = Date.now();
    best = Math.max(best, millis * 1000 - now());
  }
  return best;
}
