/**
 * Assertions for what must hold whatever comes from outside; they stay on in production. Never used on input from the
 * network, disk or smbd: that is refused with a counted reason (base/bytes DecodeError).
 */

export class InvariantError extends Error {
  readonly code = 'ERR_POOL_INVARIANT';
  constructor(message: string) {
    super(`This is a bug in smbpool: ${message}`);
    this.name = 'InvariantError';
  }
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** For the end of a switch over a discriminated union: the compiler proves that it is not reached. */
export function unreachable(value: never): never {
  throw new InvariantError(`unexpected value ${JSON.stringify(value)}`);
}
