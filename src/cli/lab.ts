/**
 * `smbpool lab up|down|status|exec|chaos`: a pool on this machine, for trying out and for tests. Only reads the
 * command line; the work is in src/lab.
 */
import { spawn } from 'node:child_process';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { chaos } from '../lab/chaos/chaos.js';
import { describeLab } from '../lab/describe.js';
import type { ServerDescription } from '../lab/describe.js';
import { LabError } from '../lab/errors.js';
import { Lab, clearWithoutState, requireRoot } from '../lab/lab.js';
import { LAB_PASSWORD, LAB_USER, SERVER_COUNT_DEFAULT } from '../lab/layout.js';
import type { LabOptions } from '../lab/options.js';
import { labOptions } from '../lab/options.js';
import { cleaningUpOnSignal } from '../lab/signals.js';

interface UpFlags extends Partial<Omit<LabOptions, 'vfs' | 'shareOptions' | 'globalOptions' | 'lossPercent'>> {
  /** False only with --no-module. */
  module: boolean;
  smbOption: string[];
  globalOption: string[];
  vfs?: string;
  loss?: number;
  duplicate?: number;
}

/** Not the default lab's folder: a run without violations wipes what it made, and leaves a lab's files alone. */
const CHAOS_ROOT = '/tmp/smbpool-chaos';
const CHAOS_MINUTES_DEFAULT = 2;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const collect = (value: string, before: string[]): string[] => [...before, value];

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('a number is wanted');
  return value;
}

export function registerLab(program: Command): void {
  const lab = program
    .command('lab')
    .description('a pool on this machine: one network namespace, one smbpoold and one smbd per server (needs root)');
  lab
    .command('up')
    .description('brings a pool up and waits until it serves')
    .argument('[servers]', 'how many servers, 1 to 16', number, SERVER_COUNT_DEFAULT)
    .option('--root <dir>', 'folder for all state, logs and the shared files')
    .option('--fresh', "wipe an earlier lab's files first")
    .option('--smb-option <line>', "'name = value' for the share; repeatable", collect, [])
    .option('--global-option <line>', "'name = value' for [global]; repeatable", collect, [])
    .option('--no-module', "without smbpool's own VFS module")
    .option('--vfs <modules>', "other VFS modules for the share, in front of fileid: 'acl_xattr streams_xattr'")
    .option('--baseline', 'also one unclustered smbd with the same share options, at 10.77.0.200')
    .option('--interfaces <number>', 'of each server for the others, 1 or 2; the second on another network', number)
    .option('--addresses <number>', 'public addresses of the pool, from 10.77.0.100 on', number)
    .option('--addresses6 <number>', 'the same of IPv6, from fd00:77::100 on', number)
    .addOption(new Option('--engine <name>', "of the pool's membership").choices(['embedded', 'etcd']))
    .addOption(new Option('--transport <kind>', 'what the daemons speak over').choices(['ethernet', 'udp']))
    .option('--loss <percent>', 'frames each server loses on purpose', number)
    .option('--duplicate <percent>', 'frames each server sends twice on purpose', number)
    .option('--seed <number>', 'seed of the losses', number)
    .addOption(new Option('--log-level <level>', "smbpoold's").choices(['debug', 'info', 'warn', 'error']))
    .option('--lease-millis <number>', 'how long a server serves without hearing of the others', number)
    .option('--shared-folders', 'opens of folders that many clients have open need no record of the pool')
    .option('--no-realtime', 'smbpoold without real-time priority')
    .option('--smbd-log-level <level>', "smbd's, 0 to 10", number)
    .action(up);
  lab
    .command('down')
    .description('stops and removes what "lab up" made; its files stay')
    .option('--root <dir>', 'of a lab other than the one that is up')
    .option('--wipe', 'remove the files too')
    .action(down);
  lab
    .command('add')
    .description('one server more for the lab that is up; have the pool take it in first, with smbpool join')
    .action(add);
  lab.command('status').description('what runs').option('--json', 'as JSON').action(status);
  lab
    .command('exec')
    .description('runs a command on a server; smbstatus, net, ctdb and smbpool then mean that server')
    .argument('<server>', 'number of the server')
    .argument('<command...>', 'after "--"')
    .passThroughOptions()
    .action(exec);
  lab
    .command('chaos')
    .description('a lab of its own whose servers, processes and links fail at random, under work that is checked')
    .option('--minutes <number>', 'how long', number, CHAOS_MINUTES_DEFAULT)
    .option('--seed <number>', 'repeats the faults of a run in their order; default: a new one', number)
    .option('--servers <number>', 'how many servers, 2 to 16', number, SERVER_COUNT_DEFAULT)
    .addOption(new Option('--engine <name>', "of the pool's membership").choices(['embedded', 'etcd']))
    .option('--standby', 'each smbpoold has one that goes on when it is killed')
    .option('--shared-folders', 'opens of folders that many clients have open need no record of the pool')
    .option('--interfaces <number>', 'of each server for the others, 1 or 2', number)
    .addOption(new Option('--transport <kind>', 'what the daemons speak over').choices(['ethernet', 'udp']))
    .addOption(new Option('--log-level <level>', "smbpoold's").choices(['debug', 'info', 'warn', 'error']))
    .option('--root <dir>', 'folder for all state, logs and the shared files', CHAOS_ROOT)
    .option('--keep', 'the lab stays up, to be looked at')
    .action(runChaos);
}

interface ChaosFlags extends Partial<
  Pick<LabOptions, 'engine' | 'standby' | 'sharedFolders' | 'interfaces' | 'transport' | 'logLevel'>
> {
  minutes: number;
  seed?: number;
  servers: number;
  root: string;
  keep?: true;
}

/** Exit status 1 when something was violated; the lab's files stay then. */
async function runChaos({ minutes, seed = newSeed(), keep, ...rest }: ChaosFlags): Promise<void> {
  if (!Number.isInteger(seed)) throw new LabError(`--seed must be a whole number; "${seed}" is not`);
  if (minutes <= 0) throw new LabError(`--minutes must be more than 0; "${minutes}" is not`);
  if (rest.servers < 2) throw new LabError('--servers must be 2 at least: faults of the only server prove nothing');
  const options = labOptions({ ...rest, fresh: true });
  say(`chaos for ${minutes} minutes, seed ${seed}`);
  await cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(options, say);
      let isWell = false;
      try {
        const { violations } = await chaos(lab, { seed, minutes }, say);
        isWell = violations.length === 0;
        say(isWell ? `nothing was violated (seed ${seed})` : `${violations.length} violations, seed ${seed}`);
      } finally {
        if (keep) say('the lab stays up: npx smbpool lab exec 0 -- smbstatus; end it: npx smbpool lab down --wipe');
        else await lab.down();
      }
      if (isWell && !keep) lab.wipe();
      if (isWell) return;
      say(`logs of each server, and what the clients noted (chaos-notes.json), are below ${lab.layout.root}`);
      process.exitCode = 1;
    },
    () => Lab.interrupt(),
  );
}

const newSeed = (): number => Math.floor(Math.random() * 2 ** 31);

async function up(servers: number, flags: UpFlags): Promise<void> {
  const { smbOption, globalOption, module, vfs, loss, duplicate, ...rest } = flags;
  const options = labOptions({
    ...rest,
    servers,
    shareOptions: smbOption,
    globalOptions: globalOption,
    vfs: vfs?.split(/[\s,]+/).filter((word) => word !== '') ?? [],
    ...(module ? {} : { module }),
    ...(loss === undefined ? {} : { lossPercent: loss }),
    ...(duplicate === undefined ? {} : { duplicatePercent: duplicate }),
  });
  const lab = await cleaningUpOnSignal(() => Lab.up(options, say), () => Lab.interrupt());
  const logon = `smbclient //${lab.server(0).address}/pool -U ${LAB_USER}%${LAB_PASSWORD}`;
  say(`user ${LAB_USER}, password ${LAB_PASSWORD}: ${logon}`);
  say('on a server: npx smbpool lab exec 0 -- smbstatus     end it: npx smbpool lab down');
}

async function down(flags: { root?: string; wipe?: true }): Promise<void> {
  requireRoot();
  const lab = Lab.current(flags.root);
  if (lab) {
    await lab.down();
    if (flags.wipe) lab.wipe();
    say(`the lab is down; ${flags.wipe ? 'its files are removed' : `its files are kept below ${lab.layout.root}`}`);
  } else if (await clearWithoutState(flags.root, flags.wipe === true)) {
    say('there was no lab up; leftovers are removed');
  } else {
    say('there is no lab up');
  }
}

async function add(): Promise<void> {
  requireRoot();
  const lab = Lab.current();
  if (!lab) throw new LabError('there is no lab up; "npx smbpool lab up" makes one');
  const place = await lab.add();
  say(`${place.name} serves //${place.address}/pool`);
}

async function status(flags: { json?: true }): Promise<void> {
  const lab = Lab.current();
  const servers = lab ? await describeLab(lab) : [];
  if (flags.json) {
    say(JSON.stringify({ root: lab?.layout.root ?? null, options: lab?.options ?? null, servers }, null, 2));
  } else if (lab) {
    say(`lab below ${lab.layout.root}, transport ${lab.options.transport}`);
    for (const one of servers) {
      const daemon = one.smbpoold === null ? 'unclustered' : `smbpoold ${one.smbpoold}`;
      say(`${one.name.padEnd(9)}  ${one.address.padEnd(11)}  ${daemon}, smbd ${one.smbd}${moduleWords(one)}`);
    }
  } else {
    say('there is no lab up; "npx smbpool lab up" makes one');
  }
  const healthy = servers.every((one) => one.smbd === 'serves' && (one.smbpoold ?? 'runs') === 'runs');
  if (!lab || !healthy) process.exitCode = 1;
}

function moduleWords({ module }: ServerDescription): string {
  if (module === null) return '';
  if (module === 'off') return ', without the VFS module';
  return `, ${module.attachments} of its processes with the module, ${module.opens} open files`;
}

async function exec(server: string, words: string[]): Promise<void> {
  requireRoot();
  // with options passed through, commander leaves the separator in
  const command = words[0] === '--' ? words.slice(1) : words;
  const lab = Lab.current();
  if (!lab) throw new LabError('there is no lab up; "npx smbpool lab up" makes one');
  const place = lab.server(Number(server));
  const child = spawn('ip', ['netns', 'exec', place.namespace, ...command], {
    stdio: 'inherit',
    env: { ...process.env, ...lab.environment(place) },
  });
  // the command gets Ctrl-C from the terminal too; we stay until it has dealt with it
  process.on('SIGINT', () => undefined);
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}
