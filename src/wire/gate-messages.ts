/**
 * Messages between the gates of two servers (types 32 to 63): forwarded packets of local processes, who lives where,
 * which databases exist, and traversals. They travel in order, whole and authentic (core/link); the frame below carries
 * epoch and incarnation. Decoding throws DecodeError and allocates nothing beyond the message.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { DatabaseId } from '../base/ids.js';
import { databaseId } from '../base/ids.js';
import type { ServerId } from './samba-messages.js';
import { readServerId, writeServerId } from './samba-messages.js';
import { decodeTyped, kindsByType } from './typed-message.js';

/** The types of this file, for routing a message by its first byte. */
export const GATE_MESSAGE_TYPE_MIN = 32;
export const GATE_MESSAGE_TYPE_MAX = 63;

export type DatabaseKind = 'volatile' | 'persistent' | 'replicated';
const DATABASE_KINDS: readonly DatabaseKind[] = ['volatile', 'persistent', 'replicated'];

/** What happened to a process of the sender: it came or went, or it holds (no longer holds) a message address. */
export interface ProcessChange {
  what: 'came' | 'went' | 'holds' | 'dropped';
  pid: number;
  /** For 'holds' and 'dropped'. */
  srvid: bigint;
}
const CHANGES: readonly ProcessChange['what'][] = ['came', 'went', 'holds', 'dropped'];

export interface ProcessEntry {
  pid: number;
  srvids: bigint[];
}

export interface GateRow {
  key: Uint8Array;
  /** The payload without its header. */
  data: Uint8Array;
}

export type GateMessage =
  /** To every process of the receiver registered for `srvid`. */
  | { kind: 'message'; srvid: bigint; data: Uint8Array }
  | { kind: 'process-changes'; changes: ProcessChange[] }
  /** All processes of the sender, in parts; the first part replaces what the receiver knew. */
  | { kind: 'process-list'; first: boolean; last: boolean; processes: ProcessEntry[] }
  | { kind: 'database'; database: DatabaseId; type: DatabaseKind; readonly: boolean; name: string }
  /** A control of a process of the sender, to be performed by the receiver. `number` is echoed by the answer. */
  | { kind: 'control'; number: number; opcode: number; srvid: bigint; flags: number; data: Uint8Array }
  | { kind: 'control-answer'; number: number; status: number; data: Uint8Array; error: string }
  /** Send me your records of a database, a batch for each 'traverse-more'. */
  | { kind: 'traverse-start'; number: number; database: DatabaseId }
  | { kind: 'traverse-more'; number: number }
  | { kind: 'traverse-rows'; number: number; last: boolean; rows: GateRow[] }
  | { kind: 'traverse-cancel'; number: number }
  /** Which release of Samba the sender's server has, as "4.17". */
  | { kind: 'release'; samba: string }
  /** The notifyd of the sender's server; null: none runs. */
  | { kind: 'notifyd'; id: ServerId | null };

const TYPES = {
  message: 32,
  'process-changes': 33,
  'process-list': 34,
  database: 35,
  control: 36,
  'control-answer': 37,
  'traverse-start': 38,
  'traverse-more': 39,
  'traverse-rows': 40,
  'traverse-cancel': 41,
  release: 42,
  notifyd: 43,
} as const satisfies Record<GateMessage['kind'], number>;

/** What one process says to another. */
export const GATE_MESSAGE_TYPE_OF_PROCESSES = TYPES.message;

const KINDS = kindsByType(TYPES);

export function encodeGateMessage(message: GateMessage): Uint8Array {
  const writer = new ByteWriter('data' in message ? 64 + message.data.length : 256);
  writer.u8(TYPES[message.kind]);
  switch (message.kind) {
    case 'message':
      writer.u64(message.srvid).raw(message.data);
      break;
    case 'process-changes':
      writer.u32(message.changes.length);
      for (const change of message.changes) {
        writer.u8(CHANGES.indexOf(change.what)).i32(change.pid).u64(change.srvid);
      }
      break;
    case 'process-list':
      writer.u8((message.first ? 1 : 0) | (message.last ? 2 : 0)).u32(message.processes.length);
      for (const { pid, srvids } of message.processes) {
        writer.i32(pid).u32(srvids.length);
        for (const srvid of srvids) writer.u64(srvid);
      }
      break;
    case 'database':
      writer.u32(message.database).u8(DATABASE_KINDS.indexOf(message.type)).u8(message.readonly ? 1 : 0);
      writer.raw(Buffer.from(message.name, 'utf8'));
      break;
    case 'control':
      writer.u53(message.number).u32(message.opcode).u64(message.srvid).u32(message.flags).raw(message.data);
      break;
    case 'control-answer':
      writer.u53(message.number).i32(message.status).u32(message.data.length).raw(message.data);
      writer.raw(Buffer.from(message.error, 'utf8'));
      break;
    case 'traverse-start':
      writer.u53(message.number).u32(message.database);
      break;
    case 'traverse-more':
    case 'traverse-cancel':
      writer.u53(message.number);
      break;
    case 'traverse-rows':
      writer.u53(message.number).u8(message.last ? 1 : 0).u32(message.rows.length);
      for (const { key, data } of message.rows) writer.u32(key.length).u32(data.length).raw(key).raw(data);
      break;
    case 'release':
      writer.raw(Buffer.from(message.samba, 'utf8'));
      break;
    case 'notifyd':
      if (message.id !== null) writeServerId(writer, message.id);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError. Byte fields are copies; the source may be reused afterwards. */
export function decodeGateMessage(bytes: Uint8Array): GateMessage {
  return decodeTyped(bytes, KINDS, readBody);
}

function readBody(reader: ByteReader, kind: GateMessage['kind']): GateMessage {
  switch (kind) {
    case 'message':
      return { kind, srvid: reader.u64(), data: reader.copy(reader.remaining) };
    case 'process-changes':
      return { kind, changes: readList(reader, 13, () => readChange(reader)) };
    case 'process-list': {
      const flags = readFlags(reader, 3);
      const processes = readList(reader, 8, () => ({
        pid: reader.i32(),
        srvids: readList(reader, 8, () => reader.u64()),
      }));
      return { kind, first: (flags & 1) !== 0, last: (flags & 2) !== 0, processes };
    }
    case 'database': {
      const database = databaseId(reader.u32());
      const type = DATABASE_KINDS[reader.u8()];
      if (type === undefined) throw new DecodeError('unknown-database-kind');
      const readonly = readFlags(reader, 1) !== 0;
      return { kind, database, type, readonly, name: readText(reader) };
    }
    case 'control': {
      const number = reader.u53();
      const opcode = reader.u32();
      const srvid = reader.u64();
      return { kind, number, opcode, srvid, flags: reader.u32(), data: reader.copy(reader.remaining) };
    }
    case 'control-answer': {
      const number = reader.u53();
      const status = reader.i32();
      const data = reader.copy(reader.u32());
      return { kind, number, status, data, error: readText(reader) };
    }
    case 'traverse-start':
      return { kind, number: reader.u53(), database: databaseId(reader.u32()) };
    case 'traverse-more':
    case 'traverse-cancel':
      return { kind, number: reader.u53() };
    case 'traverse-rows': {
      const number = reader.u53();
      const last = readFlags(reader, 1) !== 0;
      const rows = readList(reader, 8, () => {
        const keyBytes = reader.u32();
        const dataBytes = reader.u32();
        return { key: reader.copy(keyBytes), data: reader.copy(dataBytes) };
      });
      return { kind, number, last, rows };
    }
    case 'release':
      return { kind, samba: readText(reader) };
    case 'notifyd':
      return { kind, id: reader.remaining === 0 ? null : readServerId(reader) };
  }
}

function readChange(reader: ByteReader): ProcessChange {
  const what = CHANGES[reader.u8()];
  if (what === undefined) throw new DecodeError('unknown-change');
  return { what, pid: reader.i32(), srvid: reader.u64() };
}

function readFlags(reader: ByteReader, known: number): number {
  const flags = reader.u8();
  if ((flags & ~known) !== 0) throw new DecodeError('unknown-flags');
  return flags;
}

function readText(reader: ByteReader): string {
  return Buffer.from(reader.copy(reader.remaining)).toString('utf8');
}

/** Refuses a count that the bytes left cannot hold, so that nothing is allocated for a lie. */
function readList<T>(reader: ByteReader, entryBytesMin: number, read: () => T): T[] {
  const count = reader.u32();
  if (count * entryBytesMin > reader.remaining) throw new DecodeError('truncated', `${count} entries`);
  const list: T[] = [];
  for (let i = 0; i < count; i++) list.push(read());
  return list;
}
