/** A leader's views in the embedded engine: agreed when a majority of the configured servers has them on disk. */
import type { NodeId } from '../../base/ids.js';
import type { View } from './composition.js';
import type { Agreement } from './leading.js';
import type { Saving } from './saving.js';

export class MajorityAgreement implements Agreement {
  readonly tellsProposals = true;
  private open: { epoch: number; agreed: () => void } | null = null;
  /** What each server has on disk; only epochs of our term count. */
  private readonly epochs = new Map<NodeId, number>();

  constructor(
    private readonly saving: Saving,
    private readonly self: NodeId,
    readonly majority: number,
  ) {}

  base(): View | null {
    return this.saving.accepted;
  }

  propose(view: View, agreed: () => void): void {
    this.open = { epoch: view.epoch, agreed };
    this.saving.change({ accepted: view });
    this.saving.whenSaved(() => this.accepted(this.self, view.epoch));
  }

  accepted(node: NodeId, epoch: number): void {
    this.epochs.set(node, Math.max(epoch, this.epochs.get(node) ?? 0));
    const { open } = this;
    if (open === null) return;
    // a server that accepted a view of an earlier term may still accept another one: only ours, of this term, counts
    const count = [...this.epochs.values()].filter((other) => other === open.epoch).length;
    if (count < this.majority) return;
    this.open = null;
    open.agreed();
  }
}
