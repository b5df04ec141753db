/**
 * What the loss of a server with many records costs: some server owns RECORDS records whose backups the two others
 * keep, and everything on it is killed. From when on does whoever asks for one of them get it at once, when are all of
 * them in the files of their new owners, when has another server a backup of each again, and how long do opens of other
 * files on the survivors take meanwhile, beside what they took before: of files that are in use there, and of new
 * files, of which a third has its home at the lost server, and is made when there is a view without it. `node
 * dist/bench/recovery.js [RECORDS] [ROUNDS]`, as root, on a lab of three. The records are made and asked for by clients
 * that speak to smbpoold as smbd does; opens are real ones. Leaves nothing behind.
 */
import { chmodSync, constants, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { askDaemon, daemonStatus } from '../src/lab/admin.js';
import { LabError, messageOf } from '../src/lab/errors.js';
import { Lab } from '../src/lab/lab.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { processesIn, signalAll } from '../src/lab/network.js';
import { labOptions } from '../src/lab/options.js';
import { pause, waitUntil } from '../src/lab/run.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { SmbClient } from '../src/lab/smb-client.js';
import { loadNative } from '../src/host/native.js';
import { VOLATILE_FLAGS, VOLATILE_HASH_SIZE } from '../src/host/record-store.js';
import { CONTROL } from '../src/wire/ctdb-controls.js';
import type { CtdbBody, CtdbPacket } from '../src/wire/ctdb.js';
import { CALL_ID, decodeCtdbPacket, encodeCtdb, nameBytes } from '../src/wire/ctdb.js';
import { ADMIN_PATH } from '../src/ports/admin.js';
import type { FailoverStep, FailoversReport } from '../src/wire/failovers.js';
import { RECORD_HEADER_BYTES } from '../src/wire/record-header.js';

const ROOT = '/tmp/smbpool-recovery';
const DATABASE = 'bench_recovery.tdb';
const RECORDS_DEFAULT = 100_000;
const ROUNDS_DEFAULT = 3;
/** As long as a share mode record with one entry. */
const PAYLOAD_BYTES = 250;
const AT_ONCE = 256;
const CHAIN_SECONDS_MAX = 1;
const BEFORE_MILLIS = 10_000;
const BACK_MILLIS_MAX = 60_000;
/** Between two looks at the survivors' counters. */
const LOOK_MILLIS = 50;
/** Between the answer to one ask and the next. */
const ASK_MILLIS = 2;
/** No backup was made anew for so long: all are. */
const QUIET_SECONDS = 1;
const FILES = 20;
/** Opens that take longer are listed. */
const SLOW_SECONDS = 0.05;
const SHOWN_STEPS: readonly FailoverStep[] = ['installed', 'settled', 'claims-sent', 'recovered'];

const seconds = (): number => Number(process.hrtime.bigint()) / 1e9;

/** A connection to smbpoold that asks for many records at once. */
class Asker {
  private received = Buffer.alloc(0);
  private readonly waiting = new Map<number, (reply: CtdbPacket) => void>();
  private lastRequest = 0;
  private database = 0;
  private path = '';

  private constructor(private readonly socket: Socket) {
    socket.on('data', (bytes: Buffer) => this.take(bytes));
  }

  static async connect({ socket: path }: ServerPlace): Promise<Asker> {
    const asker = await new Promise<Asker>((resolve, reject) => {
      const socket = connect(path, () => resolve(new Asker(socket)));
      socket.once('error', reject);
    });
    asker.database = (await asker.control(CONTROL.databaseAttach, nameBytes(DATABASE))).readUInt32LE(0);
    const id = Buffer.alloc(4);
    id.writeUInt32LE(asker.database);
    asker.path = (await asker.control(CONTROL.getDatabasePath, id)).toString('utf8').replace('\0', '');
    return asker;
  }

  private take(bytes: Buffer): void {
    this.received = Buffer.concat([this.received, bytes]);
    for (;;) {
      const length = this.received.length < 4 ? Infinity : this.received.readUInt32LE(0);
      if (this.received.length < length) return;
      const reply = decodeCtdbPacket(this.received.subarray(0, length));
      this.received = this.received.subarray(length);
      this.waiting.get(reply.requestId)?.(reply);
      this.waiting.delete(reply.requestId);
    }
  }

  private request(body: CtdbBody): Promise<CtdbPacket> {
    const requestId = ++this.lastRequest;
    const packet = encodeCtdb({ generation: 1, destination: 0xf000_0001, source: 0, requestId }, body, true);
    return new Promise((resolve) => {
      this.waiting.set(requestId, resolve);
      this.socket.write(packet);
    });
  }

  private async control(opcode: number, data: Uint8Array): Promise<Buffer> {
    const reply = await this.request({ kind: 'request-control', opcode, srvid: 0n, clientId: 0, flags: 0, data });
    if (reply.kind !== 'reply-control' || reply.status !== 0) throw new LabError(`control ${opcode} failed`);
    return Buffer.from(reply.data);
  }

  /** Makes this server the owner of all of them. */
  async own(keys: readonly Buffer[]): Promise<void> {
    const { database } = this;
    const call = { kind: 'request-call', flags: 1, database, callId: CALL_ID.migrate, hopCount: 0 } as const;
    for (let at = 0; at < keys.length; at += AT_ONCE) {
      const some = keys.slice(at, at + AT_ONCE);
      const replies = await Promise.all(some.map((key) => this.request({ ...call, key, data: new Uint8Array() })));
      const refused = replies.find((reply) => reply.kind !== 'reply-call' || reply.status !== 0);
      if (refused !== undefined) throw new LabError(`a record was refused: ${JSON.stringify(refused)}`);
    }
  }

  /** The same, with content: records that stay empty are deleted after a second. */
  async ownFilled(keys: readonly Buffer[], owner: number): Promise<void> {
    for (let at = 0; at < keys.length; at += AT_ONCE) {
      const some = keys.slice(at, at + AT_ONCE);
      await this.own(some);
      this.fill(some, owner);
    }
  }

  private fill(keys: readonly Buffer[], owner: number): void {
    const { Tdb } = loadNative();
    const flags = { tdbFlags: VOLATILE_FLAGS, openFlags: constants.O_RDWR };
    const options = { hashSize: VOLATILE_HASH_SIZE, ...flags, mode: 0o600 };
    const tdb = new Tdb(this.path, options);
    for (const key of keys) {
      // smbpoold may hold it for a moment, for another key
      const until = seconds() + CHAIN_SECONDS_MAX;
      while (!tdb.chainlockNonblock(key)) {
        if (seconds() > until) throw new LabError('a chain of the benchmark is locked');
      }
      const header = tdb.fetch(key);
      const came = header === null ? 'nobody' : `server ${header.readUInt32LE(8)}`;
      if (header === null || came !== `server ${owner}`) throw new LabError(`a record belongs to ${came}`);
      tdb.store(key, Buffer.concat([header.subarray(0, RECORD_HEADER_BYTES), Buffer.alloc(PAYLOAD_BYTES, 7)]));
      tdb.chainunlock(key);
    }
    tdb.close();
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Does one thing after the other until it is stopped, and notes how long each took. */
class Samples {
  private readonly samples: { at: number; took: number }[] = [];
  private isOver = false;
  private readonly done: Promise<void>;

  /** @param work answers when it began and when it was done, in seconds */
  constructor(private readonly work: (count: number) => Promise<{ sent: number; at: number }>) {
    this.done = this.run();
    this.done.catch(() => undefined);
  }

  private async run(): Promise<void> {
    for (let i = 0; !this.isOver; i++) {
      const { sent, at } = await this.work(i);
      this.samples.push({ at, took: at - sent });
    }
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await this.done;
  }

  /** When those that took more than SLOW_SECONDS were sent, and how long they took. */
  slow(from: number, until: number): [number, number][] {
    const found = this.samples.filter(({ at, took }) => at >= from && at < until && took > SLOW_SECONDS);
    return found.map(({ at, took }) => [at - took, took]);
  }

  between(from: number, until: number): number[] {
    return this.samples.filter(({ at }) => at >= from && at < until).map(({ took }) => took);
  }

  /** When the first was done. */
  firstAt(): number {
    return this.samples[0]?.at ?? NaN;
  }

  /** What was begun from then on, and done before `until`. */
  begunSince(from: number, until: number): number[] {
    return this.samples.filter(({ at, took }) => at - took >= from && at < until).map(({ took }) => took);
  }
}

/** Opens and closes one after the other of so many files. */
function opens(client: SmbClient, prefix: string, files: number): Samples {
  return new Samples(async (count) => {
    const { handle, sent, at } = await client.mustOpen(`${prefix}-${count % files}`, { disposition: 'open_if' });
    await client.closeHandle(handle);
    return { sent, at };
  });
}

/** The same of files that another handle keeps open. */
async function opensInUse(client: SmbClient, prefix: string): Promise<Samples> {
  for (let i = 0; i < FILES; i++) await client.mustOpen(`${prefix}-${i}`, { disposition: 'open_if' });
  return opens(client, prefix, FILES);
}

/** Asks for one record after the other, each once; then, if all are had, again. */
function asks(asker: Asker, keys: readonly Buffer[]): Samples {
  return new Samples(async (count) => {
    const sent = seconds();
    await asker.own([keys[count % keys.length]!]);
    const at = seconds();
    await pause(ASK_MILLIS);
    return { sent, at };
  });
}

/** Of the daemon of a server: processor time of all its threads so far, in milliseconds. */
async function processorMillis({ adminSocket }: ServerPlace): Promise<number> {
  const pid = (await daemonStatus(adminSocket))?.pid;
  if (pid === undefined) throw new LabError(`nobody answers at ${adminSocket}`);
  const threads = readdirSync(`/proc/${pid}/task`);
  const nanos = threads.map((id) => Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'utf8').split(' ')[0]));
  return nanos.reduce((sum, one) => sum + one, 0) / 1e6;
}

/** When a survivor came to the steps of the view without the victim, in milliseconds since the fault. */
async function stepsOf(place: ServerPlace, victim: number, faultAt: number): Promise<Map<FailoverStep, number>> {
  const report = (await askDaemon(place.adminSocket, ADMIN_PATH.failovers)) as FailoversReport | null;
  const change = report?.events.findLast((event) => event.kind === 'view' && event.left.includes(victim));
  if (change?.kind !== 'view') throw new LabError(`server ${place.id} does not tell of the view without ${victim}`);
  const told = change.steps.filter(({ what }) => SHOWN_STEPS.includes(what));
  return new Map(told.map(({ what, atMicros }) => [what, atMicros / 1000 - faultAt]));
}

interface Round {
  /** Of each survivor. */
  steps: ReadonlyMap<FailoverStep, number>[];
  /** Of each survivor's daemon until all records were back, without what it needed for the opens before. */
  processorMillis: number[];
  /** From the fault until each survivor had the first of the records that it asked for, one after the other. */
  millisToFirst: number;
  /** What was asked for from then on until all were back: seconds. */
  asked: number[];
  /** Until all claims were in everywhere. */
  millisToClaims: number;
  /** Until all are in the files of their new owners. */
  millisToAll: number;
  /** Until another server keeps a backup of each. */
  millisToBackups: number;
  restored: number;
  lost: number;
  opens: { name: string; before: number[]; after: number[]; then: number[]; slow: string }[];
}

async function counters(places: readonly ServerPlace[], name: string): Promise<number> {
  const all = await Promise.all(places.map(({ adminSocket }) => daemonStatus(adminSocket)));
  return all.reduce((sum, status) => sum + (status?.counters[name] ?? 0), 0);
}

/** Waits until no more backups are made anew, and returns when the last one was: in seconds. */
async function backupsStored(places: readonly ServerPlace[]): Promise<number> {
  let [stored, since] = [-1, seconds()];
  const isOver = async (): Promise<boolean> => {
    const now = await counters(places, 'record.backup.stored');
    if (now > stored) [stored, since] = [now, seconds()];
    return seconds() - since >= QUIET_SECONDS;
  };
  await waitUntil(isOver, BACK_MILLIS_MAX, LOOK_MILLIS);
  return since;
}

/** Every key once, none near the one before. */
function scattered(keys: readonly Buffer[], from: number): Buffer[] {
  let step = Math.floor(keys.length * 0.618) | 1;
  while (greatestDivisor(step, keys.length) > 1) step += 2;
  return keys.map((_, index) => keys[(from + index * step) % keys.length]!);
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}

async function loseOwner(lab: Lab, round: number, records: number): Promise<Round> {
  const victim = lab.server(round % lab.servers().length);
  const rest = lab.servers().filter(({ id }) => id !== victim.id);
  const keys = Array.from({ length: records }, (_, index) => Buffer.from(`round ${round} record ${index}`));
  const half = (which: number): Buffer[] => keys.filter((_, index) => index % rest.length === which);
  const owner = await Asker.connect(victim);
  const askers = await Promise.all(rest.map((place) => Asker.connect(place)));
  for (const [index, asker] of askers.entries()) {
    await asker.ownFilled(half(index), rest[index]!.id!);
  }
  await owner.own(keys);
  const connected = rest.flatMap(({ address }) => [SmbClient.connect(address), SmbClient.connect(address)]);
  const clients = await Promise.all(connected);
  try {
    const [used, fresh]: [Samples[], Samples[]] = [[], []];
    for (const [index, client] of clients.entries()) {
      // a folder that several servers work in has a record that moves between them
      const folder = join(lab.layout.share, `client-${index}`);
      mkdirSync(folder);
      chmodSync(folder, 0o777);
      if (index % 2 === 0) used.push(await opensInUse(client, `client-${index}/used`));
      else fresh.push(opens(client, `client-${index}/new`, Infinity));
    }
    const began = seconds();
    await pause(BEFORE_MILLIS / 2);
    const was = {
      restored: await counters(rest, 'record.restored'),
      lost: await counters(rest, 'record.lost.for-good'),
    };
    const pids = await processesIn(victim.namespace);
    const processor = (): Promise<number[]> => Promise.all(rest.map((place) => processorMillis(place)));
    const [usedBefore, usedAt] = [await processor(), seconds()];
    await pause(BEFORE_MILLIS / 2);
    const [usedNow, at, faultAt] = [await processor(), seconds(), Date.now()];
    signalAll(pids, 'SIGKILL');
    const asked = askers.map((asker, index) => asks(asker, scattered(keys, index)));
    const restored = async (): Promise<number> => (await counters(rest, 'record.restored')) - was.restored;
    await waitUntil(async () => (await restored()) >= records, BACK_MILLIS_MAX, LOOK_MILLIS);
    const backAt = seconds();
    const usedThen = await processor();
    const safeAt = await backupsStored(rest);
    const steps = await Promise.all(rest.map((place) => stepsOf(place, victim.id!, faultAt)));
    const ordinary = (backAt - at) / (at - usedAt);
    await Promise.all([...used, ...fresh, ...asked].map((one) => one.stop()));
    const millisToFirst = 1000 * (Math.max(...asked.map((one) => one.firstAt())) - at);
    const about = (name: string, some: readonly Samples[]): Round['opens'][number] => ({
      name,
      before: some.flatMap((one) => one.between(began + 1, at)),
      after: some.flatMap((one) => one.between(at, backAt)),
      then: some.flatMap((one) => one.between(backAt, safeAt)),
      slow: some.flatMap((one) => one.slow(at - 0.5, safeAt)).map(([sent, took]) =>
        `${((sent - at) * 1000).toFixed(0)}+${(took * 1000).toFixed(0)}`).join(' '),
    });
    return {
      steps,
      processorMillis: usedThen.map((millis, i) => millis - usedNow[i]! - ordinary * (usedNow[i]! - usedBefore[i]!)),
      millisToFirst,
      asked: asked.flatMap((one) => one.begunSince(at + millisToFirst / 1000, backAt)),
      millisToClaims: Math.max(...steps.map((one) => one.get('recovered') ?? NaN)),
      millisToAll: 1000 * (backAt - at),
      millisToBackups: 1000 * (safeAt - at),
      restored: await restored(),
      lost: (await counters(rest, 'record.lost.for-good')) - was.lost,
      opens: [about('in use', used), about('new', fresh)],
    };
  } finally {
    for (const client of clients) client.close();
    for (const asker of [owner, ...askers]) asker.close();
  }
}

const at = (samples: readonly number[], share: number): string => {
  const sorted = [...samples].sort((a, b) => a - b);
  return ((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN) * 1000).toFixed(1);
};

const tails = (all: readonly number[]): string =>
  `${[0.5, 0.99, 1].map((share) => at(all, share)).join(' / ')} (${all.length})`;

const whole = (millis: number): string => millis.toFixed(0);

const words = (steps: ReadonlyMap<FailoverStep, number>): string =>
  [...steps].map(([what, millis]) => `${what} ${millis.toFixed(0)}`).join(', ');

async function main(): Promise<void> {
  const [records = RECORDS_DEFAULT, rounds = ROUNDS_DEFAULT] = process.argv.slice(2).map(Number);
  if (!Number.isSafeInteger(records) || !Number.isSafeInteger(rounds) || records < 1 || rounds < 1) {
    throw new LabError('say how many records and how many rounds: whole numbers');
  }
  const load = loadavg()[0]!.toFixed(1);
  const head = [
    'round', 'first had (ms)', 'asked for then', 'all claimed (ms)', 'all back (ms)', 'with backups (ms)', 'back',
    'lost', 'processor (ms)', 'opens elsewhere', 'before', 'until all back', 'until all have backups',
  ];
  const steps: string[] = [];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (let round = 0; round < rounds; round++) {
    await cleaningUpOnSignal(
      async () => {
        const lab = await Lab.up(labOptions({ root: ROOT, fresh: true }));
        try {
          const { opens: elsewhere, ...told } = await loseOwner(lab, round, records);
          const { millisToFirst, millisToClaims, millisToAll, millisToBackups } = told;
          const [first, ...others] = [millisToFirst, millisToClaims, millisToAll, millisToBackups].map(whole);
          const times = [first, tails(told.asked), ...others];
          const processor = told.processorMillis.map((millis) => millis.toFixed(0)).join(' + ');
          for (const { name, before, after, then, slow } of elsewhere) {
            const numbers = [told.restored, told.lost, processor];
            table.push([round, ...times, ...numbers, name, ...[before, after, then].map(tails)]);
            steps.push(`round ${round}, opens of files ${name}, of more than ${1000 * SLOW_SECONDS} ms: ${slow}`);
          }
          steps.push(...told.steps.map((one) => `round ${round}, a survivor, ms since the fault: ${words(one)}`));
        } finally {
          await lab.down();
          lab.wipe();
        }
      },
      () => Lab.interrupt(),
    );
  }
  const machine = `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} processors, Linux ${release()}`;
  process.stdout.write(`${machine}, ${process.version}; ${records} records; load ${load} at the beginning;\n` +
    'opens and asks: p50 / p99 / longest in ms (how many)\n');
  process.stdout.write(`${table.toString()}\n${steps.join('\n')}\n`);
}

main().catch((error: unknown) => {
  console.error(`recovery: ${messageOf(error)}`);
  process.exitCode = 1;
});
