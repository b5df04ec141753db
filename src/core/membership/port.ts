/**
 * What the rest of the daemon knows of the membership: views in the order of epochs, and until when our run may serve.
 * Two engines stand behind it: `embedded` (membership.ts), where a majority of the servers agrees, and `etcd`
 * (etcd.ts), where a register in an etcd cluster does. Types only.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { Configuration } from '../../wire/membership-configuration.js';
import type { ChangeRefusal, ServersChange } from '../../wire/membership-messages.js';
import type { ConfiguredServer, SavedMembership } from '../../wire/membership-state.js';
import type { Announcement } from '../../wire/protocol-version.js';
import type { CoreContext } from '../context.js';
import type { Micros, RegisterResult } from '../effects.js';
import type { LeaveReason, View } from './composition.js';
import type { ServerList } from './configuration.js';

export type MembershipContext = Pick<CoreContext, 'now' | 'timers' | 'emit' | 'log' | 'count'>;

export type EngineName = 'embedded' | 'etcd';

export interface MembershipOptions {
  self: NodeId;
  /** Of this run of ours; above 0 and higher than in every earlier run. */
  incarnation: Incarnation;
  /** It continues all runs of this server from this one on, as in NodeOptions. */
  resumes?: Incarnation | undefined;
  /** What our run tells all others of itself. */
  announcement: Announcement;
  /** All that are configured, ourselves included. */
  servers: readonly ConfiguredServer[];
  heartbeatMicros: Micros;
  leaseMicros: Micros;
  /** What the disk had; null: this server never saved anything. */
  saved: SavedMembership | null;
}

export interface MembershipEvents {
  /** An agreed view that names our run; in the order of epochs, some may be skipped. */
  view(view: View): void;
  /** Our right to serve, by our clock. Called when it changes; never goes back, but to 0 when we leave. */
  lease(until: Micros): void;
  /** A view says that our run, which was a member, is none any more: this run is over. */
  removed(view: View): void;
  /**
   * For people. We lead: members that are to be left out, each time that we look; none of them any more when our lead
   * ends.
   */
  suspects?(reasons: ReadonlyMap<NodeId, LeaveReason>): void;
  /** For people. We propose a view, with the ends of the leases of those that it leaves out, or hear of one. */
  proposed?(view: View, leaseOver: ReadonlyMap<NodeId, Micros>): void;
  /**
   * The pool's servers are these from here on; we are not among them when we were taken out. Told when they change,
   * not at the start.
   */
  servers?(list: ServerList): void;
  /** The answer to changeServers. */
  changeAnswered?(result: ChangeResult): void;
  /**
   * Asked while we lead: every answered commit of the persistent databases is on all members that count, and these are
   * enough. Absent: there are none.
   */
  isSettled?(): boolean;
  /** An unreliable frame. */
  send(peer: NodeId, body: Uint8Array): void;
}

/** Of an engine that keeps its register elsewhere: whether that answers. Times are microseconds ago. */
export interface RegisterStatus {
  /** null: it never answered. */
  microsSinceAnswer: Micros | null;
  /** Why the last request failed; null: it was answered. */
  failure: string | null;
  /** A server wants the lead, because it does not hear the leader. */
  challenger: NodeId | null;
}

/** What became of a change of the servers that a person asked for; late: nobody that leads answered in time. */
export type ChangeResult = 'done' | { why: ChangeRefusal | 'late'; about: NodeId[] };

export interface MembershipStatus {
  engine: EngineName;
  role: 'leader' | 'follower' | 'candidate' | 'witness';
  term: number;
  leader: NodeId | null;
  /** The newest agreed view that we know, whether it names us or not. */
  view: View | null;
  /** Of the newest view that we know, agreed or on our disk; null: we know none. */
  protocol: number | null;
  isOver: boolean;
  /** A leader's, by our clock; null: we do not lead. */
  authorityUntil: Micros | null;
  leaseUntil: Micros;
  promisedUntil: Micros;
  /** A leader's view that is not agreed yet, and members that it is about to leave out. */
  proposal: Epoch | null;
  leaving: NodeId[];
  /** The newest configuration that we accepted; number 0: nobody changed the servers since the files were written. */
  configuration: Configuration;
  /** The others say that we are none of the pool's servers. */
  isOutside: boolean;
  /** null: the engine needs none. */
  register: RegisterStatus | null;
  servers: {
    node: NodeId;
    role: ConfiguredServer['role'];
    incarnation: Incarnation;
    microsSilent: Micros | null;
    willing: boolean | null;
    unheard: NodeId[];
    accepted: number;
    installed: number;
    recovered: number;
  }[];
}

/** An engine. Its host reads the clock for each frame and each answer after it arrived. */
export interface MembershipEngine {
  /** Takes an authentic frame of this run of the peer. Whatever is wrong with its body is counted, never thrown. */
  onFrame(from: NodeId, incarnation: Incarnation, body: Uint8Array): void;
  /** The host's answer to the effect membership-save. */
  onSaved(token: number, ok: boolean): void;
  /** The host's answer to the effect register-request. */
  onRegister(token: number, result: RegisterResult): void;
  /** The records have behind them what the view of this epoch asked. */
  recovered(epoch: Epoch): void;
  /**
   * Whether all servers have every answered commit of the persistent databases, and each commit from now on needs all
   * of them. Said by the server that leads.
   */
  setAllHold(allHold: boolean): void;
  /** A run of another configured server says this of itself. */
  announced(node: NodeId, incarnation: Incarnation, announcement: Announcement): void;
  /** The configured servers that our links do not hear. */
  setUnheard(nodes: Iterable<NodeId>): void;
  /** The other servers that hear us, and of which some frame came within the last part of a lease. */
  setHeard(nodes: Iterable<NodeId>): void;
  /** A server that is not healthy, or leaves, is not added, and asks to be left out. */
  setWilling(willing: boolean): void;
  /**
   * Our run ends in order. What its lease allowed has ended before; it is given back, so that the others need not wait
   * for its end. A leader only ends its lead: what it granted to others goes on.
   */
  leave(): void;
  /** A person wants another list of servers; one such wish at a time. Answered by the event changeAnswered. */
  changeServers(change: ServersChange): void;
  /** What was written of the servers that we accepted. */
  serverList(): ServerList;
  /** For people. */
  status(now?: Micros): MembershipStatus;
}
