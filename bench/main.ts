/**
 * `npm run bench`: smbpoold and stock ctdbd side by side on this machine, the daemons alone and with smbd on top, in
 * one run with turns taken. Prints conditions, figures and ratios. Leaves nothing behind.
 */
import { mkdirSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { LabError, messageOf } from '../src/lab/errors.js';
import { repositoryFolder } from '../src/lab/repository.js';
import { run } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import type { Plan } from './measure.js';
import { measure } from './measure.js';
import { clearAll } from './clear.js';
import { createBridge, createNamespace, namespaces } from './network.js';
import { PASSWORD, USER, places } from './places.js';
import type { System } from './places.js';
import { sockets, startCtdb, startSmbpool } from './pools.js';
import { asObject, table } from './report.js';
import type { Row } from './report.js';
import { SMB_WORKLOADS, addresses, startSmbds } from './smb.js';
import type { Workload } from './workloads.js';
import { WORKLOADS } from './workloads.js';

const ROOT = '/tmp/smbpool-bench';
const CLIENT_SOURCES = ['main.c', 'daemon.c', 'samples.c'];

const EXPLANATION = `Microseconds; medians of the repetitions, max: the worst.
"server time": processor time of the servers per operation. "fair": share of the client that got least.
"x": times better than that system (median of the ratios of neighbours).`;

interface Options {
  quick?: true;
  json?: true;
  smb: boolean;
  daemons: boolean;
  only?: string[];
  repetitions?: string;
  seconds?: string;
  seed: string;
  processors: string;
  transport: 'ethernet' | 'udp';
  module?: true;
  sharedFolders?: true;
  nodeOption: string[];
}

interface Length {
  repetitions: number;
  seconds: number;
}

class Bench {
  private readonly say: (line: string) => void;

  constructor(private readonly options: Options) {
    // with --json standard output is for the object alone
    const stream = options.json ? process.stderr : process.stdout;
    this.say = (line) => void stream.write(`${line}\n`);
  }

  async run(): Promise<void> {
    if (process.getuid?.() !== 0) throw new LabError('the benchmark needs root: it makes network namespaces');
    if (namespaces().length > 0) this.say('clearing what an earlier benchmark left behind');
    await this.clear();
    await this.prepare();
    const conditions = this.conditions();
    for (const [name, value] of Object.entries(conditions)) this.say(`${name.padEnd(12)} ${String(value)}`);
    const daemons = this.options.daemons ? await this.measureDaemons() : [];
    const smb = this.options.smb ? await this.measureSmb() : [];
    const ended = { loadAtEnd: loadavg()[0]!.toFixed(2) };
    if (this.options.json) {
      const object = { conditions: { ...conditions, ...ended }, daemons: asObject(daemons), smb: asObject(smb) };
      process.stdout.write(`${JSON.stringify(object, null, 2)}\n`);
      return;
    }
    this.say(EXPLANATION);
    if (daemons.length > 0) this.say(`\nThe daemons, three servers:\n${table(daemons)}`);
    if (smb.length > 0) this.say(`\nSMB, three servers and one smbd alone:\n${table(smb)}`);
    this.say(`load at the end: ${ended.loadAtEnd}`);
  }

  clear(): Promise<void> {
    return clearAll(ROOT);
  }

  private async prepare(): Promise<void> {
    const state = join(ROOT, 'state');
    mkdirSync(state, { recursive: true });
    await run('mount', ['-t', 'tmpfs', '-o', 'mode=0755,size=4g', 'smbpool-bench', state]);
    await compileClient();
    await createBridge();
    const systems: System[] = ['smbpool', 'ctdb', ...(this.options.smb ? ['single' as const] : [])];
    for (const place of systems.flatMap((system) => places(ROOT, system))) {
      await createNamespace(place.namespace, place.address);
    }
    const { processors, transport, sharedFolders = false, nodeOption: nodeOptions } = this.options;
    const pool = { root: ROOT, processors, transport, nodeOptions, sharedFolders };
    await Promise.all([startSmbpool(pool), startCtdb(pool)]);
  }

  private length(seconds: number): Length {
    const { quick, repetitions, seconds: wanted } = this.options;
    return {
      repetitions: Number(repetitions ?? (quick ? 2 : 5)),
      seconds: Number(wanted ?? (quick ? seconds / 4 : seconds)),
    };
  }

  private conditions(): Record<string, string | number> {
    const { processors, seed, transport, quick, module, sharedFolders } = this.options;
    const { repetitions, seconds } = this.length(1);
    const warm = quick ? 'daemons cold' : 'after one that does not count';
    return {
      machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} processors, Linux ${release()}`,
      node: process.version,
      processors: `everything on processor ${processors}`,
      module: module ? `in smbpool's smbds${sharedFolders ? ', which share folders' : ''}` : 'none',
      transport: `smbpool: ${transport}, CTDB: TCP; one bridge, state on tmpfs`,
      repetitions: `${repetitions} of ${seconds.toFixed(2)} s, in turns, ${warm}`,
      seed,
      load: loadavg()[0]!.toFixed(2),
    };
  }

  private async measureAll(plan: Plan, all: readonly Workload[]): Promise<Row[]> {
    const { only } = this.options;
    const workloads = all.filter(({ name }) => only === undefined || only.includes(name));
    if (!this.options.quick) {
      process.stderr.write('  warming up\n');
      for (const workload of workloads) await measure({ ...plan, repetitions: 1, seed: plan.seed + 1000 }, workload);
    }
    const rows: Row[] = [];
    for (const workload of workloads) {
      process.stderr.write(`  measuring ${workload.name}\n`);
      rows.push({ workload, samples: await measure(plan, workload) });
    }
    return rows;
  }

  private measureDaemons(): Promise<Row[]> {
    const { seed, processors } = this.options;
    const length = this.length(1);
    const client = join(ROOT, 'pool_client');
    const plan: Plan = {
      ...length, root: ROOT, seed: Number(seed), processors, systems: ['smbpool', 'ctdb'],
      command: ({ name }, system, runSeed) =>
        [client, name, `${length.seconds}`, `${runSeed}`, ...sockets(ROOT, system)],
    };
    return this.measureAll(plan, WORKLOADS);
  }

  private async measureSmb(): Promise<Row[]> {
    const { seed, processors, module } = this.options;
    const systems: System[] = ['smbpool', 'ctdb', 'single'];
    await startSmbds(ROOT, systems, { processors, module: module === true });
    const length = this.length(1);
    const client = join(repositoryFolder(), 'bench', 'client', 'smb_load.py');
    const plan: Plan = {
      ...length, root: ROOT, seed: Number(seed), processors, systems,
      command: ({ name }, system) =>
        ['/usr/bin/python3', client, name, `${length.seconds}`, USER, PASSWORD, ...addresses(ROOT, system)],
    };
    return this.measureAll(plan, SMB_WORKLOADS);
  }
}

async function compileClient(): Promise<void> {
  const sources = CLIENT_SOURCES.map((name) => join(repositoryFolder(), 'bench', 'client', name));
  const warnings = ['-Wall', '-Wextra', '-Werror'];
  await run('gcc', ['-std=gnu11', '-O2', ...warnings, '-o', join(ROOT, 'pool_client'), ...sources, '-ltdb']);
}

function parseOptions(argv: readonly string[]): Options {
  const list = (value: string, before: string[] = []): string[] => [...before, value];
  const options = new Command('npm run bench --')
    .description('measures smbpoold and ctdbd side by side')
    .option('--quick', 'a minute, with cold daemons: for a look, not for figures')
    .option('--json', 'print everything as one JSON object')
    .option('--no-smb', 'only the daemons')
    .option('--no-daemons', 'only SMB')
    .option('--module', "our VFS module in smbpool's smbds; without: the same smbd in the same configuration for all")
    .option('--shared-folders', 'with --module: opens of a hot folder need no record of the pool')
    .option('--only <workload>', 'only this workload (repeatable)', list)
    .option('--repetitions <number>', 'of each workload on each system')
    .option('--seconds <number>', 'how long one repetition measures')
    .option('--seed <number>', 'of the keys', '1')
    .option('--processors <list>', 'what everything is pinned to, e.g. 0 or 0,1', String(cpus().length - 1))
    .addOption(new Option('--transport <kind>', 'of smbpoold').choices(['ethernet', 'udp']).default('ethernet'))
    .option('--node-option <option>', 'for the smbpoolds, e.g. --cpu-prof (repeatable)', list, [])
    .allowExcessArguments(false)
    .parse([...argv])
    .opts<Options>();
  const known = [...WORKLOADS, ...SMB_WORKLOADS].map(({ name }) => name);
  const unknown = options.only?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new LabError(`--only ${unknown}: no such workload; there are ${known.join(', ')}`);
  if (options.sharedFolders && !options.module) throw new LabError('--shared-folders needs --module');
  return options;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const bench = new Bench(parseOptions(process.argv));
    await cleaningUpOnSignal(
      () => bench.run().finally(() => bench.clear()),
      () => bench.clear(),
    );
  } catch (error) {
    process.stderr.write(`bench: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
