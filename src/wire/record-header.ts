/**
 * The 24-byte header before every record's payload in a tdb that smbd opens in clustered mode (Samba's
 * ctdb/include/ctdb_protocol.h, struct ctdb_ltdb_header): u64 rsn, u32 dmaster, u32 reserved, u32 flags, 4 bytes
 * padding, little endian. smbd writes it back as it found it.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';

export const RECORD_HEADER_BYTES = 24;

/** The owner has given read copies: local writers must ask first. */
export const FLAG_HAVE_DELEGATIONS = 0x0100_0000;
/** This is a read copy of a record owned elsewhere. */
export const FLAG_HAVE_READONLY = 0x0200_0000;

export interface RecordHeader {
  rsn: number;
  dmaster: number;
  flags: number;
}

export function encodeRecordHeader(header: RecordHeader): Uint8Array {
  return new ByteWriter(RECORD_HEADER_BYTES)
    .u53(header.rsn)
    .u32(header.dmaster)
    .u32(0)
    .u32(header.flags)
    .u32(0)
    .finish();
}

/** Overwrites the header at the start of a stored value. */
export function writeRecordHeader(value: Uint8Array, { rsn, dmaster, flags }: RecordHeader): void {
  put32(value, 0, rsn % 0x1_0000_0000);
  put32(value, 4, Math.floor(rsn / 0x1_0000_0000));
  put32(value, 8, dmaster);
  put32(value, 12, 0);
  put32(value, 16, flags);
  put32(value, 20, 0);
}

function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** A whole stored value: header and payload. */
export function encodeRecord(header: RecordHeader, data: Uint8Array): Uint8Array {
  const value = new Uint8Array(RECORD_HEADER_BYTES + data.length);
  value.set(encodeRecordHeader(header));
  value.set(data, RECORD_HEADER_BYTES);
  return value;
}

/** Throws DecodeError when the value is shorter than a header or its rsn is beyond 2^53 - 1. */
export function decodeRecordHeader(value: Uint8Array): RecordHeader {
  if (value.length < RECORD_HEADER_BYTES) throw new DecodeError('short-record', `${value.length} bytes`);
  const reader = new ByteReader(value);
  const rsn = reader.u53();
  const dmaster = reader.u32();
  reader.skip(4);
  return { rsn, dmaster, flags: reader.u32() };
}
