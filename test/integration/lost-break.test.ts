/**
 * smbd sends the break of a lease to one of the handles that are open under it. Here the client closes that handle
 * while the break is under way: it must be told all the same, because it goes by the lease in its other handle.
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import { pause, run, tryRun } from '../../src/lab/run.js';
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
async function breakWhileClosing(lab: Lab, closed: 0 | 1, folder = '.'): Promise<void> {
  const file = join(folder, `closed-${closed}.txt`);
  // of an earlier client one may still be ending
  const others = attachedSmbds(lab, lab.server(0));
  const [reader, writer] = await Promise.all([0, 1].map((id) => SmbClient.connect(lab.server(id).address)));
  assert.ok(reader !== undefined && writer !== undefined);
  try {
    const theirs = await writer.mustOpen(file, { disposition: 'open_if' });
    // on a file system that tells times in whole seconds, all that follows has the same
    await pause(1000 - (Date.now() % 1000));
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

/** Gives the servers a folder below the share that is a file system of its own, whose times are whole seconds. */
async function mountWholeSeconds(lab: Lab, folder: string): Promise<void> {
  const [image, mounted] = [join(lab.layout.root, 'seconds.img'), join(lab.layout.share, folder)];
  mkdirSync(mounted);
  await run('truncate', ['--size', '16M', image]);
  // inodes of 128 bytes have no room for more
  await run('mkfs.ext4', ['-q', '-I', '128', image]);
  const device = (await run('losetup', ['--find', '--show', image])).trim();
  try {
    for (const { id } of lab.servers()) {
      const smbd = lab.process('smbd', id);
      assert.ok(smbd !== null);
      // each smbd has its own mounts
      const inside = ['--target', String(smbd.pid), '--mount'];
      await run('nsenter', [...inside, 'mount', device, mounted]);
      await run('nsenter', [...inside, 'chmod', '777', mounted]);
    }
  } finally {
    // when the last smbd is gone
    await run('losetup', ['--detach', device]);
  }
}

async function hasLoopDevices(): Promise<boolean> {
  return (await tryRun('losetup', ['--find'])).status === 0;
}

test('a break whose handle is closed meanwhile', { skip: WITHOUT_MODULE }, async (t) => {
  await withLab({ servers: 2, leaseMillis: PATIENT_LEASE_MILLIS }, async (lab) => {
    await t.test('the older handle', () => breakWhileClosing(lab, 0));
    await t.test('the newer handle', () => breakWhileClosing(lab, 1));
    const skip = (await hasLoopDevices()) ? false : 'needs loop devices: modprobe loop';
    await t.test('a file whose times do not tell', { skip }, async () => {
      await mountWholeSeconds(lab, 'seconds');
      await breakWhileClosing(lab, 0, 'seconds');
      await breakWhileClosing(lab, 1, 'seconds');
    });
  });
});
