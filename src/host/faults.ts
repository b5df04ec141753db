/**
 * An interconnect that loses, doubles and delays frames on purpose, around a real one: a configuration option for tests
 * and for people who want to see that the pool bears it. Faults are drawn from a seed.
 */
import type { NodeId } from '../base/ids.js';
import { Prng } from '../base/prng.js';
import type { Interconnect } from '../ports/interconnect.js';

export interface FaultOptions {
  /** Of the frames sent, 0 to 100. */
  lossPercent?: number;
  duplicatePercent?: number;
  /** Each frame waits a random time up to so many milliseconds, so that frames overtake each other. */
  delayMsMax?: number;
  seed: number;
}

/** Frames held back at one time; more travel at once. Bounds the memory of a delay far beyond what makes sense. */
const DELAYED_FRAMES_MAX = 10_000;

export class FaultyInterconnect implements Interconnect {
  readonly totals = { sent: 0, lost: 0, doubled: 0, delayed: 0 };
  private readonly prng: Prng;
  private readonly delayed = new Set<NodeJS.Timeout>();

  constructor(
    private readonly inner: Interconnect,
    private readonly options: FaultOptions,
  ) {
    this.prng = new Prng(options.seed);
  }

  get frameBodyBytesMax(): number {
    return this.inner.frameBodyBytesMax;
  }

  get receiveFramesMax(): number {
    return this.inner.receiveFramesMax;
  }

  send(peer: NodeId, body: Uint8Array): void {
    const { lossPercent = 0, duplicatePercent = 0 } = this.options;
    this.totals.sent++;
    if (this.prng.chance(lossPercent / 100)) {
      this.totals.lost++;
      return;
    }
    if (this.prng.chance(duplicatePercent / 100)) {
      this.totals.doubled++;
      this.forward(peer, body);
    }
    this.forward(peer, body);
  }

  flush(): void {
    this.inner.flush();
  }

  /** Forgets the frames still held back. */
  close(): void {
    for (const timer of this.delayed) clearTimeout(timer);
    this.delayed.clear();
  }

  private forward(peer: NodeId, body: Uint8Array): void {
    const { delayMsMax = 0 } = this.options;
    const delay = delayMsMax === 0 ? 0 : this.prng.below(delayMsMax + 1);
    if (delay === 0 || this.delayed.size >= DELAYED_FRAMES_MAX) return this.inner.send(peer, body);
    this.totals.delayed++;
    const copy = new Uint8Array(body);
    const timer = setTimeout(() => {
      this.delayed.delete(timer);
      this.inner.send(peer, copy);
      this.inner.flush();
    }, delay);
    this.delayed.add(timer);
  }
}
