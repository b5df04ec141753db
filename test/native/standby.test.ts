/** Parts of the standby that need no pool: the scan of a volatile database, and when takeovers are a crash loop. */
import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { TAKEOVERS_MAX, TAKEOVERS_WITHIN_MS, isCrashLoop } from '../../src/daemon/standby-link.js';
import { loadNative } from '../../src/host/native.js';
import type { Tdb } from '../../src/host/native.js';
import { VOLATILE_FLAGS, VOLATILE_HASH_SIZE } from '../../src/host/record-store.js';
import { RECORD_HEADER_BYTES } from '../../src/wire/record-header.js';
import { ownDirectory } from '../support/native-helpers.js';
import { Holder } from './holder.js';

const RECORDS = 20_000;

function openTdb(t: TestContext): { tdb: Tdb; path: string } {
  const { Tdb: TdbClass } = loadNative();
  const path = join(ownDirectory(t), 'scan.tdb');
  const openFlags = constants.O_RDWR | constants.O_CREAT;
  const options = { hashSize: VOLATILE_HASH_SIZE, tdbFlags: VOLATILE_FLAGS, openFlags, mode: 0o600 };
  const tdb = new TdbClass(path, options);
  t.after(() => tdb.close());
  return { tdb, path };
}

test('a scan finds every record once, with its key and header, and none that was deleted', (t) => {
  const { tdb } = openTdb(t);
  const under = (key: Buffer, work: () => void) => {
    assert.ok(tdb.chainlockNonblock(key));
    work();
    tdb.chainunlock(key);
  };
  const wanted = new Map<string, Buffer>();
  for (let index = 0; index < RECORDS; index++) {
    const key = Buffer.from(`${'k'.repeat(index % 9)}${index}`);
    const value = Buffer.alloc(index % 100 === 0 ? 3 : RECORD_HEADER_BYTES + (index % 5) * 60, index % 251);
    under(key, () => tdb.store(key, value));
    wanted.set(key.toString(), value);
    if (index % 7 !== 0) continue;
    under(key, () => assert.ok(tdb.delete(key)));
    wanted.delete(key.toString());
  }
  const scanned = tdb.scanHeaders(RECORD_HEADER_BYTES);
  for (let at = 0; at < scanned.length; ) {
    const keyLength = scanned.readUInt32LE(at);
    const header = scanned.subarray(at + 8, at + 8 + RECORD_HEADER_BYTES);
    const keyAt = at + 8 + RECORD_HEADER_BYTES;
    const key = scanned.toString('utf8', keyAt, keyAt + keyLength);
    const value = wanted.get(key);
    assert.ok(value, `${key} is there once, and was not deleted`);
    assert.equal(scanned.readUInt32LE(at + 4), value.length);
    const known = Math.min(value.length, RECORD_HEADER_BYTES);
    assert.deepEqual(header.subarray(0, known), value.subarray(0, known));
    wanted.delete(key);
    at = keyAt + ((keyLength + 3) & ~3);
  }
  assert.equal(wanted.size, 0);
});

test('a scan goes on while another process fills the file, which grows', async (t) => {
  const { tdb, path } = openTdb(t);
  const holder = new Holder(t);
  await holder.ask({ do: 'open', path, flags: VOLATILE_FLAGS });
  let filled = false;
  const filling = holder.ask({ do: 'fill', value: 'v'.repeat(1_000), rounds: RECORDS }).then(() => (filled = true));
  for (let scans = 0; !filled; scans++) {
    assert.doesNotThrow(() => tdb.scanHeaders(RECORD_HEADER_BYTES), `scan ${scans}`);
    await setImmediate();
  }
  await filling;
  const { length } = tdb.scanHeaders(RECORD_HEADER_BYTES);
  assert.ok(length > RECORDS * (8 + RECORD_HEADER_BYTES), `all are there: ${length} bytes`);
});

test('takeovers in quick succession are a crash loop, the same number over a longer time is none', () => {
  const now = 1_000_000;
  const quick = Array.from({ length: TAKEOVERS_MAX }, (_, index) => now - 1_000 * index);
  assert.equal(isCrashLoop(quick, now), true);
  assert.equal(isCrashLoop(quick.slice(1), now), false);
  assert.equal(isCrashLoop(quick, now + TAKEOVERS_WITHIN_MS), false);
});
