/**
 * The gate: all that local processes (smbd and friends) say in CTDB's client protocol, and all that the gates of other
 * servers say to ours. Takes the clients' inputs of PoolNode, asks the record engine and the persistent databases, and
 * answers by 'client-send'. Every request that wants an answer gets one. Nothing a client sends can throw through here.
 */
import { DecodeError } from '../../base/bytes.js';
import type { ClientId, Incarnation, NodeId } from '../../base/ids.js';
import { databaseId } from '../../base/ids.js';
import { OPERATION, SRVID, decodeCtdbPacket, nameBytes, peekHeader } from '../../wire/ctdb.js';
import { decodeTcpClient, encodeU32 } from '../../wire/ctdb-controls.js';
import { decodeGateMessage } from '../../wire/gate-messages.js';
import { decodeKeptClient } from '../../wire/kept-state.js';
import type { CoreContext } from '../context.js';
import type { Input, KeptInput } from '../effects.js';
import type { Timer } from '../timers.js';
import { Calls } from './calls.js';
import { ChangeNotify } from './change-notify.js';
import { Clients } from './clients.js';
import type { Client } from './clients.js';
import { Controls } from './controls.js';
import { Databases } from './databases.js';
import { Forwarding, refused } from './forwarding.js';
import { LivenessQuestions } from './liveness.js';
import { Messages } from './messages.js';
import type { AddressesForGate, GateOptions, PersistentForGate, RecordsEvents, RecordsForGate } from './ports.js';
import { Processes } from './processes.js';
import { Releases } from './releases.js';
import { smbdControls } from './smbd-controls.js';
import { Tokens } from './tokens.js';
import { toolControls } from './tool-controls.js';
import { Traversals } from './traversals.js';

export type { GateOptions } from './ports.js';

/** CTDB's clients expect to hear who leads once a second. */
const LEADER_INTERVAL_MICROS = 1_000_000;
/** The first time soon, so that `ctdb status` need not wait. */
const LEADER_DELAY_MICROS = 1_000;
/** CTDB calls generation 1 invalid; our epochs count from 0 or 1. */
const GENERATION_OFFSET = 1;
/** What a client must have sent to be worth an entry in the log: causes, not packets. */
const REFUSAL_CAUSES_LOGGED_MAX = 64;

export interface GateStatus {
  clients: number;
  processes: number;
  addresses: number;
  calls: number;
  controls: number;
  traversals: number;
  /** Folders that the clients of this server watch, as the modules told. */
  watches: number;
  databases: { name: string; kind: string; open: boolean; readonly: boolean }[];
  /** Processes of every server, as known here. */
  servers: { node: NodeId; processes: number; known: boolean }[];
}

/** Who has to know of this server's processes. */
export interface ProcessEvents {
  /** It had the VFS module when the run that we continue ended. */
  keptModule(pid: number): void;
  /** It has no connection to us any more, and so has ended. */
  ended(pid: number): void;
}

export class Gate implements RecordsEvents {
  private readonly clients: Clients;
  private readonly calls: Calls;
  private readonly messages: Messages;
  readonly changeNotify: ChangeNotify;
  private readonly controls: Controls;
  private readonly databases: Databases;
  private readonly processes: Processes;
  private readonly forwarding: Forwarding;
  private readonly traversals: Traversals;
  private readonly releases: Releases;
  private readonly refusalsLogged = new Set<string>();
  private leaderTimer: Timer | null = null;
  private processEvents: ProcessEvents | null = null;

  constructor(
    private readonly context: CoreContext,
    records: RecordsForGate,
    private readonly persistent: PersistentForGate,
    options: GateOptions,
    incarnation: Incarnation,
    private readonly addresses?: AddressesForGate,
    /** Our run continues another one. */
    resumes = false,
  ) {
    const generation = (context.epoch + GENERATION_OFFSET) % 0x8000_0000;
    const tokens = new Tokens();
    this.clients = new Clients(context, generation);
    this.processes = new Processes(context);
    this.databases = new Databases(context, records, persistent);
    this.messages = new Messages(context, this.clients, resumes);
    this.changeNotify = new ChangeNotify(context, this.messages);
    this.forwarding = new Forwarding(context);
    this.releases = new Releases(context, options.samba, incarnation);
    this.traversals = new Traversals(context, this.clients, records, persistent, tokens);
    this.calls = new Calls(context, this.clients, records, tokens, (id) => this.databases.isVolatile(id));
    const parts = {
      context,
      options,
      clients: this.clients,
      processes: this.processes,
      databases: this.databases,
      messages: this.messages,
      traversals: this.traversals,
      records,
      persistent,
      addresses,
      addressRegistered: (client: Client, srvid: bigint): void => this.addressRegistered(client, srvid),
      addressDropped: (): void => this.tellAble(),
    };
    const table = new Map([...smbdControls(parts), ...toolControls(parts, generation)]);
    const liveness = new LivenessQuestions(context, this.processes, this.forwarding);
    this.controls = new Controls(context, this.clients, this.forwarding, liveness, table);
    this.databases.openExisting(options.persistentDatabases ?? []);
  }

  /** The pool has more servers than before, or fewer. */
  serversChanged(): void {
    this.processes.serversChanged();
    this.changeNotify.serversChanged();
  }

  clientOpened(id: ClientId, pid: number): void {
    this.processes.clientOpened(this.clients.open(id, pid));
  }

  /** A volatile database that the run that we continue had open. Throws DecodeError. */
  keepDatabase(kept: Extract<KeptInput, { kind: 'database-kept' }>): void {
    this.databases.reopen(kept);
  }

  /** A client of the run that we continue. Throws DecodeError. */
  keepClient({ client: id, pid, state }: Extract<KeptInput, { kind: 'client-kept' }>): void {
    const kept = decodeKeptClient(state);
    const client = this.clients.reopen(id, pid, kept);
    this.processes.clientOpened(client);
    for (const [srvid, count] of kept.srvids) {
      for (let i = 0; i < count; i++) this.clients.register(client, srvid);
      this.processes.registered(client, srvid);
      this.addressRegistered(client, srvid);
    }
    for (const data of kept.connections) this.addresses?.connected(id, decodeTcpClient(data));
    if (kept.hasModule) this.processEvents?.keptModule(pid);
  }

  /** Must be called before anything is kept. */
  watchProcesses(events: ProcessEvents): void {
    this.processEvents = events;
  }

  /** The VFS module of this process is attached: a run that continues ours must know. */
  moduleAttached(pid: number): void {
    for (const client of this.clients.all()) {
      if (client.pid !== pid || client.hasModule) continue;
      client.hasModule = true;
      this.clients.keep(client);
    }
  }

  /** Whether a process of this server has a connection to us. */
  isAlive(pid: number): boolean {
    return this.processes.isAlive(this.context.self, pid, null) !== 'dead';
  }

  /** Opens a volatile database that only the daemons use. */
  openOwn(name: string): void {
    this.databases.openOwn(name);
  }

  /** Whether the packets of clients can be taken: no database is being opened. */
  get isReady(): boolean {
    return this.databases.areOpen;
  }

  /** Traversals that were under way begin again: the process has got some of the rows, perhaps all. */
  resume(): void {
    for (const client of this.clients.all()) {
      for (const start of client.traversals) {
        const database = this.databases.get(databaseId(start.database));
        if (database?.state === 'open') {
          this.traversals.start(client, start, database.id, database.kind !== 'volatile');
        }
      }
    }
  }

  clientClosed(id: ClientId): void {
    const client = this.clients.get(id);
    if (client === undefined) return;
    this.clients.close(client);
    this.calls.clientClosed(client);
    for (const stop of [...client.onClosed]) stop();
    this.processes.clientClosed(client);
    const isLast = !this.isAlive(client.pid);
    this.changeNotify.clientClosed(client, isLast);
    if (isLast) this.processEvents?.ended(client.pid);
    for (const [srvid, data] of client.notifies) this.messages.broadcast(srvid, data);
    this.addresses?.disconnected(id);
    this.tellAble();
  }

  /** A public address is here no more: smbds end the connections that they serve there. */
  releaseAddress(address: string): void {
    this.messages.deliver(SRVID.releaseIp, nameBytes(address));
  }

  /** Each smbd has a notifyd, which comes before it listens and goes with it. */
  private tellAble(): void {
    this.addresses?.setAble(this.clients.isRegistered(SRVID.sambaNotifyProxy));
  }

  /** One whole packet of a client; the bytes are only valid during the call. */
  clientPacket(id: ClientId, bytes: Uint8Array): void {
    const client = this.clients.get(id);
    if (client === undefined) return this.context.count('gate.packet.refused.unknown-client');
    try {
      const packet = decodeCtdbPacket(bytes);
      switch (packet.kind) {
        case 'request-call':
          return this.calls.request(client, packet);
        case 'message':
          if (this.changeNotify.fromLocal(packet.destination, packet.srvid, packet.data)) return;
          return this.messages.request(packet.destination, packet.srvid, packet.data);
        case 'request-control':
          return this.controls.request(client, packet);
        default:
          throw new DecodeError('not-a-request', packet.kind);
      }
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.refusePacket(client, bytes, error);
    }
  }

  /** A packet that is not understood: answered if it can be, else the connection has lost its meaning and ends. */
  private refusePacket(client: Client, bytes: Uint8Array, error: DecodeError): void {
    this.context.count(`gate.packet.refused.${error.reason}`);
    if (!this.refusalsLogged.has(error.reason) && this.refusalsLogged.size < REFUSAL_CAUSES_LOGGED_MAX) {
      this.refusalsLogged.add(error.reason);
      this.context.log('warn', 'gate.packet.refused', { pid: client.pid, why: error.message });
    }
    const header = peekHeader(bytes);
    if (header === null || error.reason === 'wrong-length') {
      this.context.emit({ kind: 'client-close', client: client.id, reason: `bad packet: ${error.message}` });
      return;
    }
    if (header.operation === OPERATION.requestMessage) return;
    const body =
      header.operation === OPERATION.requestControl
        ? ({ kind: 'reply-control', ...refused(error.message) } as const)
        : ({ kind: 'reply-error', status: 0xffff_ffff, message: error.message } as const);
    this.clients.send(client.id, body, header.requestId);
  }

  /** A message of a peer's gate (types 32 to 63). Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodeGateMessage(bytes);
    switch (message.kind) {
      case 'message':
        if (this.changeNotify.fromPeer(from, message.srvid, message.data)) return;
        this.messages.deliver(message.srvid, message.data);
        return this.changeNotify.delivered(from, message.data);
      case 'notifyd':
        return this.changeNotify.onAnnounced(from, message.id);
      case 'process-changes':
        return this.processes.onChanges(from, message.changes);
      case 'process-list':
        return this.processes.onList(from, message.first, message.last, message.processes);
      case 'database':
        return this.databases.onAnnounced(from, message.database, message.name, message.type, message.readonly);
      case 'control':
        return this.controls.onControl(from, message);
      case 'control-answer': {
        const { number, status, data, error } = message;
        return this.forwarding.onAnswer(from, number, { status, data, error });
      }
      case 'traverse-start':
        return this.traversals.serve(from, message.number, message.database);
      case 'traverse-more':
        return this.traversals.more(from, message.number);
      case 'traverse-rows':
        return this.traversals.onRows(from, message.number, message.last, message.rows);
      case 'traverse-cancel':
        return this.traversals.stopServing(from, message.number);
      case 'release':
        return this.releases.heard(from, message.samba);
    }
  }

  onDatabaseOpened(input: Omit<Extract<Input, { kind: 'database-opened' }>, 'kind'>): void {
    this.databases.onDatabaseOpened(input);
  }

  /** First contact with this run of the peer, or what was sent to it was lost. */
  peerUp(peer: NodeId, incarnation: Incarnation): void {
    this.releases.peerUp(peer, incarnation);
    // databases first: what follows may name them
    this.databases.peerUp(peer);
    this.processes.peerUp(peer, incarnation);
    this.forwarding.peerLost(peer);
    this.traversals.peerLost(peer);
    this.changeNotify.peerUp(peer, incarnation);
  }

  /** The peer's run is another one, which continues the one before: its processes live. */
  peerResumed(peer: NodeId, incarnation: Incarnation): void {
    this.processes.peerResumed(peer, incarnation);
    this.changeNotify.peerResumed(peer, incarnation);
    this.forwarding.peerLost(peer);
    this.traversals.peerLost(peer);
  }

  /** The peer's run is out of the view. */
  peerLeft(peer: NodeId): void {
    this.processes.peerLeft(peer);
    this.forwarding.peerLost(peer);
    this.traversals.peerLost(peer);
    this.changeNotify.peerLeft(peer);
  }

  peerDown(peer: NodeId): void {
    this.forwarding.peerLost(peer);
    this.traversals.peerSilent(peer);
    this.changeNotify.peerDown(peer);
  }

  migrated(token: number): void {
    if (!this.calls.migrated(token)) this.context.count('gate.answer.unexpected');
  }

  fetched(token: number, data: Uint8Array): void {
    if (this.calls.fetched(token, data) || this.traversals.fetched(token, data)) return;
    this.context.count('gate.answer.unexpected');
  }

  failed(token: number, why: string): void {
    if (this.calls.failed(token, why) || this.traversals.failed(token)) return;
    this.context.count('gate.answer.unexpected');
  }

  private addressRegistered(client: Client, srvid: bigint): void {
    this.changeNotify.registered(client, srvid);
    this.tellAble();
    if (srvid !== SRVID.leader || this.leaderTimer !== null) return;
    const { timers } = this.context;
    this.leaderTimer = timers.at(this.context.now() + LEADER_DELAY_MICROS, () => this.tellLeader());
  }

  private tellLeader(): void {
    this.leaderTimer = null;
    if (!this.clients.isRegistered(SRVID.leader)) return;
    this.clients.deliver(SRVID.leader, encodeU32(this.persistent.leader()));
    const due = this.context.now() + LEADER_INTERVAL_MICROS;
    this.leaderTimer = this.context.timers.at(due, () => this.tellLeader());
  }

  status(): GateStatus {
    return {
      ...this.clients.status(),
      calls: this.calls.size,
      controls: this.forwarding.size,
      traversals: this.traversals.size,
      watches: this.changeNotify.size,
      databases: this.databases
        .list()
        .map(({ name, kind, state, readonly }) => ({ name, kind, open: state === 'open', readonly })),
      servers: this.processes.status(),
    };
  }
}
