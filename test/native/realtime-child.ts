/**
 * A process of realtime.test: takes real-time priority, does what its argument says, and tells as one line of JSON what
 * became of it. A process of its own, because priority and signals belong to the whole process.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { loadNative } from '../../src/host/native.js';

const RUN_MILLIS = 1_500;
const native = loadNative();

/** Linux, proc(5): of the fields behind the name these are rt_priority and policy. */
function scheduling(thread: number): { priority: number; policy: number } {
  const text = readFileSync(`/proc/self/task/${thread}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { priority: Number(fields[37]), policy: Number(fields[38]) };
}

const threads = (): number[] => readdirSync('/proc/self/task').map(Number);

function runWithoutRest(): void {
  for (const end = performance.now() + RUN_MILLIS; performance.now() < end; );
}

/** A loop that never sleeps, but makes turns: its timer is always due. */
async function runInTurns(): Promise<void> {
  const pump = new native.Pump({ inBytes: 65_536, outBytes: 65_536, onBatch: () => 0 });
  new Float64Array(pump.controlBuffer)[1] = 1;
  pump.flush(0);
  await sleep(RUN_MILLIS);
  pump.close();
}

const helpers = (await readdir('/proc/self/task')).map(Number);
let refused: string | undefined;
try {
  native.realtimeStart(helpers);
} catch (error) {
  refused = (error as NodeJS.ErrnoException).code ?? String(error);
}
const before = scheduling(process.pid);
const what = process.argv[2];
if (what === 'run') runWithoutRest();
if (what === 'turns') await runInTurns();
if (what === 'again') {
  runWithoutRest();
  native.realtimeStart(helpers);
}
let later: unknown;
if (what === 'threads') {
  const worker = new Worker('setTimeout(() => undefined, 1e6)', { eval: true });
  await new Promise((resolve) => void worker.once('online', resolve));
  later = threads().filter((thread) => !helpers.includes(thread)).map(scheduling);
  await worker.terminate();
}
const others = helpers.filter((thread) => thread !== process.pid).map(scheduling);
const result = { refused, before, after: scheduling(process.pid), others, later, look: native.realtimeLook() };
process.stdout.write(`${JSON.stringify(result)}\n`);
native.realtimeStop();
