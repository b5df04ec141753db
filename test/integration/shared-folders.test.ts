/**
 * A folder that clients of all servers open again and again is delegated to their servers; what one server would answer
 * is answered all the same: to whoever excludes the others, deletes the folder, loses its smbd, its daemon or its
 * server (docs/decisions/shared-folders.md).
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { waitUntil } from '../../src/lab/run.js';
import type { Opened, OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { attachedSmbds } from '../../src/lab/smbds.js';
import { killServer, startAgain } from './failover.js';
import { assertNothingLeft, statusOf } from './modules.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const SHARING: OpenRequest = { folder: true, access: ['read'], disposition: 'open' };
const ALONE: OpenRequest = { ...SHARING, share: '' };
const DELETING: OpenRequest = { ...SHARING, access: ['read', 'delete'] };
/** Opens must go on for a second before there is a delegation, and on a busy machine they take their time. */
const DELEGATED_MILLIS_MAX = 30_000;
const NOTICED_MILLIS_MAX = 20_000;
/** An open that cannot exclude somebody who hangs is refused after 5 s. */
const REFUSED_SECONDS = 5;
const SERVERS = [0, 1, 2] as const;

async function counterOf(lab: Lab, server: number, name: string): Promise<number> {
  return (await statusOf(lab.server(server))).counters[name] ?? 0;
}

async function sum(lab: Lab, name: string): Promise<number> {
  const counts = await Promise.all(SERVERS.map((server) => counterOf(lab, server, name)));
  return counts.reduce((a, b) => a + b, 0);
}

async function use(client: SmbClient, folder: string): Promise<void> {
  await client.closeHandle((await client.mustOpen(folder, SHARING)).handle);
}

/** All open the folder until no open of anybody moves its record. */
async function share(lab: Lab, clients: readonly SmbClient[], folder: string): Promise<void> {
  const [first] = clients;
  await first!.closeHandle((await first!.mustOpen(folder, { folder: true, disposition: 'open_if' })).handle);
  const isShared = async (): Promise<boolean> => {
    for (let i = 0; i < 5; i++) await Promise.all(clients.map((client) => use(client, folder)));
    const before = await sum(lab, 'record.arrived.move');
    for (let i = 0; i < 5; i++) await Promise.all(clients.map((client) => use(client, folder)));
    return (await sum(lab, 'record.arrived.move')) === before;
  };
  assert.ok(await waitUntil(isShared, DELEGATED_MILLIS_MAX, 10), `opens of ${folder} go on moving its record`);
  assert.ok((await sum(lab, 'folder.delegated')) > 0);
}

/** Each client has it open. */
function all(clients: readonly SmbClient[], folder: string): Promise<Opened[]> {
  return Promise.all(clients.map((client) => client.mustOpen(folder, SHARING)));
}

async function closeAll(clients: readonly SmbClient[], handles: readonly Opened[]): Promise<void> {
  await Promise.all(clients.map((client, i) => client.closeHandle(handles[i]!.handle)));
}

async function opensAlone(client: SmbClient, folder: string, after: string): Promise<void> {
  const { status, handle } = await client.open(folder, ALONE);
  assert.equal(status, 'OK', after);
  await client.closeHandle(handle!);
}

async function excludes(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'hot');
  const handles = await all(clients, 'hot');
  const moved = await sum(lab, 'folder.moved');
  await clients[0]!.closeHandle(handles[0]!.handle);
  for (const client of clients) assert.equal((await client.open('hot', ALONE)).status, 'SHARING_VIOLATION');
  assert.ok((await sum(lab, 'folder.moved')) > moved, 'no entry was in a slice: nothing is proved');
  await closeAll(clients.slice(1), handles.slice(1));
  for (const [i, client] of clients.entries()) {
    const { handle } = await client.mustOpen('hot', ALONE);
    for (const other of clients) assert.equal((await other.open('hot', SHARING)).status, 'SHARING_VIOLATION');
    await client.closeHandle(handle);
    await use(clients[(i + 1) % clients.length]!, 'hot');
  }
}

async function makes(_lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  for (const [i, client] of clients.entries()) {
    const { handle } = await client.mustOpen(`made-${i}`, { ...ALONE, disposition: 'create' });
    for (const other of clients) assert.equal((await other.open(`made-${i}`, SHARING)).status, 'SHARING_VIOLATION');
    await client.closeHandle(handle);
    for (const other of clients) await use(other, `made-${i}`);
  }
}

async function deletes(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'going');
  const handles = await all(clients, 'going');
  const [first, ...others] = clients;
  const doomed = await first!.mustOpen('going', { ...DELETING, deleteOnClose: true });
  await first!.closeHandle(doomed.handle);
  for (const client of clients) assert.equal((await client.open('going', SHARING)).status, 'DELETE_PENDING');
  const folder = join(lab.layout.share, 'going');
  await first!.closeHandle(handles[0]!.handle);
  assert.ok(existsSync(folder), 'others have it open');
  await closeAll(others, handles.slice(1));
  assert.ok(!existsSync(folder), 'nobody has it open any more');
}

/** The only smbd of a server that has the module, and so serves the only client there. */
function smbdOf(lab: Lab, server: number): number {
  const [smbd, ...more] = attachedSmbds(lab, lab.server(server));
  assert.ok(smbd !== undefined && more.length === 0, `not one smbd on server ${server} has the module`);
  return smbd;
}

async function smbdHangs(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'held');
  const handles = await all(clients, 'held');
  await closeAll(clients.slice(0, 2), handles.slice(0, 2));
  const smbd = smbdOf(lab, 2);
  try {
    process.kill(smbd, 'SIGSTOP');
    const refused = await clients[0]!.open('held', ALONE);
    assert.equal(refused.status, 'SHARING_VIOLATION');
    assert.ok(refused.at - refused.sent > REFUSED_SECONDS - 1, 'it did not wait for the smbd that hangs');
    await use(clients[1]!, 'held');
  } finally {
    process.kill(smbd, 'SIGCONT');
  }
  assert.equal((await clients[0]!.open('held', ALONE)).status, 'SHARING_VIOLATION', 'it is open still');
  await clients[2]!.closeHandle(handles[2]!.handle);
  await opensAlone(clients[0]!, 'held', 'all have closed it');
}

async function smbdDies(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'left');
  const handles = await all(clients, 'left');
  await closeAll(clients.slice(0, 2), handles.slice(0, 2));
  process.kill(smbdOf(lab, 2), 'SIGKILL');
  const opens = async () => {
    const { status, handle } = await clients[0]!.open('left', ALONE);
    if (status === 'OK') await clients[0]!.closeHandle(handle!);
    return status === 'OK';
  };
  assert.ok(await waitUntil(opens, NOTICED_MILLIS_MAX, 20), 'what a dead smbd had open excludes others');
}

async function daemonDies(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'taken');
  const handles = await all(clients, 'taken');
  for (const server of SERVERS) {
    const { pid, standby } = await standbyOf(lab, server);
    process.kill(pid, 'SIGKILL');
    const isTakenOver = async () => (await standbyOf(lab, server)).pid === standby?.pid;
    assert.ok(await waitUntil(isTakenOver, NOTICED_MILLIS_MAX, 20), `nobody took over on server ${server}`);
    for (const client of clients) assert.equal((await client.open('taken', ALONE)).status, 'SHARING_VIOLATION');
  }
  await closeAll(clients, handles);
  for (const client of clients) await opensAlone(client, 'taken', 'all have closed it');
  await share(lab, clients, 'taken');
}

async function standbyOf(lab: Lab, server: number) {
  let found: { pid: number; standby?: { pid: number | null; ready: boolean } } | null = null;
  const isReady = async () => (found = await statusOf(lab.server(server)).catch(() => null))?.standby?.ready === true;
  assert.ok(await waitUntil(isReady, NOTICED_MILLIS_MAX, 50), `server ${server} has no standby`);
  return found!;
}

async function serverDies(lab: Lab, clients: readonly SmbClient[]): Promise<void> {
  await share(lab, clients, 'lost');
  const handles = await all(clients, 'lost');
  await clients[0]!.closeHandle(handles[0]!.handle);
  const { gone } = await killServer(lab.server(2));
  const opened = await clients[0]!.open('lost', ALONE);
  assert.equal(opened.status, 'SHARING_VIOLATION', 'the client of server 1 has it open');
  await clients[1]!.closeHandle(handles[1]!.handle);
  await opensAlone(clients[0]!, 'lost', 'nobody else is left');
  await gone();
  await startAgain(lab, lab.server(2));
}

const STEPS = [
  ['who excludes the others, or is excluded, is answered as by one server', excludes],
  ['who makes it may exclude the others from the beginning', makes],
  ['who deletes it has it deleted when all have closed it', deletes],
  ['while an smbd hangs nobody excludes anybody, and the others go on', smbdHangs],
  ['what a dead smbd had open is forgotten', smbdDies],
  ['when a daemon dies and its standby goes on, nothing is forgotten and nothing is left', daemonDies],
  ['what a lost server had open is forgotten, and nothing else', serverDies],
] as const;

test('a folder that everybody opens', { skip: WITHOUT_MODULE }, async (t) => {
  await withLab({ servers: 3, sharedFolders: true, standby: true }, async (lab) => {
    for (const [what, step] of STEPS) {
      await t.test(what, async () => {
        const clients = await Promise.all(SERVERS.map((id) => SmbClient.connect(lab.server(id).address)));
        try {
          await step(lab, clients);
        } finally {
          for (const client of clients) client.close();
        }
        await assertNothingLeft(lab);
      });
    }
  });
});
