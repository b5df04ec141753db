/**
 * Views as the leader makes them: who leaves, who joins, and what the next view says of those before it. Pure functions
 * of what the leader knows.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import { VIEW_BYTES_MAX } from '../../wire/membership-messages.js';
import type { FormerView, Member, Run, View } from '../../wire/membership-views.js';
import { FORMER_VIEWS_MAX, viewBytes } from '../../wire/membership-views.js';
import { isWithin } from '../../wire/protocol-version.js';
import type { ProtocolRange } from '../../wire/protocol-version.js';
import type { Micros } from '../effects.js';
import type { Successor } from '../views.js';
import { continues, isRenewed, isSameRun } from '../views.js';
import { FORMER_VIEWS_FOR_JOINS } from './limits.js';

export type { FormerView, Member, Run, View } from '../../wire/membership-views.js';

export function memberOf(view: Pick<View, 'members'> | null, node: NodeId): Member | undefined {
  return view?.members.find((member) => member.node === node);
}

/** Whether the view names this run. */
export function names(view: Pick<View, 'members'> | null, run: Run): boolean {
  return memberOf(view, run.node)?.incarnation === run.incarnation;
}

/** Whether the view says that this run was a member and is none any more. */
export function isOver(view: View, run: Run): boolean {
  const isPast = (other: Run): boolean => other.node === run.node && other.incarnation >= run.incarnation;
  return !names(view, run) && (view.past.some(isPast) || view.members.some(isPast));
}

/** What the leader knows of a server (role server, never a witness) when it makes a view. */
export interface ServerFacts {
  node: NodeId;
  /** Of its newest run; 0: never heard. */
  incarnation: Incarnation;
  /** That run continues all from this one on; 0: it began anew. */
  resumes: number;
  /** No answer came of it for a lease. */
  isSilent: boolean;
  /** It was heard lately; only then it may join. */
  isHeard: boolean;
  /** null: it did not say yet. */
  willing: boolean | null;
  /** Servers that it does not hear on its links. */
  unheard: ReadonlySet<NodeId>;
  /** The newest view whose consequences its present run has behind it; 0: none. */
  recovered: number;
  /** The protocols of its present run; null: it did not say yet. */
  speaks: ProtocolRange | null;
  /** When the lease of the member of this number is over by any clock. */
  leaseOverAt: Micros;
}

/** Why a member shall leave; `by`: who does not hear it, or is not heard by it. */
export interface LeaveReason {
  why: 'silent' | 'unresponsive' | 'anew' | 'unheard' | 'unwilling' | 'behind' | 'unconfigured' | 'removed';
  by: NodeId[];
}

export interface Composition {
  members: Member[];
  protocol: number;
  /** Members that shall leave, also those whose lease is not over yet: they get no lease any more. */
  leaving: ReadonlySet<NodeId>;
  /** Of each that is leaving; for people. */
  reasons: ReadonlyMap<NodeId, LeaveReason>;
  joined: NodeId[];
  /** Members whose run is continued by another one from this view on. */
  resumed: NodeId[];
  left: Run[];
}

/** Who should be in the next view, which will have this epoch. */
export function compose(
  base: View | null,
  facts: ReadonlyMap<NodeId, ServerFacts>,
  options: {
    leader: NodeId;
    epoch: Epoch;
    now: Micros;
    behind: ReadonlySet<NodeId>;
    mayJoin: boolean;
    /** When the lease of a member of which we know nothing is over by any clock. */
    unknownLeaseOverAt: Micros;
    /** Whether members may be left out because links are silent. */
    judgesUnheard: boolean;
    /** All members of the base speak it. */
    protocol: number;
    /** A person takes it out of the pool. */
    removed?: NodeId | null;
  },
): Composition {
  const { leader, epoch, now, behind, mayJoin, unknownLeaseOverAt, judgesUnheard, protocol, removed = null } = options;
  const present = base?.members ?? [];
  const reasons = new Map<NodeId, LeaveReason>();
  for (const run of present) {
    const judged = behind.has(run.node) ? 'behind' : whyLeaving(run, facts.get(run.node), protocol);
    const why = run.node === removed ? 'removed' : judged;
    if (why !== null) reasons.set(run.node, { why, by: [] });
  }
  const staying = [leader, ...present.map(({ node }) => node).filter((node) => !reasons.has(node) && node !== leader)];
  for (const node of judgesUnheard ? unheardOnes(staying, facts, leader) : []) {
    const by = staying.filter((other) => other !== node && !hearEachOther(node, other, facts));
    reasons.set(node, { why: 'unheard', by });
  }
  const leaving = new Set(reasons.keys());
  const leaseOverAt = (node: NodeId): Micros => facts.get(node)?.leaseOverAt ?? unknownLeaseOverAt;
  const isOut = ({ node }: Run): boolean => leaving.has(node) && leaseOverAt(node) <= now;
  const left = present.filter(isOut);
  const resumed: NodeId[] = [];
  const members = present.filter((member) => !isOut(member)).map((member): Member => {
    const known = facts.get(member.node);
    // what it speaks may not be known yet: it is there a moment later
    if (known === undefined || known.speaks === null || leaving.has(member.node)) return member;
    if (!continues(member, known)) return member;
    resumed.push(member.node);
    return { node: member.node, incarnation: known.incarnation, since: epoch, resumes: known.resumes as Incarnation };
  });
  const joined: NodeId[] = [];
  if (!members.some(({ node }) => node === leader)) {
    joined.push(leader);
    members.push({ node: leader, incarnation: facts.get(leader)!.incarnation, since: epoch });
  }
  // whoever still has a lease that must run out will leave soon: one view for both
  if (left.length === leaving.size) {
    const nodes = members.map(({ node }) => node);
    for (const { node, incarnation, resumes, isHeard, isSilent, willing, speaks } of facts.values()) {
      const run = { node, incarnation };
      // what it would continue is no member: it has to start anew
      if (resumes !== 0) continue;
      if (nodes.includes(node) || incarnation === 0 || !isHeard || isSilent) continue;
      if (willing !== true || behind.has(node)) continue;
      if (node === removed || speaks === null || !isWithin(speaks, protocol)) continue;
      if (!mayJoin || (base !== null && isOver(base, run)) || names({ members: left }, run)) continue;
      if (!nodes.every((other) => hearEachOther(node, other, facts))) continue;
      nodes.push(node);
      joined.push(node);
      members.push({ ...run, since: epoch });
    }
  }
  return { members: members.sort((a, b) => a.node - b.node), protocol, leaving, reasons, joined, resumed, left };
}

function whyLeaving(member: Run, known: ServerFacts | undefined, protocol: number): LeaveReason['why'] | null {
  if (known === undefined) return 'unconfigured';
  // a lower one is of before the view: that server has not talked to us since
  const isAnother = known.incarnation > member.incarnation;
  const isForeign = known.speaks !== null && !isWithin(known.speaks, protocol);
  if (isAnother && (isForeign || !continues(member, known))) return 'anew';
  if (known.isSilent) return known.isHeard ? 'unresponsive' : 'silent';
  return known.willing === false ? 'unwilling' : null;
}

function hearEachOther(a: NodeId, b: NodeId, facts: ReadonlyMap<NodeId, ServerFacts>): boolean {
  return facts.get(a)?.unheard.has(b) !== true && facts.get(b)?.unheard.has(a) !== true;
}

/**
 * Whom to leave out so that all that remain hear each other: again and again the one that belongs to most pairs that do
 * not, of equals the one with the higher number, the leader last.
 */
export function unheardOnes(
  members: readonly NodeId[],
  facts: ReadonlyMap<NodeId, ServerFacts>,
  leader: NodeId,
): NodeId[] {
  const out: NodeId[] = [];
  let rest = [...members];
  for (;;) {
    const pairsOf = (node: NodeId): number =>
      rest.filter((other) => other !== node && !hearEachOther(node, other, facts)).length;
    const worst = rest
      .filter((node) => node !== leader && pairsOf(node) > 0)
      .sort((a, b) => pairsOf(b) - pairsOf(a) || b - a)[0];
    if (worst === undefined) return out;
    out.push(worst);
    rest = rest.filter((node) => node !== worst);
  }
}

/** What the leader knows of the persistent databases when it makes a view. */
export interface HoldersFacts {
  /** Servers that keep the databases, so no witness. */
  servers: readonly NodeId[];
  /** The files of all of them are known to be the same, and from here on no commit is answered that one has not. */
  allHold: boolean;
  /** Those whose disk remembered no view when they started: whatever they held before is gone. */
  blank: ReadonlySet<NodeId>;
}

/**
 * Who has every answered commit once these are the members: `View.holders` of the next view. In a pool of two servers
 * each commit is on both, so that either may be lost, and the one that stays holds all; what it does alone, the other
 * has to get before it counts again. (In larger pools a majority of the servers is there, or nothing is committed.)
 */
export function nextHolders(base: View | null, members: readonly Successor[], facts: HoldersFacts): NodeId[] {
  const { servers, allHold, blank } = facts;
  if (base === null || servers.length !== 2) return [];
  const stays = (node: NodeId): boolean => {
    const run = memberOf({ members: base.members }, node);
    // a run that is continued has lost nothing of its disk, and nothing was committed without it
    return run !== undefined && members.some((other) => isSameRun(run, other));
  };
  if (allHold && servers.every(stays)) return [...servers];
  const staying = base.holders.filter(stays);
  if (staying.length > 0) return staying;
  // all of them were lost: of those that are back with their disks, each has everything
  const known = base.holders.filter((node) => !blank.has(node));
  const back = known.filter((node) => members.some((member) => member.node === node));
  if (back.length > 0) return back;
  return known.length > 0 ? known : base.holders;
}

/** The view of these members that follows `base`; `recovered` is what each member's run has behind it. */
export function nextView(
  base: View | null,
  next: Pick<View, 'epoch' | 'leader' | 'members' | 'holders' | 'protocol' | 'configuration'>,
  recovered: (node: NodeId) => number,
): View {
  const isMember = ({ node }: Run): boolean => next.members.some((member) => member.node === node);
  const ended = new Map<NodeId, Run>();
  // the newest run of a number wins: members of the base are newer than what the base calls past
  for (const { node, incarnation } of [...(base?.past ?? []), ...(base?.members ?? [])]) {
    ended.set(node, { node, incarnation });
  }
  const past = [...ended.values()].filter((run) => !isMember(run)).sort((a, b) => a.node - b.node);
  const { configuration, ...rest } = next;
  const view: View = { ...rest, former: base === null ? [] : stillNeeded(base, next.members, recovered), past };
  return configuration === undefined ? view : { ...view, configuration };
}

/** The base, and those before it: what some of these members still has to make up for. */
function stillNeeded(base: View, members: readonly Member[], recovered: (node: NodeId) => number): FormerView[] {
  const needed = Math.min(...members.map(({ node, since }) => Math.max(since, recovered(node))));
  return [...base.former, formerOf(base)].filter(({ epoch }) => epoch >= needed);
}

/**
 * Whether a server may join in the view after this one. Members that caught up since the base was made count as they
 * are now: with nothing else to change, no view would come that says so.
 */
export function hasRoomForJoins(base: View | null, recovered: (node: NodeId) => number): boolean {
  return base === null || stillNeeded(base, base.members, recovered).length <= FORMER_VIEWS_FOR_JOINS;
}

function formerOf(view: View): FormerView {
  return { epoch: view.epoch, members: runsOf(view), ...(isRenewed(view) ? { isRenewed: true } : {}) };
}

function runsOf(view: View): Run[] {
  return view.members.map(({ node, incarnation }) => ({ node, incarnation }));
}

/** Whether the view is small enough to be proposed. */
export function fits(view: View): boolean {
  return view.former.length <= FORMER_VIEWS_MAX && viewBytes(view) <= VIEW_BYTES_MAX;
}

/** Of the members, those that are furthest behind with what views asked of them. */
export function mostBehind(members: readonly Member[], recovered: (node: NodeId) => number): NodeId[] {
  const behind = ({ node, since }: Member): number => Math.max(since, recovered(node));
  const least = Math.min(...members.map(behind));
  return members.filter((member) => behind(member) === least).map(({ node }) => node);
}
