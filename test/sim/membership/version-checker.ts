/**
 * Watches the pool's protocol from outside (docs/decisions/versions.md). It knows what each run speaks and when it
 * lived, from those who start and stop them, and believes no engine.
 */
import type { NodeId } from '../../../src/base/ids.js';
import type { Micros } from '../../../src/core/effects.js';
import type { Run, View } from '../../../src/core/views.js';
import type { ProtocolRange } from '../../../src/wire/protocol-version.js';
import { isWithin, rangeText } from '../../../src/wire/protocol-version.js';

/**
 * A leader relies on what it heard: for a lease, after frames that were late, and after it was stopped itself for so
 * long, it knows no better.
 */
const LATELY_MICROS = 2_000_000;

interface Life {
  node: NodeId;
  speaks: ProtocolRange;
  from: Micros;
  until: Micros;
}

export class VersionChecker {
  /** How often an agreed view raised the protocol. */
  raises = 0;
  private readonly lives = new Map<string, Life>();
  private readonly agreed: View[] = [];
  private readonly proposed = new Set<number>();

  constructor(
    private readonly now: () => Micros,
    private readonly nodes: readonly NodeId[],
    private readonly fail: (rule: string, text: string) => void,
  ) {}

  started(run: Run, speaks: ProtocolRange): void {
    this.lives.set(key(run), { node: run.node, speaks, from: this.now(), until: Infinity });
  }

  ended(run: Run): void {
    const life = this.lives.get(key(run));
    if (life !== undefined) life.until = this.now();
  }

  installed(run: Run, view: View): void {
    const { speaks } = this.lives.get(key(run))!;
    if (isWithin(speaks, view.protocol)) return;
    this.fail('installed-is-spoken', `${key(run)} speaks ${rangeText(speaks)} and installs protocol ${view.protocol}`);
  }

  /** The leader writes down its proposal: what it knows is of now, or a little older. */
  proposes(view: View): void {
    if (this.proposed.has(view.epoch)) return;
    this.proposed.add(view.epoch);
    const before = Math.max(0, ...this.agreed.map(({ protocol }) => protocol));
    if (before === 0 || view.protocol <= before) return;
    const since = this.now() - LATELY_MICROS;
    const lives = [...this.lives.values()];
    for (const node of this.nodes) {
      const couldLately = lives.some((life) =>
        life.node === node && life.until >= since && isWithin(life.speaks, view.protocol));
      if (!couldLately) this.fail('rises-when-all-can', `to ${view.protocol}, which server ${node} does not speak`);
    }
  }

  agree(view: View): void {
    for (const member of view.members) {
      const life = this.lives.get(key(member));
      if (life !== undefined && isWithin(life.speaks, view.protocol)) continue;
      this.fail('members-speak-it', `view ${view.epoch} has protocol ${view.protocol} and names ${key(member)}`);
    }
    for (const other of this.agreed) {
      const [earlier, later] = other.epoch < view.epoch ? [other, view] : [view, other];
      if (earlier.protocol <= later.protocol) continue;
      this.fail('protocol-never-falls', `${earlier.protocol} in ${earlier.epoch}, ${later.protocol} in ${later.epoch}`);
    }
    if (this.agreed.length > 0 && this.agreed.every(({ protocol }) => protocol < view.protocol)) this.raises++;
    this.agreed.push(view);
  }
}

function key({ node, incarnation }: Run): string {
  return `${node}/${incarnation}`;
}
