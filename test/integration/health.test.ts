/**
 * Fitness and draining on real smbds: a smbd that does not answer loses its addresses and has them back; a server is
 * drained under load, and all are restarted one after the other, without a failed operation of a client that connects
 * again when it has lost its connection. The figures go to the output.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { ask } from '../../src/cli/admin-client.js';
import { daemonFolders } from '../../src/lab/daemon-config.js';
import type { Lab } from '../../src/lab/lab.js';
import { publicAddress } from '../../src/lab/layout.js';
import { tryRun, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { ADMIN_PATH } from '../../src/ports/admin.js';
import type { AddressReport, ServerStatus, StatusReport } from '../../src/ports/status.js';
import type { FailoversReport } from '../../src/wire/failovers.js';
import { repositoryRoot } from '../support/repository.js';
import { forgetTheEnd, untilAllEnded } from './kill-daemon.js';
import { SKIP, withLab } from './pool.js';

const ADDRESSES = Array.from({ length: 6 }, (_, index) => publicAddress(index));
const COMMAND = join(repositoryRoot(), 'dist/src/cli/main.js');
/** An interval of 5 s, two runs of 5 s each, a second between: 16 s by the defaults, and a busy machine. */
const UNFIT_MILLIS_MAX = 30_000;
const BALANCE_MILLIS_MAX = 30_000;
const DRAIN_SECONDS = 60;
const END_MILLIS_MAX = 10_000;
/** A client tries so long to connect again; Python alone may need seconds on a busy machine. */
const RECONNECT_MILLIS_MAX = 60_000;

const seconds = (): number => Number(process.hrtime.bigint()) / 1e9;
const say = (what: string, since: number): void =>
  void process.stdout.write(`  ${what}: ${Math.round((seconds() - since) * 1000)} ms\n`);

/** How many addresses each server has by the table that the asked one knows; [-1]: some have none. */
async function counts(lab: Lab, asked: number): Promise<number[]> {
  const report = await ask<AddressReport[]>(lab.server(asked).adminSocket, ADMIN_PATH.addresses);
  if (report.some(({ holder }) => holder === null)) return [-1];
  return [0, 1, 2].map((id) => report.filter(({ holder }) => holder === id).length);
}

async function untilCounts(lab: Lab, asked: number, wanted: number[], millis: number): Promise<void> {
  const isSo = async () => (await counts(lab, asked)).join() === wanted.join();
  assert.ok(await waitUntil(isSo, millis, 50), `the addresses are at ${(await counts(lab, asked)).join()}`);
}

async function known(lab: Lab, asked: number, server: number): Promise<ServerStatus> {
  const { servers } = await ask<StatusReport>(lab.server(asked).adminSocket, ADMIN_PATH.status);
  return servers.find(({ id }) => id === server)!;
}

async function smbpool(lab: Lab, asked: number, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await tryRun(process.execPath, [
    COMMAND, ...args, '--socket', lab.server(asked).adminSocket,
  ]);
  assert.equal(status, 0, `smbpool ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** A client that works through one public address, and connects again when its connection is lost. */
class Worker {
  done = 0;
  reconnects = 0;
  readonly failed: string[] = [];
  private client: SmbClient | null = null;
  private ends = false;
  private readonly work: Promise<void>;

  constructor(
    private readonly address: string,
    private readonly number: number,
  ) {
    this.work = this.run();
  }

  async stop(): Promise<void> {
    this.ends = true;
    await this.work;
    this.client?.close();
  }

  private async run(): Promise<void> {
    while (!this.ends) {
      const client = (this.client ??= await this.connect());
      if (client === null) return;
      try {
        await this.operate(client);
        this.done += 1;
      } catch (error) {
        // only the end of the connection throws
        if (client.lostAt === null) this.failed.push(String(error));
        client.close();
        this.client = null;
        this.reconnects += 1;
      }
    }
  }

  private async connect(): Promise<SmbClient | null> {
    const until = seconds() + RECONNECT_MILLIS_MAX / 1000;
    for (let why = ''; ;) {
      try {
        return await SmbClient.connect(this.address);
      } catch (error) {
        why = String(error);
      }
      if (seconds() < until) continue;
      this.failed.push(`${this.address} cannot be connected to: ${why}`);
      return null;
    }
  }

  private async operate(client: SmbClient): Promise<void> {
    const path = `worker-${this.number}`;
    const text = `operation ${this.done}`;
    const { handle, status } = await client.open(path, {
      access: ['read', 'write'], share: 'rwd', disposition: 'open_if',
    });
    if (handle === undefined) return void this.failed.push(`open: ${status}`);
    for (const [what, answer] of [
      ['truncate', await client.truncate(handle, 0)], ['write', await client.write(handle, text)],
    ] as const) {
      if (answer.status !== 'OK') this.failed.push(`${what}: ${answer.status}`);
    }
    const { data, status: read } = await client.read(handle);
    if (data !== text) this.failed.push(`read: ${read}, "${data}" for "${text}"`);
    await client.closeHandle(handle);
  }
}

/** While clients work on two addresses of each server; none of them may see anything fail. */
async function underLoad(work: () => Promise<void>): Promise<void> {
  const workers = ADDRESSES.map((address, number) => new Worker(address, number));
  try {
    assert.ok(await waitUntil(() => workers.every(({ done }) => done > 0), RECONNECT_MILLIS_MAX, 50));
    await work();
    const before = workers.map(({ done }) => done);
    assert.ok(await waitUntil(() => workers.every(({ done }, i) => done > before[i]! + 2), RECONNECT_MILLIS_MAX, 50));
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
  }
  assert.deepEqual(workers.flatMap(({ failed }) => failed), []);
  const sum = (of: (worker: Worker) => number): number => workers.reduce((all, worker) => all + of(worker), 0);
  const figures = `${sum(({ done }) => done)} rounds of operations, ${sum(({ reconnects }) => reconnects)} reconnects`;
  process.stdout.write(`  ${figures}, none failed\n`);
}

async function smbdThatHangs(lab: Lab, server: number): Promise<void> {
  const smbd = lab.process('smbd', server)?.pid ?? 0;
  const since = seconds();
  process.kill(smbd, 'SIGSTOP');
  try {
    await untilCounts(lab, 0, [3, 0, 3], UNFIT_MILLIS_MAX);
    say('a smbd is stopped; its addresses are at others after', since);
    const { fitness, reasons } = await known(lab, 2, server);
    assert.equal(fitness, 'unfit');
    assert.deepEqual(reasons, ['smbd on 127.0.0.1:445 does not answer within 5 s']);
    assert.match(await smbpool(lab, 2, 'status', '--seconds', '0'), /server-1 is not fit for clients: smbd on 127/);
  } finally {
    process.kill(smbd, 'SIGCONT');
  }
  const back = seconds();
  await untilCounts(lab, 0, [2, 2, 2], UNFIT_MILLIS_MAX);
  say('it goes on; all are balanced after', back);
  assert.equal((await known(lab, 2, server)).state, 'member', 'it was a member all the time');
}

async function hooksOfTheSite(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const directory = join(place.directory, 'hooks.d');
  const told = join(place.directory, 'told');
  mkdirSync(directory);
  const hook = (name: string, text: string): void => {
    writeFileSync(join(directory, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(directory, name), 0o755);
  };
  hook('event-note', `echo "$SMBPOOL_EVENT $SMBPOOL_SERVER $SMBPOOL_ADDRESS" >> ${told}`);
  hook('check-site', 'echo "the cooling failed"; exit 1');
  const others = server === 2 ? [3, 3, 0] : [0, 3, 3];
  await untilCounts(lab, 1, others, UNFIT_MILLIS_MAX);
  assert.deepEqual((await known(lab, 1, server)).reasons, ['check-site: the cooling failed']);
  rmSync(join(directory, 'check-site'));
  await untilCounts(lab, 1, [2, 2, 2], UNFIT_MILLIS_MAX);
  const lines = () => (existsSync(told) ? readFileSync(told, 'utf8') : '');
  const isTold = () => /^address-taken server-\d 10\.77\.0\.\d+\/24$/m.test(lines());
  assert.ok(await waitUntil(isTold, UNFIT_MILLIS_MAX, 50), lines());
  assert.match(lines(), /^unfit server-\d $/m);
  assert.match(lines(), /^address-released server-\d 10\.77\.0\.\d+\/24$/m);
  assert.match(lines(), /^fit server-\d $/m);
  rmSync(join(directory, 'event-note'));
}

async function drained(lab: Lab, server: number): Promise<void> {
  const asked = (server + 1) % 3;
  const since = seconds();
  const said = await smbpool(lab, asked, 'drain', `server-${server}`, '--wait', '--timeout', `${DRAIN_SECONDS}`);
  say(`server ${server} is drained after`, since);
  assert.equal(said, `server-${server} is drained until "smbpool undrain server-${server}"\n`
    + `server-${server} has no clients\n`);
  await untilCounts(lab, asked, [0, 1, 2].map((id) => (id === server ? 0 : 3)), 0);
  assert.equal((await known(lab, asked, server)).fitness, 'draining');
}

async function restarted(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const asked = (server + 1) % 3;
  const { membership } = await ask<StatusReport>(lab.server(asked).adminSocket, ADMIN_PATH.status);
  const since = seconds();
  const ended = untilAllEnded(place, () => void process.kill(lab.process('smbpoold', server)?.pid ?? 0, 'SIGTERM'));
  const isOut = async () => (await known(lab, asked, server)).state !== 'member';
  assert.ok(await waitUntil(isOut, END_MILLIS_MAX, 5), 'the others do not go on without it');
  say(`server ${server}${membership.leader === server ? ', which leads,' : ''} stops and is out after`, since);
  if (membership.leader !== server) {
    const { events } = await ask<FailoversReport>(lab.server(membership.leader!).adminSocket, ADMIN_PATH.failovers);
    assert.match(JSON.stringify(events.at(-1)), /asked to be left out/, 'it leaves in order');
  }
  await ended;
  forgetTheEnd(place);
  await lab.startAgain(place);
  assert.equal((await known(lab, server, server)).fitness, 'draining', 'a restart does not undo it');
  assert.ok(existsSync(join(daemonFolders(place).persistent, 'smbpoold.draining')));
}

async function back(lab: Lab, server: number): Promise<void> {
  const since = seconds();
  await smbpool(lab, (server + 1) % 3, 'undrain', `server-${server}`);
  await untilCounts(lab, (server + 1) % 3, [2, 2, 2], BALANCE_MILLIS_MAX);
  say(`server ${server} has its share again after`, since);
}

test('fitness of servers', { skip: SKIP }, async (t) => {
  await withLab({ servers: 3, addresses: ADDRESSES.length }, async (lab) => {
    await untilCounts(lab, 0, [2, 2, 2], BALANCE_MILLIS_MAX);
    await t.test('a smbd that does not answer loses its addresses while it does not', () => smbdThatHangs(lab, 1));
    await t.test('a check hook does the same, and an event hook is told of all', () => hooksOfTheSite(lab, 2));
    await t.test('a server is drained under load, and comes back', () => underLoad(async () => {
      await drained(lab, 1);
      await back(lab, 1);
    }));
    await t.test('all servers are restarted one after the other, under load', () => underLoad(async () => {
      for (const server of [0, 1, 2]) {
        await drained(lab, server);
        await restarted(lab, server);
        await back(lab, server);
      }
    }));
  });
});
