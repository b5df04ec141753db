/**
 * The databases whose keys are random numbers: which keys exist, and whose they are. The creator of a key is its home
 * and says so to everybody; a key that nobody announced does not exist. When the creator's run is out of the view, its
 * keys are *orphans*: their home is chosen like that of other keys; it announces those of which somebody has something,
 * and the others are gone with their maker. Used by core/records; knows nothing of owners.
 */
import type { DatabaseId, Epoch, NodeId, RecordKey } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import { KEYS_PER_MESSAGE_MAX } from '../../wire/record-messages.js';
import type { Homes } from './homes.js';

/** Databases whose keys are random numbers made by the creator; see docs/decisions/random-keys.md. */
const RANDOM_KEY_DATABASES = new Set(['smbXsrv_open_global.tdb', 'smbXsrv_tcon_global.tdb']);

/** Each key that exists: its home, or for an orphan since which view it is one. */
type Keys = Map<RecordKey, { home: NodeId } | { orphanSince: Epoch }>;

export class RandomKeys {
  /** Per database; null for one that is open here and has other keys. */
  private readonly databases = new Map<DatabaseId, Keys | null>();
  /** Told of a database that is not open here yet: it may be one of ours or not. */
  private readonly early = new Map<DatabaseId, Keys>();
  /** Announcements of this turn. */
  private readonly announcements = new Map<
    number,
    { kind: 'exists' | 'gone'; database: DatabaseId; keys: RecordKey[] }
  >();
  private readonly homes = new Map<NodeId, { home: NodeId }>();

  constructor(
    private readonly context: CoreContext,
    private readonly byHash: Homes,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
  ) {
    for (const home of context.servers) this.at(home);
  }

  /** One object for all keys of a server: there may be a hundred thousand. */
  private at(home: NodeId): { home: NodeId } {
    const known = this.homes.get(home) ?? { home };
    this.homes.set(home, known);
    return known;
  }

  /** A database has been opened here. Returns whether its keys are random. */
  open(database: DatabaseId, name: string): boolean {
    const isRandom = RANDOM_KEY_DATABASES.has(name);
    const keys = this.early.get(database) ?? (new Map() as Keys);
    this.early.delete(database);
    this.databases.set(database, isRandom ? keys : null);
    if (!isRandom) return false;
    for (const key of this.ours(keys)) this.announce('exists', database, key);
    return true;
  }

  has(database: DatabaseId): boolean {
    return (this.databases.get(database) ?? null) !== null;
  }

  knows(database: DatabaseId, key: RecordKey): boolean {
    return this.of(database)?.has(key) ?? false;
  }

  /** The home of the key; undefined if nobody announced it, or the database's keys are not random. */
  homeOf(database: DatabaseId, key: RecordKey): NodeId | undefined {
    const known = this.of(database)?.get(key);
    if (known === undefined) return undefined;
    return 'home' in known ? known.home : this.byHash.homeOf(database, key);
  }

  /** Since which view its home has been the home; null: since it was made, or the key is not known. */
  since(database: DatabaseId, key: RecordKey): Epoch | null {
    const known = this.of(database)?.get(key);
    if (known === undefined || 'home' in known) return null;
    const since = this.byHash.since(database, key);
    return since > known.orphanSince ? since : known.orphanSince;
  }

  /**
   * We are the key's home: by making it, or because somebody has something of it and its maker is gone. True: the
   * others will be told with the next `flush`, even if the database is not open here and may have other keys: they
   * know that.
   */
  take(database: DatabaseId, key: RecordKey): boolean {
    const keys = this.of(database);
    if (keys === null) return false;
    const known = keys.get(key);
    if (known !== undefined && 'home' in known && known.home === this.context.self) return false;
    keys.set(key, this.at(this.context.self));
    this.announce('exists', database, key);
    return true;
  }

  /** The record of the key ended here, at its home. */
  end(database: DatabaseId, key: RecordKey): void {
    const keys = this.of(database);
    const known = keys?.get(key);
    if (known === undefined || !('home' in known) || known.home !== this.context.self) return;
    keys!.delete(key);
    this.announce('gone', database, key);
  }

  /** Those of our keys end of which there is nothing. */
  endUnless(exists: (database: DatabaseId, key: RecordKey) => boolean): void {
    for (const [database, keys] of this.databases) {
      if (keys === null) continue;
      for (const key of this.ours(keys)) if (!exists(database, key)) this.end(database, key);
    }
  }

  existsAt(home: NodeId, database: DatabaseId, key: RecordKey): void {
    this.of(database)?.set(key, this.at(home));
  }

  /** Somebody holds records of these keys, whose maker is gone: perhaps before it could tell us of them. */
  orphansAt(database: DatabaseId, since: Epoch, keys: readonly RecordKey[]): void {
    const known = this.of(database);
    if (known === null) return;
    const orphan = { orphanSince: since };
    for (const key of keys) if (!known.has(key)) known.set(key, orphan);
  }

  goneAt(home: NodeId, database: DatabaseId, key: RecordKey): void {
    const keys = this.of(database);
    const known = keys?.get(key);
    if (known !== undefined && 'home' in known && known.home === home) keys!.delete(key);
  }

  /** A run of a server is out of the view. */
  makerGone(maker: NodeId, since: Epoch): void {
    const orphan = { orphanSince: since };
    for (const keys of [...this.databases.values(), ...this.early.values()]) {
      for (const [key, known] of keys ?? []) if ('home' in known && known.home === maker) keys!.set(key, orphan);
    }
  }

  /** Orphans whose maker was gone by that view and whose home is `home`, of a database. */
  private *orphansOf(keys: Keys, database: DatabaseId, home: NodeId, until: Epoch): Iterable<RecordKey> {
    for (const [key, known] of keys) {
      if ('home' in known || known.orphanSince > until || this.byHash.homeOf(database, key) !== home) continue;
      yield key;
    }
  }

  /**
   * All have claimed what they have of our orphans of views until this one: those of which nothing is left are gone.
   * Whatever is left has been taken before.
   */
  orphansDone(until: Epoch): void {
    const { self } = this.context;
    this.flush();
    for (const [database, keys] of [...this.databases, ...this.early]) {
      if (keys === null) continue;
      for (const key of [...this.orphansOf(keys, database, self, until)]) keys.delete(key);
      this.postToAll({ kind: 'orphans-done', database, epoch: until });
    }
  }

  /** The home of orphans has announced all that are left. */
  onOrphansDone(home: NodeId, database: DatabaseId, until: Epoch): void {
    const keys = this.of(database);
    if (keys === null) return;
    for (const key of [...this.orphansOf(keys, database, home, until)]) keys.delete(key);
  }

  /** The keys of which `holds` is true and whose maker is gone, for a peer that may not know them. */
  tellOrphans(peers: readonly NodeId[], holds: (database: DatabaseId, key: RecordKey) => boolean): void {
    for (const [database, keys] of this.databases) {
      const held = new Map<Epoch, RecordKey[]>();
      for (const [key, known] of keys ?? []) {
        if ('home' in known || !holds(database, key)) continue;
        const same = held.get(known.orphanSince);
        if (same === undefined) held.set(known.orphanSince, [key]);
        else same.push(key);
      }
      for (const [since, all] of held) {
        for (let i = 0; i < all.length; i += KEYS_PER_MESSAGE_MAX) {
          const part = all.slice(i, i + KEYS_PER_MESSAGE_MAX);
          for (const peer of peers) this.post(peer, { kind: 'orphans', database, epoch: since, keys: part });
        }
      }
    }
  }

  /**
   * A run that continues another one has, unlike us, forgotten which keys that one made: a record that it holds and of
   * which nobody knows is one that ended, or one that it made last.
   */
  tellAllOrphans(peers: readonly NodeId[]): void {
    if (peers.length > 0) this.tellOrphans(peers, () => true);
  }

  /** A peer came: it hears what is ours. */
  announceTo(peer: NodeId): void {
    for (const [database, all] of this.databases) {
      const keys = all === null ? [] : this.ours(all);
      for (let i = 0; i < keys.length; i += KEYS_PER_MESSAGE_MAX) {
        this.post(peer, { kind: 'exists', database, keys: keys.slice(i, i + KEYS_PER_MESSAGE_MAX) });
      }
    }
  }

  /** Sends the announcements of this turn. */
  flush(): void {
    if (this.announcements.size === 0) return;
    const announcements = [...this.announcements.values()];
    this.announcements.clear();
    for (const message of announcements) this.postToAll(message);
  }

  private of(database: DatabaseId): Keys | null {
    const known = this.databases.get(database);
    if (known !== undefined) return known;
    let early = this.early.get(database);
    if (early === undefined) this.early.set(database, (early = new Map() as Keys));
    return early;
  }

  private ours(keys: Keys): RecordKey[] {
    return [...keys].filter(([, known]) => 'home' in known && known.home === this.context.self).map(([key]) => key);
  }

  /** Tells everybody, at the end of the turn, that a key exists or is gone. */
  private announce(kind: 'exists' | 'gone', database: DatabaseId, key: RecordKey): void {
    const name = database * 2 + (kind === 'gone' ? 1 : 0);
    const waiting = this.announcements.get(name);
    if (waiting === undefined) this.announcements.set(name, { kind, database, keys: [key] });
    else if (waiting.keys.push(key) >= KEYS_PER_MESSAGE_MAX) this.flush();
  }

  private postToAll(message: RecordMessage): void {
    for (const peer of this.context.members) if (peer !== this.context.self) this.post(peer, message);
  }
}
