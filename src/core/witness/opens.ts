/**
 * All open handles that the modules of this server told of: by attachment, by file and by lease, so that who has a file
 * open is found without looking through all of them. Used by witness.ts.
 */
import type { RecordKey } from '../../base/ids.js';
import type { FileId } from '../../wire/ring-ops.js';
import type { Attachment } from '../operations/attachments.js';
import type { Open } from './open.js';

/** An honest smbd has some thousand opens at most; what one reports beyond is not kept. */
const OPENS_PER_ATTACHMENT_MAX = 65_536;
const NO_LEASE_KEY = '\0'.repeat(16);

export class Opens {
  private readonly attachments = new Map<Attachment, Map<bigint, Open>>();
  private readonly files = new Map<FileId, Map<Open, Attachment>>();
  private readonly leases = new Map<RecordKey, Map<Open, Attachment>>();
  /** Under which key an open's lease was noted: the client's GUID may be told later. */
  private readonly leaseKeys = new Map<Open, RecordKey>();

  /** Takes the place of an open of the attachment with the same share file id. False: it has too many. */
  add(attachment: Attachment, open: Open): boolean {
    let opens = this.attachments.get(attachment);
    if (opens === undefined) this.attachments.set(attachment, (opens = new Map<bigint, Open>()));
    if (opens.size >= OPENS_PER_ATTACHMENT_MAX) return false;
    this.remove(attachment, open.shareFileId);
    opens.set(open.shareFileId, open);
    put(this.files, open.file, open, attachment);
    if (attachment.clientGuid === '' || open.leaseKey === NO_LEASE_KEY) return true;
    const key = (attachment.clientGuid + open.leaseKey) as RecordKey;
    this.leaseKeys.set(open, key);
    put(this.leases, key, open, attachment);
    return true;
  }

  remove(attachment: Attachment, shareFileId: bigint): Open | undefined {
    const open = this.get(attachment, shareFileId);
    if (open === undefined) return undefined;
    this.attachments.get(attachment)?.delete(shareFileId);
    take(this.files, open.file, open);
    const key = this.leaseKeys.get(open);
    if (key !== undefined) take(this.leases, key, open);
    this.leaseKeys.delete(open);
    return open;
  }

  removeAll(attachment: Attachment): void {
    for (const { shareFileId } of [...this.ofAttachment(attachment)]) this.remove(attachment, shareFileId);
    this.attachments.delete(attachment);
  }

  get(attachment: Attachment, shareFileId: bigint): Open | undefined {
    return this.attachments.get(attachment)?.get(shareFileId);
  }

  ofAttachment(attachment: Attachment): Iterable<Open> {
    return this.attachments.get(attachment)?.values() ?? [];
  }

  /** Each open of the file, with its attachment. */
  ofFile(file: FileId): ReadonlyMap<Open, Attachment> {
    return this.files.get(file) ?? NONE;
  }

  /** `key` is the lease's key in leases.tdb: the client's GUID and the lease key. */
  ofLease(key: RecordKey): ReadonlyMap<Open, Attachment> {
    return this.leases.get(key) ?? NONE;
  }

  count(): number {
    let count = 0;
    for (const opens of this.attachments.values()) count += opens.size;
    return count;
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
