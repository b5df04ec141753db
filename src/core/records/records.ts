/**
 * All records of one server: routes asks and answers between the home's side (directory.ts) and our own tdbs
 * (holdings.ts), grants fresh random keys on the spot, and deletes what is empty. Used by core/node and core/gate.
 *
 * Homes: a key's home is chosen by rendezvous hashing over the members of the view. In databases whose keys are random
 * numbers the creator is the home; it tells everybody that the key exists, so that a key nobody has announced may be
 * granted at once. Before the first view nothing is asked or answered.
 */
import { DecodeError } from '../../base/bytes.js';
import type { DatabaseId, Epoch, Incarnation, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { epoch as toEpoch } from '../../base/ids.js';
import type { HistogramSummary } from '../../base/histogram.js';
import type { CoreContext } from '../context.js';
import type { AccessMode, Micros, RecordOp, RecordOutcome } from '../effects.js';
import type { MirrorMessage, RecordMessage } from '../../wire/record-messages.js';
import { decodeRecordMessage, serverNamed } from '../../wire/record-messages.js';
import { RESUMING_PROTOCOL } from '../../wire/protocol-version.js';
import { Descriptions } from './descriptions.js';
import { Directory } from './directory.js';
import { Holdings } from './holdings.js';
import type { KeptRecord } from './holdings.js';
import type { Ask } from './mail.js';
import { Mail, single } from './mail.js';
import { Deletions } from './deletions.js';
import { Barriers } from './barriers.js';
import type { NeededRecord, PinnedRecords, RecordName } from './pins.js';
import { Looks } from './looks.js';
import { Pins } from './pins.js';
import { RandomKeys } from './random-keys.js';
import type { Guard, RecordsEvents, RecordsWatcher, RecoveryWatcher } from './events.js';
import { Recovery } from './recovery.js';
import { Homes } from './homes.js';
import { RESTORE_SLICE, SLICE, SPARING, Slices, UNHURRIED } from './slices.js';
import type { Changes, View } from '../views.js';

/** How long a record stays before another server may have it (without the module's pins). Adapts upwards. */
export const HOLD_MICROS = 1_000;
/** Turns of a home's later runs are higher than those of earlier ones: incarnations count milliseconds. */
const TURNS_PER_INCARNATION = 4096;
/** Looking at an entry costs so much less than bringing its record back. */
const LOOKS_PER_RESTORE = 32;

/**
 * A logon comes before everything that can name an open made elsewhere; its record waits until all announcements of
 * random keys made before it have arrived.
 */
const BARRIER_DATABASES = new Set(['smbXsrv_session_global.tdb']);

export interface DatabaseStatus {
  name: string;
  owned: number;
  copies: number;
  directoryEntries: number;
  /** Records that came from another owner. */
  moves: number;
  wait: HistogramSummary;
}

interface Database {
  name: string;
  barrier: boolean;
  moves: number;
}

export class Records {
  private readonly databases = new Map<DatabaseId, Database>();
  /** This run of ours as it travels in asks. */
  private readonly run: number;
  /** Runs of servers that are out of the view; entries may still name them. */
  private readonly gone = new Set<NodeId>();
  /** No record is held back here although another server waits for it. */
  readonly isPatient = (): boolean => this.holdings.heldBack === 0;
  private readonly homes = new Homes();
  private readonly randomKeys: RandomKeys;
  private readonly directory: Directory;
  private readonly holdings: Holdings;
  private readonly deletions: Deletions;
  private readonly barriers: Barriers;
  private readonly pins: Pins;
  private readonly looks: Looks;
  /** Somebody's, and what follows from them is not done yet. */
  private haveClaimsCome = false;
  /** By token: what to do with what was read, or when the record is here. */
  private readonly inspections = new Map<number, (data: Uint8Array) => void>();
  private readonly mail: Mail;
  private readonly descriptions: Descriptions;
  /** For keys of which not everybody has claimed what it has. */
  private heldAsks: Ask[] = [];
  private readonly recovery: Recovery;
  /** What becomes of records that were claimed is decided. */
  private readonly deciding: Slices;
  /** Records come back that nobody has asked for yet. */
  private readonly restoring: Slices;
  /** Everybody has told us which random keys there are: one that we do not know does not exist. */
  private knowsRandomKeys = false;
  private events: RecordsEvents | null = null;
  private watcher: RecordsWatcher | null = null;
  private recoveryWatcher: RecoveryWatcher | null = null;

  constructor(
    private readonly context: CoreContext,
    incarnation: Incarnation,
    holdMicros: Micros = HOLD_MICROS,
    /** Our run continues another one, whose records it keeps. */
    private readonly resumes = false,
    /** How many records are told of, or brought back, in one step. */
    sliceSize = SLICE,
  ) {
    this.mail = new Mail(context, (from, message) => this.handle(from, message));
    const post = (to: NodeId, message: RecordMessage): void => this.mail.post(to, message);
    this.randomKeys = new RandomKeys(context, this.homes, post);
    this.directory = new Directory(
      context,
      incarnation * TURNS_PER_INCARNATION,
      post,
      (database, key) => this.randomKeys.end(database, key),
      (database, key) => this.isComplete(database, key),
      (database, key) => this.randomKeys.take(database, key),
    );
    this.run = runNumber(incarnation);
    this.holdings = new Holdings(
      context,
      this.run,
      holdMicros,
      (database, key, message) => this.mail.post(this.homeOf(database, key), message),
      post,
      (server) => this.runOf(server),
      (database, key, mode) => this.ask(database, key, mode),
      {
        migrated: (token) => (token < 0 ? this.wasRead(token, NOTHING) : this.events?.migrated(token)),
        fetched: (token, data) => (token < 0 ? this.wasRead(token, data) : this.events?.fetched(token, data)),
        failed: (token, why) => (token < 0 ? this.pins.failed(token) : this.events?.failed(token, why)),
        emptyTaken: (database, key) => this.deletions.emptyTaken(database, key),
        came: (database, key) => this.watcher?.came(database, key),
        moved: (...move) => this.moved(...move),
        leaving: (database, key) => this.watcher?.leaving(database, key),
      },
    );
    this.recovery = this.makeRecovery(sliceSize);
    this.deciding = this.makeDeciding(sliceSize);
    this.restoring = this.makeRestoring(sliceSize);
    this.looks = new Looks(context, this.run, {
      homeOf: (database, key) => this.homeOf(database, key),
      ownerOf: (database, key) => {
        if (context.isFenced()) return undefined;
        this.directory.restore(database, key);
        return this.directory.ownerOf(database, key);
      },
      isOwned: (database, key) => this.holdings.get(database, key)?.state === 'owned',
      inspect: (name, then) => this.inspect(name, then),
      fetched: (token, data) => this.events?.fetched(token, data),
      take: (database, key, token) => this.want(database, key, 'write', token),
      post: (to, message) => {
        this.mail.post(to, message);
        this.mail.drain();
      },
    });
    this.pins = new Pins(context, this.pinnedRecords());
    this.descriptions = new Descriptions(context, this.directory, {
      homeOf: (database, key) => this.homeOf(database, key),
      databaseName: (database) => this.databases.get(database)?.name,
      post,
      described: (number, answer) => this.events?.described(number, answer),
    });
    this.deletions = new Deletions(context, this.holdings, (database, key) => this.hasHome(database, key));
    this.barriers = new Barriers(context, (peer) => !this.recovery.hasSeen(peer, this.homes.epoch));
  }

  private pinnedRecords(): PinnedRecords {
    return {
      // without the lease it waits like any other request
      isHome: (name) => !this.context.isFenced() && this.isHome(name),
      want: ({ database, key, mode }, token) => this.holdings.want(database, key, mode, token),
      cancel: (token) => this.holdings.cancel(token),
      pin: ({ database, key }, operation, until) => this.holdings.pin(database, key, operation, until),
      unpin: ({ database, key }, operation) => this.holdings.unpin(database, key, operation),
    };
  }

  private makeRecovery(sliceSize: number): Recovery {
    return new Recovery(
      this.context,
      this.holdings,
      () => this.databases.keys(),
      {
        homeOf: (database, key) => this.homeOf(database, key),
        since: (database, key) => this.homeSince(database, key),
        isEnded: (database, key) => this.knowsRandomKeys && this.isUnknownKey(database, key),
      },
      (to, message) => this.mail.post(to, message),
      {
        settled: () => this.settled(),
        recovered: (epoch) => this.recovered(epoch),
        posted: () => this.mail.drain(),
        keyClaimed: (database, key) => this.keyClaimed(database, key),
      },
      this.resumes,
      sliceSize,
    );
  }

  private makeDeciding(sliceSize: number): Slices {
    return new Slices(this.context, sliceSize, UNHURRIED, (pieces) => {
      const isMore = this.directory.completeSome(pieces);
      if (!isMore) this.allDecided();
      this.mail.drain();
      // of what was decided some may have to come back
      this.restoring.begin();
      return isMore;
    });
  }

  /** Of records that nobody waits for; others wait for claims. */
  private makeRestoring(sliceSize: number): Slices {
    return new Slices(this.context, Math.min(sliceSize, RESTORE_SLICE), SPARING, (pieces) => {
      if (this.recovery.isTelling) return true;
      const { directory } = this;
      const isMore = directory.catchUpSome(pieces * LOOKS_PER_RESTORE) || directory.restoreSome(pieces)
        || directory.mirrorSome(pieces);
      this.mail.drain();
      return isMore;
    });
  }

  /** Members that have not installed the view that we installed. */
  awaiting(): NodeId[] {
    return this.recovery.awaited();
  }

  /**
   * Must be called once, before anything is asked; apart from the constructor because gate and records need each other.
   */
  listen(events: RecordsEvents): void {
    this.events = events;
  }

  /** Tells when records come and go; for the table of what is here (core/witness). */
  watch(watcher: RecordsWatcher): void {
    this.watcher = watcher;
  }

  /** Tells how far the records are with each view; for people. */
  watchRecovery(watcher: RecoveryWatcher): void {
    this.recoveryWatcher = watcher;
  }

  /** Operations of the VFS modules that have begun and not ended. */
  operations(): number {
    return this.pins.size;
  }

  /**
   * An operation of the VFS module begins: brings all these records here at once and keeps them for its length.
   * `ready` is called once, with false if they could not all be had; null only keeps those that are here.
   */
  beginOperation(number: number, names: readonly NeededRecord[], ready: ((all: boolean) => void) | null): void {
    this.pins.begin(number, names, ready);
    this.mail.drain();
  }

  /** More records for an operation that is under way. */
  extendOperation(number: number, names: readonly NeededRecord[], ready: (all: boolean) => void): void {
    this.pins.extend(number, names, ready);
    this.mail.drain();
  }

  /** Reads a record if it is ours; `then` gets no bytes if it is not. May be called back later, or within this call. */
  inspect({ database, key }: RecordName, then: (data: Uint8Array) => void): void {
    const token = this.pins.nextToken();
    this.inspections.set(token, then);
    this.holdings.want(database, key, 'owned', token);
    this.mail.drain();
  }

  endOperation(number: number): void {
    this.pins.end(number);
    this.mail.drain();
  }

  /**
   * Brings a record here that only the daemons use, or a copy of it. `then` is called once, within this call or later,
   * unless the token that this returns is cancelled.
   */
  obtain({ database, key, mode }: NeededRecord, then: () => void): number {
    const token = this.pins.nextToken();
    this.inspections.set(token, then);
    this.holdings.want(database, key, mode, token);
    this.mail.drain();
    return token;
  }

  /** The records of a database stay as long as the guard says. */
  setGuard(database: DatabaseId, guard: Guard): void {
    this.holdings.setGuard(database, guard);
  }

  /** What the guard forbade it may allow now. */
  guardOpened(database: DatabaseId, key: RecordKey): void {
    this.holdings.guardOpened(database, key);
    this.mail.drain();
  }

  /** The record, or our copy, is to go elsewhere. */
  isWanted({ database, key }: RecordName): boolean {
    return this.holdings.isWanted(database, key);
  }

  isHome({ database, key, mode }: NeededRecord): boolean {
    return this.holdings.isHome(database, key, mode);
  }

  /** A volatile database has been opened here. Doing it twice changes nothing. */
  addDatabase(database: DatabaseId, name: string): void {
    if (this.databases.has(database)) return;
    this.databases.set(database, { name, barrier: BARRIER_DATABASES.has(name), moves: 0 });
    this.holdings.addDatabase(database);
    if (this.randomKeys.open(database, name)) this.deletions.useShortLinger(database);
  }

  /** A record that the run that we continue left in its file. */
  keepRecord(kept: KeptRecord): void {
    const { database, key, isEmpty } = kept;
    const holding = this.holdings.kept(kept);
    if (holding.state !== 'owned') return;
    this.watcher?.came(database, key);
    if (isEmpty) this.deletions.emptyTaken(database, key);
  }

  /** A record that it erased, or was about to erase. */
  keepErasure(database: DatabaseId, key: RecordKey, turn: Turn): void {
    this.holdings.erasures.erased(database, key, turn, this.context.now());
  }

  /**
   * A local process needs the record to be ours; answered by events.migrated, possibly within this call. `isAgain`: it
   * asked for the same one just before, which left before it was done.
   */
  migrate(database: DatabaseId, key: RecordKey, token: number, isAgain = false): void {
    this.holdings.askedFor(database, key, isAgain);
    this.want(database, key, 'write', token);
  }

  /** A local process reads the record; answered by events.fetched, possibly within this call. */
  fetch(database: DatabaseId, key: RecordKey, token: number): void {
    // before all peers were heard, and without the lease, a key may exist that we do not know of
    if (this.isUnknownKey(database, key) && this.knowsRandomKeys && !this.context.isFenced()) {
      this.events?.fetched(token, new Uint8Array(0));
      return;
    }
    this.want(database, key, 'read', token);
  }

  /**
   * A listing wants to know what is in the record now: nothing moves. Answered by events.fetched; by events.migrated
   * when nobody could tell and the record was taken instead.
   */
  look(database: DatabaseId, key: RecordKey, token: number): void {
    this.looks.look(database, key, token);
  }

  /** Reads the record if it is ours, for a traversal; answered by events.fetched, with no bytes if it is not. */
  peek(database: DatabaseId, key: RecordKey, token: number): void {
    this.holdings.want(database, key, 'owned', token);
    this.mail.drain();
  }

  ownedKeys(database: DatabaseId): RecordKey[] {
    return this.holdings.ownedKeys(database);
  }

  /** The asking process is gone; it gets no answer. */
  cancel(token: number): void {
    this.inspections.delete(token);
    this.looks.cancel(token);
    this.holdings.cancel(token);
    this.mail.drain();
  }

  /** A local process emptied the record; it is removed everywhere if it is still empty after a while. */
  scheduleDeletion(database: DatabaseId, key: RecordKey): void {
    if (!this.databases.has(database)) return;
    this.deletions.schedule(database, key);
    this.holdings.emptied(database, key);
    this.mail.drain();
  }

  /** Asks the key's home where the record is; answered by events.described. */
  describe(database: DatabaseId, key: RecordKey, number: number): void {
    this.descriptions.ask(database, key, number);
  }

  onDone(database: DatabaseId, key: RecordKey, operation: RecordOp, outcome: RecordOutcome): void {
    this.holdings.onDone(database, key, operation, outcome);
    this.mail.drain();
  }

  /** A message of a peer. Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodeRecordMessage(bytes);
    const named = serverNamed(message);
    // the sender's configuration has other servers than ours: sending to them would be a bug of ours
    if (named !== null && !this.context.servers.includes(named)) throw new DecodeError('not-a-server', `${named}`);
    this.handle(from, message);
    this.mail.drain();
  }

  /**
   * A later view is agreed, and our run is one of its members. `left`: the servers whose run is out; a later run of
   * theirs may be in. `joined`: those whose run is new. `resumed`: those whose run is another, which continues the one
   * before; with them all homes begin anew.
   */
  install(view: View, { left, joined, resumed }: Changes): void {
    const before = this.homes.isInstalled ? this.homes.epoch : null;
    const over = [...left, ...resumed];
    const runs = new Map(over.map((node) => [node, this.homes.runOf(node)]));
    this.homes.install(view);
    for (const node of left) {
      this.gone.add(node);
      this.directory.runLeft(node);
    }
    for (const node of over) {
      this.recovery.runGone(node);
      this.holdings.runGone(node);
      this.barriers.peerGone(node);
      const run = runs.get(node);
      if (run !== undefined) this.randomKeys.makerGone(node, this.homes.goneSince(node, run));
    }
    if (before !== null) this.letGo(before);
    for (const peer of [...joined, ...resumed]) {
      if (peer !== this.context.self) this.randomKeys.announceTo(peer);
    }
    this.randomKeys.tellAllOrphans(this.recovery.successorsToHear(view));
    const others = view.members.map(({ node }) => node).filter((node) => node !== this.context.self);
    this.randomKeys.tellOrphans(others, (database, key) => this.holdings.holds(database, key));
    if (!this.knowsRandomKeys && this.context.speaks(RESUMING_PROTOCOL)) {
      for (const node of others) this.mail.post(node, { kind: 'keys-unknown', epoch: view.epoch });
    }
    this.flush();
    this.recovery.install(view);
    this.holdings.installed();
    this.mail.drain();
  }

  /** What was ordered by homes of before, and what we knew as such. */
  private letGo(before: Epoch): void {
    const isKept = (database: DatabaseId, key: RecordKey): boolean => this.homeSince(database, key) <= before;
    for (const holding of this.holdings.allActive()) {
      if (!isKept(holding.database, holding.key)) this.holdings.voidOrders(holding);
    }
    const isOurs = (database: DatabaseId, key: RecordKey): boolean => this.homeOf(database, key) === this.context.self;
    const onlyLeft = this.homes.onlyLeftSince(before);
    this.directory.forgetMoved(
      (database, key) => isKept(database, key) && isOurs(database, key),
      (database) => !onlyLeft || this.randomKeys.has(database),
    );
    // whoever asked us for a key that moved asks its new home; a random key's maker may have become known meanwhile
    this.heldAsks = this.heldAsks.filter(({ asker, run, database, key }) => {
      return this.runOf(asker) === run && (isOurs(database, key) || isKept(database, key));
    });
  }

  /** Nothing is under way that was given on orders of former views. */
  private settled(): void {
    for (const node of this.gone) this.directory.runGone(node);
    this.gone.clear();
    if (this.resumes && !this.knowsRandomKeys) this.sortKeptKeys();
    this.lookWhetherKeysAreKnown();
    this.recoveryWatcher?.settled();
    this.answerHeld();
  }

  /** Everybody's `view` is here, and with it the keys that its sender knew by then. */
  private lookWhetherKeysAreKnown(): void {
    const isSettled = this.homes.isInstalled && this.recovery.awaited().length === 0;
    if (isSettled && this.recovery.areKeysTold) this.knowsRandomKeys = true;
  }

  /**
   * All who know have told us which random keys there are. Of those that we kept and nobody knows, what we own was made
   * last by the run that we continue; the rest is of keys that have ended.
   */
  private sortKeptKeys(): void {
    const others = this.context.members.filter((node) => node !== this.context.self);
    for (const database of this.databases.keys()) {
      if (!this.randomKeys.has(database)) continue;
      const unknown = [...this.holdings.all(database)].filter(({ key }) => !this.randomKeys.knows(database, key));
      // what else we have may be all that is left of a record, if nobody is there who would know
      const isKept = ({ state }: { state: string }): boolean => state === 'owned' || this.recovery.remembersAlone;
      this.randomKeys.orphansAt(database, this.homes.epoch, unknown.filter(isKept).map(({ key }) => key));
      for (const holding of unknown) {
        const { key, state, turn } = holding;
        if (isKept(holding)) continue;
        if (state === 'copy' || state === 'backup') this.holdings.onDrop(database, key, turn);
      }
    }
    this.randomKeys.tellOrphans(others, (database, key) => this.holdings.holds(database, key));
  }

  /** We have told all homes what we have. */
  private recovered(epoch: Epoch): void {
    this.events?.recovered(epoch);
    this.tellRecovered();
  }

  /** Said again by whatever comes later; who listens takes the first. */
  private tellRecovered(): void {
    const { epoch } = this.homes;
    if (this.recovery.hasClaimed(epoch) && this.recovery.claimsAreInUntil() >= epoch) this.recoveryWatcher?.recovered();
  }

  private claimsDone(from: NodeId, epoch: Epoch): void {
    this.recovery.onClaimsDone(from, epoch);
    this.haveClaimsCome = true;
    this.lookWhetherKeysAreKnown();
    this.answerHeld();
    this.tellRecovered();
  }

  /** All have told us what they have of this key, for which somebody waits. */
  private keyClaimed(database: DatabaseId, key: RecordKey): void {
    this.context.count('record.claimed-now');
    this.directory.completeKey(database, key);
    const isOfKey = (ask: Ask): boolean => ask.key === key && ask.database === database;
    const asks = this.heldAsks.filter(isOfKey);
    this.heldAsks = this.heldAsks.filter((ask) => !isOfKey(ask));
    for (const ask of asks) this.asked(ask);
    this.restoring.begin();
  }

  /** Keys of ours of which anybody has anything have been taken, if all claims are in. */
  private allDecided(): void {
    const until = this.recovery.claimsAreInUntil();
    if (!this.haveClaimsCome || until < this.homes.epoch) return;
    this.haveClaimsCome = false;
    this.recovery.allClaimed();
    this.randomKeys.orphansDone(until);
    // of keys of ours nobody may have anything any more: who erased one last is a run that could not tell us
    if (this.homes.renewedSince !== null) {
      this.randomKeys.endUnless((database, key) => this.directory.has(database, key));
    }
    this.homes.forgetBefore(until);
  }

  /** More keys may be complete: claims came, or somebody whose claims were awaited is out of the view. */
  private answerHeld(): void {
    this.directory.claimsCame();
    for (const ask of this.heldAsks.splice(0)) this.asked(ask);
    this.deciding.begin();
    this.restoring.begin();
  }

  peerDown(peer: NodeId): void {
    this.barriers.peerGone(peer);
    this.mail.drain();
  }

  /** The lease was renewed: what was not done without it is done now. */
  leaseRenewed(): void {
    this.holdings.leaseRenewed();
    this.mail.drain();
  }

  /** Called at the end of the turn: sends the asks and announcements that were collected. */
  flush(): void {
    this.mail.flush();
    this.randomKeys.flush();
  }

  /** Requests of local processes not answered yet. */
  waiting(): number {
    return this.holdings.waiting();
  }

  status(): Map<DatabaseId, DatabaseStatus> {
    const result = new Map<DatabaseId, DatabaseStatus>();
    for (const [database, { name, moves }] of this.databases) {
      const { owned, copies } = this.holdings.countOf(database);
      const wait = this.holdings.waits.get(database)!.summary();
      result.set(database, { name, owned, copies, directoryEntries: this.directory.count(database), moves, wait });
    }
    return result;
  }

  private want(database: DatabaseId, key: RecordKey, mode: AccessMode, token: number): void {
    const known = this.databases.get(database);
    if (known === undefined) return this.events?.failed(token, 'unknown database');
    if (known.barrier && this.holdings.get(database, key)?.state !== 'owned') {
      this.barriers.pass((number, peer) => this.mail.post(peer, { kind: 'barrier', number }), () => {
        this.holdings.want(database, key, mode, token);
        this.mail.drain();
      });
    } else {
      this.holdings.want(database, key, mode, token);
    }
    this.mail.drain();
  }

  private moved(...move: Parameters<RecordsWatcher['moved']>): void {
    const known = this.databases.get(move[0]);
    if (known !== undefined) known.moves += 1;
    this.watcher?.moved(...move);
  }

  /** For an inspection, an operation, or somebody who obtains it. */
  private wasRead(token: number, data: Uint8Array): void {
    const then = this.inspections.get(token);
    if (then === undefined) return this.pins.arrived(token);
    this.inspections.delete(token);
    then(data);
  }

  /** The server that knows who owns the record. */
  homeOf(database: DatabaseId, key: RecordKey): NodeId {
    if (!this.homes.isInstalled) return this.context.self;
    if (this.randomKeys.has(database)) return this.randomKeys.homeOf(database, key) ?? this.context.self;
    return this.homes.homeOf(database, key);
  }

  /** Since which view the key's home has been its home. */
  private homeSince(database: DatabaseId, key: RecordKey): Epoch {
    if (this.randomKeys.has(database)) {
      return this.randomKeys.since(database, key) ?? this.homes.renewedSince ?? toEpoch(0);
    }
    return this.homes.since(database, key);
  }

  /** Whether everybody has told us what it has of the key, if we are its home. */
  private isComplete(database: DatabaseId, key: RecordKey): boolean {
    if (!this.homes.isInstalled) return false;
    if (this.isUnknownKey(database, key)) return this.knowsRandomKeys;
    if (this.homeOf(database, key) !== this.context.self) return true;
    return this.recovery.isClaimed(database, key, this.homeSince(database, key));
  }

  /** The run of a member, as it travels in asks. */
  private runOf(server: NodeId): number | undefined {
    const incarnation = this.homes.runOf(server);
    return incarnation === undefined ? undefined : runNumber(incarnation);
  }

  /** Whether the key's home can be told of something now. */
  private hasHome(database: DatabaseId, key: RecordKey): boolean {
    const home = this.homeOf(database, key);
    return home === this.context.self || this.context.isUp(home);
  }

  /** A random key that nobody announced: it exists nowhere. */
  private isUnknownKey(database: DatabaseId, key: RecordKey): boolean {
    return this.randomKeys.has(database) && this.randomKeys.homeOf(database, key) === undefined;
  }

  /** Null before the first view: nobody can be asked yet. */
  private ask(database: DatabaseId, key: RecordKey, mode: AccessMode): NodeId | null {
    if (!this.homes.isInstalled) return null;
    const home = this.homeOf(database, key);
    this.mail.ask(home, { asker: this.context.self, run: this.run, mode, database, key });
    return home;
  }

  private handle(from: NodeId, message: RecordMessage): void {
    switch (message.kind) {
      case 'ask': {
        const { asker, run, mode } = message;
        return message.keys.forEach(({ database, key }) => this.asked({ asker, run, mode, database, key }));
      }
      case 'give':
        if (this.isOrder(from, message)) this.holdings.onGive(message);
        return;
      case 'record':
        return this.holdings.onRecord(from, message);
      case 'have':
        this.directory.onHave(from, message.database, message.key, message.turn);
        return this.mirrorBare();
      case 'revoke':
        if (this.isOrder(from, message)) this.holdings.onRevoke(message.database, message.key, message.turn);
        return;
      case 'revoked':
        return this.directory.onRevoked(from, message.database, message.key, message.turn);
      case 'release':
        return this.directory.onRelease(from, message.database, message.key, message.turn);
      case 'drop':
        if (this.isOrder(from, message)) this.holdings.onDrop(message.database, message.key, message.turn);
        return;
      case 'missing':
        this.directory.onMissing(from, message.database, message.key, message.turn);
        return this.restoring.begin();
      case 'reclaim':
        if (this.isOrder(from, message)) this.holdings.onReclaim(message.database, message.key, message.turn);
        return;
      case 'exists':
        return message.keys.forEach((key) => this.existsElsewhere(from, message.database, key));
      case 'gone':
        return message.keys.forEach((key) => this.goneElsewhere(from, message.database, key));
      case 'orphans-done':
        return this.randomKeys.onOrphansDone(from, message.database, message.epoch);
      case 'orphans':
        return this.randomKeys.orphansAt(message.database, message.epoch, message.keys);
      case 'barrier':
        return this.mail.post(from, { kind: 'barrier-passed', number: message.number });
      case 'barrier-passed':
        return this.barriers.passed(from, message.number);
      case 'claim':
        return this.claimed(from, message);
      case 'many':
        return this.many(from, message);
      case 'claims-done':
        return this.claimsDone(from, message.epoch);
      case 'claim-now':
        return this.recovery.onClaimNow(from, message.epoch, message.database, message.key);
      case 'claimed-now':
        return this.recovery.onClaimedNow(from, message.epoch, message.database, message.key);
      case 'keys-unknown':
        return this.recovery.onKeysUnknown(from, message.epoch);
      case 'view':
        return this.recovery.onView(from, message.epoch);
      case 'look':
        return this.looks.onLook(message);
      case 'looked':
        return this.looks.onLooked(message);
      case 'describe':
        return this.descriptions.onDescribe(from, message);
      case 'description':
        return this.descriptions.onDescription(message);
      default:
        return this.mirroring(from, message);
    }
  }

  private many(from: NodeId, message: Extract<RecordMessage, { kind: 'many' }>): void {
    const { of, database } = message;
    for (const record of message.records) {
      const { key, turn } = record;
      if (of === 'have') this.directory.onHave(from, database, key, turn);
      else this.handle(from, single(message, record));
    }
    this.mirrorBare();
  }

  /** A record that was brought back has no backup but itself. */
  private mirrorBare(): void {
    if (this.directory.hasBare) this.restoring.begin();
  }

  /** Whether it comes from the key's home, and from the time since which that has been its home. */
  private isOrder(from: NodeId, { database, key }: { database: DatabaseId; key: RecordKey }): boolean {
    const isHome = this.homeOf(database, key) === from;
    if (isHome && this.recovery.hasSeen(from, this.homeSince(database, key))) return true;
    this.context.count('record.order.stale');
    return false;
  }

  private claimed(from: NodeId, { database, key, turn, what }: Extract<RecordMessage, { kind: 'claim' }>): void {
    if (from !== this.context.self) this.context.count('record.claim.received');
    // late, from when we were the home once before: the key has had another home since
    if (!this.recovery.hasSeen(from, this.homeSince(database, key))) return this.context.count('record.claim.stale');
    if (what === 'gone') this.directory.adoptGone(database, key, turn);
    else if (what === 'owner') this.directory.adopt(from, database, key, turn);
    else if (what === 'reader') this.directory.adoptReader(from, database, key, turn);
    else this.directory.adoptBackup(from, database, key, turn);
  }

  private goneElsewhere(home: NodeId, database: DatabaseId, key: RecordKey): void {
    this.randomKeys.goneAt(home, database, key);
    // the home knows of no backup that came too late, and could not have it dropped any more
    if (this.isUnknownKey(database, key)) this.holdings.endBackup(database, key);
  }

  private mirroring(from: NodeId, message: MirrorMessage): void {
    const { kind, database, key, turn } = message;
    if (kind === 'backup') {
      if (!this.isUnknownKey(database, key)) return this.holdings.onBackup(from, message);
      // it may be longer under way than the word that the record is gone; whoever is not the home has it from the home
      this.context.count('record.backup.stale');
      return this.mail.post(from, { kind: 'not-kept', database, key, turn });
    }
    if (kind === 'mirror') {
      if (this.isOrder(from, message)) this.holdings.onMirror(message);
      return;
    }
    // what it keeps it has claimed, or will
    if (!this.recovery.hasSeen(from, this.homeSince(database, key))) return this.context.count('record.kept.stale');
    if (kind === 'kept') this.directory.onKept(from, database, key, turn);
    else this.directory.onNotKept(database, key, turn);
    this.mirrorBare();
  }

  private asked(ask: Ask): void {
    const { asker, run, mode, database, key } = ask;
    if (this.runOf(asker) !== run) {
      // Forwarded to us, or kept until now; the run that asked is gone.
      this.context.count('record.ask.old-run');
      return;
    }
    const home = this.homeOf(database, key);
    if (home !== this.context.self && !this.randomKeys.has(database)) {
      // The asker has not installed our view, and asks the right one when it has.
      this.context.count('record.ask.stale');
      return;
    }
    if (!this.isComplete(database, key) || this.gone.has(asker)) {
      // Somebody may own the record from before we were its home; or our entries still name a former run of the asker.
      // Bounded by the askers: each asks once per key.
      this.heldAsks.push(ask);
      if (home === this.context.self && !this.isUnknownKey(database, key)) this.recovery.claimNow(database, key);
      return;
    }
    if (home !== this.context.self && !this.directory.has(database, key)) {
      // The asker took us for the home of a random key that another server created too: it is the other one's.
      this.context.count('record.ask.forwarded');
      if (asker === this.context.self) this.holdings.askForwarded(database, key, home);
      this.mail.ask(home, ask);
      return;
    }
    const isNew = this.isUnknownKey(database, key);
    if (isNew) this.context.count('record.granted-on-the-spot');
    // whoever gets the record must know its home by then; it may just have heard from us that the key is gone
    if (this.randomKeys.take(database, key) && asker !== this.context.self) this.randomKeys.flush();
    this.directory.onAsk(asker, run, mode, database, key);
  }

  private existsElsewhere(from: NodeId, database: DatabaseId, key: RecordKey): void {
    if (this.randomKeys.homeOf(database, key) === this.context.self && this.directory.has(database, key)) {
      // Two servers made one key in the same moment. Whoever has nothing in it yields; see Deletions.
      this.context.count('record.key-collision');
      this.deletions.schedule(database, key);
      return;
    }
    this.randomKeys.existsAt(from, database, key);
  }
}

const NOTHING = new Uint8Array(0);

/** A run as it travels in asks: unsigned 32 bits of the incarnation, which counts milliseconds. */
function runNumber(incarnation: Incarnation): number {
  return incarnation % 0x1_0000_0000;
}
