/**
 * Deadlines inside the core: a binary heap of (time, action). Actions run in the order of their times, equal times in
 * the order they were set, when the node is stepped with a `now` at or past them. Nothing here reads a clock.
 */
import type { Micros } from './effects.js';

/** A set deadline; `cancel` may be called at any time, also after it ran. */
export interface Timer {
  cancel(): void;
}

class Entry implements Timer {
  constructor(
    readonly at: Micros,
    readonly order: number,
    public action: (() => void) | null,
  ) {}

  cancel(): void {
    this.action = null;
  }
}

export class Timers {
  private readonly heap: Entry[] = [];
  private order = 0;

  at(time: Micros, action: () => void): Timer {
    const entry = new Entry(time, this.order++, action);
    this.push(entry);
    return entry;
  }

  /** When the next action is due; Infinity when none is set. */
  deadline(): Micros {
    this.dropCancelled();
    return this.heap[0]?.at ?? Infinity;
  }

  /** Runs the first action if it is due; false when none is. */
  runOne(now: Micros): boolean {
    this.dropCancelled();
    const first = this.heap[0];
    if (first === undefined || first.at > now) return false;
    this.pop();
    first.action?.();
    return true;
  }

  /** Runs what is due. Actions set meanwhile for a time not after `now` run too. */
  run(now: Micros): void {
    while (this.runOne(now)) {
      // each turn runs one action
    }
  }

  private dropCancelled(): void {
    while (this.heap[0] !== undefined && this.heap[0].action === null) this.pop();
  }

  private push(entry: Entry): void {
    const heap = this.heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  private pop(): void {
    const heap = this.heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
