/**
 * The SMB level: stock smbds on top of both pools, and one that knows of no other server, all with the same options.
 * smbd's own work is the same in all three; what differs is what its daemon costs it, and our VFS module if asked for.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts } from '../src/lab/admin.js';
import { LabError } from '../src/lab/errors.js';
import type { ServerPlace } from '../src/lab/layout.js';
import { labOptions } from '../src/lab/options.js';
import { sambaConfig, sambaFolders } from '../src/lab/samba-config.js';
import { waitUntil } from '../src/lab/run.js';
import { createUnixUser, setSmbUser, unixUserExists } from '../src/lab/users.js';
import { startIn } from './network.js';
import type { System } from './places.js';
import { PASSWORD, SERVERS, USER, places } from './places.js';
import type { Workload } from './workloads.js';

const SMBD_START_MILLIS_MAX = 60_000;

export const SMB_WORKLOADS: readonly Workload[] = [
  { name: 'own', title: 'a file of its own, one client', latencyOf: 'open and close' },
  { name: 'alternate', title: 'one file, one client, two servers in turn', latencyOf: 'open and close' },
  { name: 'directory', title: 'one folder, two clients per server', latencyOf: 'open and close' },
  { name: 'crowd', title: 'one folder, eight clients per server', latencyOf: 'open and close' },
];

/** `module`: smbpool's smbds have our VFS module; the others never do. */
export async function startSmbds(
  root: string,
  systems: readonly System[],
  { processors, module }: { processors: string; module: boolean },
): Promise<void> {
  if (!unixUserExists(USER)) await createUnixUser(USER);
  for (const system of systems) {
    const all = places(root, system);
    for (const place of all) prepare(place, module && system === 'smbpool');
    await setSmbUser(all[0]!, USER, PASSWORD);
    // one after the other: each finds its databases made by the one before
    for (const place of all) await startSmbd(place, processors);
  }
}

/** Starts the smbd of one server, and waits until it listens. */
export async function startSmbd(place: ServerPlace, processors: string): Promise<void> {
  const { name, namespace, address, smbConf, logs } = place;
  const args = ['--foreground', '--no-process-group', `--configfile=${smbConf}`];
  startIn({ namespace, processors, command: 'smbd', args, outputFile: join(logs, 'smbd.out') });
  const serves = () => accepts({ host: address, port: 445 });
  if (!(await waitUntil(serves, SMBD_START_MILLIS_MAX))) {
    throw new LabError(`the smbd of ${name} does not serve; see ${logs}`);
  }
}

function prepare(place: ServerPlace, module: boolean): void {
  for (const folder of [...sambaFolders(place), place.share, join(place.share, 'folder')]) {
    mkdirSync(folder, { recursive: true });
  }
  chmodSync(join(place.directory, 'private'), 0o700);
  for (const folder of [place.share, join(place.share, 'folder')]) chmodSync(folder, 0o1777);
  writeFileSync(place.smbConf, sambaConfig(place, labOptions({ module })));
}

/** Where the clients of a system connect to: always as many as a pool has servers. */
export function addresses(root: string, system: System): string[] {
  const all = places(root, system);
  return Array.from({ length: SERVERS }, (_, i) => all[i % all.length]!.address);
}
