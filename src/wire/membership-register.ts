/**
 * What a pool keeps in etcd (docs/decisions/etcd.md): one value, changed by compare-and-swap only. core/membership
 * decides what is in it. Layout (little endian):
 *
 *   0 u32 magic    0x52504d53, "SMPR"
 *   4 u16 version  1
 *   6 u16 length   of the whole
 *   8 u53 term
 *  16 run leader    u8 node, u53 incarnation; node 255 and 0: none
 *  25 run challenger, the same
 *  34 u64 hears    the servers that the challenger hears, itself included (bit n: server n)
 *  42 u8  view     0: none, 1: a view follows (membership-views.ts)
 *     u32 CRC-32C of all before it
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import { crc32c } from '../base/crc32c.js';
import type { Incarnation, NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';
import { bitsOf, readBits, readTerm } from './membership-messages.js';
import type { Run, View } from './membership-views.js';
import { readView, viewBytes, writeView } from './membership-views.js';

export interface Challenge extends Run {
  /** The servers that the challenger hears, itself included. */
  hears: NodeId[];
}

export interface RegisterState {
  term: number;
  /** Who leads in this term. */
  leader: Run | null;
  /** Who wants to lead, since it does not hear the leader. */
  challenge: Challenge | null;
  /** The newest agreed view. */
  view: View | null;
}

const MAGIC = 0x5250_4d53;
const VERSION = 1;
const HEAD_BYTES = 8;
const FIXED_BYTES = 43;
const CHECKSUM_BYTES = 4;
const NOBODY = 255;

export function encodeRegister({ term, leader, challenge, view }: RegisterState): Uint8Array {
  const writer = new ByteWriter(FIXED_BYTES + (view === null ? 0 : viewBytes(view)));
  writer.u32(MAGIC).u16(VERSION).u16(0).u53(term);
  for (const run of [leader, challenge]) writer.u8(run?.node ?? NOBODY).u53(run?.incarnation ?? 0);
  writer.u64(bitsOf(challenge?.hears ?? [])).u8(view === null ? 0 : 1);
  if (view !== null) writeView(writer, view);
  const bytes = new Uint8Array(writer.length + CHECKSUM_BYTES);
  bytes.set(writer.finish());
  const data = new DataView(bytes.buffer);
  data.setUint16(6, bytes.length, true);
  data.setUint32(bytes.length - CHECKSUM_BYTES, crc32c(bytes.subarray(0, bytes.length - CHECKSUM_BYTES)), true);
  return bytes;
}

/** Throws DecodeError; its reason says what is wrong with the value. */
export function decodeRegister(bytes: Uint8Array): RegisterState {
  const head = new ByteReader(bytes);
  if (head.u32() !== MAGIC) throw new DecodeError('register-magic');
  if (head.u16() !== VERSION) throw new DecodeError('register-version');
  const length = head.u16();
  if (length !== bytes.length || length < FIXED_BYTES + CHECKSUM_BYTES) throw new DecodeError('register-length');
  const content = bytes.subarray(0, bytes.length - CHECKSUM_BYTES);
  if (new ByteReader(bytes.subarray(content.length)).u32() !== crc32c(content)) {
    throw new DecodeError('register-checksum');
  }
  const reader = new ByteReader(content);
  reader.skip(HEAD_BYTES);
  const term = readTerm(reader);
  const leader = readRun(reader);
  const challenger = readRun(reader);
  const hears = readBits(reader);
  const isSound = challenger === null ? hears.length === 0 : hears.includes(challenger.node);
  if (!isSound) throw new DecodeError('register-hears');
  const hasView = reader.u8();
  if (hasView > 1) throw new DecodeError('register-view');
  const view = hasView === 1 ? readView(reader) : null;
  reader.end();
  return { term, leader, challenge: challenger === null ? null : { ...challenger, hears }, view };
}

function readRun(reader: ByteReader): Run | null {
  const node = reader.u8();
  const incarnation = reader.u53() as Incarnation;
  if (node === NOBODY && incarnation === 0) return null;
  if (node >= NODE_COUNT_MAX || incarnation === 0) throw new DecodeError('register-run');
  return { node: nodeId(node), incarnation };
}
