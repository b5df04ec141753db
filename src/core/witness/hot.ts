/**
 * Counts what is used most, per file and interval: opens, moves of its records, waits. Two intervals are kept, the
 * running one and the last whole one, which is shown. Bounded: in one interval only so many files are counted. Used
 * by core/witness.
 */
import { Histogram } from '../../base/histogram.js';
import type { FileId } from '../../wire/ring-ops.js';
import { fileIdText } from '../../wire/ring-ops.js';
import type { HotFile } from '../../wire/locks.js';
import type { Micros } from '../effects.js';

/** Length of an interval: short enough to follow a screen, long enough for a rate. */
export const HOT_INTERVAL_MICROS = 2_000_000;
/** Files counted in one interval; what comes after is not hot anyway. */
const FILES_MAX = 4096;
/** Files shown. */
const SHOWN_MAX = 100;

interface Counts {
  path: string;
  share: string;
  opens: number;
  moves: number;
  waits: Histogram;
}

export class HotFiles {
  private running = new Map<FileId, Counts>();
  private last = new Map<FileId, Counts>();
  private startedAt: Micros = 0;

  constructor(private readonly now: () => Micros) {}

  opened(file: FileId, path: string, share: string): void {
    const counts = this.countsOf(file);
    if (counts === null) return;
    counts.opens += 1;
    counts.path = path;
    counts.share = share;
  }

  moved(file: FileId): void {
    const counts = this.countsOf(file);
    if (counts !== null) counts.moves += 1;
  }

  waited(file: FileId, micros: Micros): void {
    this.countsOf(file)?.waits.add(micros);
  }

  /** The hottest files of the last whole interval. */
  list(server: number, holdersOf: (file: FileId) => number): HotFile[] {
    this.turn();
    const files = [...this.last].map(([file, counts]): HotFile => {
      const waits = counts.waits.summary();
      return {
        path: counts.path,
        share: counts.share,
        fileId: fileIdText(file),
        opens: counts.opens,
        moves: counts.moves,
        waits: waits.count,
        waitMedianMicros: waits.median,
        waitP99Micros: waits.p99,
        servers: [server],
        holders: holdersOf(file),
      };
    });
    return files.sort((a, b) => b.opens + b.moves - a.opens - a.moves).slice(0, SHOWN_MAX);
  }

  private countsOf(file: FileId): Counts | null {
    this.turn();
    let counts = this.running.get(file);
    if (counts === undefined) {
      if (this.running.size >= FILES_MAX) return null;
      const before = this.last.get(file);
      counts = { path: before?.path ?? '', share: before?.share ?? '', opens: 0, moves: 0, waits: new Histogram() };
      this.running.set(file, counts);
    }
    return counts;
  }

  private turn(): void {
    const elapsed = this.now() - this.startedAt;
    if (elapsed < HOT_INTERVAL_MICROS) return;
    this.last = elapsed < 2 * HOT_INTERVAL_MICROS ? this.running : new Map<FileId, Counts>();
    this.running = new Map();
    this.startedAt = this.now();
  }
}

/** The pool's list from the servers' lists: counts add up, the worst wait is shown. */
export function mergeHot(lists: readonly (readonly HotFile[])[]): HotFile[] {
  const merged = new Map<string, HotFile>();
  for (const file of lists.flat()) {
    const known = merged.get(file.fileId);
    if (known === undefined) {
      merged.set(file.fileId, { ...file, servers: [...file.servers] });
      continue;
    }
    known.path ||= file.path;
    known.share ||= file.share;
    known.opens += file.opens;
    known.moves += file.moves;
    known.waits += file.waits;
    known.waitMedianMicros = Math.max(known.waitMedianMicros, file.waitMedianMicros);
    known.waitP99Micros = Math.max(known.waitP99Micros, file.waitP99Micros);
    known.servers = [...new Set([...known.servers, ...file.servers])].sort((a, b) => a - b);
    known.holders += file.holders;
  }
  return [...merged.values()].sort((a, b) => b.opens + b.moves - a.opens - a.moves).slice(0, SHOWN_MAX);
}
