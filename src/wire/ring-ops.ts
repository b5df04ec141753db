/**
 * The messages in the shared-memory rings as TypeScript values: what a smbd's module tells and asks, and our answers.
 * Mirrors native/shared/smbpool_ops.h (offsets, sizes, flags); a test compares the two. Everything a client wrote is
 * checked here; what does not fit throws DecodeError: that message is counted and dropped.
 */
import { ByteReader, ByteWriter, DecodeError } from '../base/bytes.js';
import type { RecordKey } from '../base/ids.js';
import { keyOf } from '../base/ids.js';
import type { ServerId, WatchChange } from './samba-messages.js';
import { readServerId } from './samba-messages.js';

/** enum smbpool_op. */
export const RING_OP = {
  hello: 1,
  treeConnect: 2,
  treeDisconnect: 3,
  openBegin: 4,
  openCancel: 5,
  openEnd: 6,
  close: 7,
  lock: 8,
  unlock: 9,
  leaseChange: 10,
  claim: 11,
  resyncBegin: 12,
  replayOpen: 13,
  replayLock: 14,
  resyncEnd: 15,
  notifyBegin: 16,
  notifyEnd: 17,
  breaksSent: 18,
  recalled: 19,
  openReady: 33,
  treeReady: 34,
  watchFile: 35,
  resync: 36,
  notifyReady: 37,
  breakAll: 38,
  recall: 39,
} as const;

/** SMBPOOL_OPEN_*. */
export const OPEN_FLAG = {
  wantsReply: 1,
  home: 2,
  new: 4,
  retry: 8,
  hasLease: 16,
  hasBase: 32,
  deferred: 64,
  directory: 128,
  durable: 256,
  reconnect: 512,
  excludes: 2048,
} as const;
export const TREE_FLAG = { wantsReply: 1, replay: 2 } as const;
export const CLOSE_FLAG = { disconnected: 1, deleted: 2 } as const;
/** SMBPOOL_NOTIFY_*. */
export const NOTIFY_FLAG = { wantsReply: 1 } as const;
/** SMBPOOL_LEASE_*: kinds of a lease change. */
export const LEASE_CHANGE = { breakSent: 1, changed: 2 } as const;
/** SMBPOOL_LOCK_*. */
export const LOCK_TYPE = { read: 0, write: 1, unlock: 2 } as const;
/** enum smbpool_home_kind. */
export const HOME_KIND = { file: 1, lease: 2, folder: 3 } as const;
/** SMBPOOL_READY_*: results of a wait. */
export const READY = { home: 0, gaveUp: 1, refused: 2 } as const;
/** enum smbpool_histogram. */
export const HISTOGRAM = { openWait: 0, pin: 1, move: 2 } as const;

/** The 24 bytes of smbd's struct file_id, which are also the key in locking.tdb and brlock.tdb. */
export type FileId = RecordKey;

export interface OpenTerms {
  accessMask: number;
  shareAccess: number;
  disposition: number;
  oplock: number;
  leaseState: number;
  /** 16 bytes. */
  leaseKey: string;
}

/** How a create ended, or an open that exists. */
export type RingOpened = {
  kind: 'open-end' | 'replay-open';
  operation: bigint;
  tree: bigint;
  file: FileId;
  shareFileId: bigint;
  persistentId: bigint;
  sinceMicros: bigint;
  flags: number;
  status: number;
  createAction: number;
  tookMicros: number;
  path: string;
} & OpenTerms;

export type RingMessage =
  | { kind: 'hello'; server: ServerId; clientGuid: string; address: string; name: string }
  | {
      kind: 'tree-connect';
      tree: bigint;
      volume: bigint;
      rootInode: bigint;
      flags: number;
      share: string;
      user: string;
      path: string;
    }
  | { kind: 'tree-disconnect'; tree: bigint }
  | ({
      kind: 'open-begin';
      operation: bigint;
      tree: bigint;
      file: FileId;
      base: FileId;
      flags: number;
      deadlineMillis: number;
      path: string;
    } & OpenTerms)
  | { kind: 'open-cancel'; operation: bigint }
  | RingOpened
  | { kind: 'close'; file: FileId; shareFileId: bigint; persistentId: bigint; flags: number; status: number }
  | {
      kind: 'lock' | 'unlock' | 'replay-lock';
      file: FileId;
      shareFileId: bigint;
      persistentId: bigint;
      start: bigint;
      size: bigint;
      blocker: bigint;
      type: number;
      status: number;
    }
  | {
      kind: 'lease-change';
      file: FileId;
      shareFileId: bigint;
      change: number;
      oplockBefore: number;
      oplockAfter: number;
      leaseBefore: number;
      leaseAfter: number;
    }
  | { kind: 'claim'; tree: bigint; file: FileId }
  /** Operations below `operationsFrom` are over: their ends were lost. */
  | { kind: 'resync-begin'; operationsFrom: bigint }
  | { kind: 'resync-end' }
  /** smbd began to watch a folder. `number` is unique in the attachment. */
  | { kind: 'notify-begin'; number: bigint; flags: number; change: WatchChange }
  | { kind: 'notify-end'; number: bigint }
  /** The break-all of this number is done: so many `breaks` are under way; all that was granted before is reported. */
  | { kind: 'breaks-sent'; number: number; breaks: number }
  /** The recall of this number is done: so many share mode entries went from the slice to the one record. */
  | { kind: 'recalled'; number: bigint; moved: number };

/** Throws DecodeError. */
export function decodeRingMessage(op: number, payload: Uint8Array): RingMessage {
  const reader = new ByteReader(payload);
  const message = decodeBody(op, reader);
  reader.end();
  return message;
}

function decodeBody(op: number, reader: ByteReader): RingMessage {
  switch (op) {
    case RING_OP.hello:
      return decodeHello(reader);
    case RING_OP.treeConnect:
    case RING_OP.treeDisconnect:
      return decodeTree(reader, op === RING_OP.treeConnect);
    case RING_OP.openBegin:
      return decodeOpenBegin(reader);
    case RING_OP.openCancel:
      return { kind: 'open-cancel', operation: reader.u64() };
    case RING_OP.openEnd:
      return decodeOpen(reader, 'open-end');
    case RING_OP.replayOpen:
      return decodeOpen(reader, 'replay-open');
    case RING_OP.close:
      return decodeClose(reader);
    case RING_OP.lock:
      return decodeLock(reader, 'lock');
    case RING_OP.unlock:
      return decodeLock(reader, 'unlock');
    case RING_OP.replayLock:
      return decodeLock(reader, 'replay-lock');
    case RING_OP.leaseChange:
      return decodeLeaseChange(reader);
    case RING_OP.claim: {
      const tree = reader.u64();
      reader.skip(8);
      return { kind: 'claim', tree, file: fileId(reader) };
    }
    case RING_OP.resyncBegin:
      return { kind: 'resync-begin', operationsFrom: reader.u64() };
    case RING_OP.resyncEnd:
      return { kind: 'resync-end' };
    case RING_OP.notifyBegin:
      return decodeNotifyBegin(reader);
    case RING_OP.notifyEnd:
      return { kind: 'notify-end', number: reader.u64() };
    case RING_OP.breaksSent:
      return { kind: 'breaks-sent', number: reader.u32(), breaks: reader.u32() };
    case RING_OP.recalled: {
      const number = reader.u64();
      const moved = reader.u32();
      reader.skip(4);
      return { kind: 'recalled', number, moved };
    }
    default:
      throw new DecodeError('unknown-type', `${op}`);
  }
}

function decodeHello(reader: ByteReader): RingMessage {
  const server = readServerId(reader);
  const clientGuid = bytesAsText(reader, 16);
  reader.skip(4);
  const addressBytes = reader.u16();
  const nameBytes = reader.u16();
  return { kind: 'hello', server, clientGuid, address: text(reader, addressBytes), name: text(reader, nameBytes) };
}

function decodeTree(reader: ByteReader, connects: boolean): RingMessage {
  const tree = reader.u64();
  const volume = reader.u64();
  const rootInode = reader.u64();
  reader.skip(8);
  const flags = reader.u32();
  const [shareBytes, userBytes, pathBytes] = [reader.u16(), reader.u16(), reader.u16()];
  reader.skip(6);
  const [share, user, path] = [text(reader, shareBytes), text(reader, userBytes), text(reader, pathBytes)];
  return connects
    ? { kind: 'tree-connect', tree, volume, rootInode, flags, share, user, path }
    : { kind: 'tree-disconnect', tree };
}

function decodeOpenBegin(reader: ByteReader): RingMessage {
  const operation = reader.u64();
  const tree = reader.u64();
  const file = fileId(reader);
  const base = fileId(reader);
  const leaseKey = bytesAsText(reader, 16);
  const flags = reader.u32();
  const deadlineMillis = reader.u32();
  const [accessMask, shareAccess, disposition] = [reader.u32(), reader.u32(), reader.u32()];
  reader.skip(4);
  const [oplock, leaseState] = [reader.u32(), reader.u32()];
  const pathBytes = reader.u16();
  reader.skip(6);
  const path = text(reader, pathBytes);
  const terms = { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey };
  return { kind: 'open-begin', operation, tree, file, base, flags, deadlineMillis, path, ...terms };
}

function decodeOpen(reader: ByteReader, kind: 'open-end' | 'replay-open'): RingMessage {
  const operation = reader.u64();
  const tree = reader.u64();
  const file = fileId(reader);
  const [shareFileId, persistentId, sinceMicros] = [reader.u64(), reader.u64(), reader.u64()];
  const leaseKey = bytesAsText(reader, 16);
  const [flags, status, accessMask, shareAccess] = [reader.u32(), reader.u32(), reader.u32(), reader.u32()];
  const [disposition, createAction, oplock, leaseState] = [reader.u32(), reader.u32(), reader.u32(), reader.u32()];
  const pathBytes = reader.u16();
  reader.skip(2);
  const tookMicros = reader.u32();
  const path = text(reader, pathBytes);
  const terms = { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey };
  const ids = { operation, tree, file, shareFileId, persistentId, sinceMicros };
  return { kind, ...ids, flags, status, createAction, tookMicros, path, ...terms };
}

function decodeClose(reader: ByteReader): RingMessage {
  const file = fileId(reader);
  const [shareFileId, persistentId] = [reader.u64(), reader.u64()];
  reader.skip(8);
  return { kind: 'close', file, shareFileId, persistentId, flags: reader.u32(), status: reader.u32() };
}

function decodeLock(reader: ByteReader, kind: 'lock' | 'unlock' | 'replay-lock'): RingMessage {
  const file = fileId(reader);
  const [shareFileId, persistentId, start, size] = [reader.u64(), reader.u64(), reader.u64(), reader.u64()];
  const blocker = reader.u64();
  reader.skip(8);
  const [type, status] = [reader.u32(), reader.u32()];
  return { kind, file, shareFileId, persistentId, start, size, blocker, type, status };
}

function decodeLeaseChange(reader: ByteReader): RingMessage {
  const file = fileId(reader);
  const shareFileId = reader.u64();
  reader.skip(8 + 8 + 16);
  const change = reader.u32();
  const [oplockBefore, oplockAfter, leaseBefore, leaseAfter] = [
    reader.u32(),
    reader.u32(),
    reader.u32(),
    reader.u32(),
  ];
  reader.skip(4);
  return { kind: 'lease-change', file, shareFileId, change, oplockBefore, oplockAfter, leaseBefore, leaseAfter };
}

function decodeNotifyBegin(reader: ByteReader): RingMessage {
  const number = reader.u64();
  const handle = reader.u64();
  const since = reader.copy(16);
  const [filter, subdirFilter, flags] = [reader.u32(), reader.u32(), reader.u32()];
  const pathBytes = reader.u16();
  reader.skip(2);
  const change = { since, filter, subdirFilter, handle, folder: reader.copy(pathBytes) };
  return { kind: 'notify-begin', number, flags, change };
}

/** Answer to a notify-begin: `everywhere` says that the watch counts on all servers that answer. */
export function encodeNotifyReady(number: bigint, everywhere: boolean): Uint8Array {
  return new ByteWriter(16).u64(number).u32(everywhere ? 0 : 1).u32(0).finish();
}

/** Answer to an open-begin (READY): with `home` every record is here, pinned for `pinMicros`. */
export function encodeOpenReady(operation: bigint, result: keyof typeof READY, pinMicros: number): Uint8Array {
  return new ByteWriter(16).u64(operation).u32(READY[result]).u32(pinMicros).finish();
}

/** Answer to a tree-connect; `refusal` is the sentence for smbd's log, or null. */
export function encodeTreeReady(tree: bigint, refusal: string | null): Uint8Array {
  const sentence = Buffer.from(refusal ?? '', 'utf8');
  return new ByteWriter(16 + sentence.length)
    .u64(tree)
    .u32(refusal === null ? 0 : 1)
    .u16(sentence.length)
    .u16(0)
    .raw(sentence)
    .finish();
}

/** Asks a smbd to report oplock and lease changes of a file for a while. */
export function encodeWatchFile(file: FileId, watchMillis: number): Uint8Array {
  return new ByteWriter(32).raw(Buffer.from(file, 'latin1')).u32(watchMillis).u32(0).finish();
}

/** Has a smbd break all that lets its client cache writes; answered by breaks-sent. */
export function encodeBreakAll(number: number): Uint8Array {
  return new ByteWriter(8).u32(number).u32(0).finish();
}

/** Has a smbd move what it has in our slice of a folder to the one record; answered by recalled. */
export function encodeRecall(folder: FileId, number: bigint): Uint8Array {
  return new ByteWriter(32).raw(Buffer.from(folder, 'latin1')).u64(number).finish();
}

/** volume:inode:snapshot, decimal. */
export function fileIdText(file: FileId): string {
  const reader = new ByteReader(Buffer.from(file, 'latin1'));
  return `${reader.u64()}:${reader.u64()}:${reader.u64()}`;
}

function fileId(reader: ByteReader): FileId {
  return keyOf(reader.view8(24));
}

function bytesAsText(reader: ByteReader, count: number): string {
  return keyOf(reader.view8(count));
}

function text(reader: ByteReader, count: number): string {
  return Buffer.from(reader.view8(count)).toString('utf8');
}
