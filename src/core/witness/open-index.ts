/**
 * The opens of all attachments by file and by lease: who has this file open, without looking through all opens of the
 * server. Kept by core/witness/witness beside the attachments; knows nothing that they do not.
 */
import type { RecordKey } from '../../base/ids.js';
import type { FileId } from '../../wire/ring-ops.js';
import type { Attachment, Open } from './attachments.js';

const NO_LEASE_KEY = '\0'.repeat(16);

export class OpenIndex {
  private readonly files = new Map<FileId, Map<Open, Attachment>>();
  private readonly leases = new Map<RecordKey, Map<Open, Attachment>>();
  /** Under which key an open's lease was noted: the client's GUID may be told later. */
  private readonly leaseKeys = new Map<Open, RecordKey>();

  /** Takes the place of an open of the attachment with the same share file id. */
  add(attachment: Attachment, open: Open): void {
    this.remove(attachment, open.shareFileId);
    attachment.opens.set(open.shareFileId, open);
    put(this.files, open.file, open, attachment);
    if (attachment.clientGuid === '' || open.leaseKey === NO_LEASE_KEY) return;
    const key = (attachment.clientGuid + open.leaseKey) as RecordKey;
    this.leaseKeys.set(open, key);
    put(this.leases, key, open, attachment);
  }

  remove(attachment: Attachment, shareFileId: bigint): Open | undefined {
    const open = attachment.opens.get(shareFileId);
    if (open === undefined) return undefined;
    attachment.opens.delete(shareFileId);
    take(this.files, open.file, open);
    const key = this.leaseKeys.get(open);
    if (key !== undefined) take(this.leases, key, open);
    this.leaseKeys.delete(open);
    return open;
  }

  removeAll(attachment: Attachment): void {
    for (const shareFileId of [...attachment.opens.keys()]) this.remove(attachment, shareFileId);
  }

  /** Each open of the file, with its attachment. */
  ofFile(file: FileId): ReadonlyMap<Open, Attachment> {
    return this.files.get(file) ?? NONE;
  }

  /** `key` is the lease's key in leases.tdb: the client's GUID and the lease key. */
  ofLease(key: RecordKey): ReadonlyMap<Open, Attachment> {
    return this.leases.get(key) ?? NONE;
  }
}

const NONE: ReadonlyMap<Open, Attachment> = new Map<Open, Attachment>();

function put<K>(index: Map<K, Map<Open, Attachment>>, key: K, open: Open, attachment: Attachment): void {
  const opens = index.get(key);
  if (opens === undefined) index.set(key, new Map([[open, attachment]]));
  else opens.set(open, attachment);
}

function take<K>(index: Map<K, Map<Open, Attachment>>, key: K, open: Open): void {
  const opens = index.get(key);
  opens?.delete(open);
  if (opens?.size === 0) index.delete(key);
}
