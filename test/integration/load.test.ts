/**
 * Random opens, locks, oplock and lease breaks, deletes and renames from 12 clients on three servers. Afterwards:
 * nothing was granted that excludes something else, nothing broke, no request is stuck, no record of a closed file is
 * left, the daemons' memory is flat, and the databases of the servers agree.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import { residentKilobytes } from '../../src/lab/processes.js';
import { pause } from '../../src/lab/run.js';
import { runLoad } from './load.js';
import type { LoadResult } from './load.js';
import type { ExclusiveHolding, LockHolding, OpenHolding } from './load-trace.js';
import { conflicts, takeReleased } from './load-trace.js';
import { PATIENT_LEASE_MILLIS, SKIP, assertNoPanics, withLab } from './pool.js';
import { assertConsistent, assertSettled } from './settled.js';

const CLIENTS = 12;
const SECONDS = Number(process.env['SMBPOOL_LOAD_SECONDS'] ?? 60);
/** When the memory is measured first: node has loaded and compiled everything, all databases are open. */
const WARM_FRACTION = 0.2;
const MEMORY_GROWTH_MAX = 0.2;
/** A short run ends before the garbage collector has found its level. */
const MEMORY_SLACK_SHORT_KILOBYTES = 40 * 1024;
const LONG_SECONDS = 300;

async function memory(lab: Lab): Promise<number[]> {
  return lab.servers().map((place) => {
    const daemon = lab.process('smbpoold', place.id);
    const kilobytes = daemon ? residentKilobytes(daemon) : null;
    assert.notEqual(kilobytes, null, `smbpoold of ${place.name} is gone`);
    return kilobytes ?? 0;
  });
}

function assertFlat(before: number[], after: number[]): void {
  const slack = SECONDS >= LONG_SECONDS ? 0 : MEMORY_SLACK_SHORT_KILOBYTES;
  for (const [server, start] of before.entries()) {
    const end = after[server] ?? 0;
    const allowed = start * (1 + MEMORY_GROWTH_MAX) + slack;
    assert.ok(end <= allowed, `memory of smbpoold on server ${server} grew from ${start} kB to ${end} kB`);
  }
}

function assertWorked({ counts }: LoadResult): void {
  const total = (what: string) => counts.get(`${what} OK`) ?? 0;
  process.stdout.write(`${[...counts].sort().map(([what, count]) => `${what}: ${count}`).join(', ')}\n`);
  for (const what of ['open', 'lock', 'unlock', 'write', 'rename', 'delete', 'close', 'break']) {
    assert.ok(total(what) > 0, `no ${what} succeeded: the load proves nothing`);
  }
  assert.ok((counts.get('open SHARING_VIOLATION') ?? 0) > 0, 'no open was refused: the clients never met');
  assert.ok((counts.get('lock LOCK_NOT_GRANTED') ?? 0) > 0, 'no lock was refused: the clients never met');
}

test('conflicting grants are noticed', () => {
  const who = (client: number, from: number, to: number) => ({ client, handle: 1, fileId: 'f', from, to });
  const all = { read: true, write: true, delete: true };
  const open = (client: number, from: number, to: number, share = all): OpenHolding => ({
    ...who(client, from, to), kind: 'open', access: { read: true, write: true, delete: false }, share,
  });
  const none = { read: false, write: false, delete: false };
  assert.equal(conflicts([open(1, 0, 5), open(2, 1, 6)]).length, 0);
  assert.equal(conflicts([open(1, 0, 5, none), open(2, 5, 6)]).length, 0);
  assert.equal(conflicts([open(1, 0, 5, none), open(2, 4, 6)]).length, 1);
  const exclusive: ExclusiveHolding = { ...who(1, 0, 3), kind: 'exclusive', granted: 'batch', ended: 'close' };
  assert.equal(conflicts([open(1, 0, 9), exclusive, open(2, 3, 6)]).length, 0);
  assert.equal(conflicts([open(1, 0, 9), exclusive, open(2, 2, 6)]).length, 1);
  const lock = (client: number, start: number, isExclusive: boolean): LockHolding => ({
    ...who(client, 0, 9), kind: 'lock', start, length: 10, exclusive: isExclusive,
  });
  assert.equal(conflicts([lock(1, 0, true), lock(2, 10, true)]).length, 0);
  assert.equal(conflicts([lock(1, 0, false), lock(2, 5, false)]).length, 0);
  assert.equal(conflicts([lock(1, 0, false), lock(2, 5, true)]).length, 1);
});

test('an unlock of a range that a handle locked twice releases the first lock', () => {
  const locks = [
    { start: 58, length: 2, exclusive: true },
    { start: 58, length: 1, exclusive: true },
    { start: 58, length: 1, exclusive: false },
  ];
  assert.deepEqual(takeReleased(locks, { start: 58, length: 1 }), { start: 58, length: 1, exclusive: true });
  assert.deepEqual(takeReleased(locks, { start: 58, length: 1 }), { start: 58, length: 1, exclusive: false });
  assert.equal(takeReleased(locks, { start: 58, length: 1 }), undefined);
  assert.equal(locks.length, 1);
});

/** Who waits where, for a failure that would be over when somebody looks. */
async function waitsOf(lab: Lab): Promise<string> {
  const told = lab.servers().map(async (place) => `${place.name}: ${await smbpool(place, 'waits', '--longer', '0')}`);
  const answers = await Promise.allSettled(told);
  return answers.map((one) => (one.status === 'fulfilled' ? one.value : 'no answer')).join('\n');
}

test(`${CLIENTS} clients on three servers for ${SECONDS} seconds`, { skip: SKIP }, async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  await withLab({ servers: 3, leaseMillis: PATIENT_LEASE_MILLIS }, async (lab) => {
    const addresses = lab.servers().map((place) => place.address);
    const running = runLoad({ addresses, clients: CLIENTS, seed, seconds: SECONDS });
    // observed below in any case; not to be called unhandled meanwhile
    running.catch(() => undefined);
    await pause(SECONDS * WARM_FRACTION * 1000);
    const before = await memory(lab);
    const result = await running.catch(async (error: unknown) => {
      if (error instanceof Error) error.message += `\n${await waitsOf(lab)}`;
      throw error;
    });
    const after = await memory(lab);
    process.stdout.write(`memory of the daemons in kB: ${before.join(', ')}, at the end ${after.join(', ')}\n`);
    assertWorked(result);
    assert.deepEqual(conflicts(result.holdings), [], 'two clients were granted what excludes each other');
    assertNoPanics(lab);
    await assertSettled(lab);
    await assertConsistent(lab);
    assertFlat(before, after);
  });
});
