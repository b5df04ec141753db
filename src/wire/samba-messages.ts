/**
 * What Samba's processes say to each other in messages, as far as the daemon takes part: the header of a message, and
 * what notifyds tell each other of watched folders (Samba: librpc/idl/messaging.idl, source3/smbd/notifyd/notifyd.h).
 * Layouts of 4.17 and 4.22 on x86-64. Decoding throws DecodeError.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';

/** Bytes before the payload of each message. */
export const SAMBA_HEADER_BYTES = 52;
const SERVER_ID_BYTES = 24;

export const SAMBA_MESSAGE = {
  ping: 0x0002,
  pong: 0x0003,
  /** A change in a watched folder; to the process whose client watches. */
  pvfsNotify: 0x0310,
  /** A client begins or ends to watch a folder; to the notifyd of its server. */
  notifyRecChange: 0x031a,
  notifyGetDb: 0x031c,
  /** All watches of the sender: the index of its next log (8 bytes), then its database. */
  notifyDb: 0x031d,
  /** A log of notifyRecChange; to all notifyds. */
  notifyRecChanges: 0x031e,
} as const;

/** struct server_id: one process of the pool. */
export interface ServerId {
  pid: bigint;
  task: number;
  vnn: number;
  /** Drawn at random by each process. */
  unique: bigint;
}

export const NOBODY: ServerId = { pid: 0n, task: 0, vnn: 0, unique: 0n };

export interface SambaMessage {
  type: number;
  destination: ServerId;
  source: ServerId;
  payload: Uint8Array;
}

/** The body of notifyRecChange. Both filters 0: the watch ends. */
export interface WatchChange {
  /** CLOCK_MONOTONIC of the process; 16 bytes, seconds and nanoseconds. */
  since: Uint8Array;
  filter: number;
  /** For what happens below, 0 when the watch is not recursive. */
  subdirFilter: number;
  /** smbd's name of the handle: a pointer of the watching process. */
  handle: bigint;
  /** The folder's path on the server, as bytes without the final 0. */
  folder: Uint8Array;
}

/** A message as it lies in a log. */
export interface LoggedMessage extends SambaMessage {
  version: number;
}

export interface MessageLog {
  index: bigint;
  messages: LoggedMessage[];
}

export function sameServerId(a: ServerId, b: ServerId): boolean {
  return a.pid === b.pid && a.task === b.task && a.vnn === b.vnn && a.unique === b.unique;
}

/** Throws DecodeError. */
export function readServerId(reader: ByteReader): ServerId {
  return { pid: reader.u64(), task: reader.u32(), vnn: reader.u32(), unique: reader.u64() };
}

export function writeServerId(writer: ByteWriter, { pid, task, vnn, unique }: ServerId): ByteWriter {
  return writer.u64(pid).u32(task).u32(vnn).u64(unique);
}

/** The type of a message without decoding it; null when it is too short to be one. */
export function sambaMessageType(bytes: Uint8Array): number | null {
  if (bytes.length < SAMBA_HEADER_BYTES) return null;
  return new ByteReader(bytes.subarray(2 * SERVER_ID_BYTES)).u32();
}

/** Throws DecodeError. The payload is a view. */
export function decodeSambaMessage(bytes: Uint8Array): SambaMessage {
  const reader = new ByteReader(bytes);
  const destination = readServerId(reader);
  const source = readServerId(reader);
  const type = reader.u32();
  return { type, destination, source, payload: reader.view8(reader.remaining) };
}

export function encodeSambaMessage({ type, destination, source, payload }: SambaMessage): Uint8Array {
  const writer = new ByteWriter(SAMBA_HEADER_BYTES + payload.length);
  writeServerId(writer, destination);
  writeServerId(writer, source);
  return writer.u32(type).raw(payload).finish();
}

/** The body of notifyRecChange. Throws DecodeError. */
export function decodeWatchChange(bytes: Uint8Array): WatchChange {
  const reader = new ByteReader(bytes);
  const since = reader.copy(16);
  const [filter, subdirFilter] = [reader.u32(), reader.u32()];
  const handle = reader.u64();
  if (reader.remaining === 0) throw new DecodeError('truncated', 'a watch without a folder');
  const folder = reader.copy(reader.remaining - 1);
  if (reader.u8() !== 0) throw new DecodeError('unterminated');
  return { since, filter, subdirFilter, handle, folder };
}

export function encodeWatchChange({ since, filter, subdirFilter, handle, folder }: WatchChange): Uint8Array {
  const writer = new ByteWriter(33 + folder.length);
  return writer.raw(since).u32(filter).u32(subdirFilter).u64(handle).raw(folder).u8(0).finish();
}

const MESSAGE_VERSION = 2;
/** NDR numbers pointers so, the first from here, in steps of four; a reader only asks whether one is 0. */
const NDR_POINTER_FIRST = 0x0002_0000;
const NDR_POINTER_STEP = 4;
/** Least bytes of a message in a log: pointer, version, type, two server ids, length, number of descriptors. */
const LOGGED_BYTES_MIN = 4 + 4 + 4 + 2 * SERVER_ID_BYTES + 4 + 1;

/** The body of notifyRecChanges: messaging_reclog in NDR. Throws DecodeError. */
export function decodeMessageLog(bytes: Uint8Array): MessageLog {
  const reader = new ByteReader(bytes);
  const index = reader.u64();
  const count = reader.u32();
  if (count * LOGGED_BYTES_MIN > reader.remaining) throw new DecodeError('truncated', `${count} messages`);
  const pointers: number[] = [];
  for (let i = 0; i < count; i++) pointers.push(reader.u32());
  const messages: LoggedMessage[] = [];
  for (const pointer of pointers) if (pointer !== 0) messages.push(readLogged(reader));
  reader.end();
  return { index, messages };
}

function readLogged(reader: ByteReader): LoggedMessage {
  reader.skip(-reader.offset & 7);
  const version = reader.u32();
  const type = reader.u32();
  const destination = readServerId(reader);
  const source = readServerId(reader);
  const payload = reader.copy(reader.u32());
  if (reader.u8() !== 0) throw new DecodeError('descriptors-in-log');
  return { version, type, destination, source, payload };
}

export function encodeMessageLog({ index, messages }: MessageLog): Uint8Array {
  const writer = new ByteWriter(12 + messages.reduce((sum, { payload }) => sum + 80 + payload.length, 0));
  writer.u64(index).u32(messages.length);
  messages.forEach((_, i) => writer.u32(NDR_POINTER_FIRST + i * NDR_POINTER_STEP));
  for (const { version, type, destination, source, payload } of messages) {
    while (writer.length % 8 !== 0) writer.u8(0);
    writer.u32(version).u32(type);
    writeServerId(writer, destination);
    writeServerId(writer, source);
    writer.u32(payload.length).raw(payload).u8(0);
  }
  return writer.finish();
}

/** A message as smbd's messaging would have put it into a log. */
export function logged(message: SambaMessage): LoggedMessage {
  return { version: MESSAGE_VERSION, ...message };
}
