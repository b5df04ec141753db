/**
 * smbd sends the break of a lease to one of the handles that are open under it. Here the client closes that handle
 * while the break is under way: it must be told all the same, because it goes by the lease in its other handle.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { pause } from '../../src/lab/run.js';
import type { OpenRequest, Opened } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { attachedSmbds } from '../../src/lab/smbds.js';
import { PATIENT_LEASE_MILLIS, WITHOUT_MODULE, withLab } from './pool.js';

/** All handles under one lease. */
const READING: OpenRequest = {
  access: ['read'], disposition: 'open', lease: 'R', leaseKey: '00112233445566778899aabbccddeeff',
};
/** From the client's request to the socket of its smbd it is microseconds. */
const SENT_MILLIS = 100;
const BREAK_MILLIS_MAX = 10_000;

/** `closed`: which of the reader's two handles, the older one (0) or the newer one (1). */
async function breakWhileClosing(lab: Lab, closed: 0 | 1): Promise<void> {
  const file = `closed-${closed}.txt`;
  // of an earlier client one may still be ending
  const others = attachedSmbds(lab, lab.server(0));
  const [reader, writer] = await Promise.all([0, 1].map((id) => SmbClient.connect(lab.server(id).address)));
  assert.ok(reader !== undefined && writer !== undefined);
  try {
    const theirs = await writer.mustOpen(file, { disposition: 'open_if' });
    await writer.write(theirs.handle, 'old');
    const handles: number[] = [];
    for (let opened = 0; opened < 2; opened++) {
      const ours: Opened = await reader.mustOpen(file, READING);
      assert.equal(ours.lease, 'R');
      handles.push(ours.handle);
    }
    const [smbd, ...more] = attachedSmbds(lab, lab.server(0)).filter((pid) => !others.includes(pid));
    assert.ok(smbd !== undefined && more.length === 0, 'not one new smbd on server 0 has the module');
    // what came first is read first: the request to close, then the break
    process.kill(smbd, 'SIGSTOP');
    let closing;
    try {
      closing = reader.closeHandle(handles[closed]!);
      await pause(SENT_MILLIS);
      assert.equal((await writer.write(theirs.handle, 'new')).status, 'OK');
    } finally {
      process.kill(smbd, 'SIGCONT');
    }
    assert.equal((await closing).status, 'OK');
    const told = await reader.nextBreak(BREAK_MILLIS_MAX);
    assert.ok(told !== null, 'the client was not told: it goes by what is old for ever');
    assert.equal(told.to, '');
  } finally {
    for (const client of [reader, writer]) client.close();
  }
}

test('a break whose handle is closed meanwhile', { skip: WITHOUT_MODULE }, async (t) => {
  await withLab({ servers: 2, leaseMillis: PATIENT_LEASE_MILLIS }, async (lab) => {
    await t.test('the older handle', () => breakWhileClosing(lab, 0));
    await t.test('the newer handle', () => breakWhileClosing(lab, 1));
  });
});
