/**
 * People's questions about locks, between the admin server and the core's witness: gives each a token, keeps who waits
 * for it, ends those that nobody answers. Made by PoolHost, which feeds its inputs to the core. Knows nothing of locks.
 */
import type { Input } from '../core/effects.js';
import type { LockWitness } from '../ports/lock-witness.js';
import type { HotAnswer, LockFilter, LocksAnswer, TraceEvent, TraceFilter } from '../wire/locks.js';
import { PoolError } from './errors.js';

/** The core answers without servers that are late, well before this: a later answer is none. */
const ANSWER_TIMEOUT_MS = 5_000;

interface Question {
  resolve(answer: LocksAnswer | HotAnswer): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

export interface WitnessPorts {
  /** Gives an input to the core, outside a batch. */
  input(input: Input): void;
  /** Runs an action in a later turn of the event loop. */
  later(action: () => void): void;
}

export class WitnessDesk implements LockWitness {
  private readonly questions = new Map<number, Question>();
  private readonly readers = new Map<number, (event: TraceEvent) => void>();
  private lastToken = 0;
  private stopped = false;

  constructor(private readonly ports: WitnessPorts) {}

  /** The whole pool's holders and waiters that match. @throws PoolError (rejects) when stopping or never answered. */
  async locks(filter: LockFilter): Promise<LocksAnswer> {
    return (await this.ask({ what: 'locks', filter })) as LocksAnswer;
  }

  /** The files used most. @throws PoolError (rejects) when stopping or never answered. */
  async hot(): Promise<HotAnswer> {
    return (await this.ask({ what: 'hot' })) as HotAnswer;
  }

  /** Calls `onEvent` for every event that matches until the returned function is called; that may be inside it. */
  trace(filter: TraceFilter, onEvent: (event: TraceEvent) => void): () => void {
    if (this.stopped) return () => undefined;
    const token = ++this.lastToken;
    this.readers.set(token, onEvent);
    this.ports.input({ kind: 'trace-start', token, filter });
    return () => {
      if (!this.readers.delete(token)) return;
      // the reader may be in the middle of a turn
      this.ports.later(() => {
        if (!this.stopped) this.ports.input({ kind: 'trace-stop', token });
      });
    };
  }

  onAnswer(token: number, answer: LocksAnswer | HotAnswer): void {
    this.take(token)?.resolve(answer);
  }

  onEvent(token: number, event: TraceEvent): void {
    this.readers.get(token)?.(event);
  }

  stop(): void {
    this.stopped = true;
    this.readers.clear();
    for (const token of [...this.questions.keys()]) this.take(token)?.reject(stopping());
  }

  private ask(query: Extract<Input, { kind: 'witness-query' }>['query']): Promise<LocksAnswer | HotAnswer> {
    if (this.stopped) return Promise.reject(stopping());
    const token = ++this.lastToken;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const message = `the pool did not say who holds what within ${ANSWER_TIMEOUT_MS / 1000} s: ask again`;
        this.take(token)?.reject(new PoolError('ERR_POOL_WITNESS', message));
      }, ANSWER_TIMEOUT_MS);
      this.questions.set(token, { resolve, reject, timer });
      this.ports.input({ kind: 'witness-query', token, query });
    });
  }

  private take(token: number): Question | undefined {
    const question = this.questions.get(token);
    this.questions.delete(token);
    if (question !== undefined) clearTimeout(question.timer);
    return question;
  }
}

function stopping(): PoolError {
  return new PoolError('ERR_POOL_STOPPED', 'the daemon is stopping');
}
