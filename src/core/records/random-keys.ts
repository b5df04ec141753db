/**
 * The databases whose keys are random numbers: which keys exist, and whose they are. The creator of a key is its home
 * and says so to everybody; a key that nobody announced does not exist. A home that starts anew stays the home of what
 * it made: its peers keep their marks until it has announced anew what they still have. Used by core/records; knows
 * nothing of owners.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import { KEYS_PER_MESSAGE_MAX } from '../../wire/record-messages.js';

/** Databases whose keys are random numbers made by the creator; see docs/decisions/random-keys.md. */
const RANDOM_KEY_DATABASES = new Set(['smbXsrv_open_global.tdb', 'smbXsrv_tcon_global.tdb']);

/** The home of each key that exists. */
type Homes = Map<RecordKey, NodeId>;

export class RandomKeys {
  /** Per database; null for one that is open here and has other keys. */
  private readonly databases = new Map<DatabaseId, Homes | null>();
  /** Told of a database that is not open here yet: it may be one of ours or not. */
  private readonly early = new Map<DatabaseId, Homes>();
  /** Keys of a home that started anew, until it has announced those that still exist. */
  private readonly unconfirmed = new Map<NodeId, Map<DatabaseId, Set<RecordKey>>>();
  /** Announcements of this turn. */
  private readonly announcements = new Map<
    number,
    { kind: 'exists' | 'gone'; database: DatabaseId; keys: RecordKey[] }
  >();
  /** All claims have come: what we announce is all we have. */
  private complete = false;

  constructor(
    private readonly context: CoreContext,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
  ) {}

  /** A database has been opened here. Returns whether its keys are random. */
  open(database: DatabaseId, name: string): boolean {
    const isRandom = RANDOM_KEY_DATABASES.has(name);
    const homes = this.early.get(database) ?? (new Map() as Homes);
    this.early.delete(database);
    this.databases.set(database, isRandom ? homes : null);
    if (!isRandom) return false;
    for (const [key, home] of homes) if (home === this.context.self) this.announce('exists', database, key);
    if (this.complete) this.announceAll(database);
    return true;
  }

  has(database: DatabaseId): boolean {
    return (this.databases.get(database) ?? null) !== null;
  }

  /** The announced home of the key; undefined if nobody announced it, or the database's keys are not random. */
  homeOf(database: DatabaseId, key: RecordKey): NodeId | undefined {
    return this.of(database)?.get(key);
  }

  /** We are the key's home: by making it, or because a peer has it from an earlier run of ours. */
  take(database: DatabaseId, key: RecordKey): void {
    const homes = this.of(database);
    if (homes === null || homes.get(key) === this.context.self) return;
    homes.set(key, this.context.self);
    if (this.has(database)) this.announce('exists', database, key);
  }

  /** The record of the key ended here, at its home. */
  end(database: DatabaseId, key: RecordKey): void {
    const homes = this.of(database);
    if (homes?.get(key) !== this.context.self) return;
    homes.delete(key);
    if (this.has(database)) this.announce('gone', database, key);
  }

  existsAt(home: NodeId, database: DatabaseId, key: RecordKey): void {
    this.of(database)?.set(key, home);
    this.unconfirmed.get(home)?.get(database)?.delete(key);
  }

  /** Another server than the home says that the keys exist: the home may have died before it could tell us. */
  heardOf(home: NodeId, database: DatabaseId, keys: readonly RecordKey[]): void {
    const homes = this.of(database);
    if (homes === null || home === this.context.self) return;
    for (const key of keys) if (!homes.has(key)) homes.set(key, home);
  }

  goneAt(home: NodeId, database: DatabaseId, key: RecordKey): void {
    const homes = this.of(database);
    if (homes?.get(key) === home) homes.delete(key);
  }

  /** A home started anew; it stays the home of its keys, but may not get to know all of them. */
  peerReset(peer: NodeId): void {
    const marks = new Map<DatabaseId, Set<RecordKey>>();
    for (const [database, homes] of [...this.databases, ...this.early]) {
      const keys = new Set<RecordKey>();
      for (const [key, home] of homes ?? []) if (home === peer) keys.add(key);
      if (keys.size > 0) marks.set(database, keys);
    }
    this.unconfirmed.set(peer, marks);
  }

  /** A home that started anew has announced all it has: its other keys were lost with all who had them. */
  onAll(home: NodeId, database: DatabaseId): void {
    const marks = this.unconfirmed.get(home);
    for (const key of marks?.get(database) ?? []) this.goneAt(home, database, key);
    marks?.delete(database);
  }

  /** A peer is met: it hears what is ours. */
  announceTo(peer: NodeId): void {
    for (const [database, homes] of this.databases) {
      const keys = [...(homes ?? [])].filter(([, home]) => home === this.context.self).map(([key]) => key);
      for (let i = 0; i < keys.length; i += KEYS_PER_MESSAGE_MAX) {
        this.post(peer, { kind: 'exists', database, keys: keys.slice(i, i + KEYS_PER_MESSAGE_MAX) });
      }
      if (homes !== null && this.complete) this.post(peer, { kind: 'exists-all', database });
    }
  }

  /** Everybody has told us what it has of our keys. */
  claimsComplete(): void {
    this.complete = true;
    for (const [database, homes] of this.databases) if (homes !== null) this.announceAll(database);
  }

  /** Sends the announcements of this turn. */
  flush(): void {
    if (this.announcements.size === 0) return;
    const announcements = [...this.announcements.values()];
    this.announcements.clear();
    for (const message of announcements) this.postToAll(message);
  }

  private of(database: DatabaseId): Homes | null {
    const known = this.databases.get(database);
    if (known !== undefined) return known;
    let early = this.early.get(database);
    if (early === undefined) this.early.set(database, (early = new Map() as Homes));
    return early;
  }

  /** Tells everybody, at the end of the turn, that a key exists or is gone. */
  private announce(kind: 'exists' | 'gone', database: DatabaseId, key: RecordKey): void {
    const name = database * 2 + (kind === 'gone' ? 1 : 0);
    const waiting = this.announcements.get(name);
    if (waiting === undefined) this.announcements.set(name, { kind, database, keys: [key] });
    else if (waiting.keys.push(key) >= KEYS_PER_MESSAGE_MAX) this.flush();
  }

  private announceAll(database: DatabaseId): void {
    this.flush();
    this.postToAll({ kind: 'exists-all', database });
  }

  private postToAll(message: RecordMessage): void {
    for (const peer of this.context.members) if (peer !== this.context.self) this.post(peer, message);
  }
}
