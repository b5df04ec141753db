/**
 * Removes empty records, key by key, in small slices: those that a local process emptied, and those that were stored
 * empty only because somebody asked for a key that did not exist. A record that is in use again by then stays; so does
 * one that opens of a file needed meanwhile: they would have to ask its home for it again, and wait for the next view
 * if that was lost. Used by core/records.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Holdings } from './holdings.js';

/** An emptied record stays this long: the same file is often opened again at once, and then costs no exchange. */
const LINGER_MICROS = 1_000_000;
/** A random key is never used again. */
const LINGER_RANDOM_KEY_MICROS = 10_000;
/** A record nobody has written yet is of use as long as its file is open here; it is looked at this often. */
const LINGER_UNWRITTEN_MICROS = 5_000_000;
/** Those due within this time are handled together: one round, one announcement, one frame. */
const GATHER_MICROS = 10_000;
/** Records handled in one step; the rest follows a millisecond later, so that others are served in between. */
const SLICE = 256;
const SLICE_PAUSE_MICROS = 1_000;

/** Keys in the order in which they are due. */
class Queue {
  private readonly items: { database: DatabaseId; key: RecordKey; due: Micros }[] = [];
  private head = 0;
  private armed = false;

  constructor(
    private readonly context: CoreContext,
    private readonly linger: Micros,
    private readonly visit: (database: DatabaseId, key: RecordKey) => void,
  ) {}

  add(database: DatabaseId, key: RecordKey): void {
    this.items.push({ database, key, due: this.context.now() + this.linger });
    this.arm();
  }

  private arm(): void {
    const first = this.items[this.head];
    if (this.armed || first === undefined) return;
    this.armed = true;
    const now = this.context.now();
    const at = first.due <= now ? now + SLICE_PAUSE_MICROS : first.due + GATHER_MICROS;
    this.context.timers.at(at, () => {
      this.armed = false;
      this.run();
    });
  }

  private run(): void {
    const now = this.context.now();
    for (let i = 0; i < SLICE; i++) {
      const item = this.items[this.head];
      if (item === undefined || item.due > now) break;
      this.head++;
      this.visit(item.database, item.key);
    }
    if (this.head > SLICE) {
      this.items.splice(0, this.head);
      this.head = 0;
    }
    this.arm();
  }
}

export class Deletions {
  private readonly randomKeyDatabases = new Set<DatabaseId>();
  private readonly emptied: Queue;
  private readonly randomKeys: Queue;
  private readonly unwritten: Queue;

  /** @param hasHome whether the key's home can be reached: what it does not hear of could come back from a backup */
  constructor(
    context: CoreContext,
    private readonly holdings: Holdings,
    private readonly hasHome: (database: DatabaseId, key: RecordKey) => boolean,
  ) {
    const visit = (database: DatabaseId, key: RecordKey): void => this.visit(database, key);
    this.emptied = new Queue(context, LINGER_MICROS, visit);
    this.randomKeys = new Queue(context, LINGER_RANDOM_KEY_MICROS, visit);
    this.unwritten = new Queue(context, LINGER_UNWRITTEN_MICROS, visit);
  }

  useShortLinger(database: DatabaseId): void {
    this.randomKeyDatabases.add(database);
  }

  /** A local process emptied the record. */
  schedule(database: DatabaseId, key: RecordKey): void {
    this.enqueue(this.randomKeyDatabases.has(database) ? this.randomKeys : this.emptied, database, key);
  }

  /** A record was stored empty, on request or because its owner had emptied it. */
  emptyTaken(database: DatabaseId, key: RecordKey): void {
    this.enqueue(this.unwritten, database, key);
  }

  private enqueue(queue: Queue, database: DatabaseId, key: RecordKey): void {
    const holding = this.holdings.get(database, key);
    if (holding === undefined || (holding.deletionQueued && queue !== this.randomKeys)) return;
    holding.deletionQueued = true;
    // the open whose close emptied it does not count
    holding.wasUsed = false;
    queue.add(database, key);
  }

  private visit(database: DatabaseId, key: RecordKey): void {
    const holding = this.holdings.get(database, key);
    if (holding === undefined) return;
    holding.deletionQueued = false;
    if (holding.state !== 'owned') return;
    const mayGo = !holding.wasUsed && this.hasHome(database, key);
    if (!mayGo || !this.holdings.erase(holding)) this.emptyTaken(database, key);
  }
}
