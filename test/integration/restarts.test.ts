/**
 * Daemons that are stopped, killed and started again: what their page in shared memory tells meanwhile, and that the
 * clients of the other servers work on unhurt.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Prng } from '../../src/base/prng.js';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import type { Expected } from '../../src/lab/leftovers.js';
import { pause, tryRun, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { forgetTheEnd, killDaemon, untilAllEnded } from './kill-daemon.js';
import { conflicts } from './load-trace.js';
import { runLoad } from './load.js';
import { assertNothingLeft } from './modules.js';
import { SKIP, assertNoPanics, useFile, withLab } from './pool.js';
import { assertConsistent, assertSettled } from './settled.js';

/** The page notices a stopped daemon at once, one that hangs after some seconds. */
const NOTICE_MILLIS_MAX = 10_000;

/**
 * smbd 4.17 leaves the record of a lease whose holder was killed, also a single smbd, until it starts anew with an
 * empty database: the record names the client's GUID, which nobody else has. And what a killed server did last to a
 * record nobody else has seen: the backup that comes back names its smbds, until somebody opens the file and finds
 * them dead. If they had deleted the file, nobody does.
 */
const LEFT_BY_KILLED_SMBDS: Expected = { except: ['leases.tdb'], ofGoneFiles: true };
const CLIENTS = 12;
/** How many daemons are killed under load, one after the other. */
const KILLS = Number(process.env['SMBPOOL_DAEMON_KILLS'] ?? 5);

interface Page {
  state: string;
  process: string;
  heartbeatMicrosAgo: number;
  generation: number;
  daemonPid: number;
  latencies: { name: string; count: number; p99Micros: number; maxMicros: number }[];
  errors: { text: string }[];
  counters: Record<string, number>;
}

async function pageOf(place: ServerPlace): Promise<Page> {
  return JSON.parse(await smbpool(place, 'page', '--json')) as Page;
}

async function pagesTell(lab: Lab): Promise<void> {
  const place = lab.server(1);
  for (const server of [0, 1, 0, 1]) await useFile(lab.server(server), 'page.txt');
  const daemon = lab.process('smbpoold', 1)?.pid ?? 0;
  const before = await pageOf(place);
  assert.deepEqual([before.state, before.process, before.daemonPid], ['alive', 'running', daemon]);

  process.kill(daemon, 'SIGSTOP');
  try {
    const isLate = async () => (await pageOf(place)).heartbeatMicrosAgo > 3_000_000;
    assert.ok(await waitUntil(isLate, NOTICE_MILLIS_MAX, 200), 'a stopped daemon writes');
    const { state, counters, latencies } = await pageOf(place);
    assert.equal(state, 'stopped');
    assert.ok((counters['record.arrived.move'] ?? 0) > 0, 'the moves are not counted');
    const opens = latencies.find(({ name }) => name === 'open: records');
    assert.ok(opens !== undefined && opens.count > 0 && opens.p99Micros <= opens.maxMicros);
    const said = await tryRun('node', ['dist/src/cli/main.js', 'status', '--socket', place.adminSocket]);
    assert.equal(said.status, 1);
    assert.match(said.stdout, /It is STOPPED .*\nNo heartbeat since [^]*open: records[^]*record\.arrived\.move/);
    process.stdout.write(said.stdout);
  } finally {
    // the others have gone on without it: its run is over
    await untilAllEnded(place, () => void process.kill(daemon, 'SIGCONT'));
  }
  assert.match(readFileSync(place.daemonLog, 'utf8'), /starting anew/);
  const dead = await pageOf(place);
  assert.deepEqual([dead.state, dead.process, dead.generation], ['dead', 'gone', before.generation]);
  const isOut = ({ text }: { text: string }) => text.includes('out of the pool: server 1');
  const isTold = async () => (await pageOf(lab.server(0))).errors.some(isOut);
  assert.ok(await waitUntil(isTold, NOTICE_MILLIS_MAX, 200), 'server 0 does not tell that server 1 is out');
  await lab.startAgain(place);
  forgetTheEnd(place);
  const again = await pageOf(place);
  assert.equal(again.state, 'alive');
  assert.notEqual(again.generation, before.generation);
  await useFile(place, 'page.txt');
}

/** Seconds of the machine-wide clock, as in the answers of the clients. */
function machineSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

interface Outage {
  address: string;
  from: number;
  to: number;
}

/** What the load's files are called; see load.ts. */
const LOAD_FILES = Array.from({ length: 6 }, (_, index) => `load-${index}.dat`);

/** Each file can be had alone on each server: no open, lock or oplock of the dead is in the way. */
async function assertFree(lab: Lab): Promise<void> {
  for (const place of lab.servers()) {
    const client = await SmbClient.connect(place.address);
    try {
      for (const path of LOAD_FILES) {
        const alone = await client.mustOpen(path, { share: '', oplock: 'batch', disposition: 'open_if' });
        assert.equal(alone.oplock, 'batch');
        assert.equal((await client.lock(alone.handle, { offset: 0, length: 1000, exclusive: true })).status, 'OK');
        await client.closeHandle(alone.handle);
      }
    } finally {
      client.close();
    }
  }
}

async function daemonsKilledUnderLoad(lab: Lab, seed: number): Promise<void> {
  const prng = new Prng(seed);
  const addresses = lab.servers().map(({ address }) => address);
  let isOver = false;
  let onConnected = (): void => undefined;
  const connected = new Promise<void>((resolve) => (onConnected = resolve));
  const load = runLoad({ addresses, clients: CLIENTS, seed, isOver: () => isOver, onConnected, reconnects: true });
  // observed below in any case; not to be called unhandled meanwhile
  load.catch(() => undefined);
  const outages: Outage[] = [];
  try {
    // who has never been connected does not connect again
    await Promise.race([connected, load]);
    for (let kill = 0; kill < KILLS; kill++) {
      await pause(1500 + prng.below(2000));
      const place = lab.server(prng.below(3));
      const from = machineSeconds();
      await killDaemon(lab, place);
      await pause(prng.below(1500));
      await lab.startAgain(place);
      outages.push({ address: place.address, from, to: machineSeconds() });
      forgetTheEnd(place);
    }
    await pause(2000);
  } finally {
    isOver = true;
  }
  const { counts, holdings, losses } = await load;
  process.stdout.write(`${[...counts].sort().map(([what, count]) => `${what}: ${count}`).join(', ')}\n`);
  const seconds = outages.map(({ from, to }) => (to - from).toFixed(1)).join(', ');
  process.stdout.write(`${losses.length} connections lost, servers were away for ${seconds} seconds\n`);
  const unhurt = losses.filter(({ address, at }) => {
    return !outages.some((outage) => outage.address === address && at >= outage.from && at <= outage.to);
  });
  assert.deepEqual(unhurt, [], 'a connection was lost whose server was well');
  assert.ok(losses.length > 0, 'nobody was connected to a server whose daemon was killed');
  for (const what of ['open', 'lock', 'close', 'break']) {
    assert.ok((counts.get(`${what} OK`) ?? 0) > 50, `few times ${what}`);
  }
  assert.deepEqual(conflicts(holdings), [], 'two clients were granted what excludes each other');
  assertNoPanics(lab);
  await assertFree(lab);
  await assertNothingLeft(lab);
  await assertSettled(lab, LEFT_BY_KILLED_SMBDS);
  await assertConsistent(lab);
}

test('daemons that are stopped, killed and started again', { skip: SKIP }, async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  await withLab({ servers: 3 }, async (lab) => {
    await t.test(`${KILLS} daemons killed under load`, () => daemonsKilledUnderLoad(lab, seed));
    await t.test('the page tells how a daemon is that cannot be asked', () => pagesTell(lab));
  });
});
