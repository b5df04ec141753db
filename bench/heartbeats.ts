/**
 * Whether a pool keeps its leases on a busy machine: a lab of three servers, several processes on each processor that
 * do nothing but work, and a look at each server's lease every few milliseconds; without and with real-time priority
 * of the daemons, in turns. `node dist/bench/heartbeats.js`, as root; --help tells the options. Ends what it started,
 * also when it is killed.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { loadNative } from '../src/host/native.js';
import { daemonStatus } from '../src/lab/admin.js';
import { LabError, messageOf } from '../src/lab/errors.js';
import { Lab } from '../src/lab/lab.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { labOptions } from '../src/lab/options.js';
import { isAlive, signal } from '../src/lab/processes.js';
import { waitUntil } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { makeBusy } from './busy.js';

const ROOT = '/tmp/smbpool-heartbeats';
const SERVERS = 3;
/** A small part of a heartbeat's 40 ms. */
const SAMPLE_MILLIS = 4;
const CHECK_MILLIS = 200;
const SMBD_END_MILLIS_MAX = 10_000;
/** native/shared/smbpool_layout.h: the word of the node page that holds the end of the lease. */
const LEASE_DEADLINE_AT = 256;

interface Options {
  minutes: string;
  busy: string;
  rounds: string;
  root: string;
}

/** What a server's lease did. Milliseconds. */
interface Lease {
  gaps: number[];
  leastLeft: number;
  without: number;
}

interface Watched {
  place: ServerPlace;
  page: number;
  deadline: bigint;
  changedAt: number;
  lease: Lease;
  /** Where the log was when the load began. */
  logAt: number;
  restarts: number;
  beingStarted: boolean;
}

const openPage = (place: ServerPlace): number => openSync(join(place.directory, 'node.page'), 'r');
const nowMillis = (): number => Number(process.hrtime.bigint()) / 1e6;

function deadlineOf(watched: Watched): bigint {
  const word = Buffer.alloc(8);
  readSync(watched.page, word, 0, 8, LEASE_DEADLINE_AT);
  return word.readBigUInt64LE();
}

function watch(place: ServerPlace): Watched {
  return {
    place,
    page: openPage(place),
    deadline: 0n,
    changedAt: 0,
    lease: { gaps: [], leastLeft: Infinity, without: 0 },
    logAt: readFileSync(place.daemonLog, 'utf8').length,
    restarts: 0,
    beingStarted: false,
  };
}

function sample(watched: Watched, sinceLast: number): void {
  const deadline = deadlineOf(watched);
  const now = nowMillis();
  if (deadline !== watched.deadline) {
    if (watched.deadline !== 0n) watched.lease.gaps.push(now - watched.changedAt);
    watched.deadline = deadline;
    watched.changedAt = now;
  }
  const left = Number(deadline) / 1000 - now;
  watched.lease.leastLeft = Math.min(watched.lease.leastLeft, left);
  if (left < 0) watched.lease.without += sinceLast;
}

/** As systemd would: a daemon that ended is started again, and its smbd. */
async function startAgain(lab: Lab, watched: Watched): Promise<void> {
  watched.beingStarted = true;
  watched.restarts++;
  const smbd = lab.process('smbd', watched.place.id);
  try {
    if (smbd !== null) signal(smbd, 'SIGTERM');
    await waitUntil(() => smbd === null || !isAlive(smbd), SMBD_END_MILLIS_MAX);
    await lab.startAgain(watched.place);
  } catch (error) {
    process.stderr.write(`${watched.place.name}: ${messageOf(error)}\n`);
  }
  closeSync(watched.page);
  watched.page = openPage(watched.place);
  watched.beingStarted = false;
}

interface Result {
  realtime: boolean;
  views: number;
  rows: { name: string; fenced: number; restarts: number; lease: Lease }[];
}

function resultOf(realtime: boolean, all: readonly Watched[]): Result {
  const epochs = new Set<unknown>();
  const rows = all.map(({ place, lease, restarts, logAt }) => {
    const lines = readFileSync(place.daemonLog, 'utf8').slice(logAt).split('\n').filter((line) => line.startsWith('{'));
    const events = lines.map((line) => JSON.parse(line) as { msg: string; epoch?: number });
    for (const { msg, epoch } of events) if (msg === 'view') epochs.add(epoch);
    return { name: place.name, fenced: events.filter(({ msg }) => msg === 'fenced').length, restarts, lease };
  });
  return { realtime, views: epochs.size, rows };
}

async function measure(lab: Lab, options: Options, realtime: boolean): Promise<Result> {
  const all = lab.servers().map(watch);
  for (const { place } of all) {
    const counters = (await daemonStatus(place.adminSocket))?.counters ?? {};
    if (counters['lease.renewed'] === undefined) throw new LabError(`${place.name} has no lease`);
  }
  const stop = makeBusy(Number(options.busy) * cpus().length);
  const native = loadNative();
  // who looks must not be late itself
  native.realtimeStart((await readdir('/proc/self/task')).map(Number));
  try {
    const end = nowMillis() + Number(options.minutes) * 60_000;
    let checkedAt = 0;
    for (let before = nowMillis(); before < end; ) {
      await sleep(SAMPLE_MILLIS);
      const now = nowMillis();
      for (const one of all) sample(one, now - before);
      before = now;
      if (now - checkedAt < CHECK_MILLIS) continue;
      checkedAt = now;
      for (const one of all) {
        const daemon = lab.process('smbpoold', one.place.id);
        if (!one.beingStarted && daemon !== null && !isAlive(daemon)) void startAgain(lab, one);
      }
    }
  } finally {
    native.realtimeStop();
    stop();
  }
  await waitUntil(() => all.every((one) => !one.beingStarted), 60_000);
  return resultOf(realtime, all);
}

function quantile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? NaN;
}

function print({ realtime, views, rows }: Result): void {
  const head = `| realtime: ${realtime} | views: ${views} |`;
  process.stdout.write(`${head} gap p50, p99, p99.9, longest ms | least left of the lease ms | without it ms | `);
  process.stdout.write('fenced | started again |\n');
  for (const { name, fenced, restarts, lease } of rows) {
    const gaps = [0.5, 0.99, 0.999, 1].map((fraction) => quantile(lease.gaps, fraction).toFixed(0)).join(', ');
    const left = `${lease.leastLeft.toFixed(0)} | ${lease.without.toFixed(0)}`;
    process.stdout.write(`| | ${name} | ${gaps} | ${left} | ${fenced} | ${restarts} |\n`);
  }
}

async function round(options: Options, realtime: boolean): Promise<void> {
  const lab = await Lab.up(labOptions({ root: options.root, fresh: true, servers: SERVERS, module: false, realtime }));
  try {
    print(await measure(lab, options, realtime));
  } finally {
    await lab.down();
    lab.wipe();
  }
}

async function main(): Promise<void> {
  const program = new Command('heartbeats')
    .option('--minutes <number>', 'how long each run lasts', '2')
    .option('--busy <number>', 'busy processes for each processor', '8')
    .option('--rounds <number>', 'how often both ways are measured', '1')
    .option('--root <dir>', 'of the lab', ROOT)
    .parse();
  const options = program.opts<Options>();
  const load = loadavg()[0]!.toFixed(2);
  process.stdout.write(`${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} processors, Linux ${release()}, `);
  process.stdout.write(`${options.busy} busy processes for each, load before ${load}, ${options.minutes} minutes\n`);
  await cleaningUpOnSignal(
    async () => {
      for (let i = 0; i < Number(options.rounds); i++) {
        for (const realtime of [false, true]) await round(options, realtime);
      }
    },
    () => Lab.interrupt(),
  );
}

main().catch((error: unknown) => {
  process.stderr.write(`heartbeats: ${messageOf(error)}\n`);
  process.exitCode = 1;
});
