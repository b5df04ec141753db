/**
 * REQ_MESSAGE: what one process says to another, to an address, or to all. Local delivery at once, the rest to the
 * peers. Between two connections messages stay in order. What is said to a process of a server that fell silent waits
 * until that server is heard again, or starts anew: it may be the break of a lease, and smbd does not ask whether one
 * arrived. The link bounds what waits (QUEUE_BYTES_MAX), and gives that run of the server up beyond it. To nobody, to a
 * server that was never there, and to all while a server is silent, messages are dropped and counted, as CTDB does.
 */
import { nodeId } from '../../base/ids.js';
import type { NodeId } from '../../base/ids.js';
import { DESTINATION } from '../../wire/ctdb.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { CoreContext, SendMode } from '../context.js';
import type { Clients } from './clients.js';

export class Messages {
  constructor(
    private readonly context: CoreContext,
    private readonly clients: Clients,
    /** Our run continues another one: whom that one had met, we have not met yet. */
    private readonly resumes: boolean,
  ) {}

  /** `data` may be a view of the packet: it is copied where it outlives the step. */
  request(destination: number, srvid: bigint, data: Uint8Array): void {
    const { self, servers } = this.context;
    if (destination === self || destination === DESTINATION.current) return this.deliver(srvid, data);
    if (isBroadcast(destination)) {
      this.broadcast(srvid, data);
      return;
    }
    const peer = nodeId(destination);
    if (!servers.includes(peer)) return this.context.count('gate.message.dropped.unknown-server');
    this.forward(peer, srvid, data, 'met');
  }

  /** To every server, ourselves included. */
  broadcast(srvid: bigint, data: Uint8Array): void {
    this.deliver(srvid, data);
    const message = encodeGateMessage({ kind: 'message', srvid, data });
    for (const peer of this.context.members) if (peer !== this.context.self) this.send(peer, message, 'drop');
  }

  /** To the handlers of the address at a peer. */
  forward(peer: NodeId, srvid: bigint, data: Uint8Array, mode: SendMode): void {
    this.send(peer, encodeGateMessage({ kind: 'message', srvid, data }), mode);
  }

  private send(peer: NodeId, message: Uint8Array, mode: SendMode): void {
    const isOfOld = this.resumes && this.context.members.includes(peer);
    if (this.context.send(peer, message, isOfOld ? 'wait' : mode)) this.context.count('gate.message.sent');
    else this.context.count('gate.message.dropped.server-down');
  }

  /** To the local handlers of the address. */
  deliver(srvid: bigint, data: Uint8Array): void {
    const count = this.clients.deliver(srvid, data);
    if (count > 0) this.context.count('gate.message.delivered', count);
    else this.context.count('gate.message.dropped.nobody');
  }
}

export function isBroadcast(destination: number): boolean {
  return (
    destination === DESTINATION.all || destination === DESTINATION.active || destination === DESTINATION.connected
  );
}
