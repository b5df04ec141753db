/**
 * The benchmark's network: one bridge, a namespace per server with a veth pair to it, all under names of its own. Also
 * runs programs inside, pinned to the processors that the benchmark uses.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readdirSync } from 'node:fs';
import { LabError } from '../src/lab/errors.js';
import { run, tryRun, waitUntil } from '../src/lab/run.js';
import { BRIDGE, HOST_ADDRESS, PREFIX } from './places.js';

/** Where `ip netns` keeps the names. */
const NAMESPACE_FOLDER = '/run/netns';
const TERMINATE_MILLIS_MAX = 5000;

export async function createBridge(): Promise<void> {
  const network = HOST_ADDRESS.replace(/\d+$/, '0/24');
  const foreign = (await run('ip', ['-4', 'route', 'show', 'root', network])).split('\n').filter((line) => line !== '');
  if (foreign.some((line) => !line.startsWith('default'))) {
    const routes = foreign.join(', ');
    throw new LabError(`this machine already has a route for the benchmark's addresses ${network}: ${routes}`);
  }
  await run('ip', ['link', 'add', 'name', BRIDGE, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']);
  await run('ip', ['addr', 'add', `${HOST_ADDRESS}/24`, 'dev', BRIDGE]);
  await run('ip', ['link', 'set', BRIDGE, 'up']);
}

export async function createNamespace(namespace: string, address: string): Promise<void> {
  const outside = `${namespace}v`;
  await run('ip', ['netns', 'add', namespace]);
  await run('ip', ['link', 'add', outside, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace]);
  await run('ip', ['link', 'set', outside, 'master', BRIDGE, 'up']);
  await run('ip', ['-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0']);
  await run('ip', ['-n', namespace, 'link', 'set', 'eth0', 'up']);
  await run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
}

/** The namespaces of a benchmark that exist now. */
export function namespaces(): string[] {
  if (!existsSync(NAMESPACE_FOLDER)) return [];
  return readdirSync(NAMESPACE_FOLDER).filter((name) => new RegExp(`^${PREFIX}[pcs][0-9]$`).test(name));
}

export async function pidsIn(namespace: string): Promise<number[]> {
  const { stdout } = await tryRun('ip', ['netns', 'pids', namespace]);
  return stdout.split(/\s+/).filter((word) => word !== '').map(Number);
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // ended by itself in the meantime
    }
  }
}

/** Ends everything in the benchmark's namespaces and removes them and the bridge. */
export async function removeNetwork(): Promise<void> {
  for (const namespace of namespaces()) {
    const gone = async () => (await pidsIn(namespace)).length === 0;
    signalAll(await pidsIn(namespace), 'SIGTERM');
    if (!(await waitUntil(gone, TERMINATE_MILLIS_MAX))) signalAll(await pidsIn(namespace), 'SIGKILL');
    await waitUntil(gone, TERMINATE_MILLIS_MAX);
    await tryRun('ip', ['link', 'del', `${namespace}v`]);
    await run('ip', ['netns', 'del', namespace]);
  }
  if (existsSync(`/sys/class/net/${BRIDGE}`)) await run('ip', ['link', 'del', BRIDGE]);
}

export interface Background {
  namespace: string;
  processors: string;
  command: string;
  args: readonly string[];
  outputFile: string;
  environment?: Record<string, string>;
  /** As of nice(1); 0 unless told. */
  nice?: number;
}

/** Starts a program in a namespace, pinned; answers its pid (`ip` and `taskset` become the program). */
export function startIn(what: Background): number {
  const { namespace, processors, command, args, outputFile, environment, nice } = what;
  const output = openSync(outputFile, 'a');
  const before = ['netns', 'exec', namespace, 'taskset', '-c', processors];
  if (nice !== undefined) before.push('nice', '-n', String(nice));
  const child = spawn('ip', [...before, command, ...args], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', output, output],
    env: { ...process.env, ...environment },
  });
  // how it failed is in its output; whoever waits for it to serve notices
  child.on('error', () => undefined);
  child.unref();
  closeSync(output);
  return child.pid ?? 0;
}

const TICKS_PER_SECOND = 100;

/** Processor time that these processes, and the children they waited for, have used, in seconds. */
export function processorSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    try {
      const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
      // the name in parentheses may hold anything: count from its end
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ').map(Number);
      ticks += fields.slice(11, 15).reduce((sum, value) => sum + value, 0);
    } catch {
      // ended: its parent counts it now
    }
  }
  return ticks / TICKS_PER_SECOND;
}
