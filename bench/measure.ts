/**
 * Runs workloads against the systems in turn (A B A B ...) and keeps every result. Ratios are taken between neighbours,
 * never between figures of different runs: the same machine is half as fast a minute later.
 */
import { LabError } from '../src/lab/errors.js';
import { tryRun } from '../src/lab/run.js';
import { pidsIn, processorSeconds } from './network.js';
import type { System } from './places.js';
import { places } from './places.js';
import type { ClientResult, Workload } from './workloads.js';
import { wrong } from './workloads.js';

/** Beyond its own time a client needs a moment to start and to end; a contended one much more. */
const CLIENT_EXTRA_MILLIS_MAX = 60_000;

export interface Sample extends ClientResult {
  /** Processor time that the system's servers used, per operation; clients not included. */
  serverMicrosPerOperation: number;
}

export type Samples = Map<System, Sample[]>;

export interface Plan {
  root: string;
  systems: readonly System[];
  repetitions: number;
  seconds: number;
  seed: number;
  processors: string;
  /** The client's command line for one run. */
  command(workload: Workload, system: System, seed: number): string[];
}

/** One workload, all repetitions. */
export async function measure(plan: Plan, workload: Workload): Promise<Samples> {
  const samples: Samples = new Map(plan.systems.map((system) => [system, []]));
  for (let repetition = 0; repetition < plan.repetitions; repetition++) {
    // every second round the other way round, so that nobody is always first
    const order = repetition % 2 === 0 ? plan.systems : plan.systems.toReversed();
    for (const system of order) samples.get(system)!.push(await once(plan, workload, system, plan.seed + repetition));
  }
  return samples;
}

async function once(plan: Plan, workload: Workload, system: System, seed: number): Promise<Sample> {
  const command = plan.command(workload, system, seed);
  const namespaces = places(plan.root, system).map(({ namespace }) => namespace);
  const before = await usedIn(namespaces);
  const timeoutMs = plan.seconds * 1000 + CLIENT_EXTRA_MILLIS_MAX;
  const result = await tryRun('taskset', ['-c', plan.processors, ...command], { timeoutMs });
  const used = (await usedIn(namespaces)) - before;
  const what = `workload ${workload.name} on ${system}`;
  if (result.status !== 0) {
    const why = result.timedOut ? 'did not end' : result.stderr.trim();
    throw new LabError(`${what} failed: ${why}`);
  }
  const parsed = JSON.parse(result.stdout) as ClientResult;
  const problem = wrong(parsed);
  if (problem !== null) throw new LabError(`${what} gave a wrong result: ${problem}`);
  // the client warms up before it counts: charge what was measured only
  const perSecond = used / (parsed.seconds + (parsed.warmUpSeconds ?? WARM_UP_SECONDS));
  return { ...parsed, serverMicrosPerOperation: (perSecond * 1e6 * parsed.seconds) / parsed.operations };
}

/** Of the client that does not tell; the time to start and end is shorter than the resolution of processor time. */
const WARM_UP_SECONDS = 0.15;

async function usedIn(namespaces: readonly string[]): Promise<number> {
  const pids = await Promise.all(namespaces.map((namespace) => pidsIn(namespace)));
  return processorSeconds(pids.flat());
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export interface Ratio {
  median: number;
  min: number;
  max: number;
}

/** `figure` of `other` over that of `ours`, repetition by repetition. */
export function ratio(ours: readonly Sample[], other: readonly Sample[], figure: (sample: Sample) => number): Ratio {
  const ratios = ours.map((sample, i) => figure(other[i]!) / figure(sample));
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) };
}
