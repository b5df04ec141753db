/** Who is the home of a key, and since when: over several views, some of which were skipped. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseId, epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { FormerView, View } from '../../src/core/views.js';
import { Homes } from '../../src/core/records/homes.js';
import { rendezvousHome } from '../../src/core/records/rendezvous.js';

const LOCKING = databaseId(1);

/** Servers are written as "0.1 2.1": number and run. */
function former(number: number, runs: string): FormerView {
  const members = runs.split(' ').map((run) => {
    const [node, of] = run.split('.').map(Number) as [number, number];
    return { node: nodeId(node), incarnation: incarnation(of) };
  });
  return { epoch: epoch(number), members };
}

function view(number: number, runs: string, before: FormerView[] = []): View {
  const { members } = former(number, runs);
  const joined = members.map((member) => ({ ...member, since: epoch(number) }));
  const { node: leader } = members[0]!;
  return { epoch: epoch(number), leader, protocol: 1, members: joined, former: before, holders: [], past: [] };
}

/** The first key that has these homes among these servers. */
function keyWith(...homes: [home: number, among: number[]][]): RecordKey {
  for (let i = 0; ; i++) {
    const key = `file-${i}` as RecordKey;
    const isAt = (home: number, among: readonly number[]): boolean =>
      rendezvousHome(LOCKING, key, among as NodeId[]) === home;
    if (homes.every(([home, among]) => isAt(home, among))) return key;
  }
}

test('a home is one since the view in which it became one', () => {
  const homes = new Homes();
  assert.equal(homes.isInstalled, false);
  const [stays, moves] = [keyWith([0, [0, 1, 2]]), keyWith([2, [0, 1, 2]], [1, [0, 1]])];
  homes.install(view(1, '0.1 1.1 2.1'));
  homes.install(view(2, '0.1 1.1'));
  assert.deepEqual([homes.homeOf(LOCKING, stays), homes.since(LOCKING, stays)], [0, 1]);
  assert.deepEqual([homes.homeOf(LOCKING, moves), homes.since(LOCKING, moves)], [1, 2]);
  homes.install(view(3, '0.1 1.1 2.5'));
  assert.deepEqual([homes.homeOf(LOCKING, stays), homes.since(LOCKING, stays)], [0, 1]);
  assert.deepEqual([homes.homeOf(LOCKING, moves), homes.since(LOCKING, moves)], [2, 3]);
});

test('another run of the same server is another home', () => {
  const homes = new Homes();
  const key = keyWith([1, [0, 1]]);
  homes.install(view(1, '0.1 1.1'));
  homes.install(view(2, '0.1 1.2'));
  assert.equal(homes.homeOf(LOCKING, key), 1);
  assert.equal(homes.since(LOCKING, key), 2);
  assert.equal(homes.runOf(nodeId(1)), 2);
  assert.equal(homes.runOf(nodeId(7)), undefined);
});

test('a view that was skipped counts: its home was another', () => {
  const homes = new Homes();
  // while server 2 was there, it was the home
  const key = keyWith([0, [0, 1]], [2, [0, 1, 2]]);
  homes.install(view(1, '0.1 1.1'));
  homes.install(view(3, '0.1 1.1', [former(1, '0.1 1.1'), former(2, '0.1 1.1 2.1')]));
  assert.equal(homes.homeOf(LOCKING, key), 0);
  assert.equal(homes.since(LOCKING, key), 3);
  homes.install(view(4, '0.1 1.1', [former(3, '0.1 1.1')]));
  assert.equal(homes.since(LOCKING, key), 3, 'what the view leaves out is remembered');
});

test('views that nobody needs are forgotten, never the one that counts', () => {
  const homes = new Homes();
  const key = keyWith([0, [0, 1, 2]]);
  for (const [number, runs] of [[1, '0.1 1.1 2.1'], [2, '0.1 1.1'], [3, '0.1 1.1 2.2']] as const) {
    homes.install(view(number, runs));
  }
  assert.equal(homes.since(LOCKING, key), 1);
  homes.forgetBefore(epoch(2));
  assert.equal(homes.since(LOCKING, key), 2, 'the oldest that is remembered');
  homes.forgetBefore(epoch(9));
  homes.forgetBefore(epoch(3));
  assert.equal(homes.epoch, 3);
  assert.equal(homes.since(LOCKING, key), 3);
});

test('a run is gone since the first view without it', () => {
  const homes = new Homes();
  homes.install(view(1, '0.1 1.1 2.1'));
  homes.install(view(4, '0.1 2.2', [former(2, '0.1 1.1'), former(3, '0.1 1.1 2.2')]));
  assert.equal(homes.goneSince(nodeId(2), incarnation(1)), 2, 'a later run of it has joined since');
  assert.equal(homes.goneSince(nodeId(1), incarnation(1)), 4);
});
