/**
 * The number of this run of the daemon: higher than that of every earlier run, also when the clock went back. Peers
 * accept frames of the newest run only. Called by main once, under the lock of the persistent directory.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { incarnation } from '../base/ids.js';
import type { Incarnation } from '../base/ids.js';
import { StartError } from './errors.js';

/** The state file, in the persistent directory. */
export const INCARNATION_FILE = 'smbpoold.incarnation';

/**
 * Takes the next number and writes it down, durable, before it is used: max(stored + 1, `nowMillis`). The time makes
 * numbers grow even when the state was lost.
 * @throws StartError when the file cannot be read or written, or holds something else.
 */
export function nextIncarnation(directory: string, nowMillis: number): Incarnation {
  const file = join(directory, INCARNATION_FILE);
  const next = Math.max(storedIncarnation(file) + 1, Math.floor(nowMillis));
  try {
    writeDurably(file, `${next}\n`);
  } catch (error) {
    const why = (error as Error).message;
    throw new StartError(`${file} cannot be written: ${why}; smbpoold keeps the number of its run there`, {
      cause: error,
    });
  }
  return incarnation(next);
}

function storedIncarnation(file: string): number {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw new StartError(`${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const stored = Number(text.trim());
  if (!/^\d+\n?$/.test(text) || !Number.isSafeInteger(stored)) {
    throw new StartError(`${file} does not hold a number; if the machine's clock is right, remove the file`);
  }
  return stored;
}

/** A crash at any point leaves the old content or the new one, and the new one once this returns. */
function writeDurably(file: string, content: string): void {
  const fresh = `${file}.new`;
  const descriptor = openSync(fresh, 'w', 0o600);
  try {
    writeSync(descriptor, content);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(fresh, file);
  const directory = openSync(dirname(file), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
