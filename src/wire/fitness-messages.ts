/**
 * Messages about the servers' fitness (types 144 to 159): what each says of itself, and that a person wants one of them
 * drained (docs/decisions/health.md). Texts travel as UTF-8 behind a u16 length. Decoding throws DecodeError.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import { decodeTyped, kindsByType } from './typed-message.js';

export const FITNESS_MESSAGE_TYPE_MIN = 144;
export const FITNESS_MESSAGE_TYPE_MAX = 159;

/** A server has some checks; more reasons tell a person nothing. */
export const REASONS_MAX = 32;
/** Of a reason, and of why a drain was refused; longer ones are cut. */
export const REASON_BYTES_MAX = 400;
/** Clients that are named; the others are counted. */
export const CLIENTS_NAMED_MAX = 16;
/** Of the leases that are left. */
export const LEASES_NAMED_MAX = 16;

/** In protocol 1 nobody is told of leases. */
export const LEASES_PROTOCOL = 2;

/** What a server says of itself. */
export interface Fitness {
  /** A person took it out of use; it stays a member. */
  draining: boolean;
  /** Why it should not serve new clients, a sentence each; none: it is fit. */
  reasons: string[];
  /** How many TCP connections of clients its smbds serve, and the addresses of some of the clients. */
  clients: number;
  named: string[];
}

/** Of a server that is drained: what lets its clients cache writes still. */
export interface LeasesLeft {
  /** It is waited for; only then the server says that it drains. */
  breaking: boolean;
  /** Leases and oplocks, and smbds that did not answer; those that are named in words, and the others. */
  left: number;
  named: string[];
}

export type FitnessMessage =
  | ({ kind: 'fitness' } & Fitness)
  | ({ kind: 'leases' } & LeasesLeft)
  | { kind: 'drain'; token: number; draining: boolean }
  /** `error` is empty when it was done: the server's disk has it. */
  | { kind: 'drained'; token: number; error: string };

const TYPES = {
  fitness: 144, drain: 145, drained: 146, leases: 147,
} as const satisfies Record<FitnessMessage['kind'], number>;
const KINDS = kindsByType(TYPES);

export function encodeFitnessMessage(message: FitnessMessage): Uint8Array {
  const writer = new ByteWriter().u8(TYPES[message.kind]);
  switch (message.kind) {
    case 'fitness':
      writer.u8(message.draining ? 1 : 0).u32(message.clients);
      writeTexts(writer, message.reasons);
      writeTexts(writer, message.named);
      break;
    case 'leases':
      writeTexts(writer.u8(message.breaking ? 1 : 0).u32(message.left), message.named);
      break;
    case 'drain':
      writer.u32(message.token).u8(message.draining ? 1 : 0);
      break;
    case 'drained':
      writeText(writer.u32(message.token), message.error);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError. */
export function decodeFitnessMessage(bytes: Uint8Array): FitnessMessage {
  return decodeTyped(bytes, KINDS, (reader, kind): FitnessMessage => {
    switch (kind) {
      case 'fitness': {
        const head = { draining: readFlag(reader), clients: reader.u32() };
        const reasons = readTexts(reader, REASONS_MAX);
        return { kind, ...head, reasons, named: readTexts(reader, CLIENTS_NAMED_MAX) };
      }
      case 'leases':
        return { kind, breaking: readFlag(reader), left: reader.u32(), named: readTexts(reader, LEASES_NAMED_MAX) };
      case 'drain':
        return { kind, token: reader.u32(), draining: readFlag(reader) };
      case 'drained':
        return { kind, token: reader.u32(), error: readText(reader) };
      default:
        return unreachable(kind);
    }
  });
}

/** The longest beginning of the text that may travel; a character is not cut in two. */
export function cutReason(text: string): string {
  let cut = Buffer.from(text.slice(0, REASON_BYTES_MAX)).toString();
  while (Buffer.byteLength(cut) > REASON_BYTES_MAX) cut = [...cut].slice(0, -1).join('');
  return cut;
}

function writeText(writer: ByteWriter, text: string): ByteWriter {
  const bytes = Buffer.from(text);
  return writer.u16(bytes.length).raw(bytes);
}

function readText(reader: ByteReader): string {
  const length = reader.u16();
  if (length > REASON_BYTES_MAX) throw new DecodeError('text-length', `${length}`);
  const bytes = Buffer.from(reader.view8(length));
  const text = bytes.toString();
  // what is no UTF-8 would not come back as it was
  if (!Buffer.from(text).equals(bytes)) throw new DecodeError('text-not-utf8');
  return text;
}

function writeTexts(writer: ByteWriter, texts: readonly string[]): void {
  writer.u16(texts.length);
  for (const text of texts) writeText(writer, text);
}

function readTexts(reader: ByteReader, max: number): string[] {
  const count = reader.u16();
  if (count > max) throw new DecodeError('list-length', `${count}`);
  return Array.from({ length: count }, () => readText(reader));
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8();
  if (flag > 1) throw new DecodeError('flag', `${flag}`);
  return flag === 1;
}
