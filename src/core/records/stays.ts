/**
 * How long a record stays here although another server waits for it: a while after it came, and as long as operations
 * of the VFS modules keep it. Used by holdings.ts, which gives it away.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import { HoldTimes } from './hold-times.js';
import type { Holding } from './holding.js';
import { isCopyToGo } from './holding.js';

/**
 * While another server waits, so many more operations of this one may use the record first, and no longer than this:
 * a hot record serves a group of local users per trip without starving the others.
 */
const COHORT_OPERATIONS_MAX = 16;
const COHORT_MICROS = 20_000;

export class Stays {
  private readonly holdTimes = new HoldTimes();
  /** Records that others wait for, and that are not given away yet; counted until the time they were held for ends. */
  heldBack = 0;

  /**
   * @param shortest how long a record stays at least, in microseconds
   * @param ended the stay of a record may be over: look again
   */
  constructor(
    private readonly context: CoreContext,
    private readonly shortest: Micros,
    private readonly ended: (holding: Holding) => void,
  ) {}

  /** The record came, for `waiting` local processes; it stays longer where it left too early before. */
  began(holding: Holding, waiting: number): void {
    const now = this.context.now();
    const times = { shortest: this.shortest, now, waiting };
    holding.holdUntil = now + this.holdTimes.holdMicros(holding.database, holding.key, times);
  }

  /** A copy came, or what was here already may be written now. */
  beganShort(holding: Holding): void {
    holding.holdUntil = this.context.now() + this.shortest;
  }

  /** Nobody here needs it any more. */
  end(holding: Holding): void {
    holding.holdUntil = this.context.now();
  }

  /** A local process asks to own the record: anew, or because it left before the process was done with it. */
  askedFor(database: DatabaseId, key: RecordKey, isAgain: boolean, holding: Holding | undefined): void {
    if (!isAgain) return this.holdTimes.longEnough(database, key);
    if (holding?.leftUnused === false) return;
    this.context.count('record.hold.short');
    this.holdTimes.tooShort(database, key, this.context.now());
  }

  /** Keeps the record here for an operation, unless another server has waited for long enough already. */
  pin(holding: Holding, operation: number, until: Micros): void {
    // a copy that is to go goes: nobody counts how many operations it has served since
    if (holding.state === 'copy' ? isCopyToGo(holding) : holding.state !== 'owned') return;
    if (holding.give !== null && holding.pins?.has(operation) !== true) {
      if (holding.cohort >= COHORT_OPERATIONS_MAX) return;
      holding.cohort += 1;
    }
    holding.pins ??= new Map();
    holding.pins.set(operation, until);
    holding.wasUsed = true;
  }

  unpin(holding: Holding, operation: number): void {
    if (holding.pins?.delete(operation) !== true) return;
    if (holding.pins.size === 0) holding.pins = null;
    if (holding.give !== null || holding.discard.length > 0) this.ended(holding);
  }

  /**
   * Whether the record may leave; if not, `ended` is called when it may. Copies are held too: smbd's cache of
   * byte-range locks notes the database's sequence number after it got its answer, so a copy that went in between would
   * stay cached.
   */
  isOver(holding: Holding): boolean {
    const until = Math.max(holding.holdUntil, this.pinnedUntil(holding));
    if (this.context.now() >= until) return true;
    if (!holding.holdTimer) {
      holding.holdTimer = true;
      this.heldBack++;
      this.context.timers.at(until, () => {
        holding.holdTimer = false;
        this.heldBack--;
        this.ended(holding);
      });
    }
    return false;
  }

  /** Pins end by themselves, and all of them a bounded time after the home asked: others wait. */
  private pinnedUntil(holding: Holding): Micros {
    if (holding.pins === null) return 0;
    const now = this.context.now();
    let until = 0;
    for (const [operation, end] of holding.pins) {
      if (end <= now) holding.pins.delete(operation);
      else until = Math.max(until, end);
    }
    if (holding.pins.size === 0) holding.pins = null;
    return holding.give === null ? until : Math.min(until, holding.giveSince + COHORT_MICROS);
  }
}
