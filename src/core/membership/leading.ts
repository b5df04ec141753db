/**
 * What a server does while it leads: heartbeats with leases, one proposal at a time, and the judgement of who leaves
 * and who joins. Made when an election is won, thrown away when the lead ends; membership.ts brings answers and time.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { MembershipContent, MembershipMessageOf, ServersChange } from '../../wire/membership-messages.js';
import { EPOCHS_PER_TERM, epochOf } from '../../wire/membership-messages.js';
import { isWithin } from '../../wire/protocol-version.js';
import type { Micros } from '../effects.js';
import { continues } from '../views.js';
import type { Timer } from '../timers.js';
import type { Refused } from './changing-servers.js';
import { ChangingServers } from './changing-servers.js';
import { Authority, NO_GRANT } from './leases.js';
import {
  GATHER_HEARTBEATS, NEW_MEMBER_LEASES, NEW_MEMBER_SILENT_LEASES, UNHEARD_AFTER_MICROS,
} from './limits.js';
import type { Peer, Peers } from './peers.js';
import type { MembershipContext } from './port.js';
import type { KnownServer, Versions } from './versions.js';
import type { ServerList, ServerLists } from './configuration.js';
import { fileServersIn, serversIn } from './configuration.js';
import type { Composition, LeaveReason, Run, ServerFacts, View } from './composition.js';
import {
  compose, fits, hasRoomForJoins, memberOf, mostBehind, names, nextHolders, nextView,
} from './composition.js';

/** What the leader needs of the membership around it. */
export interface LeaderPorts {
  send(peer: Peer, content: MembershipContent): void;
  install(view: View): void;
  /** Tells the peer what was written of the servers of our newest view. */
  tellServers?(peer: Peer): void;
  /** Our authority changed and our own run may serve until then. */
  lease(until: Micros): void;
  /** The lead ends. */
  stepDown(why: string): void;
  /** For people: whom we are about to leave out; and what we propose, with the ends of the leases of the left. */
  suspects?(reasons: ReadonlyMap<NodeId, LeaveReason>): void;
  proposed?(view: View, leaseOver: ReadonlyMap<NodeId, Micros>): void;
}

export interface LeaderOptions {
  self: Run & { resumes: number };
  heartbeatMicros: Micros;
  leaseMicros: Micros;
  /** What is known of the servers of each configuration. */
  lists: ServerLists;
  /** What each server's run speaks. */
  versions: Versions;
  /** A lead without authority for so many leases ends. */
  stepDownLeases: number;
  /** How long leases that former leaders gave may still be valid, by any clock, when we are elected. */
  inheritedMicros: Micros;
  /** When none of two or more other members is heard, they are waited for so long; 0: as long as for any. */
  aloneMicros: Micros;
}

/** How a leader's views are agreed, and what its authority comes from: the one thing in which the engines differ. */
export interface Agreement {
  /** A majority of whose answers renews the leader's authority; null: none does, see Authority.confirmed. */
  readonly counted: (() => readonly NodeId[]) | null;
  /** Whether the others must hear of a view that is not agreed yet, since it is they who agree. */
  readonly tellsProposals: boolean;
  /** The newest view that we know, when none of this lead is agreed yet. */
  base(): View | null;
  /** Has the view agreed; one at a time. `agreed` is called later, or never. */
  propose(view: View, agreed: () => void): void;
  /** This server has the view of this epoch on disk. */
  accepted(node: NodeId, epoch: number): void;
}

export interface LeaderNews {
  willing: boolean;
  unheard: ReadonlySet<NodeId>;
  recovered: number;
  /** HoldersFacts.allHold, as the persistent databases say. */
  allHold: boolean;
  /** Our disk remembered no view when we started. */
  isBlank: boolean;
  /** MembershipEvents.isSettled. */
  isSettled: boolean;
}

export class Leading {
  readonly authority: Authority;
  /** Our newest proposal; agreed when a majority has it on disk. */
  private proposal: View | null = null;
  private agreed: View | null = null;
  private proposals = 0;
  /** Runs that we took in, and when. */
  private readonly takenIn = new Map<NodeId, { incarnation: Incarnation; at: Micros }>();
  private leaving: ReadonlySet<NodeId> = new Set();
  private judgeTimer: Timer | null = null;
  private authorityMissedFrom: Micros;
  private hasEnded = false;
  private hasComplained = false;
  /** Several members were silent at once, and none of them was heard since. */
  private isAlone = false;
  private readonly changing: ChangingServers;
  private readonly electedAt: Micros;
  /** From when on a majority answers without a break as long as a lease. */
  private authoritySince: Micros;

  constructor(
    private readonly context: MembershipContext,
    private readonly options: LeaderOptions,
    private readonly agreement: Agreement,
    private readonly peers: Peers,
    /** What we say of ourselves. */
    private readonly own: () => LeaderNews,
    private readonly ports: LeaderPorts,
    readonly term: number,
  ) {
    this.authority = new Authority(options.leaseMicros, agreement.counted === null ? null : () => agreement.counted!());
    this.authorityMissedFrom = context.now();
    this.electedAt = context.now();
    this.changing = new ChangingServers({
      now: () => context.now(),
      list: () => this.list,
      agreed: () => this.agreed,
      isOpen: () => this.isOpen,
      peer: (node) => peers.get(node),
      isThere: (node) => this.isThere(node),
      isSettled: () => own().isSettled,
    });
    this.authoritySince = context.now();
    for (const { node } of agreement.base()?.members ?? []) this.authority.inherited(node, this.inheritedUntil);
  }

  /** Until then a lease that a former leader gave may be valid. */
  private get inheritedUntil(): Micros {
    return this.electedAt + this.options.inheritedMicros;
  }

  /** After the election: says so, and proposes. */
  start(): void {
    this.beatAll();
    this.judge();
  }

  end(): void {
    this.hasEnded = true;
    this.judgeTimer?.cancel();
  }

  /** Each heartbeat. */
  tick(): void {
    const now = this.context.now();
    const missedFrom = Math.max(this.authorityMissedFrom, this.authority.until);
    const isPowerless = now - missedFrom > this.options.stepDownLeases * this.options.leaseMicros;
    if (isPowerless) return this.ports.stepDown('no majority answers');
    this.beatAll();
    this.judge();
  }

  onNewRun(peer: Peer): void {
    this.authority.onNewRun(peer.node);
    this.beat(peer);
    this.judgeSuccessor(peer);
  }

  /** Its processes wait, and it is a member as long as nobody says otherwise: it is taken over at once. */
  private judgeSuccessor(peer: Peer): void {
    const member = memberOf(this.agreed, peer.node);
    if (!this.isOpen && member !== undefined && continues(member, peer)) this.judge();
  }

  onAnswer(peer: Peer, message: MembershipMessageOf<'answer'>): void {
    const now = this.context.now();
    if (message.echo > now) {
      this.context.count('membership.answer.refused.echo');
      return;
    }
    this.renewing(now, () => this.authority.onAnswer(peer.node, message, now));
    if (this.isAlone) this.authorityCame(now);
    this.isAlone = false;
    // one that is no member has nothing to give back, but the lease of its former run may go on
    if (peer.released && names(this.agreed, peer)) this.authority.release(peer.node);
    this.agreement.accepted(peer.node, message.accepted);
    this.tellLease();
    // who leaves in order is not waited for
    if (this.proposal === null || peer.released) this.judge();
    else this.judgeSuccessor(peer);
  }

  /** What was asked at this time outside of the pool says that we lead. */
  confirmed(askedAt: Micros): void {
    this.renewing(this.context.now(), () => this.authority.confirmed(askedAt));
    this.tellLease();
  }

  private renewing(now: Micros, renew: () => void): void {
    const wasOver = this.authority.until <= now;
    renew();
    if (wasOver && this.authority.until > now) this.authorityCame(now);
  }

  /** We were cut off, or have just been elected: what others could not tell us until now is not held against them. */
  private authorityCame(now: Micros): void {
    this.authoritySince = now;
    if (this.agreed !== null) this.peers.expectFromNow(now, null);
  }

  private tellLease(): void {
    if (this.agreed !== null && names(this.agreed, this.options.self)) this.ports.lease(this.authority.until);
  }

  private beatAll(): void {
    this.authority.sent(this.options.self.node, this.context.now());
    this.tellLease();
    for (const peer of this.peers.all) this.beat(peer);
  }

  private beat(peer: Peer): void {
    const now = this.context.now();
    const run = { node: peer.node, incarnation: peer.incarnation };
    const mayServe = names(this.agreed, run) && names(this.proposal, run) && !this.leaving.has(peer.node)
      && !peer.released;
    const { echo, remaining } = mayServe ? this.authority.grant(peer.node, now) : NO_GRANT;
    const agreed = this.agreed?.epoch ?? 0;
    const view = this.agreement.tellsProposals ? this.proposal : this.agreed;
    const { joining } = this.list.configuration;
    // it may know neither us nor where we are
    if (joining.includes(peer.node) && peer.accepted < (view?.epoch ?? 0)) this.ports.tellServers?.(peer);
    this.ports.send(peer, { kind: 'heartbeat', sentAt: now, agreed, echo, remaining, view });
  }

  // --- proposing

  private get isOpen(): boolean {
    return this.proposal !== null && this.proposal !== this.agreed;
  }

  private propose(view: View, { joined, resumed, left }: Composition): void {
    this.proposals++;
    for (const node of [...joined, ...resumed]) {
      this.takenIn.set(node, { incarnation: memberOf(view, node)!.incarnation, at: this.context.now() });
    }
    this.proposal = view;
    this.ports.proposed?.(view, new Map(left.map(({ node }) => [node, this.authority.leaseOverAt(node)])));
    this.context.count('membership.proposed');
    this.agreement.propose(view, () => this.onAgreed(view));
    this.beatAll();
  }

  private onAgreed(view: View): void {
    if (this.hasEnded || view !== this.proposal || view === this.agreed) return;
    this.agreed = view;
    this.context.count('membership.agreed');
    this.ports.install(view);
    if (this.hasEnded) return;
    this.beatAll();
    this.judge();
  }

  // --- judging

  private recoveredBy(node: NodeId): number {
    return node === this.options.self.node ? this.own().recovered : (this.peers.get(node)?.recovered ?? 0);
  }

  private facts(): Map<NodeId, ServerFacts> {
    const { leaseMicros, self, versions } = this.options;
    const now = this.context.now();
    const all = new Map<NodeId, ServerFacts>();
    for (const node of serversIn(this.list.configuration)) {
      const peer = this.peers.get(node);
      if (peer === undefined && node !== self.node) continue;
      if (peer === undefined) {
        const { willing, unheard, recovered } = this.own();
        const lease = { isSilent: false, isHeard: true, leaseOverAt: -Infinity };
        all.set(node, { ...self, ...lease, willing, unheard, recovered, speaks: versions.speaks(self) });
        continue;
      }
      const { incarnation, resumes, heardAt, willing, unheard, recovered } = peer;
      all.set(node, {
        node,
        incarnation,
        resumes,
        isSilent: now >= this.silentAt(peer),
        isHeard: now - heardAt < leaseMicros,
        willing,
        unheard,
        recovered,
        speaks: versions.speaks(peer),
        leaseOverAt: this.authority.leaseOverAt(node),
      });
    }
    return this.forgiven(all, now);
  }

  /** Who hears nobody does not know yet whose fault that is. */
  private forgiven(all: Map<NodeId, ServerFacts>, now: Micros): Map<NodeId, ServerFacts> {
    const base = this.agreed ?? this.agreement.base();
    const others = (base?.members ?? []).flatMap(({ node }) => (all.has(node) ? (this.peers.get(node) ?? []) : []));
    if (this.options.aloneMicros === 0 || others.length < 2) return all;
    if (!others.every(({ node }) => all.get(node)!.isSilent)) return all;
    this.isAlone = true;
    for (const { node, unansweredFrom } of others) {
      const isSilent = now - unansweredFrom >= this.options.aloneMicros;
      all.set(node, { ...all.get(node)!, isSilent });
    }
    return all;
  }

  /** When it counts as silent if nothing comes of it until then. */
  private silentAt(peer: Peer): Micros {
    const { leaseMicros } = this.options;
    const taken = this.takenIn.get(peer.node);
    const isNew = taken?.incarnation === peer.incarnation
      && this.context.now() - taken.at < NEW_MEMBER_LEASES * leaseMicros;
    return peer.unansweredFrom + (isNew ? NEW_MEMBER_SILENT_LEASES : 1) * leaseMicros;
  }

  /** Looks who should leave or join, and proposes that when nothing is open. */
  private judge(): void {
    if (this.hasEnded) return;
    if (!this.own().willing) return this.ports.stepDown('we are to be left out');
    // No majority answers, so no view can be agreed; but one that is heard would be accepted. If only we hear nobody,
    // healthy runs that we leave out would end, and with them the majority that elects another leader.
    if (this.agreed !== null && this.context.now() >= this.authority.until) return;
    const base = this.agreed ?? this.agreement.base();
    const composition = this.composeNext(base, new Set());
    this.leaving = composition.leaving;
    this.ports.suspects?.(composition.reasons);
    this.lookAgain(base);
    if (this.isOpen || (this.agreed === null && !this.hasGathered(base, composition))) return;
    const next = this.changing.next(base, composition.members);
    const list = next ?? this.list;
    const holders = this.holdersOf(base, composition, list);
    const isChange =
      composition.joined.length > 0 || composition.left.length > 0 || composition.resumed.length > 0
      || holders.length > (base?.holders.length ?? 0)
      || composition.protocol !== base?.protocol || next !== null;
    if (this.agreed !== null && !isChange) return;
    if (next !== null) this.options.lists.keep(next.servers);
    this.proposeComposition(base, composition, list);
  }

  private holdersOf(base: View | null, { members }: Composition, list: ServerList): NodeId[] {
    const { self } = this.options;
    const servers = fileServersIn(list.configuration);
    const { allHold, isBlank } = this.own();
    const blank = new Set(this.peers.all.filter((peer) => peer.isBlank).map(({ node }) => node));
    if (isBlank) blank.add(self.node);
    return nextHolders(base, members, { servers, allHold, blank });
  }

  private composeNext(base: View | null, behind: ReadonlySet<NodeId>): Composition {
    const mayJoin = hasRoomForJoins(base, (node) => this.recoveredBy(node));
    const epoch = this.nextEpoch();
    const now = this.context.now();
    const facts = this.facts();
    const judgesUnheard = !this.isAlone && now - this.authoritySince >= UNHEARD_AFTER_MICROS;
    const leader = this.options.self.node;
    const protocol = mayJoin ? this.options.versions.next(base, this.knownServers()) : base!.protocol;
    for (const server of facts.values()) this.complainOfForeign(server, protocol);
    const removed = this.changing.removed();
    const unknownLeaseOverAt = this.inheritedUntil;
    const how = { behind, mayJoin, unknownLeaseOverAt, judgesUnheard, protocol, removed };
    return compose(base, facts, { leader, epoch, now, ...how });
  }

  private knownServers(): KnownServer[] {
    const now = this.context.now();
    // who joins is no reason to wait, unless it is a member already
    const { joining } = this.list.configuration;
    const asked = this.peers.all.filter((peer) => !joining.includes(peer.node) || names(this.agreed, peer));
    const others = asked.map(({ node, incarnation, heardAt }): KnownServer => {
      return { node, incarnation, isHeard: now - heardAt < this.options.leaseMicros };
    });
    return [{ ...this.options.self, isHeard: true }, ...others];
  }

  private complainOfForeign({ speaks, ...run }: ServerFacts, protocol: number): void {
    if (run.isHeard && speaks !== null && !isWithin(speaks, protocol)) this.options.versions.refused(run, protocol);
  }

  private nextEpoch(): Epoch {
    return epochOf(this.term, this.proposals + 1);
  }

  private proposeComposition(base: View | null, composition: Composition, list: ServerList): void {
    if (this.proposals + 1 >= EPOCHS_PER_TERM) return this.ports.stepDown('this term has no more epochs');
    const leader = this.options.self.node;
    const recovered = (node: NodeId): number => this.recoveredBy(node);
    const make = (next: Composition): View => {
      const { members, protocol } = next;
      const holders = this.holdersOf(base, next, list);
      const { configuration } = list;
      const view = { epoch: this.nextEpoch(), leader, members, holders, protocol };
      return nextView(base, configuration.number === 0 ? view : { ...view, configuration }, recovered);
    };
    const view = make(composition);
    if (fits(view)) return this.propose(view, composition);
    // whoever is furthest behind must start anew, or the list of former views grows without end
    const behind = mostBehind(composition.members, recovered);
    if (behind.includes(leader)) return this.ports.stepDown('we are too many views behind');
    this.complain(behind);
    const smaller = this.composeNext(base, new Set(behind));
    this.leaving = smaller.leaving;
    const lesser = make(smaller);
    if (!fits(lesser)) return;
    this.ports.suspects?.(smaller.reasons);
    this.propose(lesser, smaller);
  }

  private complain(behind: readonly NodeId[]): void {
    this.context.count('membership.behind');
    if (this.hasComplained) return;
    this.hasComplained = true;
    this.context.log('warn', 'membership.behind', {
      servers: behind,
      meaning: 'these servers did not make up for so many changes of the view that they are left out and start anew',
    });
  }

  /**
   * Our first view waits a little for those that may join with it: in a fresh pool for all servers; after all servers
   * started anew for runs that voted and are no members. Not while we serve: leases wait to be renewed.
   */
  private hasGathered(base: View | null, { joined }: Composition): boolean {
    const now = this.context.now();
    if (now - this.electedAt >= GATHER_HEARTBEATS * this.options.heartbeatMicros) return true;
    if (base === null) return joined.length === fileServersIn(this.list.configuration).length;
    if (names(base, this.options.self)) return true;
    return !this.peers.all.some((peer) => {
      const mayJoin = peer.role === 'server' && peer.willing === null && !names(base, peer);
      return mayJoin && now - peer.heardAt < this.options.leaseMicros;
    });
  }

  /** A member falls silent, or a lease ends, between two heartbeats: judge then, not at the next heartbeat. */
  private lookAgain(base: View | null): void {
    const { heartbeatMicros } = this.options;
    const now = this.context.now();
    const times = (base?.members ?? []).flatMap(({ node }) => {
      const peer = this.peers.get(node);
      return peer === undefined ? [] : [this.silentAt(peer), this.authority.leaseOverAt(node)];
    });
    const next = Math.min(...times.filter((at) => at > now));
    this.judgeTimer?.cancel();
    this.judgeTimer = null;
    if (next > now + heartbeatMicros) return;
    this.judgeTimer = this.context.timers.at(next, () => {
      // if we slept, frames wait unread, and the next tick knows it
      if (this.context.now() - next < heartbeatMicros) this.judge();
    });
  }

  // --- the servers of the pool

  /** As we proposed them last. */
  private get list(): ServerList {
    return this.options.lists.of((this.proposal ?? this.agreement.base())?.configuration)!;
  }

  /** A person wants this, and asks again and again until it is agreed. Null: it is under way. */
  change(change: ServersChange): Refused | null {
    const refused = this.changing.ask(change);
    if (refused !== null) return refused;
    if (this.changing.removed() === this.options.self.node) {
      this.ports.stepDown('this server is to be taken out of the pool');
      return null;
    }
    this.judge();
    return null;
  }

  private isThere(node: NodeId): boolean {
    if (node === this.options.self.node) return true;
    const peer = this.peers.get(node);
    if (peer === undefined) return false;
    const now = this.context.now();
    return now - peer.heardAt < this.options.leaseMicros && now < this.silentAt(peer);
  }

  /** For people. */
  describe(): { proposal: Epoch | null; members: number; leaving: NodeId[] } {
    const members = this.agreed?.members ?? [];
    const leaving = [...this.leaving].filter((node) => memberOf(this.agreed, node) !== undefined);
    return { proposal: this.isOpen ? this.proposal!.epoch : null, members: members.length, leaving };
  }
}
