/**
 * The socket for people and tools: JSON over HTTP on a unix socket that only its owner may use. Started by main once
 * the daemon serves; asks the host, decides nothing, and never holds up the daemon's own work.
 */
import { rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { ADMIN_PATH, RECORD_KEY_BYTES_MAX } from '../ports/admin.js';
import type { AdminError } from '../ports/admin.js';
import type { LockWitness } from '../ports/lock-witness.js';
import type { AddressReport, RecordReport, ServersReport, StatusReport } from '../ports/status.js';
import type { FailoversReport } from '../wire/failovers.js';
import { StartError } from './errors.js';
import { LockQueries, QueryRefused } from './lock-queries.js';
import { TraceReaders } from './trace-readers.js';

/** People and monitoring; more at once is a mistake that must not cost the daemon memory. */
const CONNECTIONS_MAX = 32;
/** A request is one short line; slower ones are cut off. */
const REQUEST_TIMEOUT_MS = 5_000;
/** The record's home may be a server that is down: then the person is told so. */
const RECORD_TIMEOUT_MS = 3_000;

/** What is no question. */
const CHANGES = new Set<string>([ADMIN_PATH.drain, ADMIN_PATH.join, ADMIN_PATH.leave]);

/** What the socket shows. */
export interface AdminSource {
  status(): StatusReport;
  /** Absent: questions about changes of the pool are refused. */
  failovers?(): FailoversReport;
  /** @throws Error (rejects) with a sentence when the record's home cannot say. */
  describeRecord(database: string, key: Uint8Array): Promise<RecordReport>;
  /** Absent: questions about locks are refused with that reason. */
  witness?: LockWitness | undefined;
  /** Absent: there are none. */
  addresses?(): AddressReport[];
  /**
   * Drains a server, by name or number, or ends that. Absent: it cannot be done here.
   * @throws Error (rejects) with a sentence when there is no such server or it cannot do it.
   */
  drain?(server: string, draining: boolean): Promise<void>;
  /**
   * Takes a server into the pool, or out; resolves when that is agreed. Absent: it cannot be done here.
   * @throws Error (rejects) with a sentence when it is refused.
   */
  join?(wish: Record<string, string>): Promise<ServersReport>;
  leave?(server: string): Promise<ServersReport>;
}

export interface AdminServerOptions {
  path: string;
  source: AdminSource;
  recordTimeoutMs?: number;
  witnessTimeoutMs?: number;
}

interface Answer {
  status: number;
  body: unknown;
}

export class AdminServer {
  private constructor(
    private readonly server: Server,
    private readonly readers: TraceReaders,
  ) {}

  /** How many read `/trace` now. */
  get traceReaders(): number {
    return this.readers.count;
  }

  /**
   * Listens on `path`. The caller holds the directory lock, so a socket left there is of a daemon that is gone.
   * @throws StartError when the path cannot be used.
   */
  static async start(options: AdminServerOptions): Promise<AdminServer> {
    const readers = new TraceReaders();
    const { witnessTimeoutMs } = options;
    const locks = new LockQueries({
      witness: options.source.witness,
      readers,
      ...(witnessTimeoutMs === undefined ? {} : { timeoutMs: witnessTimeoutMs }),
    });
    const server = createServer((request, response) => {
      void respond(request, response, options, locks);
    });
    server.maxConnections = CONNECTIONS_MAX;
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.headersTimeout = REQUEST_TIMEOUT_MS;
    rmSync(options.path, { force: true });
    // bind happens inside listen(), so the socket never exists with wider rights
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(options.path, resolve);
      });
    } catch (error) {
      throw new StartError(`the admin socket ${options.path} cannot be made: ${(error as Error).message}`, {
        cause: error,
      });
    } finally {
      process.umask(mask);
    }
    return new AdminServer(server, readers);
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeAllConnections();
    await closed;
  }
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  options: AdminServerOptions,
  locks: LockQueries,
): Promise<void> {
  const answer = await answerTo(request, response, options, locks).catch(refuseError);
  if (answer === null) return;
  response.writeHead(answer.status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(answer.body)}\n`);
}

function refuse(status: number, error: string): Answer {
  const body: AdminError = { error };
  return { status, body };
}

function refuseError(error: unknown): Answer {
  return refuse(error instanceof QueryRefused ? error.status : 500, (error as Error).message);
}

/** Null: the response is a stream now. */
async function answerTo(
  request: IncomingMessage,
  response: ServerResponse,
  options: AdminServerOptions,
  locks: LockQueries,
): Promise<Answer | null> {
  const target = request.url ?? '/';
  if (!URL.canParse(target, 'http://localhost')) return refuse(400, 'what is asked for is not a path');
  const url = new URL(target, 'http://localhost');
  const wanted = CHANGES.has(url.pathname) ? 'POST' : 'GET';
  if (request.method !== wanted) return refuse(405, `${String(request.method)} is not served here; only ${wanted} is`);
  switch (url.pathname) {
    case ADMIN_PATH.drain:
      return answerDrain(url.searchParams, options.source);
    case ADMIN_PATH.join:
    case ADMIN_PATH.leave:
      return answerServers(url, options.source);
    case ADMIN_PATH.status:
      return { status: 200, body: options.source.status() };
    case ADMIN_PATH.counters:
      return { status: 200, body: options.source.status().counters };
    case ADMIN_PATH.failovers:
      if (options.source.failovers === undefined) return refuse(404, 'this daemon does not note changes of the pool');
      return { status: 200, body: options.source.failovers() };
    case ADMIN_PATH.record:
      return answerRecord(url.searchParams, options);
    case ADMIN_PATH.locks:
      return { status: 200, body: await locks.locks(url.searchParams) };
    case ADMIN_PATH.hot:
      return { status: 200, body: await locks.hot(url.searchParams) };
    case ADMIN_PATH.addresses:
      return { status: 200, body: options.source.addresses?.() ?? [] };
    case ADMIN_PATH.trace:
      locks.trace(url.searchParams, response);
      return null;
    default:
      return refuse(404, `${url.pathname} is not served here; ${Object.values(ADMIN_PATH).join(', ')} are`);
  }
}

async function answerDrain(query: URLSearchParams, source: AdminSource): Promise<Answer> {
  const draining = query.get('draining');
  if (draining !== 'true' && draining !== 'false') return refuse(400, '"draining" must be true or false');
  if (source.drain === undefined) return refuse(404, 'this daemon cannot drain a server');
  try {
    await source.drain(query.get('server') ?? '', draining === 'true');
    return { status: 200, body: {} };
  } catch (error) {
    return refuse(502, (error as Error).message);
  }
}

async function answerServers({ pathname, searchParams }: URL, source: AdminSource): Promise<Answer> {
  const unable = refuse(404, 'this daemon cannot change the servers of the pool');
  try {
    if (pathname === ADMIN_PATH.leave) {
      return source.leave === undefined ? unable
        : { status: 200, body: await source.leave(searchParams.get('server') ?? '') };
    }
    return source.join === undefined ? unable
      : { status: 200, body: await source.join(Object.fromEntries(searchParams)) };
  } catch (error) {
    return refuse(502, (error as Error).message);
  }
}

async function answerRecord(query: URLSearchParams, options: AdminServerOptions): Promise<Answer> {
  const wanted = query.get('database') ?? '';
  const keyHex = query.get('key') ?? '';
  const isHex = /^([0-9a-fA-F]{2})+$/.test(keyHex);
  if (!isHex) return refuse(400, 'the key must be given in hexadecimal, two digits a byte');
  if (keyHex.length / 2 > RECORD_KEY_BYTES_MAX) return refuse(400, `the key is over ${RECORD_KEY_BYTES_MAX} bytes`);
  const databases = options.source.status().databases;
  const database = databases.find(({ name }) => name === wanted || name === `${wanted}.tdb`);
  if (database === undefined) {
    const names = databases.map(({ name }) => name).join(', ');
    return refuse(404, `no database ${wanted} is open here; ${names === '' ? 'none is' : `open are ${names}`}`);
  }
  if (database.persistent) {
    return refuse(400, `${database.name} is persistent: all servers have all of it, and no record of it has an owner`);
  }
  const limit = options.recordTimeoutMs ?? RECORD_TIMEOUT_MS;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Answer>((resolve) => {
    timer = setTimeout(() => {
      resolve(refuse(504, `the record's home did not answer in ${limit} ms; see which servers are down in the status`));
    }, limit);
  });
  const described = options.source.describeRecord(database.name, Buffer.from(keyHex, 'hex')).then(
    (body): Answer => ({ status: 200, body }),
    (error: unknown) => refuse(502, (error as Error).message),
  );
  try {
    return await Promise.race([described, late]);
  } finally {
    clearTimeout(timer);
  }
}
