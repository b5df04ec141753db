/**
 * Records inside CTDB packets: the rows of a traversal (one per message) and the marshalled rows of a persistent
 * commit. A row's value is as stored: 24 bytes of header, then the payload.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';

/** Fixed part of a row: length, request id, key length, value length. */
const ROW_HEADER_BYTES = 16;
/** A commit of more rows than this is refused; the largest seen from Samba is a registry import of a few thousand. */
export const MARSHALLED_ROWS_MAX = 1_000_000;
/** Bytes of the header in front of every stored payload. */
export const STORED_HEADER_BYTES = 24;

export interface CtdbRow {
  requestId: number;
  key: Uint8Array;
  /** With its 24-byte header. */
  value: Uint8Array;
}

export interface MarshalledRows {
  database: number;
  rows: CtdbRow[];
}

export function encodeRow(row: CtdbRow): Uint8Array {
  const writer = new ByteWriter(ROW_HEADER_BYTES + row.key.length + row.value.length);
  writeRow(writer, row);
  return writer.finish();
}

function writeRow(writer: ByteWriter, row: CtdbRow): void {
  writer.u32(ROW_HEADER_BYTES + row.key.length + row.value.length).u32(row.requestId);
  writer.u32(row.key.length).u32(row.value.length).raw(row.key).raw(row.value);
}

function readRow(reader: ByteReader): CtdbRow {
  const length = reader.u32();
  const requestId = reader.u32();
  const keyBytes = reader.u32();
  const valueBytes = reader.u32();
  if (length !== ROW_HEADER_BYTES + keyBytes + valueBytes) throw new DecodeError('row-length');
  return { requestId, key: reader.copy(keyBytes), value: reader.copy(valueBytes) };
}

/** One row of a traversal; key and value are copies. Throws DecodeError. */
export function decodeRow(bytes: Uint8Array): CtdbRow {
  const reader = new ByteReader(bytes);
  const row = readRow(reader);
  reader.end();
  return row;
}

/** The message that ends a traversal. */
export function endOfRows(requestId: number): CtdbRow {
  return { requestId, key: new Uint8Array(0), value: new Uint8Array(0) };
}

export function encodeMarshalled(marshalled: MarshalledRows): Uint8Array {
  const writer = new ByteWriter(1024);
  writer.u32(marshalled.database).u32(marshalled.rows.length);
  for (const row of marshalled.rows) writeRow(writer, row);
  return writer.finish();
}

/** Rows of a commit; keys and values are copies. Throws DecodeError. */
export function decodeMarshalled(bytes: Uint8Array): MarshalledRows {
  const reader = new ByteReader(bytes);
  const database = reader.u32();
  const count = reader.u32();
  if (count > MARSHALLED_ROWS_MAX) throw new DecodeError('too-many-rows', String(count));
  const rows: CtdbRow[] = [];
  for (let i = 0; i < count; i++) {
    const row = readRow(reader);
    if (row.value.length < STORED_HEADER_BYTES) throw new DecodeError('row-without-header');
    rows.push(row);
  }
  reader.end();
  return { database, rows };
}

/** What SCHEDULE_FOR_DELETION carries: database, 4 pad, header 24, key length, key. Throws DecodeError. */
export function decodeScheduleForDeletion(bytes: Uint8Array): {
  database: number;
  header: Uint8Array;
  key: Uint8Array;
} {
  const reader = new ByteReader(bytes);
  const database = reader.u32();
  reader.skip(4);
  const header = reader.view8(STORED_HEADER_BYTES);
  const key = reader.view8(reader.u32());
  return { database, header, key };
}

export function encodeScheduleForDeletion(database: number, header: Uint8Array, key: Uint8Array): Uint8Array {
  const writer = new ByteWriter(40 + key.length);
  return writer.u32(database).u32(0).raw(header).u32(key.length).raw(key).finish();
}
