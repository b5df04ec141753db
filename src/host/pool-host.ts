/**
 * One server of the pool, running: opens sockets, interconnect and databases, makes the core and feeds it until
 * stopped. Made by the daemon's main and by tests. Decides nothing about records: that is the core's.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ClientId, Incarnation, NodeId, Turn } from '../base/ids.js';
import { NODE_COUNT_MAX, keyOf } from '../base/ids.js';
import { databaseIdOf } from '../base/jenkins.js';
import type { AddressStatus } from '../core/addresses/addresses.js';
import type { AddressPlace, HookEvent, Input, Micros, RecordDescription } from '../core/effects.js';
import { PoolNode } from '../core/node.js';
import type { NodeOptions, NodeStatus } from '../core/node.js';
import type { Interconnect } from '../ports/interconnect.js';
import type { LockWitness } from '../ports/lock-witness.js';
import type { Log } from '../ports/log.js';
import type { PoolEventReport } from '../wire/failovers.js';
import type { HotAnswer, LockFilter, LocksAnswer, TraceEvent, TraceFilter } from '../wire/locks.js';
import { InterfaceAddresses } from './addresses.js';
import { CoreLoop } from './core-loop.js';
import { DrainFile } from './drain-file.js';
import { PoolError, messageOf } from './errors.js';
import type { EtcdOptions } from './etcd/register.js';
import { EtcdRegister } from './etcd/register.js';
import { FaultyInterconnect } from './faults.js';
import type { FaultOptions } from './faults.js';
import { FOREIGN_FRAMES, FOREIGN_LOOK_MS, ForeignFrames } from './foreign-frames.js';
import { Keeping, keptInputs, readKeptRun } from './keeping.js';
import type { Inheritance, KeptRun } from './keeping.js';
import { loadNative } from './native.js';
import type { EthernetWay, NativeTransport, UdpWay } from './native.js';
import type { Announcement } from '../wire/protocol-version.js';
import type { ChangeResult } from '../core/membership/port.js';
import type { Configuration, ConfiguredServer } from '../wire/membership-configuration.js';
import type { ServersChange } from '../wire/membership-messages.js';
import { encodeKeptDatabase } from '../wire/kept-state.js';
import type { SavedMembership, ServerRole } from '../wire/membership-state.js';
import { MembershipFile } from './membership-file.js';
import { NodePageWriter } from './node-page.js';
import { TdbPersistentStore } from './persistent-store.js';
import { Pump } from './pump.js';
import type { PeerPlace, RingOptions } from './pump.js';
import { clearVolatileDirectory, TdbRecordStore } from './record-store.js';
import { wallClockOriginMicros } from './wall-clock.js';
import { WitnessDesk } from './witness.js';

/** Fits every path: Ethernet's 1500 bytes without the headers of IP and UDP. */
const DATAGRAM_BYTES_MAX = 1472;
/** A question about a record crosses the wire once; an answer later than this is none. */
const RECORD_ANSWER_TIMEOUT_MS = 5_000;
/** Without an answer by then the others are left to find out: they wait for the end of a lease. */
const LEAVE_MS_MAX = 1_000;
const U32_SPAN = 0x1_0000_0000;

/** How often the core is told by which interfaces the others are heard: well within a lease. */
const INTERFACES_LOOK_MICROS = 100_000;

/** One way to the other servers or two; frames go by all that lead to their receiver. */
export type TransportOptions =
  | { kind: 'ethernet'; ways: readonly EthernetWay[] }
  | { kind: 'udp'; ways: readonly UdpWay[] };

export interface PoolMember {
  id: NodeId;
  name: string;
  address: string;
  role: ServerRole;
  /** What it calls its two interfaces; absent: it has one. */
  interfaces?: readonly [string, string];
  /** What the other servers keep of it when they have to find it without a file; absent: servers cannot be changed. */
  entry?: string;
}

/** A server of the pool, and by which of our ways frames reach it, where. */
export interface ServerPlace {
  member: PoolMember;
  /** By way; null: that does not lead to it. */
  ways: readonly (PeerPlace | null)[];
}

export interface HostOptions {
  self: NodeId;
  /** All servers, this one included. */
  members: PoolMember[];
  /** How often the leader is heard, and how long a server serves without hearing it. */
  membership: { heartbeatMicros: Micros; leaseMicros: Micros };
  /** The membership's engine is etcd, and there it is; absent: the embedded one. */
  etcd?: Omit<EtcdOptions, 'poolName'>;
  /** How long a server that is drained waits for its clients' leases; absent: the core's default. */
  drainLeasesMicros?: Micros;
  /** Whether this server shares folders that everybody opens (docs/decisions/shared-folders.md). */
  sharesFolders?: boolean;
  /** Higher than that of every earlier run of this server. */
  incarnation: Incarnation;
  /** What happens here is kept where a standby finds it. */
  keeps?: boolean;
  /** This run continues that of another process, which has ended. */
  inheritance?: Inheritance;
  /** Of a run that continues another one: it serves again. */
  onResumed?(): void;
  /** A volatile database is open that was not before. */
  onDatabase?(name: string): void;
  /** What this run tells the others of itself; absent: the protocols of this release, and no name. */
  announcement?: Announcement;
  /** The Samba of this server, as "4.17"; without it nothing is compared with the other servers. */
  samba?: string;
  /** smbd's `ctdbd socket`. */
  socketPath: string;
  /** Where the VFS modules of this server attach. Without it they cannot, and nothing is witnessed here. */
  ringSocketPath?: string;
  /** The node page's file; without it the page is in memory only. Means nothing without `ringSocketPath`. */
  pagePath?: string;
  /** On tmpfs. Databases that an earlier run left there are removed. */
  volatileDirectory: string;
  persistentDirectory: string;
  transport: TransportOptions;
  poolName: string;
  poolKey: Uint8Array;
  /** Addresses that move between the servers. */
  addresses?: readonly AddressPlace[];
  /** For tests: what is done to the frames sent. */
  faults?: FaultOptions;
  log: Log;
  /** What is written of a server, in words that the host understands; null: nothing that can be used. */
  placeOf?(server: ConfiguredServer): ServerPlace | null;
  /** The pool's servers, as agreed: at the start if they ever were changed in the running pool, and at each change. */
  onServers?(configuration: Configuration, servers: readonly ConfiguredServer[]): void;
  /** Something happened that the administrator's own programs may want to know. */
  onEvent?(event: HookEvent, fields: Record<string, string>): void;
  /** This run must end and another follow; nothing is served any more. */
  startAnew(reason: string, remedy: string): void;
}

/** The node's status; `counters` holds the host's too: socket.*, interconnect.*, loop.*. */
export interface HostStatus extends NodeStatus {
  interconnect: { addresses: string[]; frameBodyBytesMax: number; peers: { peer: NodeId; addresses: string[] }[] };
  ring: { attachments: number };
}

interface Question {
  resolve(answer: RecordDescription): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

export class PoolHost implements LockWitness {
  private readonly records: TdbRecordStore;
  private readonly persistent: TdbPersistentStore;
  private readonly pump: Pump;
  private readonly interconnect: Interconnect;
  private readonly node: PoolNode;
  private readonly loop: CoreLoop;
  private readonly page: NodePageWriter;
  private readonly witness: WitnessDesk;
  private readonly foreignTimer: NodeJS.Timeout;
  /** Null: there are none. */
  private readonly addresses: InterfaceAddresses | null;
  /** Null: the membership needs none. */
  private readonly register: EtcdRegister | null;
  private readonly questions = new Map<number, Question>();
  private readonly drains = new Map<number, (error: string | null) => void>();
  private readonly now: () => Micros;
  /** Null: nothing is kept. */
  private readonly keeping: Keeping | null;
  /** Null: a plain start. */
  private readonly resumes: Incarnation | null;
  /** Who has two interfaces, when we have. */
  private watchedPeers: readonly NodeId[];
  /** The pool's servers now, ourselves included. */
  private members: readonly PoolMember[];
  private readonly changes = new Map<number, (result: ChangeResult) => void>();
  private nextLook: Micros = 0;
  private lastToken = 0;
  private stopped = false;
  private isLeaving = false;
  private onLeft: () => void = () => undefined;

  /** @throws PoolError naming cause and remedy when the server cannot serve; nothing is left behind then. */
  static async start(options: HostOptions): Promise<PoolHost> {
    const { socketPath, ringSocketPath, pagePath } = options;
    for (const path of [socketPath, ringSocketPath, pagePath]) {
      if (path !== undefined) mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    }
    const { inheritance } = options;
    if (inheritance === undefined) await clearVolatileDirectory(options.volatileDirectory, options.self);
    const persistent =
      inheritance?.persistent ?? new TdbPersistentStore(options.persistentDirectory, options.self);
    try {
      const membership = new MembershipFile(options.persistentDirectory, options.log);
      return new PoolHost(options, persistent, membership, membership.read());
    } catch (error) {
      await persistent.close();
      throw error;
    }
  }

  /**
   * In a standby: lets the core run on inputs that mean nothing, so that its code is compiled when it is needed. Opens
   * and sends nothing.
   */
  static rehearse(options: HostOptions): void {
    const { now } = loadNative();
    const { incarnation, self } = options;
    const sizes = { frameBodyBytesMax: DATAGRAM_BYTES_MAX, receiveFramesMax: 1024 };
    const persistent = { existing: () => [] };
    const parts = { now, saved: null, sizes, persistent, resumes: incarnation, members: options.members };
    const node = new PoolNode(nodeOptions(options, parts));
    const database = databaseIdOf('rehearsal.tdb');
    const record = { kind: 'record-kept', database, dmaster: self, turn: 1 as Turn, flags: 0, isEmpty: false } as const;
    const inputs: Input[] = [
      {
        kind: 'database-kept', database, name: 'rehearsal.tdb', path: '/', flags: 0,
        state: encodeKeptDatabase({ readonly: false, countsChanges: false }),
      },
      ...Array.from({ length: 100 }, (_, index) => ({ ...record, key: keyOf(Buffer.from(`rehearsal ${index}`)) })),
      { kind: 'client-kept', client: 1 as ClientId, pid: process.pid, state: new Uint8Array(0) },
      { kind: 'drain-saved', token: 0, draining: false, error: null },
      { kind: 'tick' },
      { kind: 'turn-end' },
    ];
    for (const input of inputs) node.step(input, now());
    node.status(now());
  }

  private constructor(
    private readonly options: HostOptions,
    persistent: TdbPersistentStore,
    membership: MembershipFile,
    saved: SavedMembership | null,
  ) {
    const { now } = loadNative();
    this.now = now;
    this.persistent = persistent;
    const { addresses = [] } = options;
    const agreed = saved?.accepted?.configuration;
    this.members = agreed === undefined ? options.members : this.membersOf(agreed, saved!.servers);
    this.watchedPeers = this.withTwoInterfaces();
    const { etcd, poolName, inheritance } = options;
    this.register = etcd === undefined ? null : new EtcdRegister({ ...etcd, poolName });
    this.records = inheritance?.records ?? new TdbRecordStore(options.volatileDirectory, options.self);
    this.pump = this.openPump();
    const former = inheritance === undefined ? null : readKeptRun(this.pump.heirloom().state);
    if (former?.broken !== undefined) throw new PoolError('ERR_POOL_STANDBY', former.broken);
    this.resumes = former === null ? null : (former.first as Incarnation);
    this.keeping = this.makeKeeping(former);
    const kept = this.keeping;
    const onTaken = kept === null ? undefined : (taken: string[]): void => kept.addresses(taken);
    this.addresses =
      addresses.length === 0 ? null : new InterfaceAddresses(addresses, options.log, former?.addresses, onTaken);
    this.interconnect = options.faults === undefined ? this.pump : new FaultyInterconnect(this.pump, options.faults);
    this.node = this.makeNode(now, saved);
    if (agreed !== undefined) this.takeAgreed(agreed, saved!.servers);
    this.page = new NodePageWriter(this.pump, (name) => this.node.counter(name));
    this.witness = new WitnessDesk({
      input: (input) => this.loop.inputOutsideTurn(input),
      later: (action) => setImmediate(action),
    });
    const drainFile = new DrainFile(options.persistentDirectory);
    this.loop = new CoreLoop(this.node, {
      gate: this.pump,
      ring: this.pump,
      interconnect: this.interconnect,
      records: this.records,
      persistent,
      ...(this.addresses === null ? {} : { addresses: this.addresses }),
      ...(this.register === null ? {} : { register: this.register }),
      ...(kept === null ? {} : { kept }),
      resumed: () => setImmediate(() => this.onResumed()),
      log: this.page.logging(options.log),
      now,
      later: (action) => setImmediate(action),
      outsideTurnDone: (deadline) => this.leave(deadline),
      recordAnswer: (token, answer) => this.answerQuestion(token, answer),
      witnessAnswer: (token, answer) => this.witness.onAnswer(token, answer),
      traceEvent: (token, event) => this.witness.onEvent(token, event),
      saveMembership: (state) => membership.save(state),
      saveDraining: (draining) => drainFile.save(draining),
      drainAnswer: (token, error) => this.answerDrain(token, error),
      servers: (configuration, servers) => this.serversChanged(configuration, servers),
      serversChanged: (token, result) => this.answerChange(token, result),
      event: (event, fields) => options.onEvent?.(event, fields),
      left: () => this.onLeft(),
      startAnew: (reason, remedy) => options.startAnew(reason, remedy),
    });
    this.foreignTimer = this.watchForeign();
    // nobody serves before a leader says so; the lease of a run that goes on is good until it is over
    if (former === null) this.pump.setLease(0);
    this.pump.setServing(true);
    this.page.start();
    if (former !== null) for (const input of keptInputs(former, this.pump, this.records)) this.loop.input(input);
    this.loop.inputOutsideTurn({ kind: 'drain-saved', token: 0, draining: drainFile.isThere(), error: null });
    // the first hello goes out now, and the timer starts
    this.loop.inputOutsideTurn({ kind: 'tick' });
  }

  private watchForeign(): NodeJS.Timeout {
    const foreign = new ForeignFrames(this.options.log);
    const look = (): void => foreign.look(this.pump.counters()[FOREIGN_FRAMES] ?? 0, performance.now());
    return setInterval(look, FOREIGN_LOOK_MS).unref();
  }

  private makeKeeping(former: KeptRun | null): Keeping | null {
    const { keeps = false, incarnation, log, onDatabase } = this.options;
    if (!keeps) return null;
    return new Keeping(this.pump, incarnation, log, (name) => onDatabase?.(name), former ?? undefined);
  }

  private onResumed(): void {
    if (this.stopped || this.resumes === null) return;
    this.pump.resume();
    this.options.onResumed?.();
  }

  /** For a standby: descriptors that stay ours, and the databases that it is to open. */
  heirloom(): { streams: number; listener: number; databases: string[] } {
    const { streams, listener } = this.pump.heirloom();
    return { streams, listener, databases: this.keeping?.databaseNames() ?? [] };
  }

  /** Takes the descriptor of the link to a standby; -1: there is none any more. */
  setStandby(link: number): void {
    if (!this.stopped) this.pump.setStandby(link);
  }

  tellStandby(message: object): void {
    if (!this.stopped) this.pump.tellStandby(Buffer.from(JSON.stringify(message)));
  }

  private openPump(): Pump {
    const { inheritance } = this.options;
    const { self, incarnation, poolName, poolKey, transport, socketPath } = this.options;
    // whoever has the pool's key may speak to us: the core knows which servers there are, and tells the others so
    const all = Array.from({ length: NODE_COUNT_MAX }, (_, id) => id);
    const channel = { self, members: all, incarnation, poolName, poolKey };
    const native: NativeTransport =
      transport.kind === 'udp' ? { ...transport, datagramBytesMax: DATAGRAM_BYTES_MAX } : transport;
    const ring = ringOptions(this.options);
    return new Pump({
      socketPath,
      ...(inheritance === undefined ? {} : { heirloom: inheritance }),
      ...(ring === undefined ? {} : { ring }),
      interconnect: { channel, transport: native },
      listener: {
        clientOpened: (client, pid) => this.loop.input({ kind: 'client-opened', client, pid }),
        clientPacket: (client, packet) => this.loop.input({ kind: 'client-packet', client, packet }),
        clientClosed: (client) => this.loop.input({ kind: 'client-closed', client }),
        ring: {
          ringAttached: (attachment, pid) => this.loop.input({ kind: 'ring-attached', attachment, pid }),
          ringMessage: (attachment, op, payload) =>
            this.loop.input({ kind: 'ring-message', attachment, op, payload }),
          ringDetached: (attachment, bad) => this.loop.input({ kind: 'ring-detached', attachment, bad }),
        },
        frame: (peer, incarnationOfPeer, body) =>
          this.loop.input({ kind: 'frame', peer, incarnation: incarnationOfPeer, body }),
        isPatient: () => this.node.isPatient(),
        endOfBatch: () => {
          this.lookAtInterfaces();
          return this.loop.endOfBatch();
        },
      },
    });
  }

  private makeNode(now: () => Micros, saved: SavedMembership | null): PoolNode {
    const { interconnect, persistent, resumes, members } = this;
    return new PoolNode(nodeOptions(this.options, { now, saved, sizes: interconnect, persistent, resumes, members }));
  }

  // --- the pool's servers

  /** Those that are in the pool; ourselves also when we are not. What cannot be used is as in our own file. */
  private membersOf(configuration: Configuration, servers: readonly ConfiguredServer[]): PoolMember[] {
    const present = new Set([...configuration.counted, ...configuration.joining, this.options.self]);
    const known = servers.flatMap((server) => (present.has(server.node) ? (this.memberOf(server) ?? []) : []));
    const own = this.options.members.filter(({ id }) => present.has(id) && !known.some((one) => one.id === id));
    return [...known, ...own].sort((a, b) => a.id - b.id);
  }

  private memberOf(server: ConfiguredServer): PoolMember | undefined {
    return this.options.placeOf?.(server)?.member;
  }

  private withTwoInterfaces(): NodeId[] {
    const { self } = this.options;
    const hasTwo = this.members.filter(({ interfaces }) => interfaces !== undefined).map(({ id }) => id);
    return hasTwo.includes(self) ? hasTwo.filter((id) => id !== self) : [];
  }

  /** Former servers too: who was taken out and does not know it has to be told. */
  private setPeers(servers: readonly ConfiguredServer[]): void {
    for (const server of servers) {
      if (server.node === this.options.self) continue;
      const ways = this.options.placeOf?.(server)?.ways ?? [];
      for (const [way, place] of ways.entries()) {
        try {
          if (place !== null) this.pump.setPeer(server.node, way, place);
        } catch (error) {
          const remedy = 'take it out with smbpool leave, and in again with an address of the same kind as the others';
          const fields = { server: server.node, address: place?.address, why: messageOf(error), remedy };
          this.options.log.log('error', 'servers.unreachable', fields);
        }
      }
    }
  }

  private takeAgreed(configuration: Configuration, servers: readonly ConfiguredServer[]): void {
    this.setPeers(servers);
    this.options.onServers?.(configuration, servers);
  }

  private serversChanged(configuration: Configuration, servers: readonly ConfiguredServer[]): void {
    this.setPeers(servers);
    this.members = this.membersOf(configuration, servers);
    this.watchedPeers = this.withTwoInterfaces();
    const described = this.members.map(({ id, name, address }) => ({ node: id, name, address }));
    // not in the middle of a turn
    setImmediate(() => {
      if (!this.stopped) this.loop.inputOutsideTurn({ kind: 'servers-described', servers: described });
    });
    this.options.onServers?.(configuration, servers);
  }

  /** What a person wants of the pool's servers; resolves when it is agreed, or with why not. */
  changeServers(change: ServersChange): Promise<ChangeResult> {
    if (this.stopped) return Promise.reject(new PoolError('ERR_POOL_STOPPED', 'the daemon is stopping'));
    const token = ++this.lastToken;
    return new Promise((resolve) => {
      this.changes.set(token, resolve);
      this.loop.inputOutsideTurn({ kind: 'servers-change', token, change });
    });
  }

  private answerChange(token: number, result: ChangeResult): void {
    this.changes.get(token)?.(result);
    this.changes.delete(token);
  }

  /** Heartbeats wake the loop many times between two looks. */
  private lookAtInterfaces(): void {
    if (this.watchedPeers.length === 0) return;
    const now = this.now();
    if (now < this.nextLook) return;
    this.nextLook = now + INTERFACES_LOOK_MICROS;
    this.loop.input(this.interfacesHeard());
  }

  private interfacesHeard(): Input {
    const heard = this.watchedPeers.map((peer) => {
      const { incarnation, interfaces } = this.pump.peer(peer);
      const at = interfaces.map(({ heardAt }) => (heardAt === 0 ? null : heardAt));
      return { peer, incarnation: incarnation as Incarnation, at };
    });
    return { kind: 'interfaces-heard', heard };
  }

  /** Serves no more and has the others go on without this run; waits for that a little. */
  private async leavePool(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LEAVE_MS_MAX);
      this.onLeft = () => {
        clearTimeout(timer);
        resolve();
      };
      this.loop.inputOutsideTurn({ kind: 'leave' });
    });
  }

  /**
   * Leaves the pool, ends all connections, finishes what the persistent databases were asked, closes the files. May be
   * called again.
   */
  async stop(): Promise<void> {
    if (this.isLeaving) return;
    this.isLeaving = true;
    await this.leavePool();
    this.stopped = true;
    this.loop.stop();
    this.witness.stop();
    this.page.stop();
    clearInterval(this.foreignTimer);
    if (this.interconnect instanceof FaultyInterconnect) this.interconnect.close();
    this.pump.close();
    this.register?.close();
    for (const token of [...this.questions.keys()]) {
      this.takeQuestion(token)?.reject(new PoolError('ERR_POOL_STOPPED', 'the daemon is stopping'));
    }
    for (const token of [...this.changes.keys()]) this.answerChange(token, { why: 'late', about: [] });
    for (const token of [...this.drains.keys()]) this.answerDrain(token, 'the daemon is stopping');
    await this.addresses?.stop();
    await this.persistent.close();
    this.records.close();
  }

  /** Of each public address. */
  addressStatus(): AddressStatus[] {
    return this.node.addressStatus();
  }

  status(): HostStatus {
    // what people see is of now
    if (this.watchedPeers.length > 0 && !this.stopped) this.loop.inputOutsideTurn(this.interfacesHeard());
    const status = this.node.status(this.now());
    const peers = this.members.filter(({ id }) => id !== this.options.self);
    const faults: Record<string, number> =
      this.interconnect instanceof FaultyInterconnect ? this.interconnect.totals : {};
    const faultCounters = Object.fromEntries(
      Object.entries(faults).map(([name, value]) => [`interconnect.fault.${name}`, value]),
    );
    return {
      ...status,
      counters: {
        ...status.counters,
        ...(this.stopped ? {} : this.pump.counters()),
        ...faultCounters,
        ...this.register?.counters(),
      },
      interconnect: {
        addresses: this.stopped ? [] : this.pump.addresses(),
        frameBodyBytesMax: this.interconnect.frameBodyBytesMax,
        peers: this.stopped ? [] : peers.map(({ id }) => {
          return { peer: id, addresses: this.pump.peer(id).interfaces.map(({ address }) => address) };
        }),
      },
      ring: { attachments: this.stopped ? 0 : this.pump.attachments() },
    };
  }

  /** The changes of the pool that this run saw, oldest first. */
  poolEvents(): PoolEventReport[] {
    return this.node.poolEvents();
  }

  /**
   * Where a record is and where it has been. Rejects with PoolError when the pool does not know the database or its
   * home does not answer.
   */
  describeRecord(databaseName: string, key: Uint8Array): Promise<RecordDescription> {
    if (this.stopped) return Promise.reject(new PoolError('ERR_POOL_STOPPED', 'the daemon is stopping'));
    const names = this.node.status().gate.databases.map(({ name }) => name);
    if (!names.includes(databaseName)) {
      const message = `no database ${databaseName} is open here; there are ${names.join(', ') || 'none'}`;
      return Promise.reject(new PoolError('ERR_POOL_RECORD', message));
    }
    const token = ++this.lastToken;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const seconds = RECORD_ANSWER_TIMEOUT_MS / 1000;
        const message = `the record's home did not answer within ${seconds} s: see which servers are down`;
        this.takeQuestion(token)?.reject(new PoolError('ERR_POOL_RECORD', message));
      }, RECORD_ANSWER_TIMEOUT_MS);
      this.questions.set(token, { resolve, reject, timer });
      const database = databaseIdOf(databaseName);
      this.loop.inputOutsideTurn({ kind: 'record-query', token, database, key: keyOf(key) });
    });
  }

  /** The whole pool's holders and waiters that match. Rejects with PoolError when the daemon is stopping. */
  locks(filter: LockFilter): Promise<LocksAnswer> {
    return this.witness.locks(filter);
  }

  /** The files used most in the last whole interval. Rejects with PoolError when the daemon is stopping. */
  hot(): Promise<HotAnswer> {
    return this.witness.hot();
  }

  /** Calls `onEvent` for every event of the pool that matches, until the returned function is called. */
  trace(filter: TraceFilter, onEvent: (event: TraceEvent) => void): () => void {
    return this.witness.trace(filter, onEvent);
  }

  /** Whether a smbd is registered here. */
  hasSmbd(): boolean {
    return this.node.hasSmbd();
  }

  /** What the checks of this server find wrong with it, all of it, a sentence each. */
  setHealth(reasons: string[]): void {
    this.loop.inputOutsideTurn({ kind: 'health', reasons });
  }

  /**
   * Drains a server of the pool, or ends that; done when it is on that server's disk. Rejects with PoolError when the
   * server cannot be asked or its disk refuses.
   */
  async drain(server: NodeId, draining: boolean): Promise<void> {
    if (this.stopped) throw new PoolError('ERR_POOL_STOPPED', 'the daemon is stopping');
    const token = ++this.lastToken;
    const error = await new Promise<string | null>((resolve) => {
      this.drains.set(token, resolve);
      this.loop.inputOutsideTurn({ kind: 'drain-query', token, server, draining });
    });
    if (error !== null) throw new PoolError('ERR_POOL_DRAIN', error);
  }

  private answerDrain(token: number, error: string | null): void {
    this.drains.get(token)?.(error);
    this.drains.delete(token);
  }

  private answerQuestion(token: number, answer: RecordDescription | { error: string }): void {
    const question = this.takeQuestion(token);
    if ('error' in answer) question?.reject(new PoolError('ERR_POOL_RECORD', answer.error));
    else question?.resolve(answer);
  }

  private takeQuestion(token: number): Question | undefined {
    const question = this.questions.get(token);
    this.questions.delete(token);
    if (question !== undefined) clearTimeout(question.timer);
    return question;
  }

  private leave(deadline: Micros): void {
    this.pump.setDeadline(deadline);
    this.pump.flush();
  }
}

/** Absent: no ring. */
function ringOptions(options: HostOptions): RingOptions | undefined {
  const { self, incarnation, ringSocketPath, pagePath, inheritance } = options;
  if (ringSocketPath === undefined) return undefined;
  // the incarnation grows with the clock's milliseconds: its low half differs from run to run
  const generation = incarnation % U32_SPAN || 1;
  const adoptsPage = inheritance !== undefined;
  return { socketPath: ringSocketPath, ...(pagePath === undefined ? {} : { pagePath }), generation, self, adoptsPage };
}

interface NodeParts {
  now(): Micros;
  saved: SavedMembership | null;
  sizes: Pick<Interconnect, 'frameBodyBytesMax' | 'receiveFramesMax'>;
  persistent: { existing(): string[] };
  resumes: Incarnation | null;
  /** The pool's servers now, ourselves included. */
  members: readonly PoolMember[];
}

function nodeOptions(options: HostOptions, parts: NodeParts): NodeOptions {
  const { self, incarnation, samba, membership, addresses, announcement } = options;
  const { now, saved, sizes, persistent, resumes, members } = parts;
  const engine = options.etcd === undefined ? 'embedded' : 'etcd';
  return {
    self,
    ...(addresses === undefined ? {} : { addresses }),
    ...(announcement === undefined ? {} : { announcement }),
    sharesFolders: options.sharesFolders === true,
    ...(options.drainLeasesMicros === undefined ? {} : { drainLeasesMicros: options.drainLeasesMicros }),
    servers: members.map(({ id }) => id),
    incarnation,
    ...(resumes === null ? {} : { resumes }),
    membership: { ...membership, engine, servers: configuredOf(options), saved },
    frameBodyBytesMax: sizes.frameBodyBytesMax,
    receiveFramesMax: sizes.receiveFramesMax,
    names: new Map(members.map(({ id, name }) => [id, name])),
    interfaces: new Map(members.flatMap(({ id, interfaces }) => (interfaces ? [[id, interfaces] as const] : []))),
    gate: {
      addresses: new Map(members.map(({ id, address }) => [id, address])),
      pid: process.pid,
      wallClockOriginMicros: wallClockOriginMicros(now),
      persistentDatabases: persistent.existing(),
      ...(samba === undefined ? {} : { samba }),
    },
  };
}

/** As our file has them. */
function configuredOf({ members }: HostOptions): ConfiguredServer[] {
  return members.map(({ id, role, entry }) => (entry === undefined ? { node: id, role } : { node: id, role, entry }));
}
