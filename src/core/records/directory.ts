/**
 * The home's side of a record's life: for each key whose home we are, who owns it, who keeps the backup, who reads a
 * copy, and who waits. Moves one record once at a time, in the order of asking. Knows nothing of tdbs or of smbd;
 * speaks to owners and askers (ourselves included) only by record messages. Called by core/records.
 *
 * The life of an entry: an ask creates it, the answer's 'have' names the owner, a 'release' of the empty record ends
 * it. Or claims create it, when we have become the key's home: nothing is decided before all of them have come.
 */
import type { DatabaseId, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { turn as toTurn } from '../../base/ids.js';
import { assert } from '../../base/assert.js';
import { Fifo } from '../../base/fifo.js';
import type { CoreContext } from '../context.js';
import type { AccessMode, Micros } from '../effects.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import type { Backup, Entry, Operation } from './entry.js';
import { NO_NODES, forgetBackup, hasBackup, isNamed, newEntry, withNode, withoutNode } from './entry.js';
import { Mirrors } from './mirrors.js';
import { RESTORES_UNDER_WAY_MAX } from './slices.js';

/** Former owners remembered per record, for people who look for a ping-pong. */
const OWNER_HISTORY_MAX = 16;

/** One database's directory. */
type Entries = Map<RecordKey, Entry>;

export interface DirectoryEntryView {
  owner: NodeId | null;
  backup: NodeId | null;
  readers: NodeId[];
  waiting: NodeId[];
  turn: number;
  history: { owner: NodeId; turn: number; microsAgo: Micros }[];
}

export class Directory {
  private readonly databases = new Map<DatabaseId, Entries>();
  /** Those with an operation under way, or somebody in the queue. */
  private readonly busy = new Set<Entry>();
  /** Lost, and nobody waits for them: restored little by little. Only those that say so themselves count. */
  private readonly unrestored = new Fifo<Entry>();
  /** Restores that are told to a keeper and not answered. */
  private restoresUnderWay = 0;
  /** Those whose claims are still to come; only those that say so themselves count. */
  private readonly rebuilt = new Fifo<Entry>();
  /** So many of them, the first, were not looked at since claims came last. */
  private undecided = 0;
  /**
   * The servers whose runs left, oldest first, but for those that all entries have forgotten. Who has work under way
   * forgets them at once, the others when they are looked at: all of them in one step would keep others waiting.
   */
  private departed: NodeId[] = [];
  /** How many of those that left all entries have forgotten. */
  private forgotten = 0;
  /** No view came since the claims were looked at last: erasures that were claimed have been heeded. */
  private canComplete = false;
  /** Entries that may still have to forget somebody. */
  private behind: Iterator<Entry> | null = null;
  /** Servers whose run is out, while entries still name it: nothing is asked of them, nor of a later run. */
  private readonly gone = new Set<NodeId>();
  private readonly mirrors: Mirrors;
  /** Records erased before all claims came. */
  private erased: { database: DatabaseId; key: RecordKey; turn: Turn }[] = [];

  /**
   * @param firstTurn turns start here; higher than any this home gave in an earlier run
   * @param post sends a message to a server, ourselves included
   * @param onForgotten an entry ended: the record exists nowhere any more
   * @param isComplete whether everybody has told us what it has of this key
   * @param onComplete of a key that was claimed all claims are in; called before anything is decided
   */
  constructor(
    private readonly context: CoreContext,
    private turnCounter: number,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
    private readonly onForgotten: (database: DatabaseId, key: RecordKey) => void,
    private readonly isComplete: (database: DatabaseId, key: RecordKey) => boolean,
    private readonly onComplete: (database: DatabaseId, key: RecordKey) => void,
  ) {
    const isGone = (server: NodeId): boolean => this.gone.has(server);
    this.mirrors = new Mirrors(context, post, isGone, (entry) => this.catchUp(entry));
  }

  /** The entry as it is after all that has happened. */
  private find(database: DatabaseId, key: RecordKey): Entry | undefined {
    const entries = this.databases.get(database);
    const entry = entries?.get(key);
    // what is decided only now may end it
    return entry !== undefined && this.catchUp(entry) ? entries!.get(key) : entry;
  }

  /** Does what an entry was spared when servers left or claims came; returns whether there was anything. */
  private catchUp(entry: Entry): boolean {
    const isComplete = entry.isRebuilt && this.canComplete && this.isComplete(entry.database, entry.key);
    if (!isComplete && entry.departures === this.departures) return false;
    this.forgetDeparted(entry);
    if (isComplete) this.complete(entry);
    return true;
  }

  private forgetDeparted(entry: Entry): void {
    while (entry.departures < this.departures) {
      const peer = this.departed[entry.departures++ - this.forgotten]!;
      if (isNamed(entry, peer)) this.forgetPeer(entry, peer);
    }
  }

  /** How many runs have left. */
  private get departures(): number {
    return this.forgotten + this.departed.length;
  }

  count(database: DatabaseId): number {
    return this.databases.get(database)?.size ?? 0;
  }

  has(database: DatabaseId, key: RecordKey): boolean {
    return this.databases.get(database)?.has(key) ?? false;
  }

  /** null: nobody; undefined: not known until claims, restores or a move under way are done. */
  ownerOf(database: DatabaseId, key: RecordKey): NodeId | null | undefined {
    const entry = this.find(database, key);
    if (entry === undefined) return this.isComplete(database, key) ? null : undefined;
    return entry.isRebuilt ? undefined : (entry.owner ?? undefined);
  }

  describe(database: DatabaseId, key: RecordKey): DirectoryEntryView | null {
    const entry = this.find(database, key);
    if (entry === undefined) return null;
    const now = this.context.now();
    return {
      owner: entry.owner,
      backup: entry.backups[0]?.keeper ?? null,
      readers: [...entry.readers],
      waiting: [...(entry.current === null ? [] : [entry.current.node]), ...entry.queue.map((ask) => ask.node)],
      turn: entry.turn,
      history: entry.history.map(({ owner, turn, at }) => ({ owner, turn, microsAgo: now - at })),
    };
  }

  /** Somebody wants to see the record, though not to have it. */
  restore(database: DatabaseId, key: RecordKey): void {
    const entry = this.find(database, key);
    if (entry?.isUnrestored === true) this.restoreEntry(entry);
  }

  /** Looks which records have to be restored, so many at a time; false: that is known of all. */
  catchUpSome(count: number): boolean {
    for (let left = count; this.behind !== null && left > 0; left--) {
      const next = this.behind.next();
      if (next.done === true) this.allCaughtUp();
      else this.catchUp(next.value);
    }
    return this.behind !== null;
  }

  private allCaughtUp(): void {
    this.behind = null;
    this.forgotten = this.departures;
    this.departed = [];
  }

  /**
   * Brings so many of the records back that nobody has asked for yet; false: there are no more. Does nothing while many
   * are on their way: messages that somebody waits for would stand behind theirs.
   */
  restoreSome(count: number): boolean {
    for (let left = Math.min(count, RESTORES_UNDER_WAY_MAX - this.restoresUnderWay); left > 0;) {
      const entry = this.unrestored.take();
      if (entry === undefined) return false;
      if (!entry.isUnrestored) continue;
      left--;
      this.catchUp(entry);
      this.restoreEntry(entry);
    }
    return !this.unrestored.isEmpty;
  }

  /** Of records that only their owners have, has so many kept by another server, too; false: there are no more. */
  mirrorSome(count: number): boolean {
    return this.mirrors.some(count);
  }

  /** Whether mirrorSome has anything to do. */
  get hasBare(): boolean {
    return this.mirrors.hasBare;
  }

  /** A server that the owner sent a backup has it. */
  onKept(keeper: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    if (!this.isComplete(database, key)) return this.adoptBackup(keeper, database, key, turn);
    const entry = this.find(database, key);
    if (entry === undefined) this.dropKept(keeper, database, key, turn);
    else if (!entry.backups.some((backup) => backup.keeper === keeper && backup.turn >= turn)) {
      this.keptBy(entry, keeper, turn);
    }
    if (entry !== undefined) this.mirrors.answered(entry, turn);
  }

  private keptBy(entry: Entry, keeper: NodeId, turn: Turn): void {
    forgetBackup(entry, keeper);
    if (entry.owner === null && entry.lost) {
      // it may be all that is left; what is being restored goes on
      entry.backups.push({ keeper, turn });
      entry.backups.sort(newestFirst);
    } else if (entry.owner !== null && entry.owner !== keeper && turn >= entry.ownedSince && !hasBackup(entry)) {
      this.dropBackups(entry, 0);
      entry.backups.push({ keeper, turn });
    } else {
      this.dropKept(keeper, entry.database, entry.key, this.dropTurn(entry, keeper));
    }
  }

  private dropKept(keeper: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    this.context.count('record.kept.stale');
    this.send(keeper, { kind: 'drop', database, key, turn });
  }

  /** Nothing comes of a backup that we ordered: its owner or its keeper says so. */
  onNotKept(database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.find(database, key);
    if (entry !== undefined) this.mirrors.answered(entry, turn);
  }

  /** An owner tells us, who became the home, what it owns. Comes before any ask is answered (core/records). */
  adopt(owner: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.rebuiltEntry(database, key, turn);
    if (entry === null) return;
    if (entry.owner !== null && entry.owner !== owner) {
      this.context.count('record.claim.conflict');
      const claims = { database, key: hex(key), owner: entry.owner, claimant: owner };
      this.context.log('error', 'record-claimed-twice', claims);
      if (entry.ownerTurn > turn) return;
    }
    entry.owner = owner;
    entry.ownerTurn = entry.ownedSince = turn;
    entry.lost = false;
    entry.isErased = false;
    entry.history.push({ owner, turn, at: this.context.now() });
  }

  /** A former owner tells us, who became the home, that it keeps what it gave away in this turn. */
  adoptBackup(keeper: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.rebuiltEntry(database, key, turn);
    if (entry === null) return;
    forgetBackup(entry, keeper);
    entry.backups.push({ keeper, turn });
    if (entry.owner === null) entry.lost = true;
  }

  /** A reader tells us, who became the home, of its copy. */
  adoptReader(reader: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.rebuiltEntry(database, key, turn);
    if (entry === null) return;
    entry.readers = withNode(entry.readers, reader);
    if (entry.owner === null) entry.lost = true;
  }

  /** The entry of a claim; null for a claim that comes again when all have come. */
  private rebuiltEntry(database: DatabaseId, key: RecordKey, turn: Turn): Entry | null {
    if (this.isComplete(database, key)) {
      this.context.count('record.claim.stale');
      return null;
    }
    const entry = this.entryOf(database, key);
    if (!entry.isRebuilt) {
      entry.isRebuilt = true;
      this.rebuilt.put(entry);
    }
    this.turnCounter = Math.max(this.turnCounter, turn);
    if (entry.turn < turn) entry.turn = turn;
    return entry;
  }

  /** An owner tells us, who became the home, that it erased the record, and in which turn it last gave anything. */
  adoptGone(database: DatabaseId, key: RecordKey, turn: Turn): void {
    this.turnCounter = Math.max(this.turnCounter, turn);
    const isRebuilt = this.databases.get(database)?.get(key)?.isRebuilt === true;
    if (isRebuilt || !this.isComplete(database, key)) this.erased.push({ database, key, turn });
  }

  /** More claims have come: what nobody owns of keys that are complete now comes back from its backup. */
  claimsCame(): void {
    this.undecided = this.rebuilt.size;
    this.canComplete = true;
    if (this.erased.length === 0) return;
    const erased = this.erased.filter(({ database, key }) => this.isComplete(database, key));
    if (erased.length === 0) return;
    this.erased = this.erased.filter(({ database, key }) => !this.isComplete(database, key));
    for (const { database, key, turn } of erased) this.heedErasure(this.databases.get(database)?.get(key), turn);
  }

  /** What is older than that must not come back. */
  private heedErasure(entry: Entry | undefined, turn: Turn): void {
    if (entry === undefined || !entry.isRebuilt || entry.owner !== null || entry.turn > turn) return;
    this.dropBackups(entry, 0);
    entry.lost = false;
  }

  /** All have claimed this key, before their other claims are in. */
  completeKey(database: DatabaseId, key: RecordKey): void {
    const entry = this.databases.get(database)?.get(key);
    if (entry?.isRebuilt !== true) return;
    for (const erased of this.erased) {
      if (erased.key === key && erased.database === database) this.heedErasure(entry, erased.turn);
    }
    this.forgetDeparted(entry);
    this.complete(entry);
  }

  /** Decides about so many of the keys that were claimed; false: about all that are complete. */
  completeSome(count: number): boolean {
    for (let left = Math.min(count, this.undecided); left > 0; left--) {
      const entry = this.rebuilt.take()!;
      this.undecided--;
      if (!entry.isRebuilt) continue;
      this.catchUp(entry);
      if (entry.isRebuilt) this.rebuilt.put(entry);
    }
    return this.undecided > 0;
  }

  private complete(entry: Entry): void {
    entry.isRebuilt = false;
    if (entry.isErased) {
      entry.isErased = false;
      this.ended(entry);
    }
    if (entry.backups.length > 1) entry.backups.sort(newestFirst);
    this.dropBackups(entry, entry.owner === null ? 2 : 1);
    // who kept the backup may have been lost with the home
    this.mirrors.queueIfBare(entry);
    // what is decided may end it
    this.onComplete(entry.database, entry.key);
    this.advance(entry);
  }

  /**
   * We are not the home of these keys any more, or were not for a while: whoever is has been told, or will be.
   * @param mayMove whether a database has such keys
   */
  forgetMoved(
    isKept: (database: DatabaseId, key: RecordKey) => boolean,
    mayMove: (database: DatabaseId) => boolean,
  ): void {
    this.canComplete = false;
    this.erased = this.erased.filter(({ database, key }) => isKept(database, key));
    for (const [database, entries] of this.databases) {
      if (!mayMove(database)) continue;
      for (const [key, entry] of entries) {
        if (isKept(database, key)) continue;
        entries.delete(key);
        this.drop(entry);
      }
    }
  }

  private drop(entry: Entry): void {
    this.setCurrent(entry, null);
    entry.isRebuilt = false;
    entry.isUnrestored = false;
    entry.isErased = false;
    entry.bare = 'no';
    this.mirrors.end(entry);
    this.busy.delete(entry);
  }

  onAsk(from: NodeId, run: number, mode: AccessMode, database: DatabaseId, key: RecordKey): void {
    const entry = this.entryOf(database, key);
    const queued = entry.queue.find((ask) => ask.node === from);
    if (queued !== undefined) {
      // An asker has one ask under way per key; a second one is its first, sent again after a link was lost.
      if (mode === 'write') queued.mode = 'write';
      this.context.count('record.ask.repeated');
      return;
    }
    if (entry.current?.node === from && entry.current.mode === mode && entry.current.phase !== 'moving') {
      this.context.count('record.ask.repeated');
      return;
    }
    entry.queue.push({ node: from, run, mode });
    this.busy.add(entry);
    this.advance(entry);
  }

  onHave(from: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.find(database, key);
    const current = entry?.current;
    if (entry === undefined || !current || current.phase === 'revoking' || !isFor(current, from, turn)) {
      this.context.count('record.have.stale');
      return;
    }
    if (current.mode === 'read') entry.readers = withNode(entry.readers, from);
    else this.becomeOwner(entry, from, turn);
    if (current.mode === 'restore') {
      this.context.count('record.restored');
      this.mirrors.queueIfBare(entry);
    }
    this.setCurrent(entry, null);
    this.advance(entry);
  }

  onRevoked(from: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.find(database, key);
    const current = entry?.current;
    if (entry === undefined || current?.phase !== 'revoking' || current.turn !== turn) {
      this.context.count('record.revoked.stale');
      return;
    }
    entry.readers = withoutNode(entry.readers, from);
    current.awaiting = withoutNode(current.awaiting, from);
    if (current.awaiting.length === 0) this.readersGone(entry, current);
  }

  /** The owner found the record empty and deleted it. */
  onRelease(from: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.find(database, key);
    if (entry?.isRebuilt === true || (entry === undefined && !this.isComplete(database, key))) {
      // somebody may still claim an older backup
      if (entry?.owner !== from || entry.ownerTurn !== turn) return this.adoptGone(database, key, turn);
      entry.isErased = true;
      return;
    }
    const isOwner = entry?.owner === from && entry.ownerTurn === turn;
    // it is to take the record back from an asker that died, or got it from an owner that died, and has not heard of it
    const mayBeOwner = entry?.lost === true && entry.maybe === from && entry.ownerTurn <= turn;
    if (entry === undefined || !(isOwner || mayBeOwner)) {
      this.context.count('record.release.stale');
      return;
    }
    this.ended(entry);
    if (entry.current?.mode === 'restore') this.setCurrent(entry, null);
    this.ownerGone(entry);
  }

  /** Its owner erased it. What former owners kept is older than that: it must not come back. */
  private ended(entry: Entry): void {
    entry.owner = null;
    entry.maybe = null;
    entry.lost = false;
    this.mirrors.end(entry);
    this.dropBackups(entry, 0);
  }

  /** The owner (or backup) was asked to give, keep or reclaim the record and does not have it. */
  onMissing(from: NodeId, database: DatabaseId, key: RecordKey, turn: Turn): void {
    const entry = this.find(database, key);
    const current = entry?.current;
    if (entry === undefined || !current || current.phase === 'revoking' || current.turn !== turn) {
      this.context.count('record.missing.stale');
      return;
    }
    if (current.phase === 'restoring') {
      if (entry.maybe === from) entry.maybe = null;
      forgetBackup(entry, from);
      entry.readers = withoutNode(entry.readers, from);
      this.setCurrent(entry, null);
    } else if (entry.owner === from) {
      this.context.log('error', 'record-missing', { database, key: hex(key), server: from });
      this.lose(entry);
    }
    this.ownerGone(entry);
  }

  /** A run of a server is out of the view; what it gave may still arrive. */
  runLeft(peer: NodeId): void {
    this.gone.add(peer);
  }

  /** Nothing of it is under way any more: what it owned, read or asked for is gone. A later run has not asked yet. */
  runGone(peer: NodeId): void {
    this.gone.delete(peer);
    this.departed.push(peer);
    this.behind = this.all();
    for (const entry of [...this.busy]) this.catchUp(entry);
  }

  private *all(): Iterator<Entry> {
    for (const entries of this.databases.values()) yield* entries.values();
  }

  private forgetPeer(entry: Entry, peer: NodeId): void {
    entry.readers = withoutNode(entry.readers, peer);
    entry.queue = entry.queue.filter((ask) => ask.node !== peer);
    const wasToKeep = this.mirrors.keeperLost(entry, peer);
    if (forgetBackup(entry, peer) || wasToKeep) this.mirrors.queueIfBare(entry);
    if (entry.maybe === peer) entry.maybe = null;
    const current = entry.current;
    const isOver = current?.node === peer;
    const wasOwner = entry.owner === peer;
    if (wasOwner) {
      this.lose(entry);
      if (current?.phase === 'moving' && current.node !== peer) entry.maybe = current.node;
    }
    if (current === null) this.advance(entry);
    else if (current.phase === 'revoking') {
      current.awaiting = withoutNode(current.awaiting, peer);
      if (isOver && current.mode !== 'forget') {
        this.setCurrent(entry, null);
        this.advance(entry);
      } else if (current.awaiting.length === 0) this.readersGone(entry, current);
    } else if (isOver) {
      this.setCurrent(entry, null);
      if (current.mode === 'write' && entry.owner !== null) {
        // The record may be on its way to the lost server: its last owner takes it back.
        entry.maybe = entry.owner;
        this.lose(entry);
      }
      this.advance(entry);
    } else if (wasOwner) this.ownerGone(entry);
  }

  private lose(entry: Entry): void {
    entry.owner = null;
    entry.lost = true;
    this.mirrors.end(entry);
    this.context.count('record.lost');
  }

  /** Nobody owns the record now; whatever was under way starts again from what is left. */
  private ownerGone(entry: Entry): void {
    const current = entry.current;
    if (current === null) this.advance(entry);
    else if (current.phase === 'moving') this.begin(entry, current);
  }

  private entryOf(database: DatabaseId, key: RecordKey): Entry {
    let entries = this.databases.get(database);
    if (entries === undefined) this.databases.set(database, (entries = new Map<RecordKey, Entry>()));
    const known = this.find(database, key);
    if (known !== undefined) return known;
    const entry = newEntry(database, key, this.departures);
    entries.set(key, entry);
    return entry;
  }

  private nextTurn(entry: Entry): Turn {
    this.turnCounter += 1;
    entry.turn = toTurn(this.turnCounter);
    return entry.turn;
  }

  /** Starts the next operation, or ends the entry when nobody owns or wants the record. */
  private advance(entry: Entry): void {
    if (entry.current !== null || entry.isRebuilt) return;
    if (!entry.lost) return this.next(entry);
    if (entry.queue.length > 0) return this.restoreEntry(entry);
    this.busy.delete(entry);
    if (entry.isUnrestored) return;
    entry.isUnrestored = true;
    this.unrestored.put(entry);
  }

  private restoreEntry(entry: Entry): void {
    entry.isUnrestored = false;
    if (!entry.lost || entry.current !== null || entry.isRebuilt) return;
    // A reader's copy is the last version: while it was out, nobody could write.
    const [reader] = entry.readers;
    const keeper = entry.maybe ?? reader ?? entry.backups[0]?.keeper;
    if (keeper !== undefined) {
      const { turn } = entry;
      this.begin(entry, { node: keeper, run: 0, mode: 'restore', phase: 'moving', awaiting: NO_NODES, turn });
      return;
    }
    // what it held ended with its owner: nobody else ever had it, or they are lost, too
    this.context.count('record.lost.for-good');
    entry.lost = false;
    this.next(entry);
  }

  private next(entry: Entry): void {
    const next = entry.queue.shift();
    if (next !== undefined) {
      const { node, run, mode } = next;
      this.begin(entry, { node, run, mode, phase: 'moving', awaiting: NO_NODES, turn: entry.turn });
    } else if (entry.owner === null) {
      this.begin(entry, {
        node: this.context.self,
        run: 0,
        mode: 'forget',
        phase: 'moving',
        awaiting: NO_NODES,
        turn: entry.turn,
      });
    } else {
      this.busy.delete(entry);
    }
  }

  private setCurrent(entry: Entry, operation: Operation | null): void {
    if (entry.current?.mode === 'restore') this.restoresUnderWay--;
    if (operation?.mode === 'restore') this.restoresUnderWay++;
    entry.current = operation;
    if (operation === null) this.mirrors.idle(entry);
  }

  private begin(entry: Entry, operation: Operation): void {
    this.setCurrent(entry, operation);
    this.busy.add(entry);
    operation.awaiting = NO_NODES;
    // Nobody else has the record to read from: its reader becomes the owner, with all that asks for.
    if (operation.mode === 'read' && (entry.owner === null || entry.owner === operation.node)) operation.mode = 'write';
    if (operation.mode !== 'read') {
      const others = withoutNode(entry.readers, operation.node);
      // A copy of our asker's is overwritten when the record arrives; one kept by nobody's wish must go.
      operation.awaiting = operation.mode === 'forget' ? entry.readers : others;
    }
    if (operation.awaiting.length === 0) {
      this.readersGone(entry, operation);
      return;
    }
    operation.phase = 'revoking';
    operation.turn = this.nextTurn(entry);
    this.context.count('record.revocations', operation.awaiting.length);
    for (const reader of operation.awaiting) {
      // a later run of its server has no copy
      if (this.gone.has(reader)) continue;
      this.send(reader, { kind: 'revoke', database: entry.database, key: entry.key, turn: operation.turn });
    }
  }

  private readersGone(entry: Entry, operation: Operation): void {
    if (operation.mode === 'forget') {
      this.setCurrent(entry, null);
      if (entry.queue.length > 0) this.advance(entry);
      else this.forget(entry);
      return;
    }
    this.move(entry, operation);
  }

  private forget(entry: Entry): void {
    const isEmpty = entry.owner === null && entry.backups.length === 0 && entry.readers.length === 0;
    assert(isEmpty, 'a live record was forgotten');
    this.drop(entry);
    this.databases.get(entry.database)?.delete(entry.key);
    this.onForgotten(entry.database, entry.key);
  }

  /** Readers are out of the way: makes the asker owner, or reader. */
  private move(entry: Entry, operation: Operation): void {
    const { database, key, owner } = entry;
    if (operation.mode === 'restore') {
      operation.phase = 'restoring';
      operation.turn = this.nextTurn(entry);
      if (this.gone.has(operation.node)) return;
      this.send(operation.node, { kind: 'reclaim', database, key, turn: operation.turn });
      return;
    }
    if (entry.lost) {
      // Restore first; the asker keeps its place at the head of the queue.
      const { node, run } = operation;
      entry.queue.unshift({ node, run, mode: operation.mode === 'read' ? 'read' : 'write' });
      this.setCurrent(entry, null);
      this.advance(entry);
      return;
    }
    operation.phase = 'moving';
    operation.turn = this.nextTurn(entry);
    const { turn, node, run } = operation;
    if (owner === null || owner === node) {
      const what = owner === null ? 'fresh' : 'keep';
      this.send(node, { kind: 'record', database, key, turn, run, what, owner: node, data: EMPTY });
    } else if (!this.gone.has(owner)) {
      const mode = operation.mode === 'read' ? 'read' : 'write';
      this.send(owner, { kind: 'give', database, key, turn, to: node, run, mode });
    }
  }

  private becomeOwner(entry: Entry, owner: NodeId, turn: Turn): void {
    entry.readers = withoutNode(entry.readers, owner);
    entry.lost = false;
    entry.maybe = null;
    entry.ownerTurn = turn;
    if (entry.owner === owner) return;
    entry.ownedSince = turn;
    this.mirrors.end(entry);
    forgetBackup(entry, owner);
    if (entry.owner === null) {
      this.dropBackups(entry, 1);
    } else {
      this.dropBackups(entry, 0);
      entry.backups.push({ keeper: entry.owner, turn });
    }
    entry.owner = owner;
    entry.history.push({ owner, turn, at: this.context.now() });
    if (entry.history.length > OWNER_HISTORY_MAX) entry.history.shift();
  }

  /** Keeps so many of the newest backups. */
  private dropBackups(entry: Entry, kept: number): void {
    if (entry.backups.length <= kept) return;
    const { database, key } = entry;
    for (const { keeper } of entry.backups.splice(kept)) {
      // a later run of its server has nothing of it
      if (this.gone.has(keeper)) continue;
      this.send(keeper, { kind: 'drop', database, key, turn: this.dropTurn(entry, keeper) });
    }
  }

  /**
   * Up to which turn a keeper is to drop what it has: its backup may be younger than we know, a copy that took its
   * place and became one when it was revoked. Not what it is being given, and not a copy that it still reads, which is
   * younger than the owner's turn.
   */
  private dropTurn({ current, readers, ownerTurn, turn }: Entry, keeper: NodeId): Turn {
    if (current?.phase === 'revoking') {
      return readers.includes(keeper) && !current.awaiting.includes(keeper) ? ownerTurn : turn;
    }
    if (readers.includes(keeper)) return ownerTurn;
    return current?.node === keeper ? toTurn(current.turn - 1) : turn;
  }

  private send(to: NodeId, message: RecordMessage): void {
    this.post(to, message);
  }
}

const EMPTY = new Uint8Array(0);

function newestFirst(a: Backup, b: Backup): number {
  return b.turn - a.turn;
}

function isFor(operation: Operation, node: NodeId, turn: Turn): boolean {
  return operation.node === node && operation.turn === turn;
}

function hex(key: RecordKey): string {
  return Buffer.from(key, 'latin1').toString('hex');
}
