/**
 * Messages about public addresses (types 128 to 143): what a member may have, the leader's table, and the connections
 * of clients. Addresses travel as 4 or 16 bytes and are canonical texts in memory (base/ip-address). Decoding throws
 * DecodeError.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { assert, unreachable } from '../base/assert.js';
import type { Epoch, NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, epoch as toEpoch, nodeId } from '../base/ids.js';
import { addressBytes, addressText } from '../base/ip-address.js';
import { decodeTyped, kindsByType } from './typed-message.js';

export const ADDRESS_MESSAGE_TYPE_MIN = 128;
export const ADDRESS_MESSAGE_TYPE_MAX = 143;

/** A table of more is a mistake: a pool has some addresses for each server. */
export const ADDRESSES_MAX = 1024;
/** In one message; there may be several. */
export const CONNECTIONS_PER_MESSAGE_MAX = 1000;

/** One TCP connection of a client to a public address. */
export interface Connection {
  server: string;
  serverPort: number;
  client: string;
  clientPort: number;
}

export interface TableEntry {
  address: string;
  /** null: nobody's at the moment. */
  holder: NodeId | null;
}

/**
 * 0: no smbd serves there. 1: a person drains the server. 2: its checks say that it is not fit. 3: nothing speaks
 * against it.
 */
export type Standing = 0 | 1 | 2 | 3;

/** What a member tells the leader of its view. */
export interface Report {
  epoch: Epoch;
  /** Of the newest table it took in this view; 0: none yet. */
  version: number;
  /** How good it is to have an address there. */
  standing: Standing;
  /** What it may have: by its table, or because it is still on its interface. */
  has: string[];
  /** What it could not take lately. */
  refused: string[];
}

export type AddressMessage =
  | ({ kind: 'report' } & Report)
  | { kind: 'table'; epoch: Epoch; version: number; entries: TableEntry[] }
  /** `whole`: what was told before is forgotten first. */
  | { kind: 'connections'; whole: boolean; added: Connection[]; removed: Connection[] };

const TYPES = {
  report: 128,
  table: 129,
  connections: 130,
} as const satisfies Record<AddressMessage['kind'], number>;

const KINDS = kindsByType(TYPES);
const NOBODY = 0xff;

export function encodeAddressMessage(message: AddressMessage): Uint8Array {
  const writer = new ByteWriter().u8(TYPES[message.kind]);
  switch (message.kind) {
    case 'report':
      writer.u53(message.epoch).u32(message.version).u8(message.standing);
      writeList(writer, message.has, writeAddress);
      writeList(writer, message.refused, writeAddress);
      break;
    case 'table':
      writer.u53(message.epoch).u32(message.version);
      writeList(writer, message.entries, (to, { address, holder }) => writeAddress(to, address).u8(holder ?? NOBODY));
      break;
    case 'connections':
      writer.u8(message.whole ? 1 : 0);
      writeList(writer, message.added, writeConnection);
      writeList(writer, message.removed, writeConnection);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError. */
export function decodeAddressMessage(bytes: Uint8Array): AddressMessage {
  return decodeTyped(bytes, KINDS, readBody);
}

function readBody(reader: ByteReader, kind: AddressMessage['kind']): AddressMessage {
  switch (kind) {
    case 'report': {
      const report = { epoch: toEpoch(reader.u53()), version: reader.u32(), standing: readStanding(reader) };
      const has = readList(reader, ADDRESSES_MAX, readAddress);
      return { kind, ...report, has, refused: readList(reader, ADDRESSES_MAX, readAddress) };
    }
    case 'table': {
      const head = { epoch: toEpoch(reader.u53()), version: reader.u32() };
      return { kind, ...head, entries: readList(reader, ADDRESSES_MAX, readEntry) };
    }
    case 'connections': {
      const whole = readFlag(reader);
      const added = readList(reader, CONNECTIONS_PER_MESSAGE_MAX, readConnection);
      return { kind, whole, added, removed: readList(reader, CONNECTIONS_PER_MESSAGE_MAX, readConnection) };
    }
    default:
      return unreachable(kind);
  }
}

function writeList<T>(writer: ByteWriter, list: readonly T[], write: (writer: ByteWriter, item: T) => unknown): void {
  writer.u16(list.length);
  for (const item of list) write(writer, item);
}

function readList<T>(reader: ByteReader, max: number, read: (reader: ByteReader) => T): T[] {
  const count = reader.u16();
  if (count > max) throw new DecodeError('list-length', `${count}`);
  return Array.from({ length: count }, () => read(reader));
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8();
  if (flag > 1) throw new DecodeError('flag', `${flag}`);
  return flag === 1;
}

function readStanding(reader: ByteReader): Standing {
  const standing = reader.u8();
  if (standing > 3) throw new DecodeError('standing', `${standing}`);
  return standing as Standing;
}

function writeAddress(writer: ByteWriter, text: string): ByteWriter {
  const bytes = addressBytes(text);
  assert(bytes !== null, `${text} is an address`);
  return writer.u8(bytes.length).raw(Uint8Array.from(bytes));
}

/** A text that is not canonical when it comes back (IPv4 in IPv6) would be a second one for the same address. */
function readAddress(reader: ByteReader): string {
  const length = reader.u8();
  if (length !== 4 && length !== 16) throw new DecodeError('address-length', `${length}`);
  const text = addressText([...reader.view8(length)]);
  if (text.includes(':') !== (length === 16)) throw new DecodeError('address-not-canonical');
  return text;
}

function readEntry(reader: ByteReader): TableEntry {
  const address = readAddress(reader);
  const holder = reader.u8();
  if (holder !== NOBODY && holder >= NODE_COUNT_MAX) throw new DecodeError('node', `${holder}`);
  return { address, holder: holder === NOBODY ? null : nodeId(holder) };
}

function writeConnection(writer: ByteWriter, { server, serverPort, client, clientPort }: Connection): void {
  writeAddress(writeAddress(writer, server).u16(serverPort), client).u16(clientPort);
}

function readConnection(reader: ByteReader): Connection {
  const server = readAddress(reader);
  const serverPort = reader.u16();
  const client = readAddress(reader);
  return { server, serverPort, client, clientPort: reader.u16() };
}
