/**
 * A pool of three whose smbds have the VFS module: what the commands tell, shares with and without the module on the
 * same files, smbds that lose their ring or are killed, a daemon that is killed. The suites with the module are in
 * test/suites.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Prng } from '../../src/base/prng.js';
import { Recording, smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import { LAB_PASSWORD, LAB_USER, Layout, SHARE } from '../../src/lab/layout.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { labOptions } from '../../src/lab/options.js';
import { isAlive } from '../../src/lab/processes.js';
import { repositoryFolder } from '../../src/lab/repository.js';
import { pause, run, tryRun, waitUntil } from '../../src/lab/run.js';
import { sambaConfig } from '../../src/lab/samba-config.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { attachedSmbds } from '../../src/lab/smbds.js';
import type { HotAnswer, LocksAnswer } from '../../src/wire/locks.js';
import { forgetTheEnd, killDaemon } from './kill-daemon.js';
import { conflicts } from './load-trace.js';
import { runLoad } from './load.js';
import { assertNothingLeft, statusOf } from './modules.js';
import { PATIENT_LEASE_MILLIS, TEST_ROOT, WITHOUT_MODULE, withLab } from './pool.js';

/** The share without the module, on the same folder. */
const PLAIN = 'plain';
const MIXED_LOAD_SECONDS = 15;
const BREAK_MILLIS_MAX = 10_000;
/** What is told in some milliseconds gets seconds: the machine may be busy. */
const NOTICE_MILLIS_MAX = 10_000;
const KILLS = Number(process.env['SMBPOOL_KILLS'] ?? 60);
/** One in a second or two is caught while it serves. */
const KILLING_MILLIS_MAX = 60_000 + KILLS * 4000;
const LOADERS = 6;
/** A killed smbd's clients are refused at once; whoever needs longer hangs. */
const COMMANDS_MILLIS_MAX = 30_000;

/** Runs `work` with one connection for each of the given servers and shares; ends them. */
async function withClients(
  lab: Lab,
  where: readonly { server: number; share?: string }[],
  work: (...clients: SmbClient[]) => Promise<void>,
): Promise<void> {
  const clients: SmbClient[] = [];
  try {
    for (const { server, share } of where) {
      clients.push(await SmbClient.connect(lab.server(server).address, LAB_USER, LAB_PASSWORD, share ?? SHARE));
    }
    await work(...clients);
  } finally {
    for (const client of clients) client.close();
  }
}

async function who(place: ServerPlace, path: string): Promise<LocksAnswer> {
  return JSON.parse(await smbpool(place, 'who', path, '--json')) as LocksAnswer;
}

interface WaitsAnswer {
  waits: { path: string; what: string; waitsFor: { server: number; pid: number; alive: boolean }[] }[];
  holders: { server: number; pid: number; waiters: { server: number; pid: number }[] }[];
}

/** An open on server 2 breaks a batch oplock on server 0; server 1 is asked. */
async function commandsTell(lab: Lab): Promise<void> {
  const path = 'told.txt';
  const asked = lab.server(1);
  await withClients(lab, [{ server: 0 }, { server: 2 }], async (holder, opener) => {
    const recording = await Recording.start(lab, asked, [holder, opener]);
    await holder.request('automatic', { on: false });
    const held = await holder.mustOpen(path, { oplock: 'batch' });
    await holder.lock(held.handle, { offset: 7, length: 3 });
    const second = opener.open(path);
    const broken = await holder.nextBreak(BREAK_MILLIS_MAX);
    assert.ok(broken, 'no break came');
    let told = await who(asked, path);
    await waitUntil(async () => (told = await who(asked, path)).waits.length > 0, NOTICE_MILLIS_MAX);
    assert.deepEqual(told.opens.map(({ server, oplock, user }) => [server, oplock, user.split('\\').at(-1)]), [
      [0, 'batch', LAB_USER],
    ]);
    assert.deepEqual(told.opens[0]?.locks, [{ start: '7', size: '3', type: 'write' }]);
    assert.deepEqual(told.waits.map(({ server, what, waitsFor }) => [server, what, waitsFor[0]?.pid]), [
      [2, 'break', told.opens[0]?.pid],
    ]);
    const waits = JSON.parse(await smbpool(asked, 'waits', '--longer', '0', '--json')) as WaitsAnswer;
    const graph = waits.holders.map(({ server, waiters }) => [server, waiters.map((one) => one.server)]);
    assert.deepEqual(graph, [[0, [2]]]);
    await holder.request('acknowledge', { handle: held.handle, to: broken.to });
    const opened = await second;
    assert.equal(opened.status, 'OK');
    const both = await who(asked, path);
    assert.deepEqual(both.opens.map(({ server }) => server).sort(), [0, 2]);
    assert.equal(both.waits.length, 0);
    const events = () => recording.events().filter((event) => event.path === path);
    assert.ok(await waitUntil(() => events().some(({ kind }) => kind === 'break-done'), NOTICE_MILLIS_MAX));
    await opener.closeHandle(opened.handle ?? 0);
    await recording.stop();
    const kinds = (server: number) => events().filter((event) => event.server === server).map(({ kind }) => kind);
    const unrepeated = (all: string[]) => all.filter((kind) => kind !== 'home' && kind !== 'moved');
    assert.deepEqual(unrepeated(kinds(0)), ['open', 'granted', 'lock', 'break-sent', 'break-done']);
    for (const kind of ['open', 'waiting', 'granted', 'close']) assert.ok(kinds(2).includes(kind), `no "${kind}"`);
    const moved = events().filter(({ server, kind }) => server === 2 && kind === 'moved');
    const move = moved.find(({ detail }) => detail === `locking.tdb from ${lab.server(0).name}`);
    assert.ok(move?.tookMicros !== null && (move?.tookMicros ?? 0) > 0, 'no move of locking.tdb');
    assert.equal(move?.pid, events().find(({ server, kind }) => server === 2 && kind === 'open')?.pid);
    // an open only reads what locks there are
    assert.ok(!moved.some(({ detail }) => detail.startsWith('brlock.tdb')), 'the record of the locks moved');
    const waited = events().findIndex(({ detail }) => detail === 'a holder must break first');
    assert.ok(waited > 0 && waited < events().findLastIndex(({ server, kind }) => server === 2 && kind === 'granted'));
  });
}

async function topTells(lab: Lab): Promise<void> {
  await withClients(lab, [{ server: 0 }, { server: 1 }], async (first, second) => {
    const isHot = async (): Promise<boolean> => {
      for (const client of [first, second, first, second]) {
        await client.closeHandle((await client.mustOpen('hot.txt')).handle);
      }
      const { files } = JSON.parse(await smbpool(lab.server(2), 'top', '--once', '--json')) as HotAnswer;
      const file = files.find(({ path }) => path === 'hot.txt');
      return file !== undefined && file.opens > 0 && file.moves > 0 && file.servers.join() === '0,1';
    };
    assert.ok(await waitUntil(isHot, NOTICE_MILLIS_MAX, 100), 'smbpool top does not show a file used on two servers');
  });
}

/** Opens, locks and oplocks through one share bind those of the other, from another server and from the same. */
async function sharesAgree(lab: Lab, other: number): Promise<void> {
  await withClients(lab, [{ server: 0 }, { server: other, share: PLAIN }], async (ours, plain) => {
    for (const [first, second] of [[ours, plain], [plain, ours]] as const) {
      const alone = await first.mustOpen('both.txt', { share: '' });
      assert.equal((await second.open('both.txt')).status, 'SHARING_VIOLATION');
      await first.closeHandle(alone.handle);
      const [one, two] = [await first.mustOpen('both.txt'), await second.mustOpen('both.txt')];
      assert.equal(one.fileId, two.fileId);
      assert.equal((await first.lock(one.handle, { offset: 0, length: 9 })).status, 'OK');
      assert.equal((await second.lock(two.handle, { offset: 5, length: 9 })).status, 'LOCK_NOT_GRANTED');
      await first.closeHandle(one.handle);
      await second.closeHandle(two.handle);
      const batch = await first.mustOpen('both.txt', { oplock: 'batch' });
      assert.equal(batch.oplock, 'batch');
      const opened = await second.mustOpen('both.txt');
      assert.ok(await first.nextBreak(BREAK_MILLIS_MAX), 'no break came');
      await first.closeHandle(batch.handle);
      await second.closeHandle(opened.handle);
    }
  });
}

async function mixedLoad(lab: Lab, seed: number): Promise<void> {
  const addresses = lab.servers().map((place) => place.address);
  const plan = { addresses, shares: [SHARE, PLAIN], clients: 6, seed, seconds: MIXED_LOAD_SECONDS };
  const { counts, holdings } = await runLoad(plan);
  assert.deepEqual(conflicts(holdings), [], 'two clients were granted what excludes each other');
  assert.ok((counts.get('open SHARING_VIOLATION') ?? 0) > 0, 'no open was refused: the clients never met');
}

/** The smbd goes on, attaches again and says again what it has open. */
/** `script` takes the ring away from an smbd. */
async function ringLost(lab: Lab, script: 'cut_ring.py' | 'spoil_ring.py'): Promise<void> {
  const place = lab.server(0);
  await withClients(lab, [{ server: 0 }, { server: 1 }], async (client, other) => {
    const held = await client.mustOpen('ring-lost.txt', { share: '' });
    const [pid, ...more] = attachedSmbds(lab, place);
    assert.ok(pid !== undefined && more.length === 0, 'not one smbd on server 0 has the module');
    const attached = (await statusOf(place)).counters['witness.attached'] ?? 0;
    const cut = await run('/usr/bin/python3', [join(repositoryFolder(), 'test/integration', script), String(pid)]);
    assert.equal(cut.trim(), '1');
    assert.equal((await other.open('ring-lost.txt')).status, 'SHARING_VIOLATION');
    const isBack = async () => ((await statusOf(place)).counters['witness.attached'] ?? 0) > attached;
    assert.ok(await waitUntil(isBack, NOTICE_MILLIS_MAX), 'the module does not attach again');
    const isTold = async () => (await who(lab.server(2), 'ring-lost.txt')).opens.some((open) => open.pid === pid);
    assert.ok(await waitUntil(isTold, NOTICE_MILLIS_MAX), 'the module does not tell again what is open');
    await client.write(held.handle, 'still open');
    await client.closeHandle(held.handle);
    assert.equal((await other.open('ring-lost.txt')).status, 'OK');
  });
}

/** A message that makes no sense ends the attachment, is counted, and said once with its cause. */
async function ringSpoilt(lab: Lab): Promise<void> {
  await ringLost(lab, 'spoil_ring.py');
  const place = lab.server(0);
  assert.equal((await statusOf(place)).counters['witness.message.refused.unknown-type'], 1);
  const lines = readFileSync(place.daemonLog, 'utf8').split('\n');
  const said = lines.filter((line) => line.includes('ring-message-refused'));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /"op":9999,"why":"unknown-type/);
}

interface Disturbed {
  done: number;
  refused: number;
  hung: string[];
}

/** smbclient again and again, until `isOver`. */
async function disturbedLoad(lab: Lab, loader: number, isOver: () => boolean, seen: Disturbed): Promise<void> {
  const place = lab.server(loader % lab.options.servers);
  const data = join(lab.layout.root, 'client', 'kill-data');
  const own = [1, 2, 3, 4, 5].map((i) => `put ${data} kill-${loader}-${i}; get kill-${loader}-${i} /dev/null`);
  const commands = [...own, `put ${data} kill-shared`, 'ls', ...[1, 2, 3, 4, 5].map((i) => `del kill-${loader}-${i}`)];
  while (!isOver()) {
    const args = ['-s', lab.layout.clientConf, `//${place.address}/${SHARE}`, '-U', `${LAB_USER}%${LAB_PASSWORD}`];
    const { status, timedOut } = await tryRun('smbclient', [...args, '-c', commands.join('; ')], {
      timeoutMs: COMMANDS_MILLIS_MAX,
    });
    if (timedOut) seen.hung.push(`a client of ${place.name}`);
    else if (status === 0) seen.done += 1;
    else seen.refused += 1;
  }
}

function killIfThere(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}

async function killedSmbds(lab: Lab, prng: Prng): Promise<void> {
  writeFileSync(join(lab.layout.root, 'client', 'kill-data'), 'x'.repeat(20_000));
  const seen: Disturbed = { done: 0, refused: 0, hung: [] };
  let killed = 0;
  const until = Date.now() + KILLING_MILLIS_MAX;
  const isOver = () => killed >= KILLS || seen.hung.length > 0 || Date.now() > until;
  const load = Promise.all(Array.from({ length: LOADERS }, (_, loader) => disturbedLoad(lab, loader, isOver, seen)));
  while (!isOver()) {
    for (const place of lab.servers()) {
      for (const pid of attachedSmbds(lab, place)) {
        if (!prng.chance(0.5)) continue;
        // its client may just have left
        if (killIfThere(pid)) killed += 1;
      }
    }
    await pause(10 + prng.below(40));
  }
  await load;
  process.stdout.write(`killed ${killed} smbds; clients: ${seen.done} ended well, ${seen.refused} were cut off\n`);
  assert.deepEqual(seen.hung, []);
  assert.ok(killed >= KILLS, 'there were too few smbds to kill');
  assert.ok(seen.refused > 0, 'no client noticed: nothing was proved');
  await assertNothingLeft(lab);
  for (const place of lab.servers()) {
    const { status, stdout } = await lab.smbclient(place, 'del kill-*; ls');
    assert.equal(status, 0, `${place.name} does not serve any more: ${stdout}`);
  }
}

async function killedDaemon(lab: Lab): Promise<void> {
  const place = lab.server(1);
  await withClients(lab, [{ server: 0 }, { server: 1 }, { server: 2 }], async (first, victim, third) => {
    const held = await first.mustOpen('daemon-killed.txt', { share: '' });
    await victim.mustOpen('of-the-dead.txt', { share: '' });
    // the record of the first file is moved to the server that dies
    assert.equal((await victim.open('daemon-killed.txt')).status, 'SHARING_VIOLATION');
    const daemon = lab.process('smbpoold', 1);
    await killDaemon(lab, place);
    assert.ok(daemon !== null && !isAlive(daemon));
    await lab.startAgain(place);
    forgetTheEnd(place);
    assert.equal((await third.open('daemon-killed.txt')).status, 'SHARING_VIOLATION');
    await withClients(lab, [{ server: 1 }], async (again) => {
      assert.equal((await again.open('daemon-killed.txt')).status, 'SHARING_VIOLATION');
      assert.equal((await again.open('of-the-dead.txt')).status, 'OK');
      await first.closeHandle(held.handle);
      assert.equal((await again.open('daemon-killed.txt')).status, 'OK');
    });
  });
  await assertNothingLeft(lab);
}

/** smb.conf of a share like the lab's, without the module: for `include`. */
function plainShare(folder: string): string {
  const file = join(folder, 'plain.conf');
  const text = sambaConfig(new Layout(TEST_ROOT).server(0), labOptions({ module: false }));
  writeFileSync(file, text.slice(text.indexOf(`[${SHARE}]`)).replace(`[${SHARE}]`, `[${PLAIN}]`));
  return file;
}

test('a pool of three with the VFS module', { skip: WITHOUT_MODULE }, async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  const folder = mkdtempSync(join(tmpdir(), 'smbpool-test-'));
  try {
    const globalOptions = [`include = ${plainShare(folder)}`];
    await withLab({ servers: 3, leaseMillis: PATIENT_LEASE_MILLIS, globalOptions }, async (lab) => {
      await t.test('who, waits and trace tell of a break between servers', () => commandsTell(lab));
      await t.test('top tells of a file that moves between servers', () => topTells(lab));
      await t.test('a share without the module on another server agrees', () => sharesAgree(lab, 1));
      await t.test('a share without the module on the same server agrees', () => sharesAgree(lab, 0));
      await t.test('random load through shares with and without the module', () => mixedLoad(lab, seed));
      await t.test('an smbd that loses its ring goes on and attaches again', () => ringLost(lab, 'cut_ring.py'));
      await t.test('a message that makes no sense costs an smbd its ring, and no more', () => ringSpoilt(lab));
      await t.test('nothing is left of clients that went', () => assertNothingLeft(lab));
      await t.test(`${KILLS} smbds killed under load`, () => killedSmbds(lab, new Prng(seed)));
      await t.test('a daemon killed and started again', () => killedDaemon(lab));
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

interface ReadTimes {
  createMs: { p50: number; max: number };
  readMs: { p50: number; p99: number };
  readAloneMs: { p50: number; p99: number };
  readsMeanwhile: number;
}

test('reads flow while 100 creates of the connection wait 500 ms each', { skip: WITHOUT_MODULE }, async () => {
  const shareOptions = ['smbpool:delay ms = 500'];
  await withLab({ servers: 1, leaseMillis: PATIENT_LEASE_MILLIS, shareOptions }, async (lab) => {
    const script = join(repositoryFolder(), 'samba-module/test/reads_while_waiting.py');
    const args = [script, lab.server(0).address, SHARE, LAB_USER, LAB_PASSWORD, '100'];
    const said = await run('/usr/bin/python3', args, { timeoutMs: 180_000 });
    process.stdout.write(said);
    const { createMs, readMs, readAloneMs, readsMeanwhile } = JSON.parse(said) as ReadTimes;
    assert.ok(createMs.p50 >= 500, 'the creates did not wait');
    assert.ok(readsMeanwhile > 20, 'hardly anything was read meanwhile');
    // the median, and with room for other processes of the machine
    assert.ok(readMs.p50 < readAloneMs.p50 * 2 + 1, 'reads wait for creates');
  });
});
