/**
 * Knows in SMB's terms who holds files of this server's shares, who waits and for whom, and which files are hot, and
 * tells people, of the whole pool with the witnesses of the other servers. Only watches: it hears of everything from
 * core/operations, and nothing here touches a record. Used by core/node.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { LockFilter, LocksAnswer, TraceFilter, WaitTarget } from '../../wire/locks.js';
import type { FileId, RingOpened } from '../../wire/ring-ops.js';
import {
  CLOSE_FLAG,
  HISTOGRAM,
  LEASE_CHANGE,
  LOCK_TYPE,
  OPEN_FLAG,
  RING_OP,
  encodeWatchFile,
} from '../../wire/ring-ops.js';
import type { WitnessMessage } from '../../wire/witness-messages.js';
import { encodeWitnessMessage } from '../../wire/witness-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Attachment, Operation } from '../operations/attachments.js';
import { sendToModule } from '../operations/attachments.js';
import { LOCKING } from '../operations/file-records.js';
import type { HandleMessage, OperationsWatcher } from '../operations/operations.js';
import { HotFiles } from './hot.js';
import { moveEvent } from './moves.js';
import type { Open } from './open.js';
import { isCaching, lockChanged, lockRefused, waitingLocks } from './open.js';
import { Opens } from './opens.js';
import { PoolQuestions, bounded } from './pool-questions.js';
import type { EventFacts, EventSubject, Reporter } from './reports.js';
import {
  cachingSentence,
  grantedWords,
  identity,
  openReport,
  openWords,
  rangeWords,
  traceEvent,
  waitingLockReport,
  waitingOpenReport,
} from './reports.js';
import { cachingWords, statusWord } from './words.js';

/** How long smbds report oplock and lease changes of a file somebody waits for: longer than a break may take. */
const WATCH_MILLIS = 40_000;
/** A create parked for a break that was not retried by then has failed or was cancelled: smbd gives up after 35 s. */
const BREAK_WAIT_MICROS_MAX = 60_000_000;

/** What the witness needs to know of others. */
export interface WitnessSources {
  /** By their numbers. */
  attachments(): ReadonlyMap<number, Attachment>;
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
  /** What people call a server. */
  nameOf(server: NodeId): string;
}

export interface WitnessStatus {
  /** smbds with the module attached. */
  attachments: number;
  opens: number;
  waits: number;
  readers: boolean;
}

export class Witness implements OperationsWatcher {
  private readonly hot: HotFiles;
  private readonly opens = new Opens();
  /** Creates that smbd parked until a holder gives its oplock or lease up; the retry of the same file ends it. */
  private readonly parked = new Map<Attachment, Operation[]>();
  private readonly questions: PoolQuestions;
  private readonly reporter: Reporter;

  constructor(
    private readonly context: CoreContext,
    private readonly sources: WitnessSources,
    /** Wall-clock time, in microseconds since 1970, at which the core's monotonic clock stood at 0. */
    private readonly wallClockOriginMicros: number,
  ) {
    this.hot = new HotFiles(() => context.now());
    this.questions = new PoolQuestions(context, {
      locks: () => this.localLocks(),
      hot: () => this.hot.list(context.self, (file) => this.opens.ofFile(file).size),
    });
    this.reporter = { server: context.self, serverName: sources.nameOf(context.self) };
  }

  /** A record came from another server, which owned it before. */
  moved(database: DatabaseId, key: RecordKey, from: NodeId, micros: Micros | null): void {
    if (database === LOCKING) this.hot.moved(key);
    if (micros !== null) this.context.emit({ kind: 'latency', histogram: HISTOGRAM.move, micros });
    if (!this.questions.hasReaders()) return;
    const facts = { fromName: this.sources.nameOf(from), atMicros: this.wallClock(), tookMicros: micros };
    const move = { record: { database, key }, ...facts };
    const event = moveEvent(this.reporter, this.sources.attachments().values(), this.opens, move);
    if (event !== null) this.questions.publish(event);
  }

  locks(token: number, filter: LockFilter): void {
    this.questions.locks(token, filter);
  }

  hotFiles(token: number): void {
    this.questions.hot(token);
  }

  traceStart(token: number, filter: TraceFilter): void {
    this.questions.traceStart(token, filter);
  }

  traceStop(token: number): void {
    this.questions.traceStop(token);
  }

  flush(): void {
    this.questions.flush();
  }

  peerUp(peer: NodeId): void {
    this.questions.peerUp(peer);
  }

  peerDown(peer: NodeId): void {
    this.questions.peerDown(peer);
  }

  onMessage(from: NodeId, message: Exclude<WitnessMessage, { kind: 'probe' | 'folders' }>): void {
    if (message.kind === 'watch') this.watchHere(message.file, message.watchMillis);
    else this.questions.onMessage(from, message);
  }

  status(): WitnessStatus {
    const attachments = this.sources.attachments();
    let waits = 0;
    for (const attachment of attachments.values()) {
      waits += this.parkedOf(attachment).length;
      for (const { isWaiting } of attachment.operations.values()) if (isWaiting) waits += 1;
    }
    const opens = this.opens.count();
    return { attachments: attachments.size, opens, waits, readers: this.questions.hasReaders() };
  }

  /** What lets clients of this server cache writes, each lease once; at most `namedMax` are in words. */
  caching(namedMax: number): { left: number; named: string[] } {
    const named: string[] = [];
    let left = 0;
    for (const attachment of this.sources.attachments().values()) {
      const leases = new Set<string>();
      for (const open of this.opens.ofAttachment(attachment)) {
        if (!isCaching(open) || leases.has(open.leaseKey)) continue;
        // an oplock has no key
        if (open.leaseState !== 0) leases.add(open.leaseKey);
        left += 1;
        if (named.length < namedMax) named.push(cachingSentence(attachment, open));
      }
    }
    return { left, named };
  }

  // --- what operations tell

  began(attachment: Attachment, operation: Operation): void {
    const { file, path, flags } = operation;
    if ((flags & OPEN_FLAG.retry) !== 0) this.unpark(attachment, file, path);
    this.tell(attachment, operation, { kind: 'open', tookMicros: null, status: '', detail: openWords(operation) });
  }

  waits(attachment: Attachment, operation: Operation): void {
    const home = this.sources.homeOf(LOCKING, operation.file);
    const detail = `records asked of ${this.sources.nameOf(home)}`;
    this.tell(attachment, operation, { kind: 'waiting', tookMicros: null, status: '', detail });
  }

  ready(attachment: Attachment, operation: Operation, all: boolean, micros: Micros): void {
    this.hot.waited(operation.file, micros);
    const detail = all ? `${operation.names.length} records` : 'not all records came; smbd goes the slow way';
    this.tell(attachment, operation, { kind: 'home', tookMicros: micros, status: '', detail });
  }

  ended(attachment: Attachment, message: RingOpened, begun: Operation | undefined): void {
    const { tookMicros, status, file, tree, path } = message;
    if ((message.flags & OPEN_FLAG.deferred) !== 0) {
      if (begun !== undefined) this.park(attachment, begun, tookMicros);
      return;
    }
    this.unpark(attachment, file, path);
    if (status !== 0) {
      const detail = openWords(begun ?? message);
      const facts = { kind: 'refused', tookMicros, status: statusWord(status), detail } as const;
      this.tell(attachment, begun ?? { tree, file, path }, facts);
      return;
    }
    this.addOpen(attachment, message);
    this.hot.opened(file, path, attachment.trees.get(tree)?.share ?? '');
    const detail = grantedWords(message);
    this.tell(attachment, { tree, file, path }, { kind: 'granted', tookMicros, status: '', detail });
  }

  reported(attachment: Attachment, message: HandleMessage): void {
    switch (message.kind) {
      case 'close':
        return this.close(attachment, message);
      case 'lock':
      case 'unlock':
      case 'replay-lock':
        return this.lock(attachment, message);
      case 'lease-change':
        return this.leaseChange(attachment, message);
    }
  }

  resyncs(attachment: Attachment): void {
    this.opens.removeAll(attachment);
  }

  replayed(attachment: Attachment, message: RingOpened): void {
    this.addOpen(attachment, message);
  }

  detached(attachment: Attachment): void {
    this.opens.removeAll(attachment);
    this.parked.delete(attachment);
  }

  // --- creates that wait for a break

  private parkedOf(attachment: Attachment): readonly Operation[] {
    return this.parked.get(attachment) ?? [];
  }

  /** smbd parked the create until a holder gives its oplock or lease up. */
  private park(attachment: Attachment, begun: Operation, tookMicros: Micros): void {
    this.unpark(attachment, begun.file, begun.path);
    this.parked.set(attachment, [...this.parkedOf(attachment), begun]);
    this.tell(attachment, begun, { kind: 'waiting', tookMicros, status: '', detail: 'a holder must break first' });
    this.watchHere(begun.file, WATCH_MILLIS);
    const watch = encodeWitnessMessage({ kind: 'watch', file: begun.file, watchMillis: WATCH_MILLIS });
    for (const peer of this.context.members) if (peer !== this.context.self) this.context.send(peer, watch, 'drop');
  }

  private unpark(attachment: Attachment, file: FileId, path: string): void {
    const oldest = this.context.now() - BREAK_WAIT_MICROS_MAX;
    const kept = this.parkedOf(attachment).filter((wait) => wait.since > oldest);
    const at = kept.findIndex((wait) => wait.file === file && wait.path === path);
    if (at >= 0) kept.splice(at, 1);
    if (kept.length > 0) this.parked.set(attachment, kept);
    else this.parked.delete(attachment);
  }

  /** Our smbds that hold the file report what becomes of their oplocks and leases. */
  private watchHere(file: FileId, watchMillis: number): void {
    for (const attachment of new Set(this.opens.ofFile(file).values())) {
      sendToModule(this.context, attachment, RING_OP.watchFile, encodeWatchFile(file, watchMillis));
    }
  }

  // --- handles

  private addOpen(attachment: Attachment, message: RingOpened): void {
    const { file, shareFileId, persistentId, tree, path, flags } = message;
    const { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey } = message;
    const age = Number(BigInt(this.wallClock()) - message.sinceMicros);
    const since = this.context.now() - (age > 0 && age < Number.MAX_SAFE_INTEGER ? age : 0);
    const open: Open = {
      file, shareFileId, persistentId, tree, path, since, flags,
      accessMask, shareAccess, disposition, oplock, leaseState, leaseKey, locks: [], lockTries: [],
    };
    if (!this.opens.add(attachment, open)) this.context.count('witness.open.refused');
  }

  private close(attachment: Attachment, message: Extract<HandleMessage, { kind: 'close' }>): void {
    const open = this.opens.remove(attachment, message.shareFileId);
    if (open === undefined) return;
    const goesOn = (message.flags & CLOSE_FLAG.disconnected) !== 0;
    const deleted = (message.flags & CLOSE_FLAG.deleted) !== 0;
    const detail = goesOn ? 'durable handle goes on' : deleted ? 'deleted' : '';
    const tookMicros = this.context.now() - open.since;
    this.tell(attachment, open, { kind: 'close', tookMicros, status: statusWord(message.status), detail });
  }

  private lock(
    attachment: Attachment,
    message: Extract<HandleMessage, { kind: 'lock' | 'unlock' | 'replay-lock' }>,
  ): void {
    const open = this.opens.get(attachment, message.shareFileId);
    if (open === undefined) return;
    const type = message.type === LOCK_TYPE.read ? 'read' : 'write';
    const lock = { start: message.start, size: message.size, type } as const;
    if (message.status !== 0) lockRefused(open, lock, message.blocker, this.context.now());
    else lockChanged(open, lock, message.kind !== 'unlock');
    if (message.kind === 'replay-lock') return;
    const range = rangeWords(message.start, message.size);
    const detail = message.kind === 'unlock' ? range : `${range} ${type}`;
    const facts = { kind: message.kind, tookMicros: null, status: statusWord(message.status), detail };
    this.tell(attachment, open, facts);
  }

  private leaseChange(attachment: Attachment, message: Extract<HandleMessage, { kind: 'lease-change' }>): void {
    const open = this.opens.get(attachment, message.shareFileId);
    if (open === undefined) return;
    const before = cachingWords(message.oplockBefore, message.leaseBefore);
    const after = cachingWords(message.oplockAfter, message.leaseAfter);
    // the module sees states, not messages: one with more rights than before is an upgrade, whatever came first
    const isUpgrade = (message.leaseAfter & ~message.leaseBefore) !== 0;
    const isBreak = message.change === LEASE_CHANGE.breakSent && !isUpgrade;
    if (!isBreak) {
      open.oplock = message.oplockAfter;
      open.leaseState = message.leaseAfter;
    }
    const kind = isBreak ? 'break-sent' : isUpgrade ? 'granted' : 'break-done';
    this.tell(attachment, open, { kind, tookMicros: null, status: '', detail: `${before} to ${after}` });
  }

  // --- for people

  private localLocks(): LocksAnswer {
    const now = this.context.now();
    const opens = [];
    const waits = [];
    for (const attachment of this.sources.attachments().values()) {
      for (const open of this.opens.ofAttachment(attachment)) {
        opens.push(openReport(this.reporter, attachment, open, now));
        for (const attempt of waitingLocks(open, now)) {
          waits.push(waitingLockReport(this.reporter, attachment, open, { attempt, now }));
        }
      }
      for (const wait of attachment.operations.values()) {
        if (!wait.isWaiting) continue;
        const facts = { what: 'records', now, waitsFor: this.recordSources(wait) } as const;
        waits.push(waitingOpenReport(this.reporter, attachment, wait, facts));
      }
      for (const wait of this.parkedOf(attachment)) {
        waits.push(waitingOpenReport(this.reporter, attachment, wait, { what: 'break', now, waitsFor: [] }));
      }
    }
    const listed = bounded(opens);
    const waiting = bounded(waits);
    const truncated = listed.truncated || waiting.truncated;
    return { opens: listed.rows, waits: waiting.rows, missing: [], truncated };
  }

  private recordSources(wait: Operation): WaitTarget[] {
    const server = this.sources.homeOf(LOCKING, wait.file);
    const alive = this.context.isUp(server);
    const serverName = this.sources.nameOf(server);
    return [{ server, serverName, pid: 0, what: 'has to send the records', alive }];
  }

  private tell(attachment: Attachment, subject: EventSubject, facts: Omit<EventFacts, 'atMicros'>): void {
    if (!this.questions.hasReaders()) return;
    const base = identity(this.reporter, attachment, subject.tree);
    this.questions.publish(traceEvent(base, subject, { ...facts, atMicros: this.wallClock() }));
  }

  private wallClock(): number {
    return this.wallClockOriginMicros + this.context.now();
  }
}
