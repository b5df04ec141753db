/**
 * Reads records of locking.tdb: whose leases an open looks up too, and whether an open of a folder excludes others.
 * Layout of Samba 4.17 and 4.22 (source3/lib/dbwrap/dbwrap_watch.c, source3/lib/g_lock.c,
 * source3/locking/share_mode_lock.c, librpc/idl/open_files.idl): watchers, global lock, share mode data, then entries
 * of a fixed size. What does not fit yields no holders, and then smbd fetches their leases itself; and it counts as
 * excluding.
 */
import { ByteReader, DecodeError } from '../base/bytes.js';
import type { RecordKey } from '../base/ids.js';
import { keyOf } from '../base/ids.js';

const WATCHER_BYTES = 32;
/** Exclusive holder 24, two epochs of 8. */
const LOCK_HEAD_BYTES = 24 + 16;
const SHARED_HOLDER_BYTES = 24;
/** In the share mode data: epoch 8, flags 2 and 2 bytes between, three pointers of 4. */
const DATA_DELETE_TOKENS = 24;
const ENTRY_BYTES = 132;
const ENTRY_OP_TYPE = 32;
const ENTRY_CLIENT_GUID = 36;
const ENTRY_LEASE_KEY = 56;
const ENTRY_ACCESS_MASK = 72;
const LEASE_OPLOCK = 0x100;
const ACCESS_DELETE = 0x10000;
/** FILE_SHARE_READ, WRITE and DELETE. */
const SHARES_ALL = 7;

interface ShareModes {
  /** Opens that asked for the file's deletion, some of which may be closed. */
  deleteTokens: number;
  entries: ByteReader[];
}

/** Keys in leases.tdb (client GUID and lease key) of the holders, each once, at most `countMax`. */
export function leaseHolders(lockingData: Uint8Array, countMax: number): RecordKey[] {
  const keys = new Set<RecordKey>();
  for (const entry of shareModesOf(lockingData)?.entries ?? []) {
    entry.skip(ENTRY_OP_TYPE);
    if (entry.u16() !== LEASE_OPLOCK) continue;
    entry.skip(ENTRY_CLIENT_GUID - entry.offset);
    const guid = keyOf(entry.view8(16));
    entry.skip(ENTRY_LEASE_KEY - entry.offset);
    keys.add((guid + keyOf(entry.view8(16))) as RecordKey);
  }
  return [...keys].slice(0, countMax);
}

/** Whether any open of the folder may conflict with one that shares all and does not ask to delete. */
export function hasExcluder(lockingData: Uint8Array): boolean {
  const modes = shareModesOf(lockingData);
  if (modes === null || modes.deleteTokens > 0) return true;
  return modes.entries.some((entry) => {
    entry.skip(ENTRY_ACCESS_MASK);
    const [accessMask, shareAccess] = [entry.u32(), entry.u32()];
    return (accessMask & ACCESS_DELETE) !== 0 || (shareAccess & SHARES_ALL) !== SHARES_ALL;
  });
}

/** Null: it is not laid out as we know it. */
function shareModesOf(lockingData: Uint8Array): ShareModes | null {
  try {
    return readShareModes(lockingData);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

function readShareModes(lockingData: Uint8Array): ShareModes {
  const none = { deleteTokens: 0, entries: [] };
  if (lockingData.length === 0) return none;
  const reader = new ByteReader(lockingData);
  reader.skip(reader.u32() * WATCHER_BYTES);
  if (reader.remaining === 0) return none;
  reader.skip(LOCK_HEAD_BYTES);
  reader.skip(reader.u32() * SHARED_HOLDER_BYTES);
  if (reader.remaining === 0) return none;
  const data = new ByteReader(reader.view8(reader.u32()));
  if (data.remaining > 0) data.skip(DATA_DELETE_TOKENS);
  const deleteTokens = data.remaining === 0 ? 0 : data.u32();
  const entries: ByteReader[] = [];
  while (reader.remaining >= ENTRY_BYTES) entries.push(new ByteReader(reader.view8(ENTRY_BYTES)));
  if (reader.remaining > 0) throw new DecodeError('share-mode-entry', `${reader.remaining} bytes are left`);
  return { deleteTokens, entries };
}
