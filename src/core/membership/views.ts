/**
 * Views: who belongs to the pool. Agreed elsewhere (an engine of membership, docs/decisions/membership.md); here only
 * their shapes.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';

/** A member is a run of a server. */
export interface Run {
  readonly node: NodeId;
  readonly incarnation: Incarnation;
}

export interface Member extends Run {
  /** The view in which this run joined. */
  readonly since: Epoch;
}

/** A view that some member may still have to make up for. */
export interface FormerView {
  readonly epoch: Epoch;
  readonly members: readonly Run[];
}

export interface View {
  readonly epoch: Epoch;
  readonly leader: NodeId;
  readonly members: readonly Member[];
  /** The agreed views before this one since the oldest that a member has not recovered yet, oldest first. */
  readonly former: readonly FormerView[];
}

/** An epoch is a leader's term and the number of its proposal: a term has one leader, and later terms higher epochs. */
export const EPOCHS_PER_TERM = 2 ** 20;

export function termOf(epoch: Epoch): number {
  return Math.floor(epoch / EPOCHS_PER_TERM);
}

/** Which servers' runs are out with the view `after`, and whose runs are new in it. A server can be in both. */
export function changes(before: readonly Run[], after: readonly Run[]): { left: NodeId[]; joined: NodeId[] } {
  const missingIn = (members: readonly Run[]) => (run: Run): boolean => runOf(members, run.node) !== run.incarnation;
  return {
    left: before.filter(missingIn(after)).map(({ node }) => node),
    joined: after.filter(missingIn(before)).map(({ node }) => node),
  };
}

export function runOf(members: readonly Run[], node: NodeId): Incarnation | undefined {
  return members.find((member) => member.node === node)?.incarnation;
}
