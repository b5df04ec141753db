/**
 * Writes to standard output at the speed of who reads it, and notices when nobody does any more (`| head`): then the
 * command ends in silence instead of failing. Used by the commands that go on until stopped.
 */
import type { Writable } from 'node:stream';

export class Output {
  private open = true;

  /** `gone` is called once, when nobody reads any more. */
  constructor(
    private readonly stream: Writable,
    private readonly gone: () => void,
  ) {
    stream.on('error', () => this.end());
    stream.on('close', () => this.end());
  }

  /** Resolves when there is room for more. */
  async write(text: string): Promise<void> {
    if (!this.open || text === '' || this.stream.write(text)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        for (const event of ['drain', 'error', 'close']) this.stream.off(event, done);
        resolve();
      };
      for (const event of ['drain', 'error', 'close']) this.stream.once(event, done);
    });
  }

  private end(): void {
    if (!this.open) return;
    this.open = false;
    this.gone();
  }
}

/** Aborts on Ctrl-C and SIGTERM, so that a command that goes on until stopped can end in order. */
export function untilStopped(): AbortController {
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopped.abort());
  return stopped;
}
