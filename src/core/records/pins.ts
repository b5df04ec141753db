/**
 * Operations of the VFS module that need several records at once: brings the records home in one exchange, keeps them
 * here until the operation ends or a deadline passes, and says when all are here. A pin is our promise, never a held
 * chain. Used by core/witness through core/records; decides nothing about who owns what.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { AccessMode, Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** How long the records of a running operation stay: an open takes smbd well below a millisecond once they are here. */
export const PIN_MICROS = 10_000;
/** Records that came early wait for the others of their operation no longer than this. */
const PARTIAL_PIN_MICROS = 20_000;
/**
 * A record that left before the others came is asked for again so often; then smbd goes the slow way. Each time the
 * operation keeps at least one more, while partial pins last.
 */
const TRIES_MAX = 8;
/** Keys of one operation: a file's records and the leases of its holders; more holders than this go the slow way. */
export const KEYS_PER_OPERATION_MAX = 64;

export interface RecordName {
  database: DatabaseId;
  key: RecordKey;
}

/** A record that an operation needs, to change it or only to read it: then a copy is enough. */
export interface NeededRecord extends RecordName {
  mode: AccessMode;
}

/** What pins need of holdings.ts. */
export interface PinnedRecords {
  /** Whether smbd could use the record now. */
  isHome(needed: NeededRecord): boolean;
  want(needed: NeededRecord, token: number): void;
  cancel(token: number): void;
  pin(needed: NeededRecord, operation: number, until: Micros): void;
  unpin(name: RecordName, operation: number): void;
}

interface Operation {
  number: number;
  names: NeededRecord[];
  /** Tokens of records that are not here yet. */
  missing: Map<number, NeededRecord>;
  tries: number;
  ready: ((all: boolean) => void) | null;
  timer: Timer | null;
}

export class Pins {
  private readonly operations = new Map<number, Operation>();
  private readonly byToken = new Map<number, Operation>();
  /** Our tokens are negative, the gate's positive: answers find their asker by the sign. */
  private lastToken = 0;

  constructor(
    private readonly context: CoreContext,
    private readonly records: PinnedRecords,
  ) {}

  /** A token for a request of ours to the records. */
  nextToken(): number {
    return --this.lastToken;
  }

  get size(): number {
    return this.operations.size;
  }

  /**
   * Starts an operation. `ready` is called once, possibly within this call: with true when all records are here and
   * pinned for PIN_MICROS, with false when that cannot be had. Null pins what is here and fetches nothing.
   */
  begin(number: number, names: readonly NeededRecord[], ready: ((all: boolean) => void) | null): void {
    this.end(number);
    const operation: Operation = {
      number,
      // one fixed order for everybody: see keepFirst
      names: [...names].sort(compareNames),
      missing: new Map(),
      tries: 0,
      ready,
      timer: null,
    };
    this.operations.set(number, operation);
    if (names.length > KEYS_PER_OPERATION_MAX) {
      this.context.count('pin.too-many-keys');
      this.answer(operation, false);
      return;
    }
    if (ready === null) {
      const until = this.context.now() + PIN_MICROS;
      for (const name of operation.names) if (this.records.isHome(name)) this.records.pin(name, number, until);
      this.expireAt(operation, until);
      return;
    }
    this.collect(operation);
  }

  /** More records for an operation that is under way; those it has stay. `ready` is called once, as in `begin`. */
  extend(number: number, names: readonly NeededRecord[], ready: (all: boolean) => void): void {
    const operation = this.operations.get(number);
    if (operation === undefined) return ready(false);
    const known = new Set(operation.names.map((name) => `${name.database}/${name.key}`));
    const added = names.filter((name) => !known.has(`${name.database}/${name.key}`));
    operation.names = [...operation.names, ...added].sort(compareNames);
    operation.ready = ready;
    operation.tries = 0;
    // an operation that waits again does not end; what it has stays by partial pins
    operation.timer?.cancel();
    if (operation.names.length > KEYS_PER_OPERATION_MAX) this.answer(operation, false);
    else this.collect(operation);
  }

  /** The operation is over, or nobody waits for it any more. */
  end(number: number): void {
    const operation = this.operations.get(number);
    if (operation === undefined) return;
    this.operations.delete(number);
    operation.timer?.cancel();
    operation.ready = null;
    for (const token of operation.missing.keys()) {
      this.byToken.delete(token);
      this.records.cancel(token);
    }
    for (const name of operation.names) this.records.unpin(name, number);
  }

  /** A record asked for with `token` is here. */
  arrived(token: number): void {
    const operation = this.byToken.get(token);
    if (operation === undefined) return;
    this.byToken.delete(token);
    operation.missing.delete(token);
    if (operation.missing.size === 0) this.collect(operation);
    else this.keepFirst(operation);
  }

  /**
   * Keeps what came before the first record that is missing, in the order that all operations share. Whoever keeps a
   * record waits only for later ones, so no two operations wait for each other in a circle.
   */
  private keepFirst({ number, names }: Operation): void {
    const until = this.context.now() + PARTIAL_PIN_MICROS;
    for (const name of names) {
      if (!this.records.isHome(name)) return;
      this.records.pin(name, number, until);
    }
  }

  failed(token: number): void {
    const operation = this.byToken.get(token);
    if (operation === undefined) return;
    this.byToken.delete(token);
    operation.missing.delete(token);
    this.answer(operation, false);
  }

  /** Asks for what is not here; when nothing is missing, the operation is ready. */
  private collect(operation: Operation): void {
    const { number, names } = operation;
    const now = this.context.now();
    const away = names.filter((name) => !this.records.isHome(name));
    if (away.length === 0) {
      for (const name of names) this.records.pin(name, number, now + PIN_MICROS);
      this.expireAt(operation, now + PIN_MICROS);
      this.answer(operation, true);
      return;
    }
    operation.tries += 1;
    if (operation.tries > TRIES_MAX) {
      this.context.count('pin.gave-up');
      this.answer(operation, false);
      return;
    }
    this.keepFirst(operation);
    const asked: [number, NeededRecord][] = away.map((name) => [this.nextToken(), name]);
    for (const [token, name] of asked) {
      operation.missing.set(token, name);
      this.byToken.set(token, operation);
    }
    for (const [token, name] of asked) this.records.want(name, token);
  }

  private answer(operation: Operation, all: boolean): void {
    const { ready } = operation;
    operation.ready = null;
    ready?.(all);
  }

  private expireAt(operation: Operation, until: Micros): void {
    operation.timer?.cancel();
    operation.timer = this.context.timers.at(until, () => {
      this.context.count('pin.expired');
      this.end(operation.number);
    });
  }
}

function compareNames(a: RecordName, b: RecordName): number {
  if (a.database !== b.database) return a.database - b.database;
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}
