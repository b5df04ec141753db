/**
 * Two pools of three daemons, alike in all but the daemon: smbpoold and stock ctdbd. Started pinned, in namespaces,
 * with all their state on tmpfs; both stay up for the whole benchmark, so that repetitions can take turns.
 */
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { daemonStatus } from '../src/lab/admin.js';
import { LabError } from '../src/lab/errors.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { tryRun, waitUntil } from '../src/lab/run.js';
import { DAEMON_NODE_FLAGS } from '../src/base/node-flags.js';
import { startIn } from './network.js';
import type { System } from './places.js';
import { SERVERS, places } from './places.js';

/** ctdbd elects a leader and recovers before it serves: some 10 s. */
const START_MILLIS_MAX = 60_000;
/** A question to a daemon that does not answer must not hold up the benchmark. */
const CTDB_MILLIS_MAX = 10_000;
const SMBPOOLD = fileURLToPath(new URL('../src/daemon/main.js', import.meta.url));

export interface PoolOptions {
  root: string;
  processors: string;
  transport: 'ethernet' | 'udp';
  /** Further options of node for smbpoold, e.g. --cpu-prof. */
  nodeOptions: readonly string[];
  /** Whether smbpool's servers share folders that everybody opens; for smbds with our VFS module. */
  sharedFolders?: boolean;
  /** Of the daemons; as everything else unless told. */
  nice?: number;
}

export async function startSmbpool(options: PoolOptions): Promise<void> {
  const { root, transport } = options;
  const all = places(root, 'smbpool');
  const keyFile = join(root, 'state', 'pool.key');
  writeFileSync(keyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  for (const place of all) {
    const databases = { volatile: join(place.volatile, 'databases'), persistent: join(place.directory, 'persistent') };
    for (const folder of [place.logs, databases.volatile, databases.persistent]) mkdirSync(folder, { recursive: true });
    const servers = all.map(({ id, name, address }) => ({ id, name, interface: 'eth0', address }));
    writeFileSync(place.daemonConfig, stringify({
      pool: { name: 'bench', keyFile },
      server: place.name,
      servers,
      directories: databases,
      socket: place.socket,
      adminSocket: place.adminSocket,
      transport: { kind: transport },
      ...(options.sharedFolders === true ? { sharedFolders: 'on' } : {}),
      log: { level: 'info' },
    }));
    startSmbpoold(place, options);
  }
  for (const place of all) {
    const serves = async () => {
      const status = await daemonStatus(place.adminSocket);
      return status !== null && status.awaiting.length === 0 && status.links.every(({ up }) => up);
    };
    await mustServe(place, serves);
  }
}

export async function startCtdb(options: PoolOptions): Promise<void> {
  const { root } = options;
  const all = places(root, 'ctdb');
  for (const place of all) {
    writeCtdbFiles(root, place, all);
    startCtdbd(place, options);
  }
  for (const place of all) await mustServe(place, () => isCtdbComplete(place));
}

/** Starts the daemon of one server; answers its pid. Its files are there. */
export function startSmbpoold(place: ServerPlace, { processors, nodeOptions, nice }: PoolOptions): number {
  const args = [...DAEMON_NODE_FLAGS, ...nodeOptions, SMBPOOLD, '--config', place.daemonConfig];
  const { namespace, daemonLog: outputFile } = place;
  const how = nice === undefined ? {} : { nice };
  return startIn({ namespace, processors, command: process.execPath, args, outputFile, ...how });
}

/** Starts the daemon of one server, which goes to the background. Its files are there. */
export function startCtdbd(place: ServerPlace, { processors, nice }: PoolOptions): void {
  const { namespace, daemonLog: outputFile } = place;
  const how = { environment: ctdbEnvironment(place), ...(nice === undefined ? {} : { nice }) };
  startIn({ namespace, processors, command: 'ctdbd', args: [], outputFile, ...how });
}

/** Whether all servers are healthy and no recovery is under way, as this one sees it. */
export async function isCtdbComplete(place: ServerPlace): Promise<boolean> {
  const stdout = await ctdb(place, 'status');
  const healthy = (stdout.match(/ OK( |$)/gm) ?? []).length;
  return healthy === SERVERS && stdout.includes('Recovery mode:NORMAL');
}

/** What a command of ctdb says at this server. */
export async function ctdb(place: ServerPlace, ...args: string[]): Promise<string> {
  const { stdout } = await tryRun('ctdb', args, { environment: ctdbEnvironment(place), timeoutMs: CTDB_MILLIS_MAX });
  return stdout;
}

/** In its test mode ctdbd keeps all its files in one folder and runs without real-time priority. */
function ctdbEnvironment(place: ServerPlace): Record<string, string> {
  return { CTDB_TEST_MODE: 'yes', CTDB_BASE: place.directory };
}

function writeCtdbFiles(root: string, place: ServerPlace, all: readonly ServerPlace[]): void {
  const { directory, logs } = place;
  const databases = ['volatile', 'persistent', 'state'].map((kind) => [kind, join(directory, 'db', kind)] as const);
  const folders = ['run', 'var', 'events/legacy', 'events/notification', 'share/events/legacy'];
  for (const folder of [...folders.map((name) => join(directory, name)), ...databases.map(([, path]) => path), logs]) {
    mkdirSync(folder, { recursive: true });
  }
  writeFileSync(join(directory, 'nodes'), all.map(({ address }) => `${address}\n`).join(''));
  writeFileSync(join(directory, 'public_addresses'), '');
  for (const file of ['functions', 'notify.sh']) copyFileSync(`/etc/ctdb/${file}`, join(directory, file));
  const sections: [string, string[]][] = [
    ['logging', [`location = file:${place.daemonLog}`, 'log level = NOTICE']],
    ['cluster', [`cluster lock = ${join(root, 'state', 'ctdb.lock')}`, `node address = ${place.address}`]],
    ['database', databases.map(([kind, path]) => `${kind} database directory = ${path}`)],
  ];
  const text = sections.map(([name, lines]) => `[${name}]\n${lines.map((line) => `\t${line}\n`).join('')}`).join('');
  writeFileSync(place.daemonConfig, text);
}

async function mustServe(place: ServerPlace, serves: () => Promise<boolean>): Promise<void> {
  if (await waitUntil(serves, START_MILLIS_MAX, 200)) return;
  const log = readFileSync(place.daemonLog, 'utf8').trim().split('\n').slice(-12).join('\n');
  throw new LabError(`${place.name} does not serve; the end of its log:\n${log}`);
}

/** The sockets of a system's daemons, in the order of their numbers. */
export function sockets(root: string, system: System): string[] {
  return places(root, system).map(({ socket }) => socket);
}
