/**
 * The changes of the pool that this server saw, for people: what happened when, why, and what became of the records.
 * Fed by core/node; decides nothing and keeps the newest events only. Also writes the one line of the log for each
 * change that is complete.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { FailoverRecords, FailoverStep, PoolEventReport } from '../../wire/failovers.js';
import { EPOCHS_PER_TERM, termOf } from '../../wire/membership-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros, PeerHeard } from '../effects.js';
import type { LeaveReason } from '../membership/composition.js';
import type { Changes, Run, View } from '../views.js';
import type { Timer } from '../timers.js';
import type { Silence } from './interfaces.js';
import { InterfaceWatch } from './interfaces.js';
import { LastFrames } from './last-frames.js';
import type { Cause, NameOf } from './words.js';
import { describeCause, describeFenced, describeSilence, millis } from './words.js';

/** Of the newest events; a pool that changes more often has another trouble than a short list. */
export const EVENTS_MAX = 64;
/** How many of them may be of interfaces: a bad cable must not make people forget the lost servers. */
export const INTERFACE_EVENTS_MAX = 16;

/** After the last step some records still come back from their backups: the line of the log waits for them so long. */
const LOG_AFTER_MICROS = 500_000;

export interface FailoversOptions {
  leaseMicros: Micros;
  /** Where the wall clock stood when ours was 0. */
  wallClockOriginMicros: Micros;
  nameOf: NameOf;
  /** What each server that has two interfaces calls them, ourselves included; absent: nobody has. */
  interfaces?: ReadonlyMap<NodeId, readonly string[]>;
  /** The core's counters, by name. */
  counter(name: string): number;
}

interface Step {
  what: FailoverStep;
  server: NodeId | null;
  interface?: string;
  at: Micros;
}

interface Suspicion {
  at: Micros;
  /** When the server was heard last before that. */
  lastFrame: Micros | null;
  reason: LeaveReason;
}

interface Proposal {
  epoch: Epoch;
  at: Micros;
  leaseOver: ReadonlyMap<NodeId, Micros>;
  /** Why: who speaks again before the view is agreed is out all the same. */
  suspicions: ReadonlyMap<NodeId, Suspicion>;
}

/** Of a run that is out. */
interface Known {
  /** With the same view. */
  joined: readonly NodeId[];
  suspicion: Suspicion | undefined;
}

interface ViewChange {
  kind: 'view';
  view: View;
  left: readonly NodeId[];
  joined: readonly NodeId[];
  causes: readonly Cause[];
  steps: Step[];
  /** What was counted before, and, when the next change began, after. */
  before: FailoverRecords;
  after: FailoverRecords | null;
  overtaken: boolean;
}

interface Fenced {
  kind: 'fenced';
  at: Micros;
  renewedAt: Micros | null;
  text: string;
  remedy: string | null;
}

interface InterfaceSilence {
  kind: 'interface';
  silence: Silence;
  text: string;
  remedy: string;
}

type PoolEvent = ViewChange | Fenced | InterfaceSilence;

/** What is heard of a server by one of two interfaces. */
export interface InterfaceStatus {
  node: NodeId;
  /** Our own name of it. */
  interface: string;
  /** Since its last frame by it; null: none came. */
  micros: Micros | null;
  /** It fell silent, while the other one works. */
  isSilent: boolean;
}

export class Failovers {
  private readonly frames = new LastFrames();
  private readonly interfaces = new InterfaceWatch();
  private events: PoolEvent[] = [];
  private view: View | null = null;
  private leads: { since: Micros; isExact: boolean } | null = null;
  private suspicions = new Map<NodeId, Suspicion>();
  private proposal: Proposal | null = null;
  /** Not written to the log yet. */
  private open: ViewChange | null = null;
  private logTimer: Timer | null = null;

  constructor(
    private readonly context: Pick<CoreContext, 'self' | 'servers' | 'now' | 'timers' | 'log'>,
    private readonly options: FailoversOptions,
  ) {}

  // --- what happens

  /** An authentic frame came, of whatever kind. */
  heard(server: NodeId, incarnation: Incarnation): void {
    this.frames.heard(server, incarnation, this.context.now());
  }

  /** We lead: these are the members that we would leave out. */
  suspects(reasons: ReadonlyMap<NodeId, LeaveReason>): void {
    const at = this.context.now();
    const before = this.suspicions;
    this.suspicions = new Map();
    for (const [server, reason] of reasons) {
      const known = before.get(server);
      const isSame = known !== undefined && (known.reason.why === reason.why || known.reason.why === 'silent');
      const isOngoing = isSame && !this.isRefuted(server, known);
      const lastFrame = isOngoing ? known.lastFrame : this.frames.at(server);
      this.suspicions.set(server, { at: isOngoing ? known.at : at, lastFrame, reason });
    }
  }

  /** We proposed the view, or heard of it first; with the ends of the leases of those that it leaves out. */
  proposed({ epoch }: View, leaseOver: ReadonlyMap<NodeId, Micros>): void {
    if (epoch === this.proposal?.epoch) return;
    const suspicions = new Map([...this.suspicions].filter((entry) => !this.isRefuted(...entry)));
    this.proposal = { epoch, at: this.context.now(), leaseOver, suspicions };
  }

  installed(view: View, { left, joined, resumed }: Changes): void {
    const now = this.context.now();
    const former = this.view;
    const counts = this.counts();
    this.end(counts);
    const runs = (former?.members ?? []).filter(({ node }) => left.includes(node));
    const proposal = this.proposal?.epoch === view.epoch ? this.proposal : null;
    const steps: Step[] = runs.flatMap((run) => this.stepsOf(run, this.suspicionOf(run.node, proposal)));
    if (proposal !== null) {
      for (const run of runs) {
        const over = proposal.leaseOver.get(run.node) ?? -Infinity;
        if (over > 0) steps.push({ what: 'lease-over', server: run.node, at: over });
      }
      steps.push({ what: 'proposed', server: null, at: proposal.at });
    }
    steps.sort((a, b) => a.at - b.at);
    steps.push({ what: 'installed', server: null, at: now });
    const known = ({ node }: Run): Known => ({ joined, suspicion: this.suspicionOf(node, proposal) });
    const lost = runs.map((run) => this.causeOf(run, view, known(run)));
    const went = resumed.map((server): Cause => ({ what: 'resumed', server }));
    const causes = [...lost, ...went, ...this.otherCauses(former, view, left, joined)];
    const change = { kind: 'view', view, left, joined, causes, steps, before: counts, after: null } as const;
    this.open = { ...change, overtaken: false };
    this.push(this.open);
    this.noteLeader(former, view, now);
    for (const server of left) this.suspicions.delete(server);
    this.view = view;
  }

  settled(): void {
    this.step('settled');
  }

  claimsSent(): void {
    this.step('claims-sent');
  }

  /** All members have told what they have; and so have we. */
  recovered(): void {
    if (this.open === null || !this.step('recovered')) return;
    const change = this.open;
    this.logTimer = this.context.timers.at(this.context.now() + LOG_AFTER_MICROS, () => this.write(change));
  }

  /** When servers with two interfaces were heard last by each, as far as the host knows; to be told all the time. */
  heardBy(heard: readonly PeerHeard[]): void {
    const { fell, back } = this.interfaces.look(heard, this.context.now());
    for (const silence of fell) {
      const words = this.wordsOf(silence);
      this.push({ kind: 'interface', silence, ...words });
      this.context.log('warn', 'interface-silent', { why: words.text, servers: silence.servers, remedy: words.remedy });
    }
    for (const silence of back) {
      const { servers, since, backAt } = silence;
      const ms = millis((backAt ?? since) - since);
      this.context.log('info', 'interface-back', { interface: this.ownName(silence.interface), servers, ms });
    }
  }

  /** Our lease was over at this time. */
  fenced(at: Micros): void {
    const { view } = this;
    // who has not been a member yet never had a lease
    if (view === null) return;
    const { self, servers } = this.context;
    const configured = servers.length;
    const needed = Math.floor(configured / 2) + 1;
    const unheard = servers.filter((server) => server !== self && this.isQuiet(server));
    const cause = { configured, needed, unheard, leader: view.leader, isLeading: view.leader === self };
    this.push({ kind: 'fenced', at, renewedAt: null, ...describeFenced(cause, this.options.nameOf) });
  }

  renewed(): void {
    const last = this.events.findLast(({ kind }) => kind === 'fenced');
    if (last?.kind === 'fenced') last.renewedAt ??= this.context.now();
  }

  // --- what people ask

  /** How long ago the server was heard; null: never. */
  microsSilent(server: NodeId, now: Micros): Micros | null {
    const at = this.frames.at(server);
    return at === null ? null : Math.max(0, now - at);
  }

  /** Since when the view's leader leads, as far as we know; not exact: or longer. */
  leadsSince(): { since: Micros; isExact: boolean } | null {
    return this.leads;
  }

  /** Of each server that has two interfaces, as we have. */
  interfaceStatus(now: Micros): InterfaceStatus[] {
    const silent = this.interfaces.silent();
    return this.context.servers.flatMap((node) =>
      this.interfaces.at(node).map((at, index) => ({
        node,
        interface: this.ownName(index),
        micros: at === null ? null : Math.max(0, now - at),
        isSilent: silent.some((one) => one.interface === index && one.servers.includes(node)),
      })),
    );
  }

  /** Interfaces that fell silent while the other one works: what is wrong, and the remedy. */
  interfaceProblems(): { text: string; remedy: string }[] {
    return this.interfaces.silent().map((silence) => this.wordsOf(silence));
  }

  /** Oldest first. */
  report(): PoolEventReport[] {
    return this.events.map((event) => {
      if (event.kind === 'view') return this.reportChange(event);
      return event.kind === 'fenced' ? this.reportFenced(event) : this.reportInterface(event);
    });
  }

  // --- within

  private stepsOf({ node, incarnation }: Run, suspicion: Suspicion | undefined): Step[] {
    const last = suspicion?.reason.why === 'silent' ? suspicion.lastFrame : this.frames.ofRun(node, incarnation);
    const steps: Step[] = [];
    if (last !== null) steps.push({ what: 'last-frame', server: node, at: last });
    for (const [index, at] of this.interfaces.atOfRun(node, incarnation).entries()) {
      if (at !== null) steps.push({ what: 'last-frame-by', server: node, interface: this.ownName(index), at });
    }
    if (suspicion !== undefined) steps.push({ what: 'suspected', server: node, at: suspicion.at });
    return steps;
  }

  private suspicionOf(server: NodeId, proposal: Proposal | null): Suspicion | undefined {
    const proposed = proposal?.suspicions.get(server);
    if (proposed !== undefined) return proposed;
    const suspicion = this.suspicions.get(server);
    return suspicion === undefined || this.isRefuted(server, suspicion) ? undefined : suspicion;
  }

  /** It was taken for silent, and spoke after that. */
  private isRefuted(server: NodeId, { at, reason }: Suspicion): boolean {
    return reason.why === 'silent' && at < (this.frames.at(server) ?? 0);
  }

  private otherCauses(former: View | null, view: View, left: readonly NodeId[], joined: readonly NodeId[]): Cause[] {
    const causes: Cause[] = [];
    // all of our first view are new to us, but we are the one who came
    const isNews = (node: NodeId): boolean =>
      former === null ? node === this.context.self : !left.includes(node);
    for (const server of joined) if (isNews(server)) causes.push({ what: 'joined', server });
    const isOtherLead = former !== null && termOf(former.epoch) !== termOf(view.epoch);
    if (isOtherLead) causes.push({ what: 'leader', server: view.leader });
    const { leader: server, protocol } = view;
    if (former !== null && former.protocol !== protocol) causes.push({ what: 'protocol', server, protocol });
    return causes;
  }

  private causeOf({ node, incarnation }: Run, view: View, known: Known): Cause {
    const { joined, suspicion } = known;
    const isLeading = view.leader === this.context.self;
    if (joined.includes(node)) return { what: 'anew', server: node };
    if (suspicion !== undefined && (isLeading || suspicion.reason.why === 'silent')) {
      const { at, lastFrame, reason } = suspicion;
      if (reason.why !== 'silent') return { what: reason.why, server: node, by: reason.by };
      return { what: 'silent', server: node, micros: lastFrame === null ? null : at - lastFrame };
    }
    if (this.frames.isAnew(node, incarnation)) return { what: 'anew', server: node };
    if (!this.isQuiet(node)) return { what: 'left-out', server: node, leader: view.leader };
    const last = this.frames.at(node);
    return { what: 'silent', server: node, micros: last === null ? null : this.context.now() - last };
  }

  /** For half a lease nothing came of it: many times what passes between two frames. */
  private isQuiet(server: NodeId): boolean {
    const at = this.frames.at(server);
    return at === null || this.context.now() - at >= this.options.leaseMicros / 2;
  }

  private noteLeader(former: View | null, view: View, now: Micros): void {
    if (former !== null && termOf(former.epoch) === termOf(view.epoch)) return;
    const isFirstOfTerm = view.epoch % EPOCHS_PER_TERM === 1;
    this.leads = { since: now, isExact: former !== null || isFirstOfTerm };
  }

  private step(what: FailoverStep): boolean {
    const { open } = this;
    if (open === null || open.steps.some((step) => step.what === what)) return false;
    open.steps.push({ what, server: null, at: this.context.now() });
    return true;
  }

  private push(event: PoolEvent): void {
    this.events.push(event);
    const ofInterfaces = this.events.filter(({ kind }) => kind === 'interface');
    const dropped = ofInterfaces.length > INTERFACE_EVENTS_MAX ? ofInterfaces[0] : null;
    if (dropped !== null) this.events = this.events.filter((one) => one !== dropped);
    else if (this.events.length > EVENTS_MAX) this.events.shift();
  }

  private ownName(index: number): string {
    return this.nameOfInterface(this.context.self, index);
  }

  private nameOfInterface(server: NodeId, index: number): string {
    return this.options.interfaces?.get(server)?.[index] ?? `interface ${index + 1}`;
  }

  private wordsOf({ interface: index, servers }: Silence): { text: string; remedy: string } {
    const silence = {
      name: this.ownName(index),
      other: this.ownName(1 - index),
      servers,
      isAll: this.interfaces.areAll(servers),
      nameThere: (server: NodeId) => this.nameOfInterface(server, index),
    };
    return describeSilence(silence, this.options.nameOf);
  }

  /** Another view comes. */
  private end(counts: FailoverRecords): void {
    const { open } = this;
    const change = open ?? this.events.findLast((event) => event.kind === 'view');
    if (change?.kind === 'view') change.after = counts;
    if (open === null) return;
    open.overtaken = !open.steps.some(({ what }) => what === 'recovered');
    this.write(open);
  }

  private write(change: ViewChange): void {
    this.logTimer?.cancel();
    this.logTimer = null;
    if (this.open === change) this.open = null;
    const { view, steps, causes, overtaken } = change;
    const lastFrame = steps.filter(({ what }) => what === 'last-frame').at(-1);
    const recovered = steps.find(({ what }) => what === 'recovered');
    const from = lastFrame ?? steps[0];
    const { nameOf } = this.options;
    this.context.log('info', 'view-complete', {
      epoch: view.epoch,
      cause: causes.map((cause) => describeCause(cause, nameOf).text).join('; '),
      members: view.members.map(({ node }) => nameOf(node)),
      ...(recovered === undefined || from === undefined ? {} : { ms: millis(recovered.at - from.at) }),
      msFrom: lastFrame === undefined ? 'first step' : 'last frame',
      ...this.countsOf(change),
      ...(overtaken ? { overtaken } : {}),
    });
  }

  private counts(): FailoverRecords {
    const { counter } = this.options;
    return {
      newHomes: counter('record.home.new'),
      claimsSent: counter('record.claim.sent'),
      claimsReceived: counter('record.claim.received'),
      claimedFirst: counter('record.claimed-now'),
      restored: counter('record.restored'),
      lost: counter('record.lost.for-good'),
    };
  }

  private countsOf({ before, after }: ViewChange): FailoverRecords {
    const until = after ?? this.counts();
    return {
      newHomes: until.newHomes - before.newHomes,
      claimsSent: until.claimsSent - before.claimsSent,
      claimsReceived: until.claimsReceived - before.claimsReceived,
      claimedFirst: until.claimedFirst - before.claimedFirst,
      restored: until.restored - before.restored,
      lost: until.lost - before.lost,
    };
  }

  private reportChange(change: ViewChange): PoolEventReport {
    const { view, left, joined, causes, steps, overtaken } = change;
    return {
      kind: 'view',
      epoch: view.epoch,
      leader: view.leader,
      members: view.members.map(({ node }) => node),
      left: [...left],
      joined: [...joined],
      causes: causes.map((cause) => describeCause(cause, this.options.nameOf)),
      steps: steps.map(({ what, server, interface: name, at }) => {
        return { what, server, ...(name === undefined ? {} : { interface: name }), atMicros: this.wallClock(at) };
      }),
      records: this.countsOf(change),
      overtaken,
    };
  }

  private reportFenced({ at, renewedAt, text, remedy }: Fenced): PoolEventReport {
    const renewedAtMicros = renewedAt === null ? null : this.wallClock(renewedAt);
    return { kind: 'fenced', atMicros: this.wallClock(at), renewedAtMicros, text, remedy };
  }

  private reportInterface({ silence, text, remedy }: InterfaceSilence): PoolEventReport {
    const { interface: index, servers, since, backAt } = silence;
    const backAtMicros = backAt === null ? null : this.wallClock(backAt);
    const name = this.ownName(index);
    return { kind: 'interface', interface: name, servers, atMicros: this.wallClock(since), backAtMicros, text, remedy };
  }

  private wallClock(at: Micros): number {
    return Math.round(this.options.wallClockOriginMicros + at);
  }
}
