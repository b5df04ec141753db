/**
 * Controls of the CTDB client protocol: their numbers, names and the layouts of their data, both directions. What a
 * control does is decided in core/gate. Throws DecodeError for data of a wrong size; knows nothing of the pool.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import { canonicalAddress } from '../base/ip-address.js';
import type { Connection } from './address-messages.js';
import { nameBytes, textOf } from './ctdb.js';

export const CONTROL = {
  processExists: 0,
  statistics: 1,
  ping: 3,
  getDatabasePath: 4,
  getVnnMap: 5,
  getDebug: 7,
  setDebug: 8,
  getDatabaseMap: 9,
  getRecoveryMode: 15,
  setRecoveryMode: 16,
  statisticsReset: 17,
  databaseAttach: 18,
  traverseStart: 20,
  registerSrvid: 23,
  deregisterSrvid: 24,
  getDatabaseName: 25,
  enableSequenceNumber: 26,
  dumpMemory: 29,
  getPid: 30,
  getPnn: 35,
  tcpClient: 44,
  setTunable: 48,
  getTunable: 49,
  listTunables: 50,
  getAllTunables: 53,
  databaseAttachPersistent: 61,
  uptime: 69,
  getCapabilities: 80,
  getPublicIps: 90,
  getNodeMap: 91,
  getRecoveryLockFile: 99,
  registerNotify: 114,
  deregisterNotify: 115,
  transactionCommit: 119,
  getDatabaseSequence: 120,
  setDatabaseHealthy: 121,
  getDatabaseHealth: 122,
  getInterfaces: 124,
  scheduleForDeletion: 128,
  setDatabaseReadonly: 129,
  traverseStartExtended: 131,
  getRunState: 138,
  databaseOpenFlags: 149,
  databaseAttachReplicated: 150,
  checkPidSrvid: 151,
  echoData: 156,
} as const;

const NAMES = new Map<number, string>(Object.entries(CONTROL).map(([name, opcode]) => [opcode, name]));

/** For logs and counters; an unknown control is its number. */
export function controlName(opcode: number): string {
  return NAMES.get(opcode) ?? `opcode-${opcode}`;
}

/** tdb's flag that makes each store raise the file's sequence number. */
export const TDB_FLAG_SEQNUM = 0x80;

export const NODE_FLAG = { disconnected: 1 } as const;
export const DATABASE_FLAG = { persistent: 1, readonly: 2, sticky: 4, replicated: 8 } as const;
export const RUN_STATE = { startup: 4, running: 5 } as const;
export const CAPABILITY = { leader: 1, lmaster: 2 } as const;

/** Bytes of an IP address with its port: a sockaddr_in6, or a sockaddr_in and zeros. */
export const ADDRESS_BYTES = 28;
const FAMILY_IPV4 = 2;
const FAMILY_IPV6 = 10;

/** An IPv4 or IPv6 address as text and a port. */
export interface SocketAddress {
  address: string;
  port: number;
}

export interface NodeMapEntry extends SocketAddress {
  node: number;
  flags: number;
}

export interface DatabaseMapEntry {
  database: number;
  flags: number;
}

/** An address that is not one is written as 0.0.0.0: the protocol has no room for names. */
export function writeAddress(writer: ByteWriter, { address, port }: SocketAddress): void {
  const ipv6 = address.includes(':') ? ipv6Groups(address) : null;
  if (ipv6 !== null) {
    writer.u16(FAMILY_IPV6).u8(port >> 8).u8(port & 0xff).u32(0);
    for (const group of ipv6) writer.u8(group >> 8).u8(group & 0xff);
    writer.u32(0);
    return;
  }
  const parts = address.split('.').map(Number);
  const valid = parts.length === 4 && parts.every((part) => Number.isInteger(part) && part >= 0 && part < 256);
  writer.u16(FAMILY_IPV4).u8(port >> 8).u8(port & 0xff);
  for (let i = 0; i < 4; i++) writer.u8(valid ? (parts[i] ?? 0) : 0);
  writer.zeros(ADDRESS_BYTES - 8);
}

export function readAddress(reader: ByteReader): SocketAddress {
  const inner = new ByteReader(reader.view8(ADDRESS_BYTES));
  const family = inner.u16();
  const port = (inner.u8() << 8) | inner.u8();
  if (family === FAMILY_IPV4) return { address: [...inner.view8(4)].join('.'), port };
  if (family !== FAMILY_IPV6) throw new DecodeError('address-family', String(family));
  inner.skip(4);
  const groups: string[] = [];
  for (let i = 0; i < 8; i++) groups.push(((inner.u8() << 8) | inner.u8()).toString(16));
  return { address: groups.join(':'), port };
}

/** TCP_CLIENT: the client's end of a connection and the server's. Throws DecodeError. */
export function decodeTcpClient(bytes: Uint8Array): Connection {
  const reader = new ByteReader(bytes);
  const client = readAddress(reader);
  const server = readAddress(reader);
  reader.end();
  const canonical = (text: string): string => canonicalAddress(text) ?? text;
  return {
    server: canonical(server.address), serverPort: server.port, client: canonical(client.address),
    clientPort: client.port,
  };
}

/** Eight 16-bit groups of an IPv6 address in text, or null when it is not one. */
function ipv6Groups(address: string): number[] | null {
  const [head = '', tail, extra] = address.split('::');
  if (extra !== undefined) return null;
  const parse = (text: string): number[] => (text === '' ? [] : text.split(':').map((part) => parseInt(part, 16)));
  const before = parse(head);
  const after = tail === undefined ? [] : parse(tail);
  const missing = 8 - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const groups = [...before, ...new Array<number>(missing).fill(0), ...after];
  return groups.every((group) => group >= 0 && group <= 0xffff) ? groups : null;
}

export function encodeNodeMap(nodes: readonly NodeMapEntry[]): Uint8Array {
  const writer = new ByteWriter(4 + nodes.length * 36).u32(nodes.length);
  for (const node of nodes) writeAddress(writer.u32(node.node).u32(node.flags), node);
  return writer.finish();
}

export function decodeNodeMap(bytes: Uint8Array): NodeMapEntry[] {
  const reader = new ByteReader(bytes);
  const nodes = readList(reader, 36, () => ({ node: reader.u32(), flags: reader.u32(), ...readAddress(reader) }));
  reader.end();
  return nodes;
}

export function encodeDatabaseMap(databases: readonly DatabaseMapEntry[]): Uint8Array {
  const writer = new ByteWriter(4 + databases.length * 8).u32(databases.length);
  for (const { database, flags } of databases) writer.u32(database).u8(flags).zeros(3);
  return writer.finish();
}

export function decodeDatabaseMap(bytes: Uint8Array): DatabaseMapEntry[] {
  const reader = new ByteReader(bytes);
  const databases = readList(reader, 8, () => {
    const entry = { database: reader.u32(), flags: reader.u8() };
    reader.skip(3);
    return entry;
  });
  reader.end();
  return databases;
}

/** The list of addresses that move between servers. */
export function encodePublicIps(ips: readonly (SocketAddress & { node: number })[]): Uint8Array {
  const writer = new ByteWriter(4 + ips.length * 32).u32(ips.length);
  for (const ip of ips) writeAddress(writer.u32(ip.node), ip);
  return writer.finish();
}

export function encodeVnnMap(generation: number, nodes: readonly number[]): Uint8Array {
  const writer = new ByteWriter(8 + nodes.length * 4).u32(generation).u32(nodes.length);
  for (const node of nodes) writer.u32(node);
  return writer.finish();
}

export function encodeU32(value: number): Uint8Array {
  return new ByteWriter(4).u32(value).finish();
}

export function encodeU64(value: bigint): Uint8Array {
  return new ByteWriter(8).u64(value).finish();
}

/** Exactly one u32. */
export function decodeU32(bytes: Uint8Array): number {
  const reader = new ByteReader(bytes);
  const value = reader.u32();
  reader.end();
  return value;
}

/** A name that ends with the one NUL it contains. Throws DecodeError. */
export function decodeName(bytes: Uint8Array): string {
  if (bytes.length < 2) throw new DecodeError('empty-name');
  if (bytes.indexOf(0) !== bytes.length - 1) throw new DecodeError('name-not-terminated');
  return textOf(bytes);
}

export function encodeCheckPidSrvid(pid: number, srvid: bigint): Uint8Array {
  return new ByteWriter(12).i32(pid).u64(srvid).finish();
}

export function decodeCheckPidSrvid(bytes: Uint8Array): { pid: number; srvid: bigint } {
  const reader = new ByteReader(bytes);
  const result = { pid: reader.i32(), srvid: reader.u64() };
  reader.end();
  return result;
}

export interface TraverseStart {
  database: number;
  requestId: number;
  srvid: bigint;
  /** Also records without payload. */
  withEmpty: boolean;
}

export function encodeTraverseStart(start: TraverseStart, extended: boolean): Uint8Array {
  const writer = new ByteWriter(24).u32(start.database).u32(start.requestId).u64(start.srvid);
  if (extended) writer.u8(start.withEmpty ? 1 : 0).zeros(7);
  return writer.finish();
}

export function decodeTraverseStart(bytes: Uint8Array, extended: boolean): TraverseStart {
  const reader = new ByteReader(bytes);
  const start = { database: reader.u32(), requestId: reader.u32(), srvid: reader.u64() };
  const withEmpty = extended && reader.u8() !== 0;
  if (extended) reader.skip(7);
  reader.end();
  return { ...start, withEmpty };
}

/** REGISTER_NOTIFY: `data` is broadcast to `srvid` when the client is gone. */
export function decodeNotify(bytes: Uint8Array): { srvid: bigint; data: Uint8Array } {
  const reader = new ByteReader(bytes);
  const srvid = reader.u64();
  return { srvid, data: reader.copy(reader.u32()) };
}

/** Four times as seconds and microseconds of the wall clock: now, start, last recovery's start and end. */
export function encodeUptime(micros: readonly [number, number, number, number]): Uint8Array {
  const writer = new ByteWriter(64);
  for (const time of micros) writer.u53(Math.floor(time / 1e6)).u53(Math.floor(time % 1e6));
  return writer.finish();
}

export function encodeTunableNames(names: readonly string[]): Uint8Array {
  const text = nameBytes(names.join(':'));
  return new ByteWriter(4 + text.length).u32(text.length).raw(text).finish();
}

export function decodeTunableName(bytes: Uint8Array): string {
  const reader = new ByteReader(bytes);
  const name = textOf(reader.view8(reader.u32()));
  return name;
}

/** Network interfaces with their state; none are managed here. */
export function encodeInterfaces(): Uint8Array {
  return encodeU32(0);
}

/** Refuses a count that the bytes left cannot hold, so that nothing is allocated for a lie. */
function readList<T>(reader: ByteReader, entryBytes: number, read: () => T): T[] {
  const count = reader.u32();
  if (count * entryBytes > reader.remaining) throw new DecodeError('truncated', `${count} entries`);
  const list: T[] = [];
  for (let i = 0; i < count; i++) list.push(read());
  return list;
}
