/**
 * Messages between the witnesses of two servers (types 96 to 127): questions about holders and waiters, live events,
 * the probe by which servers find out that they see the same files. For people and for safety checks; no record moves
 * because of them. Answers are JSON of wire/locks, as the admin socket gives it. Decoding throws DecodeError.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import { keyOf } from '../base/ids.js';
import type { FileId } from './ring-ops.js';
import { decodeTyped, kindsByType } from './typed-message.js';

export const WITNESS_MESSAGE_TYPE_MIN = 96;
export const WITNESS_MESSAGE_TYPE_MAX = 127;

/** The longest JSON text of one message; more opens than fit are cut off and said to be missing. */
export const WITNESS_TEXT_BYTES_MAX = 8 * 1024 * 1024;

export type WitnessMessage =
  /** What do you hold that matches (LockFilter as JSON)? Answered by 'answer' with the same number. */
  | { kind: 'locks-query'; number: number; text: string }
  | { kind: 'hot-query'; number: number; text: string }
  | { kind: 'answer'; number: number; text: string }
  /** Send me the events that match (TraceFilter as JSON) until 'trace-stop'. */
  | { kind: 'trace-start'; number: number; text: string }
  | { kind: 'trace-stop'; number: number; text: string }
  /** TraceEvent[] as JSON. */
  | { kind: 'trace-events'; number: number; text: string }
  /** Somebody here waits for a holder of this file: let your smbds report its oplock and lease changes. */
  | { kind: 'watch'; file: FileId; watchMillis: number }
  /** Our smbds see this share with this volume id and root inode. */
  | { kind: 'probe'; share: string; volume: bigint; rootInode: bigint }
  /** Whether our smbds ask before they exclude anybody from a folder. Since protocol 3. */
  | { kind: 'folders'; shares: boolean };

const TYPES = {
  'locks-query': 96,
  'hot-query': 97,
  answer: 98,
  'trace-start': 99,
  'trace-stop': 100,
  'trace-events': 101,
  watch: 102,
  probe: 103,
  folders: 104,
} as const satisfies Record<WitnessMessage['kind'], number>;

const KINDS = kindsByType(TYPES);

export function encodeWitnessMessage(message: WitnessMessage): Uint8Array {
  const writer = new ByteWriter().u8(TYPES[message.kind]);
  switch (message.kind) {
    case 'locks-query':
    case 'hot-query':
    case 'answer':
    case 'trace-start':
    case 'trace-stop':
    case 'trace-events':
      writeText(writer.u53(message.number), message.text);
      break;
    case 'watch':
      writer.raw(Buffer.from(message.file, 'latin1')).u32(message.watchMillis);
      break;
    case 'probe':
      writeText(writer.u64(message.volume).u64(message.rootInode), message.share);
      break;
    case 'folders':
      writer.u8(message.shares ? 1 : 0);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError. */
export function decodeWitnessMessage(bytes: Uint8Array): WitnessMessage {
  return decodeTyped(bytes, KINDS, readBody);
}

function readBody(reader: ByteReader, kind: WitnessMessage['kind']): WitnessMessage {
  switch (kind) {
    case 'watch':
      return { kind, file: keyOf(reader.view8(24)), watchMillis: reader.u32() };
    case 'probe': {
      const volume = reader.u64();
      const rootInode = reader.u64();
      return { kind, volume, rootInode, share: readText(reader) };
    }
    case 'folders':
      return { kind, shares: reader.u8() !== 0 };
    default:
      return { kind, number: reader.u53(), text: readText(reader) };
  }
}

function writeText(writer: ByteWriter, text: string): void {
  const bytes = Buffer.from(text, 'utf8');
  writer.u32(bytes.length).raw(bytes);
}

function readText(reader: ByteReader): string {
  const length = reader.u32();
  if (length > WITNESS_TEXT_BYTES_MAX) throw new DecodeError('text-length', `${length}`);
  return Buffer.from(reader.view8(length)).toString('utf8');
}
