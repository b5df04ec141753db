/** Records of a few servers on a network without faults: stories, and random work against a simple model. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { databaseId } from '../../src/base/ids.js';
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import { RecordsPool, keyWithHome, keysWithHome } from '../support/records-pool.js';

const LOCKING = databaseId(1);
const OPENS = databaseId(2);
const DATABASES = new Map([
  [LOCKING, 'locking.tdb'],
  [OPENS, 'smbXsrv_open_global.tdb'],
]);

let lastToken = 0;

function migrate(pool: RecordsPool, server: number, key: RecordKey, database = LOCKING): number {
  const token = ++lastToken;
  pool.server(server).act((records) => records.migrate(database, key, token));
  return token;
}

function fetch(pool: RecordsPool, server: number, key: RecordKey, database = LOCKING): number {
  const token = ++lastToken;
  pool.server(server).act((records) => records.fetch(database, key, token));
  return token;
}

function answered(pool: RecordsPool, server: number, token: number): string | undefined {
  const answer = pool.server(server).answers.get(token);
  return answer === undefined ? undefined : `${answer.what} ${answer.data}`.trim();
}

/** What a local smbd does under the chain once the record is here. */
function write(pool: RecordsPool, server: number, key: RecordKey, data: string, database = LOCKING): void {
  const record = pool.find(server, database, key);
  assert.ok(record !== undefined && record.dmaster === server && record.flags === 0, 'smbd may write');
  record.data = data;
}

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
  const look = (server: number): number => {
    const token = ++lastToken;
    pool.server(server).act((records) => records.look(LOCKING, key, token));
    return token;
  };
  const looks = [look(0), look(1), look(2)];
  pool.deliverAll();
  looks.forEach((token, server) => assert.equal(answered(pool, server, token), 'fetched v1'));
  assert.equal(pool.find(0, LOCKING, key)?.flags, 0, 'the owner writes on without asking');
  for (const server of [1, 2]) assert.equal(pool.find(server, LOCKING, key), undefined);

  const nothing = ++lastToken;
  pool.server(2).act((records) => records.look(LOCKING, keyWithHome(pool, 0), nothing));
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
  const token = ++lastToken;
  pool.server(1).act((records) => records.look(LOCKING, key, token));
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
  const token = ++lastToken;
  pool.server(2).act((records) => records.look(LOCKING, key, token));
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

test('random work: no version is lost, nobody waits for ever, nothing stays', () => {
  const first = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9));
  console.log(`seed ${first}`);
  for (let seed = first; seed < first + 40; seed++) randomRun(seed, false);
});

test('random work with servers that start anew: one writer, survivors keep their records, nobody waits', () => {
  const first = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9));
  console.log(`seed ${first}`);
  for (let seed = first; seed < first + 40; seed++) randomRun(seed, true);
});

function randomRun(seed: number, restarts: boolean): void {
  const prng = new Prng(seed);
  const count = 1 + prng.below(4);
  const pool = new RecordsPool(count, DATABASES);
  const keys = Array.from({ length: 4 }, (_, i) => `k${i}` as RecordKey);
  const versions = new Map<string, number>();
  const waiting: { server: number; key: RecordKey; token: number; mode: 'read' | 'write'; database: DatabaseId }[] = [];
  const context = `seed ${seed}`;
  // Random keys: made once, looked up elsewhere only when their announcement has arrived, never used after their end.
  const made: RecordKey[] = [];
  let announced: RecordKey[] = [];
  const used = new Set<RecordKey>();
  // Records whose last version died with its owner: the newest one handed over counts.
  const lost = new Set<string>();
  const highest = new Map<string, number>();
  const use = (want: (typeof waiting)[number]): boolean => {
    const answer = pool.server(want.server).answers.get(want.token);
    if (answer === undefined) return false;
    const name = `${want.database}/${want.key}`;
    if (want.mode === 'read') return true;
    const record = pool.find(want.server, want.database, want.key);
    if (record?.dmaster !== want.server || record.flags !== 0) {
      want.token = migrate(pool, want.server, want.key, want.database);
      return false;
    }
    const found = Number(record.data || '0');
    if (lost.has(name)) assert.ok(found <= (highest.get(name) ?? 0), `${context}: ${name} was written once`);
    else assert.equal(found, versions.get(name) ?? 0, `${context}: ${name} is the last version`);
    lost.delete(name);
    const ends = want.database === OPENS ? versions.get(name) !== undefined : prng.chance(0.2);
    const version = ends ? 0 : found + 1;
    versions.set(name, version);
    highest.set(name, Math.max(version, highest.get(name) ?? 0));
    record.data = version === 0 ? '' : String(version);
    if (version === 0) pool.server(want.server).act((r) => r.scheduleDeletion(want.database, want.key));
    return true;
  };
  for (let step = 0; step < 3000; step++) {
    const dice = prng.below(10);
    if (dice < 2 && step < 2000) {
      const server = prng.below(count);
      const database = prng.chance(0.8) ? LOCKING : OPENS;
      const mode = prng.chance(0.6) || database === OPENS ? 'write' : 'read';
      let key = prng.pick(keys);
      if (database === OPENS) {
        const old = prng.chance(0.5) && announced.length > 0;
        key = old ? prng.pick(announced) : (`random ${made.length}` as RecordKey);
        if (old) {
          announced = announced.filter((other) => other !== key);
          used.add(key);
        }
        if (!old) made.push(key);
      }
      // a smbd asks only for what it cannot use
      const record = pool.find(server, database, key);
      if (record?.dmaster === server && record.flags === 0) continue;
      const token = (mode === 'write' ? migrate : fetch)(pool, server, key, database);
      waiting.push({ server, key, token, mode, database });
    } else if (dice < 7) {
      const wires = pool.busyWires();
      if (wires.length > 0) pool.deliver(prng.pick(wires));
    } else if (dice < 9) {
      pool.time += prng.below(1500);
      for (const server of pool.servers) server.act(() => {});
    } else if (restarts && step < 2000 && pool.cutPairs().length === 0 && prng.chance(0.03)) {
      const id = pool.members[prng.below(count)]!;
      for (const server of pool.servers) {
        for (const [name, record] of server.store) {
          // What was on its way to the dead server comes back from the giver.
          if (record.dmaster === id && server.id === id) lost.add(name);
          // A giver that dies takes what is still on its way with it.
          const to = pool.servers[record.dmaster]!.store.get(name);
          if (server.id === id && record.dmaster !== id && to?.dmaster !== record.dmaster) lost.add(name);
        }
      }
      for (const key of made) lost.add(`${OPENS}/${key}`);
      pool.restart(id);
      for (let i = waiting.length - 1; i >= 0; i--) if (waiting[i]!.server === id) waiting.splice(i, 1);
    } else if (pool.cutPairs().length > 0) {
      pool.reconnect(...prng.pick(pool.cutPairs()));
    } else if (prng.chance(0.3)) {
      const server = pool.server(prng.below(count));
      if (server.heldChains.size > 0) server.heldChains.clear();
      else server.heldChains.add(`${LOCKING}/${prng.pick(keys)}`);
    }
    for (let i = waiting.length - 1; i >= 0; i--) {
      const want = waiting[i]!;
      if (!pool.server(want.server).heldChains.has(`${want.database}/${want.key}`) && use(want)) waiting.splice(i, 1);
    }
    if (pool.busyWires().length === 0) {
      const isNew = (key: RecordKey): boolean =>
        versions.get(`${OPENS}/${key}`) === 1 && !announced.includes(key) && !used.has(key);
      announced.push(...made.filter(isNew));
    }
    checkOwners(pool, context);
  }
  for (const server of pool.servers) server.heldChains.clear();
  for (const [a, b] of pool.cutPairs()) pool.reconnect(a, b);
  for (let i = 0; i < 400 && waiting.length > 0; i++) {
    pool.advance(5_000);
    for (let k = waiting.length - 1; k >= 0; k--) if (use(waiting[k]!)) waiting.splice(k, 1);
  }
  assert.deepEqual(waiting, [], `${context}: all were answered`);
  assert.deepEqual(pool.errors, [], context);
  emptyAll(pool, LOCKING, keys);
  emptyAll(pool, OPENS, made);
  pool.advance(30_000_000);
  for (const server of pool.servers) {
    // After restarts a backup may stay that no home knows of: no smbd uses it, and the next move overwrites or drops
    // it.
    const left = [...server.store].filter(([, record]) => !restarts || record.dmaster === server.id);
    assert.deepEqual(left, [], `${context}: nothing stays`);
  }
}

function emptyAll(pool: RecordsPool, database: DatabaseId, keys: RecordKey[]): void {
  for (const key of keys) {
    migrate(pool, 0, key, database);
    pool.advance(20_000);
    write(pool, 0, key, '', database);
    pool.server(0).act((records) => records.scheduleDeletion(database, key));
  }
}

/** At most one server may write a record, and while one may, nobody else may read it. */
function checkOwners(pool: RecordsPool, context: string): void {
  const writable = new Map<string, number>();
  const usable = new Map<string, number[]>();
  for (const server of pool.servers) {
    for (const [name, record] of server.store) {
      const owns = record.dmaster === server.id;
      if (owns && record.flags === 0) {
        assert.equal(writable.get(name), undefined, `${context}: two writers of ${name}`);
        writable.set(name, server.id);
      }
      if (owns || record.flags !== 0) usable.set(name, [...(usable.get(name) ?? []), server.id]);
    }
  }
  for (const [name] of writable) {
    assert.equal(usable.get(name)?.length, 1, `${context}: a reader beside the writer of ${name}`);
  }
}

/** A server dies and comes back; the others meet it again one after the other. */
function restart(pool: RecordsPool, id: number): void {
  pool.restart(pool.members[id]!);
  reconnectAll(pool);
}

function reconnectAll(pool: RecordsPool): void {
  for (const [a, b] of pool.cutPairs()) {
    pool.reconnect(a, b);
    pool.deliverAll();
  }
  pool.advance(2_000);
}

/** Migrates, and writes `data` over what is there; returns that. */
function use(pool: RecordsPool, server: number, key: RecordKey, data: string, database = LOCKING): string {
  const token = migrate(pool, server, key, database);
  pool.deliverAll();
  pool.advance(3_000);
  assert.equal(answered(pool, server, token), 'migrated');
  const found = pool.find(server, database, key)!.data;
  write(pool, server, key, data, database);
  return found;
}

test('a random key whose creator starts anew is not made twice', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'made', OPENS);
  use(pool, 1, key, 'taken over', OPENS);
  pool.restart(pool.members[0]!);
  pool.reconnect(pool.members[0]!, pool.members[2]!);
  // neither the new run nor who just met it may take the key for a new one
  const tokens = [migrate(pool, 2, key, OPENS), migrate(pool, 0, key, OPENS)];
  pool.deliverAll();
  assert.deepEqual([answered(pool, 2, tokens[0]!), answered(pool, 0, tokens[1]!)], [undefined, undefined]);
  reconnectAll(pool);
  pool.advance(10_000);
  assert.deepEqual([answered(pool, 2, tokens[0]!), answered(pool, 0, tokens[1]!)], ['migrated', 'migrated']);
  assert.equal(use(pool, 2, key, 'on', OPENS), 'taken over');
});

test('a random key comes back from the backup when its creator dies as its owner', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  use(pool, 1, key, 'v2', OPENS);
  use(pool, 0, key, 'v3', OPENS);
  restart(pool, 0);
  assert.equal(use(pool, 2, key, 'on', OPENS), 'v2');
});

test('random keys that died with all who had them are forgotten', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  restart(pool, 0);
  const token = fetch(pool, 2, key, OPENS);
  assert.equal(answered(pool, 2, token), 'fetched', 'at once, since it exists nowhere');
  assert.deepEqual(pool.busyWires(), []);
});

test('what was erased just before its home died does not come back from an older backup', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  use(pool, 2, key, 'old');
  use(pool, 0, key, '');
  pool.server(0).act((records) => records.scheduleDeletion(LOCKING, key));
  // the release is on its way when the home dies
  pool.passTime(1_100_000);
  assert.equal(pool.find(0, LOCKING, key), undefined);
  assert.equal(pool.find(2, LOCKING, key)?.data, 'old', 'the backup');
  restart(pool, 1);
  assert.equal(use(pool, 2, key, 'new'), '');
});

test('a copy that was stored over the backup serves as backup when it is revoked', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  use(pool, 2, key, 'v1');
  use(pool, 0, key, 'v2');
  const read = fetch(pool, 2, key);
  pool.deliverAll();
  assert.equal(answered(pool, 2, read), 'fetched v2');
  pool.advance(2_000);
  use(pool, 0, key, 'v3');
  restart(pool, 0);
  assert.equal(use(pool, 1, key, 'on'), 'v2');
});

test('when the asker dies during a move and then the giver, the older backup is still known', () => {
  const pool = new RecordsPool(4);
  const key = keyWithHome(pool, 1);
  use(pool, 2, key, 'v1');
  use(pool, 0, key, 'v2');
  migrate(pool, 3, key);
  pool.deliver('3>1');
  pool.restart(pool.members[3]!);
  pool.reconnect(pool.members[1]!, pool.members[3]!);
  pool.restart(pool.members[0]!);
  reconnectAll(pool);
  assert.equal(use(pool, 1, key, 'on'), 'v1');
});

test('a home that starts anew does not wait for a chain whose holder waits for it', () => {
  const pool = new RecordsPool(3);
  const [held, wanted] = keysWithHome(pool, 1, 2) as [RecordKey, RecordKey];
  use(pool, 2, held, 'v1');
  // the record comes while its chain is held, by a smbd that needs another record of the same home
  const token = migrate(pool, 0, held);
  pool.server(0).heldChains.add(`${LOCKING}/${held}`);
  pool.advance(5_000);
  pool.restart(pool.members[1]!);
  const other = migrate(pool, 0, wanted);
  reconnectAll(pool);
  assert.equal(answered(pool, 0, other), 'migrated');
  const elsewhere = migrate(pool, 2, held);
  pool.advance(3_000);
  assert.equal(answered(pool, 2, elsewhere), undefined);
  pool.server(0).heldChains.clear();
  pool.advance(3_000);
  assert.equal(answered(pool, 0, token), 'migrated');
  pool.advance(20_000);
  assert.equal(answered(pool, 2, elsewhere), 'migrated');
  assert.equal(pool.find(2, LOCKING, held)?.data, 'v1');
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
