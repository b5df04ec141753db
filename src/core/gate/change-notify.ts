/**
 * The folders that clients watch (SMB2 CHANGE_NOTIFY). Samba's notifyd keeps those of its server and tells the notifyds
 * of the other servers of them once a second; what is changed there within that second is lost. Here a watch counts on
 * all servers before its client hears anything more: the VFS module says which folder its smbd began to watch, and
 * waits; the watch goes to the others' notifyds as a log of ours, with a ping behind it, and the pong says that they
 * have it. docs/decisions/change-notify.md.
 *
 * Each notifyd numbers its logs and drops a peer whose numbers have a gap; since logs are added here, all logs of ours
 * are numbered here. A notifyd that hears of an unknown one asks it for its database, and knows its watches from then
 * on: that is why the daemons tell each other of their notifyds as soon as they come.
 */
import type { ClientId, Incarnation, NodeId } from '../../base/ids.js';
import { nodeId } from '../../base/ids.js';
import { ByteReader, ByteWriter, DecodeError } from '../../base/bytes.js';
import { SRVID } from '../../wire/ctdb.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { LoggedMessage, ServerId, WatchChange } from '../../wire/samba-messages.js';
import {
  NOBODY,
  SAMBA_HEADER_BYTES,
  SAMBA_MESSAGE,
  decodeMessageLog,
  decodeSambaMessage,
  decodeWatchChange,
  encodeMessageLog,
  encodeSambaMessage,
  encodeWatchChange,
  logged,
  sambaMessageType,
  sameServerId,
} from '../../wire/samba-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';
import type { Client } from './clients.js';
import type { Messages } from './messages.js';
import { isBroadcast } from './messages.js';

/** The daemon as a process of its server, to whom pongs go: no process of Linux has this number. */
const DAEMON_PID = 0x736d_6270_6f6f_6cn;
/** Our own notifyd would send its pong past us if we were on its server. */
const DAEMON_VNN = 0x7fff_fffe;
/** A smbd waits no longer than this; its watch then counts a little later, as without the module. */
export const NOTIFY_WAIT_MICROS_MAX = 1_000_000;
/** More than smbd can have handles. */
export const WATCHES_PER_PROCESS_MAX = 65_536;
const LOG_MESSAGES_MAX = 100;
/** notifyd logs a change a second later at the latest. */
const REPORTED_MICROS = 5_000_000;
/** The number of no log: whoever knows the sender drops it. */
const NO_INDEX = 0xffff_ffff_ffff_ffffn;

interface Peer {
  incarnation: Incarnation | null;
  /** As its daemon told: null: none runs there; undefined: it has not told yet. */
  notifyd: ServerId | null | undefined;
  /** It was sent the database of ours: what we log from there on counts. */
  isServed: boolean;
  /** Ours has its database. */
  isKnown: boolean;
  /** It did not answer in time: nobody waits for it until it answers again. */
  isSlow: boolean;
  /** Its run continues another one and has not told of its notifyd yet. */
  isResumed: boolean;
}

interface Watch {
  holder: ServerId;
  change: WatchChange;
  /** Not told again in a resync that is under way. */
  isStale: boolean;
}

/** A smbd waits until its watch counts on these servers. */
interface Waiting {
  serial: bigint;
  peers: Set<NodeId>;
  timer: Timer;
  done: (everywhere: boolean) => void;
}

export class ChangeNotify {
  private readonly peers = new Map<NodeId, Peer>();
  /** By process and the module's number. */
  private readonly watches = new Map<number, Map<bigint, Watch>>();
  /** Changes that the module told, so that notifyd's own log need not; until when, Infinity for live watches. */
  private readonly reported = new Map<string, Micros>();
  private readonly waiting = new Set<Waiting>();
  /** Those that wait for our notifyd to say who it is. */
  private readonly early = new Map<(everywhere: boolean) => void, Timer>();
  private readonly incomplete = new Set<() => void>();
  /** Pings to our own notifyd: whose database it had got before. */
  private readonly ownPings = new Map<bigint, NodeId>();
  private client: { id: ClientId; pid: number } | null = null;
  private own: ServerId | null = null;
  /** Since when somebody waits for it to register; Infinity: nobody did. */
  private missedFrom: Micros = Infinity;
  private learntAt: Micros = 0;
  private index = 0n;
  private lastSerial = 0n;

  constructor(
    private readonly context: CoreContext,
    private readonly messages: Messages,
  ) {
    this.serversChanged();
  }

  /** There may be more servers than before. */
  serversChanged(): void {
    for (const peer of this.context.servers) {
      if (peer === this.context.self || this.peers.has(peer)) continue;
      this.peers.set(peer, {
        incarnation: null, notifyd: undefined, isServed: false, isKnown: false, isSlow: false, isResumed: false,
      });
    }
  }

  /** Watches that the modules of this server told. */
  get size(): number {
    let size = 0;
    for (const watches of this.watches.values()) size += watches.size;
    return size;
  }

  // --- our notifyd

  /** A process registered an address: notifyd has one of its own. */
  registered(client: Client, srvid: bigint): void {
    if (srvid !== SRVID.sambaNotifyProxy) return;
    if (this.client !== null && this.client.id !== client.id) this.lose();
    this.client = { id: client.id, pid: client.pid };
    this.missedFrom = Infinity;
    this.pingOwn(0n);
  }

  clientClosed({ id, pid }: Client, isLastOfProcess: boolean): void {
    if (this.client?.id === id) this.lose();
    if (!isLastOfProcess) return;
    for (const number of [...(this.watches.get(pid)?.keys() ?? [])]) this.end(pid, number);
  }

  private lose(): void {
    const wasKnown = this.own !== null;
    this.client = null;
    this.own = null;
    this.index = 0n;
    this.ownPings.clear();
    for (const peer of this.peers.values()) peer.isServed = peer.isKnown = false;
    if (wasKnown) for (const peer of this.peers.keys()) this.announce(peer);
    for (const waiting of [...this.waiting]) this.finish(waiting, false);
    for (const done of [...this.early.keys()]) this.lateFor(done);
    this.checkComplete();
  }

  private learn(id: ServerId): void {
    if (this.own !== null && sameServerId(this.own, id)) return;
    this.own = id;
    this.learntAt = this.context.now();
    this.index = 0n;
    this.context.count('gate.notify.notifyd');
    for (const [peer, { notifyd }] of this.peers) {
      // it may wait for theirs, which the daemon's run before this one asked for
      if (notifyd) this.forget(notifyd);
      this.announce(peer);
      this.renew(peer);
    }
    for (const [done, timer] of [...this.early]) {
      timer.cancel();
      this.early.delete(done);
      this.wait(done);
    }
    this.checkComplete();
  }

  private announce(peer: NodeId): void {
    this.context.send(peer, encodeGateMessage({ kind: 'notifyd', id: this.own }), 'met');
  }

  /** Whatever the peer's notifyd knows of ours: it asks for all of it. */
  private renew(node: NodeId): void {
    const peer = this.peers.get(node);
    if (peer?.notifyd === undefined || peer.notifyd === null || this.own === null) return;
    peer.isServed = false;
    // one that knows us drops us for the first and asks at the second; one that does not asks at the first
    this.messages.forward(node, SRVID.sambaNotifyProxy, this.logMessage(this.own, NO_INDEX, []), 'met');
    this.messages.forward(node, SRVID.sambaNotifyProxy, this.logMessage(this.own, this.index, []), 'met');
  }

  private logMessage(source: ServerId, index: bigint, messages: LoggedMessage[]): Uint8Array {
    const payload = encodeMessageLog({ index, messages });
    return encodeSambaMessage({ type: SAMBA_MESSAGE.notifyRecChanges, destination: NOBODY, source, payload });
  }

  /** To the notifyds of all other servers. */
  private log(messages: LoggedMessage[]): void {
    if (this.own === null) return;
    const message = this.logMessage(this.own, this.index++, messages);
    for (const peer of this.peers.keys()) this.messages.forward(peer, SRVID.sambaNotifyProxy, message, 'met');
  }

  /**
   * A message of a local process, before it goes where it is to go. True: it was taken care of. What cannot be read
   * goes its way.
   */
  fromLocal(destination: number, srvid: bigint, data: Uint8Array): boolean {
    if (destination === DAEMON_VNN) {
      this.guard(() => this.onOwnPong(data));
      return true;
    }
    const type = sambaMessageType(data);
    if (type === SAMBA_MESSAGE.notifyRecChanges && srvid === SRVID.sambaNotifyProxy && isBroadcast(destination)) {
      return this.guard(() => this.onOwnLog(data));
    }
    if (type === SAMBA_MESSAGE.notifyDb) return this.guard(() => this.onOwnDatabase(nodeId(destination), srvid, data));
    return false;
  }

  private guard(take: () => boolean): boolean {
    try {
      return take();
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.context.count(`gate.notify.refused.${error.reason}`);
      return false;
    }
  }

  private onOwnLog(data: Uint8Array): boolean {
    const { source, payload } = decodeSambaMessage(data);
    if (this.own === null || !sameServerId(source, this.own)) return false;
    const { messages } = decodeMessageLog(payload);
    const now = this.context.now();
    for (const [key, until] of this.reported) if (until < now) this.reported.delete(key);
    const unknown = messages.filter((message) => !this.isReported(message));
    this.context.count('gate.notify.logged', unknown.length);
    this.log(unknown);
    return true;
  }

  private isReported({ type, source, payload }: LoggedMessage): boolean {
    return (
      type === SAMBA_MESSAGE.notifyRecChange && this.reported.has(reportKey(source.pid, decodeWatchChange(payload)))
    );
  }

  private onOwnDatabase(to: NodeId, srvid: bigint, data: Uint8Array): boolean {
    const peer = this.peers.get(to);
    const { source, destination } = decodeSambaMessage(data);
    if (peer === undefined || this.own === null || !sameServerId(source, this.own)) return false;
    if (data.length < SAMBA_HEADER_BYTES + 8) throw new DecodeError('truncated', 'a database without an index');
    const renumbered = Uint8Array.prototype.slice.call(data);
    renumbered.set(new ByteWriter(8).u64(this.index).finish(), SAMBA_HEADER_BYTES);
    this.messages.forward(to, srvid, renumbered, 'met');
    peer.notifyd = destination;
    peer.isServed = true;
    this.tellAll();
    for (const waiting of this.waiting) if (waiting.peers.has(to)) this.ping(to, waiting.serial);
    return true;
  }

  /** The database may be from before a watch that its module told meanwhile. Known ones are only told again. */
  private tellAll(): void {
    const all = [...this.watches.values()].flatMap((watches) => [...watches.values()].map(recordOf));
    for (let at = 0; at < all.length; at += LOG_MESSAGES_MAX) this.log(all.slice(at, at + LOG_MESSAGES_MAX));
  }

  // --- pings

  /** Asks a peer's notifyd for a sign of life, behind all that it was sent before. */
  private ping(to: NodeId, serial: bigint): void {
    const destination = this.peers.get(to)?.notifyd;
    if (!destination) return;
    this.messages.forward(to, destination.pid, pingMessage(destination, this.context.self, serial), 'met');
  }

  /** The same for our own, which tells who it is, too. */
  private pingOwn(serial: bigint): void {
    if (this.client === null) return;
    this.messages.deliver(BigInt(this.client.pid), pingMessage(this.own ?? NOBODY, DAEMON_VNN, serial));
  }

  private onOwnPong(data: Uint8Array): boolean {
    const { type, source, payload } = decodeSambaMessage(data);
    if (type !== SAMBA_MESSAGE.pong || this.client === null || source.pid !== BigInt(this.client.pid)) return true;
    this.learn(source);
    const serial = new ByteReader(payload).u64();
    const from = this.ownPings.get(serial);
    const peer = from === undefined ? undefined : this.peers.get(from);
    this.ownPings.delete(serial);
    if (peer !== undefined) peer.isKnown = true;
    this.checkComplete();
    return true;
  }

  // --- the other servers

  /** A message of a peer's process for one of ours. True: it was for the daemon. */
  fromPeer(from: NodeId, srvid: bigint, data: Uint8Array): boolean {
    if (srvid !== DAEMON_PID) return false;
    return this.guard(() => {
      const { type, payload } = decodeSambaMessage(data);
      if (type === SAMBA_MESSAGE.pong) this.onPong(from, new ByteReader(payload).u64());
      return true;
    });
  }

  /** After it was delivered. */
  delivered(from: NodeId, data: Uint8Array): void {
    const peer = this.peers.get(from);
    if (peer === undefined || peer.isKnown || sambaMessageType(data) !== SAMBA_MESSAGE.notifyDb) return;
    const serial = ++this.lastSerial;
    this.ownPings.set(serial, from);
    this.pingOwn(serial);
  }

  private onPong(from: NodeId, serial: bigint): void {
    const peer = this.peers.get(from);
    if (peer !== undefined) peer.isSlow = false;
    for (const waiting of [...this.waiting]) {
      if (waiting.serial > serial || !waiting.peers.delete(from)) continue;
      if (waiting.peers.size === 0) this.finish(waiting, true);
    }
  }

  onAnnounced(from: NodeId, id: ServerId | null): void {
    const peer = this.peers.get(from);
    if (peer === undefined) return;
    if (peer.notifyd && (id === null || !sameServerId(peer.notifyd, id))) this.forget(peer.notifyd);
    // ours may wait for a database that was lost with a daemon that died: then it heeds no log. Only before the logs
    // that make it ask, which come behind the first word of a run
    if (id !== null && (!peer.notifyd || peer.isResumed)) this.forget(id);
    peer.isResumed = false;
    peer.notifyd = id;
    peer.isServed = peer.isKnown = peer.isSlow = false;
    if (id === null) this.leave(from);
    else this.renew(from);
  }

  /** First contact with this run of the peer, or what was sent to it was lost. */
  peerUp(node: NodeId, incarnation: Incarnation): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    if (peer.incarnation !== incarnation) {
      if (peer.notifyd) this.forget(peer.notifyd);
      peer.notifyd = undefined;
      // its smbds are gone; the new ones come when our watches are known there
      this.leave(node);
    }
    peer.incarnation = incarnation;
    peer.isServed = false;
    peer.isKnown = false;
    this.announce(node);
    this.renew(node);
  }

  /** The peer's run continues the one before: so do its notifyd and those who watch there. */
  peerResumed(node: NodeId, incarnation: Incarnation): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    peer.incarnation = incarnation;
    peer.isServed = false;
    peer.isKnown = false;
    peer.isResumed = true;
  }

  /**
   * Ours drops that one, as it does for a database too short for its index, and asks for it when it hears of it again.
   * By itself it drops one that is gone after a minute, and tells its watchers twice until then.
   */
  private forget(id: ServerId): void {
    if (this.own === null) return;
    const none = { type: SAMBA_MESSAGE.notifyDb, destination: this.own, source: id, payload: new Uint8Array(0) };
    this.messages.deliver(this.own.pid, encodeSambaMessage(none));
  }

  /** Nobody waits for a server that is silent. */
  peerDown(node: NodeId): void {
    this.leave(node);
  }

  /** Its run is out of the view: so are those who watch there. */
  peerLeft(node: NodeId): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    if (peer.notifyd) this.forget(peer.notifyd);
    peer.notifyd = undefined;
    this.leave(node);
  }

  private leave(node: NodeId): void {
    for (const waiting of [...this.waiting]) {
      if (waiting.peers.delete(node) && waiting.peers.size === 0) this.finish(waiting, true);
    }
    this.checkComplete();
  }

  // --- what the modules tell

  begin(
    { pid, id }: { pid: number; id: ServerId },
    number: bigint,
    change: WatchChange,
    done: ((everywhere: boolean) => void) | null,
  ): void {
    const watches = this.watches.get(pid) ?? new Map<bigint, Watch>();
    const known = watches.get(number);
    if (known !== undefined) known.isStale = false;
    if (this.client === null || watches.size >= WATCHES_PER_PROCESS_MAX) {
      return this.lateFor(done);
    }
    if (known === undefined) {
      const watch = { holder: id, change, isStale: false };
      this.watches.set(pid, watches.set(number, watch));
      this.reported.set(reportKey(id.pid, change), Infinity);
      this.context.count('gate.notify.told');
      this.log([recordOf(watch)]);
    }
    if (done !== null) this.wait(done);
  }

  private wait(done: (everywhere: boolean) => void): void {
    const { timers, now } = this.context;
    if (this.own === null) {
      this.early.set(done, timers.at(now() + NOTIFY_WAIT_MICROS_MAX, () => this.lateFor(done)));
      return;
    }
    const up = [...this.peers].filter(([node, { notifyd }]) => notifyd && this.context.isUp(node));
    const serial = ++this.lastSerial;
    for (const [node, { isServed }] of up) if (isServed) this.ping(node, serial);
    const awaited = up.filter(([, { isSlow }]) => !isSlow).map(([node]) => node);
    if (up.length === 0) return done(true);
    if (awaited.length === 0) return this.lateFor(done);
    const timer = timers.at(now() + NOTIFY_WAIT_MICROS_MAX, () => this.giveUp(waiting));
    const waiting: Waiting = { serial, peers: new Set(awaited), timer, done };
    this.waiting.add(waiting);
  }

  private giveUp(waiting: Waiting): void {
    for (const node of waiting.peers) this.peers.get(node)!.isSlow = true;
    this.finish(waiting, false);
  }

  private finish(waiting: Waiting, everywhere: boolean): void {
    if (!this.waiting.delete(waiting)) return;
    waiting.timer.cancel();
    if (everywhere) waiting.done(true);
    else this.lateFor(waiting.done);
  }

  private lateFor(done: ((everywhere: boolean) => void) | null): void {
    if (done !== null) {
      this.early.get(done)?.cancel();
      this.early.delete(done);
    }
    this.context.count('gate.notify.late');
    done?.(false);
  }

  end(pid: number, number: bigint): void {
    const watches = this.watches.get(pid);
    const watch = watches?.get(number);
    if (watches === undefined || watch === undefined) return;
    watches.delete(number);
    if (watches.size === 0) this.watches.delete(pid);
    this.reported.set(reportKey(watch.holder.pid, watch.change), this.context.now() + REPORTED_MICROS);
    this.log([recordOf({ ...watch, change: { ...watch.change, filter: 0, subdirFilter: 0 } })]);
  }

  resyncBegins(pid: number): void {
    for (const watch of this.watches.get(pid)?.values() ?? []) watch.isStale = true;
  }

  resyncEnds(pid: number): void {
    for (const [number, { isStale }] of [...(this.watches.get(pid) ?? [])]) if (isStale) this.end(pid, number);
  }

  whenComplete(done: () => void): void {
    if (this.client === null && this.missedFrom === Infinity) this.missedFrom = this.context.now();
    if (this.isComplete()) return done();
    const { timers, now } = this.context;
    const once = (): void => {
      if (!this.incomplete.delete(once)) return;
      timer.cancel();
      done();
    };
    const timer = timers.at(now() + NOTIFY_WAIT_MICROS_MAX, () => {
      this.context.count('gate.notify.incomplete');
      once();
    });
    this.incomplete.add(once);
  }

  private isComplete(): boolean {
    // it starts with the smbds, and they may be heard first
    if (this.client === null) return this.context.now() >= this.missedFrom + NOTIFY_WAIT_MICROS_MAX;
    if (this.own === null) return false;
    // whoever watches on a server that comes later waits for us by himself
    if (this.context.now() >= this.learntAt + NOTIFY_WAIT_MICROS_MAX) return true;
    const { members } = this.context;
    if (members.length === 0) return false;
    return [...this.peers].every(([node, { incarnation, notifyd, isKnown }]) => {
      if (!members.includes(node)) return true;
      // one that we have not met is given time to come; one that is silent is not waited for
      return notifyd === null || isKnown || (incarnation !== null && !this.context.isUp(node));
    });
  }

  private checkComplete(): void {
    if (this.incomplete.size === 0 || !this.isComplete()) return;
    for (const done of [...this.incomplete]) done();
  }
}

function recordOf({ holder, change }: Watch): LoggedMessage {
  return logged({
    type: SAMBA_MESSAGE.notifyRecChange,
    destination: NOBODY,
    source: holder,
    payload: encodeWatchChange(change),
  });
}

/** From the daemon, as a process of server `vnn`. */
function pingMessage(destination: ServerId, vnn: number, serial: bigint): Uint8Array {
  const source = { ...NOBODY, pid: DAEMON_PID, vnn };
  const payload = new ByteWriter(8).u64(serial).finish();
  return encodeSambaMessage({ type: SAMBA_MESSAGE.ping, destination, source, payload });
}

function reportKey(pid: bigint, { handle, folder }: WatchChange): string {
  return `${pid}/${handle}/${Buffer.from(folder).toString('latin1')}`;
}
