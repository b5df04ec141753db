/**
 * `node dist/bench/round-trips.js`: for how many requests to smbpoold an smbd blocks its whole process, operation by
 * operation, without the VFS module and with it; and how often an open waited outside of smbd's event loop instead.
 * From the daemons' own counters, on a lab of three. Prints a table in Markdown. Leaves nothing behind.
 */
import { daemonStatus } from '../src/lab/admin.js';
import { LabError, messageOf } from '../src/lab/errors.js';
import { Lab } from '../src/lab/lab.js';
import { labOptions } from '../src/lab/options.js';
import { pause } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { SmbClient } from '../src/lab/smb-client.js';

const ROOT = '/tmp/smbpool-round-trips';
/** Other processes of an smbd ask now and then, too; the median of so many leaves them out. */
const REPETITIONS = 9;
/** The answer to the client is out before the last report of the module is in. */
const SETTLE_MILLIS = 30;
/** Longer than any record stays after its use. */
const APART_MILLIS = 60;

/** The server that is counted, and another one. */
const COUNTED = 1;
const OTHER = 0;

interface Clients {
  counted: SmbClient;
  other: SmbClient;
}

interface Operation {
  title: string;
  /** What is done before the count begins. */
  before?: (clients: Clients, path: string) => Promise<number>;
  /** What is counted; gets what `before` returned. */
  act: (clients: Clients, path: string, handle: number) => Promise<unknown>;
}

async function opened(client: SmbClient, path: string, how = {}): Promise<number> {
  return (await client.mustOpen(path, how)).handle;
}

async function touched(client: SmbClient, path: string, how = {}): Promise<void> {
  await client.closeHandle(await opened(client, path, how));
}

async function succeeded(answer: Promise<{ status: string }>): Promise<void> {
  const { status } = await answer;
  if (status !== 'OK') throw new LabError(`an operation that is counted failed with ${status}`);
}

const RANGE = { offset: 0, length: 10 };

/** Both servers have used the file before; the one named last. */
async function lastUsed(clients: Clients, path: string, last: keyof Clients, how = {}): Promise<number> {
  const first = last === 'other' ? 'counted' : 'other';
  await touched(clients[first], path, how);
  await pause(APART_MILLIS);
  await touched(clients[last], path, how);
  return 0;
}

/** Opens the file on both, locks and unlocks on the one named, and returns the counted one's handle. */
async function lockedLast({ counted, other }: Clients, path: string, last: keyof Clients): Promise<number> {
  const handles = { counted: await opened(counted, path), other: await opened(other, path) };
  const client = { counted, other }[last];
  await succeeded(client.lock(handles[last], RANGE));
  await succeeded(client.lock(handles[last], { ...RANGE, unlock: true }));
  return handles.counted;
}

const OPERATIONS: Operation[] = [
  { title: 'create a new file', act: ({ counted }, path) => counted.mustOpen(path, { disposition: 'create' }) },
  {
    title: 'open, last used on the same server',
    before: (clients, path) => lastUsed(clients, path, 'counted'),
    act: ({ counted }, path) => counted.mustOpen(path),
  },
  {
    title: 'open, last used on another server',
    before: (clients, path) => lastUsed(clients, path, 'other'),
    act: ({ counted }, path) => counted.mustOpen(path),
  },
  {
    title: 'open with a lease RWH, last used on another server',
    before: (clients, path) => lastUsed(clients, path, 'other', { lease: 'RWH' }),
    act: ({ counted }, path) => counted.mustOpen(path, { lease: 'RWH' }),
  },
  {
    title: 'open, held open on another server',
    before: async ({ counted, other }, path) => {
      await touched(counted, path);
      await pause(APART_MILLIS);
      return opened(other, path);
    },
    act: ({ counted }, path) => counted.mustOpen(path),
  },
  {
    title: 'close, last opened on the same server',
    before: ({ counted }, path) => opened(counted, path),
    act: ({ counted }, _path, handle) => succeeded(counted.closeHandle(handle)),
  },
  {
    title: 'close, last opened on another server',
    before: async ({ counted, other }, path) => {
      const handle = await opened(counted, path);
      await pause(APART_MILLIS);
      await opened(other, path);
      return handle;
    },
    act: ({ counted }, _path, handle) => succeeded(counted.closeHandle(handle)),
  },
  {
    title: 'lock, last locked on the same server',
    before: (clients, path) => lockedLast(clients, path, 'counted'),
    act: ({ counted }, _path, handle) => succeeded(counted.lock(handle, RANGE)),
  },
  {
    title: 'lock, last locked on another server',
    before: (clients, path) => lockedLast(clients, path, 'other'),
    act: ({ counted }, _path, handle) => succeeded(counted.lock(handle, RANGE)),
  },
];

/** Of one operation; medians. */
interface Counts {
  /** Calls for records: smbd blocks. */
  calls: number;
  /** Questions whether a process of another server lives: smbd blocks. */
  controls: number;
  /** Opens that waited in the module, while smbd served on. */
  deferred: number;
}

async function counters(lab: Lab): Promise<Counts> {
  const status = await daemonStatus(lab.server(COUNTED).adminSocket);
  if (!status) throw new LabError('smbpoold does not answer');
  const sum = (wanted: (name: string) => boolean): number =>
    Object.entries(status.counters).reduce((total, [name, count]) => total + (wanted(name) ? count : 0), 0);
  return {
    calls: sum((name) => name === 'gate.call.migrate' || name === 'gate.call.fetch'),
    controls: sum((name) => /^gate\.liveness\.(alive|dead|assumed)$/.test(name)),
    deferred: sum((name) => name.startsWith('witness.open.')),
  };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

async function count(lab: Lab, operation: Operation, prefix: string): Promise<Counts> {
  const seen: Counts[] = [];
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    const clients = {
      counted: await SmbClient.connect(lab.server(COUNTED).address),
      other: await SmbClient.connect(lab.server(OTHER).address),
    };
    try {
      const path = `${prefix}-${repetition}.dat`;
      const handle = (await operation.before?.(clients, path)) ?? 0;
      await pause(APART_MILLIS);
      const before = await counters(lab);
      await operation.act(clients, path, handle);
      await pause(SETTLE_MILLIS);
      const after = await counters(lab);
      const difference = (name: keyof Counts): number => after[name] - before[name];
      seen.push({ calls: difference('calls'), controls: difference('controls'), deferred: difference('deferred') });
    } finally {
      for (const client of Object.values(clients)) client.close();
    }
  }
  const all = (name: keyof Counts): number => median(seen.map((one) => one[name]));
  return { calls: all('calls'), controls: all('controls'), deferred: all('deferred') };
}

async function countAll(module: boolean): Promise<Counts[]> {
  const options = labOptions({ root: ROOT, fresh: true, module });
  return cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(options);
      try {
        const all: Counts[] = [];
        for (const [index, operation] of OPERATIONS.entries()) all.push(await count(lab, operation, `trips-${index}`));
        return all;
      } finally {
        await lab.down();
        lab.wipe();
      }
    },
    () => Lab.interrupt(),
  );
}

async function main(): Promise<void> {
  const [without, withModule] = [await countAll(false), await countAll(true)];
  const lines = [
    '| operation | without the module: blocking | with it: blocking | with it: waits outside |',
    '|---|---|---|---|',
  ];
  const blocking = (counts: Counts | undefined): string => {
    if (!counts) return '-';
    const { calls, controls } = counts;
    return controls === 0 ? `${calls}` : `${calls + controls} (${controls} of them whether a process lives)`;
  };
  for (const [index, { title }] of OPERATIONS.entries()) {
    const cells = [title, blocking(without[index]), blocking(withModule[index]), withModule[index]?.deferred ?? '-'];
    lines.push(`| ${cells.join(' | ')} |`);
  }
  process.stdout.write(`${lines.join('\n')}\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`round-trips: ${messageOf(error)}\n`);
  process.exitCode = 1;
});
