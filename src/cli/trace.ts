/**
 * `smbpool trace`: what happens to files and locks in the whole pool, a line per event as it passes; or into a file,
 * and from one. Goes on until Ctrl-C, `--count`, `--seconds`, or until nobody reads it any more.
 */
import { rm } from 'node:fs/promises';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { lockMatcher } from '../base/lock-filter.js';
import { ADMIN_PATH } from '../ports/admin.js';
import { TRACE_KINDS } from '../wire/locks.js';
import type { TraceEvent, TraceFilter, TraceKind } from '../wire/locks.js';
import { addAdminOptions, adminSocket, follow } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { addFilterOptions, lockFilter, numberParser } from './lock-options.js';
import type { LockFilterOptions } from './lock-options.js';
import { Output, untilStopped } from './output.js';
import { plural } from './text.js';
import { TraceText } from './trace-text.js';

const COUNT_MAX = 1_000_000_000;
/** A week; timers of Node.js end at 24 days. */
const SECONDS_MAX = 604_800;

interface TraceOptions extends AdminOptions, LockFilterOptions {
  ops?: TraceKind[];
  json?: true;
  write?: string;
  read?: string;
  count?: number;
  seconds?: number;
}

export function registerTrace(program: Command): void {
  const command = program
    .command('trace')
    .description('opens, waits, moves, breaks, locks and closes of the whole pool, a line each as they pass');
  addFilterOptions(command)
    .option('--ops <list>', `only these, with commas between: ${TRACE_KINDS.join(', ')}`, parseOps)
    .option('--json', 'each event as JSON, one a line')
    .addOption(new Option('--write <file>', 'into this file instead; --read shows it').conflicts('json'))
    .addOption(new Option('--read <file>', 'from a file that --write made').conflicts('seconds'))
    .option('--count <number>', 'end after so many events', numberParser({ min: 1, max: COUNT_MAX, whole: true }))
    .option('--seconds <number>', 'end after this time', numberParser({ min: 0, max: SECONDS_MAX }));
  addAdminOptions(command).action(async (path: string | undefined, options: TraceOptions) => {
    const kinds = options.ops === undefined ? {} : { kinds: options.ops };
    await trace({ ...lockFilter(path, options), ...kinds }, options);
  });
}

function parseOps(list: string): TraceKind[] {
  const names = [...new Set(list.split(',').map((name) => name.trim()))];
  const unknown = names.find((name) => !(TRACE_KINDS as readonly string[]).includes(name));
  if (unknown !== undefined) throw new InvalidArgumentError(`There is no "${unknown}".`);
  return TRACE_KINDS.filter((kind) => names.includes(kind));
}

async function trace(filter: TraceFilter, options: TraceOptions): Promise<void> {
  const stopped = untilStopped();
  const { seconds } = options;
  const timer = seconds === undefined ? undefined : setTimeout(() => stopped.abort(), seconds * 1000);
  const sink = await openSink(filter, options, stopped);
  let left = options.count ?? Infinity;
  let failed = true;
  try {
    for await (const events of eventsOf(filter, options, stopped.signal)) {
      const wanted = events.slice(0, left);
      left -= wanted.length;
      const goesOn = await sink.put(wanted);
      if (!goesOn || left <= 0 || stopped.signal.aborted) break;
    }
    failed = false;
  } finally {
    clearTimeout(timer);
    await sink.close(failed);
  }
}

async function* eventsOf(
  filter: TraceFilter,
  options: TraceOptions,
  signal: AbortSignal,
): AsyncGenerator<TraceEvent[]> {
  if (options.read !== undefined) {
    const { readTrace } = await import('./trace-file.js');
    const sieve = new TraceSieve(filter);
    for await (const events of readTrace(options.read)) yield sieve.pass(events);
    const { lost } = sieve;
    if (lost > 0) process.stderr.write(`${plural(lost, 'event')} lost after the last one shown\n`);
    return;
  }
  const { kinds, ...texts } = filter;
  const query = { ...texts, ...(kinds === undefined ? {} : { ops: kinds.join(',') }) };
  const socket = adminSocket(options);
  for await (const lines of follow(socket, ADMIN_PATH.trace, query, signal)) yield lines.map(parseEvent);
}

/** The daemon's own rule, for events that come from a file. How many were lost goes on with the next one wanted. */
export class TraceSieve {
  private readonly matches: (event: TraceEvent) => boolean;
  /** Lost before events that were not wanted, and not told yet. */
  lost = 0;

  constructor({ kinds, ...filter }: TraceFilter) {
    const matches = lockMatcher(filter);
    this.matches = (event) => (kinds?.includes(event.kind) ?? true) && matches(event);
  }

  pass(events: readonly TraceEvent[]): TraceEvent[] {
    const passed: TraceEvent[] = [];
    for (const event of events) {
      this.lost += event.dropped ?? 0;
      if (!this.matches(event)) continue;
      passed.push(this.lost === 0 ? event : { ...event, dropped: this.lost });
      this.lost = 0;
    }
    return passed;
  }
}

function parseEvent(line: string): TraceEvent {
  try {
    return JSON.parse(line) as TraceEvent;
  } catch {
    throw new CommandError(`smbpoold sent a line that is no event: ${JSON.stringify(line.slice(0, 40))}`);
  }
}

interface Sink {
  /** False: it takes no more. */
  put(events: readonly TraceEvent[]): Promise<boolean>;
  close(failed: boolean): Promise<void>;
}

async function openSink(filter: TraceFilter, options: TraceOptions, stopped: AbortController): Promise<Sink> {
  if (options.write !== undefined) return openFile(options.write, filter);
  const output = new Output(process.stdout, () => stopped.abort());
  const text = new TraceText();
  const write = options.json
    ? (event: TraceEvent): string => `${JSON.stringify(event)}\n`
    : (event: TraceEvent): string => text.text(event);
  return {
    put: async (events) => {
      await output.write(events.map(write).join(''));
      return true;
    },
    close: async () => {},
  };
}

async function openFile(path: string, filter: TraceFilter): Promise<Sink> {
  const { TraceWriter, TRACE_FILE_BYTES_MAX } = await import('./trace-file.js');
  const writer = await TraceWriter.create(path, filter);
  let isFull = false;
  return {
    put: async (events) => {
      isFull = !(await writer.write(events));
      return !isFull;
    },
    close: async (failed) => {
      await writer.close();
      // so that the same command can be tried again
      if (failed && writer.count === 0) return rm(path);
      const full = isFull ? `; it ends here, as a file takes ${TRACE_FILE_BYTES_MAX} bytes at most` : '';
      process.stderr.write(`${plural(writer.count, 'event')} written to ${path}${full}\n`);
    },
  };
}
