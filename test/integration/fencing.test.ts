/**
 * A server whose lease is over, on real smbds: what its clients open and change waits, goes on when the lease comes
 * back, and is refused when it does not; what they read goes on. The lease ends because the server's daemon is stopped
 * (the others go on without it, so its run ends when it goes on itself), or because whom it needs for a majority is
 * stopped: then it comes back when that one goes on.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { forgetTheEnd, killDaemon, untilAllEnded } from './kill-daemon.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

/** native/shared/smbpool_layout.h. */
const LEASE_DEADLINE_AT = 256;
const WAIT_MILLIS = 4_000;
/** Until a lease ends when nobody renews it, or is there again: much longer than it should take. */
const LEASE_MILLIS_MAX = 10_000;
/** A wait ends when it is over; on a busy machine this much later at the most. */
const LATE_MILLIS_MAX = 3_000;
const AHEAD_MILLIS = 300;
const RESTORED_AFTER_MILLIS = 500;
/** After so long an open goes on that waits for its records, and waits for them inside of smbd. */
const OPEN_WAIT_MILLIS = 200;
const BREAK_MILLIS_MAX = 10_000;
/** NT_STATUS_CONNECTION_DISCONNECTED, which the client has no name for. */
const REFUSED = '0xC000020C';
const TOLD = 'lease in the pool is over';
const CHANGING: OpenRequest = { access: ['read', 'write', 'delete'], share: 'rwd', disposition: 'open_if' };

const now = (): bigint => process.hrtime.bigint() / 1000n;

function deadlineOf(place: ServerPlace): bigint {
  return readFileSync(join(place.directory, 'node.page')).readBigUInt64LE(LEASE_DEADLINE_AT);
}

function daemonOf(lab: Lab, id = 0): number {
  return lab.process('smbpoold', id)?.pid ?? 0;
}

/** Stops these daemons, by default its own, and waits until the lease of server 0 is over. */
async function endLease(lab: Lab, stopped: readonly number[] = [0]): Promise<void> {
  for (const id of stopped) process.kill(daemonOf(lab, id), 'SIGSTOP');
  const isOver = () => deadlineOf(lab.server(0)) <= now();
  assert.ok(await waitUntil(isOver, LEASE_MILLIS_MAX, 5), 'the lease does not end');
}

async function renewLease(lab: Lab, stopped: readonly number[]): Promise<void> {
  for (const id of stopped) process.kill(daemonOf(lab, id), 'SIGCONT');
  const isValid = () => deadlineOf(lab.server(0)) > now();
  assert.ok(await waitUntil(isValid, LEASE_MILLIS_MAX, 5), 'the lease does not come back');
}

/** The daemon goes on, hears that its run is over, and ends; the server is started again. */
async function bringBack(lab: Lab): Promise<void> {
  const place = lab.server(0);
  await untilAllEnded(place, () => void process.kill(daemonOf(lab), 'SIGCONT'));
  await lab.startAgain(place);
  forgetTheEnd(place);
}

const tookMillis = ({ sent, at }: Answer): number => Math.round((at - sent) * 1000);

function assertWaited(answer: Answer, atLeastMillis: number): void {
  const took = tookMillis(answer);
  assert.ok(took >= atLeastMillis - 5 && took <= atLeastMillis + LATE_MILLIS_MAX, `it took ${took} ms`);
}

function timesTold(place: ServerPlace): number {
  const files = readdirSync(place.logs, { withFileTypes: true }).filter((entry) => entry.isFile());
  const texts = files.map(({ name }) => readFileSync(join(place.logs, name), 'utf8'));
  return texts.join('\n').split(TOLD).length - 1;
}

/** Runs `work`, in which the daemon of server 0 is stopped, with two clients of that server. */
async function withClients(lab: Lab, work: (fenced: SmbClient, other: SmbClient) => Promise<void>): Promise<void> {
  const clients: SmbClient[] = [];
  try {
    for (let i = 0; i < 2; i++) clients.push(await SmbClient.connect(lab.server(0).address));
    await work(clients[0]!, clients[1]!);
  } finally {
    await bringBack(lab);
    for (const client of clients) client.close();
  }
}

async function refusesWhenOver(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const shared = (name: string): string => join(place.share, name);
  await withClients(lab, async (client) => {
    const handles: Record<string, number> = {};
    for (const name of ['written', 'renamed', 'deleted', 'locked']) {
      handles[name] = (await client.mustOpen(name, CHANGING)).handle;
      assert.equal((await client.write(handles[name], 'old')).status, 'OK');
    }
    const toldBefore = timesTold(place);
    await endLease(lab);

    const opened = await client.open('written');
    assert.equal(opened.status, REFUSED);
    assertWaited(opened, WAIT_MILLIS);
    // one wait for all that is asked for while the lease is over
    const refused = async (what: string, asked: Promise<Answer>): Promise<void> => {
      const answer = await asked;
      assert.equal(answer.status, REFUSED, what);
      assert.ok(tookMillis(answer) < WAIT_MILLIS, `${what} took ${tookMillis(answer)} ms`);
    };
    await refused('write', client.write(handles['written']!, 'new'));
    await refused('truncate', client.truncate(handles['written']!, 1));
    assert.equal(readFileSync(shared('written'), 'utf8'), 'old');
    const read = await client.read(handles['written']!);
    assert.deepEqual([read.status, read.data], ['OK', 'old']);
    await refused('lock', client.lock(handles['locked']!, { offset: 0, length: 1 }));
    await refused('rename', client.rename(handles['renamed']!, 'elsewhere'));
    assert.deepEqual([existsSync(shared('renamed')), existsSync(shared('elsewhere'))], [true, false]);
    assert.equal((await client.delete(handles['deleted']!)).status, 'OK');
    await refused('delete', client.closeHandle(handles['deleted']!));
    assert.ok(existsSync(shared('deleted')));
    await refused('mkdir', client.open('folder', { folder: true, disposition: 'create' }));
    await refused('create', client.open('created', { disposition: 'create' }));
    assert.deepEqual([existsSync(shared('folder')), existsSync(shared('created'))], [false, false]);

    assert.equal(timesTold(place) - toldBefore, 1, 'said once in an episode');
  });
}

/** smbd itself had the open wait, for a break; when it runs it again, the lease is over. It is not parked for ever. */
async function refusesWhatWaitedForABreak(lab: Lab): Promise<void> {
  await withClients(lab, async (client, holder) => {
    await holder.request('automatic', { on: false });
    const held = await holder.mustOpen('broken', { ...CHANGING, oplock: 'batch' });
    assert.equal(held.oplock, 'batch');
    const opened = client.open('broken', CHANGING);
    const broken = await holder.nextBreak(BREAK_MILLIS_MAX);
    assert.ok(broken !== null, 'no break came');
    await endLease(lab);
    await holder.request('acknowledge', { handle: held.handle, to: broken.to });
    assert.equal((await opened).status, REFUSED);
    assertWaited(await opened, WAIT_MILLIS);
  });
}

/** Its own daemon does not run: the lease that it had ends. */
async function holdsWhileTheDaemonIsStopped(lab: Lab): Promise<void> {
  const place = lab.server(0);
  await withClients(lab, async (client) => {
    const file = await client.mustOpen('stopped', CHANGING);
    process.kill(daemonOf(lab), 'SIGSTOP');
    const deadline = deadlineOf(place);
    let refused: Answer | null = null;
    let writes = 0;
    while (refused === null) {
      const answer = await client.write(file.handle, `${writes}`.padStart(4, '0'));
      if (answer.status === 'OK') writes += 1;
      else refused = answer;
      // what was answered as written was written in time
      const late = Math.round(answer.at * 1e6) - Number(deadline);
      if (answer.status === 'OK') assert.ok(late < LATE_MILLIS_MAX * 1000, `${late} us after the deadline`);
    }
    assert.ok(writes > 0, 'refused before the deadline');
    assert.equal(refused.status, REFUSED);
    assert.ok(refused.at * 1e6 >= Number(deadline) + WAIT_MILLIS * 1000, 'it did not wait from the deadline on');
    // the last one may have been under way when the lease ended: it is there, but was not answered as written
    const written = Number(readFileSync(join(place.share, 'stopped'), 'utf8'));
    assert.ok(written === writes - 1 || written === writes, `the file has ${written}, answered were ${writes}`);
    assert.ok(statSync(join(place.share, 'stopped')).mtimeMs < Date.now() - WAIT_MILLIS + AHEAD_MILLIS);
  });
}

/** smbd ends when its daemon does, and the daemon's next run has to wait for that: nobody waits for a lease then. */
async function waitsForNoDeadDaemon(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const client = await SmbClient.connect(place.address);
  const file = await client.mustOpen('dead', CHANGING);
  await endLease(lab);
  const began = performance.now();
  const ended = (status: string) => ({ status, tookMillis: performance.now() - began });
  const writing = client.write(file.handle, 'new').then(({ status }) => ended(status), () => ended('lost'));
  await pause(AHEAD_MILLIS);
  await killDaemon(lab, place);
  const written = await writing;
  assert.ok([REFUSED, 'lost'].includes(written.status), `it was answered ${written.status}`);
  assert.ok(written.tookMillis < WAIT_MILLIS, `it waited ${written.tookMillis} ms for a daemon that is dead`);
  assert.equal(readFileSync(join(place.share, 'dead'), 'utf8'), '');
  client.close();
  forgetTheEnd(place);
}

/** Each of these waits alone: while one does, its smbd serves nothing else. */
async function goesOnWhenRestored(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const witness = [lab.options.servers];
  const client = await SmbClient.connect(place.address);
  try {
    const file = await client.mustOpen('restored', CHANGING);
    const requests: [string, () => Promise<Answer>][] = [
      ['open', () => client.open('restored', CHANGING)],
      ['write', () => client.write(file.handle, 'written late')],
      ['lock', () => client.lock(file.handle, { offset: 0, length: 1 })],
      ['rename', () => client.rename(file.handle, 'restored-and-renamed')],
    ];
    for (const [what, request] of requests) {
      await endLease(lab, witness);
      const answer = request();
      await pause(RESTORED_AFTER_MILLIS);
      await renewLease(lab, witness);
      assert.equal((await answer).status, 'OK', what);
      // from the client's own clock: it may have sent it a little late
      assertWaited(await answer, RESTORED_AFTER_MILLIS - 100);
    }
    assert.equal(readFileSync(join(place.share, 'restored-and-renamed'), 'utf8'), 'written late');
  } finally {
    client.close();
  }
}

test('a server whose lease is over', { skip: WITHOUT_MODULE }, async (t) => {
  const shareOptions = [`smbpool:fence wait ms = ${WAIT_MILLIS}`, `smbpool:wait ms = ${OPEN_WAIT_MILLIS}`];
  await withLab({ servers: 3, shareOptions }, async (lab) => {
    await t.test('opens and changes are refused, reads go on', () => refusesWhenOver(lab));
    await t.test('an open that waited for a break is refused, too', () => refusesWhatWaitedForABreak(lab));
    await t.test('also while the daemon is stopped', () => holdsWhileTheDaemonIsStopped(lab));
    await t.test('a daemon that is dead is not waited for', () => waitsForNoDeadDaemon(lab));
  });
  // nobody else can lead: the run goes on when the majority is back
  await withLab({ servers: 1, witness: true, shareOptions }, async (lab) => {
    await t.test('what waits goes on when the lease comes back', () => goesOnWhenRestored(lab));
  });
});
