/**
 * Cuts messages that are too large for the link into parts and puts them together again. Streams are in order, so parts
 * of one transfer come in order; a gap means the stream began anew and drops the transfer. Bounded by
 * TRANSFER_BYTES_MAX.
 */
import { DecodeError } from '../../base/bytes.js';
import type { NodeId } from '../../base/ids.js';
import { encodePersistentMessage } from '../../wire/persistent-messages.js';
import type { PersistentMessage } from '../../wire/persistent-messages.js';
import { FRAGMENT_BYTES, TRANSFER_BYTES_MAX } from './limits.js';

interface Incoming {
  transfer: number;
  count: number;
  bytes: number;
  parts: Uint8Array[];
}

export class Fragments {
  private readonly incoming = new Map<NodeId, Incoming>();
  private last = 0;

  /** The message as it travels: itself, or its parts in order. */
  split(message: Uint8Array): Uint8Array[] {
    if (message.length <= FRAGMENT_BYTES) return [message];
    const transfer = ++this.last;
    const count = Math.ceil(message.length / FRAGMENT_BYTES);
    const parts: Uint8Array[] = [];
    for (let index = 0; index < count; index++) {
      const bytes = message.subarray(index * FRAGMENT_BYTES, (index + 1) * FRAGMENT_BYTES);
      parts.push(encodePersistentMessage({ kind: 'fragment', transfer, index, count, bytes }));
    }
    return parts;
  }

  /** The whole message once its last part is here, else null. Throws DecodeError. */
  add(from: NodeId, part: Extract<PersistentMessage, { kind: 'fragment' }>): Uint8Array | null {
    let incoming = this.incoming.get(from);
    if (part.index === 0) {
      if (part.count * FRAGMENT_BYTES > TRANSFER_BYTES_MAX) throw new DecodeError('transfer-too-large');
      incoming = { transfer: part.transfer, count: part.count, bytes: 0, parts: [] };
      this.incoming.set(from, incoming);
    }
    const expected = incoming?.transfer === part.transfer && incoming.parts.length === part.index;
    if (incoming === undefined || !expected || incoming.count !== part.count) {
      this.incoming.delete(from);
      throw new DecodeError('fragment-out-of-order');
    }
    incoming.parts.push(part.bytes);
    incoming.bytes += part.bytes.length;
    if (incoming.bytes > TRANSFER_BYTES_MAX) {
      this.incoming.delete(from);
      throw new DecodeError('transfer-too-large');
    }
    if (incoming.parts.length < incoming.count) return null;
    this.incoming.delete(from);
    return Buffer.concat(incoming.parts, incoming.bytes);
  }

  /** What was under way from the peer is lost. */
  forget(from: NodeId): void {
    this.incoming.delete(from);
  }
}
