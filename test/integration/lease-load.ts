/**
 * Random load of clients that cache under leases and oplocks (lease-load-client.ts), on all servers, over a few files.
 * One client at a time writes to a file; the others open, read, hold, open again and close it as they like, most of all
 * while it is being written. Seeded; what the servers' timing adds is not.
 *
 * When a writer's turn is over, nobody writes to that file until all caches of it were judged: each must be what was
 * last written, or be told by a break. smbd answers a writer before it has told the readers, so a cache may be old for
 * a moment. One that nobody told within BREAK_MILLIS_MAX, without anybody writing, stays old for ever: that is the
 * error looked for. A client whose cache is old does not close the file by itself before it was judged.
 */
import { Prng } from '../../src/base/prng.js';
import type { OpenRequest } from '../../src/lab/smb-client.js';
import { pause } from '../../src/lab/run.js';
import type { Cached, LeaseLoadCounts } from './lease-load-client.js';
import { CachingClient, FileTruth } from './lease-load-client.js';

/** Few, so that the clients meet. Every second one is of the kind whose pages clients keep. */
const FILES = 6;
/** A writer holds its lease so long before it writes: others come meanwhile. */
const HOLD_MILLIS_MAX = 12;
/** A change is kept to the client so long, unless the write lease is broken before. */
const DIRTY_MILLIS_MAX = 30;
/**
 * Breaks arrive within a few milliseconds. Also so long that no two turns of writers fall into one tick of the kernel's
 * clock for files (4 ms): smbd tells such a time for a moment, and clients keep their pages by it.
 */
const BREAK_MILLIS_USUAL = 15;
/** Whoever was not told then, on however busy a machine, was forgotten. Costs nothing while all are told. */
const BREAK_MILLIS_MAX = 10_000;
const LOOK_AGAIN_MILLIS = 10;
/** Who is not told after so long is looked at while it lasts: no break takes so long, and what led to it is fresh. */
const LOOK_CLOSER_MILLIS = 1_500;
/** How many visits end with the file closed: a write lease is granted only when nobody else has it open. */
const LEAVING = 0.85;
const PADDING_MAX = 9;
/** A report tells so many entries of a file's story before the last write and after it, and all of the client's own. */
const STORY_BEFORE = 80;
const STORY_AFTER = 20;
const VERSIONS_MAX = 3;

export interface LeaseLoadPlan {
  addresses: readonly string[];
  clients: number;
  seconds: number;
  seed: number;
  /** What the servers know of a file whose caches stay old, in words; asked while they do. */
  lookCloser(file: string): Promise<string>;
}

export interface LeaseLoadResult {
  counts: LeaseLoadCounts;
  /** Caches that stayed old, in words. */
  stale: string[];
}

/** One file of the load, and who is at it. */
class SharedFile {
  readonly truth: FileTruth;
  /** From the beginning of a writer's turn until its judgement. */
  isTaken = false;
  isWritten = false;
  /** Opens and reads under way. */
  readonly visits = new Set<Promise<void>>();
  judging: Promise<void> = Promise.resolve();

  constructor(index: number) {
    this.truth = new FileTruth(`cached-${index}.txt`, index % 2 === 0);
  }

  /** Counts `work` as under way until it ends. */
  async during(work: Promise<void>): Promise<void> {
    this.visits.add(work);
    try {
      await work;
    } finally {
      this.visits.delete(work);
    }
  }
}

class LeaseLoad {
  readonly files = Array.from({ length: FILES }, (_, index) => new SharedFile(index));
  private failed = false;

  constructor(
    private readonly clients: readonly CachingClient[],
    private readonly result: LeaseLoadResult,
    private readonly end: number,
    private readonly lookCloser: (file: string) => Promise<string>,
  ) {}

  private isOver(): boolean {
    return this.failed || this.result.stale.length > 0 || Date.now() > this.end;
  }

  async run(client: CachingClient, prng: Prng): Promise<void> {
    try {
      while (!this.isOver()) {
        client.check();
        const file = this.choose(prng);
        if (!file.isTaken && prng.chance(0.3)) await this.writeTurn(client, file, prng);
        else await this.visit(client, file, prng);
      }
      for (const { truth } of this.files) await this.close(client.of(truth));
      client.check();
    } catch (error) {
      this.failed = true;
      throw error;
    }
  }

  private choose(prng: Prng): SharedFile {
    const written = this.files.filter((file) => file.isWritten);
    return written.length > 0 && prng.chance(0.4) ? prng.pick(written) : prng.pick(this.files);
  }

  /** Reads, or opens and reads; then holds the file, until another visit, or closes it. */
  private async visit(client: CachingClient, file: SharedFile, prng: Prng): Promise<void> {
    const cached = client.of(file.truth);
    if (cached.handles.length > 0 && prng.chance(0.3)) return file.during(client.read(cached));
    const how = readerOpens(prng);
    // a client that has the file open under its lease may open it once more under the same
    const isSecond = cached.isLease && how.lease !== undefined && prng.chance(0.4);
    if (!isSecond) await this.close(cached);
    await file.during(client.open(cached, how).then(() => (prng.chance(0.9) ? client.read(cached) : undefined)));
    if (isSecond) await client.closeOlder(cached);
    if (prng.chance(LEAVING)) await this.close(cached);
  }

  /** Not while it goes by something old: then it must be told, or judged. */
  private async close(cached: Cached): Promise<void> {
    while (CachingClient.isOld(cached) && !this.failed && this.result.stale.length === 0) {
      await pause(LOOK_AGAIN_MILLIS);
    }
    if (cached.handles.length > 0) await cached.client.close(cached);
  }

  private async writeTurn(client: CachingClient, file: SharedFile, prng: Prng): Promise<void> {
    file.isTaken = true;
    const cached = client.of(file.truth);
    const how = writerOpens(file.truth, prng);
    if (!cached.isLease || how.lease === undefined || prng.chance(0.7)) await this.close(cached);
    await client.open(cached, how);
    if (how.disposition === 'overwrite_if') client.changed(cached, '');
    if (cached.handles.length > 1) await client.closeOlder(cached);
    file.isWritten = true;
    if (prng.chance(0.8)) await pause(prng.below(HOLD_MILLIS_MAX));
    for (let versions = 1 + prng.below(VERSIONS_MAX); versions > 0; versions--) await change(cached, prng);
    const closing = prng.chance(0.8) ? this.close(cached) : Promise.resolve();
    file.isWritten = false;
    file.judging = this.judge(file, closing).finally(() => (file.isTaken = false));
    await closing;
  }

  /** Nobody writes now: whoever reads from a cache must read what was written last, or hear that it is old. */
  private async judge(file: SharedFile, closing: Promise<void>): Promise<void> {
    // who opened it while it was written may have the answer, or what it fetched, still to come
    await Promise.allSettled([closing, ...file.visits]);
    await pause(BREAK_MILLIS_USUAL);
    let old = this.whoIsOld(file);
    if (old.length > 0) this.result.counts.late++;
    const begin = performance.now();
    let seen = '';
    while (old.length > 0 && performance.now() - begin < BREAK_MILLIS_MAX && !this.failed) {
      await pause(LOOK_AGAIN_MILLIS);
      if (seen === '' && performance.now() - begin > LOOK_CLOSER_MILLIS) seen = await this.lookCloser(file.truth.name);
      old = this.whoIsOld(file);
    }
    this.result.counts.judged++;
    if (!this.failed) this.result.stale.push(...old.map((cached) => `${report(cached)}\n${seen}`));
  }

  private whoIsOld({ truth }: SharedFile): Cached[] {
    return this.clients.map((client) => client.of(truth)).filter((cached) => CachingClient.isOld(cached));
  }
}

function report({ truth, client, size, text }: Cached): string {
  const has = text === null ? `${size} bytes` : JSON.stringify(text);
  const what = `${truth.name} is ${JSON.stringify(truth.text)}; client ${client.name} goes by ${has}`;
  // what led to it is before the last write; afterwards the others go on reading
  const last = truth.story.findLastIndex(({ isWrite }) => isWrite);
  const around = truth.story.filter((entry, at) =>
    entry.client === client.name || (at > last - STORY_BEFORE && at < last + STORY_AFTER));
  return [what, ...around.map((entry) => entry.text)].join('\n');
}

function readerOpens(prng: Prng): OpenRequest {
  const how: OpenRequest = { access: ['read'], disposition: 'open' };
  if (prng.chance(0.8)) return { ...how, lease: prng.pick(['R', 'RH', 'RWH']) };
  return { ...how, oplock: prng.pick(['level2', 'exclusive', 'batch']) };
}

function writerOpens({ keepsPages }: FileTruth, prng: Prng): OpenRequest {
  const how: OpenRequest = { disposition: !keepsPages && prng.chance(0.4) ? 'overwrite_if' : 'open' };
  const dice = prng.below(10);
  if (dice < 8) return { ...how, lease: prng.pick(['RWH', 'RWH', 'RWH', 'RH']) };
  return dice < 9 ? { ...how, oplock: prng.pick(['exclusive', 'batch']) } : how;
}

/** One new content, mostly as long as the one before, so that the size tells nothing. */
async function change(cached: Cached, prng: Prng): Promise<void> {
  const { client, truth } = cached;
  if (prng.chance(0.1)) return client.replace(cached, '');
  const text = truth.next(prng.chance(0.3) ? prng.below(PADDING_MAX) : 0);
  if (cached.canWrite && prng.chance(0.6)) {
    client.keep(cached, text);
    await pause(prng.below(DIRTY_MILLIS_MAX));
    return client.flush(cached);
  }
  const isInPlace = !truth.keepsPages && truth.text.length <= text.length && prng.chance(0.5);
  return isInPlace ? client.write(cached, text) : client.replace(cached, text);
}

/** Runs the load; ends early when a cache is found that stays old. Throws when a request fails. */
export async function runLeaseLoad(plan: LeaseLoadPlan): Promise<LeaseLoadResult> {
  const counts: LeaseLoadCounts = {
    opens: 0, grants: 0, fetches: 0, hits: 0, reuses: 0, writes: 0, flushes: 0, breaks: 0, judged: 0, late: 0,
  };
  const result: LeaseLoadResult = { counts, stale: [] };
  const clients: CachingClient[] = [];
  try {
    for (let index = 0; index < plan.clients; index++) {
      const server = index % plan.addresses.length;
      clients.push(await CachingClient.connect(`${index} at ${server}`, plan.addresses[server] ?? '', counts));
    }
    const load = new LeaseLoad(clients, result, Date.now() + plan.seconds * 1000, plan.lookCloser);
    for (const { truth } of load.files) {
      const made = await clients[0]?.smb.mustOpen(truth.name);
      if (made) await clients[0]?.smb.closeHandle(made.handle);
    }
    const runs = clients.map((client, index) => load.run(client, new Prng(plan.seed + index)));
    const ends = await Promise.allSettled(runs);
    await Promise.all(load.files.map((file) => file.judging));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  } finally {
    for (const { smb } of clients) smb.close();
  }
  return result;
}
