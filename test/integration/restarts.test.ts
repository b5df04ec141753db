/**
 * Daemons that are stopped, killed and started again: what their page in shared memory tells meanwhile, and that the
 * clients of the other servers work on unhurt.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { tryRun, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { SKIP, withLab } from './pool.js';

/** smbd ends when its connection to the daemon does; all its processes within a second. */
const END_MILLIS_MAX = 20_000;
/** The page notices a stopped daemon at once, one that hangs after some seconds. */
const NOTICE_MILLIS_MAX = 10_000;

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

/** Kills the daemon of a server and waits until its smbds have ended, too. */
async function killDaemon(lab: Lab, place: ServerPlace): Promise<void> {
  process.kill(lab.process('smbpoold', place.id)?.pid ?? 0, 'SIGKILL');
  const isEmpty = async () => (await tryRun('ip', ['netns', 'pids', place.namespace])).stdout.trim() === '';
  assert.ok(await waitUntil(isEmpty, END_MILLIS_MAX, 50), 'smbds go on without their daemon');
}

/** An smbd whose daemon is gone says so and ends: wanted here, and so taken out of its logs. */
function forgetTheEnd(place: ServerPlace): void {
  const wanted = /cluster_fatal|ctdbd died/i;
  for (const name of readdirSync(place.logs)) {
    const file = join(place.logs, name);
    if (name.startsWith('log.') && wanted.test(readFileSync(file, 'utf8'))) truncateSync(file);
  }
}

async function useFile(place: ServerPlace, path: string): Promise<void> {
  const client = await SmbClient.connect(place.address);
  try {
    await client.closeHandle((await client.mustOpen(path)).handle);
  } finally {
    client.close();
  }
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
    process.kill(daemon, 'SIGCONT');
  }
  const isAlive = async () => (await pageOf(place)).state === 'alive';
  assert.ok(await waitUntil(isAlive, NOTICE_MILLIS_MAX, 200), 'it does not go on');
  await useFile(place, 'page.txt');

  await killDaemon(lab, place);
  const dead = await pageOf(place);
  assert.deepEqual([dead.state, dead.process, dead.generation], ['dead', 'gone', before.generation]);
  const isSilence = ({ text }: { text: string }) => text.includes('peer-down, peer 1');
  const isTold = async () => (await pageOf(lab.server(0))).errors.some(isSilence);
  assert.ok(await waitUntil(isTold, NOTICE_MILLIS_MAX, 200), 'server 0 does not tell that server 1 is silent');
  await lab.startAgain(place);
  forgetTheEnd(place);
  const again = await pageOf(place);
  assert.equal(again.state, 'alive');
  assert.notEqual(again.generation, before.generation);
  await useFile(place, 'page.txt');
}

test('daemons that are stopped, killed and started again', { skip: SKIP }, async (t) => {
  await withLab({ servers: 3 }, async (lab) => {
    await t.test('the page tells how a daemon is that cannot be asked', () => pagesTell(lab));
  });
});
