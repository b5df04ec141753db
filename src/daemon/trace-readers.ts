/**
 * The readers of `/trace`: each gets the events it asked for, one JSON text a line. Made by the admin server. A slow
 * reader loses events, which the next one it gets counts; it never makes the daemon wait or grow.
 */
import type { ServerResponse } from 'node:http';
import type { LockWitness } from '../ports/lock-witness.js';
import type { TraceEvent, TraceFilter } from '../wire/locks.js';

/** Each costs the daemon work for every event; people watch with one or two. */
const READERS_MAX = 8;
/** Some ten thousand events: covers a reader that is busy for a moment under full load. */
const BUFFER_BYTES_MAX = 4 * 1024 * 1024;
/** Events leave together, not each with a system call of its own; still at once for the eye. */
const FLUSH_MS = 20;

export interface TraceReadersLimits {
  readersMax?: number;
  bufferBytesMax?: number;
}

export class TraceReaders {
  private readonly readers = new Set<TraceReader>();

  constructor(private readonly limits: TraceReadersLimits = {}) {}

  get count(): number {
    return this.readers.size;
  }

  /**
   * Starts to write events into `response`, until its reader leaves. False when there are too many readers; then
   * nothing was written.
   * @throws Error of the witness; then nothing was written either.
   */
  add(witness: LockWitness, filter: TraceFilter, response: ServerResponse): boolean {
    if (this.readers.size >= (this.limits.readersMax ?? READERS_MAX)) return false;
    const reader = new TraceReader(response, this.limits.bufferBytesMax ?? BUFFER_BYTES_MAX);
    const stop = witness.trace(filter, (event) => reader.put(event));
    this.readers.add(reader);
    response.once('close', () => {
      stop();
      reader.close();
      this.readers.delete(reader);
    });
    // a reader that left in the middle of a write: 'close' follows
    response.on('error', () => {});
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.flushHeaders();
    return true;
  }
}

class TraceReader {
  private pending: string[] = [];
  private pendingBytes = 0;
  private dropped = 0;
  private flush: NodeJS.Timeout | undefined;

  constructor(
    private readonly response: ServerResponse,
    private readonly bufferBytesMax: number,
  ) {}

  put(event: TraceEvent): void {
    const dropped = (event.dropped ?? 0) + this.dropped;
    if (this.pendingBytes + this.response.writableLength >= this.bufferBytesMax) {
      this.dropped = dropped + 1;
      return;
    }
    const line = `${JSON.stringify(dropped === 0 ? event : { ...event, dropped })}\n`;
    this.dropped = 0;
    this.pending.push(line);
    this.pendingBytes += Buffer.byteLength(line);
    this.flush ??= setTimeout(() => this.write(), FLUSH_MS);
  }

  close(): void {
    clearTimeout(this.flush);
    this.pending = [];
  }

  private write(): void {
    this.flush = undefined;
    const text = this.pending.join('');
    this.pending = [];
    this.pendingBytes = 0;
    if (!this.response.destroyed) this.response.write(text);
  }
}
