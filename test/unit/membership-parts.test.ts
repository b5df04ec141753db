/** The parts of the membership alone: who is in the next view, leases, votes, what is on disk, and the bytes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { crc32c } from '../../src/base/crc32c.js';
import type { Epoch, NodeId } from '../../src/base/ids.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { Effect } from '../../src/core/effects.js';
import { firstConfiguration } from '../../src/core/membership/configuration.js';
import { Authority, NO_GRANT, OwnLease } from '../../src/core/membership/leases.js';
import { SAVE_AGAIN_MICROS, SAVE_WAITING_MAX } from '../../src/core/membership/limits.js';
import { Saving } from '../../src/core/membership/saving.js';
import type { HoldersFacts, Member, Run, ServerFacts, View } from '../../src/core/membership/composition.js';
import {
  compose, fits, hasRoomForJoins, isOver, mostBehind, nextHolders, nextView, unheardOnes,
} from '../../src/core/membership/composition.js';
import { Candidacy, Voting } from '../../src/core/membership/voting.js';
import { Timers } from '../../src/core/timers.js';
import {
  decodeMembershipMessage, encodeMembershipMessage, epochOf, termOf,
} from '../../src/wire/membership-messages.js';
import { decodeSaved, encodeSaved } from '../../src/wire/membership-state.js';

const L = 300_000;
const [A, B, C, D] = [0, 1, 2, 3].map(nodeId) as [NodeId, NodeId, NodeId, NodeId];

function fact(node: NodeId, change: Partial<ServerFacts> = {}): ServerFacts {
  return {
    node, incarnation: incarnation(1), resumes: 0, isSilent: false, isHeard: true, willing: true, unheard: new Set(),
    recovered: 0, speaks: { min: 1, max: 1 }, leaseOverAt: -Infinity, ...change,
  };
}

function view(number: number, nodes: readonly NodeId[], change: Partial<View> = {}): View {
  const members = nodes.map((node) => ({ node, incarnation: incarnation(1), since: epoch(1) }));
  return { epoch: epoch(number), leader: A, members, protocol: 1, former: [], holders: [], past: [], ...change };
}

function next(base: View | null, number: Epoch, members: Member[], recovered: (node: NodeId) => number): View {
  return nextView(base, { epoch: number, leader: A, members, holders: [], protocol: 1 }, recovered);
}

function composed(
  base: View | null,
  facts: ServerFacts[],
  mayJoin = true,
  protocol = 1,
  unknownLeaseOverAt = 0,
): { in: string; leaving: number[] } {
  const known = new Map(facts.map((one) => [one.node, one]));
  const options = {
    leader: A, epoch: epoch(9), now: 1_000, behind: new Set<NodeId>(), mayJoin, judgesUnheard: true, protocol,
    unknownLeaseOverAt,
  };
  const { members, leaving } = compose(base, known, options);
  return { in: members.map((run) => `${run.node}/${run.incarnation}`).join(' '), leaving: [...leaving] };
}

test('who is heard and willing joins; a silent one leaves when its lease is over', () => {
  assert.equal(composed(null, [fact(A), fact(B), fact(C, { isHeard: false })]).in, '0/1 1/1');
  assert.equal(composed(null, [fact(A), fact(B, { willing: null })]).in, '0/1');
  const silent = (leaseOverAt: number) =>
    composed(view(5, [A, B]), [fact(A), fact(B, { isSilent: true, leaseOverAt })]);
  assert.deepEqual(silent(1_001), { in: '0/1 1/1', leaving: [1] });
  assert.deepEqual(silent(1_000), { in: '0/1', leaving: [1] });
  const unknown = composed(view(5, [A, B]), [fact(A), fact(B, { willing: null })]);
  assert.equal(unknown.in, '0/1 1/1', 'a member may be new to us');
});

test('a member that is in no list leaves when no former leader can have given it a lease that lasts', () => {
  const unlisted = (until: number) => composed(view(5, [A, B]), [fact(A)], true, 1, until).in;
  assert.deepEqual([unlisted(1_001), unlisted(1_000)], ['0/1 1/1', '0/1']);
});

test('a new run takes its place when the lease of the run before is over, and not before', () => {
  const anew = (leaseOverAt: number) =>
    composed(view(5, [A, B]), [fact(A), fact(B, { incarnation: incarnation(2), leaseOverAt })]).in;
  assert.equal(anew(2_000), '0/1 1/1');
  assert.equal(anew(900), '0/1 1/2');
});

test('nobody joins while a lease must run out, or with too many former views; the leader always does', () => {
  const leaving = fact(B, { willing: false, leaseOverAt: 5_000 });
  assert.equal(composed(view(5, [A, B]), [fact(A), leaving, fact(C)]).in, '0/1 1/1');
  assert.equal(composed(view(5, [A, B]), [fact(A), fact(B), fact(C)], false).in, '0/1 1/1');
  assert.equal(composed(view(5, [B]), [fact(A), fact(B, { unheard: new Set([A]) })], false).in, '0/1');
});

test('of servers that do not hear each other the one in most such pairs leaves, then the higher number', () => {
  const facts = (...unheard: [NodeId, NodeId[]][]) =>
    new Map([A, B, C, D].map((node) => [node, fact(node, { unheard: new Set(new Map(unheard).get(node) ?? []) })]));
  const all = [A, B, C, D];
  assert.deepEqual(unheardOnes(all, facts(), A), []);
  assert.deepEqual(unheardOnes(all, facts([B, [C]]), A), [C]);
  assert.deepEqual(unheardOnes(all, facts([B, [C, D]]), A), [B], 'it hears nobody: it is the sick one');
  assert.deepEqual(unheardOnes(all, facts([B, [A]]), A), [B], 'the leader last');
});

test('a run that was left out never joins again', () => {
  const after = next(view(5, [A, B]), epoch(6), view(6, [A]).members, () => 5);
  assert.deepEqual(after.past, [{ node: B, incarnation: 1 }]);
  assert.ok(isOver(after, { node: B, incarnation: incarnation(1) }));
  assert.ok(!isOver(after, { node: B, incarnation: incarnation(2) }));
  assert.equal(composed(after, [fact(A), fact(B)]).in, '0/1');
  assert.equal(composed(after, [fact(A), fact(B, { incarnation: incarnation(2) })]).in, '0/1 1/2');
});

test('servers join again as soon as all members caught up, also when no view has said so yet', () => {
  let last = view(1, [A, B]);
  const behind = () => 1;
  let views = 1;
  for (; hasRoomForJoins(last, behind); views++) last = next(last, epoch(views + 1), last.members, behind);
  assert.equal(views, 9, 'with eight former views nobody joins');
  assert.ok(!hasRoomForJoins(last, (node) => (node === A ? views : 1)), 'B is behind');
  assert.ok(hasRoomForJoins(last, () => views), 'the view still lists them, but nobody needs them');
});

test('former views are told until every member has them behind it, and bounded', () => {
  const recovered = new Map([[A, 1], [B, 1]]);
  const by = (node: NodeId): number => recovered.get(node) ?? 0;
  let last = view(1, [A, B]);
  for (let n = 2; n <= 4; n++) last = next(last, epoch(n), last.members, by);
  assert.deepEqual(last.former.map((one) => one.epoch), [1, 2, 3]);
  recovered.set(A, 3);
  assert.deepEqual(mostBehind(last.members, by), [B]);
  recovered.set(B, 3);
  last = next(last, epoch(5), last.members, by);
  assert.deepEqual(last.former.map((one) => one.epoch), [3, 4]);
  for (let n = 6; fits(last); n++) last = next(last, epoch(n), last.members, by);
  assert.equal(last.former.length, 17);
  const joined = [{ node: A, incarnation: incarnation(9), since: epoch(30) }];
  assert.deepEqual(next(last, epoch(30), joined, () => 0).former, []);
});

test('who holds all commits of a pool of two', () => {
  const facts = (change: Partial<HoldersFacts> = {}): HoldersFacts => {
    return { servers: [A, B], allHold: false, blank: new Set(), ...change };
  };
  const run = (node: NodeId, number = 1): Run => ({ node, incarnation: incarnation(number) });
  const both = view(5, [A, B], { holders: [A, B] });
  const alone = view(5, [A], { holders: [A] });
  assert.deepEqual(nextHolders(null, [run(A), run(B)], facts({ allHold: true })), [], 'a fresh pool');
  assert.deepEqual(nextHolders(view(5, [A, B]), [run(A)], facts()), [], 'not known yet');
  assert.deepEqual(nextHolders(view(5, [A, B]), [run(A), run(B)], facts({ allHold: true })), [A, B]);
  assert.deepEqual(nextHolders(view(5, [A]), [run(A), run(B)], facts({ allHold: true })), [], 'one has just joined');
  assert.deepEqual(nextHolders(both, [run(A)], facts()), [A]);
  assert.deepEqual(nextHolders(both, [run(A), run(B, 2)], facts({ allHold: true })), [A], 'of another run');
  assert.deepEqual(nextHolders(alone, [run(B)], facts()), [A], 'who is behind does not count');
  assert.deepEqual(nextHolders(both, [run(B, 2)], facts()), [B], 'back with its disk');
  assert.deepEqual(nextHolders(both, [run(B, 2)], facts({ blank: new Set([B]) })), [A], 'back without');
  assert.deepEqual(nextHolders(both, [run(A, 2), run(B, 2)], facts({ blank: new Set([B]) })), [A]);
  assert.deepEqual(nextHolders(view(5, [A, B, C]), [run(A)], facts({ servers: [A, B, C], allHold: true })), []);
});

test('authority is what a majority answered; a lease is counted from the echo and never outlasts it', () => {
  const authority = new Authority(L, () => [A, B, C]);
  authority.sent(A, 1_000);
  assert.equal(authority.until, -Infinity);
  assert.deepEqual(authority.grant(B, 1_000), NO_GRANT);
  authority.onAnswer(B, { echo: 1_000, sentAt: 77_000 }, 3_000);
  assert.equal(authority.until, 1_000 + L);
  assert.deepEqual(authority.grant(B, 41_000), { echo: 77_000, remaining: L - 40_000 });
  assert.equal(authority.leaseOverAt(B), 3_000 + Math.ceil((L - 40_000) * 1.01));
  authority.onAnswer(B, { echo: 1_000, sentAt: 76_000 }, 90_000);
  assert.equal(authority.grant(B, 91_000).echo, 77_000, 'an older answer that comes late');
  authority.onNewRun(B);
  assert.deepEqual(authority.grant(B, 91_000), NO_GRANT);
  assert.ok(authority.leaseOverAt(B) > 0, 'what the former run was given still counts');
  const told: number[] = [];
  const lease = new OwnLease((until) => told.push(until));
  assert.ok(lease.onGrant({ echo: 77_000, remaining: 260_000 }, 80_000));
  assert.ok(lease.onGrant({ echo: 77_000, remaining: 200_000 }, 500_000), 'late: nothing is prolonged');
  assert.ok(!lease.onGrant({ echo: 600_000, remaining: 1 }, 500_000), 'an answer that we have not sent yet');
  assert.deepEqual(told, [77_000 + 257_400]);
});

test('authority is counted over the servers that count now', () => {
  let counted = [A, B, C];
  const authority = new Authority(L, () => counted);
  const hear = (node: NodeId, echo: number): void => authority.onAnswer(node, { echo, sentAt: echo }, echo);
  authority.sent(A, 1_000);
  hear(B, 1_000);
  assert.equal(authority.until, 1_000 + L, 'two of three');
  counted = [A, B, C, D];
  authority.sent(A, 2_000);
  hear(B, 2_000);
  assert.equal(authority.until, 1_000 + L, 'two of four are none');
  hear(D, 2_000);
  assert.equal(authority.until, 2_000 + L);
  counted = [A, B];
  authority.sent(A, 3_000);
  hear(D, 3_000);
  assert.equal(authority.until, 2_000 + L, 'who was taken out does not count');
});

function disk() {
  const timers = new Timers();
  const tokens: number[] = [];
  const context = {
    now: () => 0,
    timers,
    emit: (effect: Effect) => effect.kind === 'membership-save' && tokens.push(effect.token),
    log: () => undefined,
    count: () => undefined,
  };
  const saving = new Saving(context, { term: 3, votedFor: null, accepted: null, servers: [] });
  return { saving, tokens, timers };
}

test('what waits for the disk is done when the disk has it, in order, also after failures', () => {
  const { saving, tokens, timers } = disk();
  const done: string[] = [];
  saving.whenSaved(() => done.push('at once'));
  saving.change({ term: 4 });
  saving.whenSaved(() => done.push('term 4'));
  saving.change({ votedFor: A });
  saving.whenSaved(() => done.push('vote'));
  assert.deepEqual([tokens, done], [[1], ['at once']]);
  saving.onSaved(1, true);
  assert.deepEqual([saving.durableTerm, tokens, done], [4, [1, 2], ['at once', 'term 4']]);
  saving.onSaved(2, false);
  saving.onSaved(2, true);
  assert.deepEqual(done.length, 2, 'an answer to nothing');
  timers.run(SAVE_AGAIN_MICROS);
  saving.onSaved(3, true);
  assert.deepEqual(done, ['at once', 'term 4', 'vote']);
});

test('one vote a term, none within a promise, none for an older view', () => {
  const { saving } = disk();
  const voting = new Voting(saving, L, -Infinity);
  const stand = (node: NodeId, term: number, accepted = 0) => ({ node, term, accepted });
  voting.promise(1_000);
  assert.ok(!voting.vote(stand(A, 4), 1_000 + L));
  assert.ok(!voting.wouldVote(stand(A, 4), 1_000 + L));
  const after = 1_000 + Math.ceil(L * 1.01);
  assert.ok(voting.wouldVote(stand(A, 4), after));
  assert.ok(!voting.wouldVote(stand(A, 3), after), 'a term that was');
  assert.ok(voting.vote(stand(A, 4), after));
  assert.ok(voting.vote(stand(A, 4), after), 'asked again');
  assert.ok(!voting.vote(stand(B, 4), after));
  assert.ok(!voting.wouldVote(stand(B, 5), after), 'it has just voted for another');
  assert.ok(voting.vote(stand(B, 5), after));
  saving.change({ accepted: view(7, [A]) });
  assert.ok(!voting.vote(stand(C, 6, 6), after));
  assert.ok(voting.vote(stand(C, 6, 7), after));
});

test('a candidate counts voices once, and knows when it cannot win', () => {
  const candidacy = new Candidacy(1, 0, firstConfiguration([A, B, C].map((node) => ({ node, role: 'server' }))));
  candidacy.answer(A, true);
  candidacy.answer(A, true);
  assert.ok(!candidacy.isWon);
  candidacy.answer(B, false);
  assert.ok(!candidacy.isLost);
  candidacy.answer(C, false);
  assert.ok(candidacy.isLost);
});

test('bytes: a heartbeat, a file, a checksum as others count it', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe306_9283);
  const sent = { to: incarnation(5), term: 2, kind: 'hello', answerWanted: true, accepted: 1 } as const;
  const hex = '1001' + '0500000000000000' + '0200000000000000' + '0100000000000000';
  assert.equal(Buffer.from(encodeMembershipMessage(sent)).toString('hex'), hex);
  const reason = (text: string): string => {
    try {
      decodeMembershipMessage(Buffer.from(text, 'hex'));
      return 'none';
    } catch (error) {
      return (error as DecodeError).reason;
    }
  };
  assert.equal(reason(hex), 'none');
  assert.equal(reason(`0f${hex.slice(2)}`), 'unknown-type');
  assert.equal(reason(`1002${hex.slice(4)}`), 'unknown-flags');
  assert.equal(reason(hex.slice(0, -2)), 'truncated');
  assert.equal(reason(`${hex}00`), 'trailing-bytes');
  assert.equal(termOf(epochOf(7, 3)), 7);
  const servers = [A, B].map((node) => ({ node, role: 'server' as const }));
  const state = { term: 7, votedFor: B, accepted: view(8, [A, B]), servers };
  const bytes = encodeSaved(state);
  assert.deepEqual(decodeSaved(bytes), state);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decodeSaved(bytes.slice(0, length)), DecodeError, `cut at ${length}`);
  }
  for (let at = 0; at < bytes.length; at++) {
    const spoilt = Uint8Array.from(bytes);
    spoilt[at]! ^= 0x10;
    assert.throws(() => decodeSaved(spoilt), DecodeError, `changed at ${at}`);
  }
});

test('the largest pool that starts at once fits into a frame', () => {
  const members = Array.from({ length: 64 }, (_, node) => {
    return { node: nodeId(node), incarnation: incarnation(1_700_000_000_000 + node), since: (2 ** 40) as Epoch };
  });
  const first = next(null, (2 ** 40) as Epoch, members, () => 0);
  let last = first;
  for (let n = 1; n <= 16; n++) last = next(last, (2 ** 40 + n) as Epoch, members, () => 0);
  assert.equal(last.former.length, 16);
  assert.ok(fits(last));
});

test('what waits for a disk that hangs is bounded, and the newest is kept', () => {
  const { saving } = disk();
  const done: number[] = [];
  saving.change({ term: 4 });
  for (let i = 0; i < SAVE_WAITING_MAX + 10; i++) saving.whenSaved(() => done.push(i));
  saving.onSaved(1, true);
  assert.deepEqual([done.length, done[0], done.at(-1)], [SAVE_WAITING_MAX, 10, SAVE_WAITING_MAX + 9]);
});
