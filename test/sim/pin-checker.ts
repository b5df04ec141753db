/**
 * Watches what the daemons promise the modules: 'ready' means that all records are here; records of a running
 * operation stay for its length, but no longer than agreed while another server waits; every batch is answered, so no
 * two wait in a circle. Sees only what goes in and out of a server: ring messages, frames, store operations.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseIdOf } from '../../src/base/jenkins.js';
import type { AccessMode, Effect, Input, Micros, RecordOutcome } from '../../src/core/effects.js';
import { PIN_MICROS } from '../../src/core/records/pins.js';
import { decodeFrame } from '../../src/wire/frame.js';
import { FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';
import { MEMBERSHIP_TYPE_MIN } from '../../src/wire/membership-messages.js';
import { decodeRecordMessage } from '../../src/wire/record-messages.js';
import { OPEN_FLAG, RING_OP, decodeRingMessage } from '../../src/wire/ring-ops.js';
import type { SimulatedStore } from './store.js';
import { usableBySmbd } from './store.js';

/** Others wait for a record that operations use no longer than this, and for no more operations than so many. */
const COHORT_MICROS = 20_000;
const COHORT_OPERATIONS_MAX = 16;
/** Turns, timers and the try of the chain. */
const SLACK_MICROS = 3_000;
/** Each record of a batch may be pinned by each server in turn, and a batch is begun again a few times. */
const BATCH_MICROS_MAX = 3_000_000;
const GIVE_MESSAGE_TYPE = 2;
const REVOKE_MESSAGE_TYPE = 5;

interface Operation {
  records: { database: DatabaseId; key: RecordKey; mode: AccessMode }[];
  since: Micros;
  /** When it was told that all records are here. */
  ready: Micros | null;
  answered: boolean;
  /** Too many ran already while another server waited: its records may leave. */
  isLate: boolean;
}

/** The home asked for the record, or wants a copy back. */
interface Give {
  turn: number;
  since: Micros;
  /** Operations that ran then or began since: at most so many may be of the cohort. */
  operations: number;
  /** It is a copy that the home wants to go. */
  isCopy: boolean;
  /** A smbd held the chain meanwhile. */
  wasBusy: boolean;
}

export type Fail = (rule: string, text: string, record: string) => void;

/** One server's promises. */
export class PinChecker {
  readonly totals = { batches: 0, ready: 0, longestMicros: 0 };
  private readonly operations = new Map<string, Operation>();
  private readonly ended = new Set<number>();
  private readonly gives = new Map<string, Give>();
  /** The turn of each record's last order heard: frames that are sent again bring orders that were carried out. */
  private readonly heard = new Map<string, number>();

  /**
   * @param timely whether nothing but contention delays anything: no losses, no stalls, nobody killed
   */
  constructor(
    private readonly server: NodeId,
    private readonly store: SimulatedStore,
    private readonly now: () => Micros,
    private readonly timely: boolean,
    private readonly label: (database: DatabaseId, key: RecordKey) => string,
    private readonly fail: Fail,
  ) {}

  /** Before the core gets it. */
  input(input: Input): void {
    if (input.kind === 'frame') this.frame(input.body);
    else if (input.kind === 'ring-message') this.ringMessage(input.attachment, input.op, input.payload);
    else if (input.kind === 'ring-detached') {
      this.ended.add(input.attachment);
      for (const name of [...this.operations.keys()]) {
        if (name.startsWith(`${input.attachment}/`)) this.operations.delete(name);
      }
    }
  }

  /** What the core tells a module. */
  sent({ attachment, op, payload }: Extract<Effect, { kind: 'ring-send' }>): void {
    if (op !== RING_OP.openReady) return;
    const view = Buffer.from(payload);
    const operation = this.operations.get(`${attachment}/${view.readBigUInt64LE(0)}`);
    if (operation === undefined) {
      // others of its operations may become ready while those of a dead smbd end, one after the other
      if (this.ended.has(attachment)) return;
      this.fail('ready-was-asked', `server ${this.server} answers an operation nobody began`, '');
      return;
    }
    const took = this.now() - operation.since;
    operation.answered = true;
    this.totals.longestMicros = Math.max(this.totals.longestMicros, took);
    this.judgeTime(took);
    if (view.readUInt32LE(8) !== 0) return;
    this.totals.ready++;
    operation.ready = this.now();
    this.judgePresence(operation);
    // a copy that is to go stays only for those that had it before
    operation.records = operation.records.filter(({ database, key }) => !this.gives.get(nameOf(database, key))?.isCopy);
  }

  private judgePresence(operation: Operation): void {
    for (const { database, key, mode } of operation.records) {
      const give = this.gives.get(nameOf(database, key));
      if (give !== undefined && give.operations > COHORT_OPERATIONS_MAX) operation.isLate = true;
      const header = this.store.get(database, key)?.header;
      if (header !== undefined && usableBySmbd(header, this.server, mode)) continue;
      const record = this.label(database, key);
      this.fail('ready-means-here', `server ${this.server} said ready without ${record}`, record);
    }
  }

  /** A store operation of the core. */
  stored({ database, key, op }: Extract<Effect, { kind: 'record' }>, outcome: RecordOutcome): void {
    const name = nameOf(database, key);
    const give = this.gives.get(name);
    if (give === undefined) return;
    if ((op.op === 'give' || op.op === 'share' || op.op === 'discard') && op.turn === give.turn) {
      this.judgePins(database, key, give, op.op);
      if (!give.wasBusy) this.judgeBound(database, key, give);
      if (outcome.result === 'done') this.letGo(database, key, op.op);
      if (outcome.result !== 'busy') this.gives.delete(name);
    } else if (op.op === 'take' || op.op === 'reclaim' || op.op === 'unshare') {
      this.gives.delete(name);
    }
    if (outcome.result === 'busy') give.wasBusy = true;
  }

  /** A copy that its home wanted to go is not promised, and may stay until the next home wants it to. */
  viewInstalled(): void {
    const isCopy = ({ database, key }: { database: DatabaseId; key: RecordKey }): boolean =>
      ((this.store.get(database, key)?.header.flags ?? 0) & FLAG_HAVE_READONLY) !== 0;
    for (const operation of this.operations.values()) {
      if (operation.ready !== null) operation.records = operation.records.filter((record) => !isCopy(record));
    }
  }

  /** The faults have stopped and time has passed. */
  finish(): void {
    for (const operation of this.operations.values()) {
      if (!operation.answered) this.judgeTime(this.now() - operation.since);
    }
    for (const [name, give] of this.gives) {
      const slash = name.indexOf('/');
      const [database, key] = [Number(name.slice(0, slash)) as DatabaseId, name.slice(slash + 1) as RecordKey];
      if (this.store.get(database, key)?.header.dmaster === this.server && !give.wasBusy) {
        this.judgeBound(database, key, give);
      }
    }
  }

  private judgeTime(micros: Micros): void {
    if (!this.timely || micros <= BATCH_MICROS_MAX) return;
    this.fail('batches-are-answered', `a batch on server ${this.server} waited ${micros} us`, '');
  }

  /** The record leaves: no operation may count on it. */
  private judgePins(database: DatabaseId, key: RecordKey, give: Give, how: 'give' | 'share' | 'discard'): void {
    const now = this.now();
    if (now - give.since >= COHORT_MICROS || give.operations > COHORT_OPERATIONS_MAX) return;
    for (const operation of this.operations.values()) {
      const { ready, isLate } = operation;
      if (ready === null || isLate || now - ready >= PIN_MICROS) continue;
      const needed = operation.records.find((other) => other.database === database && other.key === key);
      // who only reads may go on when others read, too
      if (needed === undefined || (how === 'share' && needed.mode === 'read')) continue;
      const record = this.label(database, key);
      const text = `${record} leaves server ${this.server} ${now - ready} us after an operation was told it is here`;
      this.fail('pinned-records-stay', text, record);
    }
  }

  /** It may have come back when it leaves again: then nothing was promised any more. */
  private letGo(database: DatabaseId, key: RecordKey, how: 'give' | 'share' | 'discard'): void {
    for (const operation of this.operations.values()) {
      // who was told nothing yet still needs it
      if (operation.ready === null) continue;
      operation.records = operation.records.filter((needed) => {
        const isIt = needed.database === database && needed.key === key;
        return !isIt || (how === 'share' && needed.mode === 'read');
      });
    }
  }

  private judgeBound(database: DatabaseId, key: RecordKey, give: Give): void {
    const waited = this.now() - give.since;
    if (!this.timely || waited <= COHORT_MICROS + SLACK_MICROS) return;
    const record = this.label(database, key);
    this.fail('pins-end', `server ${this.server} kept ${record} for ${waited} us while another waited`, record);
  }

  private ringMessage(attachment: number, op: number, payload: Uint8Array): void {
    const message = decodeRingMessage(op, payload);
    if (message.kind === 'open-end' || message.kind === 'open-cancel') {
      this.operations.delete(`${attachment}/${message.operation}`);
    }
    if (message.kind !== 'open-begin') return;
    const files = (message.flags & OPEN_FLAG.hasBase) === 0 ? [message.file] : [message.file, message.base];
    const records = files.flatMap((key) => [
      { database: databaseIdOf('locking.tdb'), key, mode: 'write' as const },
      { database: databaseIdOf('brlock.tdb'), key, mode: 'read' as const },
    ]);
    const wantsReply = (message.flags & OPEN_FLAG.wantsReply) !== 0;
    if (wantsReply) this.totals.batches++;
    const operation = { records, since: this.now(), ready: null, answered: !wantsReply, isLate: false };
    for (const { database, key } of records) {
      const give = this.gives.get(nameOf(database, key));
      if (give !== undefined) give.operations++;
    }
    this.operations.set(`${attachment}/${message.operation}`, operation);
  }

  private frame(body: Uint8Array): void {
    if ((body[0] ?? 0) >= MEMBERSHIP_TYPE_MIN) return;
    const frame = decodeFrame(body);
    if (frame.kind !== 'data') return;
    for (const { first, last, bytes } of frame.records) {
      if (!first || !last || (bytes[0] !== GIVE_MESSAGE_TYPE && bytes[0] !== REVOKE_MESSAGE_TYPE)) continue;
      const message = decodeRecordMessage(bytes);
      if (message.kind !== 'give' && message.kind !== 'revoke') continue;
      const name = nameOf(message.database, message.key);
      const { database, key, turn } = message;
      const rsn = this.store.get(database, key)?.header.rsn ?? 0;
      if (turn <= Math.max(rsn, this.heard.get(name) ?? 0)) continue;
      this.heard.set(name, turn);
      const operations = [...this.operations.values()].filter((one) => concerns(one, database, key)).length;
      const isCopy = message.kind === 'revoke';
      this.gives.set(name, { turn, since: this.now(), operations, isCopy, wasBusy: false });
    }
  }
}

function concerns({ records }: Operation, database: DatabaseId, key: RecordKey): boolean {
  return records.some((other) => other.database === database && other.key === key);
}

function nameOf(database: DatabaseId, key: RecordKey): string {
  return `${database}/${key}`;
}
