/**
 * The databases of the pool and the processes waiting to attach one. The first attach anywhere makes every server open
 * the database; an attach is answered once it is open here and, for a persistent one, in sync. A database once known
 * stays.
 */
import type { DatabaseId, NodeId } from '../../base/ids.js';
import { databaseIdOf } from '../../base/jenkins.js';
import { TDB_FLAG_SEQNUM } from '../../wire/ctdb-controls.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { DatabaseKind } from '../../wire/gate-messages.js';
import type { CoreContext } from '../context.js';
import type { Input, KeptInput } from '../effects.js';
import { decodeKeptDatabase, encodeKeptDatabase } from '../../wire/kept-state.js';
import type { PersistentForGate, RecordsForGate, Refusal } from './ports.js';

/** Samba knows about forty databases; a client that invents names must not fill the disk. */
export const DATABASES_MAX = 512;
/** Names become file names; Samba's longest has 28 characters. */
export const DATABASE_NAME_BYTES_MAX = 128;
/** Attaches that wait for one database. Each belongs to a process that waits, so there are not many. */
export const ATTACHES_WAITING_MAX = 4_096;

export interface Database {
  readonly id: DatabaseId;
  readonly name: string;
  readonly kind: DatabaseKind;
  state: 'opening' | 'open';
  path: string;
  /** tdb flags with which a local process is to open the file. */
  flags: number;
  /** smbd asked that each store raises the file's sequence number. */
  countsChanges: boolean;
  /** Read copies may be asked for. */
  readonly: boolean;
  waiting: ((refusal: Refusal) => void)[];
}

type OpenedInput = Omit<Extract<Input, { kind: 'database-opened' }>, 'kind'>;

export class Databases {
  private readonly databases = new Map<DatabaseId, Database>();
  /** Peers that were told of all databases and must hear of new ones. */
  private readonly told = new Set<NodeId>();

  constructor(
    private readonly context: CoreContext,
    private readonly records: RecordsForGate,
    private readonly persistent: PersistentForGate,
  ) {}

  get(id: DatabaseId): Database | undefined {
    return this.databases.get(id);
  }

  /** All, in the order of their first attach. */
  list(): Database[] {
    return [...this.databases.values()];
  }

  isVolatile(id: DatabaseId): boolean {
    return this.databases.get(id)?.kind === 'volatile';
  }

  /** A local process attaches; `done` is called once with null, or with why not. */
  attach(name: string, kind: DatabaseKind, done: (refusal: Refusal, database: DatabaseId) => void): void {
    const id = databaseIdOf(name);
    const refusal = this.refusalOf(id, name, kind);
    if (refusal !== null) {
      this.context.count('gate.attach.refused');
      this.context.log('warn', 'gate.attach.refused', { database: name, why: refusal });
      return done(refusal, id);
    }
    let database = this.databases.get(id);
    if (database === undefined) {
      database = this.open(id, name, kind);
      for (const peer of this.told) this.announce(peer, database);
    }
    const finish = (why: Refusal): void => done(why, id);
    if (database.state === 'open') this.whenInSync(database, finish);
    else if (database.waiting.length >= ATTACHES_WAITING_MAX) done('too many processes wait for this database', id);
    else database.waiting.push(finish);
  }

  /**
   * Opens what is on our disk, though nobody asks for it yet: who leads has to know of each file of a server that
   * counts. A name that is not fit was none of ours.
   */
  openExisting(names: readonly string[]): void {
    for (const name of names) {
      const id = databaseIdOf(name);
      if (this.databases.has(id) || this.refusalOf(id, name, 'persistent') !== null) continue;
      this.open(id, name, 'persistent');
    }
  }

  private refusalOf(id: DatabaseId, name: string, kind: DatabaseKind): Refusal {
    const known = this.databases.get(id);
    if (known !== undefined) {
      if (known.name !== name) return `the name has the same number as ${known.name}`;
      // a volatile attach of a persistent database succeeds, as with CTDB: tools do it before they know the kind
      return kind === known.kind || kind === 'volatile' ? null : `the database is ${known.kind}, not ${kind}`;
    }
    if (!/^[\w.-]+$/.test(name) || name.startsWith('.')) return 'the name is not fit for a file';
    if (name.length > DATABASE_NAME_BYTES_MAX) return 'the name is too long';
    return this.databases.size >= DATABASES_MAX ? 'too many databases' : null;
  }

  private open(id: DatabaseId, name: string, kind: DatabaseKind): Database {
    const database: Database = {
      id,
      name,
      kind,
      state: 'opening',
      path: '',
      flags: 0,
      countsChanges: false,
      readonly: false,
      waiting: [],
    };
    this.databases.set(id, database);
    const persistent = kind !== 'volatile';
    this.context.log('info', 'gate.database.open', { database: name, kind });
    this.context.emit({ kind: 'database-open', database: id, name, persistent });
    // effects are performed in order, so the engine's work on records comes after the opening
    if (persistent) this.persistent.databaseOpening(id);
    else {
      this.records.addDatabase(id, name);
      this.keep(database);
    }
    return database;
  }

  /** What is known of a volatile database has changed: a run that continues ours must know it. */
  private keep({ id, name, kind, readonly, countsChanges }: Database): void {
    if (kind !== 'volatile') return;
    const state = encodeKeptDatabase({ readonly, countsChanges });
    this.context.emit({ kind: 'database-keep', database: id, name, state });
  }

  /** A volatile database that the run that we continue had open. Throws DecodeError. */
  reopen({ database: id, name, path, flags, state }: Extract<KeptInput, { kind: 'database-kept' }>): void {
    const { readonly, countsChanges } = decodeKeptDatabase(state);
    this.databases.set(id, {
      id, name, kind: 'volatile', state: 'open', path, flags, countsChanges, readonly, waiting: [],
    });
    this.records.addDatabase(id, name);
  }

  /** None is being opened. */
  get areOpen(): boolean {
    return [...this.databases.values()].every(({ state }) => state === 'open');
  }

  /** smbd wants each store to raise the file's sequence number. */
  countChanges(database: Database): void {
    if (database.countsChanges) return;
    database.countsChanges = true;
    this.keep(database);
  }

  onDatabaseOpened(input: OpenedInput): void {
    const database = this.databases.get(input.database);
    if (database === undefined || database.state === 'open') {
      return this.context.count('gate.database.opened.unexpected');
    }
    const waiting = database.waiting;
    database.waiting = [];
    if (input.error !== undefined) {
      // the next attach tries again
      this.databases.delete(input.database);
      this.context.count('gate.database.open-failed');
      this.context.log('error', 'gate.database.open-failed', { database: database.name, why: input.error });
      for (const done of waiting) done(`cannot open the database: ${input.error}`);
      return;
    }
    database.state = 'open';
    database.path = input.path;
    database.flags = input.flags;
    if (database.kind !== 'volatile') this.persistent.databaseOpened(database.id, database.name);
    for (const done of waiting) this.whenInSync(database, done);
  }

  private whenInSync(database: Database, done: (refusal: Refusal) => void): void {
    if (database.kind === 'volatile') done(null);
    else this.persistent.whenInSync(database.id, done);
  }

  /** The tdb flags for a local process. */
  openFlags(database: Database): number {
    return database.countsChanges ? database.flags | TDB_FLAG_SEQNUM : database.flags;
  }

  /** A volatile one that only the daemons use. */
  openOwn(name: string): void {
    const id = databaseIdOf(name);
    if (!this.databases.has(id)) this.open(id, name, 'volatile');
  }

  peerUp(peer: NodeId): void {
    this.told.add(peer);
    for (const database of this.databases.values()) this.announce(peer, database);
  }

  private announce(peer: NodeId, database: Database): void {
    const { id, kind, name, readonly } = database;
    this.context.send(peer, encodeGateMessage({ kind: 'database', database: id, type: kind, readonly, name }));
  }

  /** A peer has a database: we open it too. */
  onAnnounced(from: NodeId, id: DatabaseId, name: string, kind: DatabaseKind, readonly: boolean): void {
    const known = this.databases.get(id);
    const refusal = databaseIdOf(name) === id ? this.refusalOf(id, name, kind) : 'the number is not that of the name';
    if (refusal !== null || (known !== undefined && known.kind !== kind)) {
      this.context.count('gate.database.refused');
      const why = refusal ?? `it is ${known?.kind ?? 'unknown'} here and ${kind} there`;
      return this.context.log('error', 'gate.database.refused', { peer: from, database: name, why });
    }
    const database = known ?? this.open(id, name, kind);
    if (!readonly || database.readonly) return;
    database.readonly = true;
    this.keep(database);
  }

  /** Allows read copies, everywhere. False for a database that is not volatile. */
  setReadonly(database: Database): boolean {
    if (database.kind !== 'volatile') return false;
    if (database.readonly) return true;
    database.readonly = true;
    this.keep(database);
    for (const peer of this.told) this.announce(peer, database);
    return true;
  }
}
