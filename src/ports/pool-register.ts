/** A value that the whole pool shares, kept outside of the pool (an etcd cluster). Used by the core's loop. */
import type { Micros, RegisterRequest, RegisterResult } from '../core/effects.js';

export interface PoolRegister {
  /** Never rejects. Resolves within about the deadline. */
  request(request: RegisterRequest, deadlineMicros: Micros): Promise<RegisterResult>;
  close(): void;
}
