/**
 * The admin socket's questions about locks: `/locks`, `/hot`, `/trace`. Refuses what cannot be meant, limits how long
 * an answer may take. Called by the admin server; asks the lock witness, decides nothing.
 */
import type { ServerResponse } from 'node:http';
import { ADMIN_PATH, FILTER_TEXT_BYTES_MAX } from '../ports/admin.js';
import type { LockWitness } from '../ports/lock-witness.js';
import { TRACE_KINDS } from '../wire/locks.js';
import type { LockFilter, TraceFilter, TraceKind } from '../wire/locks.js';
import type { TraceReaders } from './trace-readers.js';

/** Above the witness's own limit on servers that are late, below the command line's patience (5 s). */
const WITNESS_TIMEOUT_MS = 4_000;

/** What was asked cannot be answered; the message is a sentence, `status` one of HTTP's. */
export class QueryRefused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = 'QueryRefused';
  }
}

const FILTER_KEYS = ['path', 'user', 'client', 'share'] as const;

export interface LockQueriesOptions {
  /** Absent in a daemon that takes no reports of the VFS module. */
  witness: LockWitness | undefined;
  readers: TraceReaders;
  timeoutMs?: number;
}

export class LockQueries {
  constructor(private readonly options: LockQueriesOptions) {}

  /** @throws QueryRefused (rejects), or the witness's own error. */
  async locks(query: URLSearchParams): Promise<unknown> {
    requireKeys(query, ADMIN_PATH.locks, FILTER_KEYS);
    const filter = lockFilter(query);
    return this.inTime(this.witness().locks(filter));
  }

  /** @throws QueryRefused (rejects), or the witness's own error. */
  async hot(query: URLSearchParams): Promise<unknown> {
    requireKeys(query, ADMIN_PATH.hot, []);
    return this.inTime(this.witness().hot());
  }

  /**
   * Streams events into `response` from now on.
   * @throws QueryRefused when it does not; then nothing was written.
   */
  trace(query: URLSearchParams, response: ServerResponse): void {
    const filter = traceFilter(query);
    if (this.options.readers.add(this.witness(), filter, response)) return;
    throw new QueryRefused(503, 'too many traces are being read from this server; end one first');
  }

  private witness(): LockWitness {
    const { witness } = this.options;
    if (witness !== undefined) return witness;
    throw new QueryRefused(501, 'this smbpoold does not watch locks: it takes no reports of the VFS module');
  }

  private async inTime<T>(answer: Promise<T>): Promise<T> {
    const limit = this.options.timeoutMs ?? WITNESS_TIMEOUT_MS;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new QueryRefused(504, `the pool did not answer in ${limit} ms`)), limit);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** @throws QueryRefused for anything but the parameters known, each at most once. */
function requireKeys(query: URLSearchParams, path: string, known: readonly string[]): void {
  const seen = new Set<string>();
  for (const key of query.keys()) {
    if (!known.includes(key)) {
      const names = known.length === 0 ? 'no parameters' : known.join(', ');
      throw new QueryRefused(400, `${path} does not know ${JSON.stringify(key.slice(0, 40))}; it takes ${names}`);
    }
    if (seen.has(key)) throw new QueryRefused(400, `${key} is given twice; give it once`);
    seen.add(key);
  }
}

function lockFilter(query: URLSearchParams): LockFilter {
  const filter: LockFilter = {};
  for (const key of FILTER_KEYS) {
    const text = query.get(key);
    if (text === null) continue;
    if (text === '') throw new QueryRefused(400, `${key} is empty; leave it out to mean all`);
    if (text.includes('\0')) throw new QueryRefused(400, `${key} holds a NUL, which no ${key} can`);
    if (Buffer.byteLength(text) > FILTER_TEXT_BYTES_MAX) {
      throw new QueryRefused(400, `${key} is over ${FILTER_TEXT_BYTES_MAX} bytes`);
    }
    filter[key] = text;
  }
  return filter;
}

function traceFilter(query: URLSearchParams): TraceFilter {
  requireKeys(query, ADMIN_PATH.trace, [...FILTER_KEYS, 'ops']);
  const filter = lockFilter(query);
  const ops = query.get('ops');
  if (ops === null) return filter;
  const kinds = [...new Set(ops.split(','))];
  const unknown = kinds.find((kind) => !isTraceKind(kind));
  if (unknown === undefined) return { ...filter, kinds: kinds.filter(isTraceKind) };
  const name = JSON.stringify(unknown.slice(0, 40));
  throw new QueryRefused(400, `no operation is called ${name}; ${TRACE_KINDS.join(', ')} are`);
}

function isTraceKind(text: string): text is TraceKind {
  return (TRACE_KINDS as readonly string[]).includes(text);
}
