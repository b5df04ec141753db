/**
 * What a load must leave behind: nothing of closed files, no request, and databases of the servers that agree.
 */
import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { daemonStatus } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import { waitUntil } from '../../src/lab/run.js';
import { databases, rows } from './databases.js';

/** smbd cleans up behind a closed connection, then deletion runs in slices. */
const SETTLE_MILLIS_MAX = 30_000;
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
async function leftovers(lab: Lab, { except, ofGoneFiles }: Expected): Promise<string[]> {
  const names = OF_OPEN_FILES.filter((name) => except?.includes(name) !== true);
  const inodes = new Set(readdirSync(lab.layout.share).map((name) => statSync(join(lab.layout.share, name)).ino));
  const isGone = (name: string, key: string) => OF_FILE_IDS.includes(name) && !inodes.has(inodeOf(key));
  const found: string[] = [];
  for (const place of lab.servers()) {
    const known = new Set((await databases(lab, place)).map((database) => database.name));
    for (const name of names.filter((database) => known.has(database))) {
      const own = (await rows(lab, place, name)).filter((row) => row.owner === place.id && row.data !== '');
      const left = own.filter(({ key }) => ofGoneFiles !== true || !isGone(name, key));
      if (left.length < own.length) process.stdout.write(`${place.name}: ${name} has records of files that are gone\n`);
      if (left.length > 0) found.push(`${place.name}: ${left.length} in ${name}, for example ${left[0]?.key}`);
    }
  }
  return found;
}

export async function assertSettled(lab: Lab, expected: Expected = {}): Promise<void> {
  let left: string[] = [];
  const isSettled = async () => (left = await leftovers(lab, expected)).length === 0;
  const settled = await waitUntil(isSettled, SETTLE_MILLIS_MAX, 1000);
  assert.ok(settled, `records of closed files are left: ${left.join('; ')}`);
  for (const place of lab.servers()) {
    const opens = await lab.runIn(place, 'smbstatus', ['--locks', '--byterange']);
    // it lists what is in the records, whatever became of the processes
    const isClear = expected.ofGoneFiles === true || !opens.stdout.includes('load-');
    assert.ok(isClear, `smbstatus on ${place.name} still lists opens: ${opens.stdout}`);
    const status = await daemonStatus(place.adminSocket);
    assert.equal(status?.waitingRequests, 0, `requests are stuck at smbpoold of ${place.name}, or it does not answer`);
  }
}

/** Volatile records have at most one owner; persistent databases have one content. */
export async function assertConsistent(lab: Lab): Promise<void> {
  for (const { name, persistent } of await databases(lab, lab.server(0))) {
    const contents = await Promise.all(lab.servers().map((place) => rows(lab, place, name)));
    if (persistent) {
      const plain = contents.map((content) => content.map(({ key, data }) => `${key}=${data}`).sort());
      for (const other of plain) assert.deepEqual(other, plain[0], `${name} differs between servers`);
      continue;
    }
    const owners = new Map<string, number>();
    for (const [server, content] of contents.entries()) {
      for (const { key } of content.filter((row) => row.owner === server)) {
        assert.ok(!owners.has(key), `${name}: ${key} is owned by servers ${owners.get(key)} and ${server}`);
        owners.set(key, server);
      }
    }
  }
}
