/**
 * The clients' connections to public addresses: what our smbds tell, told on to all members at once, and what the
 * others told, so that whoever takes an address knows whom to tickle. Decides nothing about addresses.
 */
import type { ClientId, NodeId } from '../../base/ids.js';
import type { Connection } from '../../wire/address-messages.js';
import { CONNECTIONS_PER_MESSAGE_MAX, encodeAddressMessage } from '../../wire/address-messages.js';
import type { CoreContext } from '../context.js';
import { CONNECTIONS_MAX } from './limits.js';

export class Connections {
  /** By the connection of the smbd to us. */
  private readonly local = new Map<ClientId, Connection[]>();
  private localCount = 0;
  /** Ours, of addresses that we let go: their clients were told nothing. */
  private readonly cut = new Map<string, Connection[]>();
  private readonly others = new Map<NodeId, Map<string, Connection>>();

  constructor(
    private readonly context: CoreContext,
    /** Of an address that we have let go the others keep what they know, for whoever takes it. */
    private readonly isHere: (address: string) => boolean,
  ) {}

  opened(client: ClientId, connection: Connection): void {
    if (this.localCount >= CONNECTIONS_MAX) return this.context.count('address.connection.dropped');
    this.localCount += 1;
    this.local.set(client, [...(this.local.get(client) ?? []), connection]);
    this.broadcast([connection], []);
  }

  closed(client: ClientId): void {
    const closed = this.local.get(client);
    if (closed === undefined) return;
    this.local.delete(client);
    this.localCount -= closed.length;
    const removed = closed.filter(({ server }) => this.isHere(server));
    if (removed.length > 0) this.broadcast([], removed);
  }

  onMessage(from: NodeId, whole: boolean, added: readonly Connection[], removed: readonly Connection[]): void {
    const known = whole ? new Map<string, Connection>() : (this.others.get(from) ?? new Map<string, Connection>());
    this.others.set(from, known);
    for (const connection of removed) known.delete(keyOf(connection));
    for (const connection of added) {
      if (known.size < CONNECTIONS_MAX) known.set(keyOf(connection), connection);
      else this.context.count('address.connection.dropped');
    }
  }

  /** To one that knows nothing of this run, or to all. */
  tellWhole(peers: readonly NodeId[]): void {
    const held = [...this.local.values()].flat().filter(({ server }) => this.isHere(server));
    for (let from = 0; from === 0 || from < held.length; from += CONNECTIONS_PER_MESSAGE_MAX) {
      const added = held.slice(from, from + CONNECTIONS_PER_MESSAGE_MAX);
      this.send(peers, from === 0, added, []);
    }
  }

  /** We let the address go. */
  release(address: string): void {
    const ours = [...this.local.values()].flat().filter(({ server }) => server === address);
    if (ours.length > 0) this.cut.set(address, ours);
  }

  /** Connections that others had to this address, or we before we let it go. */
  lost(address: string): Connection[] {
    const lost = new Map((this.cut.get(address) ?? []).map((connection) => [keyOf(connection), connection]));
    this.cut.delete(address);
    for (const known of this.others.values()) {
      for (const [key, connection] of known) if (connection.server === address) lost.set(key, connection);
    }
    return [...lost.values()];
  }

  /** Nobody but `holder` serves the address any more, and whoever lost it was told long ago. */
  forget(address: string, holder: NodeId | null): void {
    for (const [node, known] of this.others) {
      if (node === holder) continue;
      for (const [key, connection] of known) if (connection.server === address) known.delete(key);
    }
  }

  count(address: string, holder: NodeId | null): number {
    const known =
      holder === this.context.self
        ? [...this.local.values()].flat()
        : holder === null ? [] : [...(this.others.get(holder)?.values() ?? [])];
    return known.filter(({ server }) => server === address).length;
  }

  private broadcast(added: Connection[], removed: Connection[]): void {
    this.send(this.context.members.filter((node) => node !== this.context.self), false, added, removed);
  }

  private send(peers: readonly NodeId[], whole: boolean, added: Connection[], removed: Connection[]): void {
    const message = encodeAddressMessage({ kind: 'connections', whole, added, removed });
    for (const peer of peers) this.context.send(peer, message);
  }
}

function keyOf({ server, serverPort, client, clientPort }: Connection): string {
  return `${server} ${serverPort} ${client} ${clientPort}`;
}
