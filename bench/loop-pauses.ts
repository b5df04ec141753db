/**
 * How late a loop is that makes garbage, on a busy machine: with ordinary priority, with real-time priority for the
 * loop alone, for the threads it waits for as well, and with a loop that collects garbage without them. `node
 * dist/bench/loop-pauses.js [SECONDS [BUSY]]`, as root; BUSY processes for each processor. Each way in a process of its
 * own.
 */
import { spawnSync } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { loadNative } from '../src/host/native.js';
import { DAEMON_NODE_FLAGS } from '../src/base/node-flags.js';
import { makeBusy } from './busy.js';

const SECONDS_DEFAULT = 12;
const BUSY_DEFAULT = 8;
/** So long the loop wants to sleep between two turns. */
const REST_MILLIS = 2;
/** In a turn: small objects, of which one in so many lives on, until so many live. */
const OBJECTS = 400;
const KEPT_OF = 8;
const KEPT_MAX = 150_000;

/** What has real-time priority, and what Node.js is told. */
const MODES: readonly { name: string; priority: string; flags: readonly string[] }[] = [
  { name: 'none', priority: 'none', flags: [] },
  { name: 'loop', priority: 'loop', flags: [] },
  { name: 'all', priority: 'all', flags: [] },
  { name: 'all, one thread collects', priority: 'all', flags: DAEMON_NODE_FLAGS },
];

async function measure(name: string, mode: string, seconds: number): Promise<void> {
  const native = loadNative();
  const threads = (await readdir('/proc/self/task')).map(Number);
  if (mode !== 'none') native.realtimeStart(mode === 'all' ? threads : []);
  const kept: unknown[] = [];
  const late: number[] = [];
  const end = performance.now() + seconds * 1000;
  for (let count = 0, before = performance.now(); before < end; ) {
    for (let i = 0; i < OBJECTS; i++) {
      const one = { a: [i, count], b: new Uint8Array(200), c: String(i * count) };
      if (i % KEPT_OF === 0) kept[count++ % KEPT_MAX] = one;
    }
    native.realtimeLook();
    await sleep(REST_MILLIS);
    const now = performance.now();
    late.push(now - before - REST_MILLIS);
    before = now;
  }
  late.sort((a, b) => a - b);
  const at = (fraction: number): string => (late[Math.ceil(late.length * fraction) - 1] ?? NaN).toFixed(1);
  process.stdout.write(`| ${name} | ${late.length} | ${at(0.5)} | ${at(0.99)} | ${at(0.999)} | ${at(1)} |\n`);
}

const [first = '', second = `${BUSY_DEFAULT}`] = process.argv.slice(2);
const own = MODES.find(({ name }) => name === first);
if (own !== undefined) await measure(own.name, own.priority, Number(second));
else {
  const stop = makeBusy(Number(second) * cpus().length);
  process.stdout.write('| real time | turns | late: p50 ms | p99 | p99.9 | longest |\n|---|---|---|---|---|---|\n');
  const seconds = first === '' ? `${SECONDS_DEFAULT}` : first;
  for (const { name, flags } of [...MODES, ...MODES]) {
    spawnSync(process.execPath, [...flags, fileURLToPath(import.meta.url), name, seconds], { stdio: 'inherit' });
  }
  stop();
}
