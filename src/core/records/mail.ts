/**
 * Messages between homes, owners and askers. What a server tells itself is handled before the step ends; the asks of
 * one turn travel together. Used by records.ts.
 */
import { Fifo } from '../../base/fifo.js';
import type { DatabaseId, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { NODE_COUNT_MAX } from '../../base/ids.js';
import type { Claim, MassMessage, RecordMessage } from '../../wire/record-messages.js';
import { KEYS_PER_MESSAGE_MAX, encodeRecordMessage } from '../../wire/record-messages.js';
import type { CoreContext } from '../context.js';
import type { AccessMode } from '../effects.js';

/** What the other server only notes; streams are in order, so it has it before anything that follows from it. */
const NOBODY_WAITS_FOR = new Set<RecordMessage['kind']>(['exists', 'gone', 'drop']);

/** Since this protocol messages of one kind travel in one. */
const MANY_PROTOCOL = 2;
/** Where 'many' is not of claims. */
const NO_CLAIM: Claim = 'backup';

type Many = Extract<RecordMessage, { kind: 'many' }>;

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
  /** What we told ourselves. */
  private readonly toSelf = new Fifo<RecordMessage>();
  private isHandling = false;
  /** Asks of this turn by home, asker and mode: they travel in one message. */
  private readonly asks = new Map<number, { home: NodeId; message: Extract<RecordMessage, { kind: 'ask' }> }>();
  /** For each server the messages of one kind that nothing has been posted behind. */
  private readonly gathered = new Map<NodeId, Many>();

  constructor(
    private readonly context: CoreContext,
    private readonly handle: (from: NodeId, message: RecordMessage) => void,
  ) {}

  post(to: NodeId, message: RecordMessage): void {
    if (to === this.context.self) {
      this.toSelf.put(message);
      return;
    }
    if (isMass(message) && this.context.speaks(MANY_PROTOCOL)) return this.gather(to, message);
    if (this.gathered.size > 0) this.sendGathered(to);
    this.send(to, message);
  }

  private send(to: NodeId, message: RecordMessage): void {
    this.context.send(to, encodeRecordMessage(message), NOBODY_WAITS_FOR.has(message.kind) ? 'ride' : 'wait');
  }

  /** Until the turn ends, something else is posted to that server, or the message is full. */
  private gather(to: NodeId, message: MassMessage): void {
    const { kind, database, key, turn } = message;
    const what = kind === 'claim' ? message.what : NO_CLAIM;
    let many = this.gathered.get(to);
    const isSame = many?.of === kind && many.database === database && many.what === what;
    if (many === undefined || !isSame || many.records.length === KEYS_PER_MESSAGE_MAX) {
      this.sendGathered(to);
      many = { kind: 'many', of: kind, what, database, records: [] };
      this.gathered.set(to, many);
    }
    many.records.push({ key, turn });
  }

  private sendGathered(to: NodeId): void {
    const many = this.gathered.get(to);
    if (many === undefined) return;
    this.gathered.delete(to);
    const [only] = many.records;
    this.send(to, many.records.length > 1 ? many : single(many, only!));
  }

  /** Asks the key's home: at the end of the turn, or when a message is full. */
  ask(home: NodeId, { asker, run, mode, database, key }: Ask): void {
    if (home === this.context.self) {
      this.toSelf.put({ kind: 'ask', asker, run, mode, keys: [{ database, key }] });
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
      for (let next = this.toSelf.take(); next !== undefined; next = this.toSelf.take()) {
        this.handle(this.context.self, next);
      }
    } finally {
      this.isHandling = false;
    }
  }

  /** The turn ends. */
  flush(): void {
    if (this.gathered.size > 0) for (const to of [...this.gathered.keys()]) this.sendGathered(to);
    for (const { home, message } of this.asks.values()) this.post(home, message);
    this.asks.clear();
  }
}

function isMass(message: RecordMessage): message is MassMessage {
  return message.kind === 'have' || message.kind === 'claim' || message.kind === 'reclaim';
}

/** One of the messages in it, as it travels alone. */
export function single({ of, what, database }: Many, { key, turn }: { key: RecordKey; turn: Turn }): MassMessage {
  return of === 'claim' ? { kind: of, database, key, turn, what } : { kind: of, database, key, turn };
}
