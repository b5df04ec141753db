/**
 * A few servers' Records on a perfect network whose messages wait until a test lets them go: per pair of servers in
 * order, between pairs in any order. Servers die, start anew and join; the view that says so is agreed at once, and
 * each server installs it when the test says. Stores are maps; a chain can be held. For unit and random tests of
 * core/records without links, gate or smbd.
 */
import type { CoreContext } from '../../src/core/context.js';
import type { Effect, RecordEffect, RecordOutcome } from '../../src/core/effects.js';
import type { DatabaseId, Epoch, Incarnation, NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseId, epoch, incarnation, nodeId, turn } from '../../src/base/ids.js';
import type { FormerView, Member, View } from '../../src/core/views.js';
import { changes, runOf } from '../../src/core/views.js';
import { EPOCHS_PER_TERM } from '../../src/wire/membership-messages.js';
import { PROTOCOL } from '../../src/wire/protocol-version.js';
import { HOLD_MICROS, Records } from '../../src/core/records/records.js';
import { SLICE } from '../../src/core/records/slices.js';
import { rendezvousHome } from '../../src/core/records/rendezvous.js';
import { Timers } from '../../src/core/timers.js';
import { FLAG_HAVE_DELEGATIONS, FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';

export interface StoredRecord {
  rsn: number;
  dmaster: number;
  flags: number;
  data: string;
}

export class TestServer {
  readonly store = new Map<string, StoredRecord>();
  readonly heldChains = new Set<string>();
  readonly counters = new Map<string, number>();
  readonly answers = new Map<number, { what: 'migrated' | 'fetched' | 'failed'; data: string }>();
  readonly timers = new Timers();
  readonly records: Records;
  /** The view that it installed last. */
  view: View | null = null;
  private members: readonly NodeId[] = [];
  /** The view whose recovery it has behind it; 0: none yet. */
  recovered = epoch(0);
  /** Its lease ran out. */
  isFenced = false;
  private effects: Effect[] = [];

  constructor(
    readonly id: NodeId,
    private readonly pool: RecordsPool,
    readonly run: Incarnation,
    /** The run that this one continues. */
    readonly former: TestServer | null = null,
  ) {
    this.records = new Records(this.context(), run, HOLD_MICROS, former !== null, pool.sliceSize);
    this.records.listen({
      migrated: (token) => this.answers.set(token, { what: 'migrated', data: '' }),
      fetched: (token, data) =>
        this.answers.set(token, { what: 'fetched', data: Buffer.from(data).toString('latin1') }),
      failed: (token, why) => this.answers.set(token, { what: 'failed', data: why }),
      described: () => {},
      recovered: (of) => (this.recovered = of),
    });
    for (const [database, name] of pool.databases) this.records.addDatabase(database, name);
    for (const [name, record] of former?.store ?? []) this.keep(name, record);
  }

  private keep(name: string, record: StoredRecord): void {
    const [database, key] = name.split('/') as [string, RecordKey];
    this.store.set(name, record);
    this.records.keepRecord({
      kind: 'record-kept', database: databaseId(Number(database)), key, dmaster: nodeId(record.dmaster),
      turn: turn(record.rsn), flags: record.flags, isEmpty: record.data === '',
    });
  }

  install(view: View): void {
    const changed = changes(this.view?.members ?? [], view.members);
    this.view = view;
    this.members = view.members.map(({ node }) => node);
    this.act((records) => records.install(view, changed));
  }

  /** Runs `action` on the records and performs the effects it causes. */
  act(action: (records: Records) => void): void {
    this.timers.run(this.pool.time);
    action(this.records);
    this.perform();
    this.records.flush();
    this.perform();
  }

  private perform(): void {
    for (let effect = this.effects.shift(); effect !== undefined; effect = this.effects.shift()) {
      if (effect.kind === 'record') this.answerStore(effect);
    }
  }

  private answerStore(effect: RecordEffect): void {
    this.records.onDone(effect.database, effect.key, effect.op, this.performRecord(effect));
  }

  private performRecord({ database, key, op }: RecordEffect): RecordOutcome {
    const name = `${database}/${key}`;
    if (this.heldChains.has(name)) return { result: 'busy' };
    const record = this.store.get(name);
    const ours = record?.dmaster === this.id;
    const data = Buffer.from(record?.data ?? '', 'latin1');
    if (op.op === 'take') {
      const text = Buffer.from(op.data).toString('latin1');
      const flags = op.copyOf === null ? 0 : FLAG_HAVE_READONLY;
      this.store.set(name, { rsn: op.turn, dmaster: op.copyOf ?? this.id, flags, data: text });
      return { result: 'done' };
    }
    if (op.op === 'keep') {
      if (ours) return { result: 'refused', why: 'ours' };
      if (record !== undefined && record.rsn >= op.turn) return { result: 'refused', why: 'other-turn' };
      const text = Buffer.from(op.data).toString('latin1');
      this.store.set(name, { rsn: op.turn - 1, dmaster: op.owner, flags: 0, data: text });
      return { result: 'done' };
    }
    if (op.op === 'discard') {
      if (record !== undefined && ours) return { result: 'refused', why: 'ours' };
      if (record !== undefined && record.rsn > op.turn) return { result: 'refused', why: 'other-turn' };
      if (op.keep && record !== undefined) record.flags = 0;
      else this.store.delete(name);
      return { result: 'done' };
    }
    if (record === undefined) return { result: 'refused', why: 'absent' };
    if (op.op === 'reclaim') {
      Object.assign(record, { dmaster: this.id, rsn: op.turn, flags: 0 });
      return { result: 'done', isEmpty: data.length === 0 };
    }
    if (op.op === 'peek' && op.mode === 'read' && (record.flags & FLAG_HAVE_READONLY) !== 0) {
      return { result: 'done', data };
    }
    if (!ours) return { result: 'refused', why: 'not-ours' };
    switch (op.op) {
      case 'give':
        Object.assign(record, { dmaster: op.to, flags: 0 });
        return { result: 'done', data };
      case 'share':
        record.flags |= FLAG_HAVE_DELEGATIONS;
        return { result: 'done', data };
      case 'unshare':
        Object.assign(record, { flags: 0, rsn: op.turn });
        return { result: 'done' };
      case 'peek':
        if (op.mode === 'write' && record.flags !== 0) return { result: 'refused', why: 'shared' };
        return { result: 'done', data };
      case 'erase':
        if (record.data !== '') return { result: 'refused', why: 'not-empty' };
        if (record.rsn !== op.turn) return { result: 'refused', why: 'other-turn' };
        this.store.delete(name);
        return { result: 'done' };
    }
  }

  private context(): CoreContext {
    const view = (): View | null => this.view;
    const members = (): readonly NodeId[] => this.members;
    return {
      self: this.id,
      servers: this.pool.configured,
      fileServers: this.pool.configured,
      get members() {
        return members();
      },
      get epoch() {
        return view()?.epoch ?? epoch(0);
      },
      timers: this.timers,
      now: () => this.pool.time,
      emit: (effect) => this.effects.push(effect),
      send: (peer, message) => this.pool.send(this, peer, message),
      isUp: (peer) => peer === this.id || this.members.includes(peer),
      speaks: (protocol) => protocol <= this.pool.protocol,
      isFenced: () => this.isFenced,
      log: (level, event, fields) => {
        if (level === 'error') this.pool.errors.push(`server ${this.id}: ${event} ${JSON.stringify(fields)}`);
      },
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

interface Wire {
  from: NodeId;
  to: NodeId;
  queue: Letter[];
}

export class RecordsPool {
  time = 0;
  readonly configured: NodeId[];
  readonly errors: string[] = [];
  /** The newest view that was agreed. */
  view: View;
  private readonly alive = new Map<NodeId, TestServer>();
  private living: readonly TestServer[] = [];
  private readonly wires = new Map<string, Wire>();
  private runs = 0;

  /** @param started the servers that are there from the beginning; the others can `join` */
  constructor(
    count: number,
    readonly databases: Map<DatabaseId, string> = new Map([[databaseId(1), 'locking.tdb']]),
    started = count,
    readonly protocol = PROTOCOL.max,
    /** How many records each server tells of, or brings back, in one step. */
    readonly sliceSize = SLICE,
  ) {
    this.configured = Array.from({ length: count }, (_, i) => nodeId(i));
    for (const from of this.configured) {
      for (const to of this.configured) if (from !== to) this.wires.set(`${from}>${to}`, { from, to, queue: [] });
    }
    for (const id of this.configured.slice(0, started)) this.start(id);
    this.view = this.nextView(null);
    this.installAll();
    this.deliverAll();
  }

  /** Those that live, ascending. */
  get servers(): readonly TestServer[] {
    return this.living;
  }

  get members(): NodeId[] {
    return this.view.members.map(({ node }) => node);
  }

  server(id: number): TestServer {
    const server = this.alive.get(nodeId(id));
    if (server === undefined) throw new RangeError(`server ${id} does not run`);
    return server;
  }

  isAlive(id: number): boolean {
    return this.alive.has(nodeId(id));
  }

  /** What is said to a run that the sender's view does not name is lost. */
  send(from: TestServer, to: NodeId, bytes: Uint8Array): boolean {
    const toRun = runOf(from.view?.members ?? [], to);
    if (toRun === undefined) return false;
    this.wires.get(`${from.id}>${to}`)!.queue.push({ fromRun: from.run, toRun, epoch: from.view!.epoch, bytes });
    return true;
  }

  // --- views

  /** A server dies and starts anew, without its databases, and a view says so that nobody has installed yet. */
  restart(id: number, surviving?: (underWay: number) => number): void {
    this.kill(id, surviving);
    this.start(id);
    this.agree();
  }

  /** A server dies for good. `surviving`: how many of the messages that it sent to each other server still arrive. */
  lose(id: number, surviving?: (underWay: number) => number): void {
    this.kill(id, surviving);
    this.agree();
  }

  /** Another run takes the place of the server's, with all that its databases hold. */
  resume(id: number): void {
    const former = this.server(id);
    this.kill(id);
    this.start(id, former);
    this.agree();
  }

  /** A server that is not there starts. */
  join(id: number): void {
    this.start(id);
    this.agree();
  }

  private start(id: number, former: TestServer | null = null): void {
    this.alive.set(nodeId(id), new TestServer(nodeId(id), this, incarnation(++this.runs), former));
    this.listLiving();
  }

  private listLiving(): void {
    this.living = [...this.alive.values()].sort((a, b) => a.id - b.id);
  }

  private kill(id: number, surviving: (underWay: number) => number = () => 0): void {
    this.alive.delete(nodeId(id));
    this.listLiving();
    for (const wire of this.wires.values()) {
      if (wire.from === id) wire.queue.splice(surviving(wire.queue.length));
      if (wire.to === id) wire.queue = [];
    }
  }

  private agree(): void {
    this.view = this.nextView(this.view);
  }

  private nextView(before: View | null): View {
    const next = epoch((before?.epoch ?? EPOCHS_PER_TERM) + 1);
    const members = this.servers.map(({ id, run, former }): Member => {
      const known = before?.members.find((member) => member.node === id && member.incarnation === run);
      const plain = { node: id, incarnation: run, since: known?.since ?? next };
      return former === null ? plain : { ...plain, resumes: former.run };
    });
    const behind = Math.min(...members.map(({ node, since }) => Math.max(since, this.server(node).recovered)));
    const former: FormerView[] = before === null ? [] : [...before.former, formerOf(before)];
    const needed = former.filter((view) => view.epoch >= behind);
    const { protocol } = this;
    return { epoch: next, leader: members[0]!.node, members, protocol, former: needed, holders: [], past: [] };
  }

  /** Servers that have not installed the newest view. */
  behind(): NodeId[] {
    return this.servers.filter((server) => server.view !== this.view).map((server) => server.id);
  }

  /** The server installs the newest view; of runs that are out it takes nothing more. */
  install(id: number): void {
    const server = this.server(id);
    if (server.view === this.view) return;
    const isOut = (node: NodeId, run: Incarnation): boolean => runOf(this.view.members, node) !== run;
    for (const wire of this.wires.values()) {
      if (wire.to === server.id) wire.queue = wire.queue.filter(({ fromRun }) => !isOut(wire.from, fromRun));
      if (wire.from === server.id) wire.queue = wire.queue.filter(({ toRun }) => !isOut(wire.to, toRun));
    }
    server.install(this.view);
  }

  installAll(): void {
    for (const id of this.behind()) this.install(id);
  }

  // --- messages

  /** Whether the next message of the wire can be taken now; one of a later view is not, and comes again. */
  private isReady(wire: Wire): boolean {
    const [next] = wire.queue;
    const target = this.alive.get(wire.to);
    if (next === undefined) return false;
    if (target?.run !== next.toRun) {
      // a run that is gone
      wire.queue.shift();
      return this.isReady(wire);
    }
    return target.view !== null && next.epoch <= target.view.epoch;
  }

  /** Pairs of servers with messages under way that can be delivered now. */
  busyWires(): string[] {
    return [...this.wires].filter(([, wire]) => this.isReady(wire)).map(([name]) => name);
  }

  deliver(name: string): void {
    const wire = this.wires.get(name)!;
    if (!this.isReady(wire)) return;
    const { bytes } = wire.queue.shift()!;
    this.server(wire.to).act((records) => records.onMessage(wire.from, bytes));
  }

  /** The messages that one server has sent another and that have not arrived. */
  underWay(from: number, to: number): readonly Uint8Array[] {
    return this.wires.get(`${from}>${to}`)!.queue.map(({ bytes }) => bytes);
  }

  /** Takes the next message from a wire, to be delivered by the test. */
  take(name: string): Uint8Array {
    const letter = this.wires.get(name)!.queue.shift();
    if (letter === undefined) throw new RangeError(`nothing is on the wire ${name}`);
    return letter.bytes;
  }

  deliverAll(): void {
    for (let busy = this.busyWires(); busy.length > 0; busy = this.busyWires()) this.deliver(busy[0]!);
  }

  /** Lets time pass in steps of at most a millisecond, delivering everything. */
  advance(micros: number): void {
    const end = this.time + micros;
    while (this.time < end) {
      const next = Math.min(...this.servers.map((server) => server.timers.deadline()));
      this.time = Math.min(end, Math.max(this.time + 1, Math.min(next, this.time + 1000)));
      for (const server of this.servers) server.act(() => {});
      this.deliverAll();
    }
  }

  /** Lets time pass at once while messages stay where they are. */
  passTime(micros: number): void {
    this.time += micros;
    for (const server of this.servers) server.act(() => {});
  }

  find(id: number, database: DatabaseId, key: RecordKey): StoredRecord | undefined {
    return this.server(id).store.get(`${database}/${key}`);
  }
}

/** The first `count` keys of the locking database (1) that have this server as home. */
export function keysWithHome({ members }: RecordsPool, home: number, count: number): RecordKey[] {
  const keys: RecordKey[] = [];
  for (let i = 0; keys.length < count; i++) {
    const key = `file-${i}` as RecordKey;
    if (rendezvousHome(databaseId(1), key, members) === home) keys.push(key);
  }
  return keys;
}

export function keyWithHome(pool: RecordsPool, home: number): RecordKey {
  return keysWithHome(pool, home, 1)[0]!;
}

function formerOf({ epoch, members }: View): FormerView {
  const isRenewed = members.some(({ since, resumes }) => since === epoch && resumes !== undefined);
  return isRenewed ? { epoch, members, isRenewed } : { epoch, members };
}
