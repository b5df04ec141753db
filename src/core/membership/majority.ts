/** A leader's views in the embedded engine: agreed when a majority of the view's own servers has them on disk. */
import type { NodeId } from '../../base/ids.js';
import type { Configuration } from '../../wire/membership-configuration.js';
import type { View } from './composition.js';
import { isMajority } from './configuration.js';
import type { Agreement } from './leading.js';

export interface AgreementPorts {
  /** The newest view that we accepted. */
  accepted(): View | null;
  /** Notes it as accepted; the action runs when it is on disk. */
  accept(view: View, saved: () => void): void;
  configurationOf(view: View | null): Configuration;
}

export class MajorityAgreement implements Agreement {
  readonly tellsProposals = true;
  private open: { view: View; agreed: () => void } | null = null;
  /** What each server has on disk; only epochs of our term count. */
  private readonly epochs = new Map<NodeId, number>();

  constructor(
    private readonly self: NodeId,
    private readonly ports: AgreementPorts,
  ) {}

  /** Of the newest view that we proposed, agreed or not. */
  counted(): readonly NodeId[] {
    return this.ports.configurationOf(this.ports.accepted()).counted;
  }

  base(): View | null {
    return this.ports.accepted();
  }

  propose(view: View, agreed: () => void): void {
    this.open = { view, agreed };
    this.ports.accept(view, () => this.accepted(this.self, view.epoch));
  }

  accepted(node: NodeId, epoch: number): void {
    this.epochs.set(node, Math.max(epoch, this.epochs.get(node) ?? 0));
    const { open } = this;
    if (open === null) return;
    // a server that accepted a view of an earlier term may still accept another one: only ours, of this term, counts
    const has = (other: NodeId): boolean => this.epochs.get(other) === open.view.epoch;
    if (!isMajority(this.ports.configurationOf(open.view), has)) return;
    this.open = null;
    open.agreed();
  }
}
