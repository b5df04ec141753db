/**
 * The lab's error: a sentence a person can act on. Thrown by every part of the lab, printed without a stack by the
 * command line, the demo and the tests.
 */
export class LabError extends Error {
  readonly code = 'ERR_POOL_LAB';
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LabError';
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
