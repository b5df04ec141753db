/**
 * `smbpool status`: the pool as one of its servers sees it. Asks twice, a second apart, so that it can show what moves
 * per second. The text is made by a pure function, which tests compare with golden files.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { ModulesReport, RealtimeReport, ServerStatus, StandbyReport, StatusReport } from '../ports/status.js';
import { rangeText } from '../wire/protocol-version.js';
import { addAdminOptions, adminSocket, ask, nodePagePath } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { pageText, seePage } from './page.js';
import { bytes, duration, percent, perSecond, plural, table } from './text.js';

const SAMPLE_SECONDS_DEFAULT = 1;
const SAMPLE_SECONDS_MAX = 3600;

interface StatusOptions extends AdminOptions {
  seconds: number;
  counters?: true;
  json?: true;
}

/** Two reports of one run of the daemon, the later one first; without an earlier one there are no rates. */
export interface Sample {
  report: StatusReport;
  earlier?: StatusReport;
}

export function registerStatus(program: Command): void {
  const command = program
    .command('status')
    .description('servers, links, databases and waiting times, as the asked server sees them')
    .option('--seconds <number>', 'how long to watch for rates; 0: show none', parseSeconds, SAMPLE_SECONDS_DEFAULT)
    .option('--counters', 'show all counters that are not 0 too')
    .option('--json', "the daemon's report as JSON, with movesPerSecond for each database");
  addAdminOptions(command).action(async (options: StatusOptions) => {
    const sample = await takeSample(adminSocket(options), options.seconds).catch((error: unknown) => {
      if (options.json === undefined) showPage(options);
      throw error;
    });
    process.stdout.write(options.json ? statusJson(sample) : statusText(sample, options.counters === true));
  });
}

/** The daemon does not answer: what it left in shared memory is shown, where there is such a thing. */
function showPage(options: AdminOptions): void {
  let text = '';
  try {
    text = pageText(seePage(nodePagePath(options)));
  } catch (error) {
    // the daemon's silence is what is told
    if (!(error instanceof CommandError)) throw error;
  }
  process.stdout.write(text);
}

function parseSeconds(value: string): number {
  const seconds = Number(value);
  if (value.trim() === '' || !(seconds >= 0 && seconds <= SAMPLE_SECONDS_MAX)) {
    throw new InvalidArgumentError(`It must be a number of seconds from 0 to ${SAMPLE_SECONDS_MAX}.`);
  }
  return seconds;
}

async function takeSample(socket: string, seconds: number): Promise<Sample> {
  const first = await ask<StatusReport>(socket, ADMIN_PATH.status);
  if (seconds === 0) return { report: first };
  await sleep(seconds * 1000);
  const report = await ask<StatusReport>(socket, ADMIN_PATH.status);
  // after a restart in between the counts start again, and a difference would mean nothing
  return report.incarnation === first.incarnation ? { report, earlier: first } : { report };
}

interface Rate {
  moves: number;
  micros: number;
}

function rateOf({ report, earlier }: Sample, databaseId: number): Rate | null {
  if (earlier === undefined) return null;
  const moves = (from: StatusReport): number => from.databases.find(({ id }) => id === databaseId)?.moves ?? 0;
  return { moves: moves(report) - moves(earlier), micros: report.uptimeMicros - earlier.uptimeMicros };
}

export function statusJson(sample: Sample): string {
  const databases = sample.report.databases.map((database) => {
    const rate = rateOf(sample, database.id);
    const movesPerSecond = rate === null || rate.micros <= 0 ? null : (rate.moves * 1_000_000) / rate.micros;
    return { ...database, movesPerSecond };
  });
  return `${JSON.stringify({ ...sample.report, databases }, null, 2)}\n`;
}

export function statusText(sample: Sample, withCounters: boolean): string {
  const { report } = sample;
  const sections = [
    heading(report),
    problemText(report),
    section('Servers', serverTable(report)),
    section('Interfaces', interfaceTable(report)),
    section('Links', linkTable(report)),
    section('Volatile databases', databaseTable(sample)),
    section('Persistent databases', persistentTable(report)),
    section('Waits', waitTable(report)),
    withCounters ? section('Counters', counterTable(report)) : '',
  ];
  return sections.filter((text) => text !== '').join('\n');
}

function heading(report: StatusReport): string {
  return (
    `Pool ${report.poolName} seen from server ${report.self} (${report.name}): ${stateWords(report)}\n` +
    `smbpoold ${report.version}, process ${report.pid}, up ${duration(report.uptimeMicros)}, ` +
    `incarnation ${report.incarnation}, transport ${report.transport}\n` +
    viewText(report) +
    `${plural(report.clients, 'client connection')}, ${plural(report.waitingRequests, 'request')} waiting\n` +
    realtimeText(report.realtime) +
    standbyText(report.standby) +
    moduleText(report.modules) +
    (report.awaiting.length === 0 ? '' : awaitingText(report.awaiting))
  );
}

function realtimeText(realtime: RealtimeReport | undefined): string {
  if (realtime === undefined) return '';
  const lost = realtime.lost === 0 ? '' : `; taken away ${plural(realtime.lost, 'time')} because the loop never rested`;
  return `Real-time priority: ${realtime.why === null ? 'on' : `off, ${realtime.why}`}${lost}\n`;
}

function standbyText(standby: StandbyReport | undefined): string {
  if (standby === undefined) return '';
  const { pid, ready, why, takeovers, lastTakeover } = standby;
  const state = ready ? `ready, process ${pid ?? 0}` : standby.on ? `NOT READY, ${why ?? ''}` : `off, ${why ?? ''}`;
  const times = takeovers === 0 ? '' : `; ${plural(takeovers, 'takeover')}, the last at ${lastTakeover ?? ''}`;
  return `Standby: ${state}${times}\n`;
}

function stateWords({ membership, servers }: StatusReport): string {
  const { configured, needed, present } = membership.quorum;
  if (present < needed) return 'NO QUORUM';
  const voters = configured - servers.filter(({ role }) => role === 'witness').length;
  if (membership.lease.state === 'fenced') return 'this server is FENCED';
  const members = membership.members.length;
  return members === voters ? 'all servers are members' : `${members} of ${voters} servers are members`;
}

function viewText({ membership, servers }: StatusReport): string {
  const nameOf = (id: number): string => servers.find((server) => server.id === id)?.name ?? String(id);
  const { epoch, members, leader, leaderMicros, leaderLonger, lease, role } = membership;
  const view = epoch === 0 ? 'View: none yet' : `View ${epoch}: ${members.map(nameOf).join(', ')}`;
  const since = leaderMicros === null ? '' : ` for ${duration(leaderMicros)}${leaderLonger ? ' or longer' : ''}`;
  const speaks = membership.protocol == null ? '' : `; the pool speaks protocol ${membership.protocol}`;
  const led = leader === null ? 'nobody leads' : `${nameOf(leader)} leads${since}`;
  return (
    `${view}; ${led}${speaks}\n` +
    `${quorumText(membership)}; ` +
    `lease of this server: ${role === 'witness' ? 'a witness needs none' : leaseWords(lease)}\n`
  );
}

function quorumText({ engine, etcd, quorum: { configured, needed, present } }: StatusReport['membership']): string {
  const run = `${present} ${present === 1 ? 'does' : 'do'}`;
  if (engine === 'embedded') return `Quorum: ${needed} of ${configured} servers must run, ${run}`;
  const micros = etcd?.microsSinceAnswer ?? null;
  const answered = micros === null ? 'has not answered yet' : `answered ${duration(micros)} ago`;
  const heard = `${present} of ${configured} servers run`;
  return `Engine: etcd, which ${etcd?.failure == null ? answered : `does not answer (${answered})`}; ${heard}`;
}

function leaseWords({ state, micros }: StatusReport['membership']['lease']): string {
  if (state === 'none') return 'none yet';
  return state === 'valid' ? `valid for ${duration(micros)}` : `FENCED for ${duration(micros)}`;
}

function problemText({ problems }: StatusReport): string {
  return section('What is wrong', problems.map(({ text, remedy }) => `  ${text}:\n    ${remedy}`).join('\n'));
}

function moduleText({ attachments, opens, operations, watches }: ModulesReport): string {
  if (attachments === 0) return 'VFS module: attached by no smbd\n';
  const held = `${plural(attachments, 'smbd')}, ${plural(opens, 'open file')}, ${plural(watches, 'watched folder')}`;
  const words = `${held}, ${plural(operations, 'open')} under way`;
  return `VFS module: ${words}\n`;
}

function awaitingText(servers: readonly number[]): string {
  const names = `server${servers.length === 1 ? '' : 's'} ${servers.join(', ')}`;
  return `Waiting for ${names} to go by the newest view: keys with a new home are not served yet\n`;
}

function section(title: string, content: string): string {
  return content === '' ? '' : `${title}\n${content}\n`;
}

function serverTable(report: StatusReport): string {
  const rows = report.servers.map((server) => {
    const { id, name, address, silentMicros, fitness = 'unknown', leases, clients, release = '-', speaks } = server;
    const ago = silentMicros === null ? 'NEVER' : `${duration(silentMicros)} ago`;
    const heard = id === report.self ? 'this server' : ago;
    const words = fitness === 'unknown' ? '-' : fitness === 'unfit' ? 'UNFIT' : fitness;
    const fit = leases?.breaking === true ? `breaking ${plural(leases.left, 'lease')}` : words;
    // others tell it only while they drain
    const served = clients == null || (id !== report.self && fitness !== 'draining') ? '-' : clients.connections;
    const range = speaks === undefined ? '-' : rangeText(speaks);
    return [id, name, address, serverState(server, report.membership.leader), heard, fit, served, release, range];
  });
  return table(['id', 'name', 'address', 'state', 'heard', 'fitness', 'clients', 'release', 'speaks'], rows);
}

function serverState({ id, state }: ServerStatus, leader: number | null): string {
  if (state === 'member') return id === leader ? 'member, leads' : 'member';
  return state === 'out' ? 'OUT' : state;
}

function interfaceTable({ servers }: StatusReport): string {
  const rows = servers.flatMap(({ name: server, interfaces = [] }) =>
    interfaces.map(({ name, silentMicros, silent }) => {
      if (silentMicros === null) return [server, name, 'NEVER'];
      return [server, name, `${silent ? 'SILENT, last ' : ''}${duration(silentMicros)} ago`];
    }),
  );
  return rows.length === 0 ? '' : table(['server', 'by', 'heard'], rows);
}

function linkTable(report: StatusReport): string {
  if (report.links.length === 0) return '';
  const head = ['to', 'rtt', 'rtt min', 'frames sent', 'sent again', 'received', 'loss', 'refused', 'downs', 'queued'];
  const rows = report.links.map((link) => [
    link.peer,
    duration(link.rttMicros),
    duration(link.rttMicrosMin),
    link.framesSent,
    link.retransmitted,
    link.framesReceived,
    percent(link.gaps, link.framesReceived + link.gaps),
    link.refused,
    link.downs,
    bytes(link.queuedBytes),
  ]);
  return table(head, rows);
}

function databaseTable(sample: Sample): string {
  const volatile = sample.report.databases.filter(({ persistent }) => !persistent);
  if (volatile.length === 0) return '';
  const head = ['name', 'owned', 'copies', 'home of', 'moves', 'moves/s'];
  const rows = volatile.map((database) => {
    const rate = rateOf(sample, database.id);
    const moving = rate === null ? '-' : perSecond(rate.moves, rate.micros);
    const { name, recordsOwned, copies, directoryEntries, moves } = database;
    return [name, recordsOwned, copies, directoryEntries, moves, moving];
  });
  return table(head, rows);
}

function persistentTable({ persistent }: StatusReport): string {
  if (persistent.length === 0) return '';
  const rows = persistent.map(({ name, sequence, term, inSync, leader }) => {
    const state = inSync ? 'in sync' : 'WAITS for a majority';
    const held = leader === null ? '-' : leader.holders.join(', ');
    return [name, sequence ?? '-', term ?? '-', state, leader?.phase ?? '-', held, leader?.waiting ?? '-'];
  });
  return table(['name', 'sequence', 'term', 'state', 'leader here', 'held by', 'commits waiting'], rows);
}

function waitTable(report: StatusReport): string {
  if (report.waits.length === 0) return '';
  const rows = report.waits.map((wait) => [
    wait.name,
    wait.count,
    duration(wait.medianMicros),
    duration(wait.p99Micros),
    duration(wait.maxMicros),
  ]);
  return table(['for', 'count', 'median', 'p99', 'max'], rows);
}

function counterTable(report: StatusReport): string {
  const counted = Object.entries(report.counters).filter(([, count]) => count !== 0);
  const rows = counted.sort(([a], [b]) => (a < b ? -1 : 1));
  return rows.length === 0 ? '' : table(['name', 'count'], rows);
}
