/**
 * A few servers' Gate and Persistent on a perfect in-memory network, with a fake record engine, fake disks and local
 * clients that speak the real protocol. A server can be cut off, heal, start anew with its disk, or be left out of the
 * view. A view needs a majority of the configured servers; all install it at once unless a test says otherwise. For
 * tests of core/gate and core/persistent without links, records or host.
 */
import type { ClientId, DatabaseId, Epoch, Incarnation, NodeId, RecordKey } from '../../src/base/ids.js';
import { clientId, epoch, incarnation, keyOf, nodeId } from '../../src/base/ids.js';
import { DecodeError } from '../../src/base/bytes.js';
import type { CoreContext } from '../../src/core/context.js';
import type { Effect, PersistentOp, PersistentRow } from '../../src/core/effects.js';
import { Gate } from '../../src/core/gate/gate.js';
import type { RecordsEvents, RecordsForGate } from '../../src/core/gate/ports.js';
import { nextHolders } from '../../src/core/membership/composition.js';
import type { Member, View } from '../../src/core/views.js';
import { changes, runOf } from '../../src/core/views.js';
import { EPOCHS_PER_TERM } from '../../src/wire/membership-messages.js';
import { Persistent } from '../../src/core/persistent/persistent.js';
import { Timers } from '../../src/core/timers.js';
import { DESTINATION, decodeCtdbPacket, encodeCtdbPacket } from '../../src/wire/ctdb.js';
import type { CtdbBody, CtdbPacket, CtdbPacketOf } from '../../src/wire/ctdb.js';
import { GATE_MESSAGE_TYPE_MAX } from '../../src/wire/gate-messages.js';
import { versionOf } from '../../src/wire/persistent-rows.js';

/** Answers at once from a map unless told to hold; remembers what it was asked. */
export class FakeRecords implements RecordsForGate {
  readonly added: string[] = [];
  readonly deletions: RecordKey[] = [];
  readonly cancelled: number[] = [];
  readonly held: { token: number; answer: () => void }[] = [];
  readonly owned = new Map<RecordKey, Uint8Array>();
  hold = false;
  failWith: string | null = null;
  events: RecordsEvents | null = null;

  addDatabase(_database: DatabaseId, name: string): void {
    this.added.push(name);
  }
  private answer(token: number, answer: (events: RecordsEvents) => void): void {
    const run = (): void => {
      if (this.events === null) throw new Error('no events');
      if (this.failWith !== null) this.events.failed(token, this.failWith);
      else answer(this.events);
    };
    if (this.hold) this.held.push({ token, answer: run });
    else run();
  }
  migrate(_database: DatabaseId, key: RecordKey, token: number): void {
    this.answer(token, (events) => {
      if (!this.owned.has(key)) this.owned.set(key, new Uint8Array(0));
      events.migrated(token);
    });
  }
  look(database: DatabaseId, key: RecordKey, token: number): void {
    this.fetch(database, key, token);
  }
  fetch(_database: DatabaseId, key: RecordKey, token: number): void {
    this.answer(token, (events) => events.fetched(token, this.owned.get(key) ?? new Uint8Array(0)));
  }
  peek(_database: DatabaseId, key: RecordKey, token: number): void {
    this.answer(token, (events) => events.fetched(token, this.owned.get(key) ?? new Uint8Array(0)));
  }
  cancel(token: number): void {
    this.cancelled.push(token);
  }
  scheduleDeletion(_database: DatabaseId, key: RecordKey): void {
    this.deletions.push(key);
  }
  ownedKeys(): RecordKey[] {
    return [...this.owned.keys()];
  }
}

/** A local process's connection. */
export class TestClient {
  readonly packets: CtdbPacket[] = [];
  closedByGate: string | null = null;
  private lastRequest = 0;

  constructor(
    readonly id: ClientId,
    readonly pid: number,
    private readonly server: TestGate,
  ) {}

  /** Sends a request and returns its number. */
  send(body: CtdbBody, destination: number = DESTINATION.current): number {
    const requestId = ++this.lastRequest;
    const packet = encodeCtdbPacket({ generation: 1, destination, source: 0, requestId, ...body }, false);
    this.raw(packet);
    return requestId;
  }

  raw(packet: Uint8Array): void {
    this.server.act(() => this.server.gate.clientPacket(this.id, packet));
  }

  control(opcode: number, data: Uint8Array = new Uint8Array(0), options: ControlOptions = {}): number {
    const { srvid = 0n, destination, flags = 0 } = options;
    return this.send({ kind: 'request-control', opcode, srvid, clientId: 0, flags, data }, destination);
  }

  /** The answer to a control; throws when there is none. */
  answer(requestId: number): CtdbPacketOf<'reply-control'> {
    const packet = this.reply(requestId);
    if (packet?.kind !== 'reply-control') throw new Error(`request ${requestId}: ${packet?.kind ?? 'no answer'}`);
    return packet;
  }

  reply(requestId: number): CtdbPacket | undefined {
    return this.packets.find((packet) => packet.requestId === requestId);
  }

  get messages(): CtdbPacketOf<'message'>[] {
    return this.packets.filter((packet) => packet.kind === 'message');
  }

  close(): void {
    this.server.act(() => this.server.gate.clientClosed(this.id));
  }
}

export interface ControlOptions {
  srvid?: bigint;
  destination?: number;
  flags?: number;
}

export type Disk = Map<DatabaseId, Map<string, Uint8Array>>;

export class TestGate {
  readonly timers = new Timers();
  readonly counters = new Map<string, number>();
  readonly logs: string[] = [];
  readonly clients = new Map<ClientId, TestClient>();
  readonly records = new FakeRecords();
  readonly up = new Set<NodeId>();
  /** Those whose present run was up once. */
  readonly met = new Set<NodeId>();
  /** The run of each for which peerUp was called last. */
  private readonly announced = new Map<NodeId, Incarnation>();
  /** The view that it installed last. */
  view: View | null = null;
  private members: readonly NodeId[] = [];
  readonly gate: Gate;
  readonly persistent: Persistent;
  /** While true, opened databases and disk work are not reported. */
  holdDisk = false;
  /** Refuses disk work with this text. */
  diskFailure: string | null = null;
  openFailure: string | null = null;
  alive = true;
  /** It leads, and says that both servers have every commit. */
  allHold = false;
  /** Its disk was empty when it started. */
  readonly wasBlank: boolean;
  /** Why it said that its run must end. */
  ended: string | null = null;
  private waitingWork: (() => void)[] = [];
  private effects: Effect[] = [];

  constructor(
    readonly id: NodeId,
    readonly run: Incarnation,
    readonly disk: Disk,
    private readonly pool: GatePool,
  ) {
    const context = this.context();
    this.wasBlank = disk.size === 0;
    this.persistent = new Persistent(context, (allHold) => {
      this.allHold = allHold;
    });
    this.gate = new Gate(context, this.records, this.persistent, {
      addresses: new Map(pool.ids.map((node) => [node, `10.77.0.${10 + node}`])),
      pid: 4_000 + id,
      wallClockOriginMicros: 1_700_000_000_000_000,
      ...(pool.samba === undefined ? {} : { samba: pool.samba }),
      persistentDatabases: pool.namesOn(disk),
    }, run);
    this.records.events = this.gate;
  }

  /** As PoolNode does it. */
  install(view: View): void {
    const { left, joined } = changes(this.view?.members ?? [], view.members);
    this.act(() => {
      this.view = view;
      this.members = view.members.map(({ node }) => node);
      for (const peer of left) this.gate.peerLeft(peer);
      for (const peer of left) if (peer !== this.id) this.sayDown(peer);
      for (const peer of joined) if (this.up.has(peer)) this.sayUp(peer);
      this.persistent.install(view, left);
    });
  }

  /** The link to the peer works. */
  comeUp(peer: NodeId): void {
    this.up.add(peer);
    this.met.add(peer);
    this.act(() => this.sayUp(peer));
  }

  goDown(peer: NodeId): void {
    if (!this.up.delete(peer)) return;
    this.act(() => this.sayDown(peer));
  }

  /** First contact with a member's run, if it is that. */
  private sayUp(peer: NodeId): void {
    const run = runOf(this.view?.members ?? [], peer);
    if (run === undefined || this.announced.get(peer) === run || this.pool.runOf(peer) !== run) return;
    this.announced.set(peer, run);
    this.gate.peerUp(peer, run);
    this.persistent.peerUp(peer, run);
  }

  private sayDown(peer: NodeId): void {
    if (!this.announced.has(peer)) return;
    this.gate.peerDown(peer);
    this.persistent.peerDown(peer);
  }

  connect(pid: number): TestClient {
    const client = new TestClient(clientId(this.pool.nextClient++), pid, this);
    this.clients.set(client.id, client);
    this.act(() => this.gate.clientOpened(client.id, pid));
    return client;
  }

  /** One step of this server, its effects performed. */
  act(action: () => void): void {
    this.timers.run(this.pool.time);
    action();
    this.perform();
  }

  counter(name: string): number {
    return this.counters.get(name) ?? 0;
  }

  /** Reports disk work that was held; true when there was any. */
  runDisk(): boolean {
    if (this.holdDisk || this.waitingWork.length === 0) return false;
    const work = this.waitingWork;
    this.waitingWork = [];
    for (const each of work) this.act(each);
    return true;
  }

  private perform(): void {
    for (let effect = this.effects.shift(); effect !== undefined; effect = this.effects.shift()) {
      this.performOne(effect);
    }
  }

  private performOne(effect: Effect): void {
    switch (effect.kind) {
      case 'client-send':
        this.clients.get(effect.client)?.packets.push(decodeCtdbPacket(Uint8Array.from(effect.packet)));
        return;
      case 'client-close': {
        const client = this.clients.get(effect.client);
        if (client !== undefined) client.closedByGate = effect.reason;
        this.gate.clientClosed(effect.client);
        return;
      }
      case 'database-open': {
        const { database, name, persistent } = effect;
        const error = this.openFailure;
        this.pool.names.set(database, name);
        this.waitingWork.push(() => {
          const input = { database, path: `/db/${name}.${this.id}`, flags: persistent ? 0x400 : 0x1c41 };
          this.gate.onDatabaseOpened(error === null ? input : { ...input, error });
        });
        return;
      }
      case 'persistent': {
        const { database, token, work } = effect;
        this.waitingWork.push(() => this.persistent.onDone({ database, token, result: this.work(database, work) }));
        return;
      }
      case 'start-anew':
        this.ended = effect.reason;
        return;
      case 'log':
        this.logs.push(`${effect.level} ${effect.event} ${JSON.stringify(effect.fields)}`);
        return;
      default:
    }
  }

  private work(database: DatabaseId, op: PersistentOp): Parameters<Persistent['onDone']>[0]['result'] {
    if (this.diskFailure !== null) return { ok: false, why: this.diskFailure };
    const rows = this.disk.get(database) ?? new Map<string, Uint8Array>();
    this.disk.set(database, rows);
    if (op.op === 'replace') rows.clear();
    if (op.op !== 'read') for (const row of op.rows) rows.set(keyOf(row.key), Uint8Array.from(row.value));
    return { ok: true, rows: this.rows(database), sequence: this.sequence(database) };
  }

  rows(database: DatabaseId): PersistentRow[] {
    const rows = [...(this.disk.get(database) ?? new Map<string, Uint8Array>())];
    return rows.map(([key, value]) => ({ key: Buffer.from(key, 'latin1'), value }));
  }

  /** What smbd would read as the sequence number of its local file. */
  sequence(database: DatabaseId): number {
    return versionOf(this.rows(database))?.sequence ?? 0;
  }

  private context(): CoreContext {
    const view = (): View | null => this.view;
    const members = (): readonly NodeId[] => this.members;
    return {
      self: this.id,
      servers: this.pool.configured,
      fileServers: this.pool.ids,
      get members() {
        return members();
      },
      get epoch() {
        return view()?.epoch ?? epoch(0);
      },
      timers: this.timers,
      now: () => this.pool.time,
      emit: (effect) => this.effects.push(effect),
      send: (peer, message, mode) => {
        if (mode === 'drop' && !this.up.has(peer)) return false;
        if (mode === 'met' && !this.met.has(peer)) return false;
        return this.pool.send(this, peer, Uint8Array.from(message));
      },
      isUp: (peer) => peer === this.id || (this.up.has(peer) && this.members.includes(peer)),
      speaks: (protocol) => protocol === 1,
      isFenced: () => false,
      log: (level, event, fields = {}) => this.effects.push({ kind: 'log', level, event, fields }),
      count: (name, by = 1) => this.counters.set(name, (this.counters.get(name) ?? 0) + by),
    };
  }
}

/** A message under way between two runs, and the view under which it was sent. */
interface Letter {
  fromRun: Incarnation;
  toRun: Incarnation;
  epoch: Epoch;
  bytes: Uint8Array;
}

export class GatePool {
  time = 1_000;
  nextClient = 1;
  /** What servers started from now on say their Samba is. */
  samba: string | undefined;
  /** Those with a gate and a disk. */
  readonly ids: NodeId[];
  /** With the witnesses, which are always there and vote for everybody. */
  readonly configured: NodeId[];
  private readonly servers = new Map<NodeId, TestGate>();
  private readonly disks = new Map<NodeId, Disk>();
  private readonly wires = new Map<string, Letter[]>();
  private readonly cuts = new Set<string>();
  private runs = 0;
  /** Until told, no view follows from what a leader says of the holders. */
  isSlowToAgree = false;
  /** Names of the databases that were opened anywhere. */
  readonly names = new Map<DatabaseId, string>();
  /** The newest view; null: there never was a majority. */
  view: View | null = null;
  /** Bytes of each message delivered, for leak checks of tests. */
  delivered = 0;

  constructor(count: number, started: readonly number[] = Array.from({ length: count }, (_, i) => i), witnesses = 0) {
    this.configured = Array.from({ length: count + witnesses }, (_, i) => nodeId(i));
    this.ids = this.configured.slice(0, count);
    for (const id of started) this.start(id);
    this.settle();
  }

  server(id: number): TestGate {
    const server = this.servers.get(nodeId(id));
    if (server === undefined) throw new Error(`server ${id} does not run`);
    return server;
  }

  /** Starts a server, with the disk of its earlier run; a view says so, if there is a majority. */
  start(id: number): TestGate {
    const server = this.bring(id);
    this.agree();
    return server;
  }

  /** All servers that do not run start, and are in one view. */
  startAll(): void {
    for (const node of this.ids) if (!this.servers.has(node)) this.bring(node);
    this.agree();
  }

  private bring(id: number): TestGate {
    const node = nodeId(id);
    const disk: Disk = this.disks.get(node) ?? new Map<DatabaseId, Map<string, Uint8Array>>();
    this.disks.set(node, disk);
    const server = new TestGate(node, incarnation(++this.runs), disk, this);
    this.servers.set(node, server);
    for (const peer of this.servers.values()) {
      if (peer === server || this.cuts.has(pair(peer.id, node))) continue;
      peer.comeUp(node);
      server.comeUp(peer.id);
    }
    return server;
  }

  namesOn(disk: Disk): string[] {
    return [...disk.keys()].map((database) => this.names.get(database)!);
  }

  /** The server lost its disk. */
  wipe(id: number): void {
    this.disks.delete(nodeId(id));
  }

  runOf(node: NodeId): Incarnation | undefined {
    return this.servers.get(node)?.run;
  }

  /**
   * The servers that run agree on a view, and `installing` install it. The leader stays while it runs; one that starts
   * anew leads again, in a new term.
   */
  agree(leader?: number, installing: readonly NodeId[] = [...this.servers.keys()]): void {
    const before = this.view;
    const members = [...this.servers.values()].sort((a, b) => a.id - b.id);
    const witnesses = this.configured.length - this.ids.length;
    if (members.length === 0 || (members.length + witnesses) * 2 <= this.configured.length) return;
    const former = before === null ? undefined : this.servers.get(before.leader);
    const leads = leader === undefined ? (former ?? members[0]!) : this.server(leader);
    const isSame = before !== null && runOf(before.members, before.leader) === leads.run && before.leader === leads.id;
    const term = Math.floor((before?.epoch ?? 0) / EPOCHS_PER_TERM);
    const next = epoch(isSame ? before.epoch + 1 : (term + 1) * EPOCHS_PER_TERM + 1);
    const named = members.map(({ id, run }): Member => ({ node: id, incarnation: run, since: next }));
    const blank = new Set(members.filter(({ wasBlank }) => wasBlank).map(({ id }) => id));
    const facts = { servers: this.ids, allHold: isSame && leads.allHold, blank };
    const holders = nextHolders(before, named, facts);
    this.view = { epoch: next, leader: leads.id, members: named, protocol: 1, holders, former: [], past: [] };
    for (const id of installing) this.install(id);
  }

  /** The leader says that both servers of two have everything: a view that says it. False: there is nothing to say. */
  agreeOnHolders(): boolean {
    const { view, ids } = this;
    if (view === null || view.holders.length === ids.length) return false;
    if (this.servers.get(view.leader)?.allHold !== true || view.members.length < this.servers.size) return false;
    this.agree();
    return true;
  }

  /** The server installs the newest view; what was under way from and to runs that are out is lost. */
  install(id: number): void {
    const { view } = this;
    if (view === null) return;
    for (const [name, letters] of this.wires) {
      const [from, to] = name.split('>').map((each) => nodeId(Number(each))) as [NodeId, NodeId];
      const isOut = ({ fromRun, toRun }: Letter): boolean =>
        runOf(view.members, from) !== fromRun || runOf(view.members, to) !== toRun;
      if (from === id || to === id) this.wires.set(name, letters.filter((letter) => !isOut(letter)));
    }
    this.server(id).install(view);
  }

  /** The server's process ends, and the others agree on a view without it. */
  lose(id: number, leader?: number): void {
    this.stop(id);
    this.agree(leader);
  }

  /** The server's process ends; what was under way to and from it is lost. Its disk stays, but what it held is lost. */
  stop(id: number): void {
    const node = nodeId(id);
    const server = this.server(id);
    server.alive = false;
    this.servers.delete(node);
    for (const [name, messages] of this.wires) {
      const [from, to] = name.split('>');
      if (Number(from) === id || Number(to) === id) messages.length = 0;
    }
    for (const peer of this.servers.values()) {
      peer.goDown(node);
      peer.met.delete(node);
    }
  }

  /** Silence between two servers: both call each other down; messages wait. */
  cut(a: number, b: number): void {
    this.cuts.add(pair(nodeId(a), nodeId(b)));
    this.server(a).goDown(nodeId(b));
    this.server(b).goDown(nodeId(a));
  }

  /** A server stands still, for no time of its own: only its peers call it down. `heal` with each of them ends it. */
  freeze(id: number): void {
    const node = nodeId(id);
    for (const peer of this.servers.values()) {
      if (peer.id === node) continue;
      this.cuts.add(pair(peer.id, node));
      peer.goDown(node);
    }
  }

  /** They hear each other again; nothing was lost. */
  heal(a: number, b: number): void {
    this.cuts.delete(pair(nodeId(a), nodeId(b)));
    this.server(a).comeUp(nodeId(b));
    this.server(b).comeUp(nodeId(a));
  }

  /** What is said to a run that the sender's view does not name is lost. */
  send(from: TestGate, to: NodeId, bytes: Uint8Array): boolean {
    const toRun = runOf(from.view?.members ?? [], to);
    if (toRun === undefined) return false;
    const name = `${from.id}>${to}`;
    const letter = { fromRun: from.run, toRun, epoch: from.view!.epoch, bytes };
    const wire = this.wires.get(name);
    if (wire === undefined) this.wires.set(name, [letter]);
    else wire.push(letter);
    return true;
  }

  /** Lets messages, disk work and due timers run until nothing is left to do now. */
  settle(): void {
    for (let round = 0; round < 100_000; round++) {
      let busy = this.deliverAll();
      for (const server of this.servers.values()) {
        if (server.timers.deadline() <= this.time) {
          server.act(() => {});
          busy = true;
        }
        if (server.runDisk()) busy = true;
      }
      if (!busy && this.isSlowToAgree) return;
      if (!busy && !this.agreeOnHolders()) return;
    }
    throw new Error('the pool does not come to rest');
  }

  private deliverAll(): boolean {
    let busy = false;
    for (const [name, messages] of this.wires) {
      const [from, to] = name.split('>').map((id) => nodeId(Number(id)));
      const target = to === undefined ? undefined : this.servers.get(to);
      if (from === undefined || to === undefined || target === undefined || this.cuts.has(pair(from, to))) continue;
      if (!target.up.has(from)) continue;
      for (let letter = messages[0]; letter !== undefined; letter = messages[0]) {
        const { toRun, bytes } = letter;
        // of a later view: it is not taken, and comes again
        if (letter.epoch > (target.view?.epoch ?? 0)) break;
        messages.shift();
        if (toRun !== target.run) continue;
        busy = true;
        this.delivered++;
        target.act(() => this.deliver(target, from, bytes));
      }
    }
    return busy;
  }

  private deliver(target: TestGate, from: NodeId, bytes: Uint8Array): void {
    try {
      if ((bytes[0] ?? 0) <= GATE_MESSAGE_TYPE_MAX) target.gate.onMessage(from, bytes);
      else target.persistent.onMessage(from, bytes);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      target.counters.set('refused', target.counter('refused') + 1);
    }
  }

  /** Lets time pass, timers in their order. */
  advance(micros: number): void {
    const end = this.time + micros;
    this.settle();
    for (;;) {
      const next = Math.min(...[...this.servers.values()].map((server) => server.timers.deadline()));
      if (next > end) break;
      this.time = Math.max(this.time, next);
      this.settle();
    }
    this.time = end;
    this.settle();
  }
}

function pair(a: NodeId, b: NodeId): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}
