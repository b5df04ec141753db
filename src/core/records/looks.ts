/**
 * Looks at a record without taking or copying it: for listings, which read the share modes of every file and keep
 * nothing. The asker asks the home, the home sends the question on to the owner, the owner answers the asker. Nobody
 * remembers anything but the asker, who asks again when no answer comes. What it learns was true at some moment after
 * it asked. Used by core/records.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** An answer takes two or three trips; after this time the question or the answer is lost, or a server died. */
const ANSWER_MICROS_MAX = 250_000;
/** The record was moving: a moment later it has arrived. */
const AWAY_MICROS = 1_000;
/** Questions asked before the record is taken, as those take it who keep what they read. */
const TRIES_MAX = 8;

type LookMessage = Extract<RecordMessage, { kind: 'look' }>;
type LookedMessage = Extract<RecordMessage, { kind: 'looked' }>;

/** What looking needs of the other parts of core/records. */
export interface Looked {
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
  /** Who owns the record, as we know who are its home; null if nobody, undefined if we cannot tell yet. */
  ownerOf(database: DatabaseId, key: RecordKey): NodeId | null | undefined;
  isOwned(database: DatabaseId, key: RecordKey): boolean;
  /** Reads the record if it is ours. */
  inspect(name: { database: DatabaseId; key: RecordKey }, then: (data: Uint8Array) => void): void;
  fetched(token: number, data: Uint8Array): void;
  /**
   * The slow way, which cannot fail: the record moves here, and `token` is answered by `migrated`. Never by a copy:
   * these are records of which smbd must not find one (core/gate/calls).
   */
  take(database: DatabaseId, key: RecordKey, token: number): void;
  post(to: NodeId, message: RecordMessage): void;
}

interface Look {
  database: DatabaseId;
  key: RecordKey;
  tries: number;
  timer: Timer | null;
}

export class Looks {
  /** By the asker's token, which is also the question's number on the wire. */
  private readonly looks = new Map<number, Look>();

  constructor(
    private readonly context: CoreContext,
    private readonly run: number,
    private readonly records: Looked,
  ) {}

  /** Answered by `fetched` or, if no answer could be had, by `migrated`; possibly within this call. */
  look(database: DatabaseId, key: RecordKey, token: number): void {
    this.looks.set(token, { database, key, tries: 0, timer: null });
    this.ask(token);
  }

  cancel(token: number): void {
    this.looks.get(token)?.timer?.cancel();
    this.looks.delete(token);
  }

  /** A question: for us as the owner, or as the home that knows the owner. */
  onLook(message: LookMessage): void {
    const { database, key, asker, number, run } = message;
    const answer = (what: LookedMessage['what'], data: Uint8Array): void =>
      this.records.post(asker, { kind: 'looked', number, run, what, data });
    if (this.records.isOwned(database, key)) {
      this.records.inspect({ database, key }, (data) => {
        // it may have left while a chain was waited for: empty then says nothing
        if (data.length > 0 || this.records.isOwned(database, key)) answer('data', data);
        else answer('away', EMPTY);
      });
      return;
    }
    const isHome = this.records.homeOf(database, key) === this.context.self;
    const owner = isHome ? this.records.ownerOf(database, key) : undefined;
    if (owner === null) answer('data', EMPTY);
    else if (owner === undefined || owner === this.context.self || owner === asker) answer('away', EMPTY);
    else this.records.post(owner, message);
  }

  onLooked({ number, run, what, data }: LookedMessage): void {
    const look = this.looks.get(number);
    if (look === undefined || run !== this.run) return;
    if (what === 'away') {
      this.askIn(number, look, AWAY_MICROS * 2 ** look.tries);
      return;
    }
    this.cancel(number);
    this.context.count('record.looked');
    this.records.fetched(number, data);
  }

  private ask(number: number): void {
    const look = this.looks.get(number);
    if (look === undefined) return;
    look.tries += 1;
    if (look.tries > TRIES_MAX) {
      this.cancel(number);
      this.context.count('record.look.gave-up');
      this.records.take(look.database, look.key, number);
      return;
    }
    this.askIn(number, look, ANSWER_MICROS_MAX);
    const { database, key } = look;
    const message: LookMessage = { kind: 'look', database, key, asker: this.context.self, run: this.run, number };
    const isOurs = this.records.isOwned(database, key);
    this.records.post(isOurs ? this.context.self : this.records.homeOf(database, key), message);
  }

  private askIn(number: number, look: Look, micros: Micros): void {
    look.timer?.cancel();
    look.timer = this.context.timers.at(this.context.now() + micros, () => this.ask(number));
  }
}

const EMPTY = new Uint8Array(0);
