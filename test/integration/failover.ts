/**
 * What the tests of failures share: ways for a server to be lost, and files that clients of all servers use in all the
 * ways that must survive it.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { processesIn, signalAll } from '../../src/lab/network.js';
import { isAlive } from '../../src/lab/processes.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { forgetTheEnd } from './kill-daemon.js';

/** A lost server is noticed after 300 ms; a busy machine takes its time. */
export const TAKEN_OVER_MILLIS_MAX = 10_000;
/** Until a daemon ended that learned that its run is over, and all its smbds with it. */
const END_MILLIS_MAX = 20_000;
/** A run that has just begun may be missed by the others on a busy machine, several times. */
const STARTS_MAX = 6;
/** RestartSec of packaging/smbpoold.service. */
const RESTART_MILLIS = 1000;
const UNRELATED_FILES = 20;
/** Between two tries to open what the lost server had. */
const TRY_MILLIS = 10;

/** An open that excludes all others. */
export const MINE: OpenRequest = { access: ['read', 'write'], share: '', disposition: 'open_if' };

/** One client of each of these servers; they are closed afterwards. */
export async function withClients(
  places: readonly ServerPlace[],
  work: (clients: SmbClient[]) => Promise<void>,
): Promise<void> {
  const clients: SmbClient[] = [];
  try {
    clients.push(...(await Promise.all(places.map(({ address }) => SmbClient.connect(address)))));
    await work(clients);
  } finally {
    for (const client of clients) client.close();
  }
}

export function others(lab: Lab, place: ServerPlace): ServerPlace[] {
  return lab.servers().filter(({ id }) => id !== place.id);
}

export interface ToldView {
  epoch: number;
  leader: number;
  members: number[];
}

/** Seconds of the machine-wide clock, as in the answers of the clients. */
export function machineSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

export const millis = (seconds: number): number => Math.round(seconds * 1000);

interface LogLine extends Partial<ToldView> {
  msg: string;
  level: string;
  reason?: string;
}

/** What the server's daemons logged, this run's and those before. */
export function logLines(place: ServerPlace): LogLine[] {
  const lines = readFileSync(place.daemonLog, 'utf8').split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as LogLine);
}

/** The newest view that the daemons of these servers logged. */
export function newestView(places: readonly ServerPlace[]): ToldView {
  const views = places.flatMap((place) => logLines(place).filter(({ msg }) => msg === 'view')) as ToldView[];
  const newest = views.sort((a, b) => b.epoch - a.epoch)[0];
  assert.ok(newest, 'no server logged a view');
  return newest;
}

/** The server that leads, or one that does not. */
export function serverThat(lab: Lab, leads: boolean): ServerPlace {
  const { leader, members } = newestView(lab.servers());
  const id = leads ? leader : members.find((member) => member !== leader);
  return lab.server(id ?? -1);
}

/** Everything on the server ends at once. Answers when; `gone` waits until it may be started again. */
export async function killServer(place: ServerPlace): Promise<{ at: number; gone: () => Promise<void> }> {
  // looked up first: it takes longer than the rest
  const pids = await processesIn(place.namespace);
  const at = machineSeconds();
  signalAll(pids, 'SIGKILL');
  const areGone = async () => {
    return ![...pids, ...(await processesIn(place.namespace))].some((pid) => existsSync(`/proc/${pid}`));
  };
  const gone = async () => {
    assert.ok(await waitUntil(areGone, END_MILLIS_MAX, 50), `processes of ${place.name} do not end`);
    forgetTheEnd(place);
  };
  return { at, gone };
}

/** The daemon noticed that its run is over: it ends, says why, and its smbds end with it. */
export async function assertRunEnds(lab: Lab, place: ServerPlace): Promise<void> {
  const daemon = lab.process('smbpoold', place.id);
  assert.ok(daemon);
  const pids = await ownProcesses(lab, place);
  assert.ok(await waitUntil(() => !isAlive(daemon), END_MILLIS_MAX, 20), `the run of ${place.name} does not end`);
  assert.ok(startsAnew(place), `${place.name} does not say why it ends`);
  assert.ok(await waitUntil(() => lab.endOf(daemon) !== null, END_MILLIS_MAX, 20));
  assert.equal(lab.endOf(daemon), 1);
  await smbdsEnd(place, pids);
}

/** Whether the last thing that its daemon logged is that its run is over. */
function startsAnew(place: ServerPlace): boolean {
  // what was said before is summed up at the very end
  const last = logLines(place).findLast(({ msg }) => !msg.startsWith('said before'));
  return last?.msg === 'starting anew' && /without this run|gave this run up/.test(last.reason ?? '');
}

/** Of the daemon and its smbds: an etcd beside them lives on. */
async function ownProcesses(lab: Lab, place: ServerPlace): Promise<number[]> {
  const etcd = lab.process('etcd', place.id)?.pid;
  return (await processesIn(place.namespace)).filter((pid) => pid !== etcd);
}

async function smbdsEnd(place: ServerPlace, pids: readonly number[]): Promise<void> {
  const areGone = () => !pids.some((pid) => existsSync(`/proc/${pid}`));
  assert.ok(await waitUntil(areGone, END_MILLIS_MAX, 50), `smbds of ${place.name} go on without their daemon`);
  forgetTheEnd(place);
}

/**
 * systemd's part after the end of a run, and that the server joins. On a busy machine the others may miss a run that
 * has just begun; then it is started once more, as systemd would.
 */
export async function startAgain(lab: Lab, place: ServerPlace): Promise<void> {
  const before = machineSeconds();
  for (let start = 1; ; start++) {
    try {
      await lab.startAgain(place);
      break;
    } catch (error) {
      if (start === STARTS_MAX || !startsAnew(place)) throw error;
      process.stdout.write(`  ${place.name} was lost while it started\n`);
      await smbdsEnd(place, await ownProcesses(lab, place));
      await pause(RESTART_MILLIS);
    }
  }
  const { members } = newestView([place]);
  assert.ok(members.includes(place.id ?? -1));
  process.stdout.write(`  ${place.name} serves again ${millis(machineSeconds() - before)} ms after its start\n`);
}

/** Opens the file again and again until it succeeds; the seconds from `since` until then. */
export async function firstOpen(client: SmbClient, path: string, since: number, how: OpenRequest): Promise<number> {
  for (;;) {
    const answer = await client.open(path, how);
    if (answer.status === 'OK') {
      await client.closeHandle(answer.handle ?? 0);
      return answer.at - since;
    }
    const tookMillis = millis(answer.at - since);
    assert.ok(tookMillis < TAKEN_OVER_MILLIS_MAX, `${path} is refused with ${answer.status} after ${tookMillis} ms`);
    await pause(TRY_MILLIS);
  }
}

/** Opens and closes files that nobody else uses, without a pause; remembers the longest. */
export class Unrelated {
  private longest = 0;
  private count = 0;
  private isOver = false;
  private readonly done: Promise<void>;

  private constructor(private readonly client: SmbClient, private readonly prefix: string) {
    this.done = this.work();
    // seen by stop() in any case
    this.done.catch(() => undefined);
  }

  /**
   * Begins, and waits until each file was used once: a file that nobody in the pool has used lately is asked for at its
   * home, which may be the server that is lost.
   */
  static async begin(client: SmbClient, prefix: string): Promise<Unrelated> {
    const unrelated = new Unrelated(client, prefix);
    const isUsed = () => unrelated.count > UNRELATED_FILES;
    await Promise.race([unrelated.done, waitUntil(isUsed, TAKEN_OVER_MILLIS_MAX, 5)]);
    assert.ok(isUsed(), `${prefix}: only ${unrelated.count} opens`);
    unrelated.longest = 0;
    return unrelated;
  }

  private async work(): Promise<void> {
    while (!this.isOver) {
      const path = `${this.prefix}-${this.count % UNRELATED_FILES}`;
      const answer = await this.client.mustOpen(path, { share: '', disposition: 'open_if', access: ['read', 'write'] });
      this.longest = Math.max(this.longest, answer.at - answer.sent);
      const closed = await this.client.closeHandle(answer.handle);
      this.longest = Math.max(this.longest, closed.at - closed.sent);
      this.count++;
    }
  }

  /** The longest open or close, in seconds. */
  async stop(): Promise<number> {
    this.isOver = true;
    await this.done;
    assert.ok(this.count > 0);
    return this.longest;
  }
}

/** Opens and closes what others hold, compatibly, so that its records come here all the time; until it is lost. */
export async function touch(client: SmbClient, paths: readonly string[], next: () => number): Promise<void> {
  try {
    for (;;) {
      const path = paths[next() % paths.length] ?? '';
      const answer = await client.open(path, { access: ['read'], share: 'rwd' });
      if (answer.handle !== undefined) await client.closeHandle(answer.handle);
    }
  } catch {
    // its server was lost
  }
}

export function assertStatus(answer: Answer, expected: string, what: string): void {
  assert.equal(answer.status, expected, `${what}, answered after ${millis(answer.at - answer.sent)} ms`);
}

/** Files that a client of a healthy server holds in all ways, and some that only a client of the victim holds. */
export class HeldFiles {
  private readonly handles = new Map<string, number>();
  readonly shared: string[] = [];
  private readonly breaksOf = new Set<number>();

  private constructor(
    private readonly prefix: string,
    /** Of each kind: so many that every server is home of some. */
    private readonly count: number,
    private readonly holder: SmbClient,
    private readonly victim: SmbClient,
  ) {
    holder.onBreak = ({ handle }) => {
      if (handle !== null) this.breaksOf.add(handle);
    };
  }

  private names(kind: string): string[] {
    return Array.from({ length: this.count }, (_, index) => `${this.prefix}-${kind}-${index}`);
  }

  /** Everything is held, and what can be was used last through the victim. */
  static async hold(prefix: string, count: number, holder: SmbClient, victim: SmbClient): Promise<HeldFiles> {
    const files = new HeldFiles(prefix, count, holder, victim);
    for (const name of files.names('deny')) {
      await files.keep(name, { access: ['read', 'write'], share: 'r' });
    }
    for (const name of files.names('lock')) {
      const handle = await files.keep(name, { access: ['read', 'write'], share: 'rwd' });
      assertStatus(await holder.lock(handle, { offset: 0, length: 10, exclusive: true }), 'OK', name);
    }
    // a lease that the victim's open does not break, an oplock that it would
    for (const name of files.names('lease')) await files.keep(name, { access: ['read'], share: 'rwd', lease: 'RH' });
    for (const name of files.names('oplock')) {
      await files.keep(name, { access: ['read', 'write'], share: 'rwd', oplock: 'batch' });
    }
    for (const name of files.names('write-lease')) {
      await files.keep(name, { access: ['read', 'write'], share: 'rwd', lease: 'RWH' });
    }
    files.shared.push(...['deny', 'lock', 'lease'].flatMap((kind) => files.names(kind)));
    await files.useThroughVictim();
    return files;
  }

  private async keep(path: string, how: OpenRequest): Promise<number> {
    const { handle } = await this.holder.mustOpen(path, { disposition: 'open_if', ...how });
    this.handles.set(path, handle);
    return handle;
  }

  private async useThroughVictim(): Promise<void> {
    const { victim } = this;
    const half = (names: readonly string[]) => names.filter((_, index) => index % 2 === 0);
    for (const name of this.names('deny')) {
      const { handle } = await victim.mustOpen(name, { access: ['read'], share: 'rwd' });
      if (!half(this.names('deny')).includes(name)) await victim.closeHandle(handle);
    }
    for (const name of this.names('lock')) {
      const { handle } = await victim.mustOpen(name, { access: ['read', 'write'], share: 'rwd' });
      assertStatus(await victim.lock(handle, { offset: 20, length: 10, exclusive: true }), 'OK', name);
    }
    for (const name of this.names('lease')) {
      const { handle } = await victim.mustOpen(name, { access: ['read'], share: 'rwd' });
      if (half(this.names('lease')).includes(name)) await victim.closeHandle(handle);
    }
    for (const name of this.names('dead')) {
      await victim.mustOpen(name, { access: ['read', 'write'], share: '', disposition: 'open_if', oplock: 'batch' });
    }
  }

  /** Only the victim's client holds it, with deny. */
  get onlyVictims(): string {
    return this.names('dead')[0] ?? '';
  }

  /** All that the holder had still counts, and nothing of the victim's client does. */
  async assertHeld(other: SmbClient, since: number): Promise<void> {
    for (const name of this.names('dead')) {
      await firstOpen(other, name, since, { access: ['read', 'write'], share: '' });
    }
    await this.assertExcludes(other);
    for (const name of this.names('lease')) await this.assertBreaks(other, name, { disposition: 'overwrite' });
    for (const name of this.names('oplock')) await this.assertBreaks(other, name, {});
    for (const name of this.names('write-lease')) await this.assertBreaks(other, name, {});
    // they are empty
    for (const [name, handle] of this.handles) assertStatus(await this.holder.read(handle, 1), 'END_OF_FILE', name);
  }

  /** What can be asked again and again: share modes and locks. */
  async assertExcludes(other: SmbClient): Promise<void> {
    for (const name of this.names('deny')) {
      assertStatus(await other.open(name, { access: ['write'], share: 'rwd' }), 'SHARING_VIOLATION', name);
      const reading = await other.mustOpen(name, { access: ['read'], share: 'wr' });
      await other.closeHandle(reading.handle);
    }
    for (const name of this.names('lock')) await this.assertLocked(other, name);
  }

  private async assertLocked(other: SmbClient, name: string): Promise<void> {
    const { handle } = await other.mustOpen(name, { access: ['read', 'write'], share: 'rwd' });
    const lock = (offset: number) => other.lock(handle, { offset, length: 10, exclusive: true });
    assertStatus(await lock(0), 'LOCK_NOT_GRANTED', name);
    assertStatus(await lock(20), 'OK', `${name}, which a dead client locked`);
    await other.closeHandle(handle);
  }

  private async assertBreaks(other: SmbClient, name: string, how: OpenRequest): Promise<void> {
    const handle = this.handles.get(name) ?? -1;
    assert.ok(!this.breaksOf.has(handle), `${name} was broken before`);
    const opened = await other.mustOpen(name, { access: ['read', 'write'], share: 'rwd', ...how });
    const isTold = () => this.breaksOf.has(handle);
    assert.ok(await waitUntil(isTold, TAKEN_OVER_MILLIS_MAX, 5), `the holder of ${name} was not told`);
    await other.closeHandle(opened.handle);
  }

  /** The holder gives everything up. */
  async release(): Promise<void> {
    for (const handle of this.handles.values()) await this.holder.closeHandle(handle);
    this.handles.clear();
  }
}
