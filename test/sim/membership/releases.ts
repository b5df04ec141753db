/**
 * Releases of a simulated smbpool: number n speaks the protocols n - 1 and n, the first one only its own. Each server
 * has one, is upgraded and downgraded, and others hear a little later than of its frames what its run speaks, as by the
 * hellos of links.
 */
import type { NodeId } from '../../../src/base/ids.js';
import type { Prng } from '../../../src/base/prng.js';
import type { Run } from '../../../src/core/views.js';
import type { Announcement } from '../../../src/wire/protocol-version.js';

export const RELEASES = 3;

/** Links say hello every 100 ms; one may be lost. */
export const ANNOUNCED_MICROS_MAX = 200_000;

export function announcementOf(release: number): Announcement {
  return { speaks: { min: Math.max(1, release - 1), max: release }, release: `0.${release}.0` };
}

/** One up or one down, more often up; not beyond the ends. */
export function otherRelease(release: number, prng: Prng): number {
  return Math.min(RELEASES, Math.max(1, release + (prng.chance(0.7) ? 1 : -1)));
}

/** What each run that ever was said of itself. */
export class Announcements {
  private readonly byRun = new Map<string, Announcement>();

  started(run: Run, announcement: Announcement): void {
    this.byRun.set(key(run), announcement);
  }

  of(run: Run): Announcement {
    const announcement = this.byRun.get(key(run));
    if (announcement === undefined) throw new Error(`run ${key(run)} never was`);
    return announcement;
  }
}

function key({ node, incarnation }: { node: NodeId; incarnation: number }): string {
  return `${node}/${incarnation}`;
}
