/**
 * Messages by which servers keep persistent databases the same (types 64 to 95). The leader orders; members apply. Rows
 * carry their 24-byte headers. They travel in order, whole and authentic (core/link); the frame below carries epoch and
 * incarnation. Decoding throws DecodeError and allocates nothing beyond the message.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { DatabaseId } from '../base/ids.js';
import { databaseId } from '../base/ids.js';
import { RECORD_HEADER_BYTES } from './record-header.js';
import type { Row, Version } from './persistent-rows.js';
import { decodeTyped, kindsByType } from './typed-message.js';

/** The types of this file, for routing a message by its first byte. */
export const PERSISTENT_MESSAGE_TYPE_MIN = 64;
export const PERSISTENT_MESSAGE_TYPE_MAX = 95;

export type PersistentMessage =
  /** Origin to leader: commit these rows; `number` is echoed by 'commit-done'. */
  | { kind: 'commit'; database: DatabaseId; number: number; rows: Row[] }
  /** Leader to origin. `refusal` empty: done. */
  | { kind: 'commit-done'; database: DatabaseId; number: number; refusal: string }
  /** Leader to member: say which version you have. */
  | { kind: 'query'; database: DatabaseId }
  /** Member to leader: what the member has now; also the answer to 'apply' and 'replace'. `failed`: it was not done. */
  | { kind: 'version'; database: DatabaseId; version: Version; failed: string }
  /** Leader to member: if you have `previous`, apply the rows, which makes `version`. */
  | { kind: 'apply'; database: DatabaseId; previous: Version; version: Version; rows: Row[] }
  /** Leader to member: send me all you have. */
  | { kind: 'fetch'; database: DatabaseId }
  | { kind: 'content'; database: DatabaseId; rows: Row[]; failed: string }
  /** Leader to member: hold exactly these rows, whatever you have. */
  | { kind: 'replace'; database: DatabaseId; version: Version; rows: Row[] }
  /** Leader to member: a majority has this version, and you do. */
  | { kind: 'in-sync'; database: DatabaseId; version: Version }
  /** A part of a message that is too large for one. */
  | { kind: 'fragment'; transfer: number; index: number; count: number; bytes: Uint8Array };

const TYPES = {
  commit: 64,
  'commit-done': 65,
  query: 66,
  version: 67,
  apply: 68,
  fetch: 69,
  content: 70,
  replace: 71,
  'in-sync': 72,
  fragment: 73,
} as const satisfies Record<PersistentMessage['kind'], number>;

const KINDS = kindsByType(TYPES);

export function encodePersistentMessage(message: PersistentMessage): Uint8Array {
  const writer = new ByteWriter(message.kind === 'fragment' ? 32 + message.bytes.length : 256);
  writer.u8(TYPES[message.kind]);
  if (message.kind !== 'fragment') writer.u32(message.database);
  switch (message.kind) {
    case 'commit':
      writeRows(writer.u53(message.number), message.rows);
      break;
    case 'commit-done':
      writeText(writer.u53(message.number), message.refusal);
      break;
    case 'query':
    case 'fetch':
      break;
    case 'version':
      writeText(writeVersion(writer, message.version), message.failed);
      break;
    case 'apply':
      writeRows(writeVersion(writeVersion(writer, message.previous), message.version), message.rows);
      break;
    case 'content':
      writeText(writeRows(writer, message.rows), message.failed);
      break;
    case 'replace':
      writeRows(writeVersion(writer, message.version), message.rows);
      break;
    case 'in-sync':
      writeVersion(writer, message.version);
      break;
    case 'fragment':
      writer.u53(message.transfer).u32(message.index).u32(message.count).raw(message.bytes);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError. Byte fields are copies; the source may be reused afterwards. */
export function decodePersistentMessage(bytes: Uint8Array): PersistentMessage {
  return decodeTyped(bytes, KINDS, (reader, kind) =>
    kind === 'fragment' ? readFragment(reader) : readBody(reader, kind, databaseId(reader.u32())),
  );
}

function readBody(
  reader: ByteReader,
  kind: Exclude<PersistentMessage['kind'], 'fragment'>,
  database: DatabaseId,
): PersistentMessage {
  switch (kind) {
    case 'commit':
      return { kind, database, number: reader.u53(), rows: readRows(reader) };
    case 'commit-done':
      return { kind, database, number: reader.u53(), refusal: readText(reader) };
    case 'query':
    case 'fetch':
      return { kind, database };
    case 'version':
      return { kind, database, version: readVersion(reader), failed: readText(reader) };
    case 'apply':
      return {
        kind,
        database,
        previous: readVersion(reader),
        version: readVersion(reader),
        rows: readRows(reader),
      };
    case 'content':
      return { kind, database, rows: readRows(reader), failed: readText(reader) };
    case 'replace':
      return { kind, database, version: readVersion(reader), rows: readRows(reader) };
    case 'in-sync':
      return { kind, database, version: readVersion(reader) };
  }
}

function readFragment(reader: ByteReader): PersistentMessage {
  const transfer = reader.u53();
  const index = reader.u32();
  const count = reader.u32();
  if (index >= count) throw new DecodeError('fragment-index');
  return { kind: 'fragment', transfer, index, count, bytes: reader.copy(reader.remaining) };
}

function writeVersion(writer: ByteWriter, version: Version): ByteWriter {
  return writer.u32(version.term).u53(version.sequence);
}

function readVersion(reader: ByteReader): Version {
  return { term: reader.u32(), sequence: reader.u53() };
}

function writeText(writer: ByteWriter, text: string): ByteWriter {
  const bytes = Buffer.from(text, 'utf8');
  return writer.u32(bytes.length).raw(bytes);
}

function readText(reader: ByteReader): string {
  return Buffer.from(reader.copy(reader.u32())).toString('utf8');
}

function writeRows(writer: ByteWriter, rows: readonly Row[]): ByteWriter {
  writer.u32(rows.length);
  for (const { key, value } of rows) writer.u32(key.length).u32(value.length).raw(key).raw(value);
  return writer;
}

function readRows(reader: ByteReader): Row[] {
  const count = reader.u32();
  if (count * (8 + RECORD_HEADER_BYTES) > reader.remaining) throw new DecodeError('truncated', `${count} rows`);
  const rows: Row[] = [];
  for (let i = 0; i < count; i++) {
    const keyBytes = reader.u32();
    const valueBytes = reader.u32();
    if (valueBytes < RECORD_HEADER_BYTES) throw new DecodeError('row-without-header');
    rows.push({ key: reader.copy(keyBytes), value: reader.copy(valueBytes) });
  }
  return rows;
}
