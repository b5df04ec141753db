/**
 * The server's own side of records: what its tdbs hold, which local processes wait for what, and what was promised to
 * others. Performs one store operation per key at a time; a chain held by a smbd ('busy') is tried again later, never
 * waited for. Called by core/records; speaks to homes and askers only by record messages.
 */
import type { DatabaseId, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { turn as toTurn } from '../../base/ids.js';
import { Histogram } from '../../base/histogram.js';
import type { CoreContext } from '../context.js';
import type { AccessMode, KeptInput, Micros, RecordOp, RecordOutcome } from '../effects.js';
import { FLAG_HAVE_DELEGATIONS, FLAG_HAVE_READONLY } from '../../wire/record-header.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import type { Holding, Waiter } from './holding.js';
import { ARRIVED, BUSY_RETRY_MICROS_MIN, GIVEN, canServe, isActive, isCopyToGo, isLeaving } from './holding.js';
import { isOwner, newHolding } from './holding.js';
import { RecentErasures } from './recent-erasures.js';
import type { Guard, HoldingEvents } from './events.js';
import { markOf } from './hold-times.js';
import { Stays } from './stays.js';

/** The longest pause between two tries of a busy chain: others wait for the record, and a try costs little. */
const BUSY_RETRY_MICROS_MAX = 1_000;
/** A chain held longer than this is worth a line in the log: smbd holds chains for microseconds. */
const BUSY_WARN_MICROS = 1_000_000;

export type KeptRecord = Extract<KeptInput, { kind: 'record-kept' }>;

type Post = (database: DatabaseId, key: RecordKey, message: RecordMessage) => void;

export class Holdings {
  private readonly databases = new Map<DatabaseId, Map<RecordKey, Holding>>();
  private readonly byToken = new Map<number, Holding>();
  /** Those with an ask, a process that waits, or an order not yet done: the few that a change of the view concerns. */
  private readonly active = new Set<Holding>();
  private lastSerial = 0;
  /** How many of each database are in which state; of those in none it means nothing. */
  private readonly counts = new Map<DatabaseId, Record<Holding['state'], number>>();
  /** Those with something to do for which we need the lease. */
  private readonly parked = new Set<Holding>();
  private readonly stays: Stays;
  /** Of databases whose records have reasons of their own to stay. */
  private readonly guards = new Map<DatabaseId, Guard>();
  readonly erasures = new RecentErasures();
  /** How long local processes waited for records of each database. */
  readonly waits = new Map<DatabaseId, Histogram>();

  /**
   * @param run names this run of ours in asks and their answers
   * @param postHome sends to the key's home
   * @param post sends to a server (never ourselves)
   * @param runOf the run of a member of the view
   * @param ask asks the key's home for the record, and says who that is; null: it cannot be asked yet
   */
  constructor(
    private readonly context: CoreContext,
    private readonly run: number,
    holdMicros: Micros,
    private readonly postHome: Post,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
    private readonly runOf: (server: NodeId) => number | undefined,
    private readonly ask: (database: DatabaseId, key: RecordKey, mode: AccessMode) => NodeId | null,
    private readonly events: HoldingEvents,
  ) {
    this.stays = new Stays(context, holdMicros, (holding) => this.settle(holding));
  }

  /** Records that others wait for and that stay for a while. */
  get heldBack(): number {
    return this.stays.heldBack;
  }

  addDatabase(database: DatabaseId): void {
    if (this.databases.has(database)) return;
    this.databases.set(database, new Map());
    this.waits.set(database, new Histogram());
    this.counts.set(database, { none: 0, owned: 0, copy: 0, backup: 0 });
  }

  /** From now on the records of a database stay as long as the guard says. */
  setGuard(database: DatabaseId, guard: Guard): void {
    this.guards.set(database, guard);
  }

  /** What the guard forbade it may allow now. */
  guardOpened(database: DatabaseId, key: RecordKey): void {
    const holding = this.get(database, key);
    if (holding !== undefined) this.settle(holding);
  }

  /** The home wants the record, or the copy, elsewhere. */
  isWanted(database: DatabaseId, key: RecordKey): boolean {
    const holding = this.get(database, key);
    return holding !== undefined && (holding.give?.mode === 'write' || isCopyToGo(holding));
  }

  get(database: DatabaseId, key: RecordKey): Holding | undefined {
    return this.databases.get(database)?.get(key);
  }

  all(database: DatabaseId): Iterable<Holding> {
    return this.databases.get(database)?.values() ?? [];
  }

  /** So many of a database that was opened are ours, and copies of what others own. */
  countOf(database: DatabaseId): { owned: number; copies: number } {
    const { owned, copy } = this.counts.get(database)!;
    return { owned, copies: copy };
  }

  /** Those with an ask, a process that waits, or an order not yet done. */
  allActive(): Holding[] {
    return [...this.active];
  }

  /** The serial number of the youngest holding. */
  get youngest(): number {
    return this.lastSerial;
  }

  /** All of all databases, the oldest first, and those that come meanwhile. */
  *everything(): Generator<Holding, void> {
    for (const holdings of this.databases.values()) yield* holdings.values();
  }

  ownedKeys(database: DatabaseId): RecordKey[] {
    const keys: RecordKey[] = [];
    for (const holding of this.all(database)) if (holding.state === 'owned') keys.push(holding.key);
    return keys;
  }

  /** What the run that we continue left in the file (docs/decisions/resuming.md). */
  kept({ database, key, dmaster, turn, flags }: KeptRecord): Holding {
    const holding = this.holdingOf(database, key);
    const isCopy = dmaster !== this.context.self && (flags & FLAG_HAVE_READONLY) !== 0;
    this.setState(holding, dmaster === this.context.self ? 'owned' : isCopy ? 'copy' : 'backup');
    holding.shared = holding.state === 'owned' && (flags & FLAG_HAVE_DELEGATIONS) !== 0;
    // it may have taken the place of a backup
    holding.isBackupToo = isCopy;
    // the header of what was given away has the turn in which we owned it: it is newer than what we got it from
    holding.turn = holding.state === 'backup' ? toTurn(turn + 1) : turn;
    return holding;
  }

  /** Whether a local writer, or reader, could use the record now. */
  isHome(database: DatabaseId, key: RecordKey, mode: AccessMode): boolean {
    const holding = this.get(database, key);
    if (holding === undefined || holding.arrived !== null || holding.reclaim !== null) return false;
    return canServe(holding, mode) && !isLeaving(holding.operation);
  }

  /** Keeps the record here for an operation, unless another server has waited for long enough already. */
  pin(database: DatabaseId, key: RecordKey, operation: number, until: Micros): void {
    const holding = this.get(database, key);
    if (holding !== undefined) this.stays.pin(holding, operation, until);
  }

  unpin(database: DatabaseId, key: RecordKey, operation: number): void {
    const holding = this.get(database, key);
    if (holding !== undefined) this.stays.unpin(holding, operation);
  }

  /** Requests not answered yet. */
  waiting(): number {
    return this.byToken.size;
  }

  /** A local process asks to own the record: anew, or because it left before the process was done with it. */
  askedFor(database: DatabaseId, key: RecordKey, isAgain: boolean): void {
    this.stays.askedFor(database, key, isAgain, this.get(database, key));
  }

  /** A local process wants the record. */
  want(database: DatabaseId, key: RecordKey, mode: AccessMode | 'owned', token: number): void {
    const holding = this.holdingOf(database, key);
    holding.waiters.push({ token, mode, since: this.context.now() });
    this.byToken.set(token, holding);
    this.settle(holding);
  }

  /** The waiting process is gone; what it asked for still arrives and is used by the next. */
  cancel(token: number): void {
    const holding = this.byToken.get(token);
    if (holding === undefined) return;
    this.byToken.delete(token);
    holding.waiters = holding.waiters.filter((waiter) => waiter.token !== token);
    this.settle(holding);
  }

  onRecord(from: NodeId, message: Extract<RecordMessage, { kind: 'record' }>): void {
    if (message.run !== this.run) {
      // Asked for by a run of ours that died; the home knows by now and takes the record back from its last owner.
      this.context.count('record.arrived.old-run');
      return;
    }
    const holding = this.holdingOf(message.database, message.key);
    // a later one may come before an earlier one is stored: what it came from has ended meanwhile
    if (message.turn <= holding.turn || (holding.arrived !== null && message.turn <= holding.arrived.turn)) {
      this.context.count('record.arrived.stale');
      this.forgetIfIdle(holding);
      return;
    }
    holding.arrived = { ...message, from };
    this.settle(holding);
  }

  onGive(message: Extract<RecordMessage, { kind: 'give' }>): void {
    if (this.runOf(message.to) !== message.run) {
      // Nobody waits for it any more; the home forgets the ask when nothing of that run is under way any more.
      this.context.count('record.give.old-run');
      return;
    }
    const holding = this.get(message.database, message.key);
    if (holding === undefined || !isOwner(holding) || message.turn <= holding.turn) {
      const { database, key, turn } = message;
      this.context.count('record.give.missing');
      this.postHome(database, key, { kind: 'missing', database, key, turn });
      return;
    }
    holding.give = { turn: message.turn, to: message.to, run: message.run, mode: message.mode };
    holding.giveSince = this.context.now();
    holding.cohort = 0;
    this.settle(holding);
  }

  /**
   * A view was installed: there may be a first home to ask, and nobody wants what was to be given to a run that is out.
   */
  installed(): void {
    for (const holding of this.allActive()) {
      const isGiveOver = holding.give !== null && this.runOf(holding.give.to) !== holding.give.run;
      if (isGiveOver) holding.give = null;
      const canAsk = holding.asked === null && holding.waiters.length > 0;
      if (canAsk || isGiveOver) this.settle(holding);
    }
  }

  /** The lease was renewed. */
  leaseRenewed(): void {
    const parked = [...this.parked];
    this.parked.clear();
    for (const holding of parked) this.settle(holding);
  }

  /** Whether we have something of the record, or are about to. */
  holds(database: DatabaseId, key: RecordKey): boolean {
    const holding = this.get(database, key);
    return holding !== undefined && (holding.state !== 'none' || holding.arrived !== null);
  }

  onRevoke(database: DatabaseId, key: RecordKey, turn: Turn): void {
    const holding = this.holdingOf(database, key);
    holding.discard.push({ turn, confirm: true, keep: true });
    this.settle(holding);
  }

  onDrop(database: DatabaseId, key: RecordKey, turn: Turn): void {
    const holding = this.holdingOf(database, key);
    holding.discard.push({ turn, confirm: false, keep: false });
    this.settle(holding);
  }

  onReclaim(database: DatabaseId, key: RecordKey, turn: Turn): void {
    const holding = this.holdingOf(database, key);
    // The asker for whom we were told to give is lost.
    holding.give = null;
    holding.reclaim = turn;
    this.settle(holding);
  }

  /** Our home wants another server to have a backup of what we own. */
  onMirror({ database, key, turn, to }: Extract<RecordMessage, { kind: 'mirror' }>): void {
    const holding = this.get(database, key);
    const isMeant = holding?.state === 'owned' && holding.turn === turn && !holding.isFresh;
    if (!isMeant) {
      this.context.count('record.mirror.needless');
      return this.notKept(database, key, turn);
    }
    holding.mirrorTo = to;
    this.settle(holding);
  }

  /** The home waits for an answer, whatever comes of the backup that it ordered. */
  private notKept(database: DatabaseId, key: RecordKey, turn: Turn): void {
    this.postHome(database, key, { kind: 'not-kept', database, key, turn });
  }

  /** An owner sends us a backup of its record. */
  onBackup(owner: NodeId, { database, key, turn, data }: Extract<RecordMessage, { kind: 'backup' }>): void {
    const holding = this.holdingOf(database, key);
    if (holding.state === 'copy' && holding.turn > turn) return this.copyIsBackup(holding, turn);
    if (holding.state === 'owned' || turn <= holding.turn) this.backupIsStale(holding, turn);
    else holding.toKeep = { op: 'keep', turn, owner, data };
    this.settle(holding);
  }

  private backupIsStale({ database, key }: Holding, turn: Turn): void {
    this.context.count('record.backup.stale');
    this.notKept(database, key, turn);
  }

  /** The record exists nowhere any more: nothing of it is kept. */
  endBackup(database: DatabaseId, key: RecordKey): void {
    const holding = this.get(database, key);
    if (holding === undefined) return;
    holding.toKeep = null;
    if (holding.state === 'backup') this.onDrop(database, key, holding.turn);
  }

  /**
   * A local process emptied the record: its last user here is done with it, and whoever waits may have it at once.
   */
  emptied(database: DatabaseId, key: RecordKey): void {
    const holding = this.get(database, key);
    if (holding?.state !== 'owned') return;
    holding.mark = NaN;
    this.stays.end(holding);
    this.settle(holding);
  }

  /** Deletes the record here if it is ours and empty. Returns false when it is in use just now: ask again later. */
  erase(holding: Holding): boolean {
    if (holding.state !== 'owned' || holding.asked !== null || holding.give !== null) return false;
    if (holding.waiters.length > 0 || holding.operation !== null) return false;
    if (this.guards.get(holding.database)?.isInUse(holding.key) === true) return false;
    holding.erase = true;
    this.settle(holding);
    return true;
  }

  /** The key has another home: what the former one ordered and is not done yet is void. */
  voidOrders(holding: Holding): void {
    holding.give = null;
    holding.discard = [];
    holding.reclaim = null;
    holding.mirrorTo = null;
    if (!isActive(holding) && holding.operation === null) this.active.delete(holding);
  }

  /** Our ask went on to another home than we thought. */
  askForwarded(database: DatabaseId, key: RecordKey, home: NodeId): void {
    const holding = this.get(database, key);
    if (holding !== undefined && holding.asked !== null) holding.askedOf = home;
  }

  /**
   * The key has another home, and nothing is under way on orders of former ones. Its turns may be lower than theirs: it
   * hears what we have, but not up to which turn we have had something.
   */
  forgetTurn(holding: Holding): void {
    if (holding.state === 'none' && holding.arrived === null) holding.turn = toTurn(0);
  }

  /** A run is out of the view. */
  runGone(server: NodeId): void {
    for (const holding of this.active) if (holding.askedOf === server) holding.askedOf = null;
  }

  /** It was asked of a run that is out: where keys are random, we may not know any more that it was the home. */
  isAskLost({ asked, askedOf }: Holding): boolean {
    return asked !== null && askedOf === null;
  }

  /** The key has another home: what was asked of the former one is asked again, unless the answer came after all. */
  askAgain(holding: Holding): void {
    if (holding.asked === null || holding.arrived !== null) return;
    holding.asked = null;
    this.settle(holding);
  }

  onDone(database: DatabaseId, key: RecordKey, operation: RecordOp, outcome: RecordOutcome): void {
    const holding = this.get(database, key);
    if (holding === undefined || holding.operation !== operation) {
      this.context.log('error', 'store-answer-unexpected', { database, operation: operation.op });
      return;
    }
    holding.operation = null;
    if (outcome.result === 'busy') return this.busy(holding);
    holding.busySince = null;
    holding.busyDelay = BUSY_RETRY_MICROS_MIN;
    holding.busyWarned = false;
    if (outcome.result === 'failed') {
      this.context.log('error', 'store-failed', {
        database,
        operation: operation.op,
        why: outcome.why,
        remedy: 'check that the file system of the volatile databases has space and that nobody else writes to it',
      });
      this.context.count('record.store.failed');
      this.busy(holding);
      return;
    }
    this.apply(holding, operation, outcome);
    this.settle(holding);
  }

  private busy(holding: Holding): void {
    const now = this.context.now();
    this.context.count('record.store.busy');
    holding.busySince ??= now;
    if (now - holding.busySince > BUSY_WARN_MICROS && !holding.busyWarned) {
      holding.busyWarned = true;
      this.context.log('warn', 'chain-held', {
        database: holding.database,
        key: Buffer.from(holding.key, 'latin1').toString('hex'),
        millis: Math.round((now - holding.busySince) / 1000),
        remedy: 'a local smbd holds the record: look for one that hangs in a file system call',
      });
    }
    if (holding.erase) {
      // Deleting can wait for the next round; nobody waits for it.
      holding.erase = false;
      this.events.emptyTaken(holding.database, holding.key);
    }
    holding.retrying = true;
    this.context.timers.at(now + holding.busyDelay, () => {
      holding.retrying = false;
      this.settle(holding);
    });
    holding.busyDelay = Math.min(holding.busyDelay * 2, BUSY_RETRY_MICROS_MAX);
  }

  /** Starts the next store operation of this key, if there is something to do. */
  private settle(holding: Holding): void {
    if (holding.operation !== null || holding.retrying) {
      this.active.add(holding);
      return;
    }
    if (this.context.isFenced()) {
      this.active.add(holding);
      this.parked.add(holding);
      return;
    }
    const operation = this.nextOperation(holding);
    if (operation !== null) {
      holding.operation = operation;
      this.active.add(holding);
      holding.giving = holding.give;
      if (operation.op === 'erase') {
        const { database, key } = holding;
        this.context.emit({ kind: 'erasure-keep', database, key, turn: lastTurnOf(holding) });
      }
      if (isLeaving(operation)) this.events.leaving(holding.database, holding.key);
      this.context.emit({ kind: 'record', database: holding.database, key: holding.key, op: operation });
      return;
    }
    if (holding.asked === null && holding.waiters.length > 0) this.askFor(holding);
    if (isActive(holding)) this.active.add(holding);
    else this.active.delete(holding);
    this.forgetIfIdle(holding);
  }

  /** What must happen first: store what arrived, obey the home, serve local waiters, give, delete. */
  private nextOperation(holding: Holding): RecordOp | null {
    const { arrived, waiters, give } = holding;
    if (arrived !== null) {
      if (arrived.what === 'keep') return { op: 'unshare', turn: arrived.turn };
      const copyOf = arrived.what === 'copy' ? arrived.owner : null;
      return { op: 'take', turn: arrived.turn, data: arrived.data, copyOf };
    }
    const discard = holding.discard[0];
    if (discard !== undefined && (!isCopyToGo(holding) || this.mayLeave(holding))) {
      return { op: 'discard', turn: discard.turn, keep: discard.keep && holding.isBackupToo };
    }
    if (holding.reclaim !== null) return { op: 'reclaim', turn: holding.reclaim };
    if (waiters.length > 0 && waiters.some((waiter) => canServe(holding, waiter.mode))) {
      const write = waiters.some((waiter) => waiter.mode === 'write' && canServe(holding, waiter.mode));
      return { op: 'peek', mode: write ? 'write' : 'read' };
    }
    if (give !== null && holding.state === 'owned') {
      if (give.mode === 'read') return this.mayBeShared(holding) ? { op: 'share', turn: give.turn } : null;
      return this.mayLeave(holding) ? { op: 'give', turn: give.turn, to: give.to } : null;
    }
    if (holding.toKeep !== null && (holding.state !== 'copy' || this.mayLeave(holding))) return holding.toKeep;
    if (holding.mirrorTo !== null && holding.state === 'owned') return { op: 'peek', mode: 'read' };
    if (holding.erase && holding.state === 'owned') return { op: 'erase', turn: holding.turn };
    return null;
  }

  private mayLeave(holding: Holding): boolean {
    if (!this.stays.isOver(holding)) return false;
    return this.guards.get(holding.database)?.mayLeave(holding.key) !== false;
  }

  private mayBeShared(holding: Holding): boolean {
    return this.stays.isOver(holding) && this.guards.get(holding.database)?.mayBeShared(holding.key) !== false;
  }

  private askFor(holding: Holding): void {
    const mode = holding.waiters.some((waiter) => waiter.mode === 'write') ? 'write' : 'read';
    const home = this.ask(holding.database, holding.key, mode);
    if (home === null) return;
    holding.asked = mode;
    holding.askedOf = home;
  }

  private apply(holding: Holding, operation: RecordOp, outcome: Exclude<RecordOutcome, { result: 'busy' }>): void {
    switch (operation.op) {
      case 'take':
        return this.taken(holding, operation);
      case 'keep':
        return this.backupStored(holding, operation, outcome);
      case 'unshare':
        return this.unshared(holding, operation.turn, outcome);
      case 'discard':
        return this.discarded(holding, operation.keep);
      case 'reclaim':
        return this.reclaimed(holding, outcome);
      case 'peek':
        return this.peeked(holding, operation.mode, outcome);
      case 'give':
      case 'share':
        return this.given(holding, outcome);
      case 'erase':
        return this.erased(holding, outcome);
    }
  }

  private taken(holding: Holding, { turn, data, copyOf }: Extract<RecordOp, { op: 'take' }>): void {
    const { database, key } = holding;
    const isCopy = copyOf !== null;
    holding.turn = turn;
    holding.isBackupToo = isCopy && (holding.state === 'backup' || holding.isBackupToo);
    this.setState(holding, isCopy ? 'copy' : 'owned');
    holding.shared = false;
    const { toKeep } = holding;
    if (toKeep !== null && !isCopy) {
      holding.toKeep = null;
      this.backupIsStale(holding, toKeep.turn);
    } else if (toKeep !== null && turn > toKeep.turn) this.copyIsBackup(holding, toKeep.turn);
    const arrived = this.arrivedIn(holding, turn);
    holding.isFresh = arrived?.what === 'fresh';
    if (arrived === null) return;
    holding.mark = markOf(data);
    const now = this.context.now();
    if (isCopy) this.stays.beganShort(holding);
    else this.stays.began(holding, holding.waiters.length);
    this.context.count(ARRIVED[arrived.what]);
    if (data.length > 0) this.context.count('record.arrived.bytes', data.length);
    this.postHome(database, key, { kind: 'have', database, key, turn });
    if (!isCopy && data.length === 0) this.events.emptyTaken(database, key);
    if (!isCopy) this.events.came(database, key);
    const [first] = holding.waiters;
    const waited = first === undefined ? null : now - first.since;
    if (arrived.what === 'move') this.events.moved(database, key, arrived.from, waited);
    this.answer(holding, data, isCopy ? 'read' : 'write');
  }

  /** A copy of what we are to keep becomes the backup when it has to go. */
  private copyIsBackup(holding: Holding, turn: Turn): void {
    const { database, key } = holding;
    holding.toKeep = null;
    holding.isBackupToo = true;
    this.context.count('record.backup.stored');
    this.postHome(database, key, { kind: 'kept', database, key, turn });
  }

  private backupStored(
    holding: Holding,
    { turn }: Extract<RecordOp, { op: 'keep' }>,
    { result }: RecordOutcome,
  ): void {
    const { database, key } = holding;
    holding.toKeep = null;
    if (result !== 'done') return this.backupIsStale(holding, turn);
    this.setState(holding, 'backup');
    holding.turn = turn;
    this.context.count('record.backup.stored');
    this.postHome(database, key, { kind: 'kept', database, key, turn });
  }

  /** The answer to our ask that came in this turn, now done with; null if a later one has taken its place. */
  private arrivedIn(holding: Holding, turn: Turn): Holding['arrived'] {
    const { arrived } = holding;
    if (arrived?.turn !== turn) return null;
    holding.arrived = null;
    holding.asked = null;
    return arrived;
  }

  private unshared(holding: Holding, turn: Turn, outcome: RecordOutcome): void {
    const { database, key } = holding;
    const isAnswer = this.arrivedIn(holding, turn) !== null;
    if (outcome.result === 'done') {
      this.setState(holding, 'owned');
      holding.shared = false;
      holding.turn = turn;
      if (!isAnswer) return;
      this.stays.beganShort(holding);
      this.context.count('record.arrived.keep');
      this.events.came(database, key);
      this.postHome(database, key, { kind: 'have', database, key, turn });
      return;
    }
    this.setState(holding, 'none');
    if (!isAnswer) return;
    // The home believes that we own it; the tdb says otherwise. The home restores it, we stay in its queue.
    holding.asked = 'write';
    this.postHome(database, key, { kind: 'missing', database, key, turn });
  }

  private discarded(holding: Holding, kept: boolean): void {
    const { database, key } = holding;
    const { turn, confirm, keep } = holding.discard.shift()!;
    // told to drop the backup that the copy had taken the place of: the copy is only a copy from now on
    if (!keep) holding.isBackupToo = false;
    if (holding.state !== 'owned' && holding.turn <= turn) this.setState(holding, kept ? 'backup' : 'none');
    if (holding.state === 'none' && holding.turn < turn) holding.turn = turn;
    if (confirm) this.postHome(database, key, { kind: 'revoked', database, key, turn });
  }

  private reclaimed(holding: Holding, outcome: RecordOutcome): void {
    const { database, key } = holding;
    const turn = holding.reclaim!;
    holding.reclaim = null;
    if (outcome.result === 'done') {
      this.setState(holding, 'owned');
      holding.isFresh = false;
      holding.shared = false;
      holding.turn = turn;
      this.context.count('record.reclaimed');
      if (outcome.isEmpty === true) this.events.emptyTaken(database, key);
      this.events.came(database, key);
      this.postHome(database, key, { kind: 'have', database, key, turn });
    } else {
      // Should it arrive after all, it is too late: the home restores the record elsewhere.
      if (holding.turn < turn) holding.turn = turn;
      this.postHome(database, key, { kind: 'missing', database, key, turn });
    }
  }

  private peeked(holding: Holding, mode: AccessMode, outcome: RecordOutcome): void {
    if (outcome.result === 'done') {
      this.answer(holding, outcome.data ?? EMPTY, mode);
      this.mirror(holding, outcome.data ?? EMPTY);
      return;
    }
    if (holding.state !== 'owned' && holding.state !== 'copy') {
      // A traversal met a record that has left.
      this.answer(holding, EMPTY, 'owned');
      return;
    }
    // Our memory and the tdb disagree: somebody else changed the file. Ask the home, which knows who owns the record.
    this.context.log('error', 'record-lost-locally', {
      database: holding.database,
      key: Buffer.from(holding.key, 'latin1').toString('hex'),
      remedy: 'nobody but smbd and smbpoold may write to the volatile databases',
    });
    this.context.count('record.lost-locally');
    this.events.leaving(holding.database, holding.key);
    this.setState(holding, 'none');
  }

  /** Whoever asked for it, this is what we own. */
  private mirror(holding: Holding, data: Uint8Array): void {
    const { database, key, turn, state, mirrorTo } = holding;
    if (mirrorTo === null || state !== 'owned') return;
    holding.mirrorTo = null;
    this.context.count('record.mirrored');
    this.post(mirrorTo, { kind: 'backup', database, key, turn, data });
  }

  private given(holding: Holding, outcome: RecordOutcome): void {
    const { database, key } = holding;
    const { turn, to, run, mode } = holding.giving!;
    const isVoid = holding.give !== holding.giving;
    if (!isVoid) holding.give = null;
    if (outcome.result === 'done' && isVoid) {
      // In the same step we were told otherwise, and may have told others: it stays here after all.
      if (mode === 'read') holding.shared = true;
      else holding.reclaim ??= holding.turn;
      return;
    }
    if (outcome.result !== 'done') {
      this.setState(holding, 'none');
      this.postHome(database, key, { kind: 'missing', database, key, turn });
      return;
    }
    const data = outcome.data ?? EMPTY;
    const what = mode === 'write' ? 'move' : 'copy';
    if (mode === 'write') {
      this.setState(holding, 'backup');
      holding.leftUnused = markOf(data) === holding.mark;
      holding.shared = false;
      holding.turn = turn;
    } else {
      holding.shared = true;
      holding.sharedTurn = turn;
    }
    this.context.count(GIVEN[what]);
    const owner = mode === 'write' ? to : this.context.self;
    this.post(to, { kind: 'record', database, key, turn, run, what, owner, data });
  }

  private erased(holding: Holding, outcome: RecordOutcome): void {
    const { database, key, turn } = holding;
    holding.erase = false;
    if (outcome.result !== 'done') {
      if (outcome.result === 'refused' && outcome.why !== 'not-empty') this.setState(holding, 'none');
      else if (!holding.shared) this.events.came(database, key);
      return;
    }
    this.setState(holding, 'none');
    this.context.count('record.erased');
    this.erasures.erased(database, key, lastTurnOf(holding), this.context.now());
    this.postHome(database, key, { kind: 'release', database, key, turn });
  }

  /** Answers those waiters whom the record in this state satisfies. */
  private answer(holding: Holding, data: Uint8Array, usableFor: AccessMode | 'owned'): void {
    const remaining: Waiter[] = [];
    const now = this.context.now();
    const waits = this.waits.get(holding.database);
    for (const waiter of holding.waiters) {
      const fits =
        waiter.mode === 'owned' || (usableFor !== 'owned' && (waiter.mode === 'read' || usableFor === 'write'));
      if (!fits) {
        remaining.push(waiter);
        continue;
      }
      this.byToken.delete(waiter.token);
      if (waiter.mode !== 'owned') waits?.add(now - waiter.since);
      if (waiter.mode === 'write') this.events.migrated(waiter.token);
      else this.events.fetched(waiter.token, waiter.mode === 'owned' && holding.state !== 'owned' ? EMPTY : data);
    }
    holding.waiters = remaining;
  }

  private setState(holding: Holding, state: Holding['state']): void {
    const counts = this.counts.get(holding.database)!;
    counts[holding.state]--;
    counts[state]++;
    holding.state = state;
    if (state === 'owned' || holding.mirrorTo === null) return;
    // we were to send a backup of what we owned
    holding.mirrorTo = null;
    this.notKept(holding.database, holding.key, holding.turn);
  }

  private holdingOf(database: DatabaseId, key: RecordKey): Holding {
    let holdings = this.databases.get(database);
    if (holdings === undefined) {
      // A message may name a database that this server has not opened yet; its records still need their books kept.
      this.addDatabase(database);
      holdings = this.databases.get(database)!;
    }
    let holding = holdings.get(key);
    if (holding === undefined) {
      holding = newHolding(database, key, ++this.lastSerial);
      holdings.set(key, holding);
    }
    return holding;
  }

  private forgetIfIdle(holding: Holding): void {
    if (holding.state !== 'none' || holding.asked !== null || holding.waiters.length > 0) return;
    if (holding.operation !== null || holding.retrying || holding.holdTimer || holding.arrived !== null) return;
    if (holding.discard.length > 0 || holding.reclaim !== null || holding.toKeep !== null) return;
    this.active.delete(holding);
    this.databases.get(holding.database)?.delete(holding.key);
  }
}

const EMPTY = new Uint8Array(0);

/** In which anybody may have got something of it from us. */
function lastTurnOf({ sharedTurn, turn }: Holding): Turn {
  return sharedTurn > turn ? sharedTurn : turn;
}
