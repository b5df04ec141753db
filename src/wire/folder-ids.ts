/**
 * A server's slice of a folder: the folder's id with the server's number in place of snapshot 0. Its record in
 * locking.tdb holds opens that exclude nobody (docs/decisions/shared-folders.md). Mirrors SMBPOOL_SLICE_SNAPSHOT.
 */
import type { NodeId, RecordKey } from '../base/ids.js';
import { nodeId } from '../base/ids.js';
import type { FileId } from './ring-ops.js';

/** Of a file id: volume, inode and snapshot, 8 bytes each, little endian. */
const ID_BYTES = 24;
const SNAPSHOT = 16;
/** The upper half of the snapshot; the lower one is the server. */
const MARK_AT = 20;
const MARK = 'cils';
const WHOLE = '\0'.repeat(8);

/** The server whose slice it is; null: it is none. */
export function sliceServer(key: RecordKey): NodeId | null {
  if (key.length !== ID_BYTES || !key.endsWith(MARK)) return null;
  let server = 0;
  for (let at = MARK_AT - 1; at >= SNAPSHOT; at--) server = server * 256 + key.charCodeAt(at);
  return nodeId(server);
}

/** The one id of what may be a slice; anything else as it is. */
export function wholeOf(file: FileId): FileId {
  return sliceServer(file) === null ? file : ((file.slice(0, SNAPSHOT) + WHOLE) as FileId);
}

export function sliceOf(folder: FileId, server: NodeId): FileId {
  let number = '';
  for (let at = 0; at < MARK_AT - SNAPSHOT; at++) number += String.fromCharCode(Math.floor(server / 256 ** at) % 256);
  return (folder.slice(0, SNAPSHOT) + number + MARK) as FileId;
}
