/**
 * Which files have all records of an open on this server: the table in the node page that lets the module skip
 * asking. May forget an entry, must not keep one after a record or a copy left (then smbd only waits the slow way, but
 * people would wonder). Used by operations.ts, told by core/records.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import { keyBytes } from '../../base/ids.js';
import type { FileId } from '../../wire/ring-ops.js';
import { HOME_KIND } from '../../wire/ring-ops.js';
import type { CoreContext } from '../context.js';
import type { RecordName } from '../records/pins.js';

/** Half of what the page's table has room for, so that its buckets seldom overflow. */
const FILES_MAX = 32_768;

export class HomeTable {
  /** The records each listed file depends on. */
  private readonly files = new Map<FileId, RecordName[]>();
  private readonly dependents = new Map<string, Set<FileId>>();

  constructor(
    private readonly context: CoreContext,
    private readonly leases: DatabaseId,
  ) {}

  has(file: FileId): boolean {
    return this.files.has(file);
  }

  /** All these records are here: an open of the file needs to ask for nothing. */
  add(file: FileId, records: readonly RecordName[]): void {
    this.remove(file);
    if (this.files.size >= FILES_MAX) {
      const oldest = this.files.keys().next();
      if (!oldest.done) this.remove(oldest.value);
    }
    this.files.set(file, [...records]);
    for (const record of records) {
      const name = nameOf(record.database, record.key);
      const files = this.dependents.get(name);
      if (files === undefined) this.dependents.set(name, new Set([file]));
      else files.add(file);
    }
    this.context.emit({ kind: 'home', present: true, what: HOME_KIND.file, key: keyBytes(file) });
  }

  came(database: DatabaseId, key: RecordKey): void {
    if (database !== this.leases || key.length !== 32) return;
    this.context.emit({ kind: 'home', present: true, what: HOME_KIND.lease, key: keyBytes(key) });
  }

  /** Called before the record leaves. */
  leaving(database: DatabaseId, key: RecordKey): void {
    for (const file of [...(this.dependents.get(nameOf(database, key)) ?? [])]) this.remove(file);
    if (database !== this.leases || key.length !== 32) return;
    this.context.emit({ kind: 'home', present: false, what: HOME_KIND.lease, key: keyBytes(key) });
  }

  private remove(file: FileId): void {
    const records = this.files.get(file);
    if (records === undefined) return;
    this.files.delete(file);
    for (const { database, key } of records) {
      const name = nameOf(database, key);
      const files = this.dependents.get(name);
      files?.delete(file);
      if (files?.size === 0) this.dependents.delete(name);
    }
    this.context.emit({ kind: 'home', present: false, what: HOME_KIND.file, key: keyBytes(file) });
  }
}

function nameOf(database: DatabaseId, key: RecordKey): string {
  return `${database}/${key}`;
}
