/**
 * What tells one state of a persistent database from another: Samba's sequence number, kept in a row of the database
 * and raised by one with each commit, and the term of the leader that ordered the last commit, which we keep in the
 * unused word of that row's header (smbd carries it along, the leader overwrites it). Pure functions over rows.
 */
import { ByteWriter } from '../base/bytes.js';
import { RECORD_HEADER_BYTES } from './record-header.js';

/** The key of the row, with its NUL, as Samba stores it. */
export const SEQUENCE_KEY: Uint8Array = Buffer.from('__db_sequence_number__\0', 'latin1');
/** Where the term lies in the row's value: the header's reserved word. */
const TERM_OFFSET = 12;
const SEQUENCE_ROW_BYTES = RECORD_HEADER_BYTES + 8;

export interface Row {
  key: Uint8Array;
  /** With its 24-byte header. */
  value: Uint8Array;
}

/** States of one database are ordered by term, then by sequence number. One version has one content. */
export interface Version {
  term: number;
  sequence: number;
}

export const VERSION_ZERO: Version = { term: 0, sequence: 0 };

export function compareVersions(a: Version, b: Version): number {
  return a.term - b.term || a.sequence - b.sequence;
}

export function sameVersion(a: Version | null | undefined, b: Version | null | undefined): boolean {
  return a != null && b != null && a.term === b.term && a.sequence === b.sequence;
}

export function isSequenceKey(key: Uint8Array): boolean {
  return Buffer.compare(key, SEQUENCE_KEY) === 0;
}

/** The last sequence row among the rows, or null. Later rows of a commit overwrite earlier ones. */
function sequenceRowOf(rows: readonly Row[]): Row | null {
  for (let i = rows.length - 1; i >= 0; i--) {
    const row = rows[i];
    if (row !== undefined && isSequenceKey(row.key)) return row;
  }
  return null;
}

/** The version that these rows carry; null when they have no sequence row that can be read. */
export function versionOf(rows: readonly Row[]): Version | null {
  const value = sequenceRowOf(rows)?.value;
  if (value === undefined || value.length !== SEQUENCE_ROW_BYTES) return null;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const sequence = view.getBigUint64(RECORD_HEADER_BYTES, true);
  if (sequence > BigInt(Number.MAX_SAFE_INTEGER)) return null;
  return { term: view.getUint32(TERM_OFFSET, true), sequence: Number(sequence) };
}

/** A sequence row that carries the version. `rsn` and `dmaster` as smbd would write them. */
export function sequenceRow(version: Version, dmaster: number): Row {
  const writer = new ByteWriter(SEQUENCE_ROW_BYTES);
  writer.u53(version.sequence).u32(dmaster).u32(version.term).u32(0).u32(0).u53(version.sequence);
  return { key: SEQUENCE_KEY, value: writer.finish() };
}

/** The rows of a commit with the leader's term written into their sequence row. */
export function stampRows(rows: readonly Row[], term: number): Row[] {
  const stamped = sequenceRowOf(rows);
  return rows.map((row) => {
    if (row !== stamped) return row;
    const value = Uint8Array.prototype.slice.call(row.value);
    new DataView(value.buffer, value.byteOffset, value.byteLength).setUint32(TERM_OFFSET, term, true);
    return { key: row.key, value };
  });
}

/** Whether `stored` contains all that the commit `rows` would have written, apart from headers' terms. */
export function containsRows(stored: readonly Row[], rows: readonly Row[]): boolean {
  const byKey = new Map(stored.map((row) => [Buffer.from(row.key).toString('latin1'), row.value]));
  const last = new Map(rows.map((row) => [Buffer.from(row.key).toString('latin1'), row]));
  for (const [key, row] of last) {
    const value = byKey.get(key);
    if (value === undefined) return false;
    const from = isSequenceKey(row.key) ? RECORD_HEADER_BYTES : 0;
    if (Buffer.compare(value.subarray(from), row.value.subarray(from)) !== 0) return false;
  }
  return true;
}
