/** Views as the rest of the core sees them, whoever agreed on them: shapes, and what follows from one and the next. */
import type { Incarnation, NodeId } from '../base/ids.js';
import type { Run } from '../wire/membership-views.js';

export type { FormerView, Member, Run, View } from '../wire/membership-views.js';

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
