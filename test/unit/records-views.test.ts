/** Records when the pool changes: a server starts anew, is lost for good, or joins. Stories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RecordKey } from '../../src/base/ids.js';
import { databaseId, epoch, nodeId, turn } from '../../src/base/ids.js';
import { rendezvousHome } from '../../src/core/records/rendezvous.js';
import { decodeRecordMessage, encodeRecordMessage } from '../../src/wire/record-messages.js';
import { RESTORES_UNDER_WAY_MAX, SLICE } from '../../src/core/records/slices.js';
import { RecordsPool, keyWithHome, keysWithHome } from '../support/records-pool.js';
import {
  DATABASES, LOCKING, OPENS, answered, empty, fetch, installAll, look, lose, migrate, restart, use, write,
} from '../support/records-use.js';

/** A key that has its home on `home` while all are there, and on `next` when that is lost. */
function keyThatMoves(pool: RecordsPool, home: number, next: number): RecordKey {
  const others = pool.members.filter((id) => id !== home);
  return keysWithHome(pool, home, 200).find((key) => rendezvousHome(LOCKING, key, others) === next)!;
}

/** Delivers what is under way on these wires, one after the other. */
function deliverOn(pool: RecordsPool, ...wires: string[]): void {
  for (const wire of wires) while (pool.busyWires().includes(wire)) pool.deliver(wire);
}

/** Delivers what is under way to one server. */
function deliverTo(pool: RecordsPool, id: number): void {
  const wires = (): string[] => pool.busyWires().filter((name) => name.endsWith(`>${id}`));
  for (let busy = wires(); busy.length > 0; busy = wires()) pool.deliver(busy[0]!);
}

function homeOf(pool: RecordsPool, at: number, key: RecordKey, database = LOCKING): number {
  return pool.server(at).records.homeOf(database, key);
}

test('a random key whose creator starts anew is not made twice', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'made', OPENS);
  use(pool, 1, key, 'taken over', OPENS);
  pool.restart(0);
  pool.install(0);
  pool.install(2);
  // neither the new run nor who just met it may take the key for a new one
  const tokens = [migrate(pool, 2, key, OPENS), migrate(pool, 0, key, OPENS)];
  pool.deliverAll();
  assert.deepEqual([answered(pool, 2, tokens[0]!), answered(pool, 0, tokens[1]!)], [undefined, undefined]);
  installAll(pool);
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

test('two runs that have both forgotten which keys exist wait for what the other one has', () => {
  const pool = new RecordsPool(2, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  pool.resume(0);
  pool.resume(1);
  pool.installAll();
  // 1 has heard 0, which has not heard 1 yet
  deliverOn(pool, '0>1');
  const token = migrate(pool, 1, key, OPENS);
  assert.equal(answered(pool, 1, token), undefined);
  pool.advance(10_000);
  assert.equal(answered(pool, 1, token), 'migrated');
  assert.equal(pool.find(1, OPENS, key)!.data, 'v1');
  // when all is told, a key that nobody has is known not to exist
  assert.equal(answered(pool, 1, fetch(pool, 1, 'none' as RecordKey, OPENS)), 'fetched');
  assert.deepEqual(pool.busyWires(), []);
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
  use(pool, 0, key, 'new');
  empty(pool, 0, key);
  // the release is on its way when the home dies
  pool.passTime(1_100_000);
  assert.equal(pool.find(0, LOCKING, key), undefined);
  assert.equal(pool.find(2, LOCKING, key)?.data, 'old', 'the backup');
  restart(pool, 1);
  assert.equal(use(pool, 2, key, 'new'), '');
});

for (const order of [['2>1', '0>1'], ['0>1', '2>1']]) {
  test(`what its owner erases while its home is told of copies ends: ${order.join(' before ')}`, () => {
    const pool = new RecordsPool(3);
    const key = keyWithHome(pool, 1);
    use(pool, 2, key, 'v1');
    use(pool, 0, key, 'v2');
    empty(pool, 0, key);
    // a copy over the backup, of a later turn than the one with which the owner owns the record
    fetch(pool, 2, key);
    pool.deliverAll();
    pool.restart(1);
    pool.installAll();
    const others = (): string | undefined => pool.busyWires().find((wire) => wire !== '2>1');
    for (let wire = others(); wire !== undefined; wire = others()) pool.deliver(wire);
    // all claims of the owner have come, none of the reader
    pool.passTime(1_100_000);
    assert.equal(pool.find(0, LOCKING, key), undefined, 'erased');
    deliverOn(pool, ...order);
    installAll(pool);
    pool.passTime(1_000_000);
    pool.deliverAll();
    assert.equal(pool.find(2, LOCKING, key), undefined, 'no copy and no backup stays');
    assert.equal(use(pool, 2, key, 'on'), '');
    assert.deepEqual(pool.errors, []);
  });
}

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

test('a backup that was lost with its keeper is made anew, and brings the record back when its owner is lost', () => {
  for (const [home, restored] of [[1, false], [0, false], [3, false], [1, true], [2, true]] as const) {
    const pool = new RecordsPool(4);
    const key = keyWithHome(pool, home);
    use(pool, 1, key, 'v1');
    use(pool, 3, key, 'v2');
    use(pool, 0, key, 'v3');
    // the only backup is lost; or the owner, and the backup becomes the record
    lose(pool, restored ? 0 : 3);
    write(pool, restored ? 3 : 0, key, 'v4');
    pool.passTime(100_000);
    pool.deliverAll();
    lose(pool, restored ? 3 : 0);
    const why = `home ${home}, ${restored ? 'restored before' : 'the keeper was lost'}`;
    assert.match(use(pool, 2, key, 'on'), restored ? /v[24]/ : /v[34]/, why);
    assert.deepEqual(pool.errors, []);
  }
});

test('who is lost before it has the backup made anew is replaced by another server', () => {
  const pool = new RecordsPool(4);
  const key = keyWithHome(pool, 0);
  use(pool, 1, key, 'v1');
  use(pool, 3, key, 'v2');
  use(pool, 0, key, 'v3');
  pool.lose(3);
  pool.installAll();
  const isBackup = (bytes: Uint8Array): boolean => decodeRecordMessage(bytes).kind === 'backup';
  const keeper = (): number | undefined => [1, 2].find((id) => pool.underWay(0, id).some(isBackup));
  for (let wire = pool.busyWires()[0]; keeper() === undefined; wire = pool.busyWires()[0]) {
    if (wire === undefined) pool.advance(1_000);
    else pool.deliver(wire);
  }
  const lost = keeper()!;
  lose(pool, lost);
  pool.passTime(100_000);
  pool.deliverAll();
  assert.equal(pool.find(3 - lost, LOCKING, key)?.data, 'v3');
  assert.deepEqual(pool.errors, []);
});

/** Keys with their home on 1, whose backups 2 keeps, and 0 owns. */
function keptBySecond(pool: RecordsPool, count: number): RecordKey[] {
  const keys = keysWithHome(pool, 1, count);
  for (const key of keys) {
    use(pool, 2, key, 'v1');
    use(pool, 0, key, 'v2');
  }
  return keys;
}

test('no more backups are made anew at a time than stand in the way of others for some milliseconds', () => {
  const pool = new RecordsPool(3);
  const keys = keptBySecond(pool, 4 * RESTORES_UNDER_WAY_MAX);
  pool.lose(2);
  pool.installAll();
  const backups = (): number =>
    pool.underWay(0, 1).filter((bytes) => decodeRecordMessage(bytes).kind === 'backup').length;
  for (let i = 0; i < 100; i++) {
    deliverOn(pool, '1>0');
    while (pool.busyWires().includes('0>1') && decodeRecordMessage(pool.underWay(0, 1)[0]!).kind !== 'backup') {
      pool.deliver('0>1');
    }
    pool.passTime(5_000);
  }
  assert.equal(backups(), RESTORES_UNDER_WAY_MAX);
  pool.advance(1_000_000);
  for (const key of keys) assert.equal(pool.find(1, LOCKING, key)?.data, 'v2');
});

test('records that are not mirrored do not keep others from it', () => {
  const pool = new RecordsPool(3);
  const own = keysWithHome(pool, 2, 400).filter((key) => rendezvousHome(LOCKING, key, [nodeId(0), nodeId(1)]) === 1);
  assert.ok(own.length > 2 * RESTORES_UNDER_WAY_MAX);
  for (const key of own) use(pool, 0, key, 'mine');
  const keys = keptBySecond(pool, 3);
  lose(pool, 2);
  pool.advance(1_000_000);
  for (const key of keys) assert.equal(pool.find(1, LOCKING, key)?.data, 'v2');
  assert.ok((pool.server(0).counters.get('record.mirror.needless') ?? 0) > RESTORES_UNDER_WAY_MAX);
});

/** Kinds of the messages under way from one server to another. */
function kindsUnderWay(pool: RecordsPool, from: number, to: number): string[] {
  return pool.underWay(from, to).map((bytes) => decodeRecordMessage(bytes).kind);
}

test('an owner that cannot send the backup that was ordered says so', () => {
  const pool = new RecordsPool(3);
  const [key] = keptBySecond(pool, 1) as [RecordKey];
  const owner = pool.server(0);
  owner.heldChains.add(`${LOCKING}/${key}`);
  lose(pool, 2);
  pool.advance(100_000);
  assert.deepEqual(kindsUnderWay(pool, 0, 1), []);
  // somebody else deletes it before the chain is free
  owner.store.delete(`${LOCKING}/${key}`);
  owner.heldChains.clear();
  pool.passTime(10_000);
  assert.deepEqual(kindsUnderWay(pool, 0, 1), ['not-kept']);
});

test('a backup of a record that is gone is answered, too', () => {
  const pool = new RecordsPool(3, DATABASES);
  const [database, key, data] = [OPENS, 'gone' as RecordKey, Buffer.from('late')];
  const backup = encodeRecordMessage({ kind: 'backup', database, key, turn: turn(7), data });
  pool.server(2).act((records) => records.onMessage(nodeId(0), backup));
  assert.deepEqual(kindsUnderWay(pool, 2, 0), ['not-kept']);
  assert.equal(pool.find(2, database, key), undefined);
});

/** 2 keeps a backup older than the turn of its owner 0; the new one is ordered, and on its way to its home, 1. */
function replacedBackup(pool: RecordsPool): RecordKey {
  const [key] = keptBySecond(pool, 1) as [RecordKey];
  fetch(pool, 2, key);
  pool.deliverAll();
  pool.advance(2_000);
  use(pool, 0, key, 'v3');
  pool.restart(1);
  pool.installAll();
  for (let i = 0; i < 100 && !kindsUnderWay(pool, 0, 1).includes('backup'); i++) {
    const [wire] = pool.busyWires();
    if (wire === undefined) pool.passTime(1_000);
    else pool.deliver(wire);
  }
  return key;
}

test('what takes the place of a backup has it dropped, also where it has become a younger one meanwhile', () => {
  const pool = new RecordsPool(3);
  const key = replacedBackup(pool);
  fetch(pool, 2, key);
  deliverOn(pool, '2>1', '1>0', '0>2', '2>1');
  assert.notEqual(pool.find(2, LOCKING, key)?.flags, 0, 'a copy over the backup');
  pool.passTime(3_000);
  migrate(pool, 1, key);
  deliverOn(pool, '1>2');
  assert.equal(pool.find(2, LOCKING, key)?.flags, 0, 'the copy has become the backup');
  deliverOn(pool, '0>1');
  pool.deliverAll();
  pool.advance(10_000);
  assert.equal(pool.find(2, LOCKING, key), undefined);
  empty(pool, 1, key);
  pool.passTime(1_100_000);
  pool.deliverAll();
  assert.deepEqual(pool.servers.map(({ store }) => store.size), [0, 0, 0]);
});

for (const isKnown of [true, false]) {
  test(`a copy stays when its backup is dropped, ${isKnown ? 'known to' : 'and not known yet to'} its home`, () => {
    const pool = new RecordsPool(3);
    const key = replacedBackup(pool);
    const read = fetch(pool, 2, key);
    deliverOn(pool, '2>1', '1>0', '0>2');
    if (isKnown) deliverOn(pool, '2>1');
    deliverOn(pool, '0>1', '1>2');
    pool.deliverAll();
    // no copy goes before it has been here for a moment
    pool.passTime(3_000);
    assert.equal(answered(pool, 2, read), 'fetched v3');
    assert.notEqual(pool.find(2, LOCKING, key)?.flags ?? 0, 0);
    use(pool, 0, key, 'v4');
    assert.equal(pool.find(2, LOCKING, key), undefined, 'and it is a copy only');
  });
}

test('a backup of which its home hears when the owner is lost is not thrown away', () => {
  const pool = new RecordsPool(3);
  const keys = keptBySecond(pool, 2 * RESTORES_UNDER_WAY_MAX);
  pool.lose(0);
  pool.installAll();
  // as many as may are under way, the last one is not
  for (const key of keys) pool.server(2).heldChains.add(`${LOCKING}/${key}`);
  pool.advance(100_000);
  const key = keys.at(-1)!;
  const record = pool.find(2, LOCKING, key)!;
  Object.assign(record, { rsn: record.rsn + 1000, data: 'newer' });
  const kept = encodeRecordMessage({ kind: 'kept', database: LOCKING, key, turn: turn(record.rsn + 1) });
  pool.server(1).act((records) => records.onMessage(nodeId(2), kept));
  pool.server(2).heldChains.clear();
  pool.advance(1_000_000);
  assert.equal(use(pool, 1, key, 'on'), 'newer');
});

test('a record that nobody else ever had is not mirrored, and a backup made anew goes with its record', () => {
  const pool = new RecordsPool(3);
  const [own, moved] = [keyWithHome(pool, 1), keysWithHome(pool, 1, 2)[1]!];
  use(pool, 0, own, 'mine');
  use(pool, 2, moved, 'v1');
  use(pool, 0, moved, 'v2');
  lose(pool, 2);
  pool.passTime(100_000);
  pool.deliverAll();
  assert.equal(pool.find(1, LOCKING, moved)?.data, 'v2');
  assert.equal(pool.find(1, LOCKING, own), undefined, 'what only its owner ever had is not worth a copy');
  empty(pool, 0, moved);
  pool.passTime(1_100_000);
  pool.deliverAll();
  assert.equal(pool.find(1, LOCKING, moved), undefined, 'the backup goes, too');
  assert.deepEqual(pool.errors, []);
});

test('when the asker dies during a move and then the giver, the older backup is still known', () => {
  const pool = new RecordsPool(4);
  const key = keyWithHome(pool, 1);
  use(pool, 2, key, 'v1');
  use(pool, 0, key, 'v2');
  migrate(pool, 3, key);
  pool.deliver('3>1');
  pool.restart(3);
  pool.installAll();
  deliverTo(pool, 1);
  // the home wants the record back from the giver by now
  pool.restart(0);
  installAll(pool);
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
  pool.restart(1);
  const other = migrate(pool, 0, wanted);
  installAll(pool);
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


test('a key whose home is lost for good is served by another home, with the content of its owner', () => {
  const pool = new RecordsPool(3);
  const key = keyThatMoves(pool, 1, 2);
  use(pool, 2, key, 'v1');
  use(pool, 0, key, 'v2');
  pool.lose(1);
  const early = migrate(pool, 2, key);
  pool.deliverAll();
  pool.advance(5_000);
  assert.equal(answered(pool, 2, early), undefined, 'nobody has installed the view that names another home');
  pool.install(2);
  pool.deliverAll();
  pool.advance(5_000);
  assert.equal(answered(pool, 2, early), undefined, 'the owner has not claimed it');
  installAll(pool);
  assert.deepEqual([homeOf(pool, 0, key), homeOf(pool, 2, key)], [2, 2]);
  pool.advance(5_000);
  assert.equal(answered(pool, 2, early), 'migrated');
  assert.equal(pool.find(2, LOCKING, key)?.data, 'v2');
  assert.equal(use(pool, 0, key, 'on'), 'v2');
});

test('a key whose home owned it, lost for good, has the content of its backup', () => {
  const pool = new RecordsPool(3);
  const key = keyThatMoves(pool, 1, 2);
  use(pool, 0, key, 'v1');
  use(pool, 1, key, 'v2');
  lose(pool, 1);
  assert.equal(homeOf(pool, 0, key), 2);
  assert.equal(use(pool, 2, key, 'on'), 'v1');
});

test('a record whose owner is lost for good comes back from the backup, and its readers from nowhere', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  use(pool, 0, key, 'v1');
  use(pool, 2, key, 'v2');
  lose(pool, 2);
  assert.equal(pool.find(0, LOCKING, key)?.dmaster, 0, 'the backup is the record');
  assert.equal(use(pool, 1, key, 'on'), 'v1');
});

test('many records of an owner that is lost for good come back little by little, and at once to who wants them', () => {
  const pool = new RecordsPool(3, DATABASES);
  const keys = keysWithHome(pool, 0, 10 * SLICE);
  for (const key of keys) {
    use(pool, 1, key, `of ${key}`);
    use(pool, 2, key, 'lost');
    pool.advance(10_000);
  }
  const restored = (): number => pool.server(0).counters.get('record.restored') ?? 0;
  pool.lose(2);
  installAll(pool);
  pool.advance(20_000);
  const [before, last] = [restored(), keys.at(-1)!];
  assert.ok(before > 0 && before < keys.length / 2, `${before} of ${keys.length}`);
  const token = migrate(pool, 0, last);
  pool.deliverAll();
  assert.equal(answered(pool, 0, token), 'migrated');
  pool.advance(1_000_000);
  assert.equal(restored(), keys.length);
  for (const key of keys) assert.equal(use(pool, 0, key, 'on'), `of ${key}`);
});

/** Some of the keys have their home on 0 before and after 2 is lost, some move there; 1 keeps the backups. */
function manyLost(protocol: number, sliceSize: number, count: number): { pool: RecordsPool; keys: RecordKey[] } {
  const pool = new RecordsPool(3, DATABASES, 3, protocol, sliceSize);
  const keys = Array.from({ length: count }, (_, i) => `many-${i}` as RecordKey);
  for (const key of keys) {
    use(pool, 1, key, `of ${key}`);
    use(pool, 2, key, 'lost');
    pool.advance(10_000);
  }
  pool.lose(2);
  return { pool, keys };
}

test('claims, reclaims and their answers travel many in one message when all members speak protocol 2', () => {
  const sent = [1, 2].map((protocol) => {
    const { pool, keys } = manyLost(protocol, SLICE, 200);
    const kinds = new Map<string, number>();
    pool.installAll();
    for (let i = 0; i < 2_000; i++) {
      for (const name of pool.busyWires()) {
        const [from, to] = name.split('>').map(Number);
        const { kind } = decodeRecordMessage(pool.underWay(from!, to!)[0]!);
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        pool.deliver(name);
      }
      pool.passTime(100);
    }
    for (const key of keys) assert.equal(use(pool, 0, key, 'on'), `of ${key}`);
    return kinds;
  });
  const of = (kinds: Map<string, number>): (number | undefined)[] =>
    ['claim', 'reclaim', 'have', 'many'].map((kind) => kinds.get(kind));
  const [claims, reclaims, haves, many] = of(sent[0]!);
  const told = `protocol 1: ${of(sent[0]!).join()}`;
  assert.ok(claims! > 20 && reclaims! > 50 && haves === reclaims && many === undefined, told);
  const [, , , batches] = of(sent[1]!);
  const alone = of(sent[1]!).slice(0, 3).reduce<number>((sum, count) => sum + (count ?? 0), 0);
  assert.ok(alone <= 2, `${alone} travel alone: the rest of a slice may be one`);
  assert.ok(batches! < 12, `${batches} messages for ${claims} claims and ${reclaims} reclaims`);
});

/** Those of many lost records whose home is 0 since server 2 is lost. Server 1 has to claim them. */
function movedToFirst(pool: RecordsPool, keys: readonly RecordKey[]): RecordKey[] {
  return keys.filter((key) => rendezvousHome(LOCKING, key, pool.configured) === 2 && homeOf(pool, 0, key) === 0);
}

const sentClaims = (pool: RecordsPool): number =>
  pool.servers.reduce((sum, { counters }) => sum + (counters.get('record.claim.sent') ?? 0), 0);

test('a key that somebody asks for is claimed before all others', () => {
  const { pool, keys } = manyLost(2, 1, 100);
  pool.installAll();
  pool.deliverAll();
  const moved = movedToFirst(pool, keys);
  const key = moved.at(-1)!;
  const before = sentClaims(pool);
  const token = migrate(pool, 0, key);
  pool.deliverAll();
  assert.equal(answered(pool, 0, token), 'migrated');
  assert.equal(pool.find(0, LOCKING, key)?.data, `of ${key}`);
  assert.equal(sentClaims(pool), before + 1);
  // what is done with it before its turn among the claims comes is not undone by that
  write(pool, 0, key, 'v2');
  assert.equal(use(pool, 1, key, 'v3'), 'v2');
  assert.equal(use(pool, 0, key, 'v4'), 'v3');
  assert.ok(sentClaims(pool) < moved.length, 'others are still to come');
  pool.advance(1_000_000);
  assert.equal(sentClaims(pool), moved.length, 'each once');
  assert.equal(use(pool, 1, key, ''), 'v4');
  assert.deepEqual(pool.errors, []);
});

test('the word of a member on a key in a former view is not taken for that of this one', () => {
  const { pool, keys } = manyLost(2, 1, 100);
  pool.installAll();
  pool.deliverAll();
  const key = movedToFirst(pool, keys).at(-1)!;
  const token = migrate(pool, 0, key);
  const { epoch: now } = pool.view;
  const former = encodeRecordMessage({ kind: 'claimed-now', epoch: epoch(now - 1), database: LOCKING, key });
  pool.server(0).act((records) => records.onMessage(nodeId(1), former));
  assert.equal(answered(pool, 0, token), undefined, 'server 1 has not told of it in this view');
  pool.deliverAll();
  assert.equal(answered(pool, 0, token), 'migrated');
  assert.equal(pool.find(0, LOCKING, key)?.data, `of ${key}`);
});

test('with a member that speaks protocol 1 a key waits for all claims', () => {
  const { pool, keys } = manyLost(1, 1, 100);
  pool.installAll();
  pool.deliverAll();
  const key = movedToFirst(pool, keys).at(-1)!;
  const token = migrate(pool, 0, key);
  pool.deliverAll();
  assert.equal(answered(pool, 0, token), undefined);
  pool.advance(1_000_000);
  assert.equal(answered(pool, 0, token), 'migrated');
});

test('a key that was claimed ahead of the others stays known through the next view', () => {
  const { pool, keys } = manyLost(2, 1, 100);
  pool.installAll();
  pool.deliverAll();
  const key = movedToFirst(pool, keys).at(-1)!;
  const token = migrate(pool, 0, key);
  pool.deliverAll();
  assert.equal(answered(pool, 0, token), 'migrated');
  write(pool, 0, key, 'v2');
  assert.equal(use(pool, 1, key, 'v3'), 'v2');
  // its home stays, and hears of it a second time
  const others = pool.configured.filter((id) => id !== 2);
  assert.equal(rendezvousHome(LOCKING, key, others), 0);
  pool.join(2);
  pool.lose(2);
  installAll(pool);
  assert.equal(use(pool, 0, key, 'v4'), 'v3');
  pool.advance(1_000_000);
  assert.equal(use(pool, 1, key, 'v5'), 'v4');
  assert.deepEqual(pool.errors, []);
});

test('what was erased just before its home died does not come back when it is claimed ahead of the others', () => {
  const pool = new RecordsPool(4, DATABASES, 4, 2, 1);
  const key = keyThatMoves(pool, 1, 3);
  for (let i = 0; i < 40; i++) use(pool, 0, `other-${i}` as RecordKey, 'other');
  use(pool, 2, key, 'old');
  use(pool, 0, key, 'new');
  empty(pool, 0, key);
  pool.passTime(1_100_000);
  assert.equal(pool.find(2, LOCKING, key)?.data, 'old', 'the backup');
  pool.lose(1);
  pool.installAll();
  pool.deliverAll();
  const token = migrate(pool, 3, key);
  pool.deliverAll();
  assert.equal(answered(pool, 3, token), 'migrated');
  assert.equal(pool.find(3, LOCKING, key)?.data, '');
});

test('records that nobody asks for come back in slices of any size', () => {
  for (const sliceSize of [1, 3, SLICE]) {
    const { pool, keys } = manyLost(2, sliceSize, 60);
    installAll(pool);
    pool.advance(1_000_000);
    const owned = pool.server(1).records.ownedKeys(LOCKING);
    assert.deepEqual(owned.sort(), [...keys].sort(), `slices of ${sliceSize}`);
  }
});

test('what was claimed of a home that starts anew comes back in slices of any size', () => {
  for (const sliceSize of [1, 3, SLICE]) {
    const pool = new RecordsPool(2, DATABASES, 2, 2, sliceSize);
    const keys = keysWithHome(pool, 0, 60);
    for (const key of keys) {
      use(pool, 1, key, 'kept');
      use(pool, 0, key, 'lost');
      pool.advance(10_000);
    }
    pool.restart(0);
    installAll(pool);
    pool.advance(1_000_000);
    assert.deepEqual(pool.server(1).records.ownedKeys(LOCKING).sort(), [...keys].sort(), `slices of ${sliceSize}`);
  }
});

test('the keeper of many backups that is lost, too, before they are back: the records end', () => {
  const { pool, keys } = manyLost(2, 1, 60);
  pool.installAll();
  // not all entries have heard of the first loss when the second comes
  for (let i = 0; i < 8; i++) pool.passTime(600);
  const restored = (id: number): number => pool.server(id).counters.get('record.restored') ?? 0;
  pool.lose(1);
  installAll(pool);
  pool.advance(1_000_000);
  assert.equal(restored(0), 0, 'nobody had answered');
  for (const key of keys) assert.equal(use(pool, 0, key, 'new'), '', 'nobody is left who had it');
  assert.deepEqual(pool.errors, []);
});

test('no more records are on their way back than a keeper can give in some milliseconds', () => {
  const { pool } = manyLost(1, SLICE, 700);
  pool.installAll();
  for (let i = 0; i < 20; i++) {
    for (const name of pool.busyWires()) {
      const [from, to] = name.split('>').map(Number);
      while (pool.underWay(from!, to!).some((bytes) => decodeRecordMessage(bytes).kind !== 'reclaim')) {
        if (decodeRecordMessage(pool.underWay(from!, to!)[0]!).kind === 'reclaim') break;
        pool.deliver(name);
      }
    }
    pool.passTime(5_000);
  }
  const reclaims = pool.underWay(0, 1).filter((bytes) => decodeRecordMessage(bytes).kind === 'reclaim');
  assert.equal(reclaims.length, RESTORES_UNDER_WAY_MAX);
  pool.advance(1_000_000);
  const restored = [0, 1].map((id) => pool.server(id).counters.get('record.restored') ?? 0);
  assert.equal(restored[0]! + restored[1]!, 700);
});

test('a reader has what an owner that is lost for good wrote last', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  use(pool, 0, key, 'v1');
  use(pool, 2, key, 'v2');
  const read = fetch(pool, 1, key);
  pool.advance(2_000);
  assert.equal(answered(pool, 1, read), 'fetched v2');
  lose(pool, 2);
  assert.equal(use(pool, 0, key, 'on'), 'v2');
});

test('a record on its way to a server that is lost for good stays with its giver', () => {
  const pool = new RecordsPool(3);
  const key = keyWithHome(pool, 1);
  use(pool, 0, key, 'v1');
  migrate(pool, 2, key);
  ['2>1', '1>0'].forEach((wire) => pool.deliver(wire));
  assert.equal(pool.find(0, LOCKING, key)?.dmaster, 2, 'given');
  lose(pool, 2);
  assert.equal(use(pool, 1, key, 'on'), 'v1');
});

test('a key moves to a server that joins, with what was asked for meanwhile', () => {
  const pool = new RecordsPool(3, DATABASES, 2);
  const key = Array.from({ length: 200 }, (_, i) => `file-${i}` as RecordKey).find(
    (each) => rendezvousHome(LOCKING, each, pool.configured) === 2,
  )!;
  use(pool, 0, key, 'v1');
  use(pool, 1, key, 'v2');
  const former = homeOf(pool, 0, key);
  const entriesAt = (id: number): number => pool.server(id).records.status().get(LOCKING)!.directoryEntries;
  assert.equal(entriesAt(former), 1);
  // asked of the former home, which hears it after it has let go
  const asked = migrate(pool, 0, key);
  pool.join(2);
  pool.install(former);
  installAll(pool);
  pool.advance(5_000);
  for (const id of [0, 1, 2]) assert.equal(homeOf(pool, id, key), 2);
  assert.deepEqual([entriesAt(former), entriesAt(2)], [0, 1]);
  assert.equal(answered(pool, 0, asked), 'migrated');
  assert.equal(pool.find(0, LOCKING, key)?.data, 'v2');
  write(pool, 0, key, 'v3');
  assert.equal(use(pool, 2, key, 'on'), 'v3');
});

test('a home that was another for a view that somebody skipped is told anew what there is', () => {
  const pool = new RecordsPool(3);
  const key = keyThatMoves(pool, 1, 2);
  use(pool, 2, key, 'v1');
  use(pool, 0, key, 'v2');
  pool.lose(1);
  pool.install(2);
  pool.deliverAll();
  // server 0 never hears that the home was lost, only that there is a new run
  pool.join(1);
  installAll(pool);
  assert.equal(homeOf(pool, 0, key), 1);
  assert.equal(use(pool, 2, key, 'on'), 'v2');
});

test('what a server claimed while its home was the home once before is not taken for a claim of now', () => {
  const pool = new RecordsPool(5);
  // its home is 4; while that is away, 0
  const key = keyThatMoves(pool, 4, 0);
  use(pool, 2, key, 'old');
  use(pool, 1, key, 'new');
  empty(pool, 1, key);
  const deliverOthers = (): void => {
    const wires = (): string[] => pool.busyWires().filter((name) => name !== '1>0');
    for (let busy = wires(); busy.length > 0; busy = wires()) pool.deliver(busy[0]!);
  };
  pool.lose(4);
  pool.installAll();
  deliverOthers();
  pool.join(4);
  pool.installAll();
  deliverOthers();
  pool.passTime(1_100_000);
  deliverOthers();
  assert.equal(pool.find(1, LOCKING, key), undefined, 'erased');
  assert.equal(pool.find(2, LOCKING, key)?.data, 'old', 'the backup');
  pool.lose(4);
  pool.installAll();
  // what server 1 sent under three views arrives now
  installAll(pool);
  assert.equal(use(pool, 3, key, 'on'), '');
  assert.deepEqual(pool.errors, []);
});

test('a later run of a server is not asked for the copy, or to drop the backup, of the run before', () => {
  const pool = new RecordsPool(3);
  const [read, kept] = keysWithHome(pool, 1, 2) as [RecordKey, RecordKey];
  use(pool, 0, read, 'v1');
  const copy = fetch(pool, 2, read);
  pool.deliverAll();
  assert.equal(answered(pool, 2, copy), 'fetched v1');
  use(pool, 2, kept, 'v1');
  use(pool, 0, kept, 'v2');
  assert.equal(pool.find(2, LOCKING, kept)?.data, 'v1', 'the backup');
  pool.restart(2);
  // the new run has not installed the view, so for the home the run before may still be heard
  pool.install(0);
  pool.install(1);
  migrate(pool, 1, read);
  const moved = migrate(pool, 1, kept);
  const deliverOthers = (): void => {
    for (let i = 0; i < 10; i++) for (const wire of ['0>1', '1>0']) pool.deliver(wire);
  };
  deliverOthers();
  pool.passTime(3_000);
  deliverOthers();
  assert.equal(answered(pool, 1, moved), 'migrated');
  const kinds = pool.underWay(1, 2).map((bytes) => decodeRecordMessage(bytes).kind);
  assert.deepEqual(kinds.filter((kind) => kind === 'revoke' || kind === 'drop'), []);
});

test('a random key whose maker is lost for good is found if somebody holds it', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  use(pool, 1, key, 'v2', OPENS);
  lose(pool, 0);
  assert.equal(homeOf(pool, 1, key, OPENS), homeOf(pool, 2, key, OPENS));
  const token = fetch(pool, 2, key, OPENS);
  pool.advance(5_000);
  assert.equal(answered(pool, 2, token), 'fetched v2');
  assert.equal(use(pool, 2, key, 'v3', OPENS), 'v2');
  // and ends like any other
  empty(pool, 2, key, OPENS);
  pool.advance(1_000_000);
  for (const server of pool.servers) assert.equal(server.store.size, 0);
});

test('whoever gets a random key of a lost maker is told of its home, which has not opened the database', () => {
  const pool = new RecordsPool(3, DATABASES);
  const TCONS = databaseId(3);
  for (const id of [1, 2]) pool.server(id).records.addDatabase(TCONS, 'smbXsrv_tcon_global.tdb');
  const keys = Array.from({ length: 20 }, (_, i) => `key${i}` as RecordKey);
  const key = keys.find((one) => rendezvousHome(TCONS, one, [nodeId(0), nodeId(1)]) === 0)!;
  const made = migrate(pool, 2, key, TCONS);
  pool.deliverAll();
  assert.equal(answered(pool, 2, made), 'migrated');
  pool.advance(2_000);
  pool.lose(2);
  pool.installAll();
  const token = migrate(pool, 1, key, TCONS);
  pool.deliverAll();
  pool.advance(10_000);
  assert.equal(answered(pool, 1, token), 'migrated');
  pool.server(0).records.addDatabase(TCONS, 'smbXsrv_tcon_global.tdb');
  const elsewhere = migrate(pool, 0, key, TCONS);
  pool.advance(10_000);
  assert.equal(answered(pool, 0, elsewhere), 'migrated');
});

test('a random key that its lost maker owned comes back from the backup', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  use(pool, 1, key, 'v2', OPENS);
  use(pool, 0, key, 'v3', OPENS);
  lose(pool, 0);
  assert.equal(use(pool, 2, key, 'on', OPENS), 'v2');
});

test('a random key that nobody but its lost maker had is gone, and granted fresh to who wants it', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  lose(pool, 0);
  const token = fetch(pool, 2, key, OPENS);
  assert.equal(answered(pool, 2, token), 'fetched', 'at once, since it exists nowhere');
  const again = migrate(pool, 1, key, OPENS);
  assert.equal(answered(pool, 1, again), 'migrated', 'at once');
  assert.equal(pool.find(1, OPENS, key)?.data, '');
  write(pool, 1, key, 'anew', OPENS);
  pool.advance(10_000);
  assert.equal(use(pool, 2, key, 'on', OPENS), 'anew');
});

test('a server without its lease gives nothing, takes nothing and answers nothing until it is renewed', () => {
  const pool = new RecordsPool(3, DATABASES);
  const [given, taken, wanted] = keysWithHome(pool, 1, 3) as [RecordKey, RecordKey, RecordKey];
  use(pool, 0, given, 'given');
  use(pool, 2, taken, 'taken');
  const server = pool.server(0);
  const take = migrate(pool, 0, taken);
  ['0>1', '1>2'].forEach((wire) => pool.deliver(wire));
  server.isFenced = true;
  const give = migrate(pool, 2, given);
  pool.advance(20_000);
  assert.equal(answered(pool, 2, give), undefined);
  assert.equal(pool.find(0, LOCKING, given)?.dmaster, 0);
  assert.equal(answered(pool, 0, take), undefined);
  const none = 'nowhere' as RecordKey;
  const own = fetch(pool, 0, given);
  const fresh = migrate(pool, 0, wanted);
  const unknown = [migrate(pool, 0, none, OPENS), fetch(pool, 0, 'nor this' as RecordKey, OPENS)];
  let isReady: boolean | null = null;
  const needed = [{ database: LOCKING, key: given, mode: 'write' as const }];
  server.act((records) => records.beginOperation(1, needed, (all) => (isReady = all)));
  const looks = [look(pool, 0, given), look(pool, 0, keyWithHome(pool, 0))];
  const seen = look(pool, 2, given);
  pool.advance(20_000);
  for (const token of [own, fresh, ...unknown, ...looks]) assert.equal(answered(pool, 0, token), undefined);
  assert.equal(answered(pool, 2, seen), undefined);
  assert.equal(isReady, null);

  server.isFenced = false;
  server.act((records) => records.leaseRenewed());
  pool.advance(100_000);
  assert.equal(answered(pool, 0, own), 'fetched given');
  for (const token of [take, fresh, unknown[0]!]) assert.equal(answered(pool, 0, token), 'migrated');
  for (const token of [unknown[1]!, looks[1]!]) assert.equal(answered(pool, 0, token), 'fetched');
  assert.equal(isReady, true);
  server.act((records) => records.endOperation(1));
  pool.advance(20_000);
  assert.equal(answered(pool, 2, give), 'migrated');
  assert.equal(pool.find(2, LOCKING, given)?.data, 'given');
  assert.equal(pool.find(0, LOCKING, taken)?.data, 'taken');
  for (const [id, token] of [[0, looks[0]!], [2, seen]] as const) {
    assert.match(answered(pool, id, token) ?? '', /^(fetched given|migrated)$/);
  }
});

test('a home that gives lower turns than the one before it is obeyed', () => {
  const pool = new RecordsPool(3);
  // turns of later runs are higher
  restart(pool, 1);
  const key = keyThatMoves(pool, 1, 0);
  use(pool, 0, key, 'v1');
  fetch(pool, 2, key);
  pool.advance(3_000);
  migrate(pool, 0, key);
  pool.deliver('0>1');
  const wanted = migrate(pool, 2, key);
  // the copy goes, in a turn of which the next home will not hear
  deliverTo(pool, 2);
  pool.passTime(2_000);
  assert.equal(pool.find(2, LOCKING, key), undefined);
  lose(pool, 1);
  assert.equal(homeOf(pool, 2, key), 0);
  pool.advance(20_000);
  assert.equal(answered(pool, 2, wanted), 'migrated');
  assert.equal(pool.find(2, LOCKING, key)?.data, 'v1');
});

test('what was asked of a home that died, for a random key that is gone, is asked again', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 0, key, 'v1', OPENS);
  pool.advance(5_000);
  const token = migrate(pool, 1, key, OPENS);
  empty(pool, 0, key, OPENS);
  for (let i = 0; i < 5; i++) pool.passTime(10_000);
  deliverTo(pool, 1);
  lose(pool, 0);
  pool.advance(5_000);
  assert.equal(answered(pool, 1, token), 'migrated');
  assert.equal(pool.find(1, OPENS, key)?.data, '');
});

test('what is asked before the random keys are known is not forgotten when another view comes meanwhile', () => {
  const pool = new RecordsPool(3, DATABASES);
  const key = 'abcd' as RecordKey;
  use(pool, 2, key, 'v1', OPENS);
  pool.advance(5_000);
  pool.restart(0);
  pool.install(0);
  const token = migrate(pool, 0, key, OPENS);
  pool.install(2);
  deliverTo(pool, 0);
  // it knows the maker by now, and waits for server 1 still
  assert.equal(homeOf(pool, 0, key, OPENS), 2);
  pool.restart(1);
  installAll(pool);
  pool.advance(5_000);
  assert.equal(answered(pool, 0, token), 'migrated');
  assert.equal(pool.find(0, OPENS, key)?.data, 'v1');
});
