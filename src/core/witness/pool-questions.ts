/**
 * Questions and live events across the pool: asks every server that is up, waits a bounded time, merges; keeps the
 * readers of live events, here and on other servers. Never touches a record. Used by core/witness/witness.
 */
import type { NodeId } from '../../base/ids.js';
import { lockMatcher } from '../../base/lock-filter.js';
import { TRACE_KINDS } from '../../wire/locks.js';
import type { HotAnswer, HotFile, LockFilter, LocksAnswer, TraceEvent, TraceFilter } from '../../wire/locks.js';
import type { WitnessMessage } from '../../wire/witness-messages.js';
import { WITNESS_TEXT_BYTES_MAX, encodeWitnessMessage } from '../../wire/witness-messages.js';
import type { CoreContext } from '../context.js';
import type { Timer } from '../timers.js';
import { HOT_INTERVAL_MICROS, mergeHot } from './hot.js';
import { findHolders } from './reports.js';

/** A server that has not answered by then is named as missing. */
const ANSWER_MICROS_MAX = 1_000_000;
/** Opens and waits one answer may hold; a person cannot read more, and it bounds the message. */
export const ROWS_MAX = 10_000;
/** Events kept for one remote reader until the end of the turn; more are counted as dropped. */
const EVENTS_PER_TURN_MAX = 256;
/** Remote readers at once; each costs a message per turn with events. */
const READERS_MAX = 64;

/** What this server knows by itself. */
export interface LocalKnowledge {
  locks(): LocksAnswer;
  hot(): HotFile[];
}

interface Question {
  waiting: Set<NodeId>;
  texts: string[];
  timer: Timer;
  done: (texts: string[], missing: number[]) => void;
}

interface Reader {
  filter: TraceFilter;
  matches: (event: TraceEvent) => boolean;
  /** null: a reader of this server's own admin socket. */
  peer: NodeId | null;
  /** The token, or the number of the peer that subscribed. */
  number: number;
  events: TraceEvent[];
  /** Lost before the next event that the reader gets. */
  dropped: number;
}

export class PoolQuestions {
  private lastNumber = 0;
  private readonly questions = new Map<number, Question>();
  private readonly readers = new Map<string, Reader>();

  constructor(
    private readonly context: CoreContext,
    private readonly local: LocalKnowledge,
  ) {}

  locks(token: number, filter: LockFilter): void {
    const own = this.local.locks();
    this.askAll('locks-query', '{}', (texts, missing) => {
      const answers = [own, ...texts.map((text) => parse<LocksAnswer>(text, isLocksAnswer)).filter((a) => a !== null)];
      const all = answers.flatMap((answer) => answer.opens);
      const waits = answers.flatMap((answer) => answer.waits);
      const truncated = answers.some((answer) => answer.truncated);
      const matches = lockMatcher(filter);
      const answer = { opens: all.filter(matches), waits: waits.filter(matches), missing, truncated };
      findHolders(answer, all);
      this.context.emit({ kind: 'witness-answer', token, answer });
    });
  }

  hot(token: number): void {
    const own = this.local.hot();
    this.askAll('hot-query', '{}', (texts, missing) => {
      const lists = texts.map((text) => parse<HotFile[]>(text, Array.isArray) ?? []);
      const answer: HotAnswer = { intervalMicros: HOT_INTERVAL_MICROS, files: mergeHot([own, ...lists]), missing };
      this.context.emit({ kind: 'witness-answer', token, answer });
    });
  }

  /** A reader of this server wants live events: from all servers. */
  traceStart(token: number, filter: TraceFilter): void {
    this.addReader(null, token, filter);
    const text = JSON.stringify(filter);
    for (const peer of this.peers()) this.send(peer, { kind: 'trace-start', number: token, text });
  }

  traceStop(token: number): void {
    if (!this.readers.delete(`own/${token}`)) return;
    for (const peer of this.peers()) this.send(peer, { kind: 'trace-stop', number: token, text: '' });
  }

  /** Whether anybody would read an event; making one costs something. */
  hasReaders(): boolean {
    return this.readers.size > 0;
  }

  publish(event: TraceEvent): void {
    for (const reader of this.readers.values()) {
      if (!reader.matches(event)) continue;
      if (reader.events.length >= EVENTS_PER_TURN_MAX) reader.dropped += 1;
      else reader.events.push(event);
    }
  }

  /** At the end of the turn: events go to their readers. */
  flush(): void {
    for (const reader of this.readers.values()) {
      if (reader.events.length === 0) continue;
      const first = reader.events[0]!;
      if (reader.dropped > 0) reader.events[0] = { ...first, dropped: (first.dropped ?? 0) + reader.dropped };
      const events = reader.events;
      reader.events = [];
      reader.dropped = 0;
      if (reader.peer === null) {
        for (const event of events) this.context.emit({ kind: 'trace-event', token: reader.number, event });
      } else {
        this.send(reader.peer, { kind: 'trace-events', number: reader.number, text: JSON.stringify(events) });
      }
    }
  }

  peerUp(peer: NodeId): void {
    this.forgetReaders(peer);
    for (const reader of this.readers.values()) {
      if (reader.peer !== null) continue;
      this.send(peer, { kind: 'trace-start', number: reader.number, text: JSON.stringify(reader.filter) });
    }
  }

  peerDown(peer: NodeId): void {
    this.forgetReaders(peer);
    for (const [number, question] of [...this.questions]) {
      if (question.waiting.has(peer)) this.finish(number, question);
    }
  }

  onMessage(from: NodeId, message: Exclude<WitnessMessage, { kind: 'watch' | 'probe' | 'folders' }>): void {
    switch (message.kind) {
      case 'locks-query':
        return this.answer(from, message.number, this.local.locks());
      case 'hot-query':
        return this.answer(from, message.number, this.local.hot());
      case 'answer':
        return this.onAnswer(from, message.number, message.text);
      case 'trace-start':
        return this.addReader(from, message.number, filterOf(message.text));
      case 'trace-stop':
        this.readers.delete(`${from}/${message.number}`);
        return;
      case 'trace-events': {
        const reader = this.readers.get(`own/${message.number}`);
        const events = parse<TraceEvent[]>(message.text, Array.isArray);
        if (reader !== undefined) for (const event of events ?? []) this.pass(reader, event);
        return;
      }
    }
  }

  /**
   * An event of another server. It was filtered there; what is not wanted after all (a peer of another version may
   * filter otherwise) still tells how many were lost before it.
   */
  private pass(reader: Reader, event: TraceEvent): void {
    if (Number.isSafeInteger(event.dropped)) reader.dropped += Math.max(0, event.dropped ?? 0);
    if (!reader.matches(event)) return;
    const { dropped } = reader;
    reader.dropped = 0;
    const whole = dropped === 0 ? event : { ...event, dropped };
    this.context.emit({ kind: 'trace-event', token: reader.number, event: whole });
  }

  private addReader(peer: NodeId | null, number: number, filter: TraceFilter): void {
    if (this.readers.size >= READERS_MAX) {
      this.context.count('witness.reader.refused');
      return;
    }
    const matchesTexts = lockMatcher(filter);
    const kinds = filter.kinds === undefined ? null : new Set<string>(filter.kinds);
    const matches = (event: TraceEvent): boolean => (kinds?.has(event.kind) ?? true) && matchesTexts(event);
    this.readers.set(`${peer ?? 'own'}/${number}`, { filter, matches, peer, number, events: [], dropped: 0 });
  }

  private forgetReaders(peer: NodeId): void {
    for (const [name, reader] of this.readers) if (reader.peer === peer) this.readers.delete(name);
  }

  private answer(to: NodeId, number: number, value: unknown): void {
    const text = JSON.stringify(value);
    if (Buffer.byteLength(text) > WITNESS_TEXT_BYTES_MAX) {
      this.context.count('witness.answer.too-large');
      return;
    }
    this.send(to, { kind: 'answer', number, text });
  }

  private askAll(kind: 'locks-query' | 'hot-query', text: string, done: Question['done']): void {
    const up = this.peers().filter((peer) => this.context.isUp(peer));
    const down = this.peers().filter((peer) => !this.context.isUp(peer));
    if (up.length === 0) {
      done([], down);
      return;
    }
    const number = ++this.lastNumber;
    const timer = this.context.timers.at(this.context.now() + ANSWER_MICROS_MAX, () => this.finish(number, question));
    const question: Question = {
      waiting: new Set(up),
      texts: [],
      timer,
      done: (texts, missing) => done(texts, [...missing, ...down]),
    };
    this.questions.set(number, question);
    for (const peer of up) this.send(peer, { kind, number, text });
  }

  private onAnswer(from: NodeId, number: number, text: string): void {
    const question = this.questions.get(number);
    if (question === undefined || !question.waiting.delete(from)) return;
    question.texts.push(text);
    if (question.waiting.size === 0) this.finish(number, question);
  }

  private finish(number: number, question: Question): void {
    if (!this.questions.delete(number)) return;
    question.timer.cancel();
    question.done(question.texts, [...question.waiting]);
  }

  private peers(): NodeId[] {
    return this.context.members.filter((member) => member !== this.context.self);
  }

  private send(to: NodeId, message: WitnessMessage): void {
    this.context.send(to, encodeWitnessMessage(message), 'drop');
  }
}

function parse<T>(text: string, isValid: (value: unknown) => boolean): T | null {
  try {
    const value: unknown = JSON.parse(text);
    return isValid(value) ? (value as T) : null;
  } catch {
    return null;
  }
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isLocksAnswer(value: unknown): boolean {
  const answer = value as Partial<LocksAnswer> | null;
  return isObject(value) && Array.isArray(answer?.opens) && Array.isArray(answer.waits);
}

/** A peer's filter: its texts, and nothing that is none. */
function filterOf(text: string): TraceFilter {
  const value = parse<Record<string, unknown>>(text, isObject) ?? {};
  const filter: TraceFilter = {};
  for (const name of ['path', 'user', 'client', 'share'] as const) {
    const wanted = value[name];
    if (typeof wanted === 'string') filter[name] = wanted;
  }
  const { kinds } = value;
  if (Array.isArray(kinds)) filter.kinds = TRACE_KINDS.filter((kind) => kinds.includes(kind));
  return filter;
}

/** At most ROWS_MAX of the rows, and whether that left some out. */
export function bounded<T>(rows: T[]): { rows: T[]; truncated: boolean } {
  return { rows: rows.slice(0, ROWS_MAX), truncated: rows.length > ROWS_MAX };
}
