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
import { FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';
import { describeKey } from '../support/describe.js';
import type { SimulatedStore } from './store.js';
import { usableBySmbd } from './store.js';

interface Version {
  text: string;
  since: Micros;
}

/** What is known of a record's versions. */
interface History {
  /** All of them: an owner may have written hundreds since it took the record from a survivor. */
  versions: Version[];
  /**
   * The last owner died with its store: the newest version that a survivor still had (as owner or backup), as its
   * place in `versions`. What is read next must not be older. Null: the last version written is the only right one.
   */
  floor: number | null;
  /** No survivor had any version: it may be gone. */
  mayBeGone: boolean;
  /** When a server last died that owned the record or kept its backup. */
  diedAt: Micros;
}

export interface Violation {
  at: Micros;
  rule: string;
  text: string;
  /** The record concerned, as traces write it. */
  record: string;
}

/** What a scheduled smbd needs to take its answer; the core holds records for a millisecond. */
const COPY_MICROS_MIN = 500;
/**
 * Two of those who have a record's content dying within this time is more than it survives: what a third server still
 * has may be about to be dropped. The time of a partition that kept servers from making up for the first death does not
 * count.
 */
const DEATHS_APART_MICROS = 2_000_000;

export class Checker {
  readonly violations: Violation[] = [];
  readonly totals = { lockedReads: 0, writes: 0, cachedReads: 0, fetches: 0 };
  /** When each server took its present copy of a record. */
  private readonly copies = new Map<string, Micros>();
  /** When each server last died. */
  private readonly deaths = new Map<NodeId, Micros>();
  private readonly histories = new Map<string, History>();
  /** The last partition; `to` is Infinity while it lasts. */
  private partition = { from: -Infinity, to: -Infinity };

  constructor(
    private readonly now: () => Micros,
    private readonly stores: ReadonlyMap<NodeId, SimulatedStore>,
    private readonly name: (database: DatabaseId) => string,
    /** The module lets no smbd of the server do anything. */
    private readonly isFenced: (server: NodeId) => boolean = () => false,
  ) {}

  fail(rule: string, text: string, record = ''): void {
    this.violations.push({ at: this.now(), rule, text, record });
  }

  private label(database: DatabaseId, key: RecordKey): string {
    return `${this.name(database)}/${describeKey(key)}`;
  }

  private historyOf(database: DatabaseId, key: RecordKey): History {
    const id = `${database}/${key}`;
    let history = this.histories.get(id);
    if (history === undefined) {
      history = { versions: [{ text: '', since: 0 }], floor: null, mayBeGone: false, diedAt: -Infinity };
      this.histories.set(id, history);
    }
    return history;
  }

  /** Whether `text` may be what the record holds now. */
  private mayBe(history: History, text: string): boolean {
    const { versions, floor, mayBeGone } = history;
    if (floor !== null && mayBeGone && text === '') return true;
    if (floor === null) return text === versions.at(-1)!.text;
    return versions.slice(floor).some((version) => version.text === text);
  }

  private expectation({ versions, floor }: History): string {
    const last = `last written was "${versions.at(-1)!.text}"`;
    return floor === null ? last : `${last}, and a survivor had "${versions[floor]!.text}"`;
  }

  /** A link is cut; more may be. */
  cut(): void {
    if (this.partition.to !== Infinity) this.partition = { from: this.now(), to: Infinity };
  }

  /** All links are whole again. */
  healed(): void {
    this.partition.to = this.now();
  }

  /** When others could begin to make up for a death: it, or the end of a partition that kept them from it. */
  private endOf(death: Micros): Micros {
    const { from, to } = this.partition;
    if (death === -Infinity || to < death || from > death + DEATHS_APART_MICROS) return death;
    return Math.min(to, this.now());
  }

  /** A server is lost with its store, which is still there to look at. */
  serverDied(dead: NodeId): void {
    for (const id of [...this.copies.keys()]) if (id.startsWith(`${dead}/`)) this.copies.delete(id);
    for (const [id, history] of this.histories) {
      const slash = id.indexOf('/');
      const database = Number(id.slice(0, slash)) as DatabaseId;
      const key = id.slice(slash + 1) as RecordKey;
      let newest = 0;
      let owned = false;
      let hadIt = false;
      for (const [node, store] of this.stores) {
        const record = node === dead ? null : store.get(database, key);
        if (record === null) continue;
        if (record.header.dmaster === node) owned = true;
        // or was about to have it
        if (record.header.dmaster === dead) hadIt = true;
        // read copies do not bring a record back: they are revoked when the owner is lost
        if ((record.header.flags & FLAG_HAVE_READONLY) !== 0) continue;
        const text = Buffer.from(record.data).toString('latin1');
        // an empty record does not say which of the deletions it is
        if (text === '') continue;
        newest = Math.max(newest, history.versions.findLastIndex((version) => version.text === text));
      }
      const own = this.stores.get(dead)?.get(database, key)?.header ?? null;
      // what it gave to one that was dead is lost with it
      const givenTo = own === null ? -Infinity : (this.deaths.get(own.dmaster as NodeId) ?? -Infinity);
      const isSecondDeath = this.now() - this.endOf(Math.max(history.diedAt, givenTo)) <= DEATHS_APART_MICROS;
      if (hadIt || (own !== null && (own.flags & FLAG_HAVE_READONLY) === 0)) history.diedAt = this.now();
      if (owned) continue;
      if (isSecondDeath) newest = 0;
      history.mayBeGone ||= newest === 0;
      history.floor = history.floor === null ? newest : Math.min(history.floor, newest);
    }
    this.deaths.set(dead, this.now());
  }

  /** Too many who had the record died at once: it may be gone for those who live. */
  mayBeGone(database: DatabaseId, key: RecordKey): boolean {
    return this.histories.get(`${database}/${key}`)?.mayBeGone ?? false;
  }

  /** Some store changed: whose smbds may use the record now? */
  storeChanged(server: NodeId, database: DatabaseId, key: RecordKey, why: string): void {
    const writable: NodeId[] = [];
    const readable: NodeId[] = [];
    for (const [node, store] of this.stores) {
      const header = store.get(database, key)?.header;
      if (header === undefined || this.isFenced(node)) continue;
      if (usableBySmbd(header, node, 'write')) writable.push(node);
      if (usableBySmbd(header, node, 'read')) readable.push(node);
    }
    const record = this.label(database, key);
    this.watchCopy(server, database, key, record);
    if (writable.length > 1) {
      this.fail('one-owner', `servers ${writable.join(', ')} may write ${record} after "${why}" on ${server}`, record);
    } else if (writable.length === 1 && readable.length > 1) {
      const readers = readable.filter((node) => node !== writable[0]).join(', ');
      const text = `server ${writable[0]} may write ${record} and ${readers} may read it after "${why}" on ${server}`;
      this.fail('no-reader-beside-a-writer', text, record);
    }
  }

  /**
   * smbd's brlock.c notes the sequence number only after it got a copy; one that goes at once would stay in its cache.
   */
  private watchCopy(server: NodeId, database: DatabaseId, key: RecordKey, record: string): void {
    const id = `${server}/${database}/${key}`;
    const header = this.stores.get(server)?.get(database, key)?.header;
    if (header !== undefined && (header.flags & FLAG_HAVE_READONLY) !== 0) {
      this.copies.set(id, this.now());
      return;
    }
    const since = this.copies.get(id);
    if (since === undefined) return;
    this.copies.delete(id);
    const stayed = this.now() - since;
    // what overwrites the copy is the record itself, which stays in turn
    if (header !== undefined || stayed >= COPY_MICROS_MIN) return;
    this.fail('copy-stays-a-moment', `the copy of ${record} on server ${server} was gone after ${stayed} us`, record);
  }

  lockedRead(who: string, database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.lockedReads++;
    const history = this.historyOf(database, key);
    if (!this.mayBe(history, text)) {
      const record = this.label(database, key);
      const what = `${who} read "${text}" of ${record}, ${this.expectation(history)}`;
      this.fail('last-version-under-the-lock', what, record);
    } else if (history.floor !== null) {
      history.floor = null;
      history.mayBeGone = false;
      this.push(history, text);
    }
  }

  written(database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.writes++;
    this.push(this.historyOf(database, key), text);
  }

  private push(history: History, text: string): void {
    history.versions.push({ text, since: this.now() });
  }

  cachedRead(who: string, database: DatabaseId, key: RecordKey, text: string): void {
    this.totals.cachedReads++;
    const history = this.historyOf(database, key);
    if (this.mayBe(history, text)) return;
    const record = this.label(database, key);
    this.fail('cache-not-stale', `${who} used cached "${text}" of ${record}, ${this.expectation(history)}`, record);
  }

  /** What a fetch begun at `since` and answered now may have returned: any version current in between. */
  fetched(who: string, database: DatabaseId, key: RecordKey, text: string, since: Micros): void {
    this.totals.fetches++;
    const history = this.historyOf(database, key);
    if (this.mayBe(history, text)) return;
    for (let i = history.versions.length - 1; i >= 0; i--) {
      const version = history.versions[i]!;
      if (version.text === text) return;
      if (version.since < since) {
        const record = this.label(database, key);
        this.fail('fetch-not-stale', `${who} fetched "${text}" of ${record}, ${this.expectation(history)}`, record);
        return;
      }
    }
  }

  /**
   * Nothing has happened for a while: the next loss of one server may lose nothing that others wrote. `living`: servers
   * of the pool.
   */
  backupsExist(living: readonly NodeId[]): void {
    for (const [id, { versions, floor }] of this.histories) {
      if (floor !== null) continue;
      const slash = id.indexOf('/');
      const [database, key] = [Number(id.slice(0, slash)) as DatabaseId, id.slice(slash + 1) as RecordKey];
      const placeOf = (node: NodeId): number => {
        const data = this.stores.get(node)?.get(database, key)?.data;
        const text = data === undefined ? null : Buffer.from(data).toString('latin1');
        return text === null ? -1 : versions.findLastIndex((version) => version.text === text);
      };
      const owner = living.find((node) => this.stores.get(node)?.get(database, key)?.header.dmaster === node);
      if (owner === undefined) continue;
      const isOfOther = ({ text }: Version): boolean => {
        const writer = /^v\d+ smbd(\d+)\./.exec(text);
        const server = Number(writer?.[1] ?? owner) as NodeId;
        // one that comes back is there twice
        const written = versions.find((version) => version.text === text)!.since;
        return server !== owner && living.includes(server) && written > (this.deaths.get(server) ?? -Infinity);
      };
      const ofOthers = versions.findLastIndex(isOfOther);
      const isEmptied = versions.findLastIndex(({ text }) => text === '') > ofOthers;
      const kept = Math.max(...living.filter((node) => node !== owner).map(placeOf));
      if (isEmptied || ofOthers <= kept) continue;
      const record = this.label(database, key);
      const text = `${record} is on server ${owner} alone, with "${versions[ofOthers]!.text}"`;
      this.fail('backups-exist', text, record);
    }
  }

  /**
   * All is over and every record was deleted: nothing may be left; after restarts backups that no home knows of may,
   * since no smbd uses them.
   */
  storesEmpty(backupsMayStay: boolean): void {
    for (const [node, store] of this.stores) {
      for (const { database, key } of store.keys()) {
        const record = this.label(database, key);
        const { header, data } = store.get(database, key)!;
        if (backupsMayStay && !usableBySmbd(header, node, 'read')) continue;
        const state = `dmaster ${header.dmaster} flags 0x${header.flags.toString(16)} ${data.length} bytes`;
        this.fail('nothing-left', `server ${node} still has ${record}: ${state}`, record);
      }
    }
  }
}
