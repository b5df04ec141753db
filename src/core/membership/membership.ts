/**
 * Who belongs to the pool, and until when (docs/decisions/membership.md): the embedded engine. Its host brings frames,
 * the answers of the disk and time; it tells views in the order of epochs and until when our run may serve.
 *
 * The host must read the clock for each frame after the frame arrived: a promise counted from a time before the
 * heartbeat was sent ends too early.
 */
import { assert } from '../../base/assert.js';
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { Configuration } from '../../wire/membership-configuration.js';
import type {
  MembershipContent, MembershipMessage, MembershipMessageOf, ServersChange,
} from '../../wire/membership-messages.js';
import { serversMessages } from '../../wire/membership-messages.js';
import type { ConfiguredServer, SavedMembership } from '../../wire/membership-state.js';
import type { Announcement } from '../../wire/protocol-version.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';
import type { Run, View } from './composition.js';
import { names } from './composition.js';
import type { ServerList } from './configuration.js';
import { ServerLists, fileServersIn, isMajority, presentIn } from './configuration.js';
import { Leading } from './leading.js';
import { FRESH_WAIT_LEASES, PROMISE_LEASES, REST_LEASES, STEP_DOWN_LEASES, stretched } from './limits.js';
import { Mail } from './mail.js';
import { MajorityAgreement } from './majority.js';
import { OwnRun } from './own-run.js';
import type { Peer } from './peers.js';
import { Peers } from './peers.js';
import type {
  MembershipContext, MembershipEngine, MembershipEvents, MembershipOptions, MembershipStatus,
} from './port.js';
import { Saving } from './saving.js';
import { ServersWish } from './servers-wish.js';
import { Versions } from './versions.js';
import type { Candidate } from './voting.js';
import { Candidacy, Voting } from './voting.js';

export type { MembershipContext, MembershipEvents, MembershipOptions, MembershipStatus } from './port.js';
export type { FormerView, Member, Run, View } from './composition.js';

export class Membership implements MembershipEngine {
  private readonly peers: Peers;
  private readonly saving: Saving;
  private readonly voting: Voting;
  private readonly versions: Versions;
  private readonly own: OwnRun;
  private readonly mail: Mail;
  private readonly isServer: boolean;
  private readonly promiseMicros: Micros;
  /** How much longer than a promise a lease that was given before it may last. */
  private readonly inheritedMicros: Micros;
  private readonly lists: ServerLists;
  private readonly wish: ServersWish;
  private leading: Leading | null = null;
  private candidacy: Candidacy | null = null;
  /** When we stood last, no majority answered: we could not lead, and stand in nobody's way. */
  private isUnanswered = false;
  /** Whom we follow or followed last. */
  private leader: NodeId | null = null;
  private hasLeader = false;
  private standTimer: Timer | null = null;
  /** Since when we want to lead, or see that nobody does; null: somebody leads. */
  private leaderlessSince: Micros | null = null;
  private tickDueAt: Micros = 0;
  /** A server that never saved anything, in a pool that may be fresh as a whole. */
  private isFresh: boolean;
  /** A newer agreed view than ours has servers of which we are none. */
  private outside: View | null = null;
  /** The view of the last heartbeat has servers of which we do not know all that was written. */
  private lacksServers = false;
  private greetedAt: Micros = -Infinity;
  private ledAt: Micros;
  private readonly startedAt: Micros;

  constructor(
    private readonly context: MembershipContext,
    private readonly options: MembershipOptions,
    private readonly events: MembershipEvents,
  ) {
    const { self, incarnation, resumes, saved, leaseMicros } = options;
    const servers = [...options.servers].sort((a, b) => a.node - b.node);
    assert(incarnation > 0, 'an incarnation is above 0');
    const own = servers.find(({ node }) => node === self);
    assert(own !== undefined, 'we are one of the configured servers');
    this.isServer = own.role === 'server';
    this.promiseMicros = PROMISE_LEASES * leaseMicros;
    this.inheritedMicros = stretched(leaseMicros - this.promiseMicros);
    const agreed = saved?.accepted?.configuration;
    this.lists = new ServerLists(servers, agreed === undefined ? null : saved!.servers);
    this.peers = new Peers(this.othersOf(agreed));
    this.startedAt = context.now();
    this.ledAt = this.startedAt;
    this.isFresh = saved === null;
    if (saved !== null && agreed === undefined) this.compareServers(saved, servers);
    this.versions = new Versions(context, { node: self, incarnation }, options.announcement);
    const kept = agreed === undefined ? servers : saved!.servers;
    this.saving = new Saving(context, { ...(saved ?? { term: 0, votedFor: null, accepted: null }), servers: kept });
    this.wish = new ServersWish(context, events, {
      leading: () => this.leading,
      leader: () => (this.hasLeader && this.leader !== null ? this.peers.get(this.leader) ?? null : null),
      send: (peer, content) => this.send(peer, content),
    });
    // a promise of the run before may still hold, and if it led alone, its lease; who never saved anything never did
    const boundUntil = saved === null ? -Infinity : context.now() + stretched(leaseMicros);
    this.voting = new Voting(this.saving, this.promiseMicros, boundUntil);
    const isBlank = (saved?.accepted ?? null) === null;
    const run = { self, incarnation, resumes, isServer: this.isServer, isBlank };
    this.own = new OwnRun(context, run, this.versions, events, () => this.stepDown('this run is over'));
    this.mail = new Mail(context, { incarnation, resumes, engine: 'embedded' }, this.peers, events, {
      term: () => this.saving.term,
      accepted: () => this.saving.durableEpoch,
      newRun: (peer) => this.onNewRun(peer),
      take: (peer, message) => this.take(peer, message),
      stranger: (run, message) => this.onStranger(run, message),
    });
    this.standLater(context.now() + stretched(leaseMicros));
    this.tickAt(context.now());
    this.own.lookAtProtocol(this.saving.accepted);
    context.timers.at(context.now(), () => this.mail.helloFromSuccessor());
  }

  // --- the servers

  private configurationOf(view: View | null): Configuration {
    return this.lists.of(view?.configuration)!.configuration;
  }

  /** Of the newest view that we accepted: it counts from then on, agreed or not. */
  private get configuration(): Configuration {
    return this.configurationOf(this.saving.accepted);
  }

  private othersOf(configuration: Configuration | undefined): ConfiguredServer[] {
    const list = this.lists.of(configuration);
    assert(list !== null, 'the servers of what we accepted are known');
    const present = new Set(presentIn(list.configuration));
    return list.servers.filter(({ node }) => node !== this.options.self && present.has(node));
  }

  /** Accepts a view. False: not all is known of its servers. */
  private accept(view: View, change: { term?: number; votedFor?: null } = {}): boolean {
    const list = this.lists.of(view.configuration);
    if (list === null) return false;
    const before = this.configuration.number;
    this.saving.change({ ...change, accepted: view, servers: list.servers });
    if (before === list.configuration.number) return true;
    this.peers.setServers(this.othersOf(view.configuration));
    this.events.servers?.(list);
    return true;
  }

  serverList(): ServerList {
    return this.lists.of(this.saving.accepted?.configuration)!;
  }

  changeServers(change: ServersChange): void {
    this.wish.wish(change);
  }

  /**
   * A server that we do not know: either we are none of its pool any more, or it is none of ours. Those that ask are
   * told the newest agreed view that we know, if they are none of its servers (we may have accepted that it is taken
   * out, and nobody agreed yet); one that leads us, and whose view has both of us, is one of ours.
   */
  private onStranger(run: Run, message: MembershipMessage): Peer | null {
    switch (message.kind) {
      case 'hello':
      case 'pre-vote':
      case 'vote': {
        const { installed } = this.own;
        if (installed === null || presentIn(this.configurationOf(installed)).includes(run.node)) return null;
        this.mail.send(run, { kind: 'outside', view: installed });
        return null;
      }
      case 'servers':
        this.lists.learn(message.digest, message.servers);
        return null;
      case 'outside':
        this.onOutside(run, message.view);
        return null;
      case 'heartbeat': {
        const { view } = message;
        if (view?.configuration === undefined || view.epoch <= this.saving.acceptedEpoch) return null;
        const present = presentIn(view.configuration);
        if (!present.includes(run.node) || !present.includes(this.options.self)) return null;
        return this.peers.add({ node: run.node, role: 'server' });
      }
      default:
        return null;
    }
  }

  private onOutside(peer: Run, view: View): void {
    const { configuration } = view;
    const isIn = configuration !== undefined && presentIn(configuration).includes(this.options.self);
    if (view.epoch <= this.saving.acceptedEpoch || isIn || this.leads()) return;
    this.candidacy = null;
    this.stepDown('this server is not in the pool any more');
    if (this.outside === null) {
      this.context.count('membership.outside');
      this.context.log('warn', 'membership.outside', {
        told: peer.node,
        epoch: view.epoch,
        meaning: 'this server is none of the pool: it was taken out, or never taken in',
        remedy: 'smbpool status says what to do',
      });
    }
    this.outside = view;
    if (names(this.own.installed, this.own.run) && !this.own.over) this.own.end(view);
  }

  private compareServers(saved: SavedMembership, servers: readonly ConfiguredServer[]): void {
    const text = (list: readonly ConfiguredServer[]): string => list.map(({ node, role }) => `${node} ${role}`).join();
    if (text(saved.servers) === text(servers)) return;
    this.context.log('warn', 'membership.servers.changed', {
      were: text(saved.servers),
      are: text(servers),
      meaning: 'the list of servers is another than when this server ran last; it must be the same on all of them',
    });
  }

  // --- what the rest of the daemon says

  /** The host's answer to the effect membership-save. */
  onSaved(token: number, ok: boolean): void {
    this.saving.onSaved(token, ok);
  }

  /** There is no register. */
  onRegister(): void {
    this.context.count('membership.register.unknown');
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

  /** Candidates need votes, not ears. */
  setHeard(): void {}

  setWilling(willing: boolean): void {
    this.own.setWilling(willing);
  }

  leave(): void {
    if (this.own.released) return;
    this.candidacy = null;
    this.own.release();
    this.stepDown('this run leaves');
    const leader = this.leader === null ? undefined : this.peers.get(this.leader);
    if (leader !== undefined && this.hasLeader) this.answer(leader, 0);
  }

  /** For people. */
  status(now: Micros = this.context.now()): MembershipStatus {
    const { saving, leading } = this;
    const roles = leading !== null ? 'leader' : this.candidacy !== null ? 'candidate' : 'follower';
    const described = leading?.describe();
    return {
      engine: 'embedded',
      role: this.isServer ? roles : 'witness',
      term: saving.term,
      leader: this.hasLeader ? this.leader : null,
      view: this.own.installed,
      protocol: (this.own.installed ?? saving.accepted)?.protocol ?? null,
      isOver: this.own.over,
      authorityUntil: leading?.authority.until ?? null,
      leaseUntil: this.own.lease.until,
      promisedUntil: this.voting.promisedUntil,
      proposal: described?.proposal ?? null,
      leaving: described?.leaving ?? [],
      configuration: this.configuration,
      isOutside: this.outside !== null,
      register: null,
      servers: this.peers.status(now),
    };
  }

  // --- time

  private tickAt(at: Micros): void {
    this.tickDueAt = at;
    this.context.timers.at(at, () => this.tick());
  }

  private tick(): void {
    const now = this.context.now();
    const { heartbeatMicros } = this.options;
    // if we ourselves were asleep, frames wait unread: nobody may be judged by the time we slept
    const sleptMicros = now - this.tickDueAt;
    if (sleptMicros >= heartbeatMicros) this.peers.slept(sleptMicros, now);
    this.tickAt(now + heartbeatMicros);
    if (this.leading !== null) this.leading.tick();
    else if (this.candidacy !== null) this.ask();
    else {
      if (this.isFresh && !this.hasLeader) this.greet();
      this.greetAgain(now);
    }
    this.wish.pursue(this.own.installed === null ? null : this.lists.of(this.own.installed.configuration));
  }

  /** Whoever does not stand says nothing by itself; one that was taken out would never be told so. */
  private greetAgain(now: Micros): void {
    const { leaseMicros } = this.options;
    if (now - Math.max(this.ledAt, this.greetedAt) < STEP_DOWN_LEASES * leaseMicros) return;
    this.greetedAt = now;
    for (const peer of this.peers.all) this.mail.hello(peer, false);
  }

  /** Sets when we stand for election, if nothing comes in between. */
  private standLater(base: Micros): void {
    const at = base + this.placeOf(this.options.self) * this.options.heartbeatMicros + this.marginMicros();
    this.standTimer?.cancel();
    this.standTimer = this.context.timers.at(at, () => this.stand(at));
  }

  /** The others' promises began when ours did, or a little later. */
  private marginMicros(): Micros {
    return stretched(this.promiseMicros) - this.promiseMicros;
  }

  /** Servers stand one after the other, beginning behind the last leader, so that votes are rarely split. */
  private placeOf(server: NodeId, last = this.leader ?? this.saving.accepted?.leader ?? -1): number {
    const servers = fileServersIn(this.configuration);
    const order = servers.sort((a, b) => Number(a <= last) - Number(b <= last) || a - b);
    return Math.max(0, order.indexOf(server));
  }

  // --- standing

  private stand(dueAt: Micros): void {
    const now = this.context.now();
    const { heartbeatMicros, leaseMicros, self } = this.options;
    const { configuration } = this;
    if (this.leading !== null || !this.isServer) return;
    this.hasLeader = false;
    this.leaderlessSince ??= now;
    const isLate = now - dueAt >= heartbeatMicros;
    const isCounted = this.outside === null && configuration.counted.includes(self);
    const isAble = isCounted && !this.own.over && this.own.willing && this.versions.canJoin(this.saving.accepted);
    if (isLate || !isAble) return this.standLater(now + (isLate ? 0 : leaseMicros));
    if (this.voting.isBound(now)) return this.standLater(this.voting.promisedUntil);
    const { accepted } = this.saving;
    // perhaps never agreed, but we could neither lead without being a member nor join again
    if (accepted !== null && this.own.isOverIn(accepted)) return this.own.end(accepted);
    this.noteAnswers();
    this.candidacy = new Candidacy(this.saving.term + 1, now, configuration);
    this.context.count('membership.stood');
    // when nothing comes of it, again
    this.standLater(now + 2 * heartbeatMicros);
    this.candidacy.answer(this.options.self, true);
    this.ask();
    this.maybeWin();
  }

  private noteAnswers(): void {
    if (this.candidacy !== null) this.isUnanswered = !this.candidacy.isAnswered;
  }

  /** Asks all that did not say yes yet. */
  private ask(): void {
    const { candidacy } = this;
    if (candidacy === null) return;
    for (const peer of this.peers.all) this.askOne(candidacy, peer);
  }

  private askOne(candidacy: Candidacy, peer: Peer): void {
    // our own vote comes first, when it is on disk
    if (candidacy.hasAnswered(peer.node) || !candidacy.hasAnswered(this.options.self)) return;
    const { phase, startedAt } = candidacy;
    this.send(peer, { kind: phase, accepted: this.saving.acceptedEpoch, sentAt: startedAt }, candidacy.term);
  }

  private maybeWin(): void {
    const { candidacy, saving } = this;
    if (candidacy === null) return;
    if (candidacy.isLost) {
      this.noteAnswers();
      this.candidacy = null;
      return;
    }
    if (!candidacy.isWon) return;
    if (candidacy.phase === 'vote') return this.lead(candidacy.term);
    candidacy.startVote();
    saving.change({ term: candidacy.term, votedFor: this.options.self });
    this.standLater(this.context.now() + 2 * this.options.leaseMicros);
    saving.whenSaved(() => {
      if (this.candidacy !== candidacy) return;
      candidacy.answer(this.options.self, true);
      this.ask();
      this.maybeWin();
    });
  }

  private lead(term: number): void {
    const { context, options, saving, peers } = this;
    const { self, heartbeatMicros, leaseMicros } = options;
    this.candidacy = null;
    this.standTimer?.cancel();
    // the former leader is dead when we were elected at once; when that took long, we may all have been cut off
    const now = context.now();
    const tookLong = now - (this.leaderlessSince ?? now) > leaseMicros;
    peers.expectFromNow(now, tookLong ? null : this.leader);
    this.leaderlessSince = null;
    this.leader = self;
    this.hasLeader = true;
    this.isFresh = false;
    context.count('membership.elected');
    context.log('info', 'membership.leads', { term });
    const { inheritedMicros } = this;
    const times = { heartbeatMicros, leaseMicros, inheritedMicros, stepDownLeases: STEP_DOWN_LEASES, aloneMicros: 0 };
    const lead = { self: this.own.asLeader, lists: this.lists, versions: this.versions, ...times };
    const agreement = new MajorityAgreement(self, {
      accepted: () => saving.accepted,
      accept: (view, saved) => {
        assert(this.accept(view), 'a leader knows the servers of its own view');
        saving.whenSaved(saved);
      },
      configurationOf: (view) => this.configurationOf(view),
    });
    this.leading = new Leading(context, lead, agreement, peers, () => this.own.news(), {
      send: (peer, content) => this.send(peer, content),
      install: (view) => this.install(view),
      tellServers: (peer) => {
        if (saving.accepted !== null) this.tellServers(peer, saving.accepted);
      },
      lease: (until) => this.own.extendLease(until),
      stepDown: (why) => this.giveUpLead(why),
      suspects: (reasons) => this.events.suspects?.(reasons),
      proposed: (proposal, leaseOver) => this.events.proposed?.(proposal, leaseOver),
    }, term);
    this.leading.start();
  }

  private install(view: View): void {
    if (this.lists.of(view.configuration) === null) return;
    this.own.install(view);
  }

  /** The leader ends its lead of its own will. */
  private giveUpLead(why: string): void {
    this.stepDown(why);
    this.standLater(this.context.now() + REST_LEASES * this.options.leaseMicros);
  }

  private stepDown(why: string): void {
    if (this.leading === null) return;
    this.context.count('membership.stepped-down');
    this.context.log('info', 'membership.steps-down', { term: this.leading.term, why });
    // members may serve until then
    this.voting.bind(this.leading.authority.until);
    this.leading.end();
    this.leading = null;
    this.events.suspects?.(new Map());
    this.hasLeader = false;
    this.standLater(this.context.now() + this.options.leaseMicros);
  }

  /** Another server has a higher term: whatever we were in ours is over. */
  private raiseTerm(term: number): void {
    this.stepDown('another server has a higher term');
    this.candidacy = null;
    this.saving.change({ term, votedFor: null });
  }

  // --- frames

  onFrame(from: NodeId, incarnation: Incarnation, body: Uint8Array): void {
    this.mail.onFrame(from, incarnation, body);
  }

  private onNewRun(peer: Peer): void {
    if (this.leading !== null) this.leading.onNewRun(peer);
    else if (this.candidacy !== null) this.askOne(this.candidacy, peer);
  }

  private take(peer: Peer, message: MembershipMessage): void {
    switch (message.kind) {
      case 'hello':
        peer.accepted = message.accepted;
        if (message.answerWanted) this.mail.hello(peer, false);
        return this.standAtOnce();
      case 'pre-vote':
        return this.onPreVote(peer, message);
      case 'pre-vote-answer':
        return this.onPreVoteAnswer(peer, message);
      case 'vote':
        return this.onVote(peer, message);
      case 'vote-answer':
        return this.onVoteAnswer(peer, message);
      case 'heartbeat':
        return this.onHeartbeat(peer, message);
      case 'answer':
        return this.onAnswer(peer, message);
      case 'servers':
        return this.lists.learn(message.digest, message.servers);
      case 'outside':
        return this.onOutside(peer, message.view);
      case 'change':
        return this.wish.asked(peer, message);
      case 'change-refused':
        return this.wish.refused(message);
    }
  }

  private send(peer: Peer, content: MembershipContent, term = this.saving.term): void {
    this.mail.send(peer, content, term);
  }

  // --- a pool that never was

  private greet(): void {
    for (const peer of this.peers.all) if (peer.incarnation === 0) this.mail.hello(peer, true);
    this.standAtOnce();
  }

  /** Nobody of a majority ever accepted a view: no leader to wait for, no promise to respect. */
  private standAtOnce(): void {
    if (!this.isFresh || this.hasLeader || this.candidacy !== null || this.saving.term > 0) return;
    const { configuration } = this;
    const { self, leaseMicros } = this.options;
    const heard = this.peers.all.filter(({ incarnation }) => incarnation > 0);
    const isHeard = (server: NodeId): boolean => server === self || heard.some(({ node }) => node === server);
    if (!isMajority(configuration, isHeard) || heard.some(({ accepted }) => accepted > 0)) return;
    // who is not heard yet may know of a pool in which we are not
    const isTooSoon = this.context.now() - this.startedAt < FRESH_WAIT_LEASES * leaseMicros;
    if (this.outside !== null || (isTooSoon && heard.length < this.peers.all.length)) return;
    this.isFresh = false;
    const before = heard.filter(({ node, role }) => role === 'server' && node < this.options.self).length;
    const at = this.context.now() + before * this.options.heartbeatMicros;
    this.standTimer?.cancel();
    this.standTimer = this.context.timers.at(at, () => this.stand(at));
  }

  // --- votes

  private onPreVote(peer: Peer, { term, accepted, sentAt }: MembershipMessageOf<'pre-vote' | 'vote'>): void {
    const candidate = { node: peer.node, term, accepted };
    const isFree = !this.leads() && this.voting.wouldVote(candidate, this.context.now());
    const granted = isFree && !this.goesBefore(candidate);
    if (granted && this.candidacy?.phase === 'pre-vote') this.candidacy = null;
    this.answerVote(peer, 'pre-vote-answer', granted, { echo: sentAt, accepted });
  }

  /**
   * Two that stand at once would split the votes: the one whose place is first goes on, unless it knows less, or is
   * cut off from so many that it cannot win. The place behind the leader of the view that both know last: of later
   * leaders perhaps only one of them has heard, and both would go on, with the same period, for ever.
   */
  private goesBefore({ node, accepted }: Candidate): boolean {
    const { candidacy, saving, options } = this;
    if (candidacy === null || this.isUnanswered || saving.acceptedEpoch < accepted) return false;
    const last = saving.accepted?.leader ?? -1;
    return this.placeOf(options.self, last) < this.placeOf(node, last);
  }

  /** A live leader is not voted out, not even by itself. */
  private leads(): boolean {
    return this.leading !== null && this.context.now() < this.leading.authority.until;
  }

  private onPreVoteAnswer(peer: Peer, message: MembershipMessageOf<'pre-vote-answer' | 'vote-answer'>): void {
    peer.accepted = message.accepted;
    if (this.adopt(message)) return;
    if (message.term > this.saving.term && !message.granted) return this.learnTerm(message.term);
    const { candidacy } = this;
    if (candidacy?.phase !== 'pre-vote' || message.echo !== candidacy.startedAt) return;
    candidacy.answer(peer.node, message.granted);
    this.maybeWin();
  }

  /** A refused candidate was behind: it stands again soon. */
  private learnTerm(term: number): void {
    if (this.candidacy === null) return;
    this.raiseTerm(term);
    this.standLater(this.context.now());
  }

  private onVote(peer: Peer, { term, accepted, sentAt }: MembershipMessageOf<'pre-vote' | 'vote'>): void {
    const { saving, voting, context } = this;
    const now = context.now();
    if (!this.leads() && !voting.isBound(now)) {
      if (term > saving.term) this.stepDown('another server stands in a higher term');
      if (voting.vote({ node: peer.node, term, accepted }, now)) {
        this.candidacy = null;
        this.standLater(now + this.promiseMicros);
        saving.whenSaved(() => {
          if (saving.term !== term || saving.votedFor !== peer.node) return;
          this.answerVote(peer, 'vote-answer', true, { echo: sentAt, accepted });
        });
        return;
      }
      if (term > saving.term) this.raiseTerm(term);
    }
    this.answerVote(peer, 'vote-answer', false, { echo: sentAt, accepted });
  }

  private answerVote(
    peer: Peer,
    kind: 'pre-vote-answer' | 'vote-answer',
    granted: boolean,
    asked: { echo: Micros; accepted: number },
  ): void {
    const { saving } = this;
    // a witness, or whoever cannot stand, may be the only one left that has the newest view
    const view = asked.accepted < saving.acceptedEpoch ? saving.accepted : null;
    if (view?.configuration !== undefined) this.tellServers(peer, view);
    this.send(peer, { kind, granted, accepted: saving.durableEpoch, echo: asked.echo, view });
  }

  /** What was written of the servers of the view. */
  private tellServers(peer: Peer, view: View): void {
    const list = this.lists.of(view.configuration);
    if (list === null) return;
    for (const content of serversMessages(list.configuration.digest, list.servers)) this.send(peer, content);
  }

  /** A voter has a newer view than we: we take it over, with the voter's term, and stand again soon. */
  private adopt({ term, view }: MembershipMessageOf<'pre-vote-answer' | 'vote-answer'>): boolean {
    const { saving } = this;
    if (view === null || this.candidacy === null || view.epoch <= saving.acceptedEpoch) return false;
    if (this.own.isUnspeakable(view)) return false;
    if (!this.accept(view, term > saving.term ? { term, votedFor: null } : {})) return false;
    this.candidacy = null;
    this.standLater(this.context.now());
    return true;
  }

  private onVoteAnswer(peer: Peer, message: MembershipMessageOf<'pre-vote-answer' | 'vote-answer'>): void {
    peer.accepted = message.accepted;
    if (this.adopt(message)) return;
    if (message.term > this.saving.term) return this.learnTerm(message.term);
    const { candidacy } = this;
    if (candidacy?.phase !== 'vote' || message.echo !== candidacy.startedAt) return;
    candidacy.answer(peer.node, message.granted && message.term === candidacy.term);
    this.maybeWin();
  }

  // --- following

  private onHeartbeat(peer: Peer, message: MembershipMessageOf<'heartbeat'>): void {
    const { saving, context } = this;
    const now = context.now();
    if (message.view !== null && this.own.isUnspeakable(message.view)) return this.mail.refuse(peer.node, 'protocol');
    // the sender learns that its term is over
    if (message.term < saving.term) return this.answer(peer, 0);
    if (message.term > saving.term) this.raiseTerm(message.term);
    if (this.leading !== null) return this.mail.refuse(peer.node, 'second-leader');
    this.candidacy = null;
    this.isUnanswered = false;
    this.leaderlessSince = null;
    this.leader = peer.node;
    this.hasLeader = true;
    this.isFresh = false;
    this.outside = null;
    this.ledAt = now;
    this.standLater(now + stretched(this.promiseMicros));
    const { view, agreed } = message;
    this.lacksServers = view !== null && this.lists.of(view.configuration) === null;
    if (view !== null && view.epoch > saving.acceptedEpoch && this.accept(view)) {
      this.events.proposed?.(view, new Map());
    }
    if (view !== null && view.epoch === agreed) this.install(view);
    else if (saving.accepted?.epoch === agreed) this.install(saving.accepted);
    this.own.takeLease(message);
    this.answerHeartbeat(peer, message);
  }

  /** At once if the term is on disk, and again when something new is. */
  private answerHeartbeat(peer: Peer, { term, sentAt }: MembershipMessageOf<'heartbeat'>): void {
    const { saving } = this;
    const { durableEpoch, durableTerm } = saving;
    if (durableTerm === term) this.answerNow(peer, sentAt);
    if (durableTerm === term && durableEpoch === saving.acceptedEpoch) return;
    saving.whenSaved(() => {
      if (saving.term === term && this.leading === null) this.answerNow(peer, sentAt);
    });
  }

  private answerNow(peer: Peer, echo: Micros): void {
    this.voting.promise(this.context.now());
    this.answer(peer, echo);
  }

  private answer(peer: Peer, echo: Micros): void {
    const answer = this.own.answer(echo, this.saving.durableEpoch);
    this.send(peer, this.lacksServers ? { ...answer, lacksServers: true } : answer);
  }

  private onAnswer(peer: Peer, message: MembershipMessageOf<'answer'>): void {
    if (message.term > this.saving.term) return this.raiseTerm(message.term);
    const { leading } = this;
    if (leading === null || message.term !== leading.term) return;
    this.peers.answered(peer, message);
    if (message.lacksServers === true && this.saving.accepted !== null) this.tellServers(peer, this.saving.accepted);
    leading.onAnswer(peer, message);
  }
}
