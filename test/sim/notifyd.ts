/**
 * A simulated notifyd: keeps which folders the clients of its server watch, tells the others once a second, and matches
 * the changes of its server with the watches of all (Samba: source3/smbd/notifyd/notifyd.c). Numbers its logs, drops a
 * peer whose logs have a gap, and asks one it does not know for its database. Its two queues, the daemon's socket and
 * that of the local processes, are each in order, and not in order with each other.
 */
import { ByteReader, ByteWriter } from '../../src/base/bytes.js';
import type { Prng } from '../../src/base/prng.js';
import type { ClientId } from '../../src/base/ids.js';
import { DESTINATION, SRVID, decodeCtdbPacket, encodeCtdbPacket } from '../../src/wire/ctdb.js';
import { CONTROL } from '../../src/wire/ctdb-controls.js';
import type { LoggedMessage, SambaMessage, ServerId, WatchChange } from '../../src/wire/samba-messages.js';
import {
  NOBODY,
  SAMBA_MESSAGE,
  decodeMessageLog,
  decodeSambaMessage,
  decodeWatchChange,
  encodeMessageLog,
  encodeSambaMessage,
  logged,
} from '../../src/wire/samba-messages.js';
import type { ServerWorld, SimulatedServer } from './server.js';

const LOG_MICROS = 1_000_000;
const LOG_MESSAGES_MAX = 100;
/** What one message takes, at most, on a busy machine. */
const WORK_MICROS_MAX = 100;

/** What it tells a process of a change. */
export interface ToldOfChange {
  handle: bigint;
  folder: string;
  change: number;
}

/** Watches by process and handle. */
class WatchTable {
  readonly rows = new Map<string, { holder: ServerId; handle: bigint; folder: string }>();

  apply(holder: ServerId, { handle, filter, subdirFilter, folder }: WatchChange): void {
    const path = Buffer.from(folder).toString();
    const key = `${holder.vnn}/${holder.pid}/${handle}/${path}`;
    if (filter === 0 && subdirFilter === 0) this.rows.delete(key);
    else this.rows.set(key, { holder, handle, folder: path });
  }

  /** The real one is as opaque to the daemon. */
  marshalled(): Uint8Array {
    const rows = [...this.rows].map(([key, { holder, handle, folder }]) => {
      const { pid, task, vnn, unique } = holder;
      return { key, holder: { pid: String(pid), task, vnn, unique: String(unique) }, handle: String(handle), folder };
    });
    return Buffer.from(JSON.stringify(rows));
  }

  static from(bytes: Uint8Array): WatchTable {
    const table = new WatchTable();
    const rows = JSON.parse(Buffer.from(bytes).toString()) as {
      key: string; holder: { pid: string; task: number; vnn: number; unique: string }; handle: string; folder: string;
    }[];
    for (const { key, holder: { pid, task, vnn, unique }, handle, folder } of rows) {
      const holder = { pid: BigInt(pid), task, vnn, unique: BigInt(unique) };
      table.rows.set(key, { holder, handle: BigInt(handle), folder });
    }
    return table;
  }
}

interface Peer {
  id: ServerId;
  index: bigint;
  table: WatchTable | null;
}

const nameOf = ({ vnn, pid, unique }: ServerId): string => `${vnn}/${pid}/${unique}`;

export class SimulatedNotifyd {
  readonly id: ServerId;
  private readonly client: ClientId;
  private readonly fromDaemon: (() => void)[] = [];
  private readonly fromLocal: (() => void)[] = [];
  private isWorking = false;
  private isOver = false;
  private readonly own = new WatchTable();
  private readonly peers = new Map<string, Peer>();
  private log: LoggedMessage[] = [];
  private index = 0n;
  /** Addresses to register: it waits for the answer to each, as all of Samba does. */
  private readonly unregistered: bigint[];
  private lastRequest = 0;

  constructor(
    private readonly server: SimulatedServer,
    private readonly world: ServerWorld,
    private readonly prng: Prng,
    pid: number,
    /** To a process of the same server. */
    private readonly tellLocal: (pid: bigint, told: ToldOfChange) => void,
  ) {
    this.id = { pid: BigInt(pid), task: 0, vnn: server.self, unique: BigInt(prng.below(2 ** 31)) };
    this.client = server.connect(pid, (packet) => {
      const decoded = decodeCtdbPacket(Uint8Array.prototype.slice.call(packet));
      if (decoded.kind === 'reply-control') return this.registerNext();
      if (decoded.kind !== 'message') return;
      const { srvid, data } = decoded;
      this.queue(this.fromDaemon, () => this.onMessage(srvid, decodeSambaMessage(data)));
    });
    this.unregistered = [this.id.pid, SRVID.sambaProcess, SRVID.sambaNotifyProxy];
    this.registerNext();
    world.time.after(LOG_MICROS, () => this.everySecond());
  }

  end(): void {
    this.isOver = true;
    this.server.disconnect(this.client);
  }

  private queue(queue: (() => void)[], work: () => void): void {
    queue.push(work);
    if (!this.isWorking) this.work();
  }

  private work(): void {
    this.isWorking = true;
    this.world.time.after(1 + this.prng.below(WORK_MICROS_MAX), () => {
      const queues = [this.fromDaemon, this.fromLocal].filter(({ length }) => length > 0);
      const next = queues.length === 0 ? undefined : this.prng.pick(queues).shift();
      if (!this.isOver && !this.server.dead) next?.();
      this.isWorking = false;
      if (this.fromDaemon.length + this.fromLocal.length > 0) this.work();
    });
  }

  private send(destination: number, srvid: bigint, data: Uint8Array): void {
    const header = { generation: 1, destination, source: 0, requestId: 0 };
    this.server.sendPacket(this.client, encodeCtdbPacket({ ...header, kind: 'message', srvid, data }, false));
  }

  private registerNext(): void {
    const srvid = this.unregistered.shift();
    if (srvid === undefined) return;
    const header = { generation: 1, destination: DESTINATION.current, source: 0, requestId: ++this.lastRequest };
    const control = { opcode: CONTROL.registerSrvid, srvid, clientId: 0, flags: 0 } as const;
    const data = new Uint8Array(0);
    const packet = encodeCtdbPacket({ ...header, kind: 'request-control', ...control, data }, false);
    this.server.sendPacket(this.client, packet);
  }

  private sendTo(destination: ServerId, type: number, payload: Uint8Array): void {
    const message = encodeSambaMessage({ type, destination, source: this.id, payload });
    this.send(destination.vnn, destination.pid, message);
  }

  // --- from the processes of its server

  /** A process begins or ends to watch. */
  watches(holder: ServerId, payload: Uint8Array): void {
    this.queue(this.fromLocal, () => {
      this.own.apply(holder, decodeWatchChange(payload));
      this.log.push(logged({ type: SAMBA_MESSAGE.notifyRecChange, destination: this.id, source: holder, payload }));
      if (this.log.length >= LOG_MESSAGES_MAX) this.broadcast();
    });
  }

  /** A process has changed something in a folder. */
  changed(folder: string, change: number): void {
    this.queue(this.fromLocal, () => {
      for (const table of [this.own, ...[...this.peers.values()].map((peer) => peer.table)]) {
        for (const row of table?.rows.values() ?? []) {
          if (row.folder !== folder) continue;
          const told = { handle: row.handle, folder, change };
          if (row.holder.vnn === this.id.vnn) this.tellLocal(row.holder.pid, told);
          else this.sendTo(row.holder, SAMBA_MESSAGE.pvfsNotify, encodeTold(told));
        }
      }
    });
  }

  // --- from the others

  private onMessage(srvid: bigint, { type, source, payload }: SambaMessage): void {
    if (type === SAMBA_MESSAGE.ping) return this.sendTo(source, SAMBA_MESSAGE.pong, payload);
    if (type === SAMBA_MESSAGE.notifyGetDb) {
      const index = new ByteWriter(8).u64(this.index).finish();
      return this.sendTo(source, SAMBA_MESSAGE.notifyDb, Buffer.concat([index, this.own.marshalled()]));
    }
    const peer = this.peers.get(nameOf(source));
    if (type === SAMBA_MESSAGE.notifyDb && payload.length < 8) this.peers.delete(nameOf(source));
    else if (type === SAMBA_MESSAGE.notifyDb && peer !== undefined) {
      peer.index = new ByteReader(payload).u64();
      peer.table = WatchTable.from(payload.subarray(8));
    }
    if (srvid === SRVID.sambaNotifyProxy && nameOf(source) !== nameOf(this.id)) this.onLog(peer, source, payload);
  }

  private onLog(peer: Peer | undefined, source: ServerId, payload: Uint8Array): void {
    if (peer === undefined) {
      this.peers.set(nameOf(source), { id: source, index: 0n, table: null });
      this.sendTo(source, SAMBA_MESSAGE.notifyGetDb, new Uint8Array(0));
      return;
    }
    if (peer.table === null) return;
    const { index, messages } = decodeMessageLog(payload);
    if (index !== peer.index) {
      this.peers.delete(nameOf(source));
      return;
    }
    for (const message of messages) peer.table.apply(message.source, decodeWatchChange(message.payload));
    peer.index += 1n;
  }

  private everySecond(): void {
    if (this.isOver || this.server.dead) return;
    this.broadcast();
    this.world.time.after(LOG_MICROS, () => this.everySecond());
  }

  private broadcast(): void {
    const payload = encodeMessageLog({ index: this.index++, messages: this.log });
    this.log = [];
    const type = SAMBA_MESSAGE.notifyRecChanges;
    const message = encodeSambaMessage({ type, destination: NOBODY, source: this.id, payload });
    this.send(DESTINATION.connected, SRVID.sambaNotifyProxy, message);
  }
}

export function encodeTold({ handle, folder, change }: ToldOfChange): Uint8Array {
  return Buffer.from(JSON.stringify({ handle: String(handle), folder, change }));
}

export function decodeTold(bytes: Uint8Array): ToldOfChange {
  const told = JSON.parse(Buffer.from(bytes).toString()) as { handle: string; folder: string; change: number };
  return { ...told, handle: BigInt(told.handle) };
}
