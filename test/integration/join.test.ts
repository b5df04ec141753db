/**
 * A running pool gets one more server and loses two, while clients work: one is taken out that serves, one that is dead
 * (docs/decisions/joining.md). The others are not restarted, and none is without a lease for it.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { ask } from '../../src/cli/admin-client.js';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { SERVER_INTERFACE, serverAddress } from '../../src/lab/layout.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { ADMIN_PATH } from '../../src/ports/admin.js';
import type { ServersReport, StatusReport } from '../../src/ports/status.js';
import { forgetTheEnd, killDaemon } from './kill-daemon.js';
import { conflicts } from './load-trace.js';
import { runLoad } from './load.js';
import { SKIP, assertNoPanics, useFile, withLab } from './pool.js';

const CLIENTS = 4;
/** A view, or two, on a busy machine. */
const CHANGE_MILLIS_MAX = 5_000;

async function statusOf(place: ServerPlace): Promise<StatusReport> {
  return ask<StatusReport>(place.adminSocket, ADMIN_PATH.status);
}

const lostLeases = async (place: ServerPlace): Promise<number> => (await statusOf(place)).counters['lease.lost'] ?? 0;

async function waitFor(place: ServerPlace, what: string, is: (status: StatusReport) => boolean): Promise<void> {
  let last: StatusReport | null = null;
  const isSo = async (): Promise<boolean> => is((last = await statusOf(place)));
  if (await waitUntil(isSo, CHANGE_MILLIS_MAX, 100)) return;
  const { membership, servers, problems } = last!;
  assert.fail(`${place.name}: ${what}: ${JSON.stringify({ membership, servers, problems }, null, 1)}`);
}

const countedIs = (counted: number) => ({ membership: { quorum } }: StatusReport): boolean =>
  quorum.configured === counted && quorum.present === counted;

/** The fourth: told to a member, then started. */
async function takeIn(lab: Lab): Promise<void> {
  const three = lab.servers();
  const before = await Promise.all(three.map(lostLeases));
  const name = 'server-3';
  const where = ['--address', serverAddress(3), '--interface', SERVER_INTERFACE];
  process.stdout.write(await smbpool(three[1]!, 'join', name, '--id', '3', ...where));
  await assert.rejects(smbpool(three[0]!, 'join', name, ...where), /server-3 .* is in the pool with/);
  await assert.rejects(smbpool(three[0]!, 'join', 'other', ...where), /address 10\.77\.0\.13/);
  for (const place of three) {
    await waitFor(place, 'names the new server', ({ servers }) => servers.length === 4);
    const { membership, problems } = await statusOf(place);
    assert.deepEqual(membership.quorum, { configured: 3, needed: 2, present: 3 }, 'it does not count yet');
    assert.deepEqual(problems.map(({ what }) => what), ['servers-joining', 'servers-differ']);
  }
  const started = Date.now();
  const fourth = await lab.add();
  process.stdout.write(`${name} serves after ${Date.now() - started} ms\n`);
  for (const place of lab.servers()) await waitFor(place, 'counts four', countedIs(4));
  await useFile(fourth, 'join.txt');
  assert.deepEqual(await Promise.all(three.map(lostLeases)), before, 'nobody was without a lease');
  assert.deepEqual((await statusOf(fourth)).problems, []);
}

/** One that serves; its clients lose their connections, the others nothing. */
async function takeOut(lab: Lab): Promise<void> {
  const [first, second, third, fourth] = lab.servers() as [ServerPlace, ServerPlace, ServerPlace, ServerPlace];
  await assert.rejects(smbpool(third, 'leave', third.name), /is this server/);
  const leader = (await statusOf(first)).membership.leader;
  const staying = [first, second, fourth];
  const before = await Promise.all(staying.map(lostLeases));
  const report = JSON.parse(await smbpool(first, 'leave', third.name, '--now', '--json')) as ServersReport;
  assert.deepEqual(report.servers.map(({ name }) => name), ['server-0', 'server-1', 'server-3']);
  for (const place of staying) await waitFor(place, 'counts three', countedIs(3));
  const isOver = () => Promise.resolve(!lab.isRunning('smbpoold', third));
  assert.ok(await waitUntil(isOver, CHANGE_MILLIS_MAX, 100), 'its daemon ends');
  assert.match(readFileSync(third.daemonLog, 'utf8'), /was taken out of the pool with smbpool leave/);
  // when the leader goes, all are without a lease until there is another
  const lost = await Promise.all(staying.map(lostLeases));
  if (leader !== 2) assert.deepEqual(lost, before, 'nobody else was without a lease');
  else assert.ok(lost.every((times, place) => times - before[place]! <= 1), `${lost.join()} times without a lease`);
}

/** Its daemon is started by somebody who does not know: it says what it is, and disturbs nobody. */
async function startsAllTheSame(lab: Lab): Promise<void> {
  const [first, , third] = lab.servers() as [ServerPlace, ServerPlace, ServerPlace];
  const { epoch } = await statusOf(first);
  await pause(1_000);
  forgetTheEnd(third);
  const never = lab.startAgain(third).then(() => 'it is a member', (error: unknown) => String(error));
  const isTold = async () => (await statusOf(third).catch(() => null))?.problems[0]?.what === 'outside';
  assert.ok(await waitUntil(isTold, 15_000, 200), 'it does not know that it is out');
  const [problem] = (await statusOf(third)).problems;
  process.stdout.write(`${problem!.text}: ${problem!.remedy}\n`);
  assert.equal((await statusOf(first)).epoch, epoch, 'no view for it');
  await killDaemon(lab, third);
  assert.notEqual(await never, 'it is a member');
}

/** By the two that are left, which are a majority of three. */
async function takeOutDead(lab: Lab): Promise<void> {
  const [first, second, , fourth] = lab.servers() as [ServerPlace, ServerPlace, ServerPlace, ServerPlace];
  await killDaemon(lab, fourth);
  forgetTheEnd(fourth);
  await waitFor(first, 'is without it', ({ membership }) => !membership.members.includes(3));
  process.stdout.write(await smbpool(second, 'leave', fourth.name));
  for (const place of [first, second]) await waitFor(place, 'counts two', countedIs(2));
  await assert.rejects(smbpool(second, 'leave', fourth.name), /there is no server "server-3"/);
}

test('a server joins a running pool, one leaves, and a dead one is taken out', { skip: SKIP }, async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  await withLab({ servers: 3 }, async (lab) => {
    const [first, second] = lab.servers() as [ServerPlace, ServerPlace];
    const addresses = [first.address, second.address];
    let isOver = false;
    let onConnected = (): void => undefined;
    const connected = new Promise<void>((resolve) => (onConnected = resolve));
    const load = runLoad({ addresses, clients: CLIENTS, seed, isOver: () => isOver, onConnected });
    load.catch(() => undefined);
    const held = await SmbClient.connect(first.address);
    const file = await held.mustOpen('held.txt', { disposition: 'open_if' });
    try {
      await Promise.race([connected, load]);
      await t.test('a fourth joins', () => takeIn(lab));
      await t.test('one that serves is taken out', () => takeOut(lab));
      await t.test('it is started again', () => startsAllTheSame(lab));
      await t.test('a dead one is taken out', () => takeOutDead(lab));
      await held.closeHandle(file.handle);
    } finally {
      isOver = true;
      held.close();
    }
    const { counts, holdings } = await load;
    process.stdout.write(`${[...counts].sort().map(([what, count]) => `${what}: ${count}`).join(', ')}\n`);
    for (const what of ['open', 'lock', 'close']) assert.ok((counts.get(`${what} OK`) ?? 0) > 50, `few times ${what}`);
    assert.deepEqual(conflicts(holdings), [], 'two clients were granted what excludes each other');
    assertNoPanics(lab);
  });
});
