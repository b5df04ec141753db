/**
 * One server's core: composes links, records, gate and persistent databases, and turns each input into effects.
 * Synchronous and deterministic: the same inputs at the same times give the same effects, in the daemon as in the
 * simulator.
 */
import type { Epoch, Incarnation, NodeId } from '../base/ids.js';
import { epoch as toEpoch } from '../base/ids.js';
import { DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { CoreContext } from './context.js';
import type { AddressPlace, Effect, Input, KeptInput, LogLevel, Micros } from './effects.js';
import { Gate } from './gate/gate.js';
import type { AddressesForGate } from './gate/ports.js';
import type { GateOptions, GateStatus } from './gate/gate.js';
import type { LinkStatus } from './link/link.js';
import { Links } from './link/link.js';
import type { DownCause } from './link/peer.js';
import { Persistent } from './persistent/persistent.js';
import type { PersistentStatus } from './persistent/persistent.js';
import type { DatabaseStatus } from './records/records.js';
import { HOLD_MICROS, Records } from './records/records.js';
import { EtcdMembership } from './membership/etcd.js';
import { Membership } from './membership/membership.js';
import type { ServerList } from './membership/configuration.js';
import { presentIn } from './membership/configuration.js';
import { Servers } from './servers.js';
import type {
  EngineName, MembershipEngine, MembershipEvents, MembershipOptions, MembershipStatus,
} from './membership/port.js';
import type { View } from './views.js';
import { changes, runOf } from './views.js';
import { HEARD_LEASES, MEMBERSHIP_LEASE_MICROS } from './membership/limits.js';
import type { InterfaceStatus } from './failovers/failovers.js';
import { Failovers } from './failovers/failovers.js';
import type { AddressStatus } from './addresses/addresses.js';
import { Addresses } from './addresses/addresses.js';
import type { FitnessStatus } from './fitness/fitness.js';
import { Fitness } from './fitness/fitness.js';
import type { CachingSmbds } from './fitness/lease-breaks.js';
import { Timers } from './timers.js';
import { FolderAgreement } from './operations/folder-agreement.js';
import type { FolderTerms } from './operations/folders.js';
import { FOLDERS, Folders } from './operations/folders.js';
import { Operations } from './operations/operations.js';
import { clientOf } from './witness/reports.js';
import { Witness } from './witness/witness.js';
import type { WitnessStatus } from './witness/witness.js';
import type { Announcement } from '../wire/protocol-version.js';
import { PROTOCOL, RESUMING_PROTOCOL } from '../wire/protocol-version.js';
import type { PoolEventReport } from '../wire/failovers.js';
import { ADDRESS_MESSAGE_TYPE_MAX, ADDRESS_MESSAGE_TYPE_MIN } from '../wire/address-messages.js';
import { FITNESS_MESSAGE_TYPE_MAX, FITNESS_MESSAGE_TYPE_MIN } from '../wire/fitness-messages.js';
import { RECORD_MESSAGE_TYPE_MAX, RECORD_MESSAGE_TYPE_MIN } from '../wire/record-messages.js';
import {
  GATE_MESSAGE_TYPE_MAX, GATE_MESSAGE_TYPE_MIN, GATE_MESSAGE_TYPE_OF_PROCESSES,
} from '../wire/gate-messages.js';
import { hasExcluder } from '../wire/share-mode-entries.js';
import { MEMBERSHIP_TYPE_MAX, MEMBERSHIP_TYPE_MIN, termOf } from '../wire/membership-messages.js';
import { WITNESS_MESSAGE_TYPE_MAX, WITNESS_MESSAGE_TYPE_MIN, decodeWitnessMessage } from '../wire/witness-messages.js';
import { PERSISTENT_MESSAGE_TYPE_MAX, PERSISTENT_MESSAGE_TYPE_MIN } from '../wire/persistent-messages.js';

/** How often the engine of membership hears of silent links. */
const UNHEARD_INTERVAL_MICROS = 50_000;
/** How often the log says that the pool is not complete yet. */
const AWAITING_LOG_MICROS = 10_000_000;
/** A client that has much to write needs seconds; one that is not there any more shall not hold a person up. */
const DRAIN_LEASES_MICROS = 10_000_000;
/** A module that lost its daemon looks for the next one every half second (samba-module/hooks/attach.c). */
const MODULES_BACK_MICROS = 1_000_000;
/** A smbd that looked at the lease just before it was given back is done with its call by then. */
const LEAVE_PAUSE_MICROS = 20_000;

export interface NodeOptions {
  self: NodeId;
  /** All configured servers, ourselves included, in any order. */
  servers: readonly NodeId[];
  incarnation: Incarnation;
  /**
   * This run continues earlier ones of this server, whose processes live and whose volatile databases are as they left
   * them: the first of those runs, which was a plain start. Each run of this server since then was continued by the
   * next one (docs/decisions/resuming.md). Absent: a plain start.
   */
  resumes?: Incarnation;
  /** What this run tells all others of itself; absent: the protocols of this release, and no name. */
  announcement?: Announcement;
  /** Largest frame body the interconnect carries. */
  frameBodyBytesMax: number;
  /** Frames the receive ring holds. */
  receiveFramesMax: number;
  gate: GateOptions;
  /** The engine that agrees on views; absent: views and leases come as inputs. */
  membership?: MembershipSettings;
  /** What people call each server. */
  names?: ReadonlyMap<NodeId, string>;
  /** What servers that have two interfaces call them, ourselves included. */
  interfaces?: ReadonlyMap<NodeId, readonly string[]>;
  /** Addresses that move between the servers; the same on all of them, but for the interfaces. */
  addresses?: readonly AddressPlace[];
  /** How long a record stays after it came; the default is records.HOLD_MICROS. */
  holdMicros?: Micros;
  /** Whether this server takes delegations of folders that everybody opens (docs/decisions/shared-folders.md). */
  sharesFolders?: boolean;
  /** Absent: FOLDER_TERMS; of simulated smbds, how their records of locking.tdb are read. */
  folderTerms?: FolderTerms;
  hasExcluder?: (lockingData: Uint8Array) => boolean;
  /** How long a server that is drained waits for leases to be broken; the default is DRAIN_LEASES_MICROS. */
  drainLeasesMicros?: Micros;
  /** How many records are told of, or brought back, in one step after a view change; the default is slices.SLICE. */
  sliceSize?: number;
}

/** What an engine needs besides who we are. Without a name it is the embedded one. */
export type MembershipSettings =
  Omit<MembershipOptions, 'self' | 'incarnation' | 'resumes' | 'announcement'> & { engine?: EngineName };

export interface NodeStatus {
  self: NodeId;
  incarnation: Incarnation;
  /** Of the view that we installed; 0 before the first. */
  epoch: Epoch;
  members: NodeId[];
  /** The pool's, of the newest view that we know, whether it names us or not; null: we know none. */
  protocol: number | null;
  /** What each server's newest run says of itself, as far as we heard it, ourselves included. */
  announcements: { node: NodeId; announcement: Announcement }[];
  /** Of our engine; null: it is outside of the core. */
  membership: MembershipStatus | null;
  /** Our lease ran out, or we never had one. */
  isFenced: boolean;
  /** How long the lease is still valid, or how long it has been over; null: we never had one, or need none. */
  leaseMicros: Micros | null;
  /** How long the view's leader leads; not exact: or longer. */
  leads: { micros: Micros; isExact: boolean } | null;
  /** How long ago each other server was heard; null: never. */
  silent: { node: NodeId; micros: Micros | null }[];
  /** The same by each of two interfaces; empty: there is one. */
  interfaces: InterfaceStatus[];
  /** Interfaces that fell silent while the other one works, in words. */
  interfaceProblems: { text: string; remedy: string }[];
  /** Members that have not said yet that they installed this view; keys with a new home wait for them. */
  awaiting: NodeId[];
  /** What each server says of itself, as far as it told. */
  fitness: FitnessStatus[];
  links: LinkStatus[];
  /** By id of the database. */
  records: ({ id: number } & DatabaseStatus)[];
  /** Requests of local processes for records, not answered yet. */
  waitingRequests: number;
  gate: GateStatus;
  witness: WitnessStatus;
  /** Of the VFS modules, begun and not ended: their records are held here. */
  operations: number;
  persistent: PersistentStatus[];
  counters: Record<string, number>;
}

export class PoolNode {
  private readonly timers = new Timers();
  private readonly counters = new Map<string, { value: number }>();
  private readonly context: CoreContext;
  private readonly links: Links;
  private readonly records: Records;
  private readonly persistent: Persistent;
  private readonly gate: Gate;
  /** Null: there are none. */
  private readonly addresses: Addresses | null;
  private readonly fitness: Fitness;
  private readonly folders: Folders;
  private readonly folderAgreement: FolderAgreement;
  private readonly operations: Operations;
  private readonly witness: Witness;
  private readonly failovers: Failovers;
  private readonly incarnations = new Map<NodeId, Incarnation>();
  private readonly servers: Servers;
  private readonly announcement: Announcement;
  private view: View | null = null;
  /** The nodes of the view, ascending. */
  private members: readonly NodeId[] = [];
  /** Null: an engine outside of the core says what views there are. */
  private membership: MembershipEngine | null = null;
  private leaseUntil: Micros;
  private isFenced = false;
  private isLeaving = false;
  private effects: Effect[] = [];
  private time: Micros = 0;
  private started = false;
  /** This run continues another one; and the host gives the packets of its clients. */
  private readonly resumes: boolean;
  private hasResumed = false;

  constructor(private readonly options: NodeOptions) {
    this.resumes = options.resumes !== undefined;
    this.announcement = options.announcement ?? { speaks: PROTOCOL, release: '' };
    const isWitness = (server: NodeId): boolean =>
      options.membership?.servers.some(({ node, role }) => node === server && role === 'witness') ?? false;
    const { servers, names = [], gate: { addresses } } = options;
    this.servers = new Servers(options.self, { servers, isWitness, names, addresses }, (effect) => {
      this.effects.push(effect);
    });
    const context = this.makeContext();
    this.context = context;
    this.links = this.makeLinks(context);
    this.records = new Records(
      context, options.incarnation, options.holdMicros ?? HOLD_MICROS, this.resumes, options.sliceSize,
    );
    this.persistent = new Persistent(context, (allHold) => this.membership?.setAllHold(allHold));
    this.addresses = this.makeAddresses(context);
    const nameOf = (server: NodeId): string => this.servers.nameOf(server);
    this.fitness = new Fitness(context, nameOf, {
      changed: (isFit, draining) => this.addresses?.setFitness(isFit, draining),
    }, this.smbdsForFitness(), {
      leasesMicros: options.drainLeasesMicros ?? DRAIN_LEASES_MICROS,
      modulesBackMicros: this.resumes ? MODULES_BACK_MICROS : 0,
    });
    const { incarnation } = options;
    const gate = { ...options.gate, addresses: this.servers.addresses };
    const connections = this.connectionsForGate();
    this.gate = new Gate(context, this.records, this.persistent, gate, incarnation, connections, this.resumes);
    this.folders = new Folders(context, this.records, options.hasExcluder ?? hasExcluder, options.folderTerms);
    this.folderAgreement = new FolderAgreement(context, this.folders, options.sharesFolders === true, nameOf);
    this.gate.watchProcesses({
      keptModule: (pid) => this.folders.keptModule(pid),
      ended: (pid) => this.folders.ended(pid),
    });
    const { records, gate: processes, folders } = this;
    this.operations = new Operations(context, records, processes.changeNotify, processes, folders, nameOf);
    this.witness = new Witness(
      context,
      {
        attachments: () => this.operations.attachments(),
        homeOf: (database, key) => this.records.homeOf(database, key),
        nameOf,
      },
      options.gate.wallClockOriginMicros,
    );
    this.failovers = new Failovers(context, {
      leaseMicros: options.membership?.leaseMicros ?? MEMBERSHIP_LEASE_MICROS,
      wallClockOriginMicros: options.gate.wallClockOriginMicros,
      nameOf,
      ...(options.interfaces === undefined ? {} : { interfaces: options.interfaces }),
      counter: (name) => this.counter(name),
    });
    this.leaseUntil = options.membership === undefined ? Infinity : 0;
    this.operations.watch(this.witness);
    this.listenToRecords();
  }

  private makeLinks(context: CoreContext): Links {
    const { self, incarnation, frameBodyBytesMax, receiveFramesMax } = this.options;
    return new Links(
      {
        self,
        peers: this.servers.others,
        incarnation,
        announcement: this.announcement,
        frameBodyBytesMax,
        receiveFramesMax,
      },
      context,
      {
        deliver: (peer, message) => this.deliver(peer, message),
        peerUp: (peer, incarnation) => this.peerUp(peer, incarnation),
        peerDown: (peer, why) => this.peerDown(peer, why),
        givenUpBy: (peer) => this.givenUpBy(peer),
        peerReturned: (peer) => this.log('info', 'peer-returned', { peer }),
        announced: (peer, of, announcement) => this.membership?.announced(peer, of, announcement),
        survives: (message) => message[0] === GATE_MESSAGE_TYPE_OF_PROCESSES,
        sendFrame: (peer, body) => this.effects.push({ kind: 'frame-send', peer, body }),
      },
    );
  }

  private listenToRecords(): void {
    this.records.watch({
      came: (database, key) => this.operations.came(database, key),
      leaving: (database, key) => this.operations.leaving(database, key),
      moved: (...move) => this.witness.moved(...move),
    });
    this.records.watchRecovery({
      settled: () => this.settled(),
      recovered: () => this.failovers.recovered(),
    });
    this.records.listen({
      migrated: (token) => this.gate.migrated(token),
      fetched: (token, data) => this.gate.fetched(token, data),
      failed: (token, why) => this.gate.failed(token, why),
      described: (token, answer) => this.effects.push({ kind: 'record-answer', token, answer }),
      recovered: (epoch) => {
        this.failovers.claimsSent();
        if (this.membership === null) this.effects.push({ kind: 'recovered', epoch });
        else this.membership.recovered(epoch);
      },
    });
  }

  /**
   * Takes one input at the time `now` (never less than before) and returns the effects in the order in which they must
   * be performed. Timers due by `now` run first.
   */
  step(input: Input, now: Micros): Effect[] {
    this.time = Math.max(this.time, now);
    if (!this.started) {
      this.started = true;
      // not before there is a time: what the run before promised is counted from it
      this.membership = this.makeMembership();
      this.folderAgreement.begin((name) => this.gate.openOwn(name));
      this.logAwaited();
      this.tellUnheard();
      if (!this.canResume()) this.cannotResume('its disk knows no pool that could take it so');
    }
    this.judgeLease();
    this.timers.run(this.time);
    this.take(input);
    if (this.resumes && !this.hasResumed) this.lookWhetherResumed();
    const effects = this.effects;
    this.effects = [];
    return effects;
  }

  /** When the next 'tick' is due; Infinity if none is. */
  deadline(): Micros {
    return this.timers.deadline();
  }

  counter(name: string): number {
    return this.counters.get(name)?.value ?? 0;
  }

  /** The view that was installed last. */
  get installed(): View | null {
    return this.view;
  }

  /** Nobody waits for a record that an emptied one among the next inputs could let go. */
  isPatient(): boolean {
    return this.records.isPatient();
  }

  /** Whether a smbd serves here. */
  hasSmbd(): boolean {
    return this.fitness.hasSmbd;
  }

  /** Of each public address, in the configuration's order. */
  addressStatus(): AddressStatus[] {
    return this.addresses?.status() ?? [];
  }

  /** The changes of the pool that this run saw, oldest first. */
  poolEvents(): PoolEventReport[] {
    return this.failovers.report();
  }

  /** As of now, which may be later than the last step. */
  status(now: Micros = this.time): NodeStatus {
    const leads = this.failovers.leadsSince();
    const { others } = this.servers;
    const records = [...this.records.status()].map(([id, status]) => ({ id: Number(id), ...status }));
    return {
      self: this.options.self,
      incarnation: this.options.incarnation,
      epoch: this.view?.epoch ?? toEpoch(0),
      members: [...this.members],
      protocol: this.membership?.status(now).protocol ?? this.view?.protocol ?? null,
      announcements: this.announcements(),
      membership: this.membership?.status(now) ?? null,
      isFenced: now >= this.leaseUntil,
      leaseMicros: this.leaseUntil === 0 || this.leaseUntil === Infinity ? null : Math.abs(this.leaseUntil - now),
      leads: leads === null ? null : { micros: now - leads.since, isExact: leads.isExact },
      silent: others.map((node) => ({ node, micros: this.failovers.microsSilent(node, now) })),
      interfaces: this.failovers.interfaceStatus(now),
      interfaceProblems: this.failovers.interfaceProblems(),
      awaiting: this.records.awaiting(),
      fitness: this.fitness.status(),
      links: this.links.status(),
      records,
      waitingRequests: this.records.waiting(),
      gate: this.gate.status(),
      witness: this.witness.status(),
      operations: this.records.operations(),
      persistent: this.persistent.status(),
      counters: Object.fromEntries(
        [...this.counters].map(([name, { value }]) => [name, value] as const).sort(([a], [b]) => (a < b ? -1 : 1)),
      ),
    };
  }

  private announcements(): NodeStatus['announcements'] {
    const own = { node: this.options.self, announcement: this.announcement };
    const others = this.links.status().flatMap(({ peer, announcement }) => {
      return announcement === null ? [] : [{ node: peer, announcement }];
    });
    return [own, ...others];
  }

  private take(input: Input): void {
    switch (input.kind) {
      case 'client-opened':
        return this.gate.clientOpened(input.client, input.pid);
      case 'database-kept':
      case 'record-kept':
      case 'erasure-kept':
      case 'address-kept':
      case 'client-kept':
        return this.takeKept(input);
      case 'client-packet':
        return this.gate.clientPacket(input.client, input.packet);
      case 'client-closed':
        return this.gate.clientClosed(input.client);
      case 'frame':
        return this.onFrame(input.peer, input.incarnation, input.body);
      case 'database-opened':
        return this.gate.onDatabaseOpened(input);
      case 'record-done':
        return this.records.onDone(input.database, input.key, input.op, input.outcome);
      case 'persistent-done':
        return this.persistent.onDone(input);
      case 'record-query':
        return this.records.describe(input.database, input.key, input.token);
      case 'ring-attached':
        return this.operations.attached(input.attachment, input.pid);
      case 'ring-message':
        return this.operations.onRingMessage(input.attachment, input.op, input.payload);
      case 'ring-detached':
        return this.operations.detached(input.attachment, input.bad);
      case 'witness-query':
        if (input.query.what === 'locks') return this.witness.locks(input.token, input.query.filter);
        return this.witness.hotFiles(input.token);
      case 'trace-start':
        return this.witness.traceStart(input.token, input.filter);
      case 'trace-stop':
        return this.witness.traceStop(input.token);
      case 'view':
        return this.install(input.view);
      case 'lease':
        return this.lease(input.until);
      case 'leave':
        return this.leave();
      case 'address-done':
        return this.addresses?.onDone(input.address, input.what, input);
      case 'health':
        return this.fitness.setReasons(input.reasons);
      case 'servers-change':
        return this.servers.wish(input.token, input.change, this.membership);
      case 'servers-described':
        return this.servers.describe(input.servers);
      case 'drain-query':
        return this.fitness.onQuery(input.token, input.server, input.draining);
      case 'drain-saved':
        return this.fitness.onSaved(input.token, input.draining, input.error);
      case 'membership-saved':
        return this.membership?.onSaved(input.token, input.ok);
      case 'register-answer':
        return this.membership?.onRegister(input.token, input.result);
      case 'interfaces-heard':
        return this.failovers.heardBy(input.heard);
      case 'tick':
        return;
      case 'turn-end':
        return this.flush();
      default:
        unreachable(input);
    }
  }

  private onFrame(peer: NodeId, incarnation: Incarnation, body: Uint8Array): void {
    this.failovers.heard(peer, incarnation);
    if (isMembership(body)) this.membership?.onFrame(peer, incarnation, body);
    else this.links.onFrame(peer, incarnation, body);
  }

  private flush(): void {
    this.records.flush();
    this.witness.flush();
    this.links.flush();
  }

  /** What the run that we continue left behind. */
  private takeKept(input: KeptInput): void {
    try {
      this.keep(input);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.cannotResume(`what was kept of a ${input.kind} cannot be read: ${error.message}`);
    }
  }

  private keep(input: KeptInput): void {
    switch (input.kind) {
      case 'database-kept':
        return this.gate.keepDatabase(input);
      case 'record-kept':
        if (input.database === FOLDERS) this.folders.keptLock(input.key);
        return this.records.keepRecord(input);
      case 'erasure-kept':
        return this.records.keepErasure(input.database, input.key, input.turn);
      case 'address-kept': {
        const { membership } = this.options;
        return this.addresses?.kept(input.address, membership?.leaseMicros ?? MEMBERSHIP_LEASE_MICROS);
      }
      case 'client-kept':
        return this.gate.keepClient(input);
      default:
        unreachable(input);
    }
  }

  /** What the view on our disk speaks all its members understand. */
  private canResume(): boolean {
    const { membership } = this.options;
    if (!this.resumes || membership === undefined) return true;
    return (membership.saved?.accepted?.protocol ?? 0) >= RESUMING_PROTOCOL;
  }

  private cannotResume(why: string): void {
    const reason = `this run of smbpoold cannot continue the one before: ${why}`;
    this.effects.push({ kind: 'start-anew', reason, remedy: 'none is needed: smbd and its clients connect again' });
  }

  private lookWhetherResumed(): void {
    if (this.view === null || this.time >= this.leaseUntil || !this.gate.isReady) return;
    this.hasResumed = true;
    this.log('info', 'resumed', { continues: this.options.resumes });
    this.count('resumed', 1);
    this.gate.resume();
    this.folders.resume();
    this.effects.push({ kind: 'resumed' });
  }

  /** A message of a peer, by the range of its type. What cannot be read is counted and dropped. */
  private deliver(peer: NodeId, message: Uint8Array): void {
    const type = message[0] ?? 0;
    try {
      if (type >= RECORD_MESSAGE_TYPE_MIN && type <= RECORD_MESSAGE_TYPE_MAX) this.records.onMessage(peer, message);
      else if (type >= GATE_MESSAGE_TYPE_MIN && type <= GATE_MESSAGE_TYPE_MAX) this.gate.onMessage(peer, message);
      else if (type >= PERSISTENT_MESSAGE_TYPE_MIN && type <= PERSISTENT_MESSAGE_TYPE_MAX) {
        this.persistent.onMessage(peer, message);
      } else if (type >= ADDRESS_MESSAGE_TYPE_MIN && type <= ADDRESS_MESSAGE_TYPE_MAX) {
        this.addresses?.onMessage(peer, message);
      } else if (type >= FITNESS_MESSAGE_TYPE_MIN && type <= FITNESS_MESSAGE_TYPE_MAX) {
        this.fitness.onMessage(peer, message);
      } else if (type >= WITNESS_MESSAGE_TYPE_MIN && type <= WITNESS_MESSAGE_TYPE_MAX) {
        const decoded = decodeWitnessMessage(message);
        if (decoded.kind === 'probe') this.operations.onProbe(peer, decoded);
        else if (decoded.kind === 'folders') this.folderAgreement.heard(peer, decoded.shares);
        else this.witness.onMessage(peer, decoded);
      } else throw new DecodeError('unknown-type', `${type}`);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.count(`peer.message.refused.${error.reason}`, 1);
      this.log('warn', 'peer-message-refused', {
        peer,
        type,
        why: error.message,
        remedy: 'the servers run different versions of smbpoold, or a key is shared with another program',
      });
    }
  }

  /**
   * The pool is another one from here on. Links first: nothing may come from, or go to, a run that is out; records
   * last, since what they say of the view comes behind all that was said before.
   */
  private install(view: View): void {
    const before = this.view?.members ?? [];
    // an engine outside of the core has to count its leaders the same way
    const isNewLeader = this.view === null || termOf(this.view.epoch) !== termOf(view.epoch);
    if (this.view !== null && view.epoch <= this.view.epoch) return;
    if (runOf(view.members, this.options.self) !== this.options.incarnation) return this.left(view);
    const changed = changes(before, view.members);
    const { left, joined, resumed } = changed;
    this.view = view;
    this.members = view.members.map(({ node }) => node).sort((a, b) => a - b);
    const { epoch, leader, protocol } = view;
    this.log('info', 'view', { epoch, leader, members: this.members, left, joined, resumed, protocol });
    if (left.length > 0) {
      const remedy = 'smbpool failovers tells why; it joins again by itself when its smbpoold runs';
      this.log('warn', 'servers-lost', { why: `out of the pool: server ${left.join(', ')}`, remedy });
    }
    this.count('view.installed', 1);
    this.servers.installed(view);
    this.failovers.installed(view, changed);
    // first, so that all other rooms know by the time that a link says who came
    for (const peer of left) this.gate.peerLeft(peer);
    const runs = new Map(view.members.map(({ node, incarnation }) => [node, incarnation]));
    for (const peer of resumed) this.gate.peerResumed(peer, runs.get(peer)!);
    this.links.install(view.epoch, runs, resumed);
    for (const peer of left) this.fitness.peerLeft(peer);
    this.addresses?.install(view, isNewLeader, left, joined);
    this.persistent.install(view, left);
    for (const peer of [...left, ...resumed]) this.witness.peerDown(peer);
    this.folderAgreement.installed([...left, ...joined, ...resumed]);
    this.records.install(view, changed);
    this.effects.push({ kind: 'event', event: 'view', fields: this.viewFields(view, left, joined) });
    this.setServers();
  }

  // --- the pool's servers

  private setServers(): void {
    const list = this.membership?.serverList();
    if (list === undefined || !this.servers.accepted(list, this.members)) return;
    this.gate.serversChanged();
    this.links.setPeers(this.servers.others);
  }

  /** The membership accepted other servers. */
  private serversChanged({ configuration, servers }: ServerList): void {
    this.setServers();
    this.log('info', 'servers', {
      configuration: configuration.number, counted: configuration.counted, joining: configuration.joining,
    });
    this.effects.push({ kind: 'servers', configuration, servers });
  }

  /** All members have installed the view. */
  private settled(): void {
    this.failovers.settled();
    this.folderAgreement.settled();
  }

  private viewFields(view: View, left: readonly NodeId[], joined: readonly NodeId[]): Record<string, string> {
    const names = (nodes: readonly NodeId[]): string => nodes.map((node) => this.servers.nameOf(node)).join(' ');
    const { epoch, leader } = view;
    const who = { members: names(this.members), left: names(left), joined: names(joined) };
    return { epoch: `${epoch}`, leader: this.servers.nameOf(leader), ...who };
  }

  /** The others have agreed on a view without us: they have taken over, or will. */
  private left(view: View): void {
    if (this.isLeaving) return void this.effects.push({ kind: 'left' });
    const { configuration } = view;
    if (configuration !== undefined && !presentIn(configuration).includes(this.options.self)) {
      const why = 'this server was taken out of the pool with smbpool leave';
      const how = 'stop smbpoold and smbd here; to take it in again: smbpool join, on a server of the pool';
      return void this.effects.push({ kind: 'start-anew', reason: why, remedy: how });
    }
    const reason = `the pool agreed on view ${view.epoch} without this run of smbpoold`;
    const remedy = 'systemd starts the daemon again, and it joins; why the others did not hear it '
      + 'is told there by smbpool failovers';
    this.effects.push({ kind: 'start-anew', reason, remedy });
  }

  /** First nothing is served here any more; when that is so, the others are told, and need not wait for our lease. */
  private leave(): void {
    if (this.isLeaving) return;
    const served = !this.isFenced && this.members.length > 1;
    this.isLeaving = true;
    this.lease(0);
    if (!served || this.membership === null) return void this.effects.push({ kind: 'left' });
    this.timers.at(this.time + LEAVE_PAUSE_MICROS, () => this.membership?.leave());
  }

  private lease(granted: Micros): void {
    const until = this.isLeaving ? 0 : granted;
    this.leaseUntil = until;
    this.effects.push({ kind: 'lease', until });
    this.judgeLease();
    this.addresses?.lease(until);
  }

  /** Whom our links do not hear, the engine has to know: two members that do not hear each other cannot both stay. */
  private tellUnheard(): void {
    this.membership?.setUnheard(this.links.unheard());
    this.membership?.setHeard(this.servers.all.filter((server) => this.hearEachOther(server)));
    this.timers.at(this.time + UNHEARD_INTERVAL_MICROS, () => this.tellUnheard());
  }

  private hearEachOther(server: NodeId): boolean {
    const within = HEARD_LEASES * (this.options.membership?.leaseMicros ?? 0);
    const micros = this.failovers.microsSilent(server, this.time);
    return micros !== null && micros < within && this.links.isHeardBy(server, within);
  }

  private judgeLease(): void {
    const isFenced = this.time >= this.leaseUntil;
    if (isFenced === this.isFenced) return;
    this.isFenced = isFenced;
    // who leaves gave it back, and who was no member yet never had one
    if (this.isLeaving || (isFenced && this.view === null)) return this.addresses?.judge();
    if (isFenced) this.log('warn', 'fenced', { remedy: 'smbpool failovers tells why, and until when' });
    else this.log('info', 'lease-renewed');
    this.count(isFenced ? 'lease.lost' : 'lease.renewed', 1);
    if (isFenced) this.failovers.fenced(this.leaseUntil);
    else this.failovers.renewed();
    if (!isFenced) this.records.leaseRenewed();
    this.addresses?.judge();
  }

  private peerUp(peer: NodeId, incarnation: Incarnation): void {
    const before = this.incarnations.get(peer);
    this.incarnations.set(peer, incarnation);
    this.log('info', 'peer-up', { peer, incarnation, restarted: before !== undefined && before !== incarnation });
    this.gate.peerUp(peer, incarnation);
    this.addresses?.peerUp(peer);
    this.fitness.peerUp(peer);
    this.persistent.peerUp(peer, incarnation);
    this.operations.peerUp(peer);
    this.witness.peerUp(peer);
  }

  private peerDown(peer: NodeId, why: DownCause): void {
    // one that is called up anew is back at once, and an overflow was said by the link
    const remedy = 'check that smbpoold runs there and that the interconnect between the two servers works';
    this.log(why === 'silent' ? 'warn' : 'info', 'peer-down', { peer, why, ...(why === 'silent' ? { remedy } : {}) });
    this.records.peerDown(peer);
    this.gate.peerDown(peer);
    this.persistent.peerDown(peer);
    this.witness.peerDown(peer);
  }

  /** Messages for us are lost for good: what we and the others know of each other's records differs from here on. */
  private givenUpBy(peer: NodeId): void {
    if (this.isLeaving) return;
    const reason = `server ${peer} gave this run up: it was out of the view, or could not be reached for too long`;
    const remedy = 'systemd starts the daemon again; see why the servers could not reach each other';
    this.effects.push({ kind: 'start-anew', reason, remedy });
  }

  private logAwaited(): void {
    this.timers.at(this.time + AWAITING_LOG_MICROS, () => {
      const awaiting = this.records.awaiting();
      if (awaiting.length === 0) return;
      this.log('warn', 'awaiting-servers', {
        servers: awaiting,
        remedy: 'keys whose home is a new one wait until all members of the view have installed it',
      });
      this.logAwaited();
    });
  }

  private log(level: LogLevel, event: string, fields: Record<string, unknown> = {}): void {
    this.effects.push({ kind: 'log', level, event, fields });
  }

  private count(name: string, by: number): void {
    const counter = this.counters.get(name);
    if (counter === undefined) this.counters.set(name, { value: by });
    else counter.value += by;
  }

  private makeAddresses(context: CoreContext): Addresses | null {
    const { addresses } = this.options;
    if (addresses === undefined || addresses.length === 0) return null;
    return new Addresses(context, addresses, { released: (address) => this.gate.releaseAddress(address) });
  }

  private smbdsForFitness(): CachingSmbds {
    return {
      breakAll: (number) => this.operations.breakAll(number),
      silent: (number) => this.operations.withoutBreaks(number).map((attachment) => {
        return `smbd ${attachment.pid}, which serves ${clientOf(attachment)}, did not answer`;
      }),
      caching: (namedMax) => this.witness.caching(namedMax),
    };
  }

  /** What smbds tell of their clients, for both rooms that want it. */
  private connectionsForGate(): AddressesForGate {
    return {
      connected: (client, connection) => {
        this.addresses?.connected(client, connection);
        this.fitness.connected(client, connection);
      },
      disconnected: (client) => {
        this.addresses?.disconnected(client);
        this.fitness.disconnected(client);
      },
      setAble: (able) => {
        this.addresses?.setAble(able);
        this.fitness.setSmbd(able);
      },
      holders: () => this.addresses?.holders() ?? [],
    };
  }

  private makeMembership(): MembershipEngine | null {
    const { announcement } = this;
    const { self, incarnation, resumes, membership } = this.options;
    if (membership === undefined) return null;
    const events: MembershipEvents = {
      view: (view) => this.install(view),
      lease: (until) => this.lease(until),
      removed: (view) => this.left(view),
      suspects: (reasons) => this.failovers.suspects(reasons),
      proposed: (view, leaseOver) => this.failovers.proposed(view, leaseOver),
      servers: (list) => this.serversChanged(list),
      changeAnswered: (result) => this.servers.wishAnswered(result),
      isSettled: () => this.persistent.isSettled(),
      send: (peer, body) => this.effects.push({ kind: 'frame-send', peer, body }),
    };
    const Engine = membership.engine === 'etcd' ? EtcdMembership : Membership;
    return new Engine(this.context, { self, incarnation, resumes, announcement, ...membership }, events);
  }

  private makeContext(): CoreContext {
    const { self } = this.options;
    const view = (): View | null => this.view;
    const members = (): readonly NodeId[] => this.members;
    const servers = (): Servers => this.servers;
    return {
      self,
      get servers() {
        return servers().all;
      },
      get fileServers() {
        return servers().ofFiles;
      },
      get epoch() {
        return view()?.epoch ?? toEpoch(0);
      },
      get members() {
        return members();
      },
      timers: this.timers,
      now: () => this.time,
      emit: (effect) => this.effects.push(effect),
      send: (peer, message, mode) => this.links.send(peer, message, mode),
      isUp: (peer) => peer === self || this.links.isUp(peer),
      speaks: (protocol) => (view()?.protocol ?? 0) >= protocol,
      isFenced: () => this.isFenced,
      log: (level, event, fields) => this.log(level, event, fields),
      count: (name, by = 1) => this.count(name, by),
    };
  }
}

/** Frames of the engine of membership are told from those of links by their first byte. */
function isMembership(body: Uint8Array): boolean {
  const type = body[0] ?? 0;
  return type >= MEMBERSHIP_TYPE_MIN && type <= MEMBERSHIP_TYPE_MAX;
}
