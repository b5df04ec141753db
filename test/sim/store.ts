/**
 * A simulated tdb directory of one server: databases in memory, chains that simulated smbds hold, a sequence number per
 * database. Performs the core's record effects as core/effects.ts describes them; smbds write past the core, as real
 * ones do. Every change is reported to `onChange`, which is how the checkers see everything.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../src/base/ids.js';
import type { RecordOp, RecordOutcome } from '../../src/core/effects.js';
import {
  FLAG_HAVE_DELEGATIONS,
  FLAG_HAVE_READONLY,
  RECORD_HEADER_BYTES,
  decodeRecordHeader,
  encodeRecord,
} from '../../src/wire/record-header.js';
import type { RecordHeader } from '../../src/wire/record-header.js';

/** Few chains, so that different keys share one, as they do in a real tdb. */
const CHAIN_COUNT = 5;

export interface StoredRecord {
  header: RecordHeader;
  data: Uint8Array;
}

interface StoredDatabase {
  name: string;
  records: Map<RecordKey, Uint8Array>;
  sequence: number;
  /** Who holds each chain: a simulated smbd's name. */
  holders: Map<number, string>;
  /** Who waits for a chain; all are woken, one gets it. */
  waiting: Map<number, (() => void)[]>;
}

export class SimulatedStore {
  private readonly databases = new Map<DatabaseId, StoredDatabase>();
  onChange: ((database: DatabaseId, key: RecordKey, why: string) => void) | null = null;
  onOpen: ((database: DatabaseId, name: string) => void) | null = null;
  /** For canary tests: true makes the store answer 'done' to this operation and do it wrong. */
  sabotage: ((op: RecordOp) => boolean) | null = null;
  /** For canary tests: true makes this operation leave the sequence number alone. */
  quiet: ((op: RecordOp) => boolean) | null = null;
  /** The file system is full or broken: true makes the store refuse this operation. */
  failing: ((op: RecordOp) => boolean) | null = null;

  constructor(readonly self: NodeId) {}

  open(database: DatabaseId, name: string): void {
    if (this.databases.has(database)) return;
    this.onOpen?.(database, name);
    this.databases.set(database, { name, records: new Map(), sequence: 0, holders: new Map(), waiting: new Map() });
  }

  private of(database: DatabaseId): StoredDatabase {
    const found = this.databases.get(database);
    if (found === undefined) throw new Error(`database ${database} is not open on server ${this.self}`);
    return found;
  }

  has(database: DatabaseId): boolean {
    return this.databases.has(database);
  }

  isEmpty(): boolean {
    for (const { records } of this.databases.values()) if (records.size > 0) return false;
    return true;
  }

  *keys(): Iterable<{ database: DatabaseId; name: string; key: RecordKey }> {
    for (const [database, { name, records }] of this.databases) {
      for (const key of records.keys()) yield { database, name, key };
    }
  }

  get(database: DatabaseId, key: RecordKey): StoredRecord | null {
    const value = this.databases.get(database)?.records.get(key);
    if (value === undefined) return null;
    return { header: decodeRecordHeader(value), data: value.subarray(RECORD_HEADER_BYTES) };
  }

  /** What a smbd does under the chain; also what the operations below end in. */
  put(database: DatabaseId, key: RecordKey, header: RecordHeader, data: Uint8Array, why: string): void {
    const stored = this.of(database);
    stored.records.set(key, encodeRecord(header, data));
    stored.sequence++;
    this.onChange?.(database, key, why);
  }

  private remove(database: DatabaseId, key: RecordKey, why: string): void {
    const stored = this.of(database);
    if (!stored.records.delete(key)) return;
    stored.sequence++;
    this.onChange?.(database, key, why);
  }

  sequence(database: DatabaseId): number {
    return this.of(database).sequence;
  }

  // --- chains

  chainOf(key: RecordKey): number {
    let hash = 7;
    for (let i = 0; i < key.length; i++) hash = (hash * 31 + key.charCodeAt(i)) >>> 0;
    return hash % CHAIN_COUNT;
  }

  tryChain(database: DatabaseId, key: RecordKey, holder: string): boolean {
    const { holders } = this.of(database);
    const chain = this.chainOf(key);
    if (holders.has(chain)) return false;
    holders.set(chain, holder);
    return true;
  }

  /** Calls `then` when the chain may be free; the caller tries again. */
  waitForChain(database: DatabaseId, key: RecordKey, then: () => void): void {
    const { waiting } = this.of(database);
    const chain = this.chainOf(key);
    waiting.set(chain, [...(waiting.get(chain) ?? []), then]);
  }

  holderOf(database: DatabaseId, key: RecordKey): string | undefined {
    return this.of(database).holders.get(this.chainOf(key));
  }

  unlockChain(database: DatabaseId, key: RecordKey, holder: string): void {
    const { holders, waiting } = this.of(database);
    const chain = this.chainOf(key);
    if (holders.get(chain) !== holder) throw new Error(`${holder} unlocks a chain of ${holders.get(chain)}`);
    holders.delete(chain);
    wakeAll(waiting, chain);
  }

  /** A process died: its chains become free, as robust mutexes do. */
  releaseAll(holder: string): void {
    for (const stored of this.databases.values()) {
      for (const [chain, of] of [...stored.holders]) {
        if (of !== holder) continue;
        stored.holders.delete(chain);
        wakeAll(stored.waiting, chain);
      }
    }
  }

  // --- the core's operations

  perform(database: DatabaseId, key: RecordKey, op: RecordOp): RecordOutcome {
    const before = this.of(database).sequence;
    const outcome = this.performOp(database, key, op);
    if (this.quiet?.(op) === true) this.of(database).sequence = before;
    return outcome;
  }

  private performOp(database: DatabaseId, key: RecordKey, op: RecordOp): RecordOutcome {
    if (this.of(database).holders.has(this.chainOf(key))) return { result: 'busy' };
    const record = this.get(database, key);
    if (this.failing?.(op) === true) {
      // libtdb deletes what a larger record replaces before it looks for room
      if (op.op === 'take' && record?.header.flags === 0) this.remove(database, key, `failed ${describeOp(op)}`);
      return { result: 'failed', why: 'no space' };
    }
    if (this.sabotage?.(op) === true) return this.performWrongly(database, key, op, record);
    switch (op.op) {
      case 'keep':
        if (record?.header.dmaster === this.self) return { result: 'refused', why: 'ours' };
        if (record !== null && record.header.rsn >= op.turn) return { result: 'refused', why: 'other-turn' };
        this.put(database, key, { rsn: op.turn - 1, dmaster: op.owner, flags: 0 }, op.data, describeOp(op));
        return { result: 'done' };
      case 'take': {
        const header =
          op.copyOf === null
            ? { rsn: op.turn, dmaster: this.self, flags: 0 }
            : { rsn: op.turn, dmaster: op.copyOf, flags: FLAG_HAVE_READONLY };
        this.put(database, key, header, op.data, describeOp(op));
        return { result: 'done' };
      }
      case 'discard':
        if (record === null) return { result: 'done' };
        if (record.header.dmaster === this.self) return { result: 'refused', why: 'ours' };
        if (record.header.rsn > op.turn) return { result: 'refused', why: 'other-turn' };
        if (op.keep) this.put(database, key, { ...record.header, flags: 0 }, record.data, describeOp(op));
        else this.remove(database, key, describeOp(op));
        return { result: 'done' };
      case 'reclaim':
        if (record === null) return { result: 'refused', why: 'absent' };
        this.put(database, key, { rsn: op.turn, dmaster: this.self, flags: 0 }, record.data, describeOp(op));
        return { result: 'done', isEmpty: record.data.length === 0 };
      case 'peek':
        return this.peek(record, op.mode);
      default:
        if (record === null) return { result: 'refused', why: 'absent' };
        if (record.header.dmaster !== this.self) return { result: 'refused', why: 'not-ours' };
        return this.performOnOwn(database, key, op, record);
    }
  }

  /** The planted bugs: a flag not set, a copy not deleted, an older payload stored. */
  private performWrongly(database: DatabaseId, key: RecordKey, op: RecordOp, old: StoredRecord | null): RecordOutcome {
    if (op.op === 'take') {
      const header = { rsn: op.turn, dmaster: this.self, flags: 0 };
      this.put(database, key, header, old?.data ?? new Uint8Array(0), 'sabotaged take');
    }
    return old === null ? { result: 'done' } : { result: 'done', data: old.data };
  }

  private peek(record: StoredRecord | null, mode: 'read' | 'write'): RecordOutcome {
    if (record === null) return { result: 'refused', why: 'absent' };
    const own = record.header.dmaster === this.self;
    if (!own && (mode === 'write' || (record.header.flags & FLAG_HAVE_READONLY) === 0)) {
      return { result: 'refused', why: 'not-ours' };
    }
    const shared = (record.header.flags & FLAG_HAVE_DELEGATIONS) !== 0;
    if (mode === 'write' && shared) return { result: 'refused', why: 'shared' };
    return { result: 'done', data: record.data };
  }

  private performOnOwn(
    database: DatabaseId,
    key: RecordKey,
    op: Extract<RecordOp, { op: 'give' | 'share' | 'unshare' | 'erase' }>,
    record: StoredRecord,
  ): RecordOutcome {
    const { header, data } = record;
    switch (op.op) {
      case 'give':
        this.put(database, key, { rsn: header.rsn, dmaster: op.to, flags: 0 }, data, describeOp(op));
        return { result: 'done', data };
      case 'share':
        this.put(database, key, { ...header, flags: header.flags | FLAG_HAVE_DELEGATIONS }, data, describeOp(op));
        return { result: 'done', data };
      case 'unshare':
        this.put(database, key, { rsn: op.turn, dmaster: this.self, flags: 0 }, data, describeOp(op));
        return { result: 'done', data };
      case 'erase':
        if (data.length > 0) return { result: 'refused', why: 'not-empty' };
        if (header.rsn !== op.turn) return { result: 'refused', why: 'other-turn' };
        this.remove(database, key, describeOp(op));
        return { result: 'done' };
    }
  }
}

function wakeAll(waiting: Map<number, (() => void)[]>, chain: number): void {
  const woken = waiting.get(chain) ?? [];
  waiting.delete(chain);
  for (const then of woken) then();
}

/** An operation in one short phrase, for traces and scenarios. */
export function describeOp(op: RecordOp): string {
  switch (op.op) {
    case 'take':
      return op.copyOf === null ? `take turn ${op.turn}` : `take copy of ${op.copyOf} turn ${op.turn}`;
    case 'keep':
      return `keep of ${op.owner} turn ${op.turn}`;
    case 'give':
      return `give to ${op.to} turn ${op.turn}`;
    case 'discard':
      return `discard${op.keep ? ', keeping a backup,' : ''} turn ${op.turn}`;
    case 'peek':
      return `peek for ${op.mode}`;
    default:
      return `${op.op} turn ${op.turn}`;
  }
}

/** Whether a smbd of `self` may write or read a record with this header; the rule of Samba's dbwrap_ctdb. */
export function usableBySmbd(header: RecordHeader, self: NodeId, mode: 'read' | 'write'): boolean {
  if (header.dmaster !== self) return mode === 'read' && (header.flags & FLAG_HAVE_READONLY) !== 0;
  return mode === 'read' || (header.flags & FLAG_HAVE_DELEGATIONS) === 0;
}
