/**
 * Whether smbd answers: connects to its port as a client does and negotiates. Any answer of the protocol will do, also
 * a refusal of the dialect. A server on which no smbd is registered has nothing to check: the core says so itself.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { codeOf, messageOf } from '../../host/errors.js';
import type { Check } from './watch.js';

const HEADER_BYTES = 64;
const LENGTH_BYTES = 4;
const BODY_BYTES = 38;
const DIALECT_2_0_2 = 0x0202;

export interface SmbdPlace {
  address: string;
  port: number;
}

/**
 * MS-SMB2 2.2.3, for dialect 2.0.2 alone: with it a client has no ClientGuid, by which smbd would look for its other
 * connections.
 */
export function negotiateRequest(): Buffer {
  const packet = Buffer.alloc(LENGTH_BYTES + HEADER_BYTES + BODY_BYTES);
  packet.writeUInt32BE(HEADER_BYTES + BODY_BYTES, 0);
  packet.write('\xfeSMB', LENGTH_BYTES, 'latin1');
  packet.writeUInt16LE(HEADER_BYTES, LENGTH_BYTES + 4);
  // CreditRequest
  packet.writeUInt16LE(1, LENGTH_BYTES + 14);
  const body = LENGTH_BYTES + HEADER_BYTES;
  packet.writeUInt16LE(36, body);
  packet.writeUInt16LE(1, body + 2);
  // SecurityMode: signing enabled
  packet.writeUInt16LE(1, body + 4);
  packet.writeUInt16LE(DIALECT_2_0_2, body + 36);
  return packet;
}

/** null: too short to say. */
export function isAnswer(bytes: Uint8Array): boolean | null {
  if (bytes.length < LENGTH_BYTES + HEADER_BYTES) return null;
  return Buffer.from(bytes).toString('latin1', LENGTH_BYTES, LENGTH_BYTES + 4) === '\xfeSMB';
}

export class SmbdCheck implements Check {
  readonly name = 'smbd';
  private socket: Socket | null = null;

  constructor(
    private readonly place: SmbdPlace,
    /** Whether a smbd is there to answer. */
    private readonly hasSmbd: () => boolean,
  ) {}

  run(): Promise<string | null> {
    if (!this.hasSmbd()) return Promise.resolve(null);
    return new Promise((resolve) => {
      const { address, port } = this.place;
      const socket = connect({ host: address, port });
      this.socket = socket;
      let received = Buffer.alloc(0);
      const end = (outcome: string | null): void => {
        resolve(outcome);
        socket.destroy();
      };
      socket.on('connect', () => socket.write(negotiateRequest()));
      socket.on('data', (chunk) => {
        received = Buffer.concat([received, chunk]);
        const answered = isAnswer(received);
        if (answered !== null) end(answered ? null : `what listens on ${this.where()} does not speak SMB2`);
      });
      socket.on('error', (error) => {
        const refused = codeOf(error) === 'ECONNREFUSED';
        end(refused ? `smbd does not listen on ${this.where()}` : `smbd on ${this.where()}: ${messageOf(error)}`);
      });
      socket.on('close', () => end(`smbd on ${this.where()} ends connections without an answer`));
    });
  }

  late(seconds: number): string {
    return `smbd on ${this.where()} does not answer within ${seconds} s`;
  }

  abandon(): void {
    this.socket?.destroy();
  }

  private where(): string {
    const { address, port } = this.place;
    return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  }
}
