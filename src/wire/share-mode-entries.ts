/**
 * Finds the lease holders in a record of locking.tdb, whose leases an open looks up too. Layout of Samba 4.17 and 4.22
 * (source3/lib/dbwrap/dbwrap_watch.c, source3/lib/g_lock.c, source3/locking/share_mode_lock.c,
 * librpc/idl/open_files.idl): watchers, global lock, share mode data, then entries of a fixed size. Reads only;
 * whatever does not fit yields no holders, and then smbd fetches their leases itself.
 */
import { ByteReader, DecodeError } from '../base/bytes.js';
import type { RecordKey } from '../base/ids.js';
import { keyOf } from '../base/ids.js';

const WATCHER_BYTES = 32;
/** Exclusive holder 24, two epochs of 8. */
const LOCK_HEAD_BYTES = 24 + 16;
const SHARED_HOLDER_BYTES = 24;
const ENTRY_BYTES = 132;
const ENTRY_OP_TYPE = 32;
const ENTRY_CLIENT_GUID = 36;
const ENTRY_LEASE_KEY = 56;
const LEASE_OPLOCK = 0x100;

/** Keys in leases.tdb (client GUID and lease key) of the holders, each once, at most `countMax`. */
export function leaseHolders(lockingData: Uint8Array, countMax: number): RecordKey[] {
  try {
    return [...new Set(holders(lockingData))].slice(0, countMax);
  } catch (error) {
    if (error instanceof DecodeError) return [];
    throw error;
  }
}

function* holders(lockingData: Uint8Array): Iterable<RecordKey> {
  if (lockingData.length === 0) return;
  const reader = new ByteReader(lockingData);
  reader.skip(reader.u32() * WATCHER_BYTES);
  if (reader.remaining === 0) return;
  reader.skip(LOCK_HEAD_BYTES);
  reader.skip(reader.u32() * SHARED_HOLDER_BYTES);
  if (reader.remaining === 0) return;
  reader.skip(reader.u32());
  while (reader.remaining >= ENTRY_BYTES) {
    const entry = new ByteReader(reader.view8(ENTRY_BYTES));
    entry.skip(ENTRY_OP_TYPE);
    if (entry.u16() !== LEASE_OPLOCK) continue;
    entry.skip(ENTRY_CLIENT_GUID - entry.offset);
    const guid = keyOf(entry.view8(16));
    entry.skip(ENTRY_LEASE_KEY - entry.offset);
    yield (guid + keyOf(entry.view8(16))) as RecordKey;
  }
}
