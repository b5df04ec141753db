/**
 * What a server that is drained does before its clients are sent away: its smbds break all leases and oplocks under
 * which clients cache writes, and grant no others, so that each client writes what it has while its handles are there
 * still. It waits for that, for a bounded time; what is left then is told (docs/decisions/health.md, "Draining"). Used
 * by fitness.ts.
 */
import type { LeasesLeft } from '../../wire/fitness-messages.js';
import { LEASES_NAMED_MAX, cutReason } from '../../wire/fitness-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** A client needs longer to write what it has. */
const LOOK_MICROS = 50_000;
/** When nothing waits for it any more; smbd itself takes a lease back from a client that does not answer for 35 s. */
const LATE_LOOK_MICROS = 1_000_000;

/** The smbds of this server that have the module. */
export interface CachingSmbds {
  /** Each breaks all it has, one that comes later at once; with null they are left alone again. */
  breakAll(number: number | null): void;
  /** Those that have not said yet that they heard this number, in words. */
  silent(number: number): string[];
  /** What lets clients cache writes, each lease once; `named` of at most so many, in words. */
  caching(namedMax: number): { left: number; named: string[] };
}

export interface LeaseTimes {
  /** Leases are waited for no longer than this. */
  leasesMicros: Micros;
  /** From the start of a run until the modules of the smbds that are there already have attached; 0: there are none. */
  modulesBackMicros: Micros;
}

export class LeaseBreaks {
  /** Null: this server is not drained. */
  private number: number | null = null;
  private lastNumber = 0;
  /** For whoever waits; null: nobody does any more. */
  private done: (() => void) | null = null;
  private until: Micros = 0;
  /** Before then a smbd may have leases that nobody knows of. */
  private modulesBackAt: Micros = 0;
  private timer: Timer | null = null;
  private left: LeasesLeft = NONE;

  constructor(
    private readonly context: CoreContext,
    private readonly smbds: CachingSmbds,
    private readonly times: LeaseTimes,
    /** What is to be told has changed. */
    private readonly changed: () => void,
  ) {}

  /** The run starts. */
  begin(): void {
    this.modulesBackAt = this.context.now() + this.times.modulesBackMicros;
  }

  /** What is left, for people. */
  status(): LeasesLeft {
    return this.left;
  }

  /** `done`, if any, is called once: when nothing is left, or after the bounded time; possibly inside the call. */
  start(done: (() => void) | null): void {
    this.timer?.cancel();
    this.number = ++this.lastNumber;
    this.done = done;
    this.until = this.context.now() + this.times.leasesMicros;
    // the word first: what is granted from here on needs no break
    this.context.emit({ kind: 'draining', draining: true });
    this.smbds.breakAll(this.number);
    this.look();
  }

  /** Also at the start of a run, whose page may be that of the run before. */
  stop(): void {
    this.timer?.cancel();
    this.timer = null;
    this.number = null;
    this.done = null;
    this.context.emit({ kind: 'draining', draining: false });
    this.smbds.breakAll(null);
    this.tell(NONE);
  }

  private look(): void {
    this.timer = null;
    if (this.number === null) return;
    const { done } = this;
    // one that has just come has nothing that was granted before
    const silent = done === null ? [] : this.smbds.silent(this.number);
    const { left, named } = this.smbds.caching(LEASES_NAMED_MAX);
    const all = left + silent.length;
    const now = this.context.now();
    const isOver = done === null || now >= this.until || (all === 0 && now >= this.modulesBackAt);
    const words = [...named, ...silent].slice(0, LEASES_NAMED_MAX).map(cutReason);
    const wait = isOver ? LATE_LOOK_MICROS : LOOK_MICROS;
    // before whoever waits goes on: it may stop this
    this.timer = this.context.timers.at(now + wait, () => this.look());
    if (isOver) this.done = null;
    if (isOver && done !== null && all > 0) {
      this.context.log('warn', 'drain.leases-left', {
        left: all, why: words.join('; '),
        remedy: 'these clients did not answer in time: what they had not written may be lost when they are sent away',
      });
      this.context.count('fitness.leases-left', all);
    }
    this.tell({ breaking: !isOver, left: all, named: words });
    if (isOver) done?.();
  }

  private tell(left: LeasesLeft): void {
    if (JSON.stringify(left) === JSON.stringify(this.left)) return;
    this.left = left;
    this.changed();
  }
}

const NONE: LeasesLeft = { breaking: false, left: 0, named: [] };
