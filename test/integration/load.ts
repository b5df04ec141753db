/**
 * Random load: clients on all servers that open, lock, write, rename, delete and close the same few files, and answer
 * the breaks of their oplocks and leases. Records every grant for load-trace.ts. Seeded; what the servers' timing adds
 * is not.
 */
import { Prng } from '../../src/base/prng.js';
import { LAB_PASSWORD, LAB_USER, SHARE } from '../../src/lab/layout.js';
import type { Answer, BreakEvent, OpenRequest } from '../../src/lab/smb-client.js';
import { pause } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { takeReleased } from './load-trace.js';
import type { ExclusiveHolding, Holding, LockHolding, OpenHolding } from './load-trace.js';

/** Few files, so that the clients meet; but enough that most requests succeed. */
const FILE_COUNT = 6;
/** More handles would mostly meet the client's own. */
const HANDLES_MAX = 3;
/** Locks are taken within this many bytes, so that they meet. */
const LOCK_RANGE_BYTES = 64;
/**
 * Who waits for a lock gives up after this. smbd 4.17 now and then forgets to wake one of several waiters, clustered or
 * not (three of four runs of this load on one unclustered smbd); samba's own suites test that waiters are woken.
 */
const LOCK_WAIT_MILLIS = 2000;

/** Numbers of clients: those of later connections of one client are this much higher. */
const CLIENTS_MAX = 1000;
/** Between two tries to connect again: a server that starts needs a second. */
const RECONNECT_MILLIS = 200;

interface Handle {
  number: number;
  fileId: string;
  open: OpenHolding;
  exclusive: ExclusiveHolding | null;
  locks: LockHolding[];
  mayDelete: boolean;
}

/**
 * Which files are marked for deletion, over all clients: a file is marked once. smbd 4.17 panics ("Bad talloc magic
 * value", in set_delete_on_close_lck) when a file that was renamed meanwhile is marked a third time, clustered or not.
 */
class Marks {
  private readonly markedAt = new Map<string, number>();

  /** True when the file was not marked yet; it is from now on. */
  take(fileId: string): boolean {
    if (this.markedAt.has(fileId)) return false;
    this.markedAt.set(fileId, Infinity);
    return true;
  }

  answered(fileId: string, answer: Answer): void {
    if (answer.status === 'OK') this.markedAt.set(fileId, answer.at);
    else this.markedAt.delete(fileId);
  }

  /** Nobody can open a marked file: if somebody did, it is another one with the same number. */
  opened(fileId: string, sent: number): void {
    if (sent > (this.markedAt.get(fileId) ?? Infinity)) this.markedAt.delete(fileId);
  }
}

export interface LoadResult {
  /** What was answered how often: "open OK" and so on; "break OK" counts the breaks that came. */
  counts: Map<string, number>;
  holdings: Holding[];
  /** Connections that ended by themselves; seconds of the machine-wide clock. */
  losses: { address: string; at: number }[];
}

/** The clock of the clients' answers. */
function machineSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

/** One client's part of the load, over one connection. */
class LoadClient {
  private readonly handles: Handle[] = [];
  /** Breaks that came before the answer that told us of the handle. */
  private readonly earlyBreaks = new Map<number, BreakEvent>();

  private constructor(
    private readonly index: number,
    private readonly client: SmbClient,
    private readonly prng: Prng,
    private readonly result: LoadResult,
    private readonly marks: Marks,
  ) {}

  /** `life` counts the connections of this client. */
  static async connect(
    index: number,
    life: number,
    plan: Load,
    result: LoadResult,
    marks: Marks,
  ): Promise<LoadClient> {
    const address = plan.addresses[index % plan.addresses.length] ?? '';
    const share = plan.shares?.[index % plan.shares.length] ?? SHARE;
    const client = await SmbClient.connect(address, LAB_USER, LAB_PASSWORD, share);
    const number = index + CLIENTS_MAX * life;
    const load = new LoadClient(number, client, new Prng(plan.seed + number), result, marks);
    client.onBreak = (event) => load.onBreak(event);
    return load;
  }

  close(): void {
    this.client.close();
  }

  /** Works until it is over, then closes its handles and its connection. */
  async run(isOver: () => boolean): Promise<void> {
    try {
      while (!isOver()) await this.act();
      while (this.handles.length > 0) await this.closeOne();
    } finally {
      this.client.close();
    }
  }

  /**
   * After `run` failed: ends what was held when the connection was lost. False when it was not: then something else is
   * wrong.
   */
  endedByLoss(): boolean {
    const { lostAt, address } = this.client;
    if (lostAt === null) return false;
    this.result.losses.push({ address, at: lostAt });
    for (const holding of this.result.holdings) {
      if (holding.client !== this.index) continue;
      if (holding.kind === 'exclusive') endExclusive(holding, lostAt, 'connection lost');
      else holding.to = Math.min(holding.to, lostAt);
    }
    return true;
  }

  private count(what: string, answer: Answer): void {
    const key = `${what} ${answer.status}`;
    this.result.counts.set(key, (this.result.counts.get(key) ?? 0) + 1);
  }

  private onBreak(event: BreakEvent): void {
    this.result.counts.set('break OK', (this.result.counts.get('break OK') ?? 0) + 1);
    if (event.handle === null) return;
    const exclusive = this.handles.find((handle) => handle.number === event.handle)?.exclusive;
    // a break that only takes H away leaves the rest as exclusive as it was
    if (event.to.includes('W')) return;
    if (exclusive) endExclusive(exclusive, event.at, `break to ${event.to}`);
    else this.earlyBreaks.set(event.handle, event);
  }

  private act(): Promise<void> {
    const dice = this.prng.below(100);
    if (this.handles.length === 0 || (dice < 35 && this.handles.length < HANDLES_MAX)) return this.open();
    if (dice < 60) return this.lock();
    if (dice < 72) return this.write();
    if (dice < 78) return this.rename();
    // a file marked for deletion refuses every open until the last handle is closed
    if (dice < 80) return this.markDeleted();
    return this.closeOne();
  }

  private fileName(): string {
    return `load-${this.prng.below(FILE_COUNT)}.dat`;
  }

  private howToOpen(): OpenRequest {
    const access: ('read' | 'write' | 'delete')[] = ['read'];
    if (this.prng.chance(0.6)) access.push('write');
    if (this.prng.chance(0.3)) access.push('delete');
    // mostly friendly: refusing everybody would leave nothing to do
    const share = this.prng.chance(0.8) ? 'rwd' : this.prng.pick(['', 'r', 'rw', 'rd']);
    const how: OpenRequest = { access, share, disposition: this.prng.chance(0.9) ? 'open_if' : 'overwrite_if' };
    if (this.prng.chance(0.3)) return { ...how, lease: this.prng.pick(['R', 'RH', 'RW', 'RWH']) };
    return { ...how, oplock: this.prng.pick(['none', 'level2', 'exclusive', 'batch']) };
  }

  private async open(): Promise<void> {
    const how = this.howToOpen();
    const answer = await this.client.open(this.fileName(), how);
    this.count('open', answer);
    if (answer.status !== 'OK' || answer.handle === undefined || !answer.fileId) return;
    this.marks.opened(answer.fileId, answer.sent);
    const common = { client: this.index, handle: answer.handle, fileId: answer.fileId, from: answer.at, to: Infinity };
    const has = (letters: string, letter: string) => letters.includes(letter);
    const share = how.share ?? 'rwd';
    const access = how.access ?? [];
    const open: OpenHolding = {
      ...common,
      kind: 'open',
      access: { read: true, write: access.includes('write'), delete: access.includes('delete') },
      share: { read: has(share, 'r'), write: has(share, 'w'), delete: has(share, 'd') },
    };
    const granted = answer.lease?.includes('W') === true || answer.oplock === 'exclusive' || answer.oplock === 'batch';
    const early = this.earlyBreaks.get(answer.handle);
    this.earlyBreaks.delete(answer.handle);
    const exclusive: ExclusiveHolding | null = granted
      ? { ...common, kind: 'exclusive', granted: answer.lease ?? answer.oplock ?? '', ended: 'never' }
      : null;
    if (exclusive && early) endExclusive(exclusive, early.at, `break to ${early.to}`);
    this.result.holdings.push(open);
    if (exclusive) this.result.holdings.push(exclusive);
    const mayDelete = open.access.delete;
    this.handles.push({ number: answer.handle, fileId: answer.fileId, open, exclusive, locks: [], mayDelete });
  }

  private async lock(): Promise<void> {
    const handle = this.prng.pick(this.handles);
    const range = handle.locks.at(-1);
    if (range && this.prng.chance(0.5)) {
      const released = takeReleased(handle.locks, range);
      // without an answer it counts as released from here on
      if (released) released.to = machineSeconds();
      const answer = await this.client.lock(handle.number, { offset: range.start, length: range.length, unlock: true });
      this.count('unlock', answer);
      if (released) released.to = answer.sent;
      return;
    }
    const start = this.prng.below(LOCK_RANGE_BYTES);
    const length = 1 + this.prng.below(LOCK_RANGE_BYTES / 4);
    const exclusive = this.prng.chance(0.7);
    // whoever holds no lock may wait for one: so nobody waits in a circle
    const wait = this.handles.every((one) => one.locks.length === 0) && this.prng.chance(0.2);
    const wish = { offset: start, length, exclusive };
    const answer = await this.client.lock(handle.number, wait ? { ...wish, waitMs: LOCK_WAIT_MILLIS } : wish);
    this.count(wait ? 'lock with waiting' : 'lock', answer);
    if (answer.status !== 'OK') return;
    const common = { client: this.index, handle: handle.number, fileId: handle.fileId, from: answer.at, to: Infinity };
    const lock: LockHolding = { ...common, kind: 'lock', start, length, exclusive };
    handle.locks.push(lock);
    this.result.holdings.push(lock);
  }

  private async write(): Promise<void> {
    const handle = this.prng.pick(this.handles);
    if (handle.open.access.write) {
      this.count('write', await this.client.write(handle.number, `client ${this.index} `.repeat(8)));
    } else {
      this.count('read', await this.client.read(handle.number));
    }
  }

  private async rename(): Promise<void> {
    const handle = this.handles.find((one) => one.mayDelete);
    if (!handle) return;
    this.count('rename', await this.client.request('rename', { handle: handle.number, to: this.fileName() }));
  }

  private async markDeleted(): Promise<void> {
    const handle = this.handles.find((one) => one.mayDelete);
    if (!handle || !this.marks.take(handle.fileId)) return;
    const answer = await this.client.request('delete', { handle: handle.number });
    this.marks.answered(handle.fileId, answer);
    this.count('delete', answer);
  }

  private async closeOne(): Promise<void> {
    const [handle] = this.handles.splice(this.prng.below(this.handles.length), 1);
    if (!handle) return;
    const end = (at: number): void => {
      for (const holding of [handle.open, ...handle.locks]) holding.to = Math.min(holding.to, at);
      if (handle.exclusive) endExclusive(handle.exclusive, at, 'close');
    };
    const before = machineSeconds();
    try {
      const answer = await this.client.closeHandle(handle.number);
      this.count('close', answer);
      end(answer.sent);
    } catch (error) {
      end(before);
      throw error;
    }
  }
}

function endExclusive(holding: ExclusiveHolding, at: number, how: string): void {
  if (at >= holding.to) return;
  holding.to = at;
  holding.ended = how;
}

export interface Load {
  addresses: readonly string[];
  /** Dealt to the clients like the addresses; the lab's share when absent. */
  shares?: readonly string[];
  clients: number;
  seed: number;
  /** How long; or until this says so. */
  seconds?: number;
  isOver?: () => boolean;
  /** Called when all clients are connected. */
  onConnected?: () => void;
  /** A client whose connection ends by itself connects again, as soon as it is let. */
  reconnects?: true;
}

/** The first connection of each client is there already. */
async function live(first: LoadClient, isOver: () => boolean, again: (life: number) => Promise<LoadClient>) {
  let client: LoadClient | null = first;
  for (let life = 1; client !== null && !isOver(); life++) {
    try {
      return await client.run(isOver);
    } catch (error) {
      if (!client.endedByLoss()) throw error;
    }
    for (client = null; client === null && !isOver(); ) {
      client = await again(life).catch(() => null);
      if (client === null) await pause(RECONNECT_MILLIS);
    }
  }
  client?.close();
}

/**
 * Runs the load to its end. Throws LabError when a request is not answered for a minute, or a connection is lost and
 * the clients are not told to connect again.
 */
export async function runLoad(load: Load): Promise<LoadResult> {
  const result: LoadResult = { counts: new Map(), holdings: [], losses: [] };
  const marks = new Marks();
  const connected: LoadClient[] = [];
  for (let index = 0; index < load.clients; index++) {
    connected.push(await LoadClient.connect(index, 0, load, result, marks));
  }
  load.onConnected?.();
  const until = Date.now() + (load.seconds ?? Infinity) * 1000;
  const isOver = () => Date.now() >= until || load.isOver?.() === true;
  const again = (index: number) => (life: number) => LoadClient.connect(index, life, load, result, marks);
  const runs = connected.map((client, index) =>
    load.reconnects === true ? live(client, isOver, again(index)) : client.run(isOver),
  );
  const ends = await Promise.allSettled(runs);
  const broken = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as Error] : []));
  if (broken[0]) throw broken[0];
  return result;
}
