/**
 * What the tests of the VFS module share: what the daemons know of the modules, and the smbds that have it loaded.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import type { DaemonStatus } from '../../src/lab/admin.js';
import { daemonStatus } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { waitUntil } from '../../src/lab/run.js';

/** smbd cleans up behind a client that left, then the daemon hears of it: well below a second each. */
const SETTLE_MILLIS_MAX = 20_000;
/** What the module's shared memory is called in /proc/PID/maps, of both sides. */
const RING_NAME = 'smbpool-ring';

export async function statusOf(place: ServerPlace): Promise<DaemonStatus> {
  const status = await daemonStatus(place.adminSocket);
  assert.ok(status, `smbpoold of ${place.name} does not answer`);
  return status;
}

function rings(pid: number): number {
  try {
    return readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n').filter((line) => line.includes(RING_NAME)).length;
  } catch {
    return 0;
  }
}

/** The smbds of this server that serve a client through the module. */
export function attachedSmbds(lab: Lab, place: ServerPlace): number[] {
  const main = lab.process('smbd', place.id)?.pid ?? 0;
  const numbers = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.filter((pid) => parentOf(pid) === main && rings(pid) > 0);
}

function parentOf(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return 0;
  }
}

/** When all clients are gone: nothing is attached, open, waited for or held, nobody waits, no memory is left mapped. */
export async function assertNothingLeft(lab: Lab): Promise<void> {
  let left: string[] = [];
  const look = async (): Promise<boolean> => {
    left = [];
    for (const place of lab.servers()) {
      const { modules, waitingRequests } = await statusOf(place);
      const mapped = rings(lab.process('smbpoold', place.id)?.pid ?? 0);
      const found = { ...modules, waitingRequests, mapped };
      if (Object.values(found).some((count) => count !== 0)) left.push(`${place.name}: ${JSON.stringify(found)}`);
    }
    return left.length === 0;
  };
  assert.ok(await waitUntil(look, SETTLE_MILLIS_MAX, 200), `something is left behind: ${left.join('; ')}`);
}
