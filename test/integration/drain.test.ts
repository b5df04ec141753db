/**
 * Before a server that is drained sends its clients away, it has them write what they cache: leases and oplocks are
 * broken until none lets a client cache writes, none such is granted, and the public address stays until that is done,
 * or the bounded time is over. The figures go to the output.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { ask } from '../../src/cli/admin-client.js';
import type { Lab } from '../../src/lab/lab.js';
import { publicAddress } from '../../src/lab/layout.js';
import { pause, tryRun, waitUntil } from '../../src/lab/run.js';
import type { BreakEvent, OpenRequest, Opened } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { ADMIN_PATH } from '../../src/ports/admin.js';
import type { AddressReport, StatusReport } from '../../src/ports/status.js';
import { repositoryRoot } from '../support/repository.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const COMMAND = join(repositoryRoot(), 'dist/src/cli/main.js');
const ADDRESSES = [0, 1].map(publicAddress);
const BALANCE_MILLIS_MAX = 30_000;
const BREAK_MILLIS_MAX = 5_000;
/** The client takes so long to write what it has; below the bounded time. */
const FLUSH_MILLIS = 2_000;
/** health.drain.leasesMs, which the lab leaves as it is. */
const LEASES_MILLIS = 10_000;
/** The table of addresses, and the command itself. */
const MOVE_MILLIS_MAX = 10_000;
const DIRTY = 'what the client had only in its cache';

const seconds = (): number => Number(process.hrtime.bigint()) / 1e9;
const say = (what: string, since: number): void =>
  void process.stdout.write(`  ${what}: ${Math.round((seconds() - since) * 1000)} ms\n`);

async function smbpool(lab: Lab, ...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const socket = ['--socket', lab.server(0).adminSocket];
  const { status, stdout, stderr } = await tryRun(process.execPath, [COMMAND, ...args, ...socket]);
  assert.equal(status, 0, `smbpool ${args.join(' ')}: ${stderr}`);
  return { stdout, stderr };
}

async function holder(lab: Lab, address: string): Promise<number | null> {
  const addresses = await ask<AddressReport[]>(lab.server(0).adminSocket, ADMIN_PATH.addresses);
  return addresses.find((one) => one.address === address)?.holder ?? null;
}

async function untilBalanced(lab: Lab): Promise<void> {
  const isSo = async () => (await Promise.all(ADDRESSES.map((one) => holder(lab, one)))).sort().join() === '0,1';
  assert.ok(await waitUntil(isSo, BALANCE_MILLIS_MAX, 50), 'the addresses are not balanced');
}

async function addressOf(lab: Lab, server: number): Promise<string> {
  await untilBalanced(lab);
  for (const address of ADDRESSES) if ((await holder(lab, address)) === server) return address;
  throw new Error('balanced, and none is there');
}

async function leasesOf(lab: Lab, server: number): Promise<string> {
  const { servers } = await ask<StatusReport>(lab.server(0).adminSocket, ADMIN_PATH.status);
  const { leases, fitness } = servers.find(({ id }) => id === server)!;
  return `${fitness} ${leases === undefined ? 'none' : `${leases.breaking ? 'breaking' : 'left'} ${leases.left}`}`;
}

/** A client on the address of server 1, which says itself when it gives up what it has. */
async function slowClient(address: string): Promise<SmbClient> {
  const client = await SmbClient.connect(address);
  await client.request('automatic', { on: false });
  return client;
}

async function broken(client: SmbClient, to: string): Promise<BreakEvent> {
  const told = await client.nextBreak(BREAK_MILLIS_MAX);
  assert.ok(told !== null, 'the client was not told of a break');
  assert.deepEqual([told.to, told.acknowledge], [to, true]);
  return told;
}

const acknowledge = (client: SmbClient, { handle, leaseKey, to }: BreakEvent) =>
  client.request('acknowledge', { handle, to, ...(leaseKey === undefined ? {} : { leaseKey }) });

const granted = ({ lease, oplock }: Opened): string => lease ?? oplock ?? '';

interface Caching {
  asks: OpenRequest;
  has: string;
  breaksTo: string;
}

const LEASE: Caching = { asks: { disposition: 'open_if', lease: 'RWH' }, has: 'RWH', breaksTo: 'RH' };
const BATCH: Caching = { asks: { disposition: 'open_if', oplock: 'batch' }, has: 'batch', breaksTo: 'level2' };

/** The client writes what it has, and only when it has acknowledged does the address go. */
async function flushedFirst(lab: Lab, file: string, caching: Caching): Promise<void> {
  const address = await addressOf(lab, 1);
  const client = await slowClient(address);
  try {
    const held = await client.mustOpen(file, caching.asks);
    assert.equal(granted(held), caching.has);
    const since = seconds();
    const draining = smbpool(lab, 'drain', 'server-1', '--wait');
    const told = await broken(client, caching.breaksTo);
    say(`${file}: the break came after`, since);
    const isBreaking = async () => (await leasesOf(lab, 1)) === 'fit breaking 1';
    assert.ok(await waitUntil(isBreaking, BREAK_MILLIS_MAX, 20), await leasesOf(lab, 1));
    const { stdout: status } = await smbpool(lab, 'status', '--seconds', '0');
    assert.match(status, /server-1 is about to be drained: .* 1 left: (lease RWH|batch) on pool/);
    // while it writes, what is opened beside it may cache no writes, on either way to this server
    const beside = await client.mustOpen(`${file}-beside`, caching.asks);
    assert.equal(granted(beside), caching.breaksTo);
    const other = await SmbClient.connect(lab.server(1).address);
    assert.equal(granted(await other.mustOpen(`${file}-other`, caching.asks)), caching.breaksTo);
    other.close();
    await pause(FLUSH_MILLIS);
    assert.equal(await holder(lab, address), 1, 'the address went before the client had written');
    assert.equal((await client.write(held.handle, DIRTY)).status, 'OK');
    assert.equal((await acknowledge(client, told)).status, 'OK');
    const acknowledged = seconds();
    const { stdout, stderr } = await draining;
    say(`${file}: acknowledged; the server has no clients after`, acknowledged);
    assert.match(stdout, /^server-1 is drained until .*\nserver-1 has no clients\n$/);
    assert.match(stderr, /server-1 breaks its clients' leases and oplocks first: 1 left\n/);
    assert.equal(await holder(lab, address), 0);
    assert.ok(client.lostAt !== null || (await waitUntil(() => client.lostAt !== null, MOVE_MILLIS_MAX, 20)));
    assert.ok(client.lostAt! > acknowledged, 'it was sent away before it had acknowledged');
    assert.equal(readFileSync(join(lab.layout.share, file), 'utf8'), DIRTY);
    assert.equal(await leasesOf(lab, 1), 'draining none');
  } finally {
    client.close();
    await smbpool(lab, 'undrain', 'server-1');
  }
}

/** After an undrain everything is granted again. */
async function grantedAgain(lab: Lab): Promise<void> {
  const client = await SmbClient.connect(await addressOf(lab, 1));
  try {
    assert.equal(granted(await client.mustOpen('again', LEASE.asks)), LEASE.has);
    assert.equal(granted(await client.mustOpen('again-batch', BATCH.asks)), BATCH.has);
  } finally {
    client.close();
  }
}

/** Who does not acknowledge is waited for so long, and named. */
async function givenUp(lab: Lab): Promise<void> {
  const address = await addressOf(lab, 1);
  const [deaf, good] = [await slowClient(address), await SmbClient.connect(address)];
  try {
    await deaf.mustOpen('deaf', LEASE.asks);
    await good.mustOpen('good', LEASE.asks);
    const second = await good.mustOpen('good', { ...LEASE.asks, lease: 'RH' });
    assert.equal(second.status, 'OK');
    const since = seconds();
    const draining = smbpool(lab, 'drain', 'server-1');
    await broken(deaf, 'RH');
    await pause(LEASES_MILLIS - 3_000);
    assert.deepEqual([await leasesOf(lab, 1), await holder(lab, address)], ['fit breaking 1', 1]);
    const { stdout } = await draining;
    const took = (seconds() - since) * 1000;
    say('a client that does not acknowledge; the drain goes on after', since);
    assert.ok(took >= LEASES_MILLIS && took < LEASES_MILLIS + MOVE_MILLIS_MAX, `${took} ms`);
    const left = /server-1 could not break 1 lease in time; .*:\n {2}lease RWH on pool\/deaf, of 10\.77\.0\.\d+/;
    assert.match(stdout, left);
    const isMoved = async () => (await holder(lab, address)) === 0;
    assert.ok(await waitUntil(isMoved, MOVE_MILLIS_MAX, 50), 'the address did not move');
  } finally {
    deaf.close();
    good.close();
    await smbpool(lab, 'undrain', 'server-1');
  }
}

/** Nobody caches anything. */
async function atOnce(lab: Lab): Promise<void> {
  const client = await SmbClient.connect(await addressOf(lab, 1));
  try {
    await client.mustOpen('reads', { disposition: 'open_if', lease: 'RH' });
    const since = seconds();
    const { stdout } = await smbpool(lab, 'drain', 'server-1', '--wait');
    say('with a lease without W, drained after', since);
    assert.match(stdout, /^server-1 is drained until .*\nserver-1 has no clients\n$/);
    assert.equal(await client.nextBreak(0), null, 'a lease without W need not be broken');
  } finally {
    client.close();
    await smbpool(lab, 'undrain', 'server-1');
  }
}

test('leases are broken before clients are sent away', { skip: WITHOUT_MODULE }, async (t) => {
  await withLab({ servers: 2, witness: true, addresses: ADDRESSES.length, leaseMillis: 2_000 }, async (lab) => {
    await t.test('a lease', () => flushedFirst(lab, 'lease', LEASE));
    await t.test('granted again after undrain', () => grantedAgain(lab));
    await t.test('a batch oplock', () => flushedFirst(lab, 'batch', BATCH));
    await t.test('a client that does not acknowledge', () => givenUp(lab));
    await t.test('nothing to break', () => atOnce(lab));
  });
});
