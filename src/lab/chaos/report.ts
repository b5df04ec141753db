/**
 * What a chaos run tells at its end: how much was done, how long nothing was, which faults there were.
 */
import Table from 'cli-table3';
import { machineSeconds } from './outages.js';

/** No colours: the output is also read in files and in CI. */
const PLAIN = { head: [], border: [] };

/** How one kind of work was served. */
export class Service {
  count = 0;
  longestAnswer = 0;
  longestGap = 0;
  last = machineSeconds();
  /** Of each that works: for how many seconds it has been with a server that is well. */
  readonly workers: (() => number)[] = [];

  constructor(readonly name: string) {}

  /** One more was answered, after so many seconds. */
  done(seconds: number): void {
    this.count++;
    this.longestAnswer = Math.max(this.longestAnswer, seconds);
    this.noteGap();
  }

  /** Also at the end: what never came is a gap. */
  noteGap(): void {
    const now = machineSeconds();
    this.longestGap = Math.max(this.longestGap, now - this.last);
    this.last = now;
  }
}

export interface Row {
  service: Service;
  unknown: number;
}

const seconds = (value: number): string => `${value.toFixed(2)} s`;

export function workTable(rows: readonly Row[]): string {
  const head = ['work', 'done', 'answer lost', 'longest until done', 'longest without any done'];
  const table = new Table({ head, style: PLAIN });
  for (const { service, unknown } of rows) {
    const { name, count, longestAnswer, longestGap } = service;
    table.push([name, count, unknown, seconds(longestAnswer), seconds(longestGap)]);
  }
  return table.toString();
}

/** 'link down 3, server killed 2'. */
export function countsText(counts: ReadonlyMap<string, number>): string {
  return [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([what, count]) => `${what} ${count}`).join(', ');
}
