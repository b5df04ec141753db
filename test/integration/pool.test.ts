/**
 * A pool of three with real smbds and real SMB clients: the demo's steps as assertions, Samba's and CTDB's own tools at
 * our socket, and a client process that is killed.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DEMO_STEPS } from '../../src/lab/demo-steps.js';
import type { Lab } from '../../src/lab/lab.js';
import { waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { PATIENT_LEASE_MILLIS, SKIP, assertNoPanics, withLab } from './pool.js';

/** smbd notices a dead holder at the next conflict; the daemon must have noticed its socket close by then. */
const NOTICE_MILLIS_MAX = 10_000;

async function tool(lab: Lab, server: number, command: string, ...args: string[]): Promise<string> {
  const result = await lab.runIn(lab.server(server), command, args);
  assert.equal(result.status, 0, `${command} ${args.join(' ')}: ${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** The pid of the smbd that serves the only open there is on this server. */
async function smbdOfOnlyOpen(lab: Lab, server: number): Promise<number> {
  const listing = await tool(lab, server, 'smbstatus', '--locks');
  // with clustering the pid is shown as NODE:PID
  const match = new RegExp(`^${server}:(\\d+)\\s`, 'm').exec(listing);
  assert.ok(match, listing);
  return Number(match[1]);
}

async function killedClientIsForgotten(lab: Lab): Promise<void> {
  const first = await SmbClient.connect(lab.server(0).address);
  const second = await SmbClient.connect(lab.server(2).address);
  try {
    await first.mustOpen('killed.txt', { share: '' });
    assert.equal((await second.open('killed.txt')).status, 'SHARING_VIOLATION');
    process.kill(await smbdOfOnlyOpen(lab, 0), 'SIGKILL');
    const opens = async () => (await second.open('killed.txt')).status === 'OK';
    assert.ok(await waitUntil(opens, NOTICE_MILLIS_MAX), 'the dead open on server 0 still keeps server 2 out');
  } finally {
    first.close();
    second.close();
  }
}

test('a pool of three', { skip: SKIP }, async (t) => {
  await withLab({ servers: 3, leaseMillis: PATIENT_LEASE_MILLIS }, async (lab) => {
    for (const step of DEMO_STEPS.filter((one) => lab.options.module || !one.needsModule)) {
      await t.test(step.title, async () => {
        const { held, seen } = await step.see(lab);
        assert.ok(held, `expected ${step.expected}; seen: ${seen}`);
      });
    }
    await t.test('the stock ctdb tool works at our socket', async () => {
      for (const server of [0, 1, 2]) {
        assert.match(await tool(lab, server, 'ctdb', 'ping'), new RegExp(`response from ${server} `));
        assert.match(await tool(lab, server, 'ctdb', 'pnn'), new RegExp(`^${server}$`, 'm'));
        assert.match(await tool(lab, server, 'ctdb', 'status'), /Number of nodes:3/);
        const databases = await tool(lab, server, 'ctdb', 'getdbmap');
        const needed = ['locking.tdb', 'brlock.tdb', 'secrets.tdb', 'passdb.tdb'];
        for (const name of needed) assert.ok(databases.includes(name));
        assert.match(await tool(lab, server, 'ctdb', 'getdbstatus', 'locking.tdb'), /locking\.tdb/);
        assert.match(await tool(lab, server, 'ctdb', 'cattdb', 'secrets.tdb'), /SECRETS\/SID/);
      }
    });
    await t.test('net, pdbedit and smbcontrol work at our socket', async () => {
      assert.match(await tool(lab, 1, 'pdbedit', '-L'), /^pool:/m);
      const sids = await Promise.all([0, 1, 2].map((server) => tool(lab, server, 'net', 'getlocalsid')));
      assert.equal(new Set(sids).size, 1, `the servers have different SIDs: ${sids.join(' ')}`);
      assert.match(await tool(lab, 2, 'smbcontrol', 'smbd', 'ping'), /PONG/);
    });
    await t.test('the open of a killed smbd is forgotten, nobody else notices', () => killedClientIsForgotten(lab));
    await t.test('nothing panicked', () => assertNoPanics(lab));
  });
});
