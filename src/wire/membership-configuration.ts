/**
 * The configuration of a pool: which servers it has, as agreed (docs/decisions/joining.md), and its bytes, which views,
 * messages and the file of a server's membership share. A view carries the configuration without what people wrote of
 * each server; that travels and is kept beside it, and the digest says which it is. Layout (little endian):
 *
 *   configuration: u32 number, u64 counted, u64 joining, u64 witnesses, u64 former (bit n: server n), u32 digest
 *   servers:       u8 count, then {u8 node, u8 role: 0 server, 1 witness, u16 length, UTF-8 text}, ascending
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { crc32c } from '../base/crc32c.js';
import type { NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';

export type ServerRole = 'server' | 'witness';

/** A configured server. A witness votes and accepts, and neither leads nor becomes a member. */
export interface ConfiguredServer {
  node: NodeId;
  role: ServerRole;
  /** What the host has to know of it: name, addresses. Means nothing to the core; at most ENTRY_BYTES_MAX of UTF-8. */
  entry?: string;
}

/** All lists are ascending, and no server is in two of them; witnesses are some of counted and joining. */
export interface Configuration {
  /** Counts up with each change. */
  number: number;
  /** Whose votes and answers make majorities. */
  counted: NodeId[];
  /** May become members; counted when they have been heard. */
  joining: NodeId[];
  witnesses: NodeId[];
  /** Were in the pool and were taken out. */
  former: NodeId[];
  /** digestOf all of them, also the former. */
  digest: number;
}

/** Two addresses, two interfaces and a name take less; so that a change fits into one frame. */
export const ENTRY_BYTES_MAX = 800;
export const CONFIGURATION_BYTES = 40;

const ROLES: readonly ServerRole[] = ['server', 'witness'];

export function bitsOf(nodes: readonly NodeId[]): bigint {
  return nodes.reduce((bits, node) => bits | (1n << BigInt(node)), 0n);
}

/** Reads what bitsOf made; servers that cannot be are left out. */
export function readBits(reader: ByteReader): NodeId[] {
  const bits = reader.u64();
  const nodes: NodeId[] = [];
  if (bits === 0n) return nodes;
  for (let node = 0; node < NODE_COUNT_MAX; node++) if ((bits & (1n << BigInt(node))) !== 0n) nodes.push(nodeId(node));
  return nodes;
}

export function writeConfiguration(writer: ByteWriter, configuration: Configuration): void {
  const { number, counted, joining, witnesses, former, digest } = configuration;
  writer.u32(number);
  for (const nodes of [counted, joining, witnesses, former]) writer.u64(bitsOf(nodes));
  writer.u32(digest);
}

/** Throws DecodeError for anything that is no sound configuration. */
export function readConfiguration(reader: ByteReader): Configuration {
  const number = reader.u32();
  const [counted, joining, witnesses, former] = [0, 1, 2, 3].map(() => readBits(reader));
  const configuration = {
    number, counted: counted!, joining: joining!, witnesses: witnesses!, former: former!, digest: reader.u32(),
  };
  if (number === 0) throw new DecodeError('configuration-number');
  const all = [...configuration.counted, ...configuration.joining, ...configuration.former];
  if (new Set(all).size !== all.length) throw new DecodeError('configuration-twice');
  const present = new Set([...configuration.counted, ...configuration.joining]);
  if (!configuration.witnesses.every((node) => present.has(node))) throw new DecodeError('configuration-witnesses');
  const canLead = configuration.counted.some((node) => !configuration.witnesses.includes(node));
  if (!canLead) throw new DecodeError('configuration-empty');
  return configuration;
}

export function writeServer(writer: ByteWriter, { node, role, entry = '' }: ConfiguredServer): void {
  const text = new TextEncoder().encode(entry);
  writer.u8(node).u8(ROLES.indexOf(role)).u16(text.length).raw(text);
}

/** Throws DecodeError. */
export function readServer(reader: ByteReader): ConfiguredServer {
  const { node, role } = readNodeAndRole(reader);
  const length = reader.u16();
  if (length > ENTRY_BYTES_MAX) throw new DecodeError('server-entry');
  const entry = new TextDecoder().decode(reader.copy(length));
  return entry === '' ? { node, role } : { node, role, entry };
}

/** Throws DecodeError. */
export function readNodeAndRole(reader: ByteReader): ConfiguredServer {
  const node = reader.u8();
  const role = ROLES[reader.u8()];
  if (role === undefined || node >= NODE_COUNT_MAX) throw new DecodeError('state-server');
  return { node: nodeId(node), role };
}

export function writeServers(writer: ByteWriter, servers: readonly ConfiguredServer[]): void {
  writer.u8(servers.length);
  for (const server of servers) writeServer(writer, server);
}

/** Throws DecodeError. */
export function readServers(reader: ByteReader, readOne: typeof readServer = readServer): ConfiguredServer[] {
  const servers: ConfiguredServer[] = [];
  for (let count = reader.u8(); count > 0; count--) {
    const server = readOne(reader);
    if (server.node <= (servers.at(-1)?.node ?? -1)) throw new DecodeError('state-server-order');
    servers.push(server);
  }
  return servers;
}

/** Tells lists of servers apart, with all that was written of them. */
export function digestOf(servers: readonly ConfiguredServer[]): number {
  const writer = new ByteWriter(256);
  writeServers(writer, servers);
  return crc32c(writer.finish());
}

/** How many bytes writeServer makes of it. */
export function serverBytes({ entry = '' }: ConfiguredServer): number {
  return 4 + new TextEncoder().encode(entry).length;
}
