/**
 * Which processes of the pool live, and which addresses they hold, from memory: each daemon tells the others who came
 * and went. Used for PROCESS_EXISTS and CHECK_PID_SRVID. A false "dead" lets smbd throw away a living process's locks,
 * so only what is certain is answered 'dead'; what is not known here is 'unknown' and the caller asks the process's own
 * server.
 */
import type { Incarnation, NodeId } from '../../base/ids.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { ProcessChange, ProcessEntry } from '../../wire/gate-messages.js';
import { SRVID } from '../../wire/ctdb.js';
import type { CoreContext } from '../context.js';
import type { Client } from './clients.js';

/**
 * Remembered (process, address) pairs that are gone, per server; beyond it the oldest is forgotten and asked for again.
 */
export const TOMBSTONES_MAX = 20_000;
/** Processes per part of a full list: a part stays far below the largest message. */
export const PROCESSES_PER_PART_MAX = 1_000;
/** Addresses of one remote process that are remembered; more are asked for. smbd holds fewer than ten per process. */
export const SRVIDS_PER_PROCESS_MAX = 8_192;

export type Liveness = 'alive' | 'dead' | 'unknown';

/** Addresses with a fixed meaning are held by many processes and never asked for: they are not announced. */
const WELL_KNOWN: ReadonlySet<bigint> = new Set(Object.values(SRVID));

interface Peer {
  /** Whether the peer was told everything and must hear of changes. */
  told: boolean;
  /** Whether a full list of the peer has come: until then nothing is known. */
  listed: boolean;
  incarnation: Incarnation | null;
  processes: Map<number, Set<bigint>>;
  /** The list being received, or null. */
  incoming: Map<number, Set<bigint>> | null;
  /** "pid/address" pairs whose process is certainly gone; oldest first. */
  tombstones: Set<string>;
}

export class Processes {
  /** Local: pid to (address to how many of its clients hold it), and how many clients it has. */
  private readonly local = new Map<number, { clients: number; srvids: Map<bigint, number> }>();
  private readonly peers = new Map<NodeId, Peer>();

  constructor(private readonly context: CoreContext) {
    this.serversChanged();
  }

  /** There may be more servers than before. */
  serversChanged(): void {
    for (const peer of this.context.servers) {
      if (peer === this.context.self || this.peers.has(peer)) continue;
      this.peers.set(peer, {
        told: false,
        listed: false,
        incarnation: null,
        processes: new Map(),
        incoming: null,
        tombstones: new Set(),
      });
    }
  }

  clientOpened(client: Client): void {
    const process = this.local.get(client.pid);
    if (process !== undefined) {
      process.clients++;
      return;
    }
    this.local.set(client.pid, { clients: 1, srvids: new Map() });
    this.tell({ what: 'came', pid: client.pid, srvid: 0n });
  }

  clientClosed(client: Client): void {
    const process = this.local.get(client.pid);
    if (process === undefined) return;
    process.clients--;
    if (process.clients === 0) {
      this.local.delete(client.pid);
      this.tell({ what: 'went', pid: client.pid, srvid: 0n });
      return;
    }
    for (const srvid of client.srvids.keys()) this.release(client.pid, srvid);
  }

  /** The client registered an address for the first time. */
  registered(client: Client, srvid: bigint): void {
    const process = this.local.get(client.pid);
    if (process === undefined) return;
    const count = process.srvids.get(srvid) ?? 0;
    process.srvids.set(srvid, count + 1);
    if (count === 0 && isAnnounced(client.pid, srvid)) this.tell({ what: 'holds', pid: client.pid, srvid });
  }

  deregistered(client: Client, srvid: bigint): void {
    this.release(client.pid, srvid);
  }

  private release(pid: number, srvid: bigint): void {
    const process = this.local.get(pid);
    const count = process?.srvids.get(srvid);
    if (process === undefined || count === undefined) return;
    if (count > 1) {
      process.srvids.set(srvid, count - 1);
      return;
    }
    process.srvids.delete(srvid);
    if (isAnnounced(pid, srvid)) this.tell({ what: 'dropped', pid, srvid });
  }

  private tell(change: ProcessChange): void {
    let message: Uint8Array | null = null;
    for (const [node, peer] of this.peers) {
      if (!peer.told) continue;
      message ??= encodeGateMessage({ kind: 'process-changes', changes: [change] });
      this.context.send(node, message);
    }
  }

  /** The peer's run is another one, which continues the one before: those who live are in its list. */
  peerResumed(node: NodeId, incarnation: Incarnation): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    peer.incarnation = incarnation;
    peer.listed = false;
    peer.incoming = null;
  }

  /** First contact, or what was sent to the peer was lost: it gets the full list and every change from then on. */
  peerUp(node: NodeId, incarnation: Incarnation): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    if (peer.incarnation !== null && peer.incarnation !== incarnation) this.forgetAll(peer);
    peer.incarnation = incarnation;
    peer.listed = false;
    peer.incoming = null;
    peer.told = true;
    const entries: ProcessEntry[] = [];
    for (const [pid, process] of this.local) {
      entries.push({ pid, srvids: [...process.srvids.keys()].filter((srvid) => isAnnounced(pid, srvid)) });
    }
    let at = 0;
    do {
      const processes = entries.slice(at, at + PROCESSES_PER_PART_MAX);
      const first = at === 0;
      at += PROCESSES_PER_PART_MAX;
      const last = at >= entries.length;
      this.context.send(node, encodeGateMessage({ kind: 'process-list', first, last, processes }));
    } while (at < entries.length);
  }

  /** The peer's run is out of the view: its processes count as ended with it. */
  peerLeft(node: NodeId): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    this.forgetAll(peer);
    peer.told = false;
    peer.listed = false;
    peer.incoming = null;
  }

  /** A later run of the peer's daemon: all processes of the earlier run have ended with it. */
  private forgetAll(peer: Peer): void {
    for (const [pid, srvids] of peer.processes) bury(peer, pid, srvids);
    peer.processes.clear();
  }

  onChanges(node: NodeId, changes: readonly ProcessChange[]): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    for (const { what, pid, srvid } of changes) {
      const srvids = peer.processes.get(pid);
      if (what === 'came') {
        peer.processes.set(pid, new Set());
      } else if (what === 'went') {
        if (srvids !== undefined) bury(peer, pid, srvids);
        peer.processes.delete(pid);
      } else if (what === 'dropped') {
        // no tombstone: the process lives and may take the address again
        srvids?.delete(srvid);
      } else if (srvids !== undefined && srvids.size < SRVIDS_PER_PROCESS_MAX) {
        srvids.add(srvid);
        peer.tombstones.delete(tombstone(pid, srvid));
      }
    }
  }

  onList(node: NodeId, first: boolean, last: boolean, processes: readonly ProcessEntry[]): void {
    const peer = this.peers.get(node);
    if (peer === undefined) return;
    if (first) peer.incoming = new Map();
    const incoming = peer.incoming;
    if (incoming === null) return this.context.count('gate.process-list.refused.out-of-order');
    for (const { pid, srvids } of processes) incoming.set(pid, new Set(srvids));
    if (!last) return;
    for (const [pid, srvids] of peer.processes) {
      const now = incoming.get(pid);
      if (now === undefined) bury(peer, pid, srvids);
    }
    for (const [pid, srvids] of incoming) for (const srvid of srvids) peer.tombstones.delete(tombstone(pid, srvid));
    peer.processes = incoming;
    peer.incoming = null;
    peer.listed = true;
  }

  /**
   * Whether a process of the server lives, and with `srvid` whether it holds that address. Local answers are certain.
   */
  isAlive(node: NodeId, pid: number, srvid: bigint | null): Liveness {
    if (node === this.context.self) {
      const process = this.local.get(pid);
      if (process === undefined) return 'dead';
      return srvid === null || process.srvids.has(srvid) ? 'alive' : 'dead';
    }
    const peer = this.peers.get(node);
    // a server is out of the view: so are its processes, whatever has become of them; before the first we know nothing
    const { members } = this.context;
    if (peer === undefined || (members.length > 0 && !members.includes(node))) return 'dead';
    const srvids = peer.processes.get(pid);
    if (srvids !== undefined && (srvid === null || srvids.has(srvid))) return 'alive';
    // a process id is used again, an address is not: only the pair is certainly gone
    if (srvid !== null && peer.tombstones.has(tombstone(pid, srvid))) return 'dead';
    return 'unknown';
  }

  /**
   * The process's own server said that it does not hold the address: what is random is never taken again by another.
   */
  rememberDead(node: NodeId, pid: number, srvid: bigint): void {
    const peer = this.peers.get(node);
    if (peer !== undefined) bury(peer, pid, new Set([srvid]));
  }

  /** For people: how many processes each server has, as far as known. */
  status(): { node: NodeId; processes: number; known: boolean }[] {
    const list = [{ node: this.context.self, processes: this.local.size, known: true }];
    for (const [node, peer] of this.peers) list.push({ node, processes: peer.processes.size, known: peer.listed });
    return list.sort((a, b) => a.node - b.node);
  }
}

/** A process's own id as address says nothing new. */
function isAnnounced(pid: number, srvid: bigint): boolean {
  return srvid !== BigInt(pid) && !WELL_KNOWN.has(srvid);
}

function tombstone(pid: number, srvid: bigint): string {
  return `${pid}/${srvid.toString(36)}`;
}

function bury(peer: Peer, pid: number, srvids: ReadonlySet<bigint>): void {
  for (const srvid of srvids) {
    const name = tombstone(pid, srvid);
    peer.tombstones.delete(name);
    peer.tombstones.add(name);
  }
  while (peer.tombstones.size > TOMBSTONES_MAX) {
    const oldest = peer.tombstones.values().next();
    if (oldest.done === true) return;
    peer.tombstones.delete(oldest.value);
  }
}
