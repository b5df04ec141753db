/**
 * Users for the lab: a unix account (which smbd insists on) and an SMB account in the pool's passdb. Unix accounts that
 * the lab creates have no home, no shell and no password, and are removed again by `lab down`.
 */
import { readFileSync } from 'node:fs';
import { LabError } from './errors.js';
import type { ServerPlace } from './layout.js';
import { run, tryRun } from './run.js';

export function unixUserExists(name: string): boolean {
  return readFileSync('/etc/passwd', 'utf8').split('\n').some((line) => line.startsWith(`${name}:`));
}

/** Creates the unix account; throws LabError with what useradd said. */
export async function createUnixUser(name: string): Promise<void> {
  const args = ['--system', '--no-create-home', '--home-dir', '/nonexistent', '--shell', '/usr/sbin/nologin', name];
  const result = await tryRun('useradd', args);
  if (result.status !== 0) {
    throw new LabError(`smbd needs a unix account "${name}" and it cannot be created: ${result.stderr.trim()}`);
  }
}

export async function removeUnixUser(name: string): Promise<void> {
  if (unixUserExists(name)) await tryRun('userdel', [name]);
}

/** Adds or updates an SMB user at one server; in a pool it is then known at all. */
export async function setSmbUser(place: ServerPlace, name: string, password: string): Promise<void> {
  const command = ['netns', 'exec', place.namespace, 'smbpasswd', '-c', place.smbConf, '-s', '-a', name];
  await run('ip', command, { input: `${password}\n${password}\n` });
}
