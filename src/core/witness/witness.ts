/**
 * The VFS modules' side of the daemon: brings home what an open needs and keeps it for the open's length, knows in
 * SMB's terms who holds and who waits, and tells people. An accelerator and a witness: nothing here decides who may
 * open or lock, and all of it may be missing. Used by core/node.
 */
import { DecodeError } from '../../base/bytes.js';
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { LockFilter, LocksAnswer, TraceFilter, WaitTarget } from '../../wire/locks.js';
import type { FileId, RingMessage, RingOpened } from '../../wire/ring-ops.js';
import {
  CLOSE_FLAG,
  HISTOGRAM,
  LEASE_CHANGE,
  LOCK_TYPE,
  OPEN_FLAG,
  RING_OP,
  TREE_FLAG,
  decodeRingMessage,
  encodeOpenReady,
  encodeTreeReady,
  encodeWatchFile,
} from '../../wire/ring-ops.js';
import { leaseHolders } from '../../wire/share-mode-entries.js';
import { decodeWitnessMessage, encodeWitnessMessage } from '../../wire/witness-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { NeededRecord, RecordName } from '../records/pins.js';
import { KEYS_PER_OPERATION_MAX, PIN_MICROS } from '../records/pins.js';
import type { Open, WaitingOpen } from './attachments.js';
import { Attachment, OPENS_PER_ATTACHMENT_MAX } from './attachments.js';
import { HomeTable } from './home-table.js';
import { HotFiles } from './hot.js';
import { BRLOCK, LEASES, LOCKING, moveEvent } from './moves.js';
import { OpenIndex } from './open-index.js';
import { PoolQuestions, bounded } from './pool-questions.js';
import { Probes } from './probes.js';
import type { EventFacts, EventSubject, Reporter } from './reports.js';
import {
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
/** Operations an attachment may have begun and not ended; smbd has at most as many creates under way as credits. */
const OPERATIONS_PER_ATTACHMENT_MAX = 8192;

/** What the witness needs of core/records. */
export interface RecordsForWitness {
  beginOperation(number: number, names: readonly NeededRecord[], ready: ((all: boolean) => void) | null): void;
  extendOperation(number: number, names: readonly NeededRecord[], ready: (all: boolean) => void): void;
  endOperation(number: number): void;
  inspect(name: RecordName, then: (data: Uint8Array) => void): void;
  isHome(needed: NeededRecord): boolean;
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
}

export interface WitnessOptions {
  /** What people call each server. */
  names: ReadonlyMap<NodeId, string>;
  /** Wall-clock time, in microseconds since 1970, at which the core's monotonic clock stood at 0. */
  wallClockOriginMicros: number;
}

export interface WitnessStatus {
  /** smbds with the module attached. */
  attachments: number;
  opens: number;
  waits: number;
  readers: boolean;
}

export class Witness {
  private readonly attachments = new Map<number, Attachment>();
  private readonly home: HomeTable;
  private readonly hot: HotFiles;
  private readonly opens = new OpenIndex();
  private readonly questions: PoolQuestions;
  private readonly probes: Probes;
  private readonly reporter: Reporter;
  private lastOperation = 0;

  constructor(
    private readonly context: CoreContext,
    private readonly records: RecordsForWitness,
    private readonly options: WitnessOptions,
  ) {
    this.home = new HomeTable(context, LEASES);
    this.hot = new HotFiles(() => context.now());
    this.questions = new PoolQuestions(context, {
      locks: () => this.localLocks(),
      hot: () => this.hot.list(context.self, (file) => this.opens.ofFile(file).size),
    });
    this.probes = new Probes(context);
    this.reporter = { server: context.self, serverName: this.nameOf(context.self) };
  }

  attached(id: number, pid: number): void {
    this.attachments.set(id, new Attachment(id, pid));
    this.context.count('witness.attached');
  }

  detached(id: number, isBad: boolean): void {
    const attachment = this.attachments.get(id);
    if (attachment === undefined) return;
    for (const operation of attachment.operations.values()) this.records.endOperation(operation.number);
    this.opens.removeAll(attachment);
    this.attachments.delete(id);
    this.context.count('witness.detached');
    if (!isBad) return;
    this.context.log('warn', 'ring-broken', {
      pid: attachment.pid,
      remedy: 'the module of this smbd is damaged or of another version; the smbd goes on without it',
    });
  }

  /**
   * One message of a module. One that makes no sense ends the attachment, as nothing after it can be trusted; an honest
   * module attaches again and tells everything anew.
   */
  onRingMessage(id: number, op: number, payload: Uint8Array): void {
    const attachment = this.attachments.get(id);
    if (attachment === undefined) return;
    try {
      this.handle(attachment, decodeRingMessage(op, payload));
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.context.count(`witness.message.refused.${error.reason}`);
      this.context.log('warn', 'ring-message-refused', {
        pid: attachment.pid,
        op,
        why: error.message,
        remedy: 'install the module that belongs to this smbpoold; until then this smbd works without it',
      });
      this.detached(id, false);
      this.context.emit({ kind: 'ring-end', attachment: id });
    }
  }

  came(database: DatabaseId, key: RecordKey): void {
    this.home.came(database, key);
  }

  /** A record came from another server, which owned it before. */
  moved(database: DatabaseId, key: RecordKey, from: NodeId, micros: Micros | null): void {
    if (database === LOCKING) this.hot.moved(key);
    if (micros !== null) this.context.emit({ kind: 'latency', histogram: HISTOGRAM.move, micros });
    if (!this.questions.hasReaders()) return;
    const facts = { fromName: this.nameOf(from), atMicros: this.wallClock(), tookMicros: micros };
    const move = { record: { database, key }, ...facts };
    const event = moveEvent(this.reporter, this.attachments.values(), this.opens, move);
    if (event !== null) this.questions.publish(event);
  }

  leaving(database: DatabaseId, key: RecordKey): void {
    this.home.leaving(database, key);
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
    this.probes.tell(peer);
  }

  peerDown(peer: NodeId): void {
    this.questions.peerDown(peer);
  }

  /** A message of a peer. Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodeWitnessMessage(bytes);
    if (message.kind === 'watch') this.watchHere(message.file, message.watchMillis);
    else if (message.kind === 'probe') this.probes.heard(from, message);
    else this.questions.onMessage(from, message);
  }

  status(): WitnessStatus {
    let opens = 0;
    let waits = 0;
    for (const attachment of this.attachments.values()) {
      opens += attachment.opens.size;
      waits += attachment.breakWaits.length;
      for (const { what } of attachment.operations.values()) if (what === 'records') waits += 1;
    }
    return { attachments: this.attachments.size, opens, waits, readers: this.questions.hasReaders() };
  }

  private handle(attachment: Attachment, message: RingMessage): void {
    switch (message.kind) {
      case 'hello':
        attachment.clientGuid = message.clientGuid;
        attachment.address = message.address;
        attachment.name = message.name;
        return;
      case 'tree-connect':
        return this.treeConnect(attachment, message);
      case 'tree-disconnect':
        attachment.trees.delete(message.tree);
        return;
      case 'open-begin':
        return this.openBegin(attachment, message);
      case 'open-cancel':
        return this.endOperation(attachment, message.operation);
      case 'open-end':
        return this.openEnd(attachment, message);
      case 'replay-open':
        this.addOpen(attachment, message);
        return;
      case 'close':
        return this.close(attachment, message);
      case 'lock':
      case 'unlock':
      case 'replay-lock':
        return this.lock(attachment, message);
      case 'lease-change':
        return this.leaseChange(attachment, message);
      case 'claim': {
        // a file this server just made: its records are asked for before smbd comes for them
        const number = ++this.lastOperation;
        this.records.beginOperation(number, recordsOf(message.file), () => this.records.endOperation(number));
        return;
      }
      case 'resync-begin':
        this.opens.removeAll(attachment);
        for (const operation of [...attachment.operations.keys()]) {
          if (operation < message.operationsFrom) this.endOperation(attachment, operation);
        }
        return;
      case 'resync-end':
        return;
    }
  }

  private treeConnect(attachment: Attachment, message: Extract<RingMessage, { kind: 'tree-connect' }>): void {
    const { tree, share, user, path, volume, rootInode } = message;
    attachment.trees.set(tree, { share, user, path });
    const refusal = this.probes.connect({ share, volume, rootInode }, (peer) => this.nameOf(peer));
    if ((message.flags & TREE_FLAG.wantsReply) === 0) return;
    this.send(attachment, RING_OP.treeReady, encodeTreeReady(tree, refusal));
  }

  private openBegin(attachment: Attachment, message: Extract<RingMessage, { kind: 'open-begin' }>): void {
    const { operation, tree, file, path, flags } = message;
    this.endOperation(attachment, operation);
    if (attachment.operations.size >= OPERATIONS_PER_ATTACHMENT_MAX) {
      this.context.count('witness.operation.refused');
      this.send(attachment, RING_OP.openReady, encodeOpenReady(operation, false, 0));
      return;
    }
    if ((flags & OPEN_FLAG.retry) !== 0) this.endBreakWait(attachment, file, path);
    const number = ++this.lastOperation;
    const since = this.context.now();
    const names = this.recordsFor(attachment, message);
    const ids = { operation, number, tree, file, path, since, flags, names };
    const wait: WaitingOpen = { ...termsOf(message), ...ids, what: 'running', readyAt: null };
    attachment.operations.set(operation, wait);
    this.tell(attachment, wait, { kind: 'open', tookMicros: null, status: '', detail: openWords(wait) });
    if ((flags & OPEN_FLAG.wantsReply) === 0) {
      this.records.beginOperation(number, names, null);
      return;
    }
    wait.what = 'records';
    this.records.beginOperation(number, names, (all) => this.holdersHome(attachment, wait, all));
    if (attachment.operations.get(operation) === wait && wait.what === 'records') {
      const home = this.records.homeOf(LOCKING, file);
      const detail = `records asked of ${this.nameOf(home)}`;
      this.tell(attachment, wait, { kind: 'waiting', tookMicros: null, status: '', detail });
    }
  }

  /** The file's own records are here; smbd also reads the leases of those who hold it. */
  private holdersHome(attachment: Attachment, wait: WaitingOpen, all: boolean): void {
    if (!all || (wait.flags & OPEN_FLAG.new) !== 0) return this.openReady(attachment, wait, all);
    this.records.inspect({ database: LOCKING, key: wait.file }, (data) => {
      if (attachment.operations.get(wait.operation) !== wait) return;
      const holders = leaseHolders(data, KEYS_PER_OPERATION_MAX - wait.names.length);
      const leases = holders.map((key): NeededRecord => ({ database: LEASES, key, mode: 'read' }));
      wait.names = [...wait.names, ...leases];
      // without leases too: a record may have left, and the pins may be half over, while a chain was waited for
      this.records.extendOperation(wait.number, leases, (ok) => this.openReady(attachment, wait, ok));
    });
  }

  private openReady(attachment: Attachment, wait: WaitingOpen, all: boolean): void {
    if (attachment.operations.get(wait.operation) !== wait) return;
    const took = this.context.now() - wait.since;
    wait.what = 'running';
    wait.readyAt = all ? this.context.now() : null;
    this.context.count(all ? 'witness.open.ready' : 'witness.open.gave-up');
    this.context.emit({ kind: 'latency', histogram: HISTOGRAM.openWait, micros: took });
    this.hot.waited(wait.file, took);
    if (all) this.home.add(wait.file, wait.names);
    this.send(attachment, RING_OP.openReady, encodeOpenReady(wait.operation, all, PIN_MICROS));
    const detail = all ? `${wait.names.length} records` : 'not all records came; smbd goes the slow way';
    this.tell(attachment, wait, { kind: 'home', tookMicros: took, status: '', detail });
  }

  private openEnd(attachment: Attachment, message: RingOpened): void {
    const begun = attachment.operations.get(message.operation);
    this.endOperation(attachment, message.operation);
    const { tookMicros, status, file, tree, path } = message;
    if ((message.flags & OPEN_FLAG.deferred) !== 0) {
      if (begun !== undefined) this.parked(attachment, begun, tookMicros);
      return;
    }
    this.endBreakWait(attachment, file, path);
    if (status !== 0) {
      const terms = begun ?? message;
      const facts = { kind: 'refused', tookMicros, status: statusWord(status), detail: openWords(terms) } as const;
      this.tell(attachment, begun ?? { tree, file, path }, facts);
      return;
    }
    const open = this.addOpen(attachment, message);
    this.hot.opened(file, path, attachment.trees.get(tree)?.share ?? '');
    const records = recordsOf(file);
    // a file that was just made has no other holder whose lease could be elsewhere
    if (message.createAction === 2 && records.every((name) => this.records.isHome(name))) this.home.add(file, records);
    const detail = grantedWords(message);
    this.tell(attachment, open ?? { tree, file, path }, { kind: 'granted', tookMicros, status: '', detail });
  }

  /** smbd parked the create until a holder gives its oplock or lease up. */
  private parked(attachment: Attachment, begun: WaitingOpen, tookMicros: Micros): void {
    this.endBreakWait(attachment, begun.file, begun.path);
    attachment.breakWaits.push({ ...begun, what: 'break' });
    this.tell(attachment, begun, { kind: 'waiting', tookMicros, status: '', detail: 'a holder must break first' });
    this.watchHere(begun.file, WATCH_MILLIS);
    const watch = encodeWitnessMessage({ kind: 'watch', file: begun.file, watchMillis: WATCH_MILLIS });
    for (const peer of this.context.members) if (peer !== this.context.self) this.context.send(peer, watch, 'drop');
  }

  private endBreakWait(attachment: Attachment, file: FileId, path: string): void {
    const oldest = this.context.now() - BREAK_WAIT_MICROS_MAX;
    const kept = attachment.breakWaits.filter((wait) => wait.since > oldest);
    const at = kept.findIndex((wait) => wait.file === file && wait.path === path);
    if (at >= 0) kept.splice(at, 1);
    attachment.breakWaits.splice(0, attachment.breakWaits.length, ...kept);
  }

  private addOpen(
    attachment: Attachment,
    message: RingOpened,
  ): Open | null {
    if (attachment.opens.size >= OPENS_PER_ATTACHMENT_MAX) {
      this.context.count('witness.open.refused');
      return null;
    }
    const { file, shareFileId, persistentId, tree, path, flags } = message;
    const age = Number(BigInt(this.wallClock()) - message.sinceMicros);
    const since = this.context.now() - (age > 0 && age < Number.MAX_SAFE_INTEGER ? age : 0);
    const ids = { file, shareFileId, persistentId, tree, path, since, flags };
    const open: Open = { ...termsOf(message), ...ids, locks: [], lockTries: [] };
    this.opens.add(attachment, open);
    return open;
  }

  private close(attachment: Attachment, message: Extract<RingMessage, { kind: 'close' }>): void {
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
    message: Extract<RingMessage, { kind: 'lock' | 'unlock' | 'replay-lock' }>,
  ): void {
    const open = attachment.opens.get(message.shareFileId);
    if (open === undefined) return;
    const type = message.type === LOCK_TYPE.read ? 'read' : 'write';
    const lock = { start: message.start, size: message.size, type } as const;
    if (message.status !== 0) attachment.lockRefused(open, lock, message.blocker, this.context.now());
    else attachment.lockChanged(open, lock, message.kind !== 'unlock');
    if (message.kind === 'replay-lock') return;
    const range = rangeWords(message.start, message.size);
    const detail = message.kind === 'unlock' ? range : `${range} ${type}`;
    const facts = { kind: message.kind, tookMicros: null, status: statusWord(message.status), detail };
    this.tell(attachment, open, facts);
  }

  private leaseChange(attachment: Attachment, message: Extract<RingMessage, { kind: 'lease-change' }>): void {
    const open = attachment.opens.get(message.shareFileId);
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

  private endOperation(attachment: Attachment, operation: bigint): void {
    const wait = attachment.operations.get(operation);
    if (wait === undefined) return;
    attachment.operations.delete(operation);
    this.records.endOperation(wait.number);
    if (wait.readyAt === null) return;
    this.context.emit({ kind: 'latency', histogram: HISTOGRAM.pin, micros: this.context.now() - wait.readyAt });
  }

  /** Our smbds that hold the file report what becomes of their oplocks and leases. */
  private watchHere(file: FileId, watchMillis: number): void {
    for (const attachment of new Set(this.opens.ofFile(file).values())) {
      this.send(attachment, RING_OP.watchFile, encodeWatchFile(file, watchMillis));
    }
  }

  private recordsFor(
    attachment: Attachment,
    message: Extract<RingMessage, { kind: 'open-begin' }>,
  ): readonly NeededRecord[] {
    const { flags, file, base, leaseKey } = message;
    const names = (flags & OPEN_FLAG.new) !== 0 ? [] : recordsOf(file);
    if ((flags & OPEN_FLAG.hasBase) !== 0) names.push(...recordsOf(base));
    if ((flags & OPEN_FLAG.hasLease) !== 0 && attachment.clientGuid !== '') {
      names.push({ database: LEASES, key: (attachment.clientGuid + leaseKey) as RecordKey, mode: 'write' });
    }
    return names;
  }

  private localLocks(): LocksAnswer {
    const now = this.context.now();
    const opens = [];
    const waits = [];
    for (const attachment of this.attachments.values()) {
      for (const open of attachment.opens.values()) {
        opens.push(openReport(this.reporter, attachment, open, now));
        for (const attempt of attachment.waitingLocks(open, now)) {
          waits.push(waitingLockReport(this.reporter, attachment, open, { attempt, now }));
        }
      }
      for (const wait of attachment.operations.values()) {
        if (wait.what !== 'records') continue;
        waits.push(waitingOpenReport(this.reporter, attachment, wait, { now, waitsFor: this.recordSources(wait) }));
      }
      for (const wait of attachment.breakWaits) {
        waits.push(waitingOpenReport(this.reporter, attachment, wait, { now, waitsFor: [] }));
      }
    }
    const listed = bounded(opens);
    const waiting = bounded(waits);
    const truncated = listed.truncated || waiting.truncated;
    return { opens: listed.rows, waits: waiting.rows, missing: [], truncated };
  }

  private recordSources(wait: WaitingOpen): WaitTarget[] {
    const server = this.records.homeOf(LOCKING, wait.file);
    const alive = this.context.isUp(server);
    return [{ server, serverName: this.nameOf(server), pid: 0, what: 'has to send the records', alive }];
  }

  private tell(attachment: Attachment, subject: EventSubject, facts: Omit<EventFacts, 'atMicros'>): void {
    if (!this.questions.hasReaders()) return;
    const base = identity(this.reporter, attachment, subject.tree);
    this.questions.publish(traceEvent(base, subject, { ...facts, atMicros: this.wallClock() }));
  }

  private send(attachment: Attachment, op: number, payload: Uint8Array): void {
    this.context.emit({ kind: 'ring-send', attachment: attachment.id, op, payload });
  }

  private wallClock(): number {
    return this.options.wallClockOriginMicros + this.context.now();
  }

  private nameOf(server: NodeId): string {
    return this.options.names.get(server) ?? `server ${server}`;
  }
}

/**
 * What every open of a file touches. Whether there are byte-range locks it only reads (file_has_brlocks in Samba's
 * source3/smbd/open.c), mostly from an empty record.
 */
function recordsOf(file: FileId): NeededRecord[] {
  return [
    { database: LOCKING, key: file, mode: 'write' },
    { database: BRLOCK, key: file, mode: 'read' },
  ];
}

function termsOf(message: Extract<RingMessage, { kind: 'open-begin' }> | RingOpened): {
  accessMask: number;
  shareAccess: number;
  disposition: number;
  oplock: number;
  leaseState: number;
  leaseKey: string;
} {
  const { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey } = message;
  return { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey };
}
