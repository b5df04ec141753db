/** What a command says when it cannot do what was asked: one sentence for the person at the terminal, no stack. */
export class CommandError extends Error {
  readonly code = 'ERR_POOL_COMMAND';
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'CommandError';
  }
}
