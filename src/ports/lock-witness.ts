/**
 * Whoever sees all locks of the pool: what the admin socket asks for `smbpool who`, `trace`, `top` and `waits`.
 * Implemented by the host over the core's witness, and by fakes in tests. Asking must never wait for a data lock.
 */
import type { HotAnswer, LockFilter, LocksAnswer, TraceEvent, TraceFilter } from '../wire/locks.js';

export interface LockWitness {
  /** The whole pool's holders and waiters that match. Answers without the servers that are late (`missing`). */
  locks(filter: LockFilter): Promise<LocksAnswer>;

  /** The files used most in the last whole interval, the whole pool's. */
  hot(): Promise<HotAnswer>;

  /**
   * Calls `onEvent` for every event of the pool that matches, until the returned function is called; that one may be
   * called more than once. `onEvent` returns at once and does not throw. Events that were lost on the way are counted
   * in `dropped` of the next one.
   */
  trace(filter: TraceFilter, onEvent: (event: TraceEvent) => void): () => void;
}
