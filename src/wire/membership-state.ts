/**
 * What a server keeps on disk of its membership (docs/decisions/membership.md): the host writes these bytes to one
 * small file, all or nothing, and core/membership decides what is in them. A file that cannot be read must stop the
 * server: one that forgot its vote could vote twice. Layout (little endian):
 *
 *   0 u32 magic    0x4d504d53, "SMPM"
 *   4 u16 version  3; in 2 servers and the view are without what belongs to configurations; in 1 the view has no
 *                  protocol either, and means 1
 *   6 u16 length   of the whole
 *   8 u53 term
 *  16 u8  votedFor  255: nobody
 *  17 servers      membership-configuration.ts; in versions 1 and 2 without lengths and texts
 *     u8  accepted  0: none, 1: a view follows (membership-views.ts)
 *     u32 CRC-32C of all before it
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import { crc32c } from '../base/crc32c.js';
import type { NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';
import type { ConfiguredServer } from './membership-configuration.js';
import { readNodeAndRole, readServer, readServers, writeServers } from './membership-configuration.js';
import { readTerm } from './membership-messages.js';
import type { View } from './membership-views.js';
import { readView, writeView } from './membership-views.js';

export type { ConfiguredServer, ServerRole } from './membership-configuration.js';

export interface SavedMembership {
  term: number;
  /** For whom this server voted in `term`. */
  votedFor: NodeId | null;
  /** The newest view that it accepted. */
  accepted: View | null;
  /**
   * The servers that all this is about, ascending: those of the accepted view's configuration, also the former ones; if
   * it has none, those of this server's own file.
   */
  servers: readonly ConfiguredServer[];
}

/** The reason of a DecodeError: the layout is of another release. */
export const STATE_VERSION = 'state-version';

const MAGIC = 0x4d50_4d53;
const VERSION = 3;
const VERSION_WITHOUT_CONFIGURATION = 2;
const VERSION_WITHOUT_PROTOCOL = 1;
const HEAD_BYTES = 8;
const CHECKSUM_BYTES = 4;
const NOBODY = 255;

export function encodeSaved(state: SavedMembership): Uint8Array {
  const writer = new ByteWriter(512);
  writer.u32(MAGIC).u16(VERSION).u16(0).u53(state.term).u8(state.votedFor ?? NOBODY);
  writeServers(writer, state.servers);
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
  if (version < VERSION_WITHOUT_PROTOCOL || version > VERSION) throw new DecodeError(STATE_VERSION, `${version}`);
  if (head.u16() !== bytes.length || bytes.length < HEAD_BYTES + CHECKSUM_BYTES) throw new DecodeError('state-length');
  const content = bytes.subarray(0, bytes.length - CHECKSUM_BYTES);
  if (new ByteReader(bytes.subarray(content.length)).u32() !== crc32c(content)) throw new DecodeError('state-checksum');
  const reader = new ByteReader(content);
  reader.skip(HEAD_BYTES);
  const term = readTerm(reader);
  const votedFor = reader.u8();
  if (votedFor !== NOBODY && votedFor >= NODE_COUNT_MAX) throw new DecodeError('state-vote');
  const hasConfiguration = version > VERSION_WITHOUT_CONFIGURATION;
  const servers = readServers(reader, hasConfiguration ? readServer : readNodeAndRole);
  const hasView = reader.u8();
  if (hasView > 1) throw new DecodeError('state-accepted');
  const layout = { hasProtocol: version !== VERSION_WITHOUT_PROTOCOL, hasConfiguration };
  const accepted = hasView === 1 ? readView(reader, layout) : null;
  reader.end();
  return { term, votedFor: votedFor === NOBODY ? null : nodeId(votedFor), accepted, servers };
}
