/**
 * What the VFS module itself costs an open whose records are home, in a pool at work: one client opens and closes the
 * same warm file again and again, and after each open the module's own counters are read from the ring in smbd's memory
 * (SMBPOOL_CLIENT_OPENS_HOME, SMBPOOL_CLIENT_HOME_NS: the time between the module's own first and last line, without
 * what it calls). `node dist/bench/module-cost.js [OPENS]`, as root.
 */
import { openSync, readFileSync, readSync } from 'node:fs';
import { LabError, messageOf } from '../src/lab/errors.js';
import { Lab } from '../src/lab/lab.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { labOptions } from '../src/lab/options.js';
import { run } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { SmbClient } from '../src/lab/smb-client.js';

const ROOT = '/tmp/smbpool-cost';
const OPENS_DEFAULT = 3000;
/** Not counted: smbd's own caches and the processor's fill. */
const WARM_UP = 200;
/** native/shared/smbpool_layout.h: the client's counters in its ring. */
const COUNTERS_AT = 768;
const OPENS_HOME = 0;
const HOME_NS = 10;

/** Reads the module's counters of the server's only smbd that has a ring mapped. */
async function ringReader(place: ServerPlace, daemon: number): Promise<() => { opens: number; ns: number }> {
  const pids = (await run('ip', ['netns', 'pids', place.namespace])).trim().split(/\s+/);
  for (const pid of pids.filter((one) => Number(one) !== daemon)) {
    let maps = '';
    try {
      maps = readFileSync(`/proc/${pid}/maps`, 'latin1');
    } catch {
      continue;
    }
    const line = maps.split('\n').find((one) => one.includes('smbpool-ring'));
    if (line === undefined) continue;
    const memory = openSync(`/proc/${pid}/mem`, 'r');
    const start = parseInt(line.split('-')[0] ?? '', 16);
    const word = (index: number): number => {
      const bytes = Buffer.alloc(8);
      readSync(memory, bytes, 0, 8, start + COUNTERS_AT + 8 * index);
      return Number(bytes.readBigUInt64LE());
    };
    return () => ({ opens: word(OPENS_HOME), ns: word(HOME_NS) });
  }
  throw new LabError('no smbd has the module attached');
}

async function measure(lab: Lab, opens: number): Promise<void> {
  const client = await SmbClient.connect(lab.server(0).address);
  const file = 'warm.dat';
  const once = async (): Promise<void> => void (await client.closeHandle((await client.mustOpen(file)).handle));
  for (let i = 0; i < WARM_UP; i++) await once();
  const read = await ringReader(lab.server(0), lab.process('smbpoold', 0)?.pid ?? 0);
  const costs: number[] = [];
  for (let i = 0; i < opens; i++) {
    const before = read();
    await once();
    const after = read();
    if (after.opens === before.opens + 1) costs.push(after.ns - before.ns);
  }
  client.close();
  costs.sort((a, b) => a - b);
  const at = (fraction: number): string => ((costs[Math.ceil(costs.length * fraction) - 1] ?? 0) / 1000).toFixed(2);
  const mean = costs.reduce((sum, one) => sum + one, 0) / costs.length / 1000;
  const words = `mean ${mean.toFixed(2)}, p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} microseconds`;
  process.stdout.write(`${costs.length} of ${opens} opens were home; the module itself: ${words}\n`);
}

async function main(): Promise<void> {
  const opens = Number(process.argv[2] ?? OPENS_DEFAULT);
  if (!Number.isSafeInteger(opens) || opens < 1) throw new LabError('OPENS must be a number of opens, 1 or more');
  await cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(labOptions({ root: ROOT, fresh: true, servers: 3 }));
      try {
        await measure(lab, opens);
      } finally {
        await lab.down();
        lab.wipe();
      }
    },
    () => Lab.interrupt(),
  );
}

main().catch((error: unknown) => {
  process.stderr.write(`module-cost: ${messageOf(error)}\n`);
  process.exitCode = 1;
});
