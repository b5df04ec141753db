/**
 * The results as tables for people and as one object for programs. Ratios say how many times better smbpool is: above 1
 * better, below 1 worse, whatever the figure.
 */
import Table from 'cli-table3';
import type { Sample, Samples } from './measure.js';
import { median, ratio } from './measure.js';
import type { System } from './places.js';
import type { Workload } from './workloads.js';

/** No colours: the output is also read in files and in CI. */
const PLAIN = { head: [], border: [] };

export interface Row {
  workload: Workload;
  samples: Samples;
}

interface Summary {
  operationsPerSecond: number;
  medianMicros: number;
  p99Micros: number;
  /** The worst of all repetitions. */
  maxMicros: number;
  fairness: number;
  serverMicrosPerOperation: number;
}

const perSecond = (sample: Sample): number => sample.operations / sample.seconds;
const medianOf = (sample: Sample): number => sample.latency.medianMicros;
const p99Of = (sample: Sample): number => sample.latency.p99Micros;
const maxOf = (sample: Sample): number => sample.latency.maxMicros;

function summary(samples: readonly Sample[]): Summary {
  return {
    operationsPerSecond: median(samples.map(perSecond)),
    medianMicros: median(samples.map(medianOf)),
    p99Micros: median(samples.map(p99Of)),
    maxMicros: Math.max(...samples.map(maxOf)),
    fairness: median(samples.map((sample) => sample.fairness)),
    serverMicrosPerOperation: median(samples.map((sample) => sample.serverMicrosPerOperation)),
  };
}

/** Three significant digits; thousands and millions short. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (value >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
  if (value >= 100) return String(Math.round(value));
  return value.toPrecision(3);
}

const NAMES: Record<System, string> = { smbpool: 'smbpool', ctdb: 'ctdb', single: 'one smbd' };

function compared({ samples }: Row, other: System) {
  const ours = samples.get('smbpool')!;
  const theirs = samples.get(other)!;
  const operations = ratio(ours, theirs, perSecond);
  return {
    operations: { median: 1 / operations.median, min: 1 / operations.max, max: 1 / operations.min },
    median: ratio(ours, theirs, medianOf),
    p99: ratio(ours, theirs, p99Of),
    max: ratio(ours, theirs, maxOf),
  };
}

/** One line per system and workload, the ratios behind the system that smbpool is compared with. */
export function table(rows: readonly Row[]): string {
  const head = ['', 'system', 'per s', 'median', 'p99', 'max', 'server time', 'fair',
    'x per s (range)', 'x median', 'x p99', 'x max'];
  const output = new Table({ head, style: PLAIN });
  for (const row of rows) {
    const systems = [...row.samples.keys()];
    const title = `${row.workload.title}\n(${row.workload.latencyOf})`;
    systems.forEach((system, index) => {
      const one = summary(row.samples.get(system)!);
      const figures = [one.operationsPerSecond, one.medianMicros, one.p99Micros, one.maxMicros];
      const costs = [figure(one.serverMicrosPerOperation), one.fairness.toFixed(2)];
      const cells = [NAMES[system], ...figures.map(figure), ...costs];
      const first = index === 0 ? [{ content: title, rowSpan: systems.length }] : [];
      output.push([...first, ...cells, ...(system === 'smbpool' ? ['', '', '', ''] : ratioCells(row, system))]);
    });
  }
  return output.toString();
}

function ratioCells(row: Row, other: System): string[] {
  const { operations, median: medians, p99, max } = compared(row, other);
  const range = `${operations.median.toFixed(2)} (${operations.min.toFixed(2)}-${operations.max.toFixed(2)})`;
  return [range, ...[medians, p99, max].map((one) => one.median.toFixed(2))];
}

/** Everything, for --json. */
export function asObject(rows: readonly Row[]): object[] {
  return rows.map((row) => ({
    workload: row.workload.name,
    title: row.workload.title,
    systems: Object.fromEntries(
      [...row.samples].map(([system, samples]) => [system, { ...summary(samples), samples }]),
    ),
    timesBetterThan: Object.fromEntries(
      [...row.samples.keys()].filter((system) => system !== 'smbpool').map((system) => [system, compared(row, system)]),
    ),
  }));
}
