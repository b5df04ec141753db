/**
 * What a load must leave behind: nothing of closed files, no request, and databases of the servers that agree.
 */
import assert from 'node:assert/strict';
import { daemonStatus } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import type { Expected } from '../../src/lab/leftovers.js';
import { disagreements, leftovers } from '../../src/lab/leftovers.js';
import { waitUntil } from '../../src/lab/run.js';

/** smbd cleans up behind a closed connection, then deletion runs in slices. */
const SETTLE_MILLIS_MAX = 30_000;

export async function assertSettled(lab: Lab, expected: Expected = {}): Promise<void> {
  let left: string[] = [];
  const isSettled = async () => (left = await leftovers(lab, expected)).length === 0;
  const settled = await waitUntil(isSettled, SETTLE_MILLIS_MAX, 1000);
  assert.ok(settled, `records of closed files are left: ${left.join('; ')}`);
  for (const place of lab.servers()) {
    const opens = await lab.runIn(place, 'smbstatus', ['--locks', '--byterange']);
    // it lists what is in the records, whatever became of the processes
    const isClear = expected.ofGoneFiles === true || !opens.stdout.includes('load-');
    assert.ok(isClear, `smbstatus on ${place.name} still lists opens: ${opens.stdout}`);
    const status = await daemonStatus(place.adminSocket);
    assert.equal(status?.waitingRequests, 0, `requests are stuck at smbpoold of ${place.name}, or it does not answer`);
  }
}

/** Volatile records have at most one owner; persistent databases have one content. */
export async function assertConsistent(lab: Lab): Promise<void> {
  assert.deepEqual(await disagreements(lab), []);
}
