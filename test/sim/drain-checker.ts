/**
 * Watches from outside what becomes of drained servers: it hears which questions people asked and what they were told,
 * sees the flag in each server's node page, what each says of itself, and what its clients may cache.
 *
 * Checked: the flag is as the last answered question wants it, through every restart, and a server says that it drains
 * only while it is set; it says so after its smbds have broken what lets clients cache writes, or after the bounded
 * time, and not much later; while the flag stands nothing of that kind is granted, and without it it is; each question
 * is answered once, in bounded time. At the end: what all members are told is so, and no lease is left behind.
 */
import type { RecordKey } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import { DrainWishes } from './drain-wishes.js';
import type { SimulatedServer } from './server.js';

/** One present run of a server. */
interface Run {
  /** Its disk said so: it waits for nobody. */
  isWaived: boolean;
  /** Since when the flag is set; null: it is not. */
  flaggedAt: Micros | null;
  says: boolean;
  hasTurned: boolean;
}

/** A client may keep writes of the file to itself. */
interface Caching {
  smbd: string;
  server: SimulatedServer;
  file: RecordKey;
}

/** A create that was granted, and what its client had before. */
export interface Grant {
  smbd: string;
  server: SimulatedServer;
  /** When its module looked at the flag. */
  lookedAt: Micros;
  /** Nobody else has the file open. */
  isAlone: boolean;
  had: boolean;
  has: boolean;
}

export class DrainChecker {
  readonly totals = { drained: 0, broken: 0, withheld: 0 };
  readonly wishes: DrainWishes;
  private readonly runs = new Map<SimulatedServer, Run>();
  private readonly caching = new Map<string, Caching>();

  constructor(
    private readonly now: () => Micros,
    /** As long as a server waits for leases, at most. */
    private readonly leasesMicros: Micros,
    private readonly fail: (rule: string, text: string) => void,
  ) {
    this.wishes = new DrainWishes(now);
  }

  // --- runs of servers

  started(server: SimulatedServer, isDrained: boolean): void {
    const before = this.runs.get(server);
    const flaggedAt = server.isDrainFlagSet ? (before?.flaggedAt ?? this.now()) : null;
    this.runs.set(server, {
      isWaived: isDrained, flaggedAt, says: false, hasTurned: false,
    });
  }

  turned(server: SimulatedServer): void {
    const run = this.run(server);
    if (!run.hasTurned) {
      run.hasTurned = true;
      this.judgeFlag(server);
      if (run.isWaived && !run.says) this.fail('drained-says-so', `server ${server.self} starts drained in silence`);
    }
    if (run.says && run.flaggedAt === null) this.fail('no-drain-left', `server ${server.self} says that it drains`);
  }

  flagged(server: SimulatedServer): void {
    const run = this.run(server);
    if (!server.isDrainFlagSet) run.isWaived = false;
    run.flaggedAt = server.isDrainFlagSet ? (run.flaggedAt ?? this.now()) : null;
    if (server.isDrainFlagSet && !run.isWaived) this.totals.drained++;
    this.judgeFlag(server);
  }

  /** It tells the others, its hooks and the public addresses. */
  said(server: SimulatedServer, draining: boolean): void {
    const run = this.run(server);
    const isNews = run.says !== draining;
    run.says = draining;
    if (!draining || !isNews) return;
    if (run.flaggedAt === null) return this.fail('no-drain-left', `server ${server.self} says that it drains`);
    if (run.isWaived || this.now() >= run.flaggedAt + this.leasesMicros) return;
    for (const { smbd, file } of this.cachingAt(server)) {
      const text = `server ${server.self} says that it drains, and a client of ${smbd} caches writes of ${file}`;
      this.fail('leases-first', text);
    }
  }

  /** The flag is set, and has been since then, by the same run. */
  isFlaggedSince(server: SimulatedServer, since: Micros): boolean {
    return !server.dead && !server.down && this.run(server).flaggedAt === since;
  }

  says(server: SimulatedServer): boolean {
    return this.run(server).says;
  }

  flaggedAt(server: SimulatedServer): Micros | null {
    return this.run(server).flaggedAt;
  }

  /** A question was settled, or a run knows what its disk has. */
  judgeFlag(server: SimulatedServer): void {
    const wanted = this.wishes.certain(server.self);
    const run = this.runs.get(server);
    if (server.dead || server.down || run?.hasTurned !== true) return;
    if (wanted === null || wanted === server.isDrainFlagSet) return;
    const text = `server ${server.self} is to ${wanted ? 'drain' : 'serve'}, and its page says otherwise`;
    this.fail('flag-is-wish', text);
  }

  private run(server: SimulatedServer): Run {
    const run = this.runs.get(server);
    if (run === undefined) throw new Error(`server ${server.self} never started`);
    return run;
  }

  // --- what clients cache

  /** Of a smbd that has the module. */
  granted({ smbd, server, lookedAt, isAlone, had, has }: Grant): void {
    if (has && !had && this.wishes.isCertainSince(server.self, lookedAt, true)) {
      this.fail('drained-grants-nothing', `${smbd} lets a client cache writes, and its server is drained`);
    }
    if (!has && isAlone) {
      this.totals.withheld++;
      if (!this.wishes.isCertainSince(server.self, lookedAt, false)) return;
      this.fail('undrained-grants', `${smbd} lets no client cache writes, and its server is not drained`);
    }
  }

  caches(smbd: string, server: SimulatedServer, file: RecordKey): void {
    this.caching.set(`${smbd}/${file}`, { smbd, server, file });
  }

  cachesNoMore(smbd: string, file: RecordKey): void {
    const known = this.caching.get(`${smbd}/${file}`);
    if (known === undefined) return;
    this.caching.delete(`${smbd}/${file}`);
    if (known.server.isDrainFlagSet) this.totals.broken++;
  }

  died(smbd: string): void {
    for (const [name, one] of this.caching) if (one.smbd === smbd) this.caching.delete(name);
  }

  cachingAt(server: SimulatedServer): Caching[] {
    return [...this.caching.values()].filter((one) => one.server === server);
  }

  // --- at the end

  /** What the server `asked` tells people of another one. */
  judgeTold(asked: SimulatedServer, of: SimulatedServer): string | null {
    const told = asked.fitness().find(({ node }) => node === of.self);
    const wanted = this.wishes.certain(of.self);
    if (told === undefined) return 'nothing';
    if (wanted === null) return null;
    if (told.fitness.draining !== wanted) return wanted ? 'that it serves' : 'that it drains';
    if (told.leases?.breaking === true) return 'that it breaks leases';
    if (told.leases !== undefined && told.leases.left > 0 && !wanted) return `that ${told.leases.left} leases are left`;
    return null;
  }
}
