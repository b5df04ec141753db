/**
 * The pool's register in a simulator: linearizable, with revisions, over a network that delays and loses questions and
 * answers; a question may be performed long after who asked gave up.
 */
import type { NodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import type { Micros, RegisterRequest, RegisterResult } from '../../src/core/effects.js';
import type { SimulatedTime } from './simulated-time.js';

export interface RegisterFaults {
  lossProbability: number;
  /** One way. */
  delayMicrosMax: Micros;
  /** Chance that a question or an answer takes up to a second. */
  slowProbability: number;
}

export const PERFECT_REGISTER: RegisterFaults = { lossProbability: 0, delayMicrosMax: 1_000, slowProbability: 0 };
const SLOW_MICROS = 1_000_000;

export class SimulatedRegister {
  faults: RegisterFaults = PERFECT_REGISTER;
  value: Uint8Array | null = null;
  revision = 0;
  /** Nobody reaches it. */
  isAway = false;
  private readonly cut = new Set<NodeId>();
  private lastRevision = 0;

  constructor(
    private readonly time: SimulatedTime,
    private readonly prng: Prng,
    /** A value is there, from this moment on. */
    private readonly committed: (value: Uint8Array) => void,
  ) {}

  /** These servers do not reach it; the others do. */
  setCut(nodes: readonly NodeId[]): void {
    this.cut.clear();
    for (const node of nodes) this.cut.add(node);
  }

  /** As if the data of etcd had been removed. */
  wipe(): void {
    this.value = null;
    this.revision = 0;
    this.lastRevision = 0;
  }

  /** `answer` is called once, by the deadline (true time). */
  request(from: NodeId, request: RegisterRequest, deadline: Micros, answer: (result: RegisterResult) => void): void {
    let isOpen = true;
    const end = (result: RegisterResult): void => {
      if (!isOpen) return;
      isOpen = false;
      answer(result);
    };
    this.time.after(deadline, () => end({ kind: 'failed', why: 'no answer in time' }));
    this.travel(from, () => {
      const result = this.perform(request);
      this.travel(from, () => end(result));
    });
  }

  private travel(from: NodeId, arrive: () => void): void {
    const { prng, faults } = this;
    const isLost = this.isAway || this.cut.has(from) || prng.chance(faults.lossProbability);
    const max = prng.chance(faults.slowProbability) ? SLOW_MICROS : faults.delayMicrosMax;
    if (!isLost) this.time.after(50 + prng.below(max), arrive);
  }

  private perform(request: RegisterRequest): RegisterResult {
    const { revision, value } = this;
    if (request.kind === 'read') return { kind: 'value', revision, value };
    if (request.revision !== revision) return { kind: 'refused', revision, value };
    // other keys of the same etcd count, too
    this.lastRevision += 1 + this.prng.below(3);
    this.revision = this.lastRevision;
    this.value = request.value;
    this.committed(request.value);
    return { kind: 'swapped', revision: this.revision };
  }
}
