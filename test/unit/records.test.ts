/** Records of a few servers on a network without faults, where nobody comes or goes: stories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RecordKey } from '../../src/base/ids.js';
import { RecordsPool, keyWithHome } from '../support/records-pool.js';
import {
  DATABASES, LOCKING, OPENS, answered, fetch, look, migrate, write,
} from '../support/records-use.js';

test('a key nobody has is granted by its home without a third server', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  const own = migrate(pool, 1, key);
  assert.equal(answered(pool, 1, own), 'migrated', 'the home itself needs no message');
  assert.deepEqual(pool.busyWires(), []);

  const other = keyWithHome(pool, 2);
  const token = migrate(pool, 0, other);
  assert.equal(answered(pool, 0, token), undefined);
  pool.deliver('0>2');
  pool.deliver('2>0');
  assert.equal(answered(pool, 0, token), 'migrated');
});

test('a record moves from its owner straight to the asker, with its data, and leaves a backup', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  migrate(pool, 0, key);
  pool.deliverAll();
  write(pool, 0, key, 'v1');
  pool.advance(2_000);
  const token = migrate(pool, 2, key);
  pool.deliver('2>1');
  pool.deliver('1>0');
  pool.deliver('0>2');
  assert.equal(answered(pool, 2, token), 'migrated');
  assert.equal(pool.find(2, LOCKING, key)?.data, 'v1');
  assert.equal(pool.find(2, LOCKING, key)?.dmaster, 2);
  assert.equal(pool.find(0, LOCKING, key)?.data, 'v1', 'the backup');
  assert.equal(pool.find(0, LOCKING, key)?.dmaster, 2);
  pool.deliverAll();
  pool.advance(2_000);
  migrate(pool, 1, key);
  pool.deliverAll();
  pool.advance(5_000);
  assert.equal(pool.find(1, LOCKING, key)?.dmaster, 1);
  assert.equal(pool.find(0, LOCKING, key), undefined, 'the older backup is dropped');
  assert.equal(pool.find(2, LOCKING, key)?.dmaster, 1, 'the newer one stays');
});

test('a record is not given away before its hold is over', () => {
  const pool = new RecordsPool(2);
  const key = keyWithHome(pool, 0);
  migrate(pool, 0, key);
  const token = migrate(pool, 1, key);
  pool.deliverAll();
  pool.advance(900);
  assert.equal(answered(pool, 1, token), undefined);
  pool.advance(200);
  assert.equal(answered(pool, 1, token), 'migrated');
});

test('a record that its last user emptied goes at once, and was used: its hold does not grow', () => {
  const pool = new RecordsPool(2);
  const key = keyWithHome(pool, 0);
  for (let turn = 0; turn < 20; turn++) {
    const server = turn % 2;
    const token = migrate(pool, server, key);
    pool.deliverAll();
    assert.equal(answered(pool, server, token), 'migrated', `turn ${turn}`);
    pool.advance(50);
    write(pool, server, key, 'open');
    write(pool, server, key, '');
    pool.server(server).act((records) => records.scheduleDeletion(LOCKING, key));
  }
  // emptied while another waits already
  migrate(pool, 0, key);
  pool.deliverAll();
  const token = migrate(pool, 1, key);
  pool.deliverAll();
  assert.equal(answered(pool, 1, token), undefined, 'held');
  pool.server(0).act((records) => records.scheduleDeletion(LOCKING, key));
  pool.deliverAll();
  assert.equal(answered(pool, 1, token), 'migrated');
});

test('who asks twice in a row lost the record too early only if it left as it came', () => {
  const pool = new RecordsPool(2);
  const key = keyWithHome(pool, 0);
  const holdOf = (server: number, use: () => void): number => {
    pool.server(server).act((records) => records.migrate(LOCKING, key, 1_000 + server, true));
    pool.deliverAll();
    pool.advance(20_000);
    use();
    const token = migrate(pool, 1 - server, key);
    pool.deliverAll();
    pool.advance(20_000);
    assert.equal(answered(pool, 1 - server, token), 'migrated');
    return pool.server(server).counters.get('record.hold.short') ?? 0;
  };
  migrate(pool, 0, key);
  assert.equal(holdOf(0, () => write(pool, 0, key, 'used')), 0, 'owned all the time');
  assert.equal(holdOf(0, () => undefined), 0, 'was used before');
  assert.equal(holdOf(0, () => undefined), 1, 'left unused');
});

test('a chain held by a smbd delays the move and nothing else', () => {
  const pool = new RecordsPool(2);
  const key = keyWithHome(pool, 0);
  migrate(pool, 0, key);
  write(pool, 0, key, 'v1');
  pool.server(0).heldChains.add(`${LOCKING}/${key}`);
  const token = migrate(pool, 1, key);
  pool.advance(50_000);
  assert.equal(answered(pool, 1, token), undefined);
  const other = migrate(pool, 0, keyWithHome(pool, 1));
  pool.deliverAll();
  assert.equal(answered(pool, 0, other), 'migrated');
  pool.server(0).heldChains.clear();
  pool.advance(11_000);
  assert.equal(answered(pool, 1, token), 'migrated');
  assert.equal(pool.find(1, LOCKING, key)?.data, 'v1');
});

test('a reader gets a copy; the owner cannot write before the copy is gone', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  migrate(pool, 0, key);
  pool.deliverAll();
  write(pool, 0, key, 'v1');
  pool.advance(2_000);
  const read = fetch(pool, 2, key);
  pool.deliverAll();
  assert.equal(answered(pool, 2, read), 'fetched v1');
  assert.notEqual(pool.find(0, LOCKING, key)?.flags, 0, 'the owner must ask before it writes');
  const again = migrate(pool, 0, key);
  pool.deliver('0>1');
  pool.deliver('1>2');
  assert.notEqual(pool.find(2, LOCKING, key), undefined, 'the copy stays for the time of a hold');
  pool.passTime(1_000);
  assert.equal(pool.find(2, LOCKING, key), undefined, 'the copy is gone');
  assert.notEqual(pool.find(0, LOCKING, key)?.flags, 0, 'and only then the owner may write');
  pool.deliverAll();
  assert.equal(answered(pool, 0, again), 'migrated');
  write(pool, 0, key, 'v2');
});

test('a look at a record moves and copies nothing, and finds what the owner wrote last', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  migrate(pool, 0, key);
  pool.deliverAll();
  write(pool, 0, key, 'v1');
  const looks = [0, 1, 2].map((server) => look(pool, server, key));
  pool.deliverAll();
  looks.forEach((token, server) => assert.equal(answered(pool, server, token), 'fetched v1'));
  assert.equal(pool.find(0, LOCKING, key)?.flags, 0, 'the owner writes on without asking');
  for (const server of [1, 2]) assert.equal(pool.find(server, LOCKING, key), undefined);

  const nothing = look(pool, 2, keyWithHome(pool, 0));
  pool.deliverAll();
  assert.equal(answered(pool, 2, nothing), 'fetched');
  for (const server of pool.servers) assert.equal(server.records.status().get(LOCKING)?.owned, server.id === 0 ? 1 : 0);
});

test('a look at a record under way is asked again until it has arrived', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  migrate(pool, 0, key);
  pool.deliverAll();
  write(pool, 0, key, 'v1');
  pool.advance(2_000);
  const move = migrate(pool, 2, key);
  pool.deliver('2>1');
  pool.deliver('1>0');
  const token = look(pool, 1, key);
  pool.deliver('1>0');
  pool.deliver('0>1');
  assert.equal(answered(pool, 1, token), undefined, 'the former owner cannot tell');
  pool.advance(20_000);
  assert.equal(answered(pool, 2, move), 'migrated');
  assert.equal(answered(pool, 1, token), 'fetched v1');
});

test('a look that nobody answers takes the record and never copies it', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  migrate(pool, 0, key);
  pool.deliverAll();
  write(pool, 0, key, 'v1');
  const token = look(pool, 2, key);
  for (let i = 0; i < 20; i++) pool.passTime(200_000);
  pool.advance(50_000);
  assert.equal(answered(pool, 2, token), 'migrated');
  assert.deepEqual([0, 2].map((server) => pool.find(server, LOCKING, key)?.flags), [0, 0], 'no copy, no delegation');
  assert.equal(pool.find(2, LOCKING, key)?.data, 'v1');
});

test('an emptied record disappears everywhere', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  for (const server of [0, 2, 1, 0]) {
    migrate(pool, server, key);
    pool.deliverAll();
    pool.advance(3_000);
    write(pool, server, key, `by ${server}`);
  }
  fetch(pool, 2, key);
  pool.deliverAll();
  migrate(pool, 0, key);
  pool.deliverAll();
  pool.advance(2_000);
  write(pool, 0, key, '');
  pool.server(0).act((records) => records.scheduleDeletion(LOCKING, key));
  pool.advance(20_000_000);
  for (const server of pool.servers) {
    assert.deepEqual([...server.store.keys()], [], `server ${server.id}`);
    assert.equal(server.records.status().get(LOCKING)?.directoryEntries, 0);
    assert.equal(server.records.status().get(LOCKING)?.owned, 0);
  }
});

test('a random key nobody announced is granted without a message, and found by everybody afterwards', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  const token = migrate(pool, 0, key, OPENS);
  assert.equal(answered(pool, 0, token), 'migrated', 'before anything was sent');
  write(pool, 0, key, 'open', OPENS);
  pool.deliverAll();
  pool.advance(2_000);
  const elsewhere = migrate(pool, 2, key, OPENS);
  pool.advance(2_000);
  assert.equal(answered(pool, 2, elsewhere), 'migrated');
  assert.equal(pool.find(2, OPENS, key)?.data, 'open');
  write(pool, 2, key, '', OPENS);
  pool.server(2).act((records) => records.scheduleDeletion(OPENS, key));
  pool.advance(1_000_000);
  for (const server of pool.servers) assert.equal(server.store.size, 0);
});

test('moves are counted where a record comes from another owner, not where somebody waits', () => {
  const pool = new RecordsPool(3);
  const movesOf = (server: number): number => {
    let moves = 0;
    pool.server(server).act((records) => (moves = records.status().get(LOCKING)?.moves ?? -1));
    return moves;
  };
  const key = keyWithHome(pool, 2);
  for (const server of [0, 0, 1, 1, 0]) {
    migrate(pool, server, key);
    pool.deliverAll();
    pool.advance(100_000);
  }
  assert.deepEqual([movesOf(0), movesOf(1), movesOf(2)], [1, 1, 0]);
});
