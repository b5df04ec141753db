/**
 * Messages between homes, owners and askers. What a server tells itself is handled before the step ends; the asks of
 * one turn travel together. Used by records.ts.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import { NODE_COUNT_MAX } from '../../base/ids.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import { KEYS_PER_MESSAGE_MAX, encodeRecordMessage } from '../../wire/record-messages.js';
import type { CoreContext } from '../context.js';
import type { AccessMode } from '../effects.js';

/** What the other server only notes; streams are in order, so it has it before anything that follows from it. */
const NOBODY_WAITS_FOR = new Set<RecordMessage['kind']>(['exists', 'gone', 'drop']);

/** One key of an 'ask' message. */
export interface Ask {
  asker: NodeId;
  /** Of the asker, as it travels in asks. */
  run: number;
  mode: AccessMode;
  database: DatabaseId;
  key: RecordKey;
}

export class Mail {
  /** What we told ourselves, from `next` on. */
  private toSelf: RecordMessage[] = [];
  private next = 0;
  private isHandling = false;
  /** Asks of this turn by home, asker and mode: they travel in one message. */
  private readonly asks = new Map<number, { home: NodeId; message: Extract<RecordMessage, { kind: 'ask' }> }>();

  constructor(
    private readonly context: CoreContext,
    private readonly handle: (from: NodeId, message: RecordMessage) => void,
  ) {}

  post(to: NodeId, message: RecordMessage): void {
    if (to === this.context.self) this.toSelf.push(message);
    else this.context.send(to, encodeRecordMessage(message), NOBODY_WAITS_FOR.has(message.kind) ? 'ride' : 'wait');
  }

  /** Asks the key's home: at the end of the turn, or when a message is full. */
  ask(home: NodeId, { asker, run, mode, database, key }: Ask): void {
    if (home === this.context.self) {
      this.toSelf.push({ kind: 'ask', asker, run, mode, keys: [{ database, key }] });
      return;
    }
    const name = (home * NODE_COUNT_MAX + asker) * 2 + (mode === 'write' ? 1 : 0);
    const waiting = this.asks.get(name);
    if (waiting === undefined) {
      this.asks.set(name, { home, message: { kind: 'ask', asker, run, mode, keys: [{ database, key }] } });
      return;
    }
    waiting.message.keys.push({ database, key });
    if (waiting.message.keys.length >= KEYS_PER_MESSAGE_MAX) {
      this.asks.delete(name);
      this.post(home, waiting.message);
    }
  }

  /** Handles what we told ourselves, and what that leads to. Within itself it does nothing. */
  drain(): void {
    if (this.isHandling) return;
    this.isHandling = true;
    try {
      // not by shift, which moves all that is left: a view change may bring ten thousands at once
      while (this.next < this.toSelf.length) this.handle(this.context.self, this.toSelf[this.next++]!);
    } finally {
      this.toSelf = this.toSelf.slice(this.next);
      this.next = 0;
      this.isHandling = false;
    }
  }

  /** The turn ends. */
  flush(): void {
    for (const { home, message } of this.asks.values()) this.post(home, message);
    this.asks.clear();
  }
}
