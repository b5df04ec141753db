/**
 * Packets of the CTDB client protocol, version 1, as spoken by Samba 4.17 over a unix socket: little endian, C layout
 * of x86-64. Both directions: the gate decodes requests and encodes answers, tests and tools do the opposite. Knows
 * layouts only; what a packet means is decided in core/gate. Decoding never reads past the packet and never allocates
 * more than it.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';

export const CTDB_MAGIC = 0x43544442;
export const CTDB_VERSION = 1;
/** Bytes of the header every packet starts with. */
export const CTDB_HEADER_BYTES = 32;
/** The daemon pads what it sends to a multiple of this; clients do not. */
export const CTDB_ALIGNMENT_BYTES = 8;
/** The largest packet accepted from a client. A persistent commit of a big import is the largest thing smbd sends. */
export const CTDB_PACKET_BYTES_MAX = 64 * 1024 * 1024;

export const OPERATION = {
  requestCall: 0,
  replyCall: 1,
  replyError: 4,
  requestMessage: 5,
  requestControl: 7,
  replyControl: 8,
} as const;

/** Values of `destination` that are not a server's number. */
export const DESTINATION = {
  current: 0xf0000001,
  all: 0xf0000002,
  active: 0xf0000003,
  connected: 0xf0000004,
} as const;

export const CALL_ID = { migrate: 0xff000001, fetch: 0xff000002, fetchWithHeader: 0xff000003 } as const;
export const CALL_FLAG = { immediateMigration: 1, wantReadonly: 4 } as const;
export const CONTROL_FLAG = { noReply: 1 } as const;

/** Message addresses with a fixed meaning. */
export const SRVID = {
  /** Handlers registered for this get every message of the node. */
  all: 0xffff_ffff_ffff_ffffn,
  reconfigure: 0xf200_0000_0000_0000n,
  releaseIp: 0xf300_0000_0000_0000n,
  takeIp: 0xf301_0000_0000_0000n,
  leader: 0xf101_0000_0000_0000n,
  takeoverRun: 0xfb00_0000_0000_0000n,
  sambaNotify: 0xfe00_0000_0000_0000n,
  sambaNotifyProxy: 0xfe00_0000_0000_0001n,
  sambaProcess: 0xfe00_0000_0000_0002n,
} as const;

export interface CtdbHeader {
  generation: number;
  destination: number;
  source: number;
  requestId: number;
}

export type CtdbBody =
  | {
      kind: 'request-call';
      flags: number;
      database: number;
      callId: number;
      hopCount: number;
      key: Uint8Array;
      data: Uint8Array;
    }
  | { kind: 'reply-call'; status: number; data: Uint8Array }
  | { kind: 'reply-error'; status: number; message: string }
  | { kind: 'message'; srvid: bigint; data: Uint8Array }
  | { kind: 'request-control'; opcode: number; srvid: bigint; clientId: number; flags: number; data: Uint8Array }
  | { kind: 'reply-control'; status: number; data: Uint8Array; error: string };

export type CtdbPacket = CtdbHeader & CtdbBody;
export type CtdbKind = CtdbBody['kind'];
export type CtdbPacketOf<Kind extends CtdbKind> = CtdbHeader & Extract<CtdbBody, { kind: Kind }>;

const OPERATION_OF: Record<CtdbKind, number> = {
  'request-call': OPERATION.requestCall,
  'reply-call': OPERATION.replyCall,
  'reply-error': OPERATION.replyError,
  message: OPERATION.requestMessage,
  'request-control': OPERATION.requestControl,
  'reply-control': OPERATION.replyControl,
};

/** The header fields that a refusal needs; null when the packet is not even a header of this protocol. */
export function peekHeader(packet: Uint8Array): { operation: number; requestId: number } | null {
  if (packet.length < CTDB_HEADER_BYTES) return null;
  const reader = new ByteReader(packet);
  reader.skip(4);
  if (reader.u32() !== CTDB_MAGIC || reader.u32() !== CTDB_VERSION) return null;
  reader.skip(4);
  const operation = reader.u32();
  reader.skip(8);
  return { operation, requestId: reader.u32() };
}

/**
 * Decodes one whole packet. Byte fields are views into `packet`. Bytes behind the payload are padding and ignored, as
 * both sides of the protocol produce them. Throws DecodeError.
 */
export function decodeCtdbPacket(packet: Uint8Array): CtdbPacket {
  const reader = new ByteReader(packet);
  const length = reader.u32();
  if (reader.u32() !== CTDB_MAGIC) throw new DecodeError('bad-magic');
  if (reader.u32() !== CTDB_VERSION) throw new DecodeError('bad-version');
  if (length !== packet.length) throw new DecodeError('wrong-length', `${length} said, ${packet.length} came`);
  const generation = reader.u32();
  const operation = reader.u32();
  const destination = reader.u32();
  const source = reader.u32();
  const requestId = reader.u32();
  return decodeBody(operation, { generation, destination, source, requestId }, reader);
}

// Written out, not spread: smbd waits for the answer, and spreading objects is an order of magnitude slower.
function decodeBody(operation: number, header: CtdbHeader, reader: ByteReader): CtdbPacket {
  const { generation, destination, source, requestId } = header;
  switch (operation) {
    case OPERATION.requestCall: {
      const flags = reader.u32();
      const database = reader.u32();
      const callId = reader.u32();
      const hopCount = reader.u32();
      const keyBytes = reader.u32();
      const dataBytes = reader.u32();
      const key = reader.view8(keyBytes);
      const data = reader.view8(dataBytes);
      return {
        generation, destination, source, requestId,
        kind: 'request-call', flags, database, callId, hopCount, key, data,
      };
    }
    case OPERATION.replyCall: {
      const status = reader.u32();
      const data = reader.view8(reader.u32());
      return { generation, destination, source, requestId, kind: 'reply-call', status, data };
    }
    case OPERATION.replyError: {
      const status = reader.u32();
      const message = textOf(reader.view8(reader.u32()));
      return { generation, destination, source, requestId, kind: 'reply-error', status, message };
    }
    case OPERATION.requestMessage: {
      const srvid = reader.u64();
      const data = reader.view8(reader.u32());
      return { generation, destination, source, requestId, kind: 'message', srvid, data };
    }
    case OPERATION.requestControl: {
      const opcode = reader.u32();
      reader.skip(4);
      const srvid = reader.u64();
      const clientId = reader.u32();
      const flags = reader.u32();
      const data = reader.view8(reader.u32());
      return {
        generation, destination, source, requestId,
        kind: 'request-control', opcode, srvid, clientId, flags, data,
      };
    }
    case OPERATION.replyControl: {
      const status = reader.i32();
      const dataBytes = reader.u32();
      const errorBytes = reader.u32();
      const data = reader.view8(dataBytes);
      const error = textOf(reader.view8(errorBytes));
      return { generation, destination, source, requestId, kind: 'reply-control', status, data, error };
    }
    default:
      throw new DecodeError('unknown-operation', String(operation));
  }
}

/**
 * Encodes one packet. `padded` is what a daemon does (length a multiple of 8, zeros behind the payload); clients send
 * the bare length.
 */
export function encodeCtdbPacket(packet: CtdbPacket, padded: boolean): Uint8Array {
  return encodeCtdb(packet, packet, padded);
}

/** The same from a header and a body that need not be one object. */
export function encodeCtdb(header: CtdbHeader, body: CtdbBody, padded: boolean): Uint8Array {
  const writer = new ByteWriter(CTDB_HEADER_BYTES + 32 + payloadBytes(body));
  writer.u32(0).u32(CTDB_MAGIC).u32(CTDB_VERSION).u32(header.generation).u32(OPERATION_OF[body.kind]);
  writer.u32(header.destination).u32(header.source).u32(header.requestId);
  encodeBody(body, writer);
  if (padded) writer.zeros((CTDB_ALIGNMENT_BYTES - (writer.length % CTDB_ALIGNMENT_BYTES)) % CTDB_ALIGNMENT_BYTES);
  writer.patchU32(0, writer.length);
  return writer.finish();
}

function payloadBytes(packet: CtdbBody): number {
  return packet.kind === 'reply-error' ? packet.message.length : packet.data.length;
}

function encodeBody(packet: CtdbBody, writer: ByteWriter): void {
  switch (packet.kind) {
    case 'request-call':
      writer.u32(packet.flags).u32(packet.database).u32(packet.callId).u32(packet.hopCount);
      writer.u32(packet.key.length).u32(packet.data.length).raw(packet.key).raw(packet.data);
      return;
    case 'reply-call':
      writer.u32(packet.status).u32(packet.data.length).raw(packet.data);
      return;
    case 'reply-error': {
      const message = Buffer.from(`${packet.message}\0`, 'utf8');
      writer.u32(packet.status).u32(message.length).raw(message);
      return;
    }
    case 'message':
      writer.u64(packet.srvid).u32(packet.data.length).raw(packet.data);
      return;
    case 'request-control':
      writer.u32(packet.opcode).u32(0).u64(packet.srvid).u32(packet.clientId).u32(packet.flags);
      writer.u32(packet.data.length).raw(packet.data);
      return;
    case 'reply-control': {
      const error = Buffer.from(packet.error, 'utf8');
      writer.i32(packet.status).u32(packet.data.length).u32(error.length).raw(packet.data).raw(error);
      return;
    }
  }
}

/** Text up to a NUL or the end. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const text = end < 0 ? bytes : bytes.subarray(0, end);
  return Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString('utf8');
}

/** A name as the protocol carries it: text with one closing NUL. */
export function nameBytes(name: string): Uint8Array {
  return Buffer.from(`${name}\0`, 'utf8');
}
