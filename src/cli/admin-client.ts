/**
 * Asks a daemon over its admin socket. Used by the commands that look at a running pool; every way in which the daemon
 * can be absent or sick becomes a sentence that says what to do. Never waits without a limit.
 */
import { existsSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import type { IncomingMessage, RequestOptions } from 'node:http';
import { dirname, join } from 'node:path';
import { Option } from 'commander';
import type { Command } from 'commander';
import { parse } from 'yaml';
import { ADMIN_SOCKET_DEFAULT, CONFIG_FILE_DEFAULT, NODE_PAGE_NAME } from '../ports/admin.js';
import { CommandError } from './errors.js';

/** Longer than the daemon's own limit on asking a record's home. */
const ANSWER_TIMEOUT_MS = 5_000;
/** An event is below a tenth of that. */
const LINE_CHARACTERS_MAX = 256 * 1024;
/** A status of 64 servers and a thousand databases is far below. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/** The options with which every asking command finds the daemon. */
export interface AdminOptions {
  socket?: string;
  config?: string;
}

export function addAdminOptions(command: Command): Command {
  const config = `the daemon's configuration file, which names the socket (${CONFIG_FILE_DEFAULT})`;
  return command
    .option('--socket <path>', 'the admin socket of the daemon to ask; wins over --config')
    .addOption(new Option('--config <file>', config).env('SMBPOOL_CONFIG'));
}

/**
 * The admin socket to ask: as given, as the configuration file says, or the default one.
 * @throws CommandError when a named configuration file cannot be read.
 */
export function adminSocket(options: AdminOptions): string {
  if (options.socket !== undefined) return options.socket;
  const named = configuredPaths(options).adminSocket;
  return typeof named === 'string' ? named : ADMIN_SOCKET_DEFAULT;
}

/**
 * The daemon's page in shared memory: as the configuration file says, else beside its socket.
 * @throws CommandError when a named configuration file cannot be read.
 */
export function nodePagePath(options: AdminOptions): string {
  const { nodePage, socket }: ConfiguredPaths = options.socket === undefined ? configuredPaths(options) : options;
  if (typeof nodePage === 'string') return nodePage;
  return join(dirname(typeof socket === 'string' ? socket : ADMIN_SOCKET_DEFAULT), NODE_PAGE_NAME);
}

interface ConfiguredPaths {
  adminSocket?: unknown;
  socket?: unknown;
  nodePage?: unknown;
}

function configuredPaths({ config }: AdminOptions): ConfiguredPaths {
  const file = config ?? CONFIG_FILE_DEFAULT;
  if (config === undefined && !existsSync(file)) return {};
  try {
    return (parse(readFileSync(file, 'utf8')) ?? {}) as ConfiguredPaths;
  } catch (error) {
    const [why] = (error as Error).message.split('\n');
    throw new CommandError(`${file} cannot be read: ${why ?? ''}; name the daemon's socket with --socket`);
  }
}

/**
 * One GET; the answer's JSON. `signal` gives it up.
 * @throws CommandError when the daemon is not there, does not answer in time, or refuses; or when given up.
 */
export async function ask<T>(
  socket: string,
  path: string,
  query: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<T> {
  return answered(socket, await get(socket, path, query, signal));
}

/**
 * One POST: has the daemon do something, for so long at most; the answer's JSON.
 * @throws CommandError as ask does.
 */
export async function tell<T>(
  socket: string,
  path: string,
  query: Record<string, string>,
  timeoutMs = ANSWER_TIMEOUT_MS,
): Promise<T> {
  return answered(socket, await get(socket, path, query, undefined, { method: 'POST', timeoutMs }));
}

async function answered<T>(socket: string, response: IncomingMessage): Promise<T> {
  const body = await bodyOf(socket, response);
  if (response.statusCode === 200) return body as T;
  throw refusal(response, body);
}

/**
 * One GET of a stream of lines, in groups as they come, until `signal` aborts; the end of the stream itself is the end
 * of the daemon.
 * @throws CommandError when the daemon is not there, refuses, or ends.
 */
export async function* follow(
  socket: string,
  path: string,
  query: Record<string, string>,
  signal: AbortSignal,
): AsyncGenerator<string[]> {
  let rest = '';
  try {
    const response = await get(socket, path, query, signal);
    if (response.statusCode !== 200) throw refusal(response, await bodyOf(socket, response));
    response.setTimeout(0);
    for await (const chunk of response) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > LINE_CHARACTERS_MAX) throw new CommandError(`a line from ${socket} does not end`);
      if (lines.length > 0) yield lines;
    }
  } catch (error) {
    if (!signal.aborted && error instanceof CommandError) throw error;
  }
  if (!signal.aborted) throw new CommandError(`smbpoold on ${socket} has ended; see its log`);
}

function refusal(response: IncomingMessage, body: unknown): CommandError {
  const { error } = (body ?? {}) as { error?: unknown };
  return new CommandError(
    typeof error === 'string' ? error : `smbpoold answered with HTTP status ${response.statusCode ?? 0}`,
  );
}

/** Resolves when the answer begins. Its silence is limited until the caller lifts that. */
function get(
  socket: string,
  path: string,
  query: Record<string, string>,
  signal?: AbortSignal,
  { method = 'GET', timeoutMs = ANSWER_TIMEOUT_MS } = {},
): Promise<IncomingMessage> {
  const search = new URLSearchParams(query).toString();
  const options: RequestOptions = {
    socketPath: socket,
    method,
    path: search === '' ? path : `${path}?${search}`,
    timeout: timeoutMs,
    signal,
  };
  return new Promise((resolve, reject) => {
    const call = request(options, (response) => {
      response.setEncoding('utf8');
      resolve(response);
    });
    call.on('timeout', () => {
      call.destroy(new CommandError(`smbpoold took the question on ${socket} but did not answer: see its log`));
    });
    call.on('error', (error) => reject(unreachable(socket, error)));
    call.end();
  });
}

async function bodyOf(socket: string, response: IncomingMessage): Promise<unknown> {
  let text = '';
  try {
    for await (const chunk of response) {
      text += String(chunk);
      if (text.length > ANSWER_BYTES_MAX) throw new CommandError(`the answer from ${socket} does not end`);
    }
  } catch (error) {
    throw unreachable(socket, error as Error);
  }
  try {
    return JSON.parse(text);
  } catch {
    const start = JSON.stringify(text.slice(0, 40));
    throw new CommandError(`what listens on ${socket} is not smbpoold: it answered ${start}`);
  }
}

function unreachable(socket: string, error: Error): CommandError {
  if (error instanceof CommandError) return error;
  const options = { cause: error };
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new CommandError(
        `there is no smbpoold here: ${socket} does not exist; start it, or name its socket with --socket`,
        options,
      );
    case 'ECONNREFUSED':
      return new CommandError(`smbpoold is not running: nobody listens on ${socket} any more; see its log`, options);
    case 'EACCES':
      return new CommandError(`${socket} is not open to you: ask as root`, options);
    default:
      return new CommandError(`smbpoold could not be asked on ${socket}: ${error.message}; see its log`, options);
  }
}
