/**
 * One client of lease-load.ts, which caches as cifs.ko does. It goes by the size that its open was answered (an empty
 * file is never read), fetches the content once, and asks nobody while it holds a read lease. What it fetched it keeps
 * when it closes the file, and uses it again when the next open tells the same size and last write time. Under a write
 * lease it may keep a change to itself until the lease is broken. It decides nothing: lease-load.ts says what to do.
 */
import { randomBytes } from 'node:crypto';
import type { Answer, BreakEvent, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';

/** So many entries of a file's story are remembered: of the seconds in which a cache is waited for, and before. */
const STORY_LENGTH = 5_000;
const WRITE_GRANTS = ['exclusive', 'batch'];

/** How often what happened; each must happen, but `late` and `changes late`. */
export interface LeaseLoadCounts {
  opens: number;
  /** Opens that were granted what allows to read from the cache. */
  grants: number;
  /** READs sent. */
  fetches: number;
  /** Reads from the cache. */
  hits: number;
  /** Opens after which what was kept of an earlier one was good. */
  reuses: number;
  writes: number;
  /** Changes that were kept under a write lease first. */
  flushes: number;
  breaks: number;
  /** Turns of writers after which all caches were judged. */
  judged: number;
  /** Turns after which a cache was not current at once. */
  late: number;
}

/** What is in a file: known to the whole test, because one client at a time writes to it. */
export class FileTruth {
  /** As of the last change that was answered. */
  text = '';
  /** What all clients did with it, for reports. */
  readonly story: { client: string; text: string; isWrite: boolean }[] = [];
  private version = 0;

  /**
   * `keepsPages`: clients use again what they fetched during an earlier open. Writers must then set the end of the
   * file before each write: smbd 4.17 tells a new last write time at once only after that. After a write alone it takes
   * two seconds or the close, and after opening with "overwrite" the time told is that of before, on one server, too.
   */
  constructor(
    readonly name: string,
    readonly keepsPages: boolean,
  ) {}

  /** The next content, never seen before; with `padding` more bytes than usual. */
  next(padding: number): string {
    this.version += 1;
    return String(this.version).padStart(8, '0') + '.'.repeat(padding);
  }
}

/** By which a client knows whether a file is what it was. */
interface Label {
  size: number;
  lastWrite: string;
}

/** What one client knows of one file. */
export interface Cached {
  readonly client: CachingClient;
  readonly truth: FileTruth;
  readonly leaseKey: string;
  /** The open ones, oldest first; more than one only under the lease. */
  handles: number[];
  isLease: boolean;
  canRead: boolean;
  canWrite: boolean;
  /** How many breaks came: what was under way meanwhile is not believed. */
  breaks: number;
  size: number;
  /** Null: it must fetch it. */
  text: string | null;
  label: Label | null;
  pages: { label: Label; text: string } | null;
  /** A change that the server does not know yet. */
  dirty: string | null;
  flushing: Promise<void> | null;
}

/** The clock of the answers' times. */
function monotonicSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function quoted(text: string | null): string {
  return text === null ? 'nothing' : JSON.stringify(text);
}

export class CachingClient {
  private readonly files = new Map<string, Cached>();
  private readonly byHandle = new Map<number, Cached>();
  /** The highest number of a handle that it was told of; they ascend. */
  private newest = 0;
  /** Handles whose oplock was broken in the same breath as they were granted. */
  private readonly brokenEarly = new Set<number>();
  /** What went wrong in answering a break. */
  private failure: Error | null = null;

  private constructor(
    readonly name: string,
    readonly smb: SmbClient,
    private readonly counts: LeaseLoadCounts,
  ) {}

  static async connect(name: string, address: string, counts: LeaseLoadCounts): Promise<CachingClient> {
    const client = new CachingClient(name, await SmbClient.connect(address), counts);
    client.smb.onBreak = (event) => client.onBreak(event);
    await client.smb.request('automatic', { on: false });
    return client;
  }

  of(truth: FileTruth): Cached {
    let cached = this.files.get(truth.name);
    if (cached === undefined) {
      const leaseKey = randomBytes(16).toString('hex');
      cached = {
        client: this, truth, leaseKey, handles: [], isLease: false, canRead: false, canWrite: false, breaks: 0, size: 0,
        text: null, label: null, pages: null, dirty: null, flushing: null,
      };
      this.files.set(truth.name, cached);
    }
    return cached;
  }

  private all(): Cached[] {
    return [...this.files.values()];
  }

  /** Throws what went wrong in the background. */
  check(): void {
    if (this.failure) throw this.failure;
  }

  /** Opens the file once more; what it goes by from now on is what the answer says. */
  async open(cached: Cached, how: OpenRequest): Promise<void> {
    const { breaks, truth, leaseKey } = cached;
    const isLease = how.lease !== undefined;
    const answer = await this.smb.mustOpen(truth.name, isLease ? { ...how, leaseKey } : how);
    this.counts.opens++;
    cached.handles.push(answer.handle);
    this.byHandle.set(answer.handle, cached);
    this.newest = Math.max(this.newest, answer.handle);
    const granted = answer.lease ?? answer.oplock ?? 'none';
    // a break that came while the answer was under way may be of what this very answer grants
    const isWhole = breaks === cached.breaks && !this.brokenEarly.delete(answer.handle) && !answer.leaseIsBreaking;
    cached.isLease = isLease;
    cached.canWrite = isWhole && (granted.includes('W') || WRITE_GRANTS.includes(granted));
    cached.canRead = isWhole && (granted.includes('R') || granted === 'level2' || WRITE_GRANTS.includes(granted));
    if (cached.canRead) this.counts.grants++;
    this.takeAnswer(cached, answer);
    const { size, text } = cached;
    this.tell(cached, `opened (${how.disposition ?? ''}): ${granted}, ${size} bytes, has ${quoted(text)}`, answer);
  }

  private takeAnswer(cached: Cached, answer: Answer): void {
    const { pages } = cached;
    const label: Label = { size: answer.size ?? 0, lastWrite: answer.lastWrite ?? '' };
    const isSame = pages?.label.size === label.size && pages.label.lastWrite === label.lastWrite;
    cached.size = label.size;
    cached.label = label;
    cached.text = null;
    if (!isSame || !cached.truth.keepsPages) cached.pages = null;
    if (!cached.canRead) return;
    if (label.size === 0) {
      cached.text = '';
    } else if (cached.pages !== null) {
      cached.text = cached.pages.text;
      this.counts.reuses++;
    }
  }

  /** Reads: from the cache, if it may; what it does not have it fetches. */
  async read(cached: Cached): Promise<void> {
    if (cached.canRead && cached.text !== null) this.counts.hits++;
    else await this.fetch(cached);
  }

  private async fetch(cached: Cached): Promise<void> {
    const handle = cached.handles.at(-1);
    const { breaks, label, size } = cached;
    if (handle === undefined || size === 0) return;
    const answer = await this.smb.read(handle, size);
    this.counts.fetches++;
    if (!cached.canRead || breaks !== cached.breaks) return;
    cached.text = answer.data ?? '';
    cached.pages = label !== null && cached.text.length === size ? { label, text: cached.text } : null;
    this.tell(cached, `fetched ${quoted(cached.text)}`, answer);
  }

  /** Cuts the file off and writes what is to be in it; an empty text takes no WRITE. */
  async replace(cached: Cached, text: string): Promise<void> {
    this.changed(cached, '', await this.smb.truncate(this.writable(cached), 0));
    if (text !== '') await this.write(cached, text);
  }

  /** Writes from the beginning; what is longer than `text` must not be there. */
  async write(cached: Cached, text: string): Promise<void> {
    this.changed(cached, text, await this.smb.write(this.writable(cached), text));
  }

  /** Keeps the change to itself; flush, or the break of the write lease, makes it known. */
  keep(cached: Cached, text: string): void {
    cached.dirty = text;
    cached.size = text.length;
    cached.text = text;
    cached.label = null;
    cached.pages = null;
    this.tell(cached, `keeps ${quoted(text)}`);
  }

  flush(cached: Cached): Promise<void> {
    const { dirty } = cached;
    if (cached.flushing === null && dirty !== null) {
      this.counts.flushes++;
      cached.flushing = this.replace(cached, dirty).finally(() => {
        cached.dirty = null;
        cached.flushing = null;
      });
    }
    return cached.flushing ?? Promise.resolve();
  }

  /** The server has this in the file now. */
  changed(cached: Cached, text: string, answer?: Answer): void {
    if (answer && answer.status !== 'OK') throw new Error(`${cached.truth.name}: writing failed: ${answer.status}`);
    this.counts.writes++;
    cached.truth.text = text;
    cached.size = text.length;
    cached.text = cached.canRead ? text : null;
    cached.label = null;
    cached.pages = null;
    this.tell(cached, `wrote ${quoted(text)}`, answer, true);
  }

  private writable(cached: Cached): number {
    const handle = cached.handles.at(-1);
    if (handle === undefined) throw new Error(`${cached.truth.name}: written without being open`);
    return handle;
  }

  /** Closes all handles: nothing may be read from the cache until it is opened again. */
  async close(cached: Cached): Promise<void> {
    cached.canRead = false;
    cached.canWrite = false;
    cached.text = null;
    cached.label = null;
    if (cached.handles.length > 0) this.tell(cached, 'closes');
    await this.closeHandles(cached.handles.splice(0));
  }

  /** Closes all handles but the last. */
  closeOlder(cached: Cached): Promise<void> {
    return this.closeHandles(cached.handles.splice(0, cached.handles.length - 1));
  }

  private async closeHandles(handles: number[]): Promise<void> {
    for (const handle of handles) this.byHandle.delete(handle);
    await Promise.all(handles.map((handle) => this.smb.closeHandle(handle)));
  }

  private onBreak(event: BreakEvent): void {
    const { leaseKey, handle, to } = event;
    const isLease = leaseKey !== undefined;
    const cached = isLease
      ? this.all().find((one) => one.leaseKey === leaseKey)
      : this.byHandle.get(handle ?? -1);
    this.counts.breaks++;
    if (cached !== undefined) this.lose(cached, to);
    else if (handle !== null && handle > this.newest && !isLease) this.brokenEarly.add(handle);
    if (event.acknowledge) this.acknowledge(cached, event).catch((error: unknown) => (this.failure ??= error as Error));
  }

  private lose(cached: Cached, to: string): void {
    cached.breaks++;
    cached.canWrite = false;
    this.tell(cached, `break to ${to === '' ? 'nothing' : to}`);
    if (to.includes('R') || to === 'level2') return;
    cached.canRead = false;
    cached.text = null;
    cached.pages = null;
  }

  /**
   * At once; but what only this client knows is written before. The lease may be of an open whose answer is still to
   * come, or gone: then smbd refuses, and nobody minds. Of a handle that is being closed the client must not speak.
   */
  private async acknowledge(cached: Cached | undefined, event: BreakEvent): Promise<void> {
    const { leaseKey, handle, to } = event;
    if (cached !== undefined) await this.flush(cached);
    if (leaseKey !== undefined) {
      await this.smb.request('acknowledge', { leaseKey, to });
    } else if (handle !== null && (this.byHandle.has(handle) || this.brokenEarly.has(handle))) {
      await this.smb.request('acknowledge', { handle, to });
    }
  }

  private tell(cached: Cached, what: string, answer?: Answer, isWrite = false): void {
    const { sent, at } = answer ?? { sent: null, at: monotonicSeconds() };
    const when = `${sent === null ? '' : `${sent.toFixed(4)}-`}${at.toFixed(4)}`;
    const { story } = cached.truth;
    story.push({ client: this.name, text: `${when} ${this.name}: ${what}`, isWrite });
    if (story.length > STORY_LENGTH) story.shift();
  }

  /** What it would read now, without asking anybody, is not what is in the file. Not asked while it writes. */
  static isOld({ canRead, handles, dirty, size, text, truth }: Cached): boolean {
    if (!canRead || handles.length === 0 || dirty !== null) return false;
    return size !== truth.text.length || (text !== null && text !== truth.text);
  }
}
