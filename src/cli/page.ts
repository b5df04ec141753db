/**
 * `smbpool page`: what the daemon of this server left in shared memory, without asking it: whether it runs, hangs, is
 * stopped or dead, and since when; counters, latencies, errors. `smbpool status` shows it when the daemon does not
 * answer. The text is made by a pure function, which tests compare with golden files.
 */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { DecodeError } from '../base/bytes.js';
import { decodeNodePage } from '../wire/node-page.js';
import type { NodePage } from '../wire/node-page.js';
import { addAdminOptions, nodePagePath } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { processState } from './process-state.js';
import type { ProcessState } from './process-state.js';
import { duration, plural, printable, table } from './text.js';

/** The loop writes twice a second; a busy machine may be late. */
const HEARTBEAT_LATE_MICROS = 3_000_000;
/** An error entry may be caught while it is written, by a daemon that runs: then it is read again. */
const READS_MAX = 3;

interface PageOptions extends AdminOptions {
  page?: string;
  json?: true;
}

export interface PageSeen {
  path: string;
  page: NodePage;
  process: ProcessState;
  /** CLOCK_MONOTONIC and since 1970, in microseconds, when it was read. */
  nowMicros: number;
  wallClockMicros: number;
}

export type DaemonState = 'alive' | 'hangs' | 'stopped' | 'dead' | 'ended';

export function registerPage(program: Command): void {
  const command = program
    .command('page')
    .description('what the daemon of this server left in shared memory: also when it hangs or is dead')
    .option('--page <path>', 'the page; wins over --socket and --config')
    .option('--json', 'all of it as JSON');
  addAdminOptions(command).action((options: PageOptions) => {
    const seen = seePage(options.page ?? nodePagePath(options));
    process.stdout.write(options.json === true ? pageJson(seen) : pageText(seen));
  });
}

/** @throws CommandError when there is no page, or none that this command can read. */
export function seePage(path: string): PageSeen {
  let page = readPage(path);
  for (let reads = 1; reads < READS_MAX && page.errorsUnread > 0; reads++) page = readPage(path);
  return {
    path,
    page,
    process: processState(page.daemonPid, page.startedMicros),
    nowMicros: Number(process.hrtime.bigint() / 1000n),
    wallClockMicros: Date.now() * 1000,
  };
}

function readPage(path: string): NodePage {
  try {
    return decodeNodePage(readFileSync(path));
  } catch (error) {
    if (error instanceof DecodeError) {
      const remedy = 'use the smbpool of the same version as the daemon, or name another page';
      throw new CommandError(`${path} is no node page that this smbpool can read: ${error.message}; ${remedy}`);
    }
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      throw new CommandError(
        `there is no node page here: ${path} does not exist; smbpoold never ran, or was stopped in order`,
      );
    }
    if (code === 'EACCES') throw new CommandError(`${path} is not open to you: ask as root`);
    throw new CommandError(`${path} cannot be read: ${message}`);
  }
}

export function stateOf({ page, process: daemon, nowMicros }: PageSeen): DaemonState {
  if (page.generation === 0) return 'ended';
  if (daemon === 'gone') return 'dead';
  if (daemon === 'stopped') return 'stopped';
  return nowMicros - page.heartbeatMicros > HEARTBEAT_LATE_MICROS ? 'hangs' : 'alive';
}

export function pageJson(seen: PageSeen): string {
  const { path, page, nowMicros } = seen;
  const { heartbeatMicros, leaseDeadlineMicros, ...rest } = page;
  const heartbeatMicrosAgo = heartbeatMicros === 0 ? null : Math.max(0, nowMicros - heartbeatMicros);
  const leaseMicrosLeft = leaseDeadlineMicros === 0 ? null : leaseDeadlineMicros - nowMicros;
  const whole = { path, state: stateOf(seen), process: seen.process, heartbeatMicrosAgo, leaseMicrosLeft, ...rest };
  return `${JSON.stringify(whole, null, 2)}\n`;
}

export function pageText(seen: PageSeen): string {
  const { page, path } = seen;
  const sections = [
    `Node page ${printable(path)}: server ${page.node}, smbpoold process ${page.daemonPid}\n${stateText(seen)}`,
    section('Latencies', latencyTable(page)),
    section('Errors and warnings', errorTable(page)),
    section('Counters', counterTable(page)),
  ];
  return sections.filter((text) => text !== '').join('\n');
}

function stateText(seen: PageSeen): string {
  const { page, nowMicros, wallClockMicros } = seen;
  const lines = [
    `${stateWords(seen)}`,
    `Started ${timeText(page.startedMicros)}, generation ${page.generation}, ${page.serving ? '' : 'not '}serving`,
    `Lease: ${leaseWords(page.leaseDeadlineMicros, nowMicros)}; keys home: ${page.keysHome}`,
  ];
  const unread = page.errorsUnread;
  if (unread > 0) lines.push(`${plural(unread, 'error')} left out: caught while being written`);
  const ageMicros = heartbeatAge(seen);
  if (ageMicros !== null && ageMicros > HEARTBEAT_LATE_MICROS) {
    lines.splice(1, 0, `No heartbeat since ${timeText(wallClockMicros - ageMicros)}: the counters are of that time`);
  }
  return `${lines.join('\n')}\n`;
}

function heartbeatAge({ page, nowMicros }: PageSeen): number | null {
  return page.heartbeatMicros === 0 ? null : Math.max(0, nowMicros - page.heartbeatMicros);
}

function stateWords(seen: PageSeen): string {
  const ageMicros = heartbeatAge(seen);
  const last = ageMicros === null ? 'it never had a heartbeat' : `the last heartbeat was ${duration(ageMicros)} ago`;
  switch (stateOf(seen)) {
    case 'ended':
      return `It ended in order; ${last}`;
    case 'dead':
      return `It is DEAD, and did not end in order; ${last}: see its log, and start it again`;
    case 'stopped':
      return `It is STOPPED by a signal; ${last}: kill -CONT ${seen.page.daemonPid} lets it go on`;
    case 'hangs': {
      const where = seen.process === 'disk' ? ', waiting for a disk or file system' : '';
      return `It HANGS${where}; ${last}`;
    }
    case 'alive':
      return `It is alive; ${last}`;
  }
}

function leaseWords(deadlineMicros: number, nowMicros: number): string {
  if (deadlineMicros === 0) return 'none in use';
  const left = deadlineMicros - nowMicros;
  return left > 0 ? `for ${duration(left)} more` : `over since ${duration(-left)}`;
}

function section(title: string, content: string): string {
  return content === '' ? '' : `${title}\n${content}\n`;
}

function latencyTable({ latencies }: NodePage): string {
  const rows = latencies.filter(({ count }) => count > 0).map((latency) => [
    latency.name,
    latency.count,
    duration(latency.medianMicros),
    duration(latency.p99Micros),
    duration(latency.maxMicros),
  ]);
  return rows.length === 0 ? '' : table(['of', 'count', 'p50, at most', 'p99, at most', 'max'], rows);
}

function errorTable({ errors }: NodePage): string {
  const rows = errors.map(({ code, text, count, firstMicros, lastMicros }) => [
    code === 1 ? 'error' : 'warning',
    printable(text),
    count,
    timeText(firstMicros),
    timeText(lastMicros),
  ]);
  return rows.length === 0 ? '' : table(['', 'what', 'count', 'first', 'last'], rows);
}

function counterTable({ counters }: NodePage): string {
  const rows = Object.entries(counters).sort(([a], [b]) => (a < b ? -1 : 1));
  return rows.length === 0 ? '' : table(['name', 'count'], rows);
}

function timeText(micros: number): string {
  const date = new Date(micros / 1000);
  const two = (number: number): string => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
