/**
 * Watches what clients keep in their caches under read leases, from outside: it hears of grants, answers, writes and
 * breaks, and knows which version of each file is the last one written.
 *
 * Checked: no write is answered while a client elsewhere goes by an older version under a read lease, and was not told;
 * no open or read is answered with an older version than the last one answered, and a lease to go by it; and when all
 * is over, everybody who was told has heard it.
 */
import type { RecordKey } from '../../src/base/ids.js';

/** What one smbd's client holds of one file. */
interface CachedFile {
  smbd: string;
  file: RecordKey;
  /** The version its client goes by; null: it must ask. */
  seen: number | null;
  hasRead: boolean;
  /** A message that takes the read lease away is under way. */
  told: boolean;
  /** Between processes of one server. */
  isLocal: boolean;
}

export class LeaseChecker {
  readonly totals = { opens: 0, writes: 0, breaks: 0 };
  private readonly cached = new Map<string, CachedFile>();
  /** Files that are not judged any more. */
  private readonly lost = new Set<RecordKey>();
  private readonly answered = new Map<RecordKey, number>();

  constructor(private readonly report: (rule: string, text: string, file: RecordKey) => void) {}

  private fail(rule: string, text: string, file: RecordKey): void {
    if (!this.lost.has(file)) this.report(rule, text, file);
  }

  private of(smbd: string, file: RecordKey): CachedFile | undefined {
    return this.cached.get(`${smbd}/${file}`);
  }

  private lastAnswered(file: RecordKey): number {
    return this.answered.get(file) ?? 0;
  }

  /**
   * smbd stored the grant; its client does not know yet. When it has the file open under this lease already, it goes on
   * by what it has.
   */
  granted(smbd: string, file: RecordKey): void {
    if (this.of(smbd, file)?.hasRead === true) return;
    this.cached.set(`${smbd}/${file}`, { smbd, file, seen: null, hasRead: true, told: false, isLocal: false });
  }

  /** The client is answered with what `seen` is like: an open, or a read that it keeps. */
  saw(smbd: string, file: RecordKey, seen: number): void {
    const cached = this.of(smbd, file);
    if (cached?.hasRead !== true) return;
    this.totals.opens++;
    cached.seen = Math.min(seen, cached.seen ?? seen);
    if (seen >= this.lastAnswered(file) || cached.told) return;
    const text = `${smbd} is told of version ${seen} and may keep it, ${this.lastAnswered(file)} was answered before`;
    this.fail('leases-begin-current', text, file);
  }

  /** A message was sent that takes the read lease away. */
  told(smbd: string, file: RecordKey, isLocal: boolean): void {
    const cached = this.of(smbd, file);
    if (cached !== undefined) Object.assign(cached, { told: true, isLocal });
  }

  /**
   * The daemon of these smbds was killed. What one of them sent to another may be lost with it here; real ones send it
   * to each other's sockets.
   */
  daemonKilled(isOurs: (smbd: string) => boolean): void {
    for (const { smbd, file, hasRead, told, isLocal } of this.cached.values()) {
      if (hasRead && told && isLocal && isOurs(smbd)) this.lost.add(file);
    }
  }

  /** The read lease is gone, and its client knows. */
  broken(smbd: string, file: RecordKey): void {
    const cached = this.of(smbd, file);
    if (cached?.hasRead !== true) return;
    this.totals.breaks++;
    cached.hasRead = false;
    cached.seen = null;
  }

  /** The records that say who holds what are lost: nobody can know whom to tell, so they are not judged any more. */
  excuse(isLost: (smbd: string, file: RecordKey) => boolean): void {
    for (const { smbd, file } of this.cached.values()) if (isLost(smbd, file)) this.lost.add(file);
  }

  /** A client is answered that it wrote `version`. */
  wrote(writer: string, file: RecordKey, version: number): void {
    this.totals.writes++;
    const own = this.of(writer, file);
    if (own?.hasRead === true) own.seen = Math.max(own.seen ?? 0, version);
    this.answered.set(file, Math.max(this.lastAnswered(file), version));
    for (const { smbd, file: other, seen, hasRead, told } of this.cached.values()) {
      if (other !== file || !hasRead || told || seen === null || seen >= version) continue;
      const text = `${writer} is answered version ${version}, ${smbd} goes by ${seen} and was not told`;
      this.fail('writers-tell-readers', text, file);
    }
  }

  closed(smbd: string, file: RecordKey): void {
    this.cached.delete(`${smbd}/${file}`);
  }

  died(smbd: string): void {
    for (const [id, cached] of this.cached) if (cached.smbd === smbd) this.cached.delete(id);
  }

  /** All messages had the time to arrive. */
  finish(): void {
    for (const { smbd, file, seen, hasRead } of this.cached.values()) {
      const last = this.lastAnswered(file);
      if (!hasRead || seen === null || seen >= last) continue;
      this.fail('breaks-arrive', `${smbd} still goes by version ${seen}, ${last} was answered`, file);
    }
  }
}
