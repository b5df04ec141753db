/**
 * A server's own files of the persistent databases: which version they hold, and one piece of work at a time on each.
 * Knows nothing of majorities; does what the leader (core/persistent/leader) says and reports what became of it. Each
 * change of a file is one durable transaction of the host, so a file always holds one whole version.
 */
import type { DatabaseId, NodeId } from '../../base/ids.js';
import { VERSION_ZERO, sameVersion, versionOf } from '../../wire/persistent-rows.js';
import type { Version } from '../../wire/persistent-rows.js';
import type { CoreContext } from '../context.js';
import type { Input, PersistentOp, PersistentRow } from '../effects.js';
import { ATTACH_WAIT_MICROS_MAX, TASKS_WAITING_MAX } from './limits.js';
import type { Timer } from '../timers.js';

export type WorkResult = Extract<Input, { kind: 'persistent-done' }>['result'];

interface Waiter {
  done: (refusal: string | null) => void;
  timer: Timer;
}

interface File {
  readonly id: DatabaseId;
  readonly name: string;
  /** null until the file was read once. */
  version: Version | null;
  /** The leader says that a majority, ourselves included, has one version. */
  inSync: boolean;
  waiters: Set<Waiter>;
  /** Work in the order it came; the first is under way. */
  tasks: ((finished: () => void) => void)[];
}

export class Member {
  private readonly files = new Map<DatabaseId, File>();
  private readonly work = new Map<number, (result: WorkResult) => void>();
  private lastToken = 0;

  constructor(
    private readonly context: CoreContext,
    /** Called when the version of a file is known or changed; `failed` says what was not done. */
    private readonly report: (database: DatabaseId, version: Version, failed: string) => void,
    /** Which servers' files count, in words, and those of them that are missing. */
    private readonly needs: () => { where: string; missing: readonly NodeId[] },
  ) {}

  /** The file is open: it is read to learn its version. */
  open(id: DatabaseId, name: string): void {
    if (this.files.has(id)) return;
    const file: File = { id, name, version: null, inSync: false, waiters: new Set(), tasks: [] };
    this.files.set(id, file);
    this.learnVersion(file);
  }

  /** If the file could not be read, it is read again when somebody wants it. */
  private learnVersion(file: File | undefined): void {
    if (file === undefined || file.version !== null || file.tasks.length > 0) return;
    this.enqueue(file, (finished) => {
      this.perform(file.id, { op: 'read' }, (result) => {
        if (result.ok) file.version = versionOf(result.rows ?? []) ?? VERSION_ZERO;
        else this.logFailure(file, 'read', result.why);
        finished();
        if (file.version !== null) this.report(file.id, file.version, '');
      });
    });
  }

  name(id: DatabaseId): string {
    return this.files.get(id)?.name ?? `database 0x${id.toString(16)}`;
  }

  ids(): DatabaseId[] {
    return [...this.files.keys()];
  }

  version(id: DatabaseId): Version | null {
    return this.files.get(id)?.version ?? null;
  }

  isInSync(id: DatabaseId): boolean {
    return this.files.get(id)?.inSync ?? false;
  }

  /** Applies the rows if the file holds `previous`; reports what it holds then. */
  apply(id: DatabaseId, previous: Version, version: Version, rows: PersistentRow[]): void {
    this.change(id, 'apply', { op: 'apply', rows }, version, (file) => {
      return sameVersion(file.version, previous) ? '' : 'the file holds another version';
    });
  }

  /** Makes the file hold exactly these rows; reports what it holds then. */
  replace(id: DatabaseId, version: Version, rows: PersistentRow[]): void {
    this.change(id, 'replace', { op: 'replace', rows }, version, () => '');
  }

  private change(
    id: DatabaseId,
    what: string,
    work: PersistentOp,
    version: Version,
    objection: (file: File) => string,
  ): void {
    const file = this.files.get(id);
    // not open yet: once it is, its version is reported and the leader does what is needed
    if (file === undefined) return this.context.count('persistent.work.refused.not-open');
    const queued = this.enqueue(file, (finished) => {
      const held = file.version;
      if (held === null || sameVersion(held, version)) {
        finished();
        if (held !== null) this.report(id, held, '');
        return;
      }
      const refusal = objection(file);
      if (refusal !== '') {
        this.context.count(`persistent.${what}.refused`);
        file.inSync = false;
        finished();
        return this.report(id, held, refusal);
      }
      this.perform(id, work, (result) => {
        if (result.ok) file.version = version;
        else this.logFailure(file, what, result.why);
        this.context.count(result.ok ? `persistent.${what}` : `persistent.${what}.failed`);
        finished();
        this.report(id, file.version ?? VERSION_ZERO, result.ok ? '' : result.why);
      });
    });
    if (!queued && file.version !== null) this.report(id, file.version, 'too much work waits for the file');
  }

  private logFailure(file: File, what: string, why: string): void {
    const remedy = 'check the disk below the persistent directory; the file is brought up to date when it works again';
    this.context.log('error', 'persistent.failed', { database: file.name, what, why, remedy });
  }

  /** All rows, after the work that waits already. */
  read(id: DatabaseId, done: (rows: PersistentRow[] | string) => void): void {
    const file = this.files.get(id);
    if (file === undefined) return done('the database is not open here');
    const queued = this.enqueue(file, (finished) => {
      this.perform(id, { op: 'read' }, (result) => {
        finished();
        done(result.ok ? (result.rows ?? []) : result.why);
      });
    });
    if (!queued) done('too much work waits for the file');
  }

  /** Another leader says what counts from here on; those who want to attach wait for its word. */
  leaderChanged(): void {
    for (const file of this.files.values()) file.inSync = false;
  }

  /** A majority has the version; if we do too, waiting processes may attach. */
  inSync(id: DatabaseId, version: Version): void {
    const file = this.files.get(id);
    if (file === undefined || !sameVersion(file.version, version)) return;
    if (!file.inSync) {
      const { term, sequence } = version;
      this.context.log('info', 'persistent.in-sync', { database: file.name, term, sequence });
    }
    file.inSync = true;
    const waiters = [...file.waiters];
    file.waiters.clear();
    for (const waiter of waiters) {
      waiter.timer.cancel();
      waiter.done(null);
    }
  }

  whenInSync(id: DatabaseId, done: (refusal: string | null) => void): void {
    const file = this.files.get(id);
    if (file === undefined) return done('the database is not open here');
    if (file.inSync) return done(null);
    this.learnVersion(file);
    const timer = this.context.timers.at(this.context.now() + ATTACH_WAIT_MICROS_MAX, () => {
      file.waiters.delete(waiter);
      const { where, missing } = this.needs();
      const remedy = `start smbpoold on the missing servers: it must run on ${where}`;
      this.context.log('error', 'persistent.attach-refused', { database: file.name, missing, remedy });
      done(`${file.name} is not in sync on ${where} (missing: ${missing.join(', ') || 'none'})`);
    });
    const waiter: Waiter = { done, timer };
    file.waiters.add(waiter);
  }

  onDone(token: number, result: WorkResult): void {
    const done = this.work.get(token);
    if (done === undefined) return this.context.count('persistent.done.unexpected');
    this.work.delete(token);
    done(result);
  }

  private perform(database: DatabaseId, work: PersistentOp, done: (result: WorkResult) => void): void {
    const token = ++this.lastToken;
    this.work.set(token, done);
    this.context.emit({ kind: 'persistent', database, token, work });
  }

  /** Starts the task now or when those before it are finished; false when too many wait. */
  private enqueue(file: File, task: (finished: () => void) => void): boolean {
    if (file.tasks.length >= TASKS_WAITING_MAX) {
      this.context.count('persistent.work.refused.too-much');
      return false;
    }
    file.tasks.push(task);
    if (file.tasks.length === 1) this.startFirst(file);
    return true;
  }

  private startFirst(file: File): void {
    file.tasks[0]?.(() => {
      file.tasks.shift();
      this.startFirst(file);
    });
  }
}
