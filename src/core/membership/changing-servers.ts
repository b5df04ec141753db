/**
 * The changes of the pool's servers that a leader is asked for (docs/decisions/joining.md): what is refused, and which
 * servers the next view should have. One change at a time; whoever wants one asks again and again until it is agreed.
 */
import type { NodeId } from '../../base/ids.js';
import type { ChangeRefusal, ServersChange } from '../../wire/membership-messages.js';
import type { Micros } from '../effects.js';
import type { View } from '../views.js';
import type { ServerList } from './configuration.js';
import { counting, fileServersIn, isMajority, joined, left, presentIn } from './configuration.js';
import { CHANGE_FORGOTTEN_MICROS } from './limits.js';
import type { Peer } from './peers.js';

/** Why not, and which servers that is about. */
export interface Refused {
  why: ChangeRefusal;
  about: NodeId[];
}

/** What is known of the lead. */
export interface LeadFacts {
  now(): Micros;
  /** The servers as we proposed them last. */
  list(): ServerList;
  /** The newest view of our own term that is agreed. */
  agreed(): View | null;
  /** A proposal of ours is not agreed yet. */
  isOpen(): boolean;
  peer(node: NodeId): Peer | undefined;
  /** It answers us; we always do. */
  isThere(node: NodeId): boolean;
  /** MembershipEvents.isSettled. */
  isSettled(): boolean;
}

export class ChangingServers {
  private wanted: { change: ServersChange; askedAt: Micros } | null = null;

  constructor(private readonly lead: LeadFacts) {}

  /** A person wants this. Null: it is under way, or done. */
  ask(change: ServersChange): Refused | null {
    const list = this.lead.list();
    const { node } = change.server;
    const no = (why: ChangeRefusal, about: NodeId[] = []): Refused => ({ why, about });
    this.forget();
    const { wanted } = this;
    if (wanted !== null) {
      if (!isSameChange(wanted.change, change)) return no('busy', [wanted.change.server.node]);
      wanted.askedAt = this.lead.now();
      return this.refusal(change, list);
    }
    const isUnsure = this.lead.agreed() === null || this.lead.isOpen();
    // perhaps it is what is open
    if (isUnsure) return isDone(change, list) ? null : no('busy');
    if (isDone(change, list)) return null;
    if (change.number !== list.configuration.number) return no('changed');
    const isPresent = presentIn(list.configuration).includes(node);
    if (change.what === 'join' ? isPresent : !isPresent) return no(isPresent ? 'there' : 'unknown');
    const refused = this.refusal(change, list);
    if (refused === null) this.wanted = { change, askedAt: this.lead.now() };
    return refused;
  }

  /** Whom a person takes out, if we may. */
  removed(): NodeId | null {
    this.forget();
    const { wanted } = this;
    return wanted?.change.what === 'leave' && this.lead.agreed() !== null ? wanted.change.server.node : null;
  }

  /**
   * The servers of the next view, which will have these members, if the servers change: one at a time, and not before a
   * view of our own term is agreed. (Else two leaders, each with a change that the other does not know, could have
   * majorities that do not meet.)
   */
  next(base: View | null, members: readonly { node: NodeId }[]): ServerList | null {
    if (this.lead.agreed() === null || this.lead.isOpen()) return null;
    const { wanted } = this;
    const list = this.lead.list();
    if (wanted?.change.what === 'join') return joined(list, wanted.change.server);
    if (wanted !== null) {
      const { node } = wanted.change.server;
      const isMember = members.some((member) => member.node === node);
      return isMember || this.refusal(wanted.change, list) !== null ? null : left(list, node);
    }
    const ready = list.configuration.joining.find((node) => this.mayCount(node, base, list));
    return ready === undefined ? null : counting(list, ready);
  }

  /** Why the servers may not be changed so, as far as we know now. */
  private refusal({ what, server }: ServersChange, list: ServerList): Refused | null {
    if (what === 'join' || !list.configuration.counted.includes(server.node)) return null;
    if (fileServersIn(list.configuration).every((node) => node === server.node)) return { why: 'last', about: [] };
    return this.mayNotFollow(left(list, server.node), list);
  }

  private forget(): void {
    const { wanted } = this;
    if (wanted === null) return;
    const isOld = this.lead.now() - wanted.askedAt >= CHANGE_FORGOTTEN_MICROS;
    if (isOld || (!this.lead.isOpen() && isDone(wanted.change, this.lead.list()))) this.wanted = null;
  }

  /** Whether a joining server can count from the next view on: it has the newest view, and the rest allows it. */
  private mayCount(node: NodeId, base: View | null, list: ServerList): boolean {
    const peer = this.lead.peer(node);
    if (peer === undefined || !this.lead.isThere(node)) return false;
    if (peer.accepted < (this.lead.agreed()?.epoch ?? 0)) return false;
    if (this.mayNotFollow(counting(list, node), list) !== null) return false;
    // of two servers one alone has everything: a majority of three may lack it
    return peer.role === 'witness' || fileServersIn(list.configuration).length !== 2 || base?.holders.length !== 1;
  }

  /** The next servers could not agree on anything; or a majority of them may lack what one of these has. */
  private mayNotFollow(next: ServerList, list: ServerList): Refused | null {
    const { counted } = next.configuration;
    if (!isMajority(next.configuration, (node) => this.lead.isThere(node))) {
      return { why: 'majority', about: counted.filter((node) => !this.lead.isThere(node)) };
    }
    const isOfFiles = fileServersIn(next.configuration).length !== fileServersIn(list.configuration).length;
    return isOfFiles && !this.lead.isSettled() ? { why: 'accounts', about: [] } : null;
  }
}

/** Whether the servers are as the change wants them. */
export function isDone({ what, number, server }: ServersChange, { configuration, servers }: ServerList): boolean {
  if (configuration.number <= number) return false;
  const isPresent = presentIn(configuration).includes(server.node);
  if (what === 'leave') return !isPresent;
  const known = servers.find(({ node }) => node === server.node);
  return isPresent && known?.role === server.role && (known.entry ?? '') === (server.entry ?? '');
}

function isSameChange(a: ServersChange, b: ServersChange): boolean {
  const isSameServer = a.server.node === b.server.node && a.server.role === b.server.role
    && (a.server.entry ?? '') === (b.server.entry ?? '');
  return isSameServer && a.what === b.what && a.number === b.number;
}
