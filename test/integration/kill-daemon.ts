/**
 * Kills a daemon of the lab, as a crash would, and waits until its server may be started again.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { panics } from '../../src/lab/logs.js';
import { tryRun, waitUntil } from '../../src/lab/run.js';

/** smbd ends when its connection to the daemon does, all its processes within a second; some wait to be reaped. */
const END_MILLIS_MAX = 20_000;

/**
 * Kills the daemon of a server and waits until its smbds are gone, too: also those that ended and were not reaped
 * yet. Until then a new smbd, which asks the kernel for their numbers, takes them for alive, and panics when it finds
 * a lease of theirs without its record. That is smbd's way on any server; where systemd is the first process they go
 * at once.
 */
export async function killDaemon(lab: Lab, place: ServerPlace): Promise<void> {
  await untilAllEnded(place, () => void process.kill(lab.process('smbpoold', place.id)?.pid ?? 0, 'SIGKILL'));
}

/** Does what ends the daemon of a server, and waits until nothing of it is left. */
export async function untilAllEnded(place: ServerPlace, end: () => void): Promise<void> {
  const inNamespace = async () => (await tryRun('ip', ['netns', 'pids', place.namespace])).stdout.trim().split(/\s+/);
  const before = await inNamespace();
  end();
  const isThere = (pid: string) => pid !== '' && existsSync(`/proc/${pid}`);
  const areGone = async () => ![...before, ...(await inNamespace())].some(isThere);
  assert.ok(await waitUntil(areGone, END_MILLIS_MAX, 50), 'smbds go on without their daemon');
}

/** An smbd whose daemon is gone says so and ends: wanted here, and so taken out of its logs. */
export function forgetTheEnd(place: ServerPlace): void {
  const wanted = /cluster_fatal|ctdbd died/i;
  assert.deepEqual(panics(place).filter((line) => !wanted.test(line)), [], `a smbd of ${place.name} broke`);
  for (const name of readdirSync(place.logs)) {
    const file = join(place.logs, name);
    if (name.startsWith('log.') && wanted.test(readFileSync(file, 'utf8'))) truncateSync(file);
  }
}
