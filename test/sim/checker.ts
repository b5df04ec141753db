/**
 * Watches a simulated pool from outside: it reads the stores and hears what smbds read and wrote, never what the core
 * believes. It knows the one true value of each record, the last one written by any smbd of the pool.
 *
 * Checked: (1) at most one server's smbds may write a record, and while they may, no other server's may read it; (2)
 * what is read under the lock is the last version written, what a cache still holds was never older than the last
 * write, what was fetched was current at some moment of the fetch; (4) nothing is left in the stores, or waiting, when
 * all is over.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import { describeKey } from '../support/describe.js';
import type { SimulatedStore } from './store.js';
import { usableBySmbd } from './store.js';

/** Versions remembered per record, for fetches under way; a fetch during which more were written is not judged. */
const VERSIONS_MAX = 256;

interface Version {
  text: string;
  since: Micros;
}

export interface Violation {
  at: Micros;
  rule: string;
  text: string;
  /** The record concerned, as traces write it. */
  record: string;
}

export class Checker {
  readonly violations: Violation[] = [];
  readonly totals = { lockedReads: 0, writes: 0, cachedReads: 0, fetches: 0 };
  private readonly versions = new Map<string, Version[]>();

  constructor(
    private readonly now: () => Micros,
    private readonly stores: ReadonlyMap<NodeId, SimulatedStore>,
    private readonly name: (database: DatabaseId) => string,
  ) {}

  fail(rule: string, text: string, record = ''): void {
    this.violations.push({ at: this.now(), rule, text, record });
  }

  private label(database: DatabaseId, key: RecordKey): string {
    return `${this.name(database)}/${describeKey(key)}`;
  }

  private versionsOf(database: DatabaseId, key: RecordKey): Version[] {
    const id = `${database}/${key}`;
    let versions = this.versions.get(id);
    if (versions === undefined) this.versions.set(id, (versions = [{ text: '', since: 0 }]));
    return versions;
  }

  /** The last version written; '' when there is no such record. */
  current(database: DatabaseId, key: RecordKey): string {
    return this.versionsOf(database, key).at(-1)!.text;
  }

  /** Some store changed: whose smbds may use the record now? */
  storeChanged(server: NodeId, database: DatabaseId, key: RecordKey, why: string): void {
    const writable: NodeId[] = [];
    const readable: NodeId[] = [];
    for (const [node, store] of this.stores) {
      const header = store.get(database, key)?.header;
      if (header === undefined) continue;
      if (usableBySmbd(header, node, 'write')) writable.push(node);
      if (usableBySmbd(header, node, 'read')) readable.push(node);
    }
    const record = this.label(database, key);
    if (writable.length > 1) {
      this.fail('one-owner', `servers ${writable.join(', ')} may write ${record} after "${why}" on ${server}`, record);
    } else if (writable.length === 1 && readable.length > 1) {
      const readers = readable.filter((node) => node !== writable[0]).join(', ');
      const text = `server ${writable[0]} may write ${record} and ${readers} may read it after "${why}" on ${server}`;
      this.fail('no-reader-beside-a-writer', text, record);
    }
  }

  lockedRead(who: string, database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.lockedReads++;
    const expected = this.current(database, key);
    if (text === expected) return;
    const record = this.label(database, key);
    const what = `${who} read "${text}" of ${record}, last written was "${expected}"`;
    this.fail('last-version-under-the-lock', what, record);
  }

  written(database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.writes++;
    const versions = this.versionsOf(database, key);
    versions.push({ text, since: this.now() });
    if (versions.length > VERSIONS_MAX) versions.shift();
  }

  cachedRead(who: string, database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.cachedReads++;
    const expected = this.current(database, key);
    if (text === expected) return;
    const record = this.label(database, key);
    this.fail('cache-not-stale', `${who} used cached "${text}" of ${record}, last written was "${expected}"`, record);
  }

  /** What a fetch begun at `since` and answered now may have returned: any version current in between. */
  fetched(who: string, database: DatabaseId, key: RecordKey, text: string, since: Micros): void {
    this.totals.fetches++;
    const versions = this.versionsOf(database, key);
    for (let i = versions.length - 1; i >= 0; i--) {
      const version = versions[i]!;
      if (version.text === text) return;
      if (version.since < since) {
        const record = this.label(database, key);
        const expected = this.current(database, key);
        this.fail('fetch-not-stale', `${who} fetched "${text}" of ${record}, last written was "${expected}"`, record);
        return;
      }
    }
  }

  /** All is over and every record was deleted: nothing may be left. */
  storesEmpty(): void {
    for (const [node, store] of this.stores) {
      for (const { database, key } of store.keys()) {
        const record = this.label(database, key);
        const { header, data } = store.get(database, key)!;
        const state = `dmaster ${header.dmaster} flags 0x${header.flags.toString(16)} ${data.length} bytes`;
        this.fail('nothing-left', `server ${node} still has ${record}: ${state}`, record);
      }
    }
  }
}
