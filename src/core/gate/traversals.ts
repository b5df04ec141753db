/**
 * Traversals: a local process asks for all records of a database and gets one message per record, then an end mark. For
 * a volatile database every server sends the records it owns, in batches that the asking server calls for one by one; a
 * persistent one is read here. Never long in one step, never without an end: a server that vanishes ends its part.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import { keyBytes } from '../../base/ids.js';
import type { TraverseStart } from '../../wire/ctdb-controls.js';
import { encodeRow, endOfRows } from '../../wire/ctdb-records.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { GateRow } from '../../wire/gate-messages.js';
import { encodeRecord } from '../../wire/record-header.js';
import type { CoreContext } from '../context.js';
import type { PersistentRow } from '../effects.js';
import type { Timer } from '../timers.js';
import type { Client, Clients } from './clients.js';
import type { PersistentForGate, RecordsForGate } from './ports.js';
import type { Tokens } from './tokens.js';

/** Records looked at in one step: some 100 microseconds of work. */
export const TRAVERSE_RECORDS_PER_STEP_MAX = 64;
/** A batch is sent when it is as large as this; well below the largest message. */
export const TRAVERSE_BATCH_BYTES = 256 * 1024;
/** Between two steps other work is served. */
export const TRAVERSE_PAUSE_MICROS = 100;
/** Without any progress for so long the traversal ends with what there is. As CTDB's TraverseTimeout. */
export const TRAVERSE_IDLE_MICROS_MAX = 20_000_000;
/** Traversals one server may have running here; smbstatus needs one at a time. */
export const TRAVERSALS_PER_PEER_MAX = 256;

/** A traversal asked for by a local process. */
interface Asked {
  number: number;
  client: Client;
  start: TraverseStart;
  /** Servers whose last batch has not come. */
  parts: Set<NodeId>;
  idle: Timer;
  stop: () => void;
}

/** Our part of a traversal, ours or a peer's. */
interface Served {
  for: NodeId;
  number: number;
  database: DatabaseId;
  keys: RecordKey[];
  at: number;
  rows: GateRow[];
  rowBytes: number;
  /** Records of this step not yet answered. */
  outstanding: number;
  /** The asker wants the next batch. */
  wanted: boolean;
  timer: Timer | null;
}

export class Traversals {
  private readonly asked = new Map<number, Asked>();
  private readonly served = new Map<string, Served>();
  /** Token of a record being read, to whose traversal it belongs. */
  private readonly reading = new Map<number, { served: Served; key: RecordKey }>();
  private last = 0;

  constructor(
    private readonly context: CoreContext,
    private readonly clients: Clients,
    private readonly records: RecordsForGate,
    private readonly persistent: PersistentForGate,
    private readonly tokens: Tokens,
  ) {}

  get size(): number {
    return this.asked.size + this.served.size;
  }

  /** Starts a traversal of an open database; the client was answered already. */
  start(client: Client, start: TraverseStart, database: DatabaseId, isPersistent: boolean): void {
    this.context.count('gate.traverse.started');
    const number = ++this.last;
    const stop = (): void => this.end(asked, false);
    const asked: Asked = { number, client, start, parts: new Set(), idle: this.idleTimer(number), stop };
    this.asked.set(number, asked);
    client.onClosed.add(stop);
    if (isPersistent) return this.readPersistent(asked, database);
    const { self } = this.context;
    asked.parts.add(self);
    for (const node of this.context.members) {
      if (node === self || !this.context.isUp(node)) continue;
      asked.parts.add(node);
      this.context.send(node, encodeGateMessage({ kind: 'traverse-start', number, database }));
    }
    this.serve(self, number, database);
  }

  private idleTimer(number: number): Timer {
    return this.context.timers.at(this.context.now() + TRAVERSE_IDLE_MICROS_MAX, () => {
      const asked = this.asked.get(number);
      if (asked === undefined) return;
      this.context.count('gate.traverse.late');
      this.context.log('warn', 'gate.traverse.late', { waitingFor: [...asked.parts], pid: asked.client.pid });
      this.end(asked, true);
    });
  }

  private readPersistent(asked: Asked, database: DatabaseId): void {
    this.persistent.readRows(database, (rows) => {
      if (this.asked.get(asked.number) !== asked) return;
      if (typeof rows !== 'string') return this.sendPersistent(asked, rows, 0);
      this.context.log('error', 'gate.traverse.failed', { database, why: rows });
      this.end(asked, true);
    });
  }

  private sendPersistent(asked: Asked, rows: PersistentRow[], from: number): void {
    if (this.asked.get(asked.number) !== asked) return;
    const to = Math.min(rows.length, from + TRAVERSE_RECORDS_PER_STEP_MAX);
    for (let i = from; i < to; i++) {
      const row = rows[i];
      if (row !== undefined) this.sendRow(asked, row.key, row.value);
    }
    if (to === rows.length) return this.end(asked, true);
    this.progress(asked);
    this.context.timers.at(this.context.now() + TRAVERSE_PAUSE_MICROS, () => this.sendPersistent(asked, rows, to));
  }

  private sendRow(asked: Asked, key: Uint8Array, value: Uint8Array): void {
    const { requestId, srvid } = asked.start;
    this.clients.send(asked.client.id, { kind: 'message', srvid, data: encodeRow({ requestId, key, value }) }, 0);
  }

  private progress(asked: Asked): void {
    asked.idle.cancel();
    asked.idle = this.idleTimer(asked.number);
  }

  /** Ends a traversal; servers still at it are told to stop. `mark`: the client still listens. */
  private end(asked: Asked, mark: boolean): void {
    if (!this.asked.delete(asked.number)) return;
    asked.idle.cancel();
    asked.client.onClosed.delete(asked.stop);
    for (const node of asked.parts) {
      if (node === this.context.self) this.stopServing(node, asked.number);
      else this.tellToStop(node, asked.number);
    }
    asked.client.traversals.delete(asked.start);
    if (!mark) return;
    const { requestId, srvid } = asked.start;
    const data = encodeRow(endOfRows(requestId));
    this.clients.send(asked.client.id, { kind: 'message', srvid, data }, 0);
    this.clients.keep(asked.client);
  }

  /** A run that is silent now hears it when it comes back. */
  private tellToStop(node: NodeId, number: number): void {
    this.context.send(node, encodeGateMessage({ kind: 'traverse-cancel', number }), 'met');
  }

  onRows(from: NodeId, number: number, last: boolean, rows: readonly GateRow[]): void {
    const asked = this.asked.get(number);
    if (asked === undefined || !asked.parts.has(from)) {
      // given up here, for example while the peer was silent: it need not go on
      this.context.count('gate.traverse.rows.unexpected');
      if (!last && from !== this.context.self) this.tellToStop(from, number);
      return;
    }
    for (const { key, data } of rows) {
      this.sendRow(asked, key, encodeRecord({ rsn: 0, dmaster: from, flags: 0 }, data));
    }
    this.progress(asked);
    if (last) return this.partEnded(asked, from);
    if (from === this.context.self) this.more(from, number);
    else this.context.send(from, encodeGateMessage({ kind: 'traverse-more', number }));
  }

  private partEnded(asked: Asked, node: NodeId): void {
    asked.parts.delete(node);
    if (asked.parts.size === 0) this.end(asked, true);
  }

  /**
   * The peer is silent: its parts of our traversals end. Ours of its traversals go on, a batch at most: it may have
   * been stopped, wait for them when it goes on, and never have missed us.
   */
  peerSilent(peer: NodeId): void {
    for (const asked of [...this.asked.values()]) {
      if (!asked.parts.has(peer)) continue;
      this.context.log('warn', 'gate.traverse.incomplete', { peer, pid: asked.client.pid });
      this.tellToStop(peer, asked.number);
      this.partEnded(asked, peer);
    }
  }

  /** The peer began anew, or what was sent to it is lost: what it asked for is not wanted any more. */
  peerLost(peer: NodeId): void {
    this.peerSilent(peer);
    for (const served of [...this.served.values()]) if (served.for === peer) this.stopServing(peer, served.number);
  }

  // --- our part

  /** Starts sending the records owned here to the asking server. */
  serve(asker: NodeId, number: number, database: DatabaseId): void {
    let running = 0;
    for (const served of this.served.values()) if (served.for === asker) running++;
    if (running >= TRAVERSALS_PER_PEER_MAX) {
      this.context.count('gate.traverse.refused.too-many');
      this.context.log('warn', 'gate.traverse.refused', { asker, running });
      return this.deliver(asker, number, true, []);
    }
    const served: Served = {
      for: asker,
      number,
      database,
      keys: this.records.ownedKeys(database),
      at: 0,
      rows: [],
      rowBytes: 0,
      outstanding: 0,
      wanted: true,
      timer: null,
    };
    this.served.set(servedName(asker, number), served);
    this.schedule(served);
  }

  more(asker: NodeId, number: number): void {
    const served = this.served.get(servedName(asker, number));
    if (served === undefined || served.wanted) return this.context.count('gate.traverse.more.unexpected');
    served.wanted = true;
    this.schedule(served);
  }

  stopServing(asker: NodeId, number: number): void {
    const served = this.served.get(servedName(asker, number));
    if (served === undefined) return;
    served.timer?.cancel();
    this.served.delete(servedName(asker, number));
  }

  private schedule(served: Served): void {
    served.timer = this.context.timers.at(this.context.now() + TRAVERSE_PAUSE_MICROS, () => this.step(served));
  }

  private step(served: Served): void {
    const keys = served.keys.slice(served.at, served.at + TRAVERSE_RECORDS_PER_STEP_MAX);
    served.at += keys.length;
    // one more, so that answers inside the calls do not end the step before all were asked
    served.outstanding = keys.length + 1;
    for (const key of keys) {
      const token = this.tokens.next();
      this.reading.set(token, { served, key });
      this.records.peek(served.database, key, token);
    }
    this.oneDone(served);
  }

  /** True when the token was one of ours. */
  fetched(token: number, data: Uint8Array): boolean {
    const read = this.reading.get(token);
    if (read === undefined) return false;
    this.reading.delete(token);
    if (data.length > 0) {
      const key = keyBytes(read.key);
      read.served.rows.push({ key, data });
      read.served.rowBytes += key.length + data.length;
    }
    this.oneDone(read.served);
    return true;
  }

  /** A record that cannot be read is left out: it is on its way to another server or gone. */
  failed(token: number): boolean {
    return this.fetched(token, new Uint8Array(0));
  }

  private oneDone(served: Served): void {
    served.outstanding--;
    if (served.outstanding > 0) return;
    if (this.served.get(servedName(served.for, served.number)) !== served) return;
    const last = served.at >= served.keys.length;
    if (!last && served.rowBytes < TRAVERSE_BATCH_BYTES) return this.schedule(served);
    const rows = served.rows;
    served.rows = [];
    served.rowBytes = 0;
    served.wanted = false;
    if (last) this.served.delete(servedName(served.for, served.number));
    this.deliver(served.for, served.number, last, rows);
  }

  private deliver(asker: NodeId, number: number, last: boolean, rows: GateRow[]): void {
    if (asker === this.context.self) this.onRows(asker, number, last, rows);
    else this.context.send(asker, encodeGateMessage({ kind: 'traverse-rows', number, last, rows }));
  }
}

function servedName(asker: NodeId, number: number): string {
  return `${asker}/${number}`;
}
