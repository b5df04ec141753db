/**
 * The leader of one persistent database: orders commits, sends them to all members, decides when they are durable on
 * enough servers (persistent.ts: a majority, or the holders of the view), and brings members that differ to its own
 * state. One commit at a time. Lives on the server that leads, beside its Member, and talks to all members, its own
 * included, by the same messages.
 *
 * Phases: it first collects the versions of enough servers; the highest is what the pool has. It takes that over,
 * stamps it with a new term, first in its own file, and serves once enough hold the stamped version. From then on it is
 * the truth: a member with anything else, even a higher number of an older term, holds a commit that nobody was
 * promised.
 */
import type { DatabaseId, NodeId } from '../../base/ids.js';
import {
  VERSION_ZERO,
  compareVersions,
  containsRows,
  isSequenceKey,
  sameVersion,
  sequenceRow,
  stampRows,
  versionOf,
} from '../../wire/persistent-rows.js';
import type { Version } from '../../wire/persistent-rows.js';
import type { PersistentMessage } from '../../wire/persistent-messages.js';
import type { CoreContext } from '../context.js';
import type { PersistentRow } from '../effects.js';
import {
  COMMITS_WAITING_MAX,
  COMMIT_WAIT_MICROS_MAX,
  RETRY_MICROS,
  STRAGGLER_WAIT_MICROS_MAX,
  SYNC_WAIT_MICROS_MAX,
} from './limits.js';
import type { Timer } from '../timers.js';

/** So many terms of a database lie in one term of the pool's leader: each take-over has one of its own. */
const TAKE_OVERS_PER_TERM = 256;

interface Commit {
  origin: NodeId;
  /** The origin's number; 0 for a commit of the leader's own, which nobody waits for. */
  number: number;
  rows: PersistentRow[];
  askedAt: number;
}

interface ActiveCommit extends Commit {
  version: Version;
  startedAt: number;
  /** Members that hold it, durable. */
  holders: Set<NodeId>;
  /** Members that are up, were sent it and have not reported. */
  awaited: Set<NodeId>;
  timer: Timer;
}

/** An answer that must not reach the origin before its file shows why. */
interface Deferred {
  origin: NodeId;
  number: number;
  refusal: string;
}

type Phase = 'collecting' | 'taking-over' | 'stamping' | 'serving';

export interface LeaderStatus {
  phase: Phase;
  sequence: number;
  /** Members that hold the newest state. */
  holders: NodeId[];
  /** Commits not answered yet. */
  waiting: number;
}

export class LeaderOfDatabase {
  private phase: Phase = 'collecting';
  /** What members reported last, ourselves included. */
  private readonly versions = new Map<NodeId, Version>();
  /** What members will hold once they did all that was sent to them: they get the next commit as a change. */
  private readonly sent = new Map<NodeId, Version>();
  /** What the pool holds, from 'stamping' on. */
  private current: Version = VERSION_ZERO;
  private readonly queue: Commit[] = [];
  private active: ActiveCommit | null = null;
  /** Whose content is being taken over, and which version was stamped. */
  private takenFrom: NodeId | null = null;
  private stampBase: Version = VERSION_ZERO;
  private deferred: Deferred[] = [];
  /** Members being sent everything. */
  private readonly syncing = new Map<NodeId, { since: number }>();
  private waitTimer: Timer | null = null;
  private retryTimer: Timer | null = null;
  /** Each time that the truth is found out anew needs a term of its own. */
  private takeOvers = 0;
  private isClosed = false;

  constructor(
    private readonly database: DatabaseId,
    private readonly name: string,
    /** Of the view: nobody else leads in it. */
    private readonly viewTerm: number,
    private readonly context: CoreContext,
    private readonly send: (to: NodeId, message: PersistentMessage) => void,
    private readonly readOwn: (done: (rows: PersistentRow[] | string) => void) => void,
    /** Whether these servers are enough for a commit, or to know what was committed. */
    private readonly isEnough: (has: (node: NodeId) => boolean) => boolean,
  ) {}

  /** Asks every member which version it has; one that is silent hears the question when it returns. */
  askAll(): void {
    for (const node of this.context.members) this.ask(node);
  }

  /** Another server leads, or another term has begun. */
  close(): void {
    this.isClosed = true;
    this.waitTimer?.cancel();
    this.retryTimer?.cancel();
    this.active?.timer.cancel();
  }

  /** The member's run is out of the view, which may say that fewer are enough. */
  peerLeft(node: NodeId): void {
    this.forget(node);
    if (this.phase === 'collecting') this.takeOver();
    if (this.phase === 'stamping') this.serveIfStamped();
    this.next();
  }

  private ask(node: NodeId): void {
    this.send(node, { kind: 'query', database: this.database });
  }

  // --- members

  /** A member says what it holds; `failed` is why it did not do what it was told. */
  onVersion(from: NodeId, version: Version, failed: string): void {
    if (this.isClosed) return;
    this.versions.set(from, version);
    if (failed !== '') return this.onFailure(from, failed);
    if (sameVersion(version, this.sent.get(from))) this.syncing.delete(from);
    if (this.phase === 'collecting') return this.takeOver();
    if (this.phase === 'stamping') this.countStamped(from);
    this.countHolder(from, version);
    if (this.phase !== 'serving') return;
    if (sameVersion(version, this.current)) this.memberIsCurrent(from);
    else this.syncIfNeeded(from);
    this.next();
  }

  /** A member could not do it: it gets everything later. If it is our own file, the truth must be found out again. */
  private onFailure(from: NodeId, why: string): void {
    this.context.log('warn', 'persistent.member-failed', { database: this.name, server: from, why });
    this.syncing.delete(from);
    this.sent.delete(from);
    if (from === this.context.self) return this.beginAnew();
    this.active?.awaited.delete(from);
    this.retryLater();
    this.checkActive();
    this.next();
  }

  private beginAnew(): void {
    this.phase = 'collecting';
    this.versions.clear();
    this.sent.clear();
    this.syncing.clear();
    this.retryLater();
  }

  private retryLater(): void {
    this.retryTimer ??= this.context.timers.at(this.context.now() + RETRY_MICROS, () => {
      this.retryTimer = null;
      if (this.phase === 'collecting') return this.askAll();
      if (this.phase === 'taking-over') return;
      const ownIsCurrent = sameVersion(this.versions.get(this.context.self), this.current);
      if (ownIsCurrent) for (const node of this.versions.keys()) this.syncIfNeeded(node);
      this.checkActive();
      this.next();
    });
  }

  private memberIsCurrent(node: NodeId): void {
    this.sent.set(node, this.current);
    if (this.active === null) this.send(node, { kind: 'in-sync', database: this.database, version: this.current });
    const ready = this.deferred.filter((answer) => answer.origin === node);
    if (ready.length === 0 || this.active !== null) return;
    this.deferred = this.deferred.filter((answer) => answer.origin !== node);
    for (const { number, refusal } of ready) this.answer(node, number, refusal);
  }

  peerUp(node: NodeId): void {
    this.forget(node);
    this.ask(node);
  }

  /** Silent: it is not waited for. What was sent to it still arrives when it returns. */
  peerDown(node: NodeId): void {
    // what is being read for it is not sent: it is read again later
    if (this.syncing.delete(node)) this.retryLater();
    this.active?.awaited.delete(node);
    this.checkActive();
    this.next();
  }

  /** What was sent to the member may be lost, and what it reported may be another run's. */
  private forget(node: NodeId): void {
    this.versions.delete(node);
    this.sent.delete(node);
    this.syncing.delete(node);
    this.deferred = this.deferred.filter((answer) => answer.origin !== node);
    for (let i = this.queue.length - 1; i >= 0; i--) if (this.queue[i]?.origin === node) this.queue.splice(i, 1);
    if (this.active !== null) {
      this.active.awaited.delete(node);
      // it says so again if it still does
      this.active.holders.delete(node);
      // its numbers may begin again: an answer could be taken for another commit's
      if (this.active.origin === node) this.active.number = 0;
    }
    this.checkActive();
  }

  // --- becoming the truth

  /** With the versions of enough servers known, ourselves included, makes the highest of them ours. */
  private takeOver(): void {
    const { self } = this.context;
    const own = this.versions.get(self);
    if (own === undefined || !this.isEnough((node) => this.versions.has(node))) return;
    let best = self;
    for (const [node, version] of this.versions) {
      if (compareVersions(version, this.versions.get(best) ?? own) > 0) best = node;
    }
    this.phase = 'taking-over';
    this.takenFrom = best;
    if (best === self) return this.stamp(own);
    this.context.log('info', 'persistent.take-over', { database: this.name, from: best });
    this.send(best, { kind: 'fetch', database: this.database });
    this.waitTimer = this.context.timers.at(this.context.now() + RETRY_MICROS, () => {
      this.waitTimer = null;
      if (this.phase === 'taking-over') this.beginAnew();
    });
  }

  /** The rows of the member with the highest version: they replace ours, stamped at once. */
  onContent(from: NodeId, rows: PersistentRow[], failed: string): void {
    if (this.phase !== 'taking-over' || from !== this.takenFrom) {
      return this.context.count('persistent.content.unexpected');
    }
    this.waitTimer?.cancel();
    this.waitTimer = null;
    const version = versionOf(rows);
    if (failed !== '' || version === null) {
      this.context.log('warn', 'persistent.take-over-failed', { database: this.name, from, why: failed });
      return this.beginAnew();
    }
    const stamped = this.newTerm(version);
    const { self } = this.context;
    // the very row that the others get as a stamp, so that all files are the same byte by byte
    const taken = [...rows.filter((row) => !isSequenceKey(row.key)), sequenceRow(stamped, self)];
    this.send(self, { kind: 'replace', database: this.database, version: stamped, rows: taken });
    this.startStamping(version, stamped);
  }

  private newTerm(base: Version): Version {
    const term = this.viewTerm * TAKE_OVERS_PER_TERM + this.takeOvers;
    this.takeOvers += 1;
    if (this.takeOvers === TAKE_OVERS_PER_TERM) {
      const reason = `the leader's file of ${this.name} failed ${this.takeOvers} times: another server must lead`;
      this.context.emit({ kind: 'start-anew', reason, remedy: 'check the disk below the persistent directory' });
    }
    return { term, sequence: base.sequence };
  }

  private stamp(base: Version): void {
    const stamped = this.newTerm(base);
    const { self } = this.context;
    const rows = [sequenceRow(stamped, self)];
    this.send(self, { kind: 'apply', database: this.database, previous: base, version: stamped, rows });
    this.startStamping(base, stamped);
  }

  private startStamping(base: Version, stamped: Version): void {
    this.phase = 'stamping';
    this.current = stamped;
    this.sent.clear();
    this.sent.set(this.context.self, stamped);
    // those who have what we took over need only the stamp, once it is in our own file
    this.stampBase = base;
  }

  /** Our own file first: a later run of ours must see the term we used. Then the others; then we serve. */
  private countStamped(from: NodeId): void {
    const { self } = this.context;
    if (!sameVersion(this.versions.get(self), this.current)) return;
    if (from === self) {
      for (const node of this.versions.keys()) if (node !== self) this.sendStamp(node);
    } else if (!this.sent.has(from)) {
      this.sendStamp(from);
    } else if (!sameVersion(this.versions.get(from), this.current)) {
      this.syncIfNeeded(from);
    }
    this.serveIfStamped();
  }

  private serveIfStamped(): void {
    if (!this.isCurrent(this.context.self) || !this.isEnough((node) => this.isCurrent(node))) return;
    this.phase = 'serving';
    const { term, sequence } = this.current;
    this.context.log('info', 'persistent.serving', { database: this.name, term, sequence });
    this.resolveActive();
    // whose word we threw away when we began anew, and who was not needed since
    for (const node of this.context.members) if (!this.versions.has(node)) this.ask(node);
    for (const node of this.versions.keys()) if (this.isCurrent(node)) this.memberIsCurrent(node);
    this.next();
  }

  private sendStamp(node: NodeId): void {
    if (!sameVersion(this.versions.get(node), this.stampBase)) return this.syncIfNeeded(node);
    const { database, current, stampBase } = this;
    const rows = [sequenceRow(current, this.context.self)];
    this.sent.set(node, current);
    this.send(node, { kind: 'apply', database, previous: stampBase, version: current, rows });
  }

  /** After a new beginning: a commit that was under way is in what was taken over, or it never was. */
  private resolveActive(): void {
    const active = this.active;
    if (active === null) return;
    active.timer.cancel();
    this.active = null;
    const kept = this.current.sequence >= active.version.sequence;
    this.deferred.push({ ...active, refusal: kept ? '' : 'the leader could not store the commit' });
  }

  // --- bringing a member up to date

  private syncIfNeeded(node: NodeId): void {
    const version = this.versions.get(node);
    if (version === undefined || this.syncing.has(node) || sameVersion(version, this.current)) return;
    // what was sent already will bring it there, or it reports a failure
    if (sameVersion(this.sent.get(node), this.current)) return;
    const sync = { since: this.context.now() };
    this.syncing.set(node, sync);
    this.context.log('info', 'persistent.sync', { database: this.name, server: node, has: version });
    this.readOwn((rows) => {
      // read for a run of the member that is gone: the next one may have got a later commit
      if (this.isClosed || this.syncing.get(node) !== sync) return;
      const own = typeof rows === 'string' ? null : versionOf(rows);
      if (typeof rows === 'string' || own === null) {
        this.syncing.delete(node);
        return this.retryLater();
      }
      this.sent.set(node, own);
      this.send(node, { kind: 'replace', database: this.database, version: own, rows });
    });
  }

  // --- commits

  /** A process of `origin` commits. Answered by 'commit-done', unless the origin asks again or goes away. */
  commit(origin: NodeId, number: number, rows: PersistentRow[]): void {
    const known = [...this.queue, ...this.deferred, ...(this.active === null ? [] : [this.active])];
    if (known.some((commit) => commit.origin === origin && commit.number === number)) return;
    if (versionOf(rows) === null) return this.answer(origin, number, 'the commit does not raise the sequence number');
    if (this.queue.length >= COMMITS_WAITING_MAX) return this.answer(origin, number, 'too many commits wait');
    this.queue.push({ origin, number, rows, askedAt: this.context.now() });
    this.next();
  }

  private answer(origin: NodeId, number: number, refusal: string): void {
    if (number === 0) return;
    this.context.count(refusal === '' ? 'persistent.commit.done' : 'persistent.commit.refused');
    this.send(origin, { kind: 'commit-done', database: this.database, number, refusal });
  }

  private next(): void {
    if (this.phase !== 'serving' || this.active !== null || this.queue.length === 0) return;
    if (!this.isEnough((node) => this.context.isUp(node))) return this.retryLater();
    if (this.mustWaitForSync()) return;
    const commit = this.queue.shift();
    if (commit === undefined) return;
    // the origin has given up on it and its process asks again
    if (this.context.now() >= commit.askedAt + COMMIT_WAIT_MICROS_MAX) return this.next();
    const raised = versionOf(commit.rows)?.sequence ?? 0;
    const base = raised - 1;
    const originIsCurrent = sameVersion(this.versions.get(commit.origin), this.current);
    if (base === this.current.sequence && originIsCurrent) return this.start(commit);
    if (raised === this.current.sequence) return this.recognise(commit);
    this.refuseStale(commit, raised);
  }

  private mustWaitForSync(): boolean {
    const awaited = [...this.syncing].filter(([node]) => this.context.isUp(node));
    const until = Math.max(0, ...awaited.map(([, { since }]) => since)) + SYNC_WAIT_MICROS_MAX;
    if (awaited.length === 0 || until <= this.context.now()) return false;
    this.waitTimer ??= this.context.timers.at(until, () => {
      this.waitTimer = null;
      this.next();
    });
    return true;
  }

  private start(commit: Commit): void {
    const { term } = this.current;
    const previous = this.current;
    const version = { term, sequence: previous.sequence + 1 };
    const rows = stampRows(commit.rows, term);
    const timer = this.context.timers.at(this.context.now() + STRAGGLER_WAIT_MICROS_MAX, () => this.checkActive());
    const awaited = new Set<NodeId>();
    const startedAt = this.context.now();
    this.active = { ...commit, rows, version, startedAt, holders: new Set(), awaited, timer };
    this.current = version;
    const { database } = this;
    for (const node of this.context.members) {
      // also a silent member: the commit waits in its stream and keeps it in step
      if (!sameVersion(this.sent.get(node), previous)) continue;
      this.sent.set(node, version);
      if (this.context.isUp(node)) awaited.add(node);
      this.send(node, { kind: 'apply', database, previous, version, rows });
    }
  }

  private countHolder(from: NodeId, version: Version): void {
    const active = this.active;
    if (active === null) return;
    if (sameVersion(version, active.version)) {
      active.holders.add(from);
      active.awaited.delete(from);
    }
    this.checkActive();
  }

  /**
   * Done: durable here and on enough servers, held by all that are up or had their time, and by the origin if it is up,
   * since its process reads its own file next.
   */
  private checkActive(): void {
    const active = this.active;
    if (active === null || this.phase !== 'serving') return;
    const durable = active.holders.has(this.context.self) && this.isEnough((node) => active.holders.has(node));
    const late = this.context.now() >= active.startedAt + STRAGGLER_WAIT_MICROS_MAX;
    if (!durable || active.awaited.has(active.origin) || (active.awaited.size > 0 && !late)) {
      if (active.awaited.size === 0) this.retryLater();
      return;
    }
    if (active.awaited.size > 0) {
      const servers = [...active.awaited];
      this.context.log('warn', 'persistent.stragglers', { database: this.name, servers });
    }
    active.timer.cancel();
    this.active = null;
    this.context.count('persistent.commit.durable');
    if (active.holders.has(active.origin)) this.answer(active.origin, active.number, '');
    else this.deferred.push({ origin: active.origin, number: active.number, refusal: '' });
    for (const node of active.holders) this.memberIsCurrent(node);
    for (const node of this.versions.keys()) if (!active.awaited.has(node)) this.syncIfNeeded(node);
    this.next();
  }

  /** The commit names the state we have: it is this very commit asked for again, or one made on an old state. */
  private recognise(commit: Commit): void {
    this.readOwn((stored) => {
      if (this.isClosed) return;
      if (typeof stored !== 'string' && containsRows(stored, commit.rows)) {
        this.context.count('persistent.commit.again');
        return this.answerWhenCurrent(commit, '');
      }
      this.refuseStale(commit, versionOf(commit.rows)?.sequence ?? 0);
    });
  }

  /**
   * smbd takes a refusal for success when its file then shows exactly the number it wanted. So the refusal waits until
   * the origin's file is current, and where the numbers would match by chance an empty commit moves ours on.
   */
  private refuseStale(commit: Commit, wanted: number): void {
    this.context.count('persistent.commit.stale');
    const { origin, number } = commit;
    this.context.log('warn', 'persistent.commit-stale', { database: this.name, origin, wanted, has: this.current });
    if (wanted === this.current.sequence && this.phase === 'serving' && this.active === null) {
      const { self } = this.context;
      const rows = [sequenceRow({ ...this.current, sequence: wanted + 1 }, self)];
      this.deferred.push({ origin, number, refusal: 'the commit was made on an old state' });
      return this.start({ origin: self, number: 0, rows, askedAt: this.context.now() });
    }
    this.answerWhenCurrent(commit, 'the commit was made on an old state');
  }

  private answerWhenCurrent({ origin, number }: Commit, refusal: string): void {
    if (this.active === null && sameVersion(this.versions.get(origin), this.current)) {
      this.answer(origin, number, refusal);
    } else {
      this.deferred.push({ origin, number, refusal });
      // its own wait is bounded; an answer nobody waits for any more is dropped there
      this.retryLater();
    }
    this.next();
  }

  /** Each of these servers has what was committed, and nothing is under way that one of them may miss. */
  allHave(servers: readonly NodeId[]): boolean {
    return this.phase === 'serving' && this.active === null && servers.every((node) => this.isCurrent(node));
  }

  private isCurrent(node: NodeId): boolean {
    return sameVersion(this.versions.get(node), this.current);
  }

  /** For people. */
  status(): LeaderStatus {
    return {
      phase: this.phase,
      sequence: this.current.sequence,
      holders: [...this.versions.keys()].filter((node) => this.isCurrent(node)),
      waiting: this.queue.length + (this.active === null ? 0 : 1),
    };
  }
}
