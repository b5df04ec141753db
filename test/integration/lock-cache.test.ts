/**
 * smbd keeps the byte-range locks of an open file while their database's sequence number stands still, and asks for
 * that number after it has read them. Here the daemon's answer reaches an smbd that does not run just then, and a
 * client of another server locks before it does: what that smbd then knows is old, with a new number. Its next read and
 * write must be refused all the same.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { attachedSmbds } from '../../src/lab/smbds.js';
import { statusOf } from './modules.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const FILE = 'locked.txt';
/** Where the locker keeps a lock all the time, so that there is a record; and where it locks when nobody looks. */
const [ELSEWHERE, HERE] = [1_000_000, 0];
const LENGTH = 10;
const ARRIVES_MILLIS_MAX = 10_000;
/** From a read's request to smbd's question for the locks it is microseconds. */
const ASKED_MILLIS = 100;
/** Longer than daemons are stopped here, however slow the machine is: that is not about losing a server. */
const LEASE_MILLIS = 30_000;

async function copiesArrived(lab: Lab, server: number): Promise<number> {
  return (await statusOf(lab.server(server))).counters['record.arrived.copy'] ?? 0;
}

test('locks that another server gave while smbd did not run are seen', { skip: WITHOUT_MODULE }, async () => {
  await withLab({ servers: 3, leaseMillis: LEASE_MILLIS }, async (lab) => {
    const [reader, locker] = await Promise.all([0, 1].map((id) => SmbClient.connect(lab.server(id).address)));
    assert.ok(reader !== undefined && locker !== undefined);
    try {
      const theirs = await locker.mustOpen(FILE, { disposition: 'open_if' });
      await locker.write(theirs.handle, 'x'.repeat(LENGTH));
      const ours = await reader.mustOpen(FILE, { disposition: 'open' });
      // the open brought a copy of the locks here; this takes it away again
      assert.equal((await locker.lock(theirs.handle, { offset: ELSEWHERE, length: 1 })).status, 'OK');
      const [smbd, ...more] = attachedSmbds(lab, lab.server(0));
      assert.ok(smbd !== undefined && more.length === 0, 'not one smbd on server 0 has the module');
      const daemon = lab.process('smbpoold', 0);
      assert.ok(daemon !== null);

      const before = await copiesArrived(lab, 0);
      let reading: Promise<Answer>;
      try {
        process.kill(daemon.pid, 'SIGSTOP');
        reading = reader.read(ours.handle);
        await pause(ASKED_MILLIS);
        process.kill(smbd, 'SIGSTOP');
        process.kill(daemon.pid, 'SIGCONT');
        const isHere = async () => (await copiesArrived(lab, 0)) > before;
        assert.ok(await waitUntil(isHere, ARRIVES_MILLIS_MAX, 10), 'smbd of server 0 did not ask for the locks');
        assert.equal((await locker.lock(theirs.handle, { offset: HERE, length: LENGTH })).status, 'OK');
      } finally {
        for (const pid of [daemon.pid, smbd]) process.kill(pid, 'SIGCONT');
      }
      assert.equal((await reading).status, 'OK');
      assert.equal((await reader.read(ours.handle)).status, 'FILE_LOCK_CONFLICT');
      assert.equal((await reader.write(ours.handle, 'y')).status, 'FILE_LOCK_CONFLICT');
    } finally {
      for (const client of [reader, locker]) client.close();
    }
  });
});
