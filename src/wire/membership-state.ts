/**
 * What a server keeps on disk of its membership (docs/decisions/membership.md): the host writes these bytes to one
 * small file, all or nothing, and core/membership decides what is in them. A file that cannot be read must stop the
 * server: one that forgot its vote could vote twice. Layout (little endian):
 *
 *   0 u32 magic    0x4d504d53, "SMPM"
 *   4 u16 version  2; in 1 the view has no protocol, and means 1; 3: the view names runs that are continued
 *   6 u16 length   of the whole
 *   8 u53 term
 *  16 u8  votedFor  255: nobody
 *  17 u8  servers, then {u8 node, u8 role: 0 server, 1 witness}, ascending
 *     u8  accepted  0: none, 1: a view follows (membership-views.ts)
 *     u32 CRC-32C of all before it
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import { crc32c } from '../base/crc32c.js';
import type { NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';
import { readTerm } from './membership-messages.js';
import type { View } from './membership-views.js';
import { namesResumed, readView, writeView } from './membership-views.js';

export type ServerRole = 'server' | 'witness';

/** A configured server. A witness votes and accepts, and neither leads nor becomes a member. */
export interface ConfiguredServer {
  node: NodeId;
  role: ServerRole;
}

export interface SavedMembership {
  term: number;
  /** For whom this server voted in `term`. */
  votedFor: NodeId | null;
  /** The newest view that it accepted. */
  accepted: View | null;
  /** The configuration that all this is about, ascending. */
  servers: readonly ConfiguredServer[];
}

/** The reason of a DecodeError: the layout is of another release. */
export const STATE_VERSION = 'state-version';

const MAGIC = 0x4d50_4d53;
const VERSION = 2;
const VERSION_WITHOUT_PROTOCOL = 1;
const VERSION_RESUMING = 3;
const HEAD_BYTES = 8;
const CHECKSUM_BYTES = 4;
const NOBODY = 255;
const ROLES: readonly ServerRole[] = ['server', 'witness'];

export function encodeSaved(state: SavedMembership): Uint8Array {
  const writer = new ByteWriter(512);
  const isLong = state.accepted !== null && namesResumed(state.accepted);
  writer.u32(MAGIC).u16(isLong ? VERSION_RESUMING : VERSION).u16(0);
  writer.u53(state.term).u8(state.votedFor ?? NOBODY).u8(state.servers.length);
  for (const { node, role } of state.servers) writer.u8(node).u8(ROLES.indexOf(role));
  writer.u8(state.accepted === null ? 0 : 1);
  if (state.accepted !== null) writeView(writer, state.accepted);
  const bytes = new Uint8Array(writer.length + CHECKSUM_BYTES);
  bytes.set(writer.finish());
  const view = new DataView(bytes.buffer);
  view.setUint16(6, bytes.length, true);
  view.setUint32(bytes.length - CHECKSUM_BYTES, crc32c(bytes.subarray(0, bytes.length - CHECKSUM_BYTES)), true);
  return bytes;
}

/** Throws DecodeError; its reason says what is wrong with the file. */
export function decodeSaved(bytes: Uint8Array): SavedMembership {
  const head = new ByteReader(bytes);
  if (head.u32() !== MAGIC) throw new DecodeError('state-magic');
  const version = head.u16();
  if (version === 0 || version > VERSION_RESUMING) throw new DecodeError(STATE_VERSION, `${version}`);
  if (head.u16() !== bytes.length || bytes.length < HEAD_BYTES + CHECKSUM_BYTES) throw new DecodeError('state-length');
  const content = bytes.subarray(0, bytes.length - CHECKSUM_BYTES);
  if (new ByteReader(bytes.subarray(content.length)).u32() !== crc32c(content)) throw new DecodeError('state-checksum');
  const reader = new ByteReader(content);
  reader.skip(HEAD_BYTES);
  const term = readTerm(reader);
  const votedFor = reader.u8();
  if (votedFor !== NOBODY && votedFor >= NODE_COUNT_MAX) throw new DecodeError('state-vote');
  const servers = readServers(reader);
  const hasView = reader.u8();
  if (hasView > 1) throw new DecodeError('state-accepted');
  const accepted = hasView === 1 ? readView(reader, version !== VERSION_WITHOUT_PROTOCOL) : null;
  reader.end();
  return { term, votedFor: votedFor === NOBODY ? null : nodeId(votedFor), accepted, servers };
}

function readServers(reader: ByteReader): ConfiguredServer[] {
  const servers: ConfiguredServer[] = [];
  for (let count = reader.u8(); count > 0; count--) {
    const node = reader.u8();
    const role = ROLES[reader.u8()];
    if (role === undefined || node >= NODE_COUNT_MAX) throw new DecodeError('state-server');
    if (node <= (servers.at(-1)?.node ?? -1)) throw new DecodeError('state-server-order');
    servers.push({ node: nodeId(node), role });
  }
  return servers;
}
