/** What each other configured server said last, and when. Facts only; nothing is decided here. */
import type { Incarnation, NodeId } from '../../base/ids.js';
import type { MembershipMessageOf } from '../../wire/membership-messages.js';
import type { ConfiguredServer, ServerRole } from '../../wire/membership-state.js';
import type { Micros } from '../effects.js';
import type { MembershipStatus } from './port.js';

export interface Peer {
  readonly node: NodeId;
  readonly role: ServerRole;
  /** Of its newest run that we heard; 0: none. */
  incarnation: Incarnation;
  /** That run continues all from this one on; 0: it began anew. */
  resumes: number;
  /** When we heard that run last; -Infinity: never. */
  heardAt: Micros;
  /** The same, but time that we slept does not count. */
  silentFrom: Micros;
  /**
   * From when it counts, while we lead, that it does not answer: one that is heard, but hears nobody, stands for
   * election for ever and is of no use. Not for time that we slept, or before it was asked.
   */
  unansweredFrom: Micros;
  /** The newest view that it said to have on disk. */
  accepted: number;
  installed: number;
  recovered: number;
  /** When, by its clock, it said the newest of what changes both ways: whether it is willing, and whom it hears. */
  saidAt: Micros;
  /** Whether it can be a member; null: it did not say yet. */
  willing: boolean | null;
  /** Its disk remembered no view when it started. */
  isBlank: boolean;
  /** That run gave its lease back: it serves no more. */
  released: boolean;
  unheard: ReadonlySet<NodeId>;
}

export class Peers {
  private list: readonly Peer[] = [];
  private byNode: ReadonlyMap<NodeId, Peer> = new Map();

  constructor(others: readonly ConfiguredServer[]) {
    this.setServers(others);
  }

  /** Ascending. */
  get all(): readonly Peer[] {
    return this.list;
  }

  /** The others of the pool are these from here on; what is known of those that stay is kept. */
  setServers(others: readonly ConfiguredServer[]): void {
    this.list = others.map(({ node, role }) => {
      const known = this.byNode.get(node);
      return known?.role === role ? known : newPeer(node, role);
    });
    this.byNode = new Map(this.list.map((peer) => [peer.node, peer]));
  }

  get(node: NodeId): Peer | undefined {
    return this.byNode.get(node);
  }

  /** One more, as long as the servers stay the same. */
  add(server: ConfiguredServer): Peer {
    this.setServers([...this.list, server].sort((a, b) => a.node - b.node));
    return this.byNode.get(server.node)!;
  }

  /** A frame of this run came. Returns whether the run is a new one. */
  heard(peer: Peer, incarnation: Incarnation, now: Micros, resumes = 0): boolean {
    peer.heardAt = now;
    peer.silentFrom = now;
    if (incarnation === peer.incarnation) return false;
    peer.unansweredFrom = now;
    peer.incarnation = incarnation;
    peer.resumes = resumes;
    peer.installed = 0;
    peer.recovered = 0;
    peer.saidAt = 0;
    peer.willing = null;
    peer.isBlank = false;
    peer.released = false;
    peer.unheard = new Set();
    return true;
  }

  /** What it says of itself in an answer that it sent at `sentAt`; one that was overtaken says nothing new. */
  said(peer: Peer, sentAt: Micros, { willing, unheard }: { willing: boolean; unheard: readonly NodeId[] }): void {
    if (sentAt < peer.saidAt) return;
    peer.saidAt = sentAt;
    peer.willing = willing;
    peer.unheard = new Set(unheard);
  }

  /** It answered a heartbeat of ours. */
  answered(peer: Peer, message: MembershipMessageOf<'answer'>): void {
    peer.unansweredFrom = peer.silentFrom;
    this.said(peer, message.sentAt, message);
    peer.isBlank = message.isBlank;
    // an older answer may come late
    peer.released ||= message.released;
    if (peer.released) peer.willing = false;
    peer.accepted = Math.max(peer.accepted, message.accepted);
    peer.installed = Math.max(peer.installed, message.installed);
    peer.recovered = Math.max(peer.recovered, message.recovered);
  }

  /** For people. */
  status(now: Micros): MembershipStatus['servers'] {
    return this.all.map(({ node, role, incarnation, heardAt, willing, unheard, accepted, installed, recovered }) => ({
      node,
      role,
      incarnation,
      microsSilent: heardAt === -Infinity ? null : now - heardAt,
      willing,
      unheard: [...unheard],
      accepted,
      installed,
      recovered,
    }));
  }

  /** We slept, so frames may wait unread: nobody is judged by that time. */
  slept(micros: Micros, now: Micros): void {
    for (const peer of this.all) {
      peer.silentFrom = Math.min(now, peer.silentFrom + micros);
      peer.unansweredFrom = Math.min(now, peer.unansweredFrom + micros);
    }
  }

  /** Nobody but `except` had a reason, or a way, to talk to us until now; what they said of themselves is old. */
  expectFromNow(now: Micros, except: NodeId | null): void {
    for (const peer of this.all) {
      peer.willing = peer.released ? false : null;
      peer.unheard = new Set();
      // a run that continues the one that fell silent is not that one
      peer.unansweredFrom = peer.node === except && peer.resumes === 0 ? peer.silentFrom : now;
    }
  }
}

function newPeer(node: NodeId, role: ServerRole): Peer {
  return {
    node,
    role,
    incarnation: 0 as Incarnation,
    resumes: 0,
    heardAt: -Infinity,
    silentFrom: -Infinity,
    unansweredFrom: -Infinity,
    accepted: 0,
    installed: 0,
    recovered: 0,
    saidAt: 0,
    willing: null,
    isBlank: false,
    released: false,
    unheard: new Set<NodeId>(),
  };
}
