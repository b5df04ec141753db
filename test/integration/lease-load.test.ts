/**
 * What clients cache under leases and oplocks stays current on all servers: a load in rounds, on a busy machine.
 *   SMBPOOL_LEASE_SECONDS  how long (default 60)
 *   SMBPOOL_LEASE_VFS      the VFS modules below ours (default "acl_xattr streams_xattr")
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { runLeaseLoad } from './lease-load.js';
import { statusOf } from './modules.js';
import { WITHOUT_MODULE, withLab } from './pool.js';
import { makeBusy } from '../support/busy-machine.js';

const SECONDS = Number(process.env['SMBPOOL_LEASE_SECONDS'] ?? 60);
const VFS = (process.env['SMBPOOL_LEASE_VFS'] ?? 'acl_xattr streams_xattr').split(' ').filter((name) => name !== '');
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const CLIENTS = 9;

/** What each daemon counted: for reports. */
async function counters(lab: Lab): Promise<string> {
  const all = await Promise.all(lab.servers().map(async (place) => (await statusOf(place)).counters));
  return all.map((counted, server) => `server ${server}: ${JSON.stringify(counted)}`).join('\n');
}

test(
  `caches under leases are current: ${CLIENTS} clients on three servers for ${SECONDS} seconds`,
  { skip: WITHOUT_MODULE },
  async () => {
    process.stdout.write(`seed ${SEED}\n`);
    await withLab({ servers: 3, vfs: VFS }, async (lab) => {
      const idle = makeBusy();
      try {
        const addresses = lab.servers().map(({ address }) => address);
        const { stale, counts } = await runLeaseLoad({ addresses, clients: CLIENTS, seconds: SECONDS, seed: SEED });
        process.stdout.write(`${Object.entries(counts).map(([what, count]) => `${what} ${count}`).join(', ')}\n`);
        if (stale.length > 0) process.stdout.write(`${stale.join('\n\n')}\n${await counters(lab)}\n`);
        assert.equal(stale.length, 0, 'a client went by something old; the story is above');
        for (const [what, count] of Object.entries(counts)) {
          assert.ok(count > 0 || what === 'late', `no ${what}: the load proves nothing`);
        }
      } finally {
        idle();
      }
    });
  },
);
