/**
 * What is wrong in the databases of a lab after all clients left: records of closed files, servers that disagree. Read
 * with the stock ctdb tool. For the checks after a load.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { databases, rows } from './databases.js';
import type { Lab } from './lab.js';

/** Databases whose records all belong to open files. */
const OF_OPEN_FILES = ['locking.tdb', 'brlock.tdb', 'leases.tdb', 'smbXsrv_open_global.tdb'];
/** Databases whose keys are file ids: device, inode, 0; eight bytes each. */
const OF_FILE_IDS = ['locking.tdb', 'brlock.tdb'];

export interface Expected {
  /** Databases in which something may be left. */
  except?: readonly string[];
  /** Records of files that are not there any more may be left. */
  ofGoneFiles?: true;
}

/** ctdb prints what is not printable as \XX. */
function inodeOf(key: string): number {
  const bytes = [...key.matchAll(/\\([0-9A-F]{2})|([^])/g)].map(([, hex, plain]) =>
    hex === undefined ? (plain ?? '').charCodeAt(0) : parseInt(hex, 16),
  );
  return Number(Buffer.from(bytes).readBigUInt64LE(8));
}

/** Records with content that are left of open files, in words; empties are on their way out. */
export async function leftovers(lab: Lab, { except, ofGoneFiles }: Expected = {}): Promise<string[]> {
  const names = OF_OPEN_FILES.filter((name) => except?.includes(name) !== true);
  const inodes = new Set(readdirSync(lab.layout.share).map((name) => statSync(join(lab.layout.share, name)).ino));
  const isGone = (name: string, key: string) => OF_FILE_IDS.includes(name) && !inodes.has(inodeOf(key));
  const found: string[] = [];
  for (const place of lab.servers()) {
    const known = new Set((await databases(lab, place)).map((database) => database.name));
    for (const name of names.filter((database) => known.has(database))) {
      const own = (await rows(lab, place, name)).filter((row) => row.owner === place.id && row.data !== '');
      const left = own.filter(({ key }) => ofGoneFiles !== true || !isGone(name, key));
      if (left.length > 0) found.push(`${place.name}: ${left.length} in ${name}, for example ${left[0]?.key}`);
    }
  }
  return found;
}

/** Volatile records with more than one owner, persistent databases with more than one content; in words. */
export async function disagreements(lab: Lab): Promise<string[]> {
  const found: string[] = [];
  for (const { name, persistent } of await databases(lab, lab.server(0))) {
    const contents = await Promise.all(lab.servers().map((place) => rows(lab, place, name)));
    if (persistent) {
      const plain = contents.map((content) => content.map(({ key, data }) => `${key}=${data}`).sort().join('\n'));
      if (plain.some((other) => other !== plain[0])) found.push(`${name} differs between servers`);
      continue;
    }
    const owners = new Map<string, number>();
    for (const [server, content] of contents.entries()) {
      for (const { key } of content.filter((row) => row.owner === server)) {
        if (owners.has(key)) found.push(`${name}: ${key} is owned by servers ${owners.get(key)} and ${server}`);
        owners.set(key, server);
      }
    }
  }
  return found;
}
