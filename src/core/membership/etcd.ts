/**
 * Who belongs to the pool, and until when: the engine on an etcd cluster (docs/decisions/etcd.md). Views are agreed,
 * and the lead is taken, by compare-and-swap of one register there; the leader's authority comes from what the register
 * says, asked again and again. Heartbeats, leases of members and the judgement of who leaves and joins are those of the
 * embedded engine (leading.ts). Its host brings frames, the answers of etcd and time.
 *
 * The host must read the clock for each frame and each answer after it arrived: a challenger would else count the time
 * that the leader has from a moment before the challenge was there.
 */
import { assert } from '../../base/assert.js';
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { MembershipContent, MembershipMessage, MembershipMessageOf } from '../../wire/membership-messages.js';
import type { Challenge, RegisterState } from '../../wire/membership-register.js';
import type { Announcement } from '../../wire/protocol-version.js';
import type { Micros, RegisterResult } from '../effects.js';
import type { Run, View } from './composition.js';
import { names } from './composition.js';
import type { ServerList } from './configuration.js';
import { ServerLists } from './configuration.js';
import type { Agreement } from './leading.js';
import { Leading } from './leading.js';
import {
  ALONE_MICROS, CHALLENGE_AFTER_LEASES, CHALLENGE_LEASES_MAX, HEARD_LEASES, LOOK_MICROS, READ_LEASES, REST_LEASES,
  stretched,
} from './limits.js';
import { Mail } from './mail.js';
import { OwnRun } from './own-run.js';
import type { Peer } from './peers.js';
import { Peers } from './peers.js';
import type {
  MembershipContext, MembershipEngine, MembershipEvents, MembershipOptions, MembershipStatus,
} from './port.js';
import { Register } from './register.js';
import { Saving } from './saving.js';
import { Versions } from './versions.js';

/** Nobody leads yet. */
const NOTHING: RegisterState = { term: 0, leader: null, challenge: null, view: null };

export class EtcdMembership implements MembershipEngine {
  private readonly peers: Peers;
  private readonly versions: Versions;
  private readonly own: OwnRun;
  private readonly mail: Mail;
  /** Only so that a run knows whether its disk is new, and goes on if etcd lost its data. */
  private readonly saving: Saving;
  private readonly register: Register;
  private readonly servers: readonly NodeId[];
  private readonly lists: ServerLists;
  private term: number;
  private leading: Leading | null = null;
  /** A view of ours that is not in the register yet, as far as we know. */
  private proposal: { view: View; agreed: () => void } | null = null;
  /** A term is led once. */
  private lastLedTerm = 0;
  /** Whom we follow or followed last. */
  private leader: NodeId | null = null;
  private hasLeader = false;
  /** The challenge in the register, and since when we know it for certain to be there. */
  private challenge: { revision: number; since: Micros; isOurs: boolean; term: number } | null = null;
  private refusedRevision = 0;
  private heard: readonly NodeId[] = [];
  /** We want the lead from then on, if no leader is heard. */
  private quietUntil: Micros;
  /** A member that gets no lease by then wants the lead, although it hears the leader. */
  private leaseDueAt: Micros;
  /** Our challenge was answered. */
  private restUntil: Micros = -Infinity;
  private leaderlessSince: Micros | null = null;
  private lookAt: Micros;
  private tickDueAt: Micros = 0;

  constructor(
    private readonly context: MembershipContext,
    private readonly options: MembershipOptions,
    private readonly events: MembershipEvents,
  ) {
    const { self, incarnation, resumes, saved, leaseMicros, heartbeatMicros } = options;
    const servers = [...options.servers].sort((a, b) => a.node - b.node);
    assert(incarnation > 0, 'an incarnation is above 0');
    const role = servers.find(({ node }) => node === self)?.role;
    assert(role !== undefined, 'we are one of the configured servers');
    this.servers = servers.filter((server) => server.role === 'server').map(({ node }) => node);
    this.lists = new ServerLists(servers, null);
    this.peers = new Peers(servers.filter(({ node }) => node !== self));
    this.term = saved?.term ?? 0;
    this.saving = new Saving(context, { ...(saved ?? { term: 0, votedFor: null, accepted: null }), servers });
    const isBlank = (saved?.accepted ?? null) === null;
    this.versions = new Versions(context, { node: self, incarnation }, options.announcement);
    const run = { self, incarnation, resumes, isServer: role === 'server', isBlank };
    this.own = new OwnRun(context, run, this.versions, events, () => {
      this.stepDown('this run is over');
    });
    this.mail = new Mail(context, { incarnation, resumes, engine: 'etcd' }, this.peers, events, {
      term: () => this.term,
      accepted: () => this.saving.durableEpoch,
      newRun: (peer) => this.leading?.onNewRun(peer),
      take: (peer, message) => this.take(peer, message),
    });
    const readMicros = Math.max(2 * heartbeatMicros, Math.floor(READ_LEASES * leaseMicros));
    this.register = new Register(context, { readMicros, swapMicros: leaseMicros }, (state, askedAt) => {
      this.onRegisterState(state, askedAt);
    });
    const now = context.now();
    this.quietUntil = now + this.quietMicros;
    this.leaseDueAt = now + leaseMicros;
    this.lookAt = now;
    this.tickAt(now);
    this.own.lookAtProtocol(this.saving.accepted);
    context.timers.at(now, () => this.mail.helloFromSuccessor());
  }

  // --- what the rest of the daemon says

  onSaved(token: number, ok: boolean): void {
    this.saving.onSaved(token, ok);
  }

  onRegister(token: number, result: RegisterResult): void {
    this.register.onAnswer(token, result);
  }

  recovered(epoch: Epoch): void {
    this.own.recovered(epoch);
  }

  setAllHold(allHold: boolean): void {
    this.own.setAllHold(allHold);
  }

  announced(node: NodeId, incarnation: Incarnation, announcement: Announcement): void {
    this.versions.announced(node, incarnation, announcement);
  }

  setUnheard(nodes: Iterable<NodeId>): void {
    this.own.setUnheard(nodes);
  }

  setHeard(nodes: Iterable<NodeId>): void {
    this.heard = [...nodes].filter((node) => node !== this.options.self);
  }

  setWilling(willing: boolean): void {
    this.own.setWilling(willing);
  }

  leave(): void {
    if (this.own.released) return;
    this.own.release();
    this.stepDown('this run leaves');
    const leader = this.leader === null ? undefined : this.peers.get(this.leader);
    if (leader !== undefined && this.hasLeader) this.answer(leader, 0);
  }

  /** For people. */
  status(now: Micros = this.context.now()): MembershipStatus {
    const { leading, own } = this;
    const described = leading?.describe();
    const others = this.challenge?.isOurs === true && this.wantsLead(now) ? 'candidate' : 'follower';
    return {
      engine: 'etcd',
      role: leading !== null ? 'leader' : others,
      term: this.term,
      leader: this.hasLeader ? this.leader : null,
      view: own.installed,
      protocol: (own.installed ?? this.saving.accepted)?.protocol ?? null,
      isOver: own.over,
      authorityUntil: leading?.authority.until ?? null,
      leaseUntil: own.lease.until,
      promisedUntil: 0,
      proposal: described?.proposal ?? null,
      leaving: described?.leaving ?? [],
      configuration: this.serverList().configuration,
      isOutside: false,
      register: this.register.status(now),
      servers: this.peers.status(now),
    };
  }

  /** Not with this engine: what a majority of the servers is means nothing to it, and the file says who they are. */
  changeServers(): void {
    this.events.changeAnswered?.({ why: 'engine', about: [] });
  }

  serverList(): ServerList {
    return this.lists.of(undefined)!;
  }

  // --- time

  private get quietMicros(): Micros {
    return CHALLENGE_AFTER_LEASES * this.options.leaseMicros;
  }

  private tickAt(at: Micros): void {
    this.tickDueAt = at;
    this.context.timers.at(at, () => this.tick());
  }

  private tick(): void {
    const now = this.context.now();
    const { heartbeatMicros } = this.options;
    // if we ourselves were asleep, frames wait unread: nobody may be judged by the time we slept
    const sleptMicros = now - this.tickDueAt;
    if (sleptMicros >= heartbeatMicros) {
      this.peers.slept(sleptMicros, now);
      this.quietUntil = Math.max(this.quietUntil, now + heartbeatMicros);
    }
    this.tickAt(now + heartbeatMicros);
    this.leading?.tick();
    if (this.isBetweenLeads) for (const peer of this.peers.all) this.mail.hello(peer, false);
    const wants = this.wantsLead(now);
    if (wants) this.leaderlessSince ??= now;
    if (this.leading === null && !wants && now < this.lookAt) return;
    this.lookAt = now + LOOK_MICROS;
    this.register.read();
    this.act();
  }

  /** We led, and nobody took over yet: the next leader must not take us for dead. */
  private get isBetweenLeads(): boolean {
    return this.lastLedTerm > 0 && this.leading === null && !this.hasLeader && !this.own.over && !this.own.released;
  }

  private wantsLead(now: Micros): boolean {
    const { own } = this;
    if (this.leading !== null || !own.willing || own.over || !this.servers.includes(this.options.self)) return false;
    // nor could it lead what it cannot speak
    if (!this.versions.canJoin(own.installed ?? this.saving.accepted)) return false;
    return now >= this.quietUntil && now >= this.restUntil;
  }

  // --- the register

  /** It said this at `askedAt` or later. */
  private onRegisterState(state: RegisterState | null, askedAt: Micros): void {
    this.noteChallenge(state);
    const leads = state !== null && isRun(state.leader, this.own.run);
    if (this.leading !== null && !(leads && state.term === this.leading.term)) {
      this.stepDown(state === null ? 'the register is gone' : 'another server leads');
    }
    // what is below our term is of an etcd that lost its data: the next leader replaces it
    if (state !== null && state.term >= this.term) {
      // a new leader needs a moment to be heard
      if (state.term > this.term && !leads) this.expectLeader();
      this.term = state.term;
      if (state.view !== null) this.install(state.view);
    }
    if (this.leading !== null && leads) return this.goOnLeading(this.leading, state, askedAt);
    if (leads && state.term === this.term && state.term > this.lastLedTerm && !this.own.over) {
      return this.lead(state, askedAt);
    }
    this.act();
  }

  private noteChallenge(state: RegisterState | null): void {
    const now = this.context.now();
    const before = this.challenge;
    const { revision } = this.register;
    const challenge = state?.challenge ?? null;
    if (challenge === null) {
      this.challenge = null;
      // the leader lives: it is only we who do not hear it
      const isAnswered = before?.isOurs === true && state !== null && state.term === before.term;
      if (isAnswered) this.restUntil = now + REST_LEASES * this.options.leaseMicros;
      return;
    }
    // each state that was swapped in has a revision of its own
    if (before?.revision === revision) return;
    const isOurs = isRun(challenge, this.own.run);
    this.challenge = { revision, since: now, isOurs, term: state?.term ?? 0 };
    if (isOurs) this.context.timers.at(now + stretched(this.options.leaseMicros), () => this.act());
  }

  /** What a server that wants the lead does about it. */
  private act(): void {
    const now = this.context.now();
    if (!this.register.isKnown || !this.wantsLead(now)) return;
    const { challenge, register } = this;
    const { leaseMicros } = this.options;
    const state = register.state ?? NOTHING;
    if (challenge?.isOurs === true) {
      // whoever led saw it since then, or has no authority any more
      if (now < challenge.since + stretched(leaseMicros)) return;
      const term = Math.max(state.term, this.term) + 1;
      register.swap({ term, leader: this.own.run, challenge: null, view: state.view });
      return;
    }
    if (challenge !== null && now < challenge.since + CHALLENGE_LEASES_MAX * leaseMicros) return;
    const hasStood = register.swap({ ...state, challenge: { ...this.own.run, hears: this.heardNow() } });
    if (!hasStood) return;
    this.context.count('membership.stood');
    if (this.leader !== null) this.events.suspects?.(new Map([[this.leader, { why: 'silent', by: [] }]]));
  }

  /** Without the leader: we would not challenge it if it were of use to us. */
  private heardNow(): NodeId[] {
    const others = this.heard.filter((node) => node !== this.leader && this.servers.includes(node));
    return [...others, this.options.self].sort((a, b) => a - b);
  }

  // --- leading

  private lead(state: RegisterState, askedAt: Micros): void {
    const { context, options, peers, own } = this;
    const { self, heartbeatMicros, leaseMicros } = options;
    const now = context.now();
    // the former leader is dead when we lead soon; when that took long, we may all have been cut off
    const tookLong = now - (this.leaderlessSince ?? now) > CHALLENGE_LEASES_MAX * leaseMicros;
    peers.expectFromNow(now, tookLong ? null : this.leader);
    this.leaderlessSince = null;
    this.leader = self;
    this.hasLeader = true;
    this.lastLedTerm = state.term;
    context.count('membership.elected');
    context.log('info', 'membership.leads', { term: state.term });
    // a lead without authority goes on: only the register says whether another has taken it
    const times = {
      heartbeatMicros, leaseMicros, inheritedMicros: 0, stepDownLeases: Infinity, aloneMicros: ALONE_MICROS,
    };
    const lead = { self: own.asLeader, lists: this.lists, versions: this.versions, ...times };
    const leading = new Leading(context, lead, this.agreement(state), peers, () => own.news(), {
      send: (peer, content) => this.send(peer, content),
      install: (view) => this.install(view),
      lease: (until) => own.extendLease(until),
      stepDown: (why) => this.giveUpLead(why),
      suspects: (reasons) => this.events.suspects?.(reasons),
      proposed: (proposal, leaseOver) => this.events.proposed?.(proposal, leaseOver),
    }, state.term);
    this.leading = leading;
    leading.start();
    if (this.leading === leading) this.goOnLeading(leading, state, askedAt);
  }

  private agreement(state: RegisterState): Agreement {
    const { accepted } = this.saving;
    // newer than the register's only if etcd lost its data, or the pool had the other engine
    const base = accepted !== null && accepted.epoch > (state.view?.epoch ?? 0) ? accepted : state.view;
    return {
      counted: null,
      tellsProposals: false,
      base: () => base,
      propose: (view, agreed) => {
        this.proposal = { view, agreed };
        this.write();
      },
      accepted: () => undefined,
    };
  }

  /** The register says that we lead. */
  private goOnLeading(leading: Leading, state: RegisterState, askedAt: Micros): void {
    const { proposal } = this;
    if (state.challenge !== null) {
      if (!this.yieldsTo(state.challenge)) this.write();
      return;
    }
    leading.confirmed(askedAt);
    if (this.leading !== leading || proposal === null) return;
    if (state.view?.epoch !== proposal.view.epoch) return this.write();
    this.proposal = null;
    proposal.agreed();
  }

  /** Writes what we want to be there. The same until it is there, since one that got lost may still come. */
  private write(): void {
    const { leading, register } = this;
    const { state } = register;
    if (leading === null || state === null) return;
    if (state.challenge !== null && this.yieldsTo(state.challenge)) return;
    register.swap({
      term: leading.term,
      leader: this.own.run,
      challenge: null,
      view: this.proposal?.view ?? state.view,
    });
  }

  /**
   * Whether the challenger is the better leader: more servers hear it, and are heard by it, than answer us. Then we let
   * our authority run out.
   */
  private yieldsTo({ node, hears }: Challenge): boolean {
    const { context } = this;
    const since = context.now() - HEARD_LEASES * this.options.leaseMicros;
    const answer = this.peers.all.filter((peer) => peer.role === 'server' && peer.unansweredFrom >= since).length;
    const yields = node !== this.options.self && hears.length > answer + 1;
    const { revision } = this.register;
    if (yields && this.refusedRevision !== revision) {
      this.refusedRevision = revision;
      context.count('membership.challenge.yielded');
      context.log('warn', 'membership.challenged', {
        by: node,
        hears,
        meaning: 'that server and more others hear each other than this one and others: it gets the lead',
        remedy: 'see what is wrong with the interconnect of this server',
      });
    }
    return yields;
  }

  private giveUpLead(why: string): void {
    this.stepDown(why);
    this.restUntil = this.context.now() + REST_LEASES * this.options.leaseMicros;
  }

  private stepDown(why: string): void {
    const { leading } = this;
    if (leading === null) return;
    this.context.count('membership.stepped-down');
    this.context.log('info', 'membership.steps-down', { term: leading.term, why });
    leading.end();
    this.leading = null;
    this.proposal = null;
    this.events.suspects?.(new Map());
    this.hasLeader = false;
    this.expectLeader();
  }

  private expectLeader(): void {
    const now = this.context.now();
    this.quietUntil = now + this.options.leaseMicros;
    this.leaseDueAt = now + this.options.leaseMicros;
  }

  // --- frames

  onFrame(from: NodeId, incarnation: Incarnation, body: Uint8Array): void {
    this.mail.onFrame(from, incarnation, body);
  }

  private take(peer: Peer, message: MembershipMessage): void {
    switch (message.kind) {
      case 'hello':
        peer.accepted = message.accepted;
        if (message.answerWanted) this.mail.hello(peer, false);
        return;
      case 'heartbeat':
        return this.onHeartbeat(peer, message);
      case 'answer':
        return this.onAnswer(peer, message);
      // this engine has no votes
      default:
        return this.mail.refuse(peer.node, 'no-votes');
    }
  }

  private send(peer: Peer, content: MembershipContent): void {
    this.mail.send(peer, content);
  }

  private onHeartbeat(peer: Peer, message: MembershipMessageOf<'heartbeat'>): void {
    // the sender learns that its term is over
    if (message.term < this.term) return this.answer(peer, 0);
    if (message.term > this.term) this.raiseTerm(message.term);
    if (this.leading !== null) return this.mail.refuse(peer.node, 'second-leader');
    const now = this.context.now();
    if (this.leader !== peer.node) this.leaseDueAt = now + this.options.leaseMicros;
    this.leader = peer.node;
    this.hasLeader = true;
    const { view, agreed } = message;
    if (view !== null && this.own.isUnspeakable(view)) return this.mail.refuse(peer.node, 'protocol');
    if (view !== null && view.epoch === agreed) {
      this.events.proposed?.(view, new Map());
      this.install(view);
    }
    this.own.takeLease(message);
    this.leaseDueAt = Math.max(this.leaseDueAt, this.own.lease.until);
    // its authority may have run out for good: then another must lead that reaches etcd
    const isStarved = names(this.own.installed, this.own.run) && now > this.leaseDueAt;
    if (!isStarved) {
      this.quietUntil = now + this.quietMicros;
      this.leaderlessSince = null;
    }
    this.answer(peer, message.sentAt);
  }

  private answer(peer: Peer, echo: Micros): void {
    this.send(peer, this.own.answer(echo, this.saving.durableEpoch));
  }

  private onAnswer(peer: Peer, message: MembershipMessageOf<'answer'>): void {
    if (message.term > this.term) return this.raiseTerm(message.term);
    const { leading } = this;
    if (leading === null || message.term !== leading.term) return;
    this.peers.answered(peer, message);
    leading.onAnswer(peer, message);
  }

  /** Another server knows of a later lead than ours, from etcd or from its disk. */
  private raiseTerm(term: number): void {
    this.term = term;
    this.stepDown('another server has a higher term');
    this.expectLeader();
  }

  /** The view is agreed. */
  private install(view: View): void {
    const { saving } = this;
    if (this.own.isUnspeakable(view)) return this.own.lookAtProtocol(view);
    if (view.epoch > saving.acceptedEpoch) saving.change({ term: this.term, votedFor: null, accepted: view });
    const hasJoined = names(view, this.own.run) && !names(this.own.installed, this.own.run);
    this.own.install(view);
    if (hasJoined) this.leaseDueAt = this.context.now() + this.options.leaseMicros;
  }
}

function isRun(a: Run | null, b: Run): boolean {
  return a !== null && a.node === b.node && a.incarnation === b.incarnation;
}
