/** The socket of the local processes, as the host's loop uses it. The adapter is host/pump over the addon. */
import type { ClientId } from '../base/ids.js';

export interface SmbdGate {
  /** Queues a whole packet; it is copied and leaves at the end of the turn. For a client that is gone it is dropped. */
  sendPacket(client: ClientId, packet: Uint8Array): void;
  /** Ends the connection after what is queued was offered once; the end is reported as for any other client. */
  closeClient(client: ClientId): void;
}

export interface SmbdGateListener {
  /** `pid` is the kernel's word, not the client's. */
  clientOpened(client: ClientId, pid: number): void;
  /** One whole packet with length, magic and version in order; the bytes are valid only during the call. */
  clientPacket(client: ClientId, packet: Uint8Array): void;
  clientClosed(client: ClientId): void;
}
