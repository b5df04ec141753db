/**
 * One daemon per directory: a lock on a file in each database directory, held for the life of the process and dropped
 * by the kernel however it ends. Called by main before anything in the directory is touched.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { StartError } from './errors.js';

/**
 * The lock file, in the volatile and the persistent directory; holds the process id of the daemon that has the lock.
 */
export const LOCK_FILE = 'smbpoold.lock';

/** `flock -n` answers at once; this only bounds a machine that cannot start a process. */
const FLOCK_TIMEOUT_MS = 10_000;

export interface DirectoryLock {
  /** A duplicate of it keeps the lock, too. */
  readonly descriptor: number;
  release(): void;
}

/** A lock that another process of the same daemon took: it is this one's from here on. */
export function inheritLock(descriptor: number): DirectoryLock {
  ftruncateSync(descriptor);
  writeSync(descriptor, `${process.pid}\n`);
  return { descriptor, release: () => closeSync(descriptor) };
}

/**
 * Locks `directory` for this process. Node.js has no flock of its own: flock(1), of util-linux, locks the file that we
 * hold open, and the lock stays with our open file after the program ended.
 * @throws StartError when another daemon has it.
 */
export function lockDirectory(directory: string): DirectoryLock {
  const file = join(directory, LOCK_FILE);
  // 'a+' creates the file and leaves the holder's process id in it readable
  const descriptor = openSync(file, 'a+', 0o600);
  const result = spawnSync('flock', ['--nonblock', '--exclusive', '3'], {
    stdio: ['ignore', 'ignore', 'pipe', descriptor],
    timeout: FLOCK_TIMEOUT_MS,
    encoding: 'utf8',
  });
  if (result.status === 0) {
    return inheritLock(descriptor);
  }
  const holder = readFileSync(file, 'utf8').trim();
  closeSync(descriptor);
  if (result.status === 1) {
    throw new StartError(
      `the databases in ${directory} are in use by another smbpoold${holder === '' ? '' : ` (process ${holder})`}: ` +
        'stop it, or give this one directories of its own',
    );
  }
  const why = result.error?.message ?? result.stderr.trim();
  throw new StartError(`${file} cannot be locked: flock(1) of util-linux failed: ${why}`);
}
