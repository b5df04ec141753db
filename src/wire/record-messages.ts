/**
 * The messages by which servers move records (types 1 to 31; docs/protocol.md tells their story). One value per
 * message, encoded to bytes for the link layer and decoded with every length checked.
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { assert, unreachable } from '../base/assert.js';
import type { DatabaseId, Epoch, NodeId, RecordKey, Turn } from '../base/ids.js';
import { NODE_COUNT_MAX, databaseId, epoch, keyOf, nodeId, turn } from '../base/ids.js';
import { decodeTyped, kindsByType } from './typed-message.js';

/** tdb keys of Samba are below 1 KiB; anything longer than this is refused. */
export const KEY_BYTES_MAX = 4096;
/** The most keys in one ask, exists or gone message; more are spread over several messages. */
export const KEYS_PER_MESSAGE_MAX = 512;

export type RecordKind =
  /** The record moves to the receiver with its payload. */
  | 'move'
  /** The record existed nowhere; the receiver owns it, empty. */
  | 'fresh'
  /** The receiver owns the record already; nobody else has a copy any more. */
  | 'keep'
  /** A read copy; `owner` keeps the record. */
  | 'copy';

export type Claim = 'backup' | 'owner' | 'gone' | 'reader';

/** What making backups anew says. */
export type MirrorMessage = Extract<RecordMessage, { kind: 'mirror' | 'backup' | 'kept' | 'not-kept' }>;

/** Messages of which a view change sends one for each record. */
export type MassMessage = Extract<RecordMessage, { kind: 'claim' | 'reclaim' | 'have' }>;

export type RecordMessage =
  /**
   * Asker to home: `asker` wants these records. `mode` 'read' is content with a copy. `run` (unsigned 32 bits) names
   * the asker's run and comes back with the answer: a later run did not ask and must not take it.
   */
  | {
      kind: 'ask';
      asker: NodeId;
      run: number;
      mode: 'read' | 'write';
      keys: { database: DatabaseId; key: RecordKey }[];
    }
  /** Home to owner: give the record (or, for 'read', a copy) to `to`. */
  | { kind: 'give'; database: DatabaseId; key: RecordKey; turn: Turn; to: NodeId; run: number; mode: 'read' | 'write' }
  /** Owner or home to asker: the answer to an ask. `owner` is who owns the record from now on. */
  | {
      kind: 'record';
      database: DatabaseId;
      key: RecordKey;
      turn: Turn;
      run: number;
      what: RecordKind;
      owner: NodeId;
      data: Uint8Array;
    }
  /** Asker to home: the answer of this turn is stored. */
  | { kind: 'have'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Home to reader: forget the copy, then say 'revoked'. */
  | { kind: 'revoke'; database: DatabaseId; key: RecordKey; turn: Turn }
  | { kind: 'revoked'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Owner to home: the record was empty and is gone. */
  | { kind: 'release'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Home to a former owner: the backup is obsolete. */
  | { kind: 'drop'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Asked to give, keep or reclaim, the sender does not have the record. */
  | { kind: 'missing'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Home to the holder of the backup: own the record again; answered by 'have' or 'missing'. */
  | { kind: 'reclaim'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Home to owner: whoever kept the backup is lost; send one to `to`, unless nobody else ever had the record. */
  | { kind: 'mirror'; database: DatabaseId; key: RecordKey; turn: Turn; to: NodeId }
  /** Owner to another server: keep this of a record that the sender owns by this turn. */
  | { kind: 'backup'; database: DatabaseId; key: RecordKey; turn: Turn; data: Uint8Array }
  /** Keeper to home: the backup is stored. */
  | { kind: 'kept'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Owner or keeper to home: nothing comes of that backup; all four since protocol 2. */
  | { kind: 'not-kept'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** Creator to everybody: these random keys exist and the sender is their home. */
  | { kind: 'exists'; database: DatabaseId; keys: RecordKey[] }
  /** Home to everybody: these random keys are gone. */
  | { kind: 'gone'; database: DatabaseId; keys: RecordKey[] }
  /**
   * Home to everybody: of the random keys whose maker was gone by that view, and whose home the sender is, those exist
   * that it announced.
   */
  | { kind: 'orphans-done'; database: DatabaseId; epoch: Epoch }
  /** To everybody: the sender holds records of these random keys, whose maker is out of the view since `epoch`. */
  | { kind: 'orphans'; database: DatabaseId; epoch: Epoch; keys: RecordKey[] }
  /** Asks for a 'barrier-passed': all that the peer sent before has then arrived. */
  | { kind: 'barrier'; number: number }
  | { kind: 'barrier-passed'; number: number }
  /**
   * To a server that became the key's home: the sender owns this record, or keeps the backup of what it gave away in
   * this turn, or reads a copy of this turn, or erased what was handed out until this turn, so that nothing older must
   * come back.
   */
  | { kind: 'claim'; database: DatabaseId; key: RecordKey; turn: Turn; what: Claim }
  /** So many messages of one kind about records of one database; since protocol 2. `what` is of claims only. */
  | {
      kind: 'many';
      of: MassMessage['kind'];
      what: Claim;
      database: DatabaseId;
      records: { key: RecordKey; turn: Turn }[];
    }
  /** All claims of the sender that the view asks for have been sent. */
  | { kind: 'claims-done'; epoch: Epoch }
  /** Home to a member, in that view: the sender waits for what it has of this key; since protocol 2. */
  | { kind: 'claim-now'; epoch: Epoch; database: DatabaseId; key: RecordKey }
  /** The answer, behind the claims. */
  | { kind: 'claimed-now'; epoch: Epoch; database: DatabaseId; key: RecordKey }
  /** To all members: the sender has installed this view, and gives nothing on orders of homes of before. */
  | { kind: 'view'; epoch: Epoch }
  /** To all members, before that: nobody has told the sender's run all random keys yet; since protocol 2. */
  | { kind: 'keys-unknown'; epoch: Epoch }
  /** To the home, and from there to the owner: what is in the record? Nothing moves. The answer goes to `asker`. */
  | { kind: 'look'; database: DatabaseId; key: RecordKey; asker: NodeId; run: number; number: number }
  /** 'away': neither home nor owner could tell just now. */
  | { kind: 'looked'; number: number; run: number; what: 'data' | 'away'; data: Uint8Array }
  /** A person asks the home about a record; `text` is the JSON of the answer. */
  | { kind: 'describe'; database: DatabaseId; key: RecordKey; number: number }
  | { kind: 'description'; number: number; text: string };

const TYPES = {
  ask: 1,
  give: 2,
  record: 3,
  have: 4,
  revoke: 5,
  revoked: 6,
  release: 7,
  drop: 8,
  missing: 9,
  reclaim: 10,
  exists: 11,
  gone: 12,
  barrier: 13,
  'barrier-passed': 14,
  describe: 15,
  description: 16,
  claim: 17,
  'claims-done': 18,
  view: 19,
  'orphans-done': 20,
  look: 21,
  looked: 22,
  orphans: 23,
  many: 24,
  'claim-now': 25,
  'claimed-now': 26,
  'keys-unknown': 27,
  mirror: 28,
  backup: 29,
  kept: 30,
  'not-kept': 31,
} as const satisfies Record<RecordMessage['kind'], number>;

const KINDS = kindsByType(TYPES);

/** The types of this file, for routing a message by its first byte. */
export const RECORD_MESSAGE_TYPE_MIN = 1;
export const RECORD_MESSAGE_TYPE_MAX = 31;

const RECORD_KINDS: readonly RecordKind[] = ['move', 'fresh', 'keep', 'copy'];
const MASS_KINDS: readonly MassMessage['kind'][] = ['claim', 'reclaim', 'have'];
const CLAIMS: readonly Claim[] = ['backup', 'owner', 'gone', 'reader'];

export function encodeRecordMessage(message: RecordMessage): Uint8Array {
  const writer = new ByteWriter(capacityFor(message));
  writer.u8(TYPES[message.kind]);
  if ('turn' in message) {
    writeOrder(writeTurn(writer, message), message);
    return writer.finish();
  }
  switch (message.kind) {
    case 'ask':
      writeAsk(writer, message);
      break;
    case 'many':
      writeMany(writer, message);
      break;
    case 'claims-done':
    case 'keys-unknown':
    case 'view':
      writer.u53(message.epoch);
      break;
    case 'claim-now':
    case 'claimed-now':
      writeKey(writer.u53(message.epoch).u32(message.database), message.key);
      break;
    case 'exists':
    case 'gone':
      writeKeys(writer.u32(message.database), message.keys);
      break;
    case 'orphans-done':
      writer.u32(message.database).u53(message.epoch);
      break;
    case 'orphans':
      writeKeys(writer.u53(message.epoch).u32(message.database), message.keys);
      break;
    case 'look':
      writeKey(writer.u32(message.database), message.key).u16(message.asker).u32(message.run).u53(message.number);
      break;
    case 'looked':
      writeBytes(writer.u53(message.number).u32(message.run).u8(message.what === 'data' ? 1 : 0), message.data);
      break;
    case 'barrier':
    case 'barrier-passed':
      writer.u53(message.number);
      break;
    case 'describe':
      writeKey(writer.u32(message.database), message.key).u53(message.number);
      break;
    case 'description':
      writeText(writer.u53(message.number), message.text);
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** What follows record and turn. */
function writeOrder(writer: ByteWriter, message: Extract<RecordMessage, { turn: Turn }>): void {
  switch (message.kind) {
    case 'give':
      writer.u16(message.to).u32(message.run).u8(message.mode === 'write' ? 1 : 0);
      break;
    case 'record':
      writer.u32(message.run).u8(RECORD_KINDS.indexOf(message.what)).u16(message.owner);
      writeBytes(writer, message.data);
      break;
    case 'mirror':
      writer.u16(message.to);
      break;
    case 'backup':
      writeBytes(writer, message.data);
      break;
    case 'claim':
      writer.u8(CLAIMS.indexOf(message.what));
      break;
    default:
  }
}

/** About the bytes that it needs. */
function capacityFor(message: RecordMessage): number {
  if (message.kind === 'record' || message.kind === 'backup') return 64 + message.data.length;
  return message.kind === 'many' ? 32 + message.records.length * (32 + message.records[0]!.key.length) : 64;
}

/** The server that a message names besides its sender; null when it names none. */
export function serverNamed(message: RecordMessage): NodeId | null {
  switch (message.kind) {
    case 'ask':
      return message.asker;
    case 'give':
    case 'mirror':
      return message.to;
    case 'record':
      return message.owner;
    case 'look':
      return message.asker;
    default:
      return null;
  }
}

/** Throws DecodeError. The payload of a 'record' or 'backup' is a copy; the source may be reused afterwards. */
export function decodeRecordMessage(bytes: Uint8Array): RecordMessage {
  return decodeTyped(bytes, KINDS, readBody);
}

function readBody(reader: ByteReader, kind: RecordMessage['kind']): RecordMessage {
  switch (kind) {
    case 'ask':
      return readAsk(reader);
    // written out, not spread: these run for every move, and spreading objects is an order of magnitude slower
    case 'give': {
      const { database, key, turn } = readTurn(reader);
      return { kind, database, key, turn, to: readNode(reader), run: reader.u32(), mode: readMode(reader) };
    }
    case 'record': {
      const { database, key, turn } = readTurn(reader);
      const run = reader.u32();
      const what = RECORD_KINDS[reader.u8()];
      if (what === undefined) throw new DecodeError('unknown-record-kind');
      const owner = readNode(reader);
      return { kind, database, key, turn, run, what, owner, data: reader.brief(reader.u32()) };
    }
    case 'have':
    case 'revoke':
    case 'revoked':
    case 'release':
    case 'drop':
    case 'missing':
    case 'reclaim': {
      const { database, key, turn } = readTurn(reader);
      return { kind, database, key, turn };
    }
    case 'claim':
      return { kind, ...readTurn(reader), what: readClaim(reader) };
    case 'many':
      return readMany(reader);
    case 'claims-done':
    case 'keys-unknown':
    case 'view':
      return { kind, epoch: epoch(reader.u53()) };
    case 'claim-now':
    case 'claimed-now':
      return { kind, epoch: epoch(reader.u53()), database: databaseId(reader.u32()), key: readKey(reader) };
    case 'exists':
    case 'gone':
      return { kind, ...readKeys(reader) };
    case 'orphans-done':
      return { kind, database: databaseId(reader.u32()), epoch: epoch(reader.u53()) };
    case 'orphans':
      return { kind, epoch: epoch(reader.u53()), ...readKeys(reader) };
    case 'look': {
      const database = databaseId(reader.u32());
      const key = readKey(reader);
      return { kind, database, key, asker: readNode(reader), run: reader.u32(), number: reader.u53() };
    }
    case 'looked': {
      const number = reader.u53();
      const run = reader.u32();
      const what = readFlag(reader) ? 'data' : 'away';
      return { kind, number, run, what, data: reader.copy(reader.u32()) };
    }
    case 'barrier':
    case 'barrier-passed':
      return { kind, number: reader.u53() };
    case 'describe':
      return { kind, database: databaseId(reader.u32()), key: readKey(reader), number: reader.u53() };
    case 'description':
      return { kind, number: reader.u53(), text: readText(reader) };
    default:
      return readMirroring(reader, kind);
  }
}

function readMirroring(reader: ByteReader, kind: MirrorMessage['kind']): MirrorMessage {
  const of = readTurn(reader);
  if (kind === 'mirror') return { kind, ...of, to: readNode(reader) };
  return kind === 'backup' ? { kind, ...of, data: reader.copy(reader.u32()) } : { kind, ...of };
}

type AskMessage = Extract<RecordMessage, { kind: 'ask' }>;

function writeAsk(writer: ByteWriter, { asker, run, mode, keys }: AskMessage): void {
  assert(keys.length <= KEYS_PER_MESSAGE_MAX, 'too many keys in one ask');
  writer.u16(asker).u32(run).u8(mode === 'write' ? 1 : 0).u16(keys.length);
  for (const { database, key } of keys) writeKey(writer.u32(database), key);
}

function readAsk(reader: ByteReader): AskMessage {
  const asker = readNode(reader);
  const run = reader.u32();
  const mode = readMode(reader);
  const keys = readList(reader, () => ({ database: databaseId(reader.u32()), key: readKey(reader) }));
  return { kind: 'ask', asker, run, mode, keys };
}

type Many = Extract<RecordMessage, { kind: 'many' }>;

function writeMany(writer: ByteWriter, { of, what, database, records }: Many): void {
  assert(records.length > 0 && records.length <= KEYS_PER_MESSAGE_MAX, 'no records in one message, or too many');
  writer.u8(MASS_KINDS.indexOf(of)).u8(CLAIMS.indexOf(what)).u32(database).u16(records.length);
  for (const record of records) writeKey(writer, record.key).u53(record.turn);
}

function readMany(reader: ByteReader): Many {
  const of = MASS_KINDS[reader.u8()];
  if (of === undefined) throw new DecodeError('unknown-mass-kind');
  const what = readClaim(reader);
  const database = databaseId(reader.u32());
  const records = readList(reader, () => ({ key: readKey(reader), turn: turn(reader.u53()) }));
  if (records.length === 0) throw new DecodeError('no-records');
  return { kind: 'many', of, what, database, records };
}

function writeTurn(writer: ByteWriter, message: { database: DatabaseId; key: RecordKey; turn: Turn }): ByteWriter {
  return writeKey(writer.u32(message.database), message.key).u53(message.turn);
}

function readTurn(reader: ByteReader): { database: DatabaseId; key: RecordKey; turn: Turn } {
  return { database: databaseId(reader.u32()), key: readKey(reader), turn: turn(reader.u53()) };
}

function writeKey(writer: ByteWriter, key: RecordKey): ByteWriter {
  return writer.u16(key.length).latin1(key);
}

function readKey(reader: ByteReader): RecordKey {
  const length = reader.u16();
  if (length === 0 || length > KEY_BYTES_MAX) throw new DecodeError('key-length', `${length}`);
  return keyOf(reader.view8(length));
}

function writeBytes(writer: ByteWriter, bytes: Uint8Array): void {
  writer.u32(bytes.length).raw(bytes);
}

function writeText(writer: ByteWriter, text: string): void {
  writeBytes(writer, Buffer.from(text, 'utf8'));
}

function readText(reader: ByteReader): string {
  return Buffer.from(reader.view8(reader.u32())).toString('utf8');
}

function writeKeys(writer: ByteWriter, keys: readonly RecordKey[]): void {
  assert(keys.length <= KEYS_PER_MESSAGE_MAX, 'too many keys in one announcement');
  writer.u16(keys.length);
  for (const key of keys) writeKey(writer, key);
}

function readKeys(reader: ByteReader): { database: DatabaseId; keys: RecordKey[] } {
  return { database: databaseId(reader.u32()), keys: readList(reader, () => readKey(reader)) };
}

function readNode(reader: ByteReader): NodeId {
  const id = reader.u16();
  if (id >= NODE_COUNT_MAX) throw new DecodeError('node-id', `${id}`);
  return nodeId(id);
}

function readMode(reader: ByteReader): 'read' | 'write' {
  return readFlag(reader) ? 'write' : 'read';
}

function readClaim(reader: ByteReader): Claim {
  const what = CLAIMS[reader.u8()];
  if (what === undefined) throw new DecodeError('unknown-claim');
  return what;
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8();
  if (flag > 1) throw new DecodeError('flag', `${flag}`);
  return flag === 1;
}

function readList<T>(reader: ByteReader, readItem: () => T): T[] {
  const count = reader.u16();
  if (count > KEYS_PER_MESSAGE_MAX) throw new DecodeError('too-many-keys', `${count}`);
  const items: T[] = [];
  for (let i = 0; i < count; i++) items.push(readItem());
  return items;
}
