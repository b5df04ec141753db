/** Which records of which databases smbd touches for a file. */
import { databaseIdOf } from '../../base/jenkins.js';
import type { FileId } from '../../wire/ring-ops.js';
import type { NeededRecord } from '../records/pins.js';

/** Share modes; the key is the file's id. */
export const LOCKING = databaseIdOf('locking.tdb');
/** Byte-range locks; the key is the file's id. */
export const BRLOCK = databaseIdOf('brlock.tdb');
/** The key is the client's GUID and the lease key. */
export const LEASES = databaseIdOf('leases.tdb');

/**
 * What every open of a file touches. Whether there are byte-range locks it only reads (file_has_brlocks in Samba's
 * source3/smbd/open.c), mostly from an empty record.
 */
export function recordsOf(file: FileId): NeededRecord[] {
  return [
    { database: LOCKING, key: file, mode: 'write' },
    { database: BRLOCK, key: file, mode: 'read' },
  ];
}
