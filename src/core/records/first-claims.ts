/**
 * Claims of single keys ahead of all others (docs/decisions/recovery.md): a home that is asked for a key before all
 * claims are in has every member claim that key now. Which keys were, at the home and at those who claim: neither may
 * take what comes later for news. As many keys as somebody waited for, until all claims are in. Used by recovery.ts.
 */
import type { DatabaseId, Epoch, NodeId, RecordKey } from '../../base/ids.js';

/** Something about each of some keys. */
class ByKey<T> {
  private readonly databases = new Map<DatabaseId, Map<RecordKey, T>>();

  get(database: DatabaseId, key: RecordKey): T | undefined {
    return this.databases.get(database)?.get(key);
  }

  set(database: DatabaseId, key: RecordKey, value: T): void {
    const keys = this.databases.get(database) ?? new Map<RecordKey, T>();
    this.databases.set(database, keys.set(key, value));
  }

  delete(database: DatabaseId, key: RecordKey): void {
    this.databases.get(database)?.delete(key);
  }

  clear(): void {
    this.databases.clear();
  }
}

/** Keys whose home knows, or was told by us, all there is: as long as that home has been theirs since the same view. */
export class KeysSince {
  private readonly since = new ByKey<Epoch>();
  private isEmpty = true;

  add(database: DatabaseId, key: RecordKey, since: Epoch): void {
    this.since.set(database, key, since);
    this.isEmpty = false;
  }

  /** @param since the view since which the key's home is its home now */
  has(database: DatabaseId, key: RecordKey, since: Epoch): boolean {
    return !this.isEmpty && this.since.get(database, key) === since;
  }

  clear(): void {
    this.since.clear();
    this.isEmpty = true;
  }
}

/** The home's side: whose word on which key is still to come, in the view that is installed. */
export class AwaitedClaims {
  private readonly awaited = new ByKey<Set<NodeId>>();

  /** Those who have to be asked for the key: none if they have been asked in this view. */
  begin(database: DatabaseId, key: RecordKey, members: readonly NodeId[]): readonly NodeId[] {
    if (this.awaited.get(database, key) !== undefined) return [];
    this.awaited.set(database, key, new Set(members));
    return members;
  }

  /** Whether this was the last word on it. */
  claimed(from: NodeId, database: DatabaseId, key: RecordKey): boolean {
    const members = this.awaited.get(database, key);
    if (members?.delete(from) !== true || members.size > 0) return false;
    this.awaited.delete(database, key);
    return true;
  }

  /** A view came: whoever waits asks anew. */
  clear(): void {
    this.awaited.clear();
  }
}
