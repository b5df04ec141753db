/**
 * `smbpool keygen FILE`: makes the pool's key. Never overwrites a file: a second key on one server would cut it off
 * from the pool.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import type { Command } from 'commander';
import { CommandError } from './errors.js';

/** What smbpoold expects (docs/protocol.md, frames). */
const POOL_KEY_BYTES = 32;

export function registerKeygen(program: Command): void {
  program
    .command('keygen')
    .argument('<file>', 'the file to make, for example /etc/smbpool/pool.key')
    .description("makes the pool's key, once; all servers then get a copy of the file")
    .action((file: string) => {
      writeKey(file);
      process.stdout.write(`${file}: made. Copy it to all servers of the pool, owner root, mode 0600.\n`);
    });
}

/** @throws CommandError when the file exists or cannot be written. */
export function writeKey(file: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'wx', 0o600);
  } catch (error) {
    const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
    throw new CommandError(
      exists
        ? `${file} exists already and is kept: remove it first if the pool is to get a new key`
        : `${file} cannot be written: ${(error as Error).message}`,
    );
  }
  try {
    writeSync(descriptor, `${randomBytes(POOL_KEY_BYTES).toString('hex')}\n`);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
