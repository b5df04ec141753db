/**
 * Folders that everybody opens: which of them are delegated to this server, so that opens which exclude nobody need no
 * record of the pool, and what has to happen before one that excludes (docs/decisions/shared-folders.md). A delegation
 * is a copy of the folder's lock, a record that only the daemons use; an exclusion is the lock itself. Whether a lock
 * may leave is decided here; where it is, by core/records. Used by operations.ts.
 */
import { databaseIdOf } from '../../base/jenkins.js';
import { keyBytes } from '../../base/ids.js';
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import type { FileId } from '../../wire/ring-ops.js';
import { HOME_KIND, RING_OP, encodeRecall } from '../../wire/ring-ops.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Guard } from '../records/events.js';
import type { NeededRecord, RecordName } from '../records/pins.js';
import type { Timer } from '../timers.js';
import type { Attachment } from './attachments.js';
import { sendToModule } from './attachments.js';

export const FOLDERS_NAME = 'smbpool_folders.tdb';
export const FOLDERS = databaseIdOf(FOLDERS_NAME);

const REST_DOUBLINGS_MAX = 6;
/** Idle delegations are looked for so often until they end. */
const IDLE_LOOKS = 6;

/** When a delegation is worth it, and for how long. */
export interface FolderTerms {
  /** So many opens that had to wait for the folder's one record make it worth a delegation. */
  opens: number;
  /** They go on for so long, with no longer pause between them. */
  often: Micros;
  /** A folder that was recalled is not delegated for so long; twice as long with each further recall. */
  rest: Micros;
  /** A recall counts half after this time, and an unused delegation ends. */
  calm: Micros;
  /** An open that excludes is refused when it could not exclude the others by then. */
  exclude: Micros;
}

export const FOLDER_TERMS: FolderTerms = {
  opens: 8,
  often: 1_000_000,
  rest: 1_000_000,
  calm: 60_000_000,
  exclude: 5_000_000,
};

/** Folders remembered because they were opened often, or recalled. */
const FOLDERS_MAX = 4_096;

/** What folders need of core/records. */
export interface RecordsForFolders {
  obtain(needed: NeededRecord, then: () => void): number;
  cancel(token: number): void;
  isHome(needed: NeededRecord): boolean;
  isWanted(name: RecordName): boolean;
  setGuard(database: DatabaseId, guard: Guard): void;
  guardOpened(database: DatabaseId, key: RecordKey): void;
}

/** An open that excludes, until the lock is ours alone. */
interface Waiting {
  operation: number;
  pid: number;
  token: number;
  timer: Timer;
  /** The lock is here; own smbds may still have entries in the slice. */
  isHere: boolean;
  done: (granted: boolean) => void;
}

interface Folder {
  key: FileId;
  /** Opens go to the slice. */
  isDelegated: boolean;
  /** No smbd of this server can have an entry in the slice. */
  isClean: boolean;
  /** Under way; the processes that have not answered. */
  recall: { number: bigint; awaiting: Set<number> } | null;
  waiting: Map<number, Waiting>;
  /** Operations that exclude, and their processes. */
  excluding: Map<number, number>;
  /** Of our ask for a copy. */
  token: number | null;
  /** How many opens waited, since when, and when the last one did. */
  opens: number;
  since: Micros;
  lastAt: Micros;
  usedAt: Micros;
  recalls: number;
  recalledAt: Micros;
}

export class Folders {
  private readonly folders = new Map<FileId, Folder>();
  /** Processes that have the module, and by which attachment they hear us; null: they live, but have none just now. */
  private readonly modules = new Map<number, Attachment | null>();
  /** Of operations that wait or exclude. */
  private readonly ofOperation = new Map<number, Folder>();
  /** Exclusions of processes that lost their attachment in the middle of the open. */
  private readonly orphans = new Map<number, number[]>();
  private lastRecall = 0n;
  private looksForIdle = false;

  /** All servers ask before they exclude anybody. */
  private mayDelegate = false;

  /** @param hasExcluder whether a record of locking.tdb shows an open that may conflict with others */
  constructor(
    private readonly context: CoreContext,
    private readonly records: RecordsForFolders,
    private readonly hasExcluder: (lockingData: Uint8Array) => boolean,
    private readonly terms: FolderTerms = FOLDER_TERMS,
  ) {
    records.setGuard(FOLDERS, {
      mayBeShared: (key) => !isExcluded(this.folders.get(key)),
      mayLeave: (key) => this.mayLeave(this.folders.get(key)),
      isInUse: (key) => this.isInUse(this.folders.get(key)),
    });
  }

  /** Whether this server takes delegations; what it has it keeps. */
  setMayDelegate(may: boolean): void {
    this.mayDelegate = may;
  }

  /** Somebody is in the pool who does not ask. */
  recallAll(): void {
    for (const folder of [...this.folders.values()]) if (folder.isDelegated) this.startRecall(folder);
  }

  // --- opens that exclude nobody

  /** Such an open waits for the folder's one record. */
  waits(key: FileId): void {
    const folder = this.mayDelegate ? this.remembered(key) : null;
    if (folder === null || folder.isDelegated) return;
    const now = this.context.now();
    if (now - folder.lastAt > this.terms.often) Object.assign(folder, { since: now, opens: 0 });
    folder.lastAt = now;
    folder.opens++;
    const isAsked = folder.token !== null || this.records.isHome({ ...lockOf(key), mode: 'read' });
    if (!this.isWorthIt(folder) || isAsked || folder.waiting.size > 0) return;
    folder.token = this.records.obtain({ ...lockOf(key), mode: 'read' }, () => {
      folder.token = null;
    });
  }

  /** The one record is here, for such an open: what is in it decides, if nobody can have opened otherwise since. */
  offer(key: FileId, lockingData: Uint8Array): void {
    const folder = this.folders.get(key);
    if (folder === undefined || folder.isDelegated || !this.isWorthIt(folder)) return;
    if (!this.mayDelegate || isExcluded(folder) || folder.waiting.size > 0 || folder.recall !== null) return;
    const lock = lockOf(key);
    if (!this.records.isHome({ ...lock, mode: 'read' }) || this.records.isWanted(lock)) return;
    // a run before ours may have left entries there
    if (!folder.isClean) return void this.startRecall(folder);
    if (this.hasExcluder(lockingData)) return this.context.count('folder.not-delegated.excluded');
    folder.isDelegated = true;
    folder.isClean = false;
    folder.usedAt = this.context.now();
    this.context.count('folder.delegated');
    this.list(folder);
    this.lookForIdle();
  }

  /** Such an open goes by the slice. */
  used(key: FileId): void {
    const folder = this.folders.get(key);
    if (folder !== undefined) folder.usedAt = this.context.now();
  }

  // --- opens that exclude

  /**
   * Such an open of a process begins: `done` is called once, within this call or later, unless it is over before: with
   * true when nobody can open the folder by a slice until it is over, with false when that cannot be had.
   */
  exclude(key: FileId, operation: number, pid: number, done: (granted: boolean) => void): void {
    const folder = this.folderOf(key);
    const timer = this.context.timers.at(this.context.now() + this.terms.exclude, () => this.refuse(folder, operation));
    const waiting: Waiting = { operation, pid, token: 0, timer, isHere: false, done };
    folder.waiting.set(operation, waiting);
    this.ofOperation.set(operation, folder);
    const token = this.records.obtain({ ...lockOf(key), mode: 'write' }, () => {
      waiting.isHere = true;
      this.grant(folder);
    });
    waiting.token = token;
  }

  /** It ended, one way or another; anything else did nothing here. */
  over(operation: number): void {
    const folder = this.ofOperation.get(operation);
    if (folder === undefined) return;
    this.ofOperation.delete(operation);
    const waiting = folder.waiting.get(operation);
    if (waiting !== undefined) this.forget(folder, waiting);
    folder.excluding.delete(operation);
    folder.usedAt = this.context.now();
    this.opened(folder);
  }

  private grant(folder: Folder): void {
    if (!folder.isClean && !this.startRecall(folder)) return;
    for (const waiting of [...folder.waiting.values()]) {
      if (!waiting.isHere) continue;
      this.forget(folder, waiting);
      folder.excluding.set(waiting.operation, waiting.pid);
      this.context.count('folder.excluded');
      waiting.done(true);
    }
  }

  private refuse(folder: Folder, operation: number): void {
    const waiting = folder.waiting.get(operation);
    if (waiting === undefined) return;
    this.ofOperation.delete(operation);
    this.forget(folder, waiting);
    this.context.count('folder.refused');
    const silent = [...(folder.recall?.awaiting ?? [])];
    const remedy = silent.length > 0
      ? `look what holds up smbd ${silent.join(', ')} on this server`
      : 'smbpool waits, on the other servers, tells whom they wait for';
    const hex = Buffer.from(folder.key, 'latin1').toString('hex');
    this.context.log('warn', 'folder-not-excluded', { folder: hex, remedy });
    waiting.done(false);
    this.opened(folder);
  }

  private forget(folder: Folder, waiting: Waiting): void {
    waiting.timer.cancel();
    folder.waiting.delete(waiting.operation);
    if (!waiting.isHere) this.records.cancel(waiting.token);
  }

  /** The lock may be free to go now. */
  private opened(folder: Folder): void {
    if (!isExcluded(folder)) this.records.guardOpened(FOLDERS, folder.key);
  }

  // --- recalls

  private mayLeave(folder: Folder | undefined): boolean {
    if (folder === undefined) return true;
    return !isExcluded(folder) && (folder.isClean || this.startRecall(folder));
  }

  /** Returns true if there is nothing to wait for. */
  private startRecall(folder: Folder): boolean {
    if (folder.recall !== null) return false;
    if (folder.isDelegated) this.endDelegation(folder);
    const number = ++this.lastRecall;
    const awaiting = new Set(this.modules.keys());
    if (awaiting.size === 0) {
      folder.isClean = true;
      return true;
    }
    folder.recall = { number, awaiting };
    this.context.count('folder.recalls');
    for (const attachment of this.modules.values()) this.tell(folder, attachment);
    return false;
  }

  private endDelegation(folder: Folder): void {
    const now = this.context.now();
    const halvings = Math.floor((now - folder.recalledAt) / this.terms.calm);
    folder.recalls = Math.floor(folder.recalls / 2 ** Math.min(halvings, 30)) + 1;
    folder.recalledAt = now;
    folder.isDelegated = false;
    folder.opens = 0;
    this.list(folder);
  }

  private tell({ key, recall }: Folder, attachment: Attachment | null): void {
    if (attachment === null || recall === null) return;
    sendToModule(this.context, attachment, RING_OP.recall, encodeRecall(key, recall.number));
  }

  /** A process has moved what it had in the slice. */
  recalled(pid: number, number: bigint): void {
    for (const folder of this.folders.values()) {
      if (folder.recall?.number === number) return this.answered(folder, pid);
    }
  }

  private answered(folder: Folder, pid: number): void {
    const { recall } = folder;
    if (recall?.awaiting.delete(pid) !== true || recall.awaiting.size > 0) return;
    folder.recall = null;
    folder.isClean = true;
    this.grant(folder);
    this.opened(folder);
  }

  private isWorthIt({ opens, since, recalls, recalledAt }: Folder): boolean {
    const now = this.context.now();
    const rests = now < recalledAt + this.terms.rest * 2 ** Math.min(recalls - 1, REST_DOUBLINGS_MAX);
    return opens >= this.terms.opens && now - since >= this.terms.often && !rests;
  }

  /** The page says so to all modules. */
  private list({ key, isDelegated }: Folder): void {
    this.context.emit({ kind: 'home', present: isDelegated, what: HOME_KIND.folder, key: keyBytes(key) });
  }

  private lookForIdle(): void {
    if (this.looksForIdle) return;
    this.looksForIdle = true;
    this.context.timers.at(this.context.now() + this.terms.calm / IDLE_LOOKS, () => {
      this.looksForIdle = false;
      const delegated = [...this.folders.values()].filter(({ isDelegated }) => isDelegated);
      for (const folder of delegated) {
        if (this.context.now() - folder.usedAt >= this.terms.calm) this.startRecall(folder);
      }
      if (delegated.length > 0) this.lookForIdle();
    });
  }

  // --- processes that have the module

  /** A process that had it when the run that we continue ended; what it does is not known before it attaches again. */
  keptModule(pid: number): void {
    if (!this.modules.has(pid)) this.modules.set(pid, null);
  }

  /** A lock that the run that we continue had here: its smbds may have entries in the slice, or exclude. */
  keptLock(key: FileId): void {
    this.folderOf(key).isClean = false;
  }

  /** We are a member now, and go on with what was kept. */
  resume(): void {
    for (const folder of [...this.folders.values()]) if (!folder.isClean) this.startRecall(folder);
  }

  attached(attachment: Attachment): void {
    this.modules.set(attachment.pid, attachment);
    for (const folder of this.folders.values()) {
      if (folder.recall?.awaiting.has(attachment.pid) === true) this.tell(folder, attachment);
    }
  }

  /** The process told anew what it has under way: what was lost with its former attachment is over. */
  resynced(pid: number): void {
    for (const operation of this.orphans.get(pid) ?? []) this.over(operation);
    this.orphans.delete(pid);
  }

  /** Its operations are over, but for opens that the process, if it lives, may be in the middle of. */
  detached({ id, pid }: Attachment, operations: Iterable<number>, isAlive: boolean): void {
    for (const operation of operations) {
      const excludes = this.ofOperation.get(operation)?.excluding.has(operation) === true;
      if (isAlive && excludes) this.orphans.set(pid, [...(this.orphans.get(pid) ?? []), operation]);
      else this.over(operation);
    }
    if (!isAlive) this.ended(pid);
    else if (this.modules.get(pid)?.id === id) this.modules.set(pid, null);
  }

  /** The process has ended. */
  ended(pid: number): void {
    this.resynced(pid);
    if (!this.modules.delete(pid)) return;
    for (const folder of [...this.folders.values()]) this.answered(folder, pid);
  }

  // --- what is remembered

  /** Or was, not long ago: then others may have copies, which would end with it. */
  private isInUse(folder: Folder | undefined): boolean {
    if (folder === undefined) return false;
    return isExcluded(folder) || !folder.isClean || this.context.now() - folder.usedAt < this.terms.calm;
  }

  /** Null: there are too many already. */
  private remembered(key: FileId): Folder | null {
    const known = this.folders.get(key);
    if (known !== undefined) return known;
    if (this.folders.size >= FOLDERS_MAX && !this.forgetOne()) return null;
    return this.folderOf(key);
  }

  private folderOf(key: FileId): Folder {
    let folder = this.folders.get(key);
    if (folder !== undefined) return folder;
    folder = {
      key, isDelegated: false, isClean: true, recall: null, waiting: new Map(), excluding: new Map(), token: null,
      opens: 0, since: 0, lastAt: -Infinity, usedAt: -Infinity, recalls: 0, recalledAt: -Infinity,
    };
    this.folders.set(key, folder);
    return folder;
  }

  /** The one that has been known for longest, of those with nothing under way. */
  private forgetOne(): boolean {
    for (const folder of this.folders.values()) {
      if (!folder.isClean || isExcluded(folder) || folder.waiting.size > 0 || folder.token !== null) continue;
      return this.folders.delete(folder.key);
    }
    return false;
  }
}

function lockOf(key: FileId): RecordName {
  return { database: FOLDERS, key };
}

/** An open excludes, or will as soon as our own smbds have answered. */
function isExcluded(folder: Folder | undefined): boolean {
  if (folder === undefined) return false;
  return folder.excluding.size > 0 || [...folder.waiting.values()].some(({ isHere }) => isHere);
}
