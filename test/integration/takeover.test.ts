/**
 * The daemon of a server is killed under load, again and again: its standby goes on, no smbd ends, no client notices
 * more than a moment, nothing is granted that excludes something else. docs/decisions/standby.md.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmdirSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { daemonStatus } from '../../src/lab/admin.js';
import { daemonFolders } from '../../src/lab/daemon-config.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { processesIn } from '../../src/lab/network.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import type { StatusReport } from '../../src/ports/status.js';
import { logLines, machineSeconds, millis, newestView, serverThat } from './failover.js';
import { forgetTheEnd } from './kill-daemon.js';
import { runLoad } from './load.js';
import { conflicts } from './load-trace.js';
import { SKIP, withLab } from './pool.js';
import { assertConsistent, assertSettled } from './settled.js';

const CLIENTS = 9;
const KILLS = Number(process.env['SMBPOOL_TAKEOVERS'] ?? 4);
/** A test machine that is busy with other things may need it; 0.2 s on an idle one. */
const SERVED_MILLIS_MAX = 10_000;
const READY_MILLIS_MAX = 20_000;
const TRY_MILLIS = 5;

async function statusOf(place: ServerPlace): Promise<StatusReport | null> {
  return (await daemonStatus(place.adminSocket)) as unknown as StatusReport | null;
}

async function untilReady(place: ServerPlace): Promise<StatusReport> {
  let status: StatusReport | null = null;
  const isReady = async () => (status = await statusOf(place))?.standby?.ready === true;
  assert.ok(await waitUntil(isReady, READY_MILLIS_MAX, 50), `${place.name} has no standby: ${JSON.stringify(status)}`);
  return status!;
}

/** Seconds since the process began; NaN when it ended. /proc/PID/stat, field 22, in hundredths of a second. */
function ageSeconds(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ');
    return uptime() - Number(fields[19]) / 100;
  } catch {
    return NaN;
  }
}

/**
 * All of a server but its daemons: none of them may end. Without the youngest: each check of a server's health has an
 * smbd of its own, which ends with the daemon that asked.
 */
async function smbdsOf(place: ServerPlace, status: StatusReport): Promise<number[]> {
  const daemons = [status.pid, status.standby?.pid ?? 0];
  return (await processesIn(place.namespace)).filter((pid) => !daemons.includes(pid) && ageSeconds(pid) > 1);
}

/** From the kill until a client of that server opens a file that it did not have. */
async function killActive(place: ServerPlace, probe: SmbClient, name: string): Promise<number> {
  const before = await untilReady(place);
  const smbds = await smbdsOf(place, before);
  const at = machineSeconds();
  process.kill(before.pid, 'SIGKILL');
  const opened = await probe.mustOpen(name, { disposition: 'open_if' });
  await probe.closeHandle(opened.handle);
  const served = opened.at - at;
  const takenOver = async () => (await statusOf(place))?.pid === before.standby?.pid;
  assert.ok(await waitUntil(takenOver, SERVED_MILLIS_MAX, TRY_MILLIS), `nobody took over on ${place.name}`);
  const ended = smbds.filter((pid) => !existsSync(`/proc/${pid}`));
  assert.deepEqual(ended, [], `processes of ${place.name} ended with the daemon`);
  return served;
}

/** What the successor said of its own times, in milliseconds from when it noticed. */
function stages(place: ServerPlace): string {
  const said = logLines(place) as { msg: string; micros?: number; waitedMicros?: number }[];
  const last = (msg: string) => said.findLast((line) => line.msg.startsWith(msg));
  const ms = (micros: number | undefined) => (micros === undefined ? '-' : (micros / 1000).toFixed(0));
  const gone = ms(last('standby.took-over')?.waitedMicros);
  return `the old one gone ${gone}, core runs ${ms(last('standby.runs')?.micros)}, `
    + `resumed ${ms(last('standby.resumed')?.micros)} ms`;
}

/** The clients stay connected to the end: an smbd whose client left would end, too. */
async function killAgainAndAgain(lab: Lab, clients: SmbClient[]): Promise<void> {
  for (let kill = 0; kill < KILLS; kill++) {
    const leads = kill % 2 === 1;
    const place = serverThat(lab, leads);
    const probe = await SmbClient.connect(place.address);
    clients.push(probe);
    const held = await probe.mustOpen(`held-${kill}`, { access: ['read', 'write'], share: '', disposition: 'open_if' });
    const epoch = newestView(lab.servers()).epoch;
    const served = await killActive(place, probe, `probe-${kill}`);
    process.stdout.write(`  ${place.name} (${leads ? 'leads' : 'follows'}): served again after ${millis(served)} ms, `
      + `view ${epoch} -> ${newestView(lab.servers()).epoch}; ${stages(place)}\n`);
    assert.ok(served * 1000 < SERVED_MILLIS_MAX);
    // what its clients held counts for the others, and goes on being theirs
    const other = await SmbClient.connect(lab.servers().find(({ id }) => id !== place.id)!.address);
    assert.equal((await other.open(`held-${kill}`, { access: ['read'] })).status, 'SHARING_VIOLATION');
    assert.equal((await probe.write(held.handle, 'still mine')).status, 'OK');
    clients.push(other);
    await probe.closeHandle(held.handle);
    await pause(500);
  }
}

test('the daemon is killed under load and its smbds go on', { skip: SKIP }, async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  const leaseMillis = Number(process.env['SMBPOOL_LEASE_MILLIS'] ?? 0) || null;
  await withLab({ standby: true, leaseMillis }, async (lab) => {
    for (const place of lab.servers()) {
      const { standby } = await untilReady(place);
      process.stdout.write(`  ${place.name}: standby ready, ${standby?.residentKib ?? 0} KiB\n`);
    }
    const ending = { isOver: false };
    const addresses = lab.servers().map(({ address }) => address);
    const load = runLoad({ addresses, clients: CLIENTS, seconds: 120, seed, isOver: () => ending.isOver });
    // it fails too when the lab goes down under it: what failed first is to be told, not that
    load.catch(() => undefined);
    await pause(2_000);
    const clients: SmbClient[] = [];
    try {
      await killAgainAndAgain(lab, clients);
    } finally {
      ending.isOver = true;
      for (const client of clients) client.close();
    }
    const result = await load;
    process.stdout.write(`${[...result.counts].sort().map(([what, count]) => `${what}: ${count}`).join(', ')}\n`);
    assert.deepEqual(result.losses, [], 'a client lost its connection');
    assert.deepEqual(conflicts(result.holdings), []);
    await assertSettled(lab);
    await assertConsistent(lab);
    await standbyKilled(lab);
    await standbyCannotOpen(lab);
    await bothKilled(lab);
  });
});

/** Nobody notices, and another one starts. */
async function standbyKilled(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const before = await untilReady(place);
  process.kill(before.standby!.pid!, 'SIGKILL');
  const isOther = async () => {
    const now = (await statusOf(place))?.standby;
    return now?.ready === true && now.pid !== before.standby?.pid;
  };
  assert.ok(await waitUntil(isOther, READY_MILLIS_MAX, 50), 'no other standby');
  assert.equal((await statusOf(place))?.pid, before.pid);
}

/** A standby that would not take over says so while there is time: it ends, and another one starts. */
async function standbyCannotOpen(lab: Lab): Promise<void> {
  const place = lab.server(2);
  const before = await untilReady(place);
  const { volatile } = daemonFolders(place);
  const name = readdirSync(volatile).find((file) => file.startsWith('locking.tdb'))!;
  renameSync(join(volatile, name), join(volatile, 'aside'));
  mkdirSync(join(volatile, name));
  try {
    process.kill(before.standby!.pid!, 'SIGKILL');
    const hasEnded = () => readFileSync(place.daemonLog, 'utf8').includes('locking.tdb cannot be opened');
    assert.ok(await waitUntil(hasEnded, READY_MILLIS_MAX, 50), 'a standby that cannot open a database stays');
    assert.equal((await statusOf(place))?.standby?.ready, false);
  } finally {
    rmdirSync(join(volatile, name));
    renameSync(join(volatile, 'aside'), join(volatile, name));
  }
  assert.equal((await untilReady(place)).pid, before.pid);
}

/** As without a standby: the smbds end, and a plain start brings the server back. */
async function bothKilled(lab: Lab): Promise<void> {
  const place = lab.server(1);
  const status = await untilReady(place);
  const smbds = await smbdsOf(place, status);
  for (const pid of [status.standby!.pid!, status.pid]) process.kill(pid, 'SIGKILL');
  const areGone = () => !smbds.some((pid) => existsSync(`/proc/${pid}`));
  assert.ok(await waitUntil(areGone, READY_MILLIS_MAX, 50), 'smbds go on without their daemon');
  forgetTheEnd(place);
}
