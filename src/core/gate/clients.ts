/**
 * The local processes' connections: who they are, which message addresses (srvids) they registered, and the sending of
 * packets to them. Used by all parts of the gate. Decides nothing about what a packet means.
 */
import type { ClientId, DatabaseId, RecordKey } from '../../base/ids.js';
import { encodeCtdb, SRVID } from '../../wire/ctdb.js';
import type { CtdbBody } from '../../wire/ctdb.js';
import type { TraverseStart } from '../../wire/ctdb-controls.js';
import type { KeptClient, KeptRequest } from '../../wire/kept-state.js';
import { KEPT_PER_CLIENT_MAX, NO_REQUEST, encodeKeptClient } from '../../wire/kept-state.js';
import type { CoreContext } from '../context.js';

/** smbd registers under ten addresses per connection; a client beyond this is broken and refused. */
export const SRVIDS_PER_CLIENT_MAX = 4096;
/** A process lists at most some hundred directory entries at once; more calls under way are refused. */
export const CALLS_PER_CLIENT_MAX = 16_384;

export interface Client {
  readonly id: ClientId;
  readonly pid: number;
  /** How often each address was registered: twice delivers twice. */
  readonly srvids: Map<bigint, number>;
  /** The record it asked to own in its last call, '' if that was another call: asked for twice, it left too early. */
  lastMigrated: RecordKey | '';
  lastDatabase: DatabaseId | null;
  /** Whether it ever asked to own a record on this connection. */
  hasMigrated: boolean;
  /** The VFS module of the same process is, or was, attached. */
  hasModule: boolean;
  /** Tokens of calls under way. */
  readonly calls: Set<number>;
  /** What to do when the client is gone: messages it asked to be sent in its name. */
  readonly notifies: Map<bigint, Uint8Array>;
  /** Its TCP connections, as it told them; and its traversals under way. For a run that continues ours. */
  readonly connections: Uint8Array[];
  readonly traversals: Set<TraverseStart>;
  /** Its last request that changed what is kept of it. */
  lastRequest: KeptRequest;
  /** The same of the run that we continue, as long as that request may come again. */
  repeated: KeptRequest;
  /** Work to stop when the client is gone. */
  readonly onClosed: Set<() => void>;
}

export class Clients {
  private readonly clients = new Map<ClientId, Client>();
  /** Who registered an address, in the order of registration; a client registered twice is here twice. */
  private readonly handlers = new Map<bigint, Client[]>();

  constructor(
    private readonly context: CoreContext,
    /** The number of the view, as CTDB's clients know it. */
    private readonly generation: number,
  ) {}

  get size(): number {
    return this.clients.size;
  }

  open(id: ClientId, pid: number): Client {
    const client: Client = {
      id,
      pid,
      srvids: new Map(),
      lastMigrated: '',
      lastDatabase: null,
      hasMigrated: false,
      hasModule: false,
      calls: new Set(),
      notifies: new Map(),
      connections: [],
      traversals: new Set(),
      lastRequest: NO_REQUEST,
      repeated: NO_REQUEST,
      onClosed: new Set(),
    };
    this.clients.set(id, client);
    return client;
  }

  /** A client of the run that we continue; `register` is left to the caller. */
  reopen(id: ClientId, pid: number, kept: KeptClient): Client {
    const client = this.open(id, pid);
    client.hasMigrated = kept.hasMigrated;
    client.hasModule = kept.hasModule;
    client.lastRequest = kept.lastRequest;
    client.repeated = kept.lastRequest;
    for (const [srvid, data] of kept.notifies) client.notifies.set(srvid, data);
    client.connections.push(...kept.connections);
    for (const start of kept.traversals) client.traversals.add(start);
    return client;
  }

  /** What is known of the client has changed: a run that continues ours must know it. */
  keep(client: Client): void {
    if (!this.clients.has(client.id)) return;
    const connections = client.connections.slice(0, KEPT_PER_CLIENT_MAX);
    const traversals = [...client.traversals].slice(0, KEPT_PER_CLIENT_MAX);
    const { hasMigrated, hasModule, lastRequest, srvids, notifies } = client;
    const state = encodeKeptClient({
      hasMigrated, hasModule, lastRequest, srvids, notifies, connections, traversals,
    });
    this.context.emit({ kind: 'client-keep', client: client.id, state });
  }

  get(id: ClientId): Client | undefined {
    return this.clients.get(id);
  }

  all(): readonly Client[] {
    return [...this.clients.values()];
  }

  /** Forgets the client; the caller ends what it had under way. */
  close(client: Client): void {
    this.clients.delete(client.id);
    for (const srvid of client.srvids.keys()) this.removeHandlers(srvid, client);
  }

  /** False when the client has too many. */
  register(client: Client, srvid: bigint): boolean {
    const count = client.srvids.get(srvid) ?? 0;
    if (client.srvids.size >= SRVIDS_PER_CLIENT_MAX || count >= SRVIDS_PER_CLIENT_MAX) return false;
    client.srvids.set(srvid, count + 1);
    const handlers = this.handlers.get(srvid);
    if (handlers === undefined) this.handlers.set(srvid, [client]);
    else handlers.push(client);
    return true;
  }

  /** Takes all of the client's registrations of this address back; false when there was none. */
  deregister(client: Client, srvid: bigint): boolean {
    if (!client.srvids.delete(srvid)) return false;
    this.removeHandlers(srvid, client);
    return true;
  }

  isRegistered(srvid: bigint): boolean {
    return this.handlers.has(srvid);
  }

  private removeHandlers(srvid: bigint, client: Client): void {
    const left = (this.handlers.get(srvid) ?? []).filter((handler) => handler !== client);
    if (left.length === 0) this.handlers.delete(srvid);
    else this.handlers.set(srvid, left);
  }

  /** Delivers a message to every local handler of the address and to those who get everything; returns how many. */
  deliver(srvid: bigint, data: Uint8Array): number {
    const handlers = this.handlers.get(srvid);
    const everything = srvid === SRVID.all ? undefined : this.handlers.get(SRVID.all);
    const count = (handlers?.length ?? 0) + (everything?.length ?? 0);
    if (count === 0) return 0;
    const packet = this.encode({ kind: 'message', srvid, data }, 0);
    for (const client of handlers ?? []) this.context.emit({ kind: 'client-send', client: client.id, packet });
    for (const client of everything ?? []) this.context.emit({ kind: 'client-send', client: client.id, packet });
    return count;
  }

  /** Sends a packet to one client; one that is gone is not an error. */
  send(id: ClientId, body: CtdbBody, requestId: number): void {
    if (!this.clients.has(id)) return;
    this.context.emit({ kind: 'client-send', client: id, packet: this.encode(body, requestId) });
  }

  private encode(body: CtdbBody, requestId: number): Uint8Array {
    const header = { generation: this.generation, destination: 0, source: this.context.self, requestId };
    return encodeCtdb(header, body, true);
  }

  /** For people: the number of clients, processes and addresses. */
  status(): { clients: number; processes: number; addresses: number } {
    const pids = new Set<number>();
    for (const client of this.clients.values()) pids.add(client.pid);
    return { clients: this.clients.size, processes: pids.size, addresses: this.handlers.size };
  }
}
