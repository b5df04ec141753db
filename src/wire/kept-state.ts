/**
 * What the host keeps of a local process and of a volatile database for a run that continues this one
 * (docs/decisions/resuming.md): made by the gate, opaque to the host. Never leaves the server; a run of another release
 * that does not know the version starts anew. Layout (little endian):
 *
 *   client:   u8 version, u8 flags (1: it asked to own a record, 2: it has the module), of its last request that
 *             changed this state: u32 number (0: there was none), u32 control, u64 address; u16 addresses {u64 address,
 *             u16 how often}, u16 notifies {u64 address, u16 length, bytes}, u16 connections {56 bytes as in the
 *             control}, u16 traversals {u32 database, u32 request, u64 address, u8 with empty ones}
 *   database: u8 version, u8 flags (1: read copies, 2: stores are counted)
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import { ADDRESS_BYTES } from './ctdb-controls.js';
import type { TraverseStart } from './ctdb-controls.js';

const VERSION = 1;
const FLAG_HAS_MIGRATED = 1;
const FLAG_HAS_MODULE = 2;
const FLAG_READONLY = 1;
const FLAG_COUNTS_CHANGES = 2;
/** Of a client's TCP connection, as smbd tells it. */
export const KEPT_CONNECTION_BYTES = 2 * ADDRESS_BYTES;
/** Connections and traversals of one process; smbd has one of the first, smbstatus one of the second. */
export const KEPT_PER_CLIENT_MAX = 64;

/** A control that a client sent; its number may come again with another one. */
export interface KeptRequest {
  /** 0: there was none. */
  requestId: number;
  opcode: number;
  srvid: bigint;
}

export const NO_REQUEST: KeptRequest = { requestId: 0, opcode: 0, srvid: 0n };

export interface KeptClient {
  hasMigrated: boolean;
  /** The VFS module of the same process is, or was, attached. */
  hasModule: boolean;
  /** Its last request that changed what is kept: if that comes again, it was done. */
  lastRequest: KeptRequest;
  /** Addresses, and how often each was registered. */
  srvids: ReadonlyMap<bigint, number>;
  notifies: ReadonlyMap<bigint, Uint8Array>;
  /** Data of the controls that told them. */
  connections: readonly Uint8Array[];
  /** Under way: the process was answered, and waits for rows. */
  traversals: readonly TraverseStart[];
}

export interface KeptDatabase {
  readonly: boolean;
  countsChanges: boolean;
}

export function encodeKeptClient(state: KeptClient): Uint8Array {
  const { srvids, notifies, connections, traversals } = state;
  const writer = new ByteWriter(64 + 10 * srvids.size);
  writer.u8(VERSION);
  writer.u8((state.hasMigrated ? FLAG_HAS_MIGRATED : 0) | (state.hasModule ? FLAG_HAS_MODULE : 0));
  const { requestId, opcode, srvid: of } = state.lastRequest;
  writer.u32(requestId).u32(opcode).u64(of).u16(srvids.size);
  for (const [srvid, count] of srvids) writer.u64(srvid).u16(count);
  writer.u16(notifies.size);
  for (const [srvid, data] of notifies) writer.u64(srvid).u16(data.length).raw(data);
  writer.u16(connections.length);
  for (const connection of connections) writer.raw(connection);
  writer.u16(traversals.length);
  for (const { database, requestId, srvid, withEmpty } of traversals) {
    writer.u32(database).u32(requestId).u64(srvid).u8(withEmpty ? 1 : 0);
  }
  return writer.finish();
}

/** No bytes: nothing was ever kept. Throws DecodeError for what encodeKeptClient would not have made. */
export function decodeKeptClient(bytes: Uint8Array): KeptClient {
  const srvids = new Map<bigint, number>();
  const notifies = new Map<bigint, Uint8Array>();
  const connections: Uint8Array[] = [];
  const traversals: TraverseStart[] = [];
  const lists = { srvids, notifies, connections, traversals };
  const state = { hasMigrated: false, hasModule: false, lastRequest: NO_REQUEST, ...lists };
  if (bytes.length === 0) return state;
  const reader = new ByteReader(bytes);
  readVersion(reader);
  const flags = reader.u8();
  if ((flags & ~(FLAG_HAS_MIGRATED | FLAG_HAS_MODULE)) !== 0) throw new DecodeError('kept-flags', `${flags}`);
  const lastRequest = { requestId: reader.u32(), opcode: reader.u32(), srvid: reader.u64() };
  for (let left = reader.u16(); left > 0; left--) {
    const srvid = reader.u64();
    srvids.set(srvid, reader.u16());
  }
  for (let left = reader.u16(); left > 0; left--) {
    const srvid = reader.u64();
    notifies.set(srvid, reader.copy(reader.u16()));
  }
  for (let left = reader.u16(); left > 0; left--) connections.push(reader.copy(KEPT_CONNECTION_BYTES));
  for (let left = reader.u16(); left > 0; left--) {
    const database = reader.u32();
    const requestId = reader.u32();
    traversals.push({ database, requestId, srvid: reader.u64(), withEmpty: reader.u8() !== 0 });
  }
  reader.end();
  const [hasMigrated, hasModule] = [(flags & FLAG_HAS_MIGRATED) !== 0, (flags & FLAG_HAS_MODULE) !== 0];
  return { ...state, hasMigrated, hasModule, lastRequest };
}

export function encodeKeptDatabase({ readonly, countsChanges }: KeptDatabase): Uint8Array {
  const flags = (readonly ? FLAG_READONLY : 0) | (countsChanges ? FLAG_COUNTS_CHANGES : 0);
  return new ByteWriter(2).u8(VERSION).u8(flags).finish();
}

/** Throws DecodeError for what encodeKeptDatabase would not have made. */
export function decodeKeptDatabase(bytes: Uint8Array): KeptDatabase {
  const reader = new ByteReader(bytes);
  readVersion(reader);
  const flags = reader.u8();
  if ((flags & ~(FLAG_READONLY | FLAG_COUNTS_CHANGES)) !== 0) throw new DecodeError('kept-flags', `${flags}`);
  reader.end();
  return { readonly: (flags & FLAG_READONLY) !== 0, countsChanges: (flags & FLAG_COUNTS_CHANGES) !== 0 };
}

function readVersion(reader: ByteReader): void {
  const version = reader.u8();
  if (version !== VERSION) throw new DecodeError('kept-version', `${version}`);
}
