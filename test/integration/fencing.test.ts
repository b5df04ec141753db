/**
 * A server whose lease is over, on real smbds: what its clients open and change waits, and is refused when the lease
 * does not come back; what they read goes on. No daemon uses leases here, so the test writes the word itself, into the
 * file of the node page, which the smbds have mapped.
 */
import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readFileSync, readdirSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { forgetTheEnd, killDaemon } from './kill-daemon.js';
import { statusOf } from './modules.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

/** native/shared/smbpool_layout.h. */
const LEASE_DEADLINE_AT = 256;
const NO_LEASE = 0n;
const WAIT_MILLIS = 1_500;
/** A wait ends when it is over; on a busy machine this much later at the most. */
const LATE_MILLIS_MAX = 3_000;
const RESTORED_AFTER_MILLIS = 500;
const AHEAD_MILLIS = 300;
/** After so long an open goes on that waits for its records, and waits for them inside of smbd. */
const OPEN_WAIT_MILLIS = 200;
const BREAK_MILLIS_MAX = 10_000;
/** NT_STATUS_CONNECTION_DISCONNECTED, which the client has no name for. */
const REFUSED = '0xC000020C';
const TOLD = 'lease in the pool is over';
const CHANGING: OpenRequest = { access: ['read', 'write', 'delete'], share: 'rwd', disposition: 'open_if' };

function setDeadline(place: ServerPlace, deadlineMicros: bigint): void {
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(deadlineMicros);
  const page = openSync(join(place.directory, 'node.page'), 'r+');
  assert.equal(writeSync(page, word, 0, word.length, LEASE_DEADLINE_AT), word.length);
  closeSync(page);
}

const now = (): bigint => process.hrtime.bigint() / 1000n;
const endLease = (place: ServerPlace): void => setDeadline(place, now());
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

/** Runs `work` with a client of each server; afterwards leases are not in use again. */
async function withClients(lab: Lab, work: (fenced: SmbClient, other: SmbClient) => Promise<void>): Promise<void> {
  const clients: SmbClient[] = [];
  try {
    for (const id of [0, 1]) clients.push(await SmbClient.connect(lab.server(id).address));
    await work(clients[0]!, clients[1]!);
  } finally {
    setDeadline(lab.server(0), NO_LEASE);
    for (const client of clients) client.close();
  }
}

async function refusesWhenOver(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const shared = (name: string): string => join(place.share, name);
  await withClients(lab, async (client, other) => {
    const handles: Record<string, number> = {};
    for (const name of ['written', 'renamed', 'deleted', 'locked']) {
      handles[name] = (await client.mustOpen(name, CHANGING)).handle;
      assert.equal((await client.write(handles[name], 'old')).status, 'OK');
    }
    const before = (await statusOf(place)).counters['ring.fence.refused'] ?? 0;
    const toldBefore = timesTold(place);
    endLease(place);

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

    // another server of the pool goes on meanwhile
    const theirs = await other.mustOpen('written', CHANGING);
    assert.equal((await other.closeHandle(theirs.handle)).status, 'OK');
    assert.equal(timesTold(place) - toldBefore, 1, 'said once in an episode');
    const counted = async (): Promise<boolean> =>
      ((await statusOf(place)).counters['ring.fence.refused'] ?? 0) - before >= 8;
    assert.ok(await waitUntil(counted, LATE_MILLIS_MAX, 100), 'the page does not count what was refused');

    setDeadline(place, now() + 60_000_000n);
    assert.equal((await client.write(handles['written']!, 'new')).status, 'OK');
    assert.equal((await client.rename(handles['renamed']!, 'elsewhere')).status, 'OK');
    assert.equal((await client.lock(handles['locked']!, { offset: 0, length: 1 })).status, 'OK');
    assert.equal((await client.open('created', { disposition: 'create' })).status, 'OK');
    assert.equal(readFileSync(shared('written'), 'utf8'), 'new');
  });
}

/** Each of these waits alone: while one does, its smbd serves nothing else. */
async function goesOnWhenRestored(lab: Lab): Promise<void> {
  const place = lab.server(0);
  await withClients(lab, async (client) => {
    const file = await client.mustOpen('restored', CHANGING);
    const requests: [string, () => Promise<Answer>][] = [
      ['open', () => client.open('restored', CHANGING)],
      ['write', () => client.write(file.handle, 'written late')],
      ['lock', () => client.lock(file.handle, { offset: 0, length: 1 })],
      ['rename', () => client.rename(file.handle, 'restored-and-renamed')],
    ];
    for (const [what, request] of requests) {
      endLease(place);
      const answer = request();
      await pause(RESTORED_AFTER_MILLIS);
      setDeadline(place, now() + 60_000_000n);
      assert.equal((await answer).status, 'OK', what);
      // from the client's own clock: it may have sent it a little late
      assertWaited(await answer, RESTORED_AFTER_MILLIS - 100);
    }
    assert.equal(readFileSync(join(place.share, 'restored-and-renamed'), 'utf8'), 'written late');
  });
}

/** smbd itself had the open wait, for a break; when it runs it again, the lease is over. It is not parked for ever. */
async function refusesWhatWaitedForABreak(lab: Lab): Promise<void> {
  const place = lab.server(0);
  await withClients(lab, async (client, holder) => {
    await holder.request('automatic', { on: false });
    const held = await holder.mustOpen('broken', { ...CHANGING, oplock: 'batch' });
    assert.equal(held.oplock, 'batch');
    const opened = client.open('broken', CHANGING);
    const broken = await holder.nextBreak(BREAK_MILLIS_MAX);
    assert.ok(broken !== null, 'no break came');
    endLease(place);
    await holder.request('acknowledge', { handle: held.handle, to: broken.to });
    assert.equal((await opened).status, REFUSED);
    assertWaited(await opened, WAIT_MILLIS);
    setDeadline(place, NO_LEASE);
    assert.equal((await client.open('broken', CHANGING)).status, 'OK');
  });
}

/** The lease ends while smbd, in the middle of an open, waits for a record of another server that stands still. */
async function takesAnOpenBack(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const daemon = lab.process('smbpoold', 1)?.pid ?? 0;
  await withClients(lab, async (client, other) => {
    for (let times = 0; times < 2; times++) {
      await other.closeHandle((await other.mustOpen('taken-back', CHANGING)).handle);
    }
    process.kill(daemon, 'SIGSTOP');
    let opened;
    try {
      opened = client.open('taken-back', CHANGING);
      await pause(2 * OPEN_WAIT_MILLIS);
      endLease(place);
    } finally {
      process.kill(daemon, 'SIGCONT');
    }
    const answer = await opened;
    assert.equal(answer.status, REFUSED);
    assertWaited(answer, 2 * OPEN_WAIT_MILLIS + WAIT_MILLIS - 100);
    // nothing is left of it in the pool: nobody else has the file open
    const alone = await other.mustOpen('taken-back', { ...CHANGING, share: '' });
    assert.equal((await other.closeHandle(alone.handle)).status, 'OK');
  });
}

/** A second fenced episode waits again, and a daemon that does not run changes nothing. */
async function holdsWhileTheDaemonIsStopped(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const daemon = lab.process('smbpoold', place.id)?.pid ?? 0;
  await withClients(lab, async (client) => {
    const file = await client.mustOpen('stopped', CHANGING);
    process.kill(daemon, 'SIGSTOP');
    try {
      const deadline = now() + BigInt(AHEAD_MILLIS * 1000);
      setDeadline(place, deadline);
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
    } finally {
      process.kill(daemon, 'SIGCONT');
    }
  });
}

/** smbd ends when its daemon does, and the daemon's next run has to wait for that: nobody waits for a lease then. */
async function waitsForNoDeadDaemon(lab: Lab): Promise<void> {
  const place = lab.server(0);
  const client = await SmbClient.connect(place.address);
  const file = await client.mustOpen('dead', CHANGING);
  endLease(place);
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

test('a server whose lease is over', { skip: WITHOUT_MODULE }, async (t) => {
  const shareOptions = [`smbpool:fence wait ms = ${WAIT_MILLIS}`, `smbpool:wait ms = ${OPEN_WAIT_MILLIS}`];
  await withLab({ servers: 2, shareOptions }, async (lab) => {
    await t.test('opens and changes are refused, reads go on', () => refusesWhenOver(lab));
    await t.test('what waits goes on when the lease comes back', () => goesOnWhenRestored(lab));
    await t.test('an open that waited for a break is refused, too', () => refusesWhatWaitedForABreak(lab));
    await t.test('an open is taken back when the lease ends in the middle of it', () => takesAnOpenBack(lab));
    await t.test('also while the daemon is stopped', () => holdsWhileTheDaemonIsStopped(lab));
    await t.test('a daemon that is dead is not waited for', () => waitsForNoDeadDaemon(lab));
  });
});
