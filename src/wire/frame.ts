/**
 * The body of a frame between two servers: what lies inside the seal. Used by core/link only; the host seals and opens
 * bodies without looking inside. Layout (little endian), see docs/protocol.md:
 *
 *   0 u8  kind          1 hello, 2 heartbeat, 3 data, 4 ack
 *   1 u8  flags         bit 0: the sender of a hello wants an answer
 *   2 u16 window        frames the sender of this frame is ready to receive beyond what it acknowledges; never 0
 *   4 u32 stream        number of the sender's stream to this peer, from 1; a higher one starts again
 *   8 u53 epoch
 *  16 u53 toIncarnation the receiver's incarnation as the sender knows it; 0 when it does not
 *  24 u53 sequence      of a data frame in its stream, from 1; 0 in all others
 *  32 u32 ackStream     the stream that the acknowledgement is about; 0 before anything was received
 *  36 u16 records       number of records; 0 unless data
 *  38 u16 reserved      0
 *  40 u53 ack           every data frame up to here was received
 *  48 u64 ackMap        bit i: data frame ack + 1 + i was received too (bit 0 is therefore never set)
 *  56 data:  records {u32 word, bytes}; word: bits 0-23 length, bit 30 last part of a message, bit 31 first part
 *     hello, heartbeat: u53 sentAt, u53 echoOf, u32 echoHeldMicros, announcement (protocol-version.ts)
 *
 * All four kinds are fixed for ever: releases of all protocols exchange them before they know each other.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import type { Epoch, Incarnation } from '../base/ids.js';
import type { Announcement } from './protocol-version.js';
import { announcementBytes, readAnnouncement, writeAnnouncement } from './protocol-version.js';

/** Bytes before the records of a data frame. */
export const FRAME_HEADER_BYTES = 56;
/** Bytes before each record. */
export const RECORD_HEADER_BYTES = 4;
/** The acknowledgement map has a bit for each of so many frames; hence the largest useful window. */
export const ACK_MAP_BITS = 64;

const KIND_HELLO = 1;
const KIND_HEARTBEAT = 2;
const KIND_DATA = 3;
const KIND_ACK = 4;
const FLAG_ANSWER_WANTED = 1;
const RECORD_FIRST = 0x8000_0000;
const RECORD_LAST = 0x4000_0000;
const RECORD_RESERVED = 0x3f00_0000;
const RECORD_LENGTH = 0x00ff_ffff;

/** One message or a part of one. A whole message is first and last at once. */
export interface FrameRecord {
  first: boolean;
  last: boolean;
  bytes: Uint8Array;
}

/** What measures round trips. `echoOf` is the peer's newest `sentAt` and how long ago it came; 0 when none came yet. */
export interface FrameTimes {
  sentAt: number;
  echoOf: number;
  echoHeldMicros: number;
}

export interface FrameHeader {
  epoch: Epoch;
  toIncarnation: Incarnation;
  window: number;
  stream: number;
  ackStream: number;
  ack: number;
  /** Bits 0 to 31 of the map. */
  ackMapLow: number;
  /** Bits 32 to 63 of the map. */
  ackMapHigh: number;
}

export type FrameContent =
  | { kind: 'hello'; answerWanted: boolean; times: FrameTimes; announcement: Announcement }
  | { kind: 'heartbeat'; times: FrameTimes; announcement: Announcement }
  | { kind: 'data'; sequence: number; records: readonly FrameRecord[] }
  | { kind: 'ack' };

export type Frame = FrameHeader & FrameContent;

const kindNumbers = { hello: KIND_HELLO, heartbeat: KIND_HEARTBEAT, data: KIND_DATA, ack: KIND_ACK } as const;

const TIMES_BYTES = 20;

/** The bytes that a data frame with these records has. */
export function dataFrameBytes(records: readonly FrameRecord[]): number {
  let total = FRAME_HEADER_BYTES;
  for (const record of records) total += RECORD_HEADER_BYTES + record.bytes.length;
  return total;
}

/** The frame as bytes of its own; record bytes are copied. */
export function encodeFrame(header: FrameHeader, content: FrameContent): Uint8Array {
  const records = content.kind === 'data' ? content.records : [];
  const tells = content.kind === 'hello' || content.kind === 'heartbeat' ? content : null;
  const tellsBytes = tells === null ? 0 : TIMES_BYTES + announcementBytes(tells.announcement);
  const writer = new ByteWriter(dataFrameBytes(records) + tellsBytes);
  writer.u8(kindNumbers[content.kind]);
  writer.u8(content.kind === 'hello' && content.answerWanted ? FLAG_ANSWER_WANTED : 0);
  writer.u16(header.window).u32(header.stream).u53(header.epoch).u53(header.toIncarnation);
  writer.u53(content.kind === 'data' ? content.sequence : 0);
  writer.u32(header.ackStream).u16(records.length).u16(0).u53(header.ack);
  writer.u32(header.ackMapLow).u32(header.ackMapHigh);
  for (const record of records) {
    const word = record.bytes.length + (record.first ? RECORD_FIRST : 0) + (record.last ? RECORD_LAST : 0);
    writer.u32(word).raw(record.bytes);
  }
  if (tells !== null) {
    writer.u53(tells.times.sentAt).u53(tells.times.echoOf).u32(tells.times.echoHeldMicros);
    writeAnnouncement(writer, tells.announcement);
  }
  return writer.finish();
}

/**
 * Reads a frame. Record bytes are views of `body`, valid only as long as it is. Throws DecodeError for anything that
 * encodeFrame would not have made, but for announcements that say more than we know.
 */
export function decodeFrame(body: Uint8Array): Frame {
  const reader = new ByteReader(body);
  const kind = reader.u8();
  const flags = reader.u8();
  if (kind < KIND_HELLO || kind > KIND_ACK) throw new DecodeError('frame-kind', String(kind));
  const flagsKnown = kind === KIND_HELLO ? FLAG_ANSWER_WANTED : 0;
  if ((flags & ~flagsKnown) !== 0) throw new DecodeError('frame-flags', String(flags));
  const window = reader.u16();
  const stream = reader.u32();
  const epoch = reader.u53() as Epoch;
  const toIncarnation = reader.u53() as Incarnation;
  const sequence = reader.u53();
  const ackStream = reader.u32();
  const recordCount = reader.u16();
  if (reader.u16() !== 0) throw new DecodeError('frame-reserved');
  const ack = reader.u53();
  const ackMapLow = reader.u32();
  const ackMapHigh = reader.u32();
  if (window === 0) throw new DecodeError('frame-window');
  if (stream === 0) throw new DecodeError('frame-stream');
  if ((ackMapLow & 1) !== 0) throw new DecodeError('frame-ack-map');
  if ((kind === KIND_DATA) !== (sequence !== 0)) throw new DecodeError('frame-sequence');
  if ((kind === KIND_DATA) !== (recordCount !== 0)) throw new DecodeError('frame-record-count');
  // written out, not spread: this runs for every frame, and spreading objects is an order of magnitude slower
  let frame: Frame;
  if (kind === KIND_DATA) {
    const records = decodeRecords(reader, recordCount);
    frame = {
      epoch, toIncarnation, window, stream, ackStream, ack, ackMapLow, ackMapHigh, kind: 'data', sequence, records,
    };
  } else if (kind === KIND_ACK) {
    frame = { epoch, toIncarnation, window, stream, ackStream, ack, ackMapLow, ackMapHigh, kind: 'ack' };
  } else {
    const times = decodeTimes(reader);
    const announcement = readAnnouncement(reader);
    const header = { epoch, toIncarnation, window, stream, ackStream, ack, ackMapLow, ackMapHigh };
    const answerWanted = (flags & FLAG_ANSWER_WANTED) !== 0;
    if (kind === KIND_HEARTBEAT) frame = { ...header, kind: 'heartbeat', times, announcement };
    else frame = { ...header, kind: 'hello', answerWanted, times, announcement };
  }
  reader.end();
  return frame;
}

function decodeTimes(reader: ByteReader): FrameTimes {
  return { sentAt: reader.u53(), echoOf: reader.u53(), echoHeldMicros: reader.u32() };
}

function decodeRecords(reader: ByteReader, count: number): FrameRecord[] {
  const records: FrameRecord[] = [];
  for (let i = 0; i < count; i++) {
    const word = reader.u32();
    if ((word & RECORD_RESERVED) !== 0) throw new DecodeError('frame-record-flags');
    records.push({
      first: (word & RECORD_FIRST) !== 0,
      last: (word & RECORD_LAST) !== 0,
      bytes: reader.view8(word & RECORD_LENGTH),
    });
  }
  return records;
}
