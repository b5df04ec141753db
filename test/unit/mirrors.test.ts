/** Backups made anew, the home's side alone: what is ordered, how much at a time, and what an answer does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseId, nodeId, turn } from '../../src/base/ids.js';
import type { Entry } from '../../src/core/records/entry.js';
import { newEntry } from '../../src/core/records/entry.js';
import { Mirrors } from '../../src/core/records/mirrors.js';
import { RESTORES_UNDER_WAY_MAX } from '../../src/core/records/slices.js';
import type { RecordMessage } from '../../src/wire/record-messages.js';

const [SELF, OWNER] = [nodeId(0), nodeId(1)];

class Home {
  readonly orders: { to: NodeId; message: RecordMessage }[] = [];
  readonly gone = new Set<NodeId>();
  readonly mirrors: Mirrors;

  constructor(members: readonly NodeId[] = [SELF, OWNER]) {
    this.mirrors = new Mirrors(
      { self: SELF, members, speaks: () => true },
      (to, message) => this.orders.push({ to, message }),
      (server) => this.gone.has(server),
      () => undefined,
    );
  }

  /** Records that only their owner has, and that are to be looked into. */
  bare(count: number, owner = OWNER): Entry[] {
    const entries = Array.from({ length: count }, (_, i) => newEntry(databaseId(1), `record ${i}` as RecordKey, 0));
    for (const entry of entries) {
      Object.assign(entry, { owner, ownerTurn: turn(5), ownedSince: turn(5) });
      this.mirrors.queueIfBare(entry);
    }
    return entries;
  }
}

test('so many at most are on order, and each answer makes room', () => {
  const home = new Home();
  const entries = home.bare(2 * RESTORES_UNDER_WAY_MAX);
  for (let i = 0; i < 5; i++) assert.ok(home.mirrors.some(1_000), 'there is more');
  assert.equal(home.orders.length, RESTORES_UNDER_WAY_MAX);
  home.mirrors.answered(entries[0]!, turn(4));
  home.mirrors.some(1_000);
  assert.equal(home.orders.length, RESTORES_UNDER_WAY_MAX, 'an answer to an earlier order');
  home.mirrors.answered(entries[0]!, turn(5));
  home.mirrors.answered(entries[0]!, turn(5));
  home.mirrors.end(entries[1]!);
  home.mirrors.some(1_000);
  assert.equal(home.orders.length, RESTORES_UNDER_WAY_MAX + 2);
});

test('what nothing came of is ordered anew if the owner has got a later turn, and only then', () => {
  const home = new Home();
  const [same, later, kept] = home.bare(3) as [Entry, Entry, Entry];
  assert.equal(home.mirrors.some(10), false);
  for (const entry of [later, kept]) entry.ownerTurn = turn(7);
  kept.backups = [{ keeper: SELF, turn: turn(7) }];
  for (const entry of [same, later, kept]) home.mirrors.answered(entry, turn(5));
  home.mirrors.some(10);
  const again = home.orders.slice(3).map(({ message }) => message);
  assert.deepEqual(again, [
    { kind: 'mirror', database: later.database, key: later.key, turn: turn(7), to: SELF },
  ]);
});

test('a keeper that is lost is replaced, also when a later run of it is in the view', () => {
  const home = new Home([SELF, OWNER, nodeId(2)]);
  const [entry] = home.bare(1, SELF) as [Entry];
  home.mirrors.some(1);
  const { to } = entry.mirror!;
  assert.equal(home.mirrors.keeperLost(entry, nodeId(9)), false);
  home.gone.add(to);
  assert.equal(home.mirrors.keeperLost(entry, to), true);
  home.mirrors.queueIfBare(entry);
  home.mirrors.some(1);
  assert.notEqual(entry.mirror?.to, undefined);
  assert.notEqual(entry.mirror?.to, to);
});

test('nothing is ordered of an owner that is gone, nor where there is no other server', () => {
  const home = new Home();
  home.bare(1, SELF);
  home.gone.add(OWNER);
  home.bare(1);
  assert.equal(home.mirrors.some(10), false);
  assert.equal(home.orders.length, 0);
});

test('a record that is on its way is looked into when its home is done with it', () => {
  const home = new Home();
  const [entry] = home.bare(1) as [Entry];
  entry.current = { node: SELF, run: 1, mode: 'write', phase: 'moving', awaiting: [], turn: turn(6) };
  assert.equal(home.mirrors.some(1), false);
  assert.equal(home.orders.length, 0);
  entry.current = null;
  home.mirrors.idle(entry);
  home.mirrors.some(1);
  assert.equal(home.orders.length, 1);
});
