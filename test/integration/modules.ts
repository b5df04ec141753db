/**
 * What the tests of the VFS module share: what the daemons know of the modules, and the smbds that have it loaded.
 */
import assert from 'node:assert/strict';
import type { DaemonStatus } from '../../src/lab/admin.js';
import { daemonStatus } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { waitUntil } from '../../src/lab/run.js';
import { ringsOf } from '../../src/lab/smbds.js';

/** smbd cleans up behind a client that left, then the daemon hears of it: well below a second each. */
const SETTLE_MILLIS_MAX = 20_000;

export async function statusOf(place: ServerPlace): Promise<DaemonStatus> {
  const status = await daemonStatus(place.adminSocket);
  assert.ok(status, `smbpoold of ${place.name} does not answer`);
  return status;
}

/** When all clients are gone: nothing is attached, open, waited for or held, nobody waits, no memory is left mapped. */
export async function assertNothingLeft(lab: Lab): Promise<void> {
  let left: string[] = [];
  const look = async (): Promise<boolean> => {
    left = [];
    for (const place of lab.servers()) {
      const { modules, waitingRequests } = await statusOf(place);
      const mapped = ringsOf(lab.process('smbpoold', place.id)?.pid ?? 0);
      const found = { ...modules, waitingRequests, mapped };
      if (Object.values(found).some((count) => count !== 0)) left.push(`${place.name}: ${JSON.stringify(found)}`);
    }
    return left.length === 0;
  };
  assert.ok(await waitUntil(look, SETTLE_MILLIS_MAX, 200), `something is left behind: ${left.join('; ')}`);
}
