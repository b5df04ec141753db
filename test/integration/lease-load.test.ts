/**
 * What clients cache under leases and oplocks stays current on all servers: a load in rounds, on a busy machine.
 *   SMBPOOL_LEASE_SECONDS  how long (default 60)
 *   SMBPOOL_LEASE_VFS      the VFS modules below ours (default "acl_xattr streams_xattr")
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { tryRun } from '../../src/lab/run.js';
import { attachedSmbds } from '../../src/lab/smbds.js';
import { runLeaseLoad } from './lease-load.js';
import { statusOf } from './modules.js';
import { PATIENT_LEASE_MILLIS, WITHOUT_MODULE, withLab } from './pool.js';
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

/** Where a process is in the kernel, and what it waits for. */
function standing(pid: number): string {
  const read = (name: string) => readFileSync(`/proc/${pid}/${name}`, 'latin1').trim();
  try {
    return `smbd ${pid}: ${read('wchan')} ${read('syscall')}`;
  } catch (error) {
    return `smbd ${pid}: ${(error as Error).message}`;
  }
}

/** Who has the file by each server's record, what its daemon knows, and what its smbds wait for. */
async function lookCloser(lab: Lab, file: string): Promise<string> {
  const seen = lab.servers().map(async (place) => {
    const ask = (...args: string[]) => tryRun('node', ['dist/src/cli/main.js', ...args, '--socket', place.adminSocket]);
    const said = [await ask('who', file), await ask('waits'), await ask('who', file, '--json')];
    const smbds = attachedSmbds(lab, place).map(standing);
    return [`--- ${place.name}`, ...said.map(({ stdout, stderr }) => stdout + stderr), ...smbds].join('\n');
  });
  return (await Promise.all(seen)).join('\n');
}

test(
  `caches under leases are current: ${CLIENTS} clients on three servers for ${SECONDS} seconds`,
  { skip: WITHOUT_MODULE },
  async () => {
    process.stdout.write(`seed ${SEED}\n`);
    await withLab({ servers: 3, vfs: VFS, leaseMillis: PATIENT_LEASE_MILLIS }, async (lab) => {
      const idle = makeBusy();
      try {
        const addresses = lab.servers().map(({ address }) => address);
        const { stale, counts } = await runLeaseLoad({
          addresses, clients: CLIENTS, seconds: SECONDS, seed: SEED,
          lookCloser: (file) => lookCloser(lab, file),
        });
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
