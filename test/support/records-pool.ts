/**
 * A few servers' Records on a perfect network whose messages wait until a test lets them go: per pair of servers in
 * order, between pairs in any order. Stores are maps; a chain can be held. For unit and random tests of core/records
 * without links, gate or smbd.
 */
import type { CoreContext } from '../../src/core/context.js';
import type { Effect, RecordEffect, RecordOutcome } from '../../src/core/effects.js';
import type { DatabaseId, NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseId, epoch, incarnation, nodeId } from '../../src/base/ids.js';
import { Records } from '../../src/core/records/records.js';
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
  /** The runs of its peers that this server has met. */
  readonly met = new Map<NodeId, number>();
  records: Records;
  private effects: Effect[] = [];

  constructor(
    readonly id: NodeId,
    private readonly pool: RecordsPool,
    run: number,
  ) {
    this.records = new Records(this.context(), incarnation(run));
    this.records.listen({
      migrated: (token) => this.answers.set(token, { what: 'migrated', data: '' }),
      fetched: (token, data) =>
        this.answers.set(token, { what: 'fetched', data: Buffer.from(data).toString('latin1') }),
      failed: (token, why) => this.answers.set(token, { what: 'failed', data: why }),
      described: () => {},
    });
    for (const [database, name] of pool.databases) this.records.addDatabase(database, name);
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
      return { result: 'done', data };
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
    return {
      self: this.id,
      members: this.pool.members,
      epoch: epoch(1),
      timers: this.timers,
      now: () => this.pool.time,
      emit: (effect) => this.effects.push(effect),
      send: (peer, message) => this.pool.send(this.id, peer, message),
      isUp: () => true,
      log: (level, event, fields) => {
        if (level === 'error') this.pool.errors.push(`server ${this.id}: ${event} ${JSON.stringify(fields)}`);
      },
      count: (name, by = 1) => this.counters.set(name, (this.counters.get(name) ?? 0) + by),
    };
  }
}

export class RecordsPool {
  time = 0;
  readonly members: NodeId[];
  readonly servers: TestServer[];
  readonly errors: string[] = [];
  private readonly wires = new Map<
    string,
    { from: NodeId; to: NodeId; queue: Uint8Array[]; cut: 'no' | 'held' | 'lost' }
  >();
  private readonly runs = new Map<NodeId, number>();

  constructor(
    count: number,
    readonly databases: Map<DatabaseId, string> = new Map([[databaseId(1), 'locking.tdb']]),
  ) {
    this.members = Array.from({ length: count }, (_, i) => nodeId(i));
    for (const from of this.members) {
      for (const to of this.members) {
        if (from !== to) this.wires.set(`${from}>${to}`, { from, to, queue: [], cut: 'no' });
      }
    }
    this.servers = this.members.map((id) => new TestServer(id, this, 1));
    for (const server of this.servers) {
      for (const peer of this.members) if (peer !== server.id) server.met.set(peer, 1);
      for (const peer of this.members) {
        if (peer !== server.id) server.act((records) => records.peerUp(peer, incarnation(1), false));
      }
    }
    this.deliverAll();
  }

  server(id: number): TestServer {
    const server = this.servers[id];
    if (server === undefined) throw new RangeError(`no server ${id}`);
    return server;
  }

  send(from: NodeId, to: NodeId, message: Uint8Array): boolean {
    const wire = this.wires.get(`${from}>${to}`)!;
    if (wire.cut !== 'lost') wire.queue.push(message);
    return true;
  }

  /** A server dies and starts anew, without its databases; its peers learn of it when `reconnect` is called. */
  restart(id: NodeId): void {
    const run = (this.runs.get(id) ?? 1) + 1;
    this.runs.set(id, run);
    this.servers[id] = new TestServer(id, this, run);
    for (const wire of this.wires.values()) {
      if (wire.from !== id && wire.to !== id) continue;
      wire.queue = [];
      // What the new run says waits for the first contact; what is said to the old one is lost.
      wire.cut = wire.from === id ? 'held' : 'lost';
    }
  }

  /** Pairs that do not talk since one of them started anew. */
  cutPairs(): [NodeId, NodeId][] {
    return [...this.wires.values()]
      .filter((wire) => wire.cut !== 'no' && wire.from < wire.to)
      .map((wire) => [wire.from, wire.to]);
  }

  /** The link of two servers starts anew; `known` remembers whom each has met in which run. */
  reconnect(a: NodeId, b: NodeId): void {
    for (const name of [`${a}>${b}`, `${b}>${a}`]) this.wires.get(name)!.cut = 'no';
    for (const [server, peer] of [[a, b], [b, a]] as const) {
      const run = this.runs.get(peer) ?? 1;
      const before = this.server(server).met.get(peer);
      this.server(server).met.set(peer, run);
      this.server(server).act((records) =>
        records.peerUp(peer, incarnation(run), before !== undefined && before !== run),
      );
    }
  }

  /** Pairs of servers with messages under way. */
  busyWires(): string[] {
    return [...this.wires].filter(([, wire]) => wire.queue.length > 0 && wire.cut === 'no').map(([name]) => name);
  }

  deliver(name: string): void {
    const wire = this.wires.get(name)!;
    const message = wire.queue.shift();
    if (message !== undefined) this.server(wire.to).act((records) => records.onMessage(wire.from, message));
  }

  /** Takes the next message from a wire, to be delivered by the test. */
  take(name: string): Uint8Array {
    const message = this.wires.get(name)!.queue.shift();
    if (message === undefined) throw new RangeError(`nothing is on the wire ${name}`);
    return message;
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
