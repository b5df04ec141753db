/**
 * An open that waits for the share modes' record of its file must be answered with what the file is when the lease is
 * granted. smbd looks at the file before it asks for the record. Here the daemon that has the record is held up in
 * between, and the client of its server, which holds a write lease and so asks nobody, changes the file and closes it.
 */
import assert from 'node:assert/strict';
import { statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { isAlive } from '../../src/lab/processes.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { statusOf } from './modules.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const OLD = 'old!';
/** As the module waits without blocking smbd; then smbd looks at the file and blocks. Shorter than usual. */
const WAIT_MILLIS = 100;
const ASK_MILLIS_MAX = 10_000;
/** Longer than daemons are stopped here, however slow the machine is: that is not about losing a server. */
const LEASE_MILLIS = 30_000;
/** From smbd's look at the file to its question for the record it is microseconds. */
const ASKED_MILLIS = 100;
/** An oplock, no lease: smbd reads the lease's own record before its look, and the home of that may be held up, too. */
const READING: OpenRequest = { access: ['read'], disposition: 'open', oplock: 'level2' };

/** Runs `work` while the daemon of this server stands still. */
async function whileStopped(lab: Lab, server: number, work: () => Promise<void>): Promise<void> {
  const daemon = lab.process('smbpoold', server);
  assert.ok(daemon !== null && isAlive(daemon));
  process.kill(daemon.pid, 'SIGSTOP');
  try {
    await work();
  } finally {
    process.kill(daemon.pid, 'SIGCONT');
  }
}

/** How often the smbds of this server asked for a record of their own accord, after they looked at a file. */
async function questions(lab: Lab, server: number): Promise<number> {
  return (await statusOf(lab.server(server))).counters['gate.call.migrate'] ?? 0;
}

/** What whoever looks in the folder itself sees; the last write time as SMB tells it, in 100 ns since 1601. */
function onDisk(lab: Lab, file: string): { size: number; lastWrite: string } {
  const { size, mtimeNs } = statSync(join(lab.layout.share, file), { bigint: true });
  return { size: Number(size), lastWrite: String(mtimeNs / 100n + 116_444_736_000_000_000n) };
}

/** Opens the file on server 1, whose smbd looks at it and asks for its record; meanwhile `work` is done; the answer. */
async function openMeanwhile(lab: Lab, opener: SmbClient, file: string, work: () => Promise<void>): Promise<Answer> {
  let opening: Promise<Answer> | undefined;
  let isAnswered = false;
  await whileStopped(lab, 0, async () => {
    const before = await questions(lab, 1);
    opening = opener.open(file, READING).finally(() => (isAnswered = true));
    // awaited below, unless something else fails first
    opening.catch(() => undefined);
    const asks = async () => (await questions(lab, 1)) > before;
    assert.ok(await waitUntil(asks, ASK_MILLIS_MAX, 10), 'smbd of server 1 does not ask for the record');
    await pause(ASKED_MILLIS);
    await work();
    assert.ok(!isAnswered, 'the open did not wait for the record: nothing is proved');
  });
  assert.ok(opening !== undefined);
  return opening;
}

type Change = (writer: SmbClient, handle: number) => Promise<Answer[]>;

/** `file` must be new: its record must be on the writer's server, and nobody else may be closing it still. */
async function takenOver(lab: Lab, file: string, change: Change): Promise<void> {
  const clients: SmbClient[] = [];
  try {
    for (const place of lab.servers()) clients.push(await SmbClient.connect(place.address));
    const [writer, opener, third] = clients as [SmbClient, SmbClient, SmbClient];
    const held = await writer.mustOpen(file, { disposition: 'overwrite_if', lease: 'RWH' });
    assert.equal(held.lease, 'RWH');
    await writer.write(held.handle, OLD);
    const opened = await openMeanwhile(lab, opener, file, async () => {
      const done = [...(await change(writer, held.handle)), await writer.closeHandle(held.handle)];
      assert.deepEqual(done.map(({ status }) => status), done.map(() => 'OK'));
    });
    const later = await third.open(file, READING);
    const expected = { status: 'OK', oplock: 'level2', ...onDisk(lab, file) };
    const told = (answer?: Answer) =>
      ({ status: answer?.status, oplock: answer?.oplock, size: answer?.size, lastWrite: answer?.lastWrite });
    assert.deepEqual(told(opened), expected, 'the open that waited is told something old');
    assert.deepEqual(told(later), expected, 'an open on a third server is told something old');
  } finally {
    for (const client of clients) client.close();
  }
}

const CHANGES: Record<string, Change> = {
  'longer': async (writer, handle) => [await writer.truncate(handle, 0), await writer.write(handle, 'newer')],
  'as-long': async (writer, handle) => [await writer.write(handle, 'new!')],
  'empty': async (writer, handle) => [await writer.truncate(handle, 0)],
};

/**
 * Setting a file's end notes the time in the share modes, for further opens, to the nanosecond; a write right after it
 * gives the file the kernel's time, which may be some milliseconds earlier. What is noted must stay: a client that
 * knows the file by the earlier time would take its new content for what it has.
 */
async function notedTimeStays(lab: Lab): Promise<void> {
  const file = 'noted';
  const clients: SmbClient[] = [];
  try {
    for (const place of lab.servers()) clients.push(await SmbClient.connect(place.address));
    const [writer, opener, third] = clients as [SmbClient, SmbClient, SmbClient];
    const held = await writer.mustOpen(file, { disposition: 'overwrite_if' });
    await writer.write(held.handle, OLD);
    let noted = '';
    const opened = await openMeanwhile(lab, opener, file, async () => {
      assert.equal((await writer.truncate(held.handle, 0)).status, 'OK');
      noted = onDisk(lab, file).lastWrite;
      const path = join(lab.layout.share, file);
      const { mtimeMs } = statSync(path);
      utimesSync(path, new Date(mtimeMs), new Date(mtimeMs - 1000));
    });
    assert.deepEqual([opened.status, opened.size], ['OK', 0], 'the open that waited is told something old');
    const later = await third.open(file, READING);
    assert.equal(later.status, 'OK');
    assert.ok(BigInt(later.lastWrite ?? 0) >= BigInt(noted), `told ${later.lastWrite}, noted was ${noted}`);
  } finally {
    for (const client of clients) client.close();
  }
}

test('what changed while an open waited for the share modes', { skip: WITHOUT_MODULE }, async (t) => {
  const shareOptions = [`smbpool:wait ms = ${WAIT_MILLIS}`];
  await withLab({ servers: 3, leaseMillis: LEASE_MILLIS, shareOptions }, async (lab) => {
    for (const [what, change] of Object.entries(CHANGES)) await t.test(what, () => takenOver(lab, what, change));
    await t.test('a write time that was noted does not go back', () => notedTimeStays(lab));
  });
});
