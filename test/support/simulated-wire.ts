/**
 * A wire between servers that loses, doubles, delays and swaps frames and can be cut, all from a seed: the third
 * adapter of the interconnect, for tests and the simulator. It carries frame bodies with the sender's incarnation, as
 * a real interconnect does above its seal. Frames on one path keep their order unless a fault swaps them.
 */
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import type { Micros } from '../../src/core/effects.js';
import type { SimulatedTime } from './simulated-time.js';

export interface WireFaults {
  lossProbability: number;
  duplicateProbability: number;
  /** Chance that a frame may be overtaken: it takes up to `reorderMicrosMax` longer. */
  reorderProbability: number;
  reorderMicrosMax: Micros;
  delayMicrosMin: Micros;
  delayMicrosMax: Micros;
}

export const PERFECT_WIRE: WireFaults = {
  lossProbability: 0,
  duplicateProbability: 0,
  reorderProbability: 0,
  reorderMicrosMax: 0,
  delayMicrosMin: 50,
  delayMicrosMax: 50,
};

export type WireReceiver = (from: NodeId, incarnation: Incarnation, body: Uint8Array) => void;

/** What became of a frame, for traces. */
export type WireFate = 'sent' | 'lost' | 'cut' | 'nobody';

export class SimulatedWire {
  faults: WireFaults;
  readonly totals = { sent: 0, lost: 0, doubled: 0, swapped: 0, cut: 0 };
  /** Called for each frame with what will become of it. */
  onSend: ((from: NodeId, to: NodeId, body: Uint8Array, fate: WireFate) => void) | null = null;
  /** Asked for each frame; true loses it. For hand-written losses. */
  loseIf: ((from: NodeId, to: NodeId, body: Uint8Array) => boolean) | null = null;
  private readonly receivers = new Map<NodeId, WireReceiver>();
  private readonly cuts = new Set<string>();
  private readonly lastArrival = new Map<string, Micros>();

  constructor(
    private readonly time: SimulatedTime,
    private readonly prng: Prng,
    faults: WireFaults = PERFECT_WIRE,
  ) {
    this.faults = faults;
  }

  attach(node: NodeId, receiver: WireReceiver): void {
    this.receivers.set(node, receiver);
  }

  detach(node: NodeId): void {
    this.receivers.delete(node);
  }

  /** Cuts the path in one direction. */
  cut(from: NodeId, to: NodeId): void {
    this.cuts.add(`${from}>${to}`);
  }

  /** Separates a server from all others, both ways. */
  isolate(node: NodeId, others: readonly NodeId[]): void {
    for (const other of others) {
      if (other === node) continue;
      this.cut(node, other);
      this.cut(other, node);
    }
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  heal(): void {
    this.cuts.clear();
  }

  send(from: NodeId, incarnation: Incarnation, to: NodeId, body: Uint8Array): void {
    this.totals.sent++;
    const fate = this.fateOf(from, to, body);
    this.onSend?.(from, to, body, fate);
    if (fate !== 'sent') {
      if (fate === 'lost') this.totals.lost++;
      if (fate === 'cut') this.totals.cut++;
      return;
    }
    this.deliverLater(from, incarnation, to, body);
    if (this.prng.chance(this.faults.duplicateProbability)) {
      this.totals.doubled++;
      this.deliverLater(from, incarnation, to, body);
    }
  }

  private fateOf(from: NodeId, to: NodeId, body: Uint8Array): WireFate {
    if (this.cuts.has(`${from}>${to}`)) return 'cut';
    if (this.loseIf?.(from, to, body) === true) return 'lost';
    if (this.prng.chance(this.faults.lossProbability)) return 'lost';
    return 'sent';
  }

  private deliverLater(from: NodeId, incarnation: Incarnation, to: NodeId, body: Uint8Array): void {
    const { delayMicrosMin, delayMicrosMax, reorderProbability, reorderMicrosMax } = this.faults;
    const delay = delayMicrosMin + this.prng.below(delayMicrosMax - delayMicrosMin + 1);
    const path = `${from}>${to}`;
    let arrival = this.time.now + delay;
    if (reorderProbability > 0 && this.prng.chance(reorderProbability)) {
      this.totals.swapped++;
      arrival += this.prng.below(reorderMicrosMax + 1);
    } else {
      arrival = Math.max(arrival, this.lastArrival.get(path) ?? 0);
      this.lastArrival.set(path, arrival);
    }
    // bytes of its own: the receiver may rely on them only during the call, and a frame may arrive twice
    const copy = Uint8Array.prototype.slice.call(body);
    this.time.after(arrival - this.time.now, () => {
      if (this.cuts.has(path)) {
        this.totals.cut++;
        return;
      }
      this.receivers.get(to)?.(from, incarnation, copy);
      // whoever kept a view of the bytes shall notice
      copy.fill(0xee);
    });
  }
}
