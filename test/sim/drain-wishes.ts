/**
 * What each server may take for the last word on whether it is drained, from the questions that people asked and the
 * answers they got. A question counts from the moment it is asked; when it was answered that it is done, and no other
 * one for that server was under way meanwhile that wanted the opposite, it alone counts.
 */
import type { NodeId } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';

/** A question that is under way, or whose answer left open whether it still is. */
export interface Wish {
  readonly target: NodeId;
  readonly draining: boolean;
  /** Another one was under way at the same time: which of them counts depends on who came last. */
  isContested: boolean;
}

interface Known {
  /** What was settled last. */
  settled: ReadonlySet<boolean>;
  underWay: Set<Wish>;
  /** Since when the outcome is what it is. */
  since: Micros;
}

export class DrainWishes {
  private readonly known = new Map<NodeId, Known>();

  constructor(private readonly now: () => Micros) {}

  begin(target: NodeId, draining: boolean): Wish {
    const wish: Wish = { target, draining, isContested: false };
    this.change(target, (known) => {
      for (const other of known.underWay) {
        if (other.draining !== draining) other.isContested = wish.isContested = true;
      }
      known.underWay.add(wish);
    });
    return wish;
  }

  /** The server's disk has it. */
  done(wish: Wish): void {
    this.change(wish.target, (known) => {
      known.underWay.delete(wish);
      known.settled = new Set(wish.isContested ? [...known.settled, wish.draining] : [wish.draining]);
    });
  }

  /** It was done or not, and nothing of it is under way any more. */
  mayBeDone(wish: Wish): void {
    this.change(wish.target, (known) => {
      if (known.underWay.delete(wish)) known.settled = new Set([...known.settled, wish.draining]);
    });
  }

  /** It never left the server that was asked. */
  notSent(wish: Wish): void {
    this.change(wish.target, (known) => known.underWay.delete(wish));
  }

  /** Null: it may be either. */
  certain(target: NodeId): boolean | null {
    const possible = this.possible(this.of(target));
    return possible.size === 1 ? possible.has(true) : null;
  }

  /** Whether it was certain at that time, and has not changed since. */
  isCertainSince(target: NodeId, at: Micros, draining: boolean): boolean {
    return this.certain(target) === draining && this.of(target).since < at;
  }

  private of(target: NodeId): Known {
    const known = this.known.get(target);
    if (known !== undefined) return known;
    const fresh: Known = { settled: new Set([false]), underWay: new Set(), since: 0 };
    this.known.set(target, fresh);
    return fresh;
  }

  private possible({ settled, underWay }: Known): Set<boolean> {
    return new Set([...settled, ...[...underWay].map(({ draining }) => draining)]);
  }

  private change(target: NodeId, action: (known: Known) => void): void {
    const known = this.of(target);
    const before = [...this.possible(known)].sort().join();
    action(known);
    if ([...this.possible(known)].sort().join() !== before) known.since = this.now();
  }
}
