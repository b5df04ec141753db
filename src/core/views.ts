/** Views as the rest of the core sees them, whoever agreed on them: shapes, and what follows from one and the next. */
import type { Incarnation, NodeId } from '../base/ids.js';
import type { Member, Run, View } from '../wire/membership-views.js';

export type { FormerView, Member, Run, View } from '../wire/membership-views.js';

/** A run, and since which one all runs of its server were continued, if it did not begin anew. */
export type Successor = Run & Pick<Member, 'resumes'>;

export interface Changes {
  left: NodeId[];
  joined: NodeId[];
  /** Whose run is another one, which continues the one before. */
  resumed: NodeId[];
}

/**
 * Which servers' runs are out with the view `after`, and whose runs are new in it. A server can be in both; one whose
 * run is continued by another is in neither.
 */
export function changes(before: readonly Run[], after: readonly Successor[]): Changes {
  const gone = (run: Run): boolean => !after.some((member) => isSameRun(run, member));
  const isNew = (member: Successor): boolean => !before.some((run) => isSameRun(run, member));
  const isResumed = (member: Successor): boolean => !isNew(member) && runOf(before, member.node) !== member.incarnation;
  const nodesOf = (runs: readonly Run[]): NodeId[] => runs.map(({ node }) => node);
  return {
    left: nodesOf(before.filter(gone)),
    joined: nodesOf(after.filter(isNew)),
    resumed: nodesOf(after.filter(isResumed)),
  };
}

export function runOf(members: readonly Run[], node: NodeId): Incarnation | undefined {
  return members.find((member) => member.node === node)?.incarnation;
}

/**
 * Whether a run with this incarnation, which continues all runs of its server from `resumes` on, takes the place of the
 * member. With its own incarnation it does not.
 */
export function continues(member: Run, run: { incarnation: Incarnation; resumes: number }): boolean {
  const { incarnation, resumes } = run;
  return resumes !== 0 && member.incarnation >= resumes && member.incarnation < incarnation;
}

/** Whether the member of a later view is the run that this one was, or continues it. */
export function isSameRun(before: Run, { node, incarnation, resumes }: Successor): boolean {
  if (node !== before.node) return false;
  return incarnation === before.incarnation || continues(before, { incarnation, resumes: resumes ?? 0 });
}

/** Whether a run took, in this view, the place of the one that it continues. */
export function isRenewed({ epoch, members }: Pick<View, 'epoch' | 'members'>): boolean {
  return members.some(({ resumes, since }) => resumes !== undefined && since === epoch);
}
