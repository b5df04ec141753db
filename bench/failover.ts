/**
 * How long a file is out of reach whose server was lost, in our pool and in a stock CTDB pool, in turns: from the fault
 * to the first open of a file that only the lost server's client had open, and the longest open of other files on the
 * healthy servers meanwhile. `node dist/bench/failover.js [ROUNDS] [FAULT ...]`, as root; faults: killed, link,
 * stopped.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { daemonStatus } from '../src/lab/admin.js';
import { LabError, messageOf } from '../src/lab/errors.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { SHARE, hostInterface } from '../src/lab/layout.js';
import { pause, run, waitUntil } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { SmbClient } from '../src/lab/smb-client.js';
import { median } from './measure.js';
import { clearAll } from './clear.js';
import { createBridge, createNamespace, pidsIn } from './network.js';
import { PASSWORD, USER, places } from './places.js';
import type { PoolOptions } from './pools.js';
import { ctdb, isCtdbComplete, startCtdb, startCtdbd, startSmbpool, startSmbpoold } from './pools.js';
import { startSmbd, startSmbds } from './smb.js';

const ROOT = '/tmp/smbpool-failover';
const ROUNDS_DEFAULT = 10;
const PROCESSORS = cpus().map((_, index) => index).join(',');
/** As packaging/ has it. ctdbd would have real-time priority; in its test mode it has not, so both are equal here. */
const DAEMONS_NICE = -10;
const POOL: PoolOptions = {
  root: ROOT, processors: PROCESSORS, transport: 'ethernet', nodeOptions: [], nice: DAEMONS_NICE,
};
/** Who was not back by then counts as never: the client gives up an answer after a minute. */
const NEVER_SECONDS = 50;
/** The longest open of the others counts until so long after the first open of what was lost. */
const AFTER_MILLIS = 1000;
const TRY_MILLIS = 10;
/** CTDB bans servers for five minutes after some faults: then its pool starts anew instead. */
const WHOLE_MILLIS_MAX = 60_000;
const END_MILLIS_MAX = 20_000;
const MINE = { access: ['read', 'write'] as ('read' | 'write')[], share: '', disposition: 'open_if' as const };

type System = 'smbpool' | 'ctdb';
const SYSTEMS: readonly System[] = ['smbpool', 'ctdb'];
const FAULTS = ['killed', 'link', 'stopped'] as const;
type Fault = (typeof FAULTS)[number];
const TITLES: Record<Fault, string> = {
  killed: 'everything killed (kill -9)', link: 'link down', stopped: 'daemon stopped (SIGSTOP)',
};

interface Sample {
  firstOpen: number;
  longestElsewhere: number;
}

const seconds = (): number => Number(process.hrtime.bigint()) / 1e9;
const connect = ({ address }: ServerPlace): Promise<SmbClient> => SmbClient.connect(address, USER, PASSWORD, SHARE);

function signalAll(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name);
    } catch {
      // ended by itself in the meantime
    }
  }
}

/** The daemon that smbds talk to; ctdbd's helpers go on while it stands still. */
async function daemonOf(system: System, place: ServerPlace): Promise<number> {
  if (system === 'ctdb') return Number(readFileSync(join(place.directory, 'run', 'ctdbd.pid'), 'utf8').trim());
  const status = await daemonStatus(place.adminSocket);
  if (!status) throw new LabError(`smbpoold of ${place.name} does not answer`);
  return status.pid;
}

async function leaderOf(system: System): Promise<number> {
  const all = places(ROOT, system);
  if (system === 'ctdb') {
    const said = (await ctdb(all[0]!, 'leader')).trim();
    if (!/^\d+$/.test(said)) throw new LabError(`ctdb leader says "${said}"`);
    return Number(said);
  }
  const lines = all.flatMap(({ daemonLog }) => readFileSync(daemonLog, 'utf8').split('\n'));
  const views = lines.filter((line) => line.includes('"msg":"view"')).map((line) => JSON.parse(line) as {
    epoch: number;
    leader: number;
  });
  const newest = views.sort((a, b) => b.epoch - a.epoch)[0];
  if (!newest) throw new LabError('no smbpoold logged a view');
  return newest.leader;
}

/** Whether all three serve, as this one sees it. */
async function isWhole(system: System, place: ServerPlace): Promise<boolean> {
  if (system === 'ctdb') return isCtdbComplete(place);
  const status = await daemonStatus(place.adminSocket);
  if (status === null || status.epoch === 0 || status.awaiting.length > 0) return false;
  return status.servers.every(({ up }) => up);
}

function startDaemon(system: System, place: ServerPlace): void {
  if (system === 'smbpool') return void startSmbpoold(place, POOL);
  // as after a boot: what is left of its databases of open files is worthless
  const folder = join(place.directory, 'db', 'volatile');
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
  startCtdbd(place, POOL);
}

async function killAll(place: ServerPlace): Promise<void> {
  signalAll(await pidsIn(place.namespace), 'SIGKILL');
  const isEmpty = async () => (await pidsIn(place.namespace)).length === 0;
  if (!(await waitUntil(isEmpty, END_MILLIS_MAX))) throw new LabError(`processes of ${place.name} do not end`);
}

/** Whatever is left on these servers ends; then they start anew and the pool is whole again. False: it did not. */
async function restart(system: System, victims: readonly ServerPlace[]): Promise<boolean> {
  for (const place of victims) await killAll(place);
  for (const place of victims) startDaemon(system, place);
  const all = places(ROOT, system);
  const started = new Set(victims);
  const areWhole = async () => {
    for (const place of all) {
      // on a busy machine the others may have missed it, too: systemd's part
      if ((await pidsIn(place.namespace)).length > 0) continue;
      process.stderr.write(`  ${place.name} was lost without a fault of ours\n`);
      startDaemon(system, place);
      started.add(place);
    }
    return (await Promise.all(all.map((place) => isWhole(system, place)))).every((whole) => whole);
  };
  if (!(await waitUntil(areWhole, WHOLE_MILLIS_MAX, 200))) return false;
  for (const place of started) await startSmbd(place, PROCESSORS);
  return true;
}

/** After a fault: the victim starts anew; if that does not make the pool whole, all do. */
async function repair(system: System, victim: ServerPlace): Promise<void> {
  if (await restart(system, [victim])) return;
  process.stderr.write(`  ${system} did not become whole again; all its servers start anew\n`);
  if (!(await restart(system, places(ROOT, system)))) throw new LabError(`${system} does not become whole`);
}

async function begin(system: System, place: ServerPlace, fault: Fault): Promise<void> {
  switch (fault) {
    case 'killed': {
      const pids = await pidsIn(place.namespace);
      return signalAll(pids, 'SIGKILL');
    }
    case 'link':
      return void (await run('ip', ['link', 'set', hostInterface(place.namespace), 'down']));
    case 'stopped':
      return signalAll([await daemonOf(system, place)], 'SIGSTOP');
  }
}

async function end(place: ServerPlace, fault: Fault): Promise<void> {
  if (fault === 'link') await run('ip', ['link', 'set', hostInterface(place.namespace), 'up']);
}

/** Opens and closes files of its own all the time. */
class Elsewhere {
  private longest = 0;
  private isOver = false;
  private isLost = false;
  private sent = seconds();

  constructor(private readonly client: SmbClient, private readonly prefix: string) {
    this.work().catch(() => (this.isLost = true));
  }

  private async work(): Promise<void> {
    for (let i = 0; !this.isOver; i++) {
      this.sent = seconds();
      const { handle, sent, at } = await this.client.mustOpen(`${this.prefix}-${i % 20}`, MINE);
      this.longest = Math.max(this.longest, at - sent);
      await this.client.closeHandle(handle);
    }
  }

  /** What counts from now on. */
  reset(): void {
    this.longest = 0;
  }

  /** The longest, one that is still not answered included. */
  stop(): number {
    this.isOver = true;
    const pending = seconds() - this.sent;
    return this.isLost || pending > NEVER_SECONDS ? Infinity : Math.max(this.longest, pending);
  }
}

async function firstOpen(client: SmbClient, path: string, since: number): Promise<number> {
  for (;;) {
    const left = since + NEVER_SECONDS - seconds();
    if (left <= 0) return Infinity;
    // a connection that is lost, too: its server was healthy
    const asked = client.open(path, MINE).catch(() => null);
    const answer = await Promise.race([asked, pause(left * 1000).then(() => null)]);
    if (answer === null) return Infinity;
    if (answer.status === 'OK') return answer.at - since;
    await pause(TRY_MILLIS);
  }
}

async function once(system: System, fault: Fault, leads: boolean, name: string): Promise<Sample> {
  const all = places(ROOT, system);
  const leader = await leaderOf(system);
  const victim = all.find(({ id }) => (id === leader) === leads)!;
  const healthy = all.filter((place) => place !== victim);
  const clients = await Promise.all([victim, healthy[0]!, ...healthy].map(connect));
  try {
    const [holder, opener, ...rest] = clients as [SmbClient, SmbClient];
    const paths = Array.from({ length: 6 }, (_, index) => `held-${name}-${index}`);
    for (const path of paths) await holder.mustOpen(path, MINE);
    const elsewhere = rest.map((client, index) => new Elsewhere(client, `other-${name}-${index}`));
    await pause(500 + Math.random() * 1000);
    for (const one of elsewhere) one.reset();
    const since = seconds();
    await begin(system, victim, fault);
    const free = await firstOpen(opener, paths[0]!, since);
    await pause(AFTER_MILLIS);
    return { firstOpen: free, longestElsewhere: Math.max(...elsewhere.map((one) => one.stop())) };
  } finally {
    for (const client of clients) client.close();
    await end(victim, fault);
    await repair(system, victim);
  }
}

function figure(value: number): string {
  return Number.isFinite(value) ? value.toFixed(2) : `> ${NEVER_SECONDS}`;
}

function ratio(theirs: number, ours: number): string {
  if (!Number.isFinite(ours)) return '-';
  return Number.isFinite(theirs) ? (theirs / ours).toFixed(1) : `> ${(NEVER_SECONDS / ours).toFixed(0)}`;
}

class Bench {
  private readonly samples = new Map<string, Map<System, Sample[]>>();

  constructor(private readonly rounds: number, private readonly faults: readonly Fault[]) {}

  async run(): Promise<void> {
    await this.clear();
    await this.prepare();
    const before = loadavg()[0]!.toFixed(1);
    for (let round = 0; round < this.rounds; round++) {
      for (const fault of this.faults) {
        for (const leads of [false, true]) await this.both(round, fault, leads);
      }
    }
    const machine = `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} processors, Linux ${release()}`;
    const loads = `load ${before} at the beginning, ${loadavg()[0]!.toFixed(1)} at the end`;
    process.stdout.write(`${machine}, ${process.version}\n${this.rounds} rounds, in turns; seconds; ${loads}\n`);
    process.stdout.write(`${this.table()}\n`);
  }

  private async both(round: number, fault: Fault, leads: boolean): Promise<void> {
    const title = `${TITLES[fault]}, ${leads ? 'the leader' : 'not the leader'}`;
    for (const system of round % 2 === 0 ? SYSTEMS : SYSTEMS.toReversed()) {
      const sample = await once(system, fault, leads, `${round}-${fault}-${leads}`);
      const figures = `${figure(sample.firstOpen)} s, elsewhere ${figure(sample.longestElsewhere)} s`;
      process.stderr.write(`  round ${round}, ${title}, ${system}: ${figures}, load ${loadavg()[0]!.toFixed(1)}\n`);
      const row = this.samples.get(title) ?? new Map<System, Sample[]>();
      this.samples.set(title, row);
      row.set(system, [...(row.get(system) ?? []), sample]);
    }
  }

  private table(): string {
    const head = ['', 'system', 'first open: median', 'worst', 'x median', 'elsewhere: median', 'worst', 'x median'];
    const output = new Table({ head, style: { head: [], border: [] } });
    for (const [title, row] of this.samples) {
      const of = (system: System, pick: (sample: Sample) => number) => row.get(system)!.map(pick);
      const picks = [(sample: Sample) => sample.firstOpen, (sample: Sample) => sample.longestElsewhere];
      for (const system of SYSTEMS) {
        const cells = picks.flatMap((pick) => {
          const values = of(system, pick);
          const better = system === 'ctdb' ? ratio(median(values), median(of('smbpool', pick))) : '';
          return [figure(median(values)), figure(Math.max(...values)), better];
        });
        const first = system === 'smbpool' ? [{ content: title, rowSpan: SYSTEMS.length }] : [];
        output.push([...first, system, ...cells]);
      }
    }
    return output.toString();
  }

  clear(): Promise<void> {
    return clearAll(ROOT);
  }

  private async prepare(): Promise<void> {
    const state = join(ROOT, 'state');
    mkdirSync(state, { recursive: true });
    await run('mount', ['-t', 'tmpfs', '-o', 'mode=0755,size=4g', 'smbpool-failover', state]);
    await createBridge();
    for (const place of SYSTEMS.flatMap((system) => places(ROOT, system))) {
      await createNamespace(place.namespace, place.address);
    }
    const how = { processors: PROCESSORS, module: true };
    await startCtdb(POOL);
    await startSmbds(ROOT, ['ctdb'], how);
    await startSmbpool(POOL);
    await startSmbds(ROOT, ['smbpool'], how).catch(async (error: unknown) => {
      // on a busy machine a daemon may be missed by the others just after its start, and its smbd ends with it
      process.stderr.write(`  ${messageOf(error)}; all servers of smbpool start anew\n`);
      if (!(await restart('smbpool', places(ROOT, 'smbpool')))) throw error;
    });
  }
}

async function main(): Promise<void> {
  const [rounds, ...chosen] = process.argv.slice(2);
  const count = Number(rounds ?? ROUNDS_DEFAULT);
  if (!Number.isSafeInteger(count) || count < 1) throw new LabError('say how many rounds: a whole number');
  const unknown = chosen.filter((name) => !FAULTS.some((fault) => fault === name));
  if (unknown.length > 0) throw new LabError(`there is no fault ${unknown.join(', ')}; there are ${FAULTS.join(', ')}`);
  const bench = new Bench(count, chosen.length === 0 ? FAULTS : (chosen as Fault[]));
  await cleaningUpOnSignal(
    () => bench.run().finally(() => bench.clear()),
    () => bench.clear(),
  );
}

main().catch((error: unknown) => {
  console.error(`failover: ${messageOf(error)}`);
  process.exitCode = 1;
});
