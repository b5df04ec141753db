/** What a smbd's module writes into its ring when it opens a file, as bytes; mirrors the decoder in wire/ring-ops. */
import { ByteWriter } from '../../src/base/bytes.js';
import { keyBytes } from '../../src/base/ids.js';
import type { FileId } from '../../src/wire/ring-ops.js';
import { LEASE_CHANGE, NOTIFY_FLAG, OPEN_FLAG } from '../../src/wire/ring-ops.js';
import type { WatchChange } from '../../src/wire/samba-messages.js';
import { NOBODY, writeServerId } from '../../src/wire/samba-messages.js';

const NO_FILE = '\0'.repeat(24) as FileId;
const TREE = 1n;
const PATH = Buffer.from('file');
/** The oplock of an open under a lease. */
export const LEASE_OPLOCK = 0x100;
/** FILE_READ_DATA | FILE_WRITE_DATA, all sharing, open-if. */
const TERMS = { accessMask: 3, shareAccess: 7, disposition: 3, oplock: 0, leaseState: 0 };

/** `base`: the file whose stream is opened; its records are needed too. */
export function encodeOpenBegin(operation: bigint, file: FileId, base: FileId | null, wantsReply: boolean): Uint8Array {
  const flags = (wantsReply ? OPEN_FLAG.wantsReply : OPEN_FLAG.home) | (base === null ? 0 : OPEN_FLAG.hasBase);
  const writer = new ByteWriter(160).u64(operation).u64(TREE);
  writer.raw(keyBytes(file)).raw(keyBytes(base ?? NO_FILE)).raw(new Uint8Array(16));
  writer.u32(flags).u32(500).u32(TERMS.accessMask).u32(TERMS.shareAccess).u32(TERMS.disposition).u32(0);
  writer.u32(TERMS.oplock).u32(TERMS.leaseState).u16(PATH.length).raw(new Uint8Array(6)).raw(PATH);
  return writer.finish().slice();
}

/** Of a folder; `flags`: OPEN_FLAG. */
export function encodeFolderOpenBegin(operation: bigint, folder: FileId, flags: number): Uint8Array {
  const bytes = encodeOpenBegin(operation, folder, null, true);
  Buffer.from(bytes.buffer, bytes.byteOffset).writeUInt32LE(flags, 80);
  return bytes;
}

export function encodeRecalled(number: bigint, moved: number): Uint8Array {
  return new ByteWriter(16).u64(number).u32(moved).u32(0).finish().slice();
}

export function encodeOpenCancel(operation: bigint): Uint8Array {
  return new ByteWriter(8).u64(operation).finish().slice();
}

/** What tells an open from others: its lease, or the oplock without one; its number as a share file id. */
interface OpenOptions {
  key?: string;
  oplock?: number;
  state?: number;
  flags?: number;
  shareFileId?: bigint;
}

/** Of another open than others when `options` differ. Also what a resync tells of it (replay-open). */
export function encodeOpenEnd(
  operation: bigint, file: FileId, tookMicros: number, options: OpenOptions = {},
): Uint8Array {
  const writer = new ByteWriter(160).u64(operation).u64(TREE).raw(keyBytes(file));
  const key = Buffer.from(options.key ?? '\0'.repeat(16), 'latin1');
  const { oplock = TERMS.oplock, state = TERMS.leaseState, flags = 0, shareFileId = operation } = options;
  writer.u64(shareFileId).u64(shareFileId).u64(0n).raw(key);
  writer.u32(flags).u32(0).u32(TERMS.accessMask).u32(TERMS.shareAccess).u32(TERMS.disposition).u32(1);
  writer.u32(oplock).u32(state).u16(PATH.length).u16(0).u32(tookMicros).raw(PATH);
  return writer.finish().slice();
}

/** Under a lease, whose state was `before` and is `after`. */
export function encodeLeaseChange(file: FileId, shareFileId: bigint, before: number, after: number): Uint8Array {
  const writer = new ByteWriter(96).raw(keyBytes(file)).u64(shareFileId).u64(TREE).u64(0n).raw(new Uint8Array(16));
  writer.u32(LEASE_CHANGE.changed).u32(LEASE_OPLOCK).u32(LEASE_OPLOCK).u32(before).u32(after).u32(0);
  return writer.finish().slice();
}

/** The module tells all its opens anew, in replay-opens; then 'resync-end', which has no content. */
export function encodeResyncBegin(operationsFrom: bigint): Uint8Array {
  return new ByteWriter(8).u64(operationsFrom).finish().slice();
}

export function encodeBreaksSent(number: number, breaks: number): Uint8Array {
  return new ByteWriter(8).u32(number).u32(breaks).finish().slice();
}

export function encodeClose(file: FileId, operation: bigint): Uint8Array {
  return new ByteWriter(64).raw(keyBytes(file)).u64(operation).u64(operation).u64(0n).u32(0).u32(0).finish().slice();
}

export function encodeHello(clientGuid: string, address: string, name: string, server = NOBODY): Uint8Array {
  const [addressBytes, nameBytes] = [Buffer.from(address), Buffer.from(name)];
  const writer = writeServerId(new ByteWriter(128), server).raw(Buffer.from(clientGuid, 'latin1')).u32(0);
  return writer.u16(addressBytes.length).u16(nameBytes.length).raw(addressBytes).raw(nameBytes).finish().slice();
}

export function encodeNotifyBegin(number: bigint, change: WatchChange, wantsReply = true): Uint8Array {
  const { handle, since, filter, subdirFilter, folder } = change;
  const writer = new ByteWriter(128).u64(number).u64(handle).raw(since).u32(filter).u32(subdirFilter);
  return writer.u32(wantsReply ? NOTIFY_FLAG.wantsReply : 0).u16(folder.length).u16(0).raw(folder).finish().slice();
}

export function encodeNotifyEnd(number: bigint): Uint8Array {
  return new ByteWriter(8).u64(number).finish().slice();
}

/** The tree of all other messages here. */
export function encodeTreeConnect(share: string, user: string, path: string, flags = 0): Uint8Array {
  const texts = [share, user, path].map((text) => Buffer.from(text));
  const writer = new ByteWriter(128).u64(TREE).u64(0n).u64(0n).u64(0n).u32(flags);
  for (const { length } of texts) writer.u16(length);
  writer.raw(new Uint8Array(6));
  for (const bytes of texts) writer.raw(bytes);
  return writer.finish().slice();
}
