/**
 * Frames of a header version that this release does not know are dropped by the addon, which only counts them: this
 * tells people. They are not authentic, so anybody can send them, and it is said rarely.
 */
import type { Log } from '../ports/log.js';

/** The addon's counter. */
export const FOREIGN_FRAMES = 'interconnect.refused.version';

export const FOREIGN_LOOK_MS = 10_000;
const FOREIGN_LOG_MS = 3_600_000;

export class ForeignFrames {
  private counted = 0;
  private saidAt = -Infinity;

  constructor(private readonly log: Log) {}

  /** `counted`: since the start; `now` in milliseconds that only grow. */
  look(counted: number, now: number): void {
    if (counted === this.counted || now - this.saidAt < FOREIGN_LOG_MS) return;
    this.saidAt = now;
    this.log.log('warn', 'interconnect.foreign-frames', {
      frames: counted - this.counted,
      meaning: 'frames came whose header has another version than this release of smbpool knows; they were dropped',
      remedy: 'if smbpool was upgraded on another server, upgrade it here too: a new header is used only when all '
        + 'servers know it; else somebody else sends frames of our EtherType or to our port',
    });
    this.counted = counted;
  }
}
