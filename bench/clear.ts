/** What a benchmark leaves when it ends, or was killed. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { tryRun } from '../src/lab/run.js';
import { removeUnixUser } from '../src/lab/users.js';
import { removeNetwork } from './network.js';
import { USER } from './places.js';

/** Removes everything below `root`, and what was made for it. */
export async function clearAll(root: string): Promise<void> {
  await removeNetwork();
  const state = join(root, 'state');
  if (readFileSync('/proc/self/mounts', 'utf8').includes(` ${state} `)) await tryRun('umount', [state]);
  rmSync(root, { recursive: true, force: true });
  await removeUnixUser(USER);
}
