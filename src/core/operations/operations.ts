/**
 * The gate of the VFS modules: takes what they say over the ring, brings home what an open needs, keeps it for the
 * open's length, and tells them which files need nothing brought. An accelerator: nothing here decides who may open or
 * lock, and all of it may be missing. What people want to know of it goes on to a watcher (core/witness). Used by
 * core/node.
 */
import { DecodeError } from '../../base/bytes.js';
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { READY, RingMessage, RingOpened } from '../../wire/ring-ops.js';
import type { ServerId, WatchChange } from '../../wire/samba-messages.js';
import {
  HISTOGRAM,
  NOTIFY_FLAG,
  OPEN_FLAG,
  RING_OP,
  TREE_FLAG,
  decodeRingMessage,
  encodeBreakAll,
  encodeNotifyReady,
  encodeOpenReady,
  encodeTreeReady,
} from '../../wire/ring-ops.js';
import { sliceServer, wholeOf } from '../../wire/folder-ids.js';
import { leaseHolders } from '../../wire/share-mode-entries.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { NeededRecord, RecordName } from '../records/pins.js';
import { KEYS_PER_OPERATION_MAX, PIN_MICROS } from '../records/pins.js';
import type { Operation } from './attachments.js';
import { Attachment, sendToModule } from './attachments.js';
import { LEASES, LOCKING, recordsOf } from './file-records.js';
import type { Folders } from './folders.js';
import { HomeTable } from './home-table.js';
import type { Probe } from './probes.js';
import { Probes } from './probes.js';

/** Operations an attachment may have begun and not ended; smbd has at most as many creates under way as credits. */
const OPERATIONS_PER_ATTACHMENT_MAX = 8192;
/** Of RingOpened.createAction: the open made the file. */
const ACTION_CREATED = 2;

/** What operations need of core/records. */
export interface RecordsForOperations {
  beginOperation(number: number, names: readonly NeededRecord[], ready: ((all: boolean) => void) | null): void;
  extendOperation(number: number, names: readonly NeededRecord[], ready: (all: boolean) => void): void;
  endOperation(number: number): void;
  inspect(name: RecordName, then: (data: Uint8Array) => void): void;
  isHome(needed: NeededRecord): boolean;
}

/** What operations need of core/gate: the folders that clients watch. */
export interface WatchesForOperations {
  /** `number` is the module's; `done`, if any, is called once, possibly inside the call. */
  begin(
    process: { pid: number; id: ServerId },
    number: bigint,
    change: WatchChange,
    done: ((everywhere: boolean) => void) | null,
  ): void;
  end(pid: number, number: bigint): void;
  /** The process tells all its watches anew. */
  resyncBegins(pid: number): void;
  resyncEnds(pid: number): void;
  /** Calls back when the changes made here are reported to the watchers elsewhere, or after a bounded wait. */
  whenComplete(done: () => void): void;
}

/** What a module says of a handle that its smbd has. */
export type HandleMessage = Extract<
  RingMessage,
  { kind: 'close' | 'lock' | 'unlock' | 'replay-lock' | 'lease-change' }
>;

/** Hears of everything, for people; changes nothing. */
export interface OperationsWatcher {
  began(attachment: Attachment, operation: Operation): void;
  /** The operation waits for records that others have. */
  waits(attachment: Attachment, operation: Operation): void;
  /** The wait, of `micros`, is over: `all` records are here, or smbd goes the slow way. */
  ready(attachment: Attachment, operation: Operation, all: boolean, micros: Micros): void;
  /** smbd is done with a create; `begun` is undefined when it did not say that it began. */
  ended(attachment: Attachment, message: RingOpened, begun: Operation | undefined): void;
  reported(attachment: Attachment, message: HandleMessage): void;
  /** The module tells all its handles anew, each with `replayed`: what was known of them is void. */
  resyncs(attachment: Attachment): void;
  replayed(attachment: Attachment, message: RingOpened): void;
  detached(attachment: Attachment): void;
}

/** What operations need of core/gate: the processes that have the module. */
export interface ProcessesForOperations {
  /** A run that continues ours must know of it. */
  moduleAttached(pid: number): void;
  /** Whether the process has a connection to us, and so has not ended. */
  isAlive(pid: number): boolean;
}

/** Its counters are called after the witness, of which it was a part: people have them in their graphs. */
export class Operations {
  private readonly byId = new Map<number, Attachment>();
  private readonly home: HomeTable;
  private readonly probes: Probes;
  private watcher: OperationsWatcher | null = null;
  private lastNumber = 0;
  /** Of the break-all that all modules are to hear; null: none. */
  private breakNumber: number | null = null;

  constructor(
    private readonly context: CoreContext,
    private readonly records: RecordsForOperations,
    private readonly watches: WatchesForOperations,
    private readonly processes: ProcessesForOperations,
    private readonly folders: Folders,
    /** What people call a server. */
    private readonly nameOf: (server: NodeId) => string,
  ) {
    this.home = new HomeTable(context, LEASES);
    this.probes = new Probes(context);
  }

  watch(watcher: OperationsWatcher): void {
    this.watcher = watcher;
  }

  attachments(): ReadonlyMap<number, Attachment> {
    return this.byId;
  }

  attached(id: number, pid: number): void {
    const attachment = new Attachment(id, pid);
    this.byId.set(id, attachment);
    this.processes.moduleAttached(pid);
    this.folders.attached(attachment);
    this.context.count('witness.attached');
    if (this.breakNumber !== null) this.sendBreakAll(attachment, this.breakNumber);
  }

  /**
   * This server drains: all smbds break what lets clients cache writes, those that attach later too, until
   * this is called with null. Each answers; then it has reported whatever it granted before.
   */
  breakAll(number: number | null): void {
    this.breakNumber = number;
    if (number === null) return;
    for (const attachment of this.byId.values()) this.sendBreakAll(attachment, number);
  }

  /** Smbds whose reports do not tell yet what there was at the break-all of this number. */
  withoutBreaks(number: number): Attachment[] {
    return [...this.byId.values()].filter(({ breaksSent, isResyncing }) => breaksSent !== number || isResyncing);
  }

  detached(id: number, isBad: boolean): void {
    const attachment = this.byId.get(id);
    if (attachment === undefined) return;
    const numbers = [...attachment.operations.values()].map(({ number }) => number);
    for (const number of numbers) this.records.endOperation(number);
    this.folders.detached(attachment, numbers, this.processes.isAlive(attachment.pid));
    this.watcher?.detached(attachment);
    this.byId.delete(id);
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
    const attachment = this.byId.get(id);
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

  /** A record is here and ours. */
  came(database: DatabaseId, key: RecordKey): void {
    this.home.came(database, key);
  }

  /** A record, or a copy of one, is about to leave. */
  leaving(database: DatabaseId, key: RecordKey): void {
    this.home.leaving(database, key);
  }

  peerUp(peer: NodeId): void {
    this.probes.tell(peer);
  }

  /** What another server sees under a share's name. */
  onProbe(from: NodeId, probe: Probe): void {
    this.probes.heard(from, probe);
  }

  private handle(attachment: Attachment, message: RingMessage): void {
    switch (message.kind) {
      case 'hello':
        attachment.server = message.server;
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
        return this.begin(attachment, message);
      case 'open-cancel':
        return this.end(attachment, message.operation);
      case 'open-end':
        return this.openEnd(attachment, message);
      case 'claim': {
        // a file this server just made: its records are asked for before smbd comes for them
        const number = ++this.lastNumber;
        this.records.beginOperation(number, recordsOf(message.file), () => this.records.endOperation(number));
        return;
      }
      case 'resync-begin':
        attachment.isResyncing = true;
        this.watcher?.resyncs(attachment);
        for (const operation of [...attachment.operations.keys()]) {
          if (operation < message.operationsFrom) this.end(attachment, operation);
        }
        this.watches.resyncBegins(attachment.pid);
        return;
      case 'resync-end':
        attachment.isResyncing = false;
        this.folders.resynced(attachment.pid);
        return this.watches.resyncEnds(attachment.pid);
      case 'notify-begin':
        return this.notifyBegin(attachment, message);
      case 'notify-end':
        return this.watches.end(attachment.pid, message.number);
      case 'breaks-sent':
        attachment.breaksSent = message.number;
        this.context.count('witness.breaks-sent', message.breaks);
        return;
      case 'recalled':
        this.context.count('folder.moved', message.moved);
        return this.folders.recalled(attachment.pid, message.number);
      case 'replay-open':
        this.watcher?.replayed(attachment, { ...message, file: wholeOf(message.file) });
        return;
      default:
        this.watcher?.reported(attachment, { ...message, file: wholeOf(message.file) });
    }
  }

  private sendBreakAll(attachment: Attachment, number: number): void {
    sendToModule(this.context, attachment, RING_OP.breakAll, encodeBreakAll(number));
  }

  private treeConnect(attachment: Attachment, message: Extract<RingMessage, { kind: 'tree-connect' }>): void {
    const { tree, share, user, path, volume, rootInode } = message;
    attachment.trees.set(tree, { share, user, path });
    const refusal = this.probes.connect({ share, volume, rootInode }, this.nameOf);
    if ((message.flags & TREE_FLAG.wantsReply) === 0) return;
    // what the client changes is reported to those who watch, from the first change on
    this.watches.whenComplete(() => {
      if (this.byId.get(attachment.id) !== attachment) return;
      sendToModule(this.context, attachment, RING_OP.treeReady, encodeTreeReady(tree, refusal));
    });
  }

  private notifyBegin(attachment: Attachment, message: Extract<RingMessage, { kind: 'notify-begin' }>): void {
    const { number, change, flags } = message;
    const answer = (everywhere: boolean): void => {
      if (this.byId.get(attachment.id) !== attachment) return;
      sendToModule(this.context, attachment, RING_OP.notifyReady, encodeNotifyReady(number, everywhere));
    };
    const process = { pid: attachment.pid, id: attachment.server };
    this.watches.begin(process, number, change, (flags & NOTIFY_FLAG.wantsReply) === 0 ? null : answer);
  }

  private begin(attachment: Attachment, message: Extract<RingMessage, { kind: 'open-begin' }>): void {
    const { operation: id, tree, file: key, path, flags } = message;
    const file = wholeOf(key);
    this.end(attachment, id);
    if (attachment.operations.size >= OPERATIONS_PER_ATTACHMENT_MAX) {
      this.context.count('witness.operation.refused');
      const isExcluding = (flags & OPEN_FLAG.excludes) !== 0;
      this.answer(attachment, id, isExcluding ? 'refused' : 'gaveUp');
      return;
    }
    const { accessMask, shareAccess, disposition, oplock, leaseState, leaseKey } = message;
    const operation: Operation = {
      id, tree, file, key, path, flags, accessMask, shareAccess, disposition, oplock, leaseState, leaseKey,
      number: ++this.lastNumber, since: this.context.now(), names: recordsFor(attachment, message), isWaiting: false,
      readyAt: null,
    };
    attachment.operations.set(id, operation);
    this.watcher?.began(attachment, operation);
    if (key !== file) this.folders.used(file);
    if ((flags & OPEN_FLAG.wantsReply) === 0) {
      this.records.beginOperation(operation.number, operation.names, null);
      return;
    }
    operation.isWaiting = true;
    if ((flags & OPEN_FLAG.excludes) !== 0) this.exclude(attachment, operation);
    else this.collect(attachment, operation);
    if (attachment.operations.get(id) === operation && operation.isWaiting) {
      this.watcher?.waits(attachment, operation);
    }
  }

  /** First nobody may open the folder by a slice any more. */
  private exclude(attachment: Attachment, operation: Operation): void {
    this.folders.exclude(operation.file, operation.number, attachment.pid, (granted) => {
      if (attachment.operations.get(operation.id) !== operation) return;
      if (granted) return this.collect(attachment, operation);
      operation.isWaiting = false;
      this.answer(attachment, operation.id, 'refused');
      this.watcher?.ready(attachment, operation, false, this.context.now() - operation.since);
    });
  }

  private collect(attachment: Attachment, operation: Operation): void {
    if (this.mayBeShared(operation)) this.folders.waits(operation.file);
    this.records.beginOperation(operation.number, operation.names, (all) => {
      this.holdersHome(attachment, operation, all);
    });
  }

  /** An open of a folder by its one record, though it excludes nobody. */
  private mayBeShared({ flags, key }: Operation): boolean {
    return (flags & (OPEN_FLAG.directory | OPEN_FLAG.excludes)) === OPEN_FLAG.directory && sliceServer(key) === null;
  }

  /** The file's own records are here; smbd also reads the leases of those who hold it. */
  private holdersHome(attachment: Attachment, operation: Operation, all: boolean): void {
    if (!all || (operation.flags & OPEN_FLAG.new) !== 0) return this.ready(attachment, operation, all);
    const locking = { database: LOCKING, key: operation.key };
    this.records.inspect(locking, (data) => {
      if (attachment.operations.get(operation.id) !== operation) return;
      // a record that has left again shows nobody, too
      if (this.mayBeShared(operation) && this.records.isHome({ ...locking, mode: 'write' })) {
        this.folders.offer(operation.file, data);
      }
      const holders = leaseHolders(data, KEYS_PER_OPERATION_MAX - operation.names.length);
      const leases = holders.map((key): NeededRecord => ({ database: LEASES, key, mode: 'read' }));
      operation.names = [...operation.names, ...leases];
      // without leases too: a record may have left, and the pins may be half over, while a chain was waited for
      this.records.extendOperation(operation.number, leases, (ok) => this.ready(attachment, operation, ok));
    });
  }

  private ready(attachment: Attachment, operation: Operation, all: boolean): void {
    if (attachment.operations.get(operation.id) !== operation) return;
    const took = this.context.now() - operation.since;
    operation.isWaiting = false;
    operation.readyAt = all ? this.context.now() : null;
    this.context.count(all ? 'witness.open.ready' : 'witness.open.gave-up');
    this.context.emit({ kind: 'latency', histogram: HISTOGRAM.openWait, micros: took });
    if (all) this.home.add(operation.key, operation.names);
    this.answer(attachment, operation.id, all ? 'home' : 'gaveUp');
    this.watcher?.ready(attachment, operation, all, took);
  }

  private answer(attachment: Attachment, operation: bigint, result: keyof typeof READY): void {
    const answer = encodeOpenReady(operation, result, result === 'home' ? PIN_MICROS : 0);
    sendToModule(this.context, attachment, RING_OP.openReady, answer);
  }

  private openEnd(attachment: Attachment, message: RingOpened): void {
    const begun = attachment.operations.get(message.operation);
    this.end(attachment, message.operation);
    const isGranted = message.status === 0 && (message.flags & OPEN_FLAG.deferred) === 0;
    if (isGranted && message.createAction === ACTION_CREATED) {
      const records = recordsOf(message.file);
      // a file that was just made has no other holder whose lease could be elsewhere
      if (records.every((name) => this.records.isHome(name))) this.home.add(message.file, records);
    }
    this.watcher?.ended(attachment, { ...message, file: wholeOf(message.file) }, begun);
  }

  private end(attachment: Attachment, id: bigint): void {
    const operation = attachment.operations.get(id);
    if (operation === undefined) return;
    attachment.operations.delete(id);
    this.records.endOperation(operation.number);
    this.folders.over(operation.number);
    if (operation.readyAt === null) return;
    const micros = this.context.now() - operation.readyAt;
    this.context.emit({ kind: 'latency', histogram: HISTOGRAM.pin, micros });
  }
}

function recordsFor(
  attachment: Attachment,
  { flags, file, base, leaseKey }: Extract<RingMessage, { kind: 'open-begin' }>,
): readonly NeededRecord[] {
  const names = (flags & OPEN_FLAG.new) !== 0 ? [] : recordsOf(file);
  if ((flags & OPEN_FLAG.hasBase) !== 0) names.push(...recordsOf(base));
  if ((flags & OPEN_FLAG.hasLease) !== 0 && attachment.clientGuid !== '') {
    names.push({ database: LEASES, key: (attachment.clientGuid + leaseKey) as RecordKey, mode: 'write' });
  }
  return names;
}
