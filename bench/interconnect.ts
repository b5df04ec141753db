/**
 * What a second interface per server costs the interconnect: round trips, frames per second and processor time between
 * two processes over raw Ethernet, by one interface, by two, and by two of which one is down, in turns. `node
 * dist/bench/interconnect.js [ROUNDS]`, as root. Prints a table in Markdown. Removes the interfaces that it made.
 */
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus, loadavg, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { incarnation, nodeId } from '../src/base/ids.js';
import { Pump } from '../src/host/pump.js';
import { LabError, messageOf } from '../src/lab/errors.js';
import { pause, run, tryRun } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';

const ROUNDS_DEFAULT = 9;
const ROUND_MILLIS = 1000;
const WARM_MILLIS = 200;
/** A frame as a move of a record makes them, and a full one. */
const SMALL_BYTES = 200;
const FULL_BYTES = 1400;
/** As many as the link layer has under way at most. */
const WINDOW_FRAMES = 64;
/** Received frames for one acknowledgement, as the link layer does it. */
const ACK_FRAMES = 8;
const ASKER = nodeId(0);
const ANSWERER = nodeId(1);

/** Each way is a veth pair: one end for each process. */
const PAIRS = [['smbpib0', 'smbpib1'], ['smbpib2', 'smbpib3']] as const;

const MODES = ['one interface', 'two interfaces', 'two, one of them down'] as const;
type Mode = (typeof MODES)[number];
const waysOf = (mode: Mode): number => (mode === 'one interface' ? 1 : 2);

type Work = 'round trips' | 'stream';

/** What the parent tells the child, and the child answers. */
interface Job {
  ways: number;
  work: Work;
  incarnation: number;
}

interface Used {
  cpuMicros: number;
  wakes: number;
  batches: number;
}

interface Sample {
  perSecond: number;
  medianMicros: number;
  p99Micros: number;
  /** Of both processes, for one frame and its answer, or for one frame of a stream. */
  cpuMicros: number;
  wakes: number;
  batches: number;
}

type OnFrame = (body: Uint8Array) => void;

function openPump(self: typeof ASKER, { ways, incarnation: number }: Job, onFrame: OnFrame): Pump {
  const peer = self === ASKER ? ANSWERER : ASKER;
  const unexpected = (): void => {
    throw new LabError('there is no gate');
  };
  return new Pump({
    interconnect: {
      channel: {
        self, members: [ASKER, ANSWERER], incarnation: incarnation(number), poolName: 'bench',
        poolKey: Buffer.alloc(32, 7),
      },
      transport: {
        kind: 'ethernet',
        ways: PAIRS.slice(0, ways).map((pair) => ({ interface: pair[self] ?? '', peers: [peer] })),
      },
    },
    listener: {
      clientOpened: unexpected,
      clientPacket: unexpected,
      clientClosed: unexpected,
      frame: (_peer, _incarnation, body) => onFrame(body),
      endOfBatch: () => Infinity,
    },
  });
}

function used(pump: Pump): Used {
  const { user, system } = process.cpuUsage();
  const counters = pump.counters();
  return { cpuMicros: user + system, wakes: counters['loop.wakes'] ?? 0, batches: counters['loop.batches'] ?? 0 };
}

/** The other process: answers each frame, or acknowledges every few. */
function answer(): void {
  let pump: Pump | null = null;
  process.on('message', (message: Job | 'used' | 'close') => {
    if (message === 'used') return void process.send?.(pump === null ? null : used(pump));
    if (message === 'close') {
      pump?.close();
      pump = null;
      return void process.send?.('closed');
    }
    let received = 0;
    const every = message.work === 'stream' ? ACK_FRAMES : 1;
    const reply = Buffer.alloc(message.work === 'stream' ? 40 : SMALL_BYTES);
    const opened = openPump(ANSWERER, message, () => {
      if (++received % every === 0) opened.send(ASKER, reply);
    });
    pump = opened;
    process.send?.('open');
  });
  process.on('disconnect', () => process.exit(0));
}

async function ask<T>(child: ChildProcess, message: Job | 'used' | 'close'): Promise<T> {
  const answered = once(child, 'message') as Promise<[T]>;
  child.send(message);
  return (await answered)[0];
}

/** Sends as the work wants it until told to stop. */
class Asker {
  readonly micros: number[] = [];
  readonly pump: Pump;
  private readonly body: Buffer;
  private sentAt = 0;
  private underWay = 0;
  private isOver = false;
  sent = 0;

  constructor(job: Job) {
    this.body = Buffer.alloc(job.work === 'stream' ? FULL_BYTES : SMALL_BYTES);
    this.pump = openPump(ASKER, job, () => {
      if (job.work === 'stream') this.stream(ACK_FRAMES);
      else this.answered();
    });
  }

  begin(work: Work): void {
    if (work === 'stream') this.stream(0);
    else this.trip();
    this.pump.flush();
  }

  stop(): void {
    this.isOver = true;
  }

  private trip(): void {
    if (this.isOver) return;
    this.sent++;
    this.sentAt = Number(process.hrtime.bigint()) / 1000;
    this.pump.send(ANSWERER, this.body);
  }

  private answered(): void {
    this.micros.push(Number(process.hrtime.bigint()) / 1000 - this.sentAt);
    this.trip();
  }

  private stream(acknowledged: number): void {
    this.underWay -= acknowledged;
    while (!this.isOver && this.underWay < WINDOW_FRAMES) {
      this.underWay++;
      this.sent++;
      this.pump.send(ANSWERER, this.body);
    }
  }
}

async function measure(child: ChildProcess, mode: Mode, work: Work, number: number): Promise<Sample> {
  const job: Job = { ways: waysOf(mode), work, incarnation: number };
  await run('ip', ['link', 'set', PAIRS[1][1], mode === 'two, one of them down' ? 'down' : 'up']);
  await ask(child, job);
  const asker = new Asker(job);
  asker.begin(work);
  await pause(WARM_MILLIS);
  const there = await ask<Used>(child, 'used');
  const here = used(asker.pump);
  const began = process.hrtime.bigint();
  const [sentBefore, tripsBefore] = [asker.sent, asker.micros.length];
  await pause(ROUND_MILLIS);
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const count = asker.sent - sentBefore;
  const hereAfter = used(asker.pump);
  const thereAfter = await ask<Used>(child, 'used');
  asker.stop();
  asker.pump.close();
  await ask(child, 'close');
  // a frame that is lost ends the work: nobody repairs it here
  if (count === 0) throw new LabError(`${work} by ${mode}: nothing arrives any more; try again on a quieter machine`);
  const trips = asker.micros.slice(tripsBefore).sort((a, b) => a - b);
  const both = (name: keyof Used): number => (hereAfter[name] - here[name] + thereAfter[name] - there[name]) / count;
  return {
    perSecond: count / seconds,
    medianMicros: trips[Math.floor(trips.length / 2)] ?? 0,
    p99Micros: trips[Math.floor(trips.length * 0.99)] ?? 0,
    cpuMicros: both('cpuMicros'),
    wakes: both('wakes'),
    batches: both('batches'),
  };
}

async function removeInterfaces(): Promise<void> {
  for (const [end] of PAIRS) await tryRun('ip', ['link', 'del', end]);
}

async function makeInterfaces(): Promise<void> {
  await removeInterfaces();
  for (const [end, other] of PAIRS) {
    await run('ip', ['link', 'add', end, 'type', 'veth', 'peer', 'name', other]);
    for (const name of [end, other]) await run('ip', ['link', 'set', name, 'up']);
  }
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function row(work: Work, mode: Mode, samples: readonly Sample[]): string {
  const of = (name: keyof Sample): number => median(samples.map((one) => one[name]));
  const trips = work === 'stream' ? ['-', '-'] : [of('medianMicros').toFixed(1), of('p99Micros').toFixed(1)];
  const figures = [of('cpuMicros').toFixed(1), of('wakes').toFixed(2), of('batches').toFixed(2)];
  return `| ${[work, mode, Math.round(of('perSecond')), ...trips, ...figures].join(' | ')} |`;
}

async function main(): Promise<void> {
  const rounds = Number(process.argv[2] ?? ROUNDS_DEFAULT);
  if (!Number.isInteger(rounds) || rounds < 1) throw new LabError('ROUNDS must be a whole number from 1');
  const child = fork(fileURLToPath(import.meta.url), ['--answer']);
  const results = new Map<string, Sample[]>();
  let number = Date.now();
  const clean = async (): Promise<void> => {
    if (child.connected) child.disconnect();
    await removeInterfaces();
  };
  await cleaningUpOnSignal(async () => {
    try {
      await makeInterfaces();
      for (let round = 0; round < rounds; round++) {
        const order = round % 2 === 0 ? MODES : MODES.toReversed();
        for (const work of ['round trips', 'stream'] as const) {
          for (const mode of order) {
            const sample = await measure(child, mode, work, ++number);
            const key = `${work} ${mode}`;
            results.set(key, [...(results.get(key) ?? []), sample]);
          }
        }
      }
    } finally {
      await clean();
    }
  }, clean);
  const lines = [
    `Linux ${release()}, Node ${process.version}, ${cpus().length} processors, load ${loadavg()[0]?.toFixed(1)}, `
      + `${rounds} rounds; microseconds`,
    '',
    '| work | by | per s | median | p99 | processor time | wakes | batches |',
    '|---|---|---|---|---|---|---|---|',
    ...(['round trips', 'stream'] as const).flatMap((work) =>
      MODES.map((mode) => row(work, mode, results.get(`${work} ${mode}`) ?? []))),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

if (process.argv[2] === '--answer') answer();
else {
  main().catch((error: unknown) => {
    process.stderr.write(`interconnect: ${messageOf(error)}\n`);
    process.exitCode = 1;
  });
}
