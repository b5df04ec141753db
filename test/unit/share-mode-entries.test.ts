/** What is read from records of locking.tdb, made here as smbd lays them out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasExcluder, leaseHolders } from '../../src/wire/share-mode-entries.js';

const [READ, DELETE] = [0x1, 0x10000];
const SHARES_ALL = 7;
const LEASE = 0x100;

interface Entry {
  access?: number;
  share?: number;
  opType?: number;
  lease?: string;
}

interface Locking {
  watchers?: number;
  sharedHolders?: number;
  deleteTokens?: number;
  entries?: Entry[];
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => bytes.writeUInt32LE(value, 4 * i));
  return bytes;
}

function entryBytes({ access = READ, share = SHARES_ALL, opType = 0, lease = '' }: Entry): Buffer {
  const bytes = Buffer.alloc(132);
  bytes.writeUInt16LE(opType, 32);
  bytes.write('client'.padEnd(16), 36, 'latin1');
  bytes.write(lease.padEnd(16), 56, 'latin1');
  bytes.writeUInt32LE(access, 72);
  bytes.writeUInt32LE(share, 76);
  return bytes;
}

function record({ watchers = 0, sharedHolders = 0, deleteTokens = 0, entries = [] }: Locking): Buffer {
  const data = Buffer.concat([Buffer.alloc(24), words(deleteTokens), Buffer.alloc(20)]);
  return Buffer.concat([
    words(watchers), Buffer.alloc(32 * watchers),
    Buffer.alloc(40), words(sharedHolders), Buffer.alloc(24 * sharedHolders),
    words(data.length), data,
    ...entries.map(entryBytes),
  ]);
}

test('opens that share all and do not ask to delete exclude nobody', () => {
  assert.equal(hasExcluder(new Uint8Array()), false);
  assert.equal(hasExcluder(words(0)), false, 'only watchers, and none');
  assert.equal(hasExcluder(record({})), false);
  assert.equal(hasExcluder(record({ watchers: 2, sharedHolders: 3, entries: [{}, { access: 0x80 }] })), false);
});

test('one that shares less, one that may delete, and a deletion that was asked for exclude others', () => {
  for (const share of [0, 1, 3, 6]) assert.equal(hasExcluder(record({ entries: [{}, { share }] })), true, `${share}`);
  assert.equal(hasExcluder(record({ watchers: 1, entries: [{ access: READ | DELETE }, {}] })), true);
  assert.equal(hasExcluder(record({ deleteTokens: 1 })), true);
});

test('what is not laid out so counts as excluding, at any length', () => {
  const good = record({ watchers: 1, sharedHolders: 1, entries: [{}, {}] });
  const ends = new Set<number>();
  for (let length = 1; length < good.length; length++) {
    if (!hasExcluder(good.subarray(0, length))) ends.add(good.length - length);
  }
  // a record ends before the lock, before the share mode data, or behind an entry
  assert.deepEqual([...ends].reverse(), [132, 264, 264 + 52, 264 + 52 + 24 + 4 + 40]);
  assert.equal(hasExcluder(words(0xffffffff)), true);
});

test('the leases of the holders, each once', () => {
  const entries = [
    { opType: LEASE, lease: 'one' }, { opType: 1, lease: 'none' }, { opType: LEASE, lease: 'two' },
    { opType: LEASE, lease: 'one' },
  ];
  const keys = leaseHolders(record({ entries }), 10);
  assert.deepEqual(keys.map((key) => key.slice(16).trim()), ['one', 'two']);
  assert.ok(keys.every((key) => key.startsWith('client')));
  assert.equal(leaseHolders(record({ entries }), 1).length, 1);
  assert.deepEqual(leaseHolders(words(7), 10), []);
});
