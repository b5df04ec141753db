/**
 * What keeps the host from starting or answering, as one sentence with cause and remedy. `code` is stable; programs
 * look at it, people read the message.
 */

export type PoolErrorCode =
  | 'ERR_POOL_MEMBERSHIP'
  | 'ERR_POOL_DATABASES_IN_USE'
  | 'ERR_POOL_INTERFACE'
  | 'ERR_POOL_CAPABILITY'
  | 'ERR_POOL_ADDRESS'
  | 'ERR_POOL_SOCKET_IN_USE'
  | 'ERR_POOL_SOCKET'
  | 'ERR_POOL_RING'
  | 'ERR_POOL_DATABASE'
  | 'ERR_POOL_RECORD'
  | 'ERR_POOL_WITNESS'
  | 'ERR_POOL_DRAIN'
  | 'ERR_POOL_STANDBY'
  | 'ERR_POOL_STOPPED';

export class PoolError extends Error {
  constructor(
    readonly code: PoolErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.name = 'PoolError';
  }
}

/** The `code` of an error of Node.js or of the addon; empty when it has none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
