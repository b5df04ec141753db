/**
 * The membership as a whole: one engine whose peers and disk the test plays, and a few engines that hear each other.
 * What random runs find is in test/sim/membership.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId } from '../../src/base/ids.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { Effect } from '../../src/core/effects.js';
import type { View } from '../../src/core/membership/membership.js';
import { left } from '../../src/core/membership/configuration.js';
import { Membership } from '../../src/core/membership/membership.js';
import { Timers } from '../../src/core/timers.js';
import type {
  MembershipContent, MembershipMessage, MembershipMessageOf,
} from '../../src/wire/membership-messages.js';
import {
  decodeMembershipMessage, encodeMembershipMessage, epochOf, serversMessages,
} from '../../src/wire/membership-messages.js';
import type { ProtocolRange } from '../../src/wire/protocol-version.js';
import type { SavedMembership, ServerRole } from '../../src/wire/membership-state.js';

/** What most servers here speak. */
const RELEASED: ProtocolRange = { min: 1, max: 1 };
const H = 40_000;
const L = 300_000;
const [A, B, C] = [0, 1, 2].map(nodeId) as [NodeId, NodeId, NodeId];

interface Setup {
  self?: NodeId;
  roles?: ServerRole[];
  saved?: SavedMembership | null;
  incarnation?: number;
  speaks?: ProtocolRange;
}

/** One engine, in the middle of what the test plays. */
class Stage {
  now = 1_000_000;
  readonly timers = new Timers();
  readonly views: View[] = [];
  readonly removals: View[] = [];
  readonly sent: { to: NodeId; message: MembershipMessage }[] = [];
  readonly saves: { token: number; state: SavedMembership }[] = [];
  readonly counts = new Map<string, number>();
  /** What others announce before their frames; null: nothing yet. */
  readonly othersSpeak = new Map<NodeId, ProtocolRange | null>();
  readonly logs: string[] = [];
  lease = 0;
  diskAnswers = true;
  readonly engine: Membership;

  constructor(setup: Setup = {}) {
    const { self = A, roles = ['server', 'server', 'server'], saved = null, incarnation: run = 5 } = setup;
    const announcement = { speaks: setup.speaks ?? RELEASED, release: '0.1.0' };
    const context = {
      now: () => this.now,
      timers: this.timers,
      emit: (effect: Effect) => void (effect.kind === 'membership-save' && this.saves.push(effect)),
      log: (_: string, event: string, fields = {}) => void this.logs.push(`${event} ${JSON.stringify(fields)}`),
      count: (name: string) => void this.counts.set(name, (this.counts.get(name) ?? 0) + 1),
    };
    const servers = roles.map((role, node) => ({ node: nodeId(node), role }));
    const options = {
      self, incarnation: incarnation(run), announcement, servers, heartbeatMicros: H, leaseMicros: L, saved,
    };
    this.engine = new Membership(context, options, {
      view: (view) => this.views.push(view),
      lease: (until) => (this.lease = until),
      removed: (view) => this.removals.push(view),
      send: (to, body) => this.sent.push({ to, message: decodeMembershipMessage(body) }),
    });
    this.pass(0);
  }

  announce(node: NodeId, speaks: ProtocolRange, run = 7): void {
    this.engine.announced(node, incarnation(run), { speaks, release: '0.2.0' });
  }

  pass(micros: number): void {
    const end = this.now + micros;
    for (;;) {
      const next = this.timers.deadline();
      if (next > end) break;
      this.now = Math.max(this.now, next);
      this.timers.run(this.now);
      this.disk();
    }
    this.now = end;
  }

  disk(): void {
    while (this.diskAnswers && this.saves.length > 0) this.engine.onSaved(this.saves.shift()!.token, true);
  }

  frame(from: NodeId, content: MembershipContent & { term?: number; to?: number; run?: number }): void {
    const { term = 0, to = 5, run = 7, ...rest } = content;
    const message = { ...rest, term, to: incarnation(to) };
    const speaks = this.othersSpeak.get(from);
    if (speaks !== null) this.announce(from, speaks ?? RELEASED, run);
    this.engine.onFrame(from, incarnation(run), encodeMembershipMessage(message));
    this.disk();
  }

  /** The newest message of a kind to a peer. */
  last<Kind extends MembershipContent['kind']>(to: NodeId, kind: Kind): MembershipMessageOf<Kind> | undefined {
    const found = this.sent.filter((one) => one.to === to && one.message.kind === kind).at(-1);
    return found?.message as MembershipMessageOf<Kind> | undefined;
  }

  /** Lets it be elected with the voice of this peer. */
  elect(by: NodeId, after = 2 * L, run = 7): number {
    this.pass(after);
    const ask = this.last(by, 'pre-vote')!;
    const yes = { granted: true, accepted: 0, view: null };
    this.frame(by, { kind: 'pre-vote-answer', ...yes, echo: ask.sentAt, term: ask.term - 1, run });
    const vote = this.last(by, 'vote')!;
    this.frame(by, { kind: 'vote-answer', ...yes, echo: vote.sentAt, term: vote.term, run });
    assert.equal(this.engine.status().role, 'leader');
    return vote.term;
  }

  answer(from: NodeId, change: { accepted?: number; run?: number; willing?: boolean; released?: boolean } = {}): void {
    const heartbeat = this.last(from, 'heartbeat')!;
    const { accepted = heartbeat.view?.epoch ?? 0, run = 7, willing = true, released = false } = change;
    this.frame(from, {
      kind: 'answer', willing, released, isBlank: false, echo: heartbeat.sentAt, sentAt: this.now + 1, accepted,
      installed: 0, recovered: 0, unheard: [], term: heartbeat.term, run,
    });
  }
}

function saved(term: number, accepted: View | null = null): SavedMembership {
  const servers = [A, B, C].map((node) => ({ node, role: 'server' as const }));
  return { term, votedFor: null, accepted, servers };
}

function view(number: number, leader: NodeId, runs: [NodeId, number][]): View {
  const members = runs.map(([node, run]) => ({ node, incarnation: incarnation(run), since: epoch(number) }));
  return { epoch: epoch(number), leader, members, protocol: 1, former: [], holders: [], past: [] };
}

const heartbeat = (term: number, change: Partial<MembershipMessageOf<'heartbeat'>> = {}) =>
  ({ kind: 'heartbeat', sentAt: 10, agreed: 0, echo: 0, remaining: 0, view: null, term, ...change }) as const;

test('a server alone leads at once and renews its own lease', () => {
  const stage = new Stage({ roles: ['server'] });
  assert.equal(stage.views.length, 1);
  stage.pass(3 * H);
  assert.ok(stage.lease > stage.now + L - 2 * H);
  const before = stage.lease;
  stage.pass(H);
  assert.equal(stage.lease, before + H);
});

test('a frame for another run only teaches the sender, and is answered', () => {
  const stage = new Stage();
  stage.sent.length = 0;
  stage.frame(B, { ...heartbeat(9), to: 4, run: 7 });
  assert.deepEqual(stage.sent.map(({ message }) => [message.kind, message.to]), [['hello', 7]]);
  assert.equal(stage.engine.status().term, 0);
  stage.frame(B, { ...heartbeat(9), run: 6 });
  assert.equal(stage.counts.get('membership.frame.refused.incarnation-old'), 1);
  assert.equal(stage.engine.status().term, 0);
});

test('a heartbeat is answered, which is a promise, when its term is on disk', () => {
  const stage = new Stage();
  stage.diskAnswers = false;
  stage.frame(B, heartbeat(9));
  assert.equal(stage.last(B, 'answer'), undefined);
  assert.ok(stage.engine.status().promisedUntil < stage.now);
  stage.diskAnswers = true;
  stage.disk();
  assert.equal(stage.last(B, 'answer')!.echo, 10);
  assert.equal(stage.engine.status().promisedUntil, stage.now + Math.ceil((L / 2) * 1.01));
  stage.frame(C, { kind: 'vote', accepted: 0, sentAt: 3, term: 10 });
  assert.equal(stage.last(C, 'vote-answer')!.granted, false);
  assert.equal(stage.engine.status().term, 9, 'a live leader is never voted out');
});

test('a vote is told when it is on disk, a view that is accepted too', () => {
  const stage = new Stage();
  stage.diskAnswers = false;
  stage.frame(B, { kind: 'vote', accepted: 0, sentAt: 3, term: 1 });
  assert.equal(stage.last(B, 'vote-answer'), undefined);
  stage.diskAnswers = true;
  stage.disk();
  assert.equal(stage.last(B, 'vote-answer')!.granted, true);
  stage.diskAnswers = false;
  const proposal = view(epochOf(1, 1), B, [[A, 5], [B, 7]]);
  stage.frame(B, heartbeat(1, { view: proposal }));
  assert.equal(stage.last(B, 'answer')!.accepted, 0);
  stage.diskAnswers = true;
  stage.disk();
  assert.equal(stage.last(B, 'answer')!.accepted, proposal.epoch);
  assert.equal(stage.views.length, 0, 'not agreed yet');
  stage.frame(B, heartbeat(1, { view: proposal, agreed: proposal.epoch, echo: stage.now - 10, remaining: 200_000 }));
  assert.deepEqual(stage.views, [proposal]);
  assert.equal(stage.lease, stage.now - 10 + 198_000);
});

test('a restarted server that ever saved anything does not vote for a lease', () => {
  const stage = new Stage({ saved: saved(3) });
  stage.frame(B, { kind: 'vote', accepted: 0, sentAt: 3, term: 4 });
  assert.equal(stage.last(B, 'vote-answer')!.granted, false);
  stage.pass(Math.ceil(L * 1.01));
  stage.frame(B, { kind: 'vote', accepted: 0, sentAt: 4, term: 4 });
  assert.equal(stage.last(B, 'vote-answer')!.granted, true);
});

test('what an earlier leader proposed does not count before it is proposed again', () => {
  const old = view(epochOf(1, 5), B, [[A, 4], [B, 7]]);
  const stage = new Stage({ saved: saved(2, old) });
  const term = stage.elect(C);
  // what C says of itself first; then all say that they have the old view
  stage.answer(C, { accepted: old.epoch });
  stage.answer(B, { accepted: old.epoch });
  assert.equal(stage.engine.status().view, null);
  assert.equal(stage.views.length, 0);
  stage.pass(3 * H);
  const proposal = stage.last(C, 'heartbeat')!.view!;
  assert.equal(Math.floor(proposal.epoch / 2 ** 20), term);
  assert.deepEqual(proposal.former.map((one) => one.epoch), [old.epoch], 'B joined with it');
  stage.answer(C);
  assert.equal(stage.views.at(-1)?.epoch, proposal.epoch);
});

test('a leader that was elected keeps members it has not heard yet until they are silent', () => {
  const old = view(epochOf(1, 5), B, [[A, 4], [B, 7], [C, 7]]);
  const stage = new Stage({ saved: saved(2, old) });
  stage.elect(C);
  assert.deepEqual(stage.last(C, 'heartbeat')!.view!.members.map(({ node }) => node), [A, B, C]);
  stage.answer(C);
  for (let i = 0; i < 9; i++) {
    stage.pass(H);
    stage.answer(C);
  }
  assert.deepEqual(stage.views.at(-1)!.members.map(({ node }) => node), [A, C]);
});

test('when the leader is lost another renews the leases before they are over, and then waits for those it gave', () => {
  const stage = new Stage();
  const old = view(epochOf(1, 1), B, [[A, 5], [B, 7], [C, 7]]);
  stage.frame(B, heartbeat(1, { view: old, agreed: old.epoch, echo: stage.now, remaining: L }));
  const lease = stage.lease;
  const runs = (): string =>
    stage.last(C, 'heartbeat')!.view!.members.map(({ node, incarnation: run }) => `${node}/${run}`).join(' ');
  // C has started anew: smbds of its former run may go on until the lease that B gave it is over
  stage.elect(C, L / 2 + 2 * H, 8);
  const elected = stage.now;
  assert.ok(stage.now < lease);
  stage.answer(C, { run: 8 });
  assert.ok(stage.lease > lease && stage.views.length === 2);
  const inherited = Math.ceil((L / 2) * 1.01);
  const first = runs();
  for (let i = 0; i < 9 && runs() === first; i++) {
    stage.pass(H / 2);
    stage.answer(C, { run: 8 });
  }
  assert.ok(stage.now >= elected + inherited && stage.now < elected + inherited + H);
  assert.deepEqual([first, runs()], ['0/5 1/7 2/7', '0/5 2/8']);
});

test('of two that stand at once the one whose place is first goes on', () => {
  for (const [self, other, granted] of [[A, B, false], [B, A, true]] as const) {
    const stage = new Stage({ self });
    stage.frame(C, heartbeat(1));
    stage.pass(L / 2 + 1.5 * H);
    assert.equal(stage.engine.status().role, 'candidate');
    stage.frame(other, { kind: 'pre-vote', accepted: 0, sentAt: 3, term: 2 });
    assert.equal(stage.last(other, 'pre-vote-answer')!.granted, granted);
    assert.equal(stage.engine.status().role, granted ? 'follower' : 'candidate');
  }
});

test('of two that stand at once one goes on, though only one of them has heard of the last leader', () => {
  const agreed = view(epochOf(1, 1), A, [[A, 1], [B, 2], [C, 3]]);
  for (const [self, other, granted] of [[B, C, false], [C, B, true]] as const) {
    const stage = new Stage({ self, saved: saved(1, agreed) });
    // B was elected, and died before it had a view
    if (self === C) stage.frame(B, heartbeat(2));
    while (stage.engine.status().role !== 'candidate') stage.pass(H);
    stage.frame(other, { kind: 'pre-vote', accepted: agreed.epoch, sentAt: 3, term: 3, run: 8 });
    assert.equal(stage.last(other, 'pre-vote-answer')!.granted, granted, `server ${other} by server ${self}`);
  }
});

test('who stood and was not answered by a majority goes before nobody: it cannot win', () => {
  const stage = new Stage({ roles: ['server', 'server', 'server', 'server', 'server'] });
  stage.frame(C, heartbeat(1));
  stage.pass(L);
  const ask = (): boolean => {
    stage.frame(B, { kind: 'pre-vote', accepted: 0, sentAt: stage.now, term: 2 });
    return stage.last(B, 'pre-vote-answer')!.granted;
  };
  assert.equal(stage.engine.status().role, 'candidate');
  assert.equal(ask(), false);
  // B alone answers, and stands as well
  while (stage.now < 10_000_000 && !ask()) {
    const { sentAt } = stage.last(B, 'pre-vote')!;
    stage.frame(B, { kind: 'pre-vote-answer', granted: false, accepted: 0, view: null, echo: sentAt, term: 1 });
    stage.pass(H);
  }
  assert.ok(stage.now < 2_000_000, `it stands in the way until ${stage.now}`);
});

test('a member that is heard but does not answer is left out like a silent one', () => {
  const stage = new Stage();
  stage.elect(C);
  stage.answer(C);
  stage.answer(B);
  for (let i = 0; i < 9; i++) {
    stage.pass(H);
    stage.answer(B);
    stage.answer(C);
  }
  assert.deepEqual(stage.views.at(-1)!.members.map(({ node }) => node), [A, B, C]);
  // B hears nobody: it stands for election at every heartbeat
  for (let i = 0; i < 40; i++) {
    stage.pass(H);
    stage.frame(B, { kind: 'pre-vote', accepted: 0, sentAt: stage.now, term: 2 });
    stage.answer(C);
  }
  assert.deepEqual(stage.views.at(-1)!.members.map(({ node }) => node), [A, C]);
  const out = stage.views.length;
  stage.frame(B, { kind: 'hello', accepted: 0, answerWanted: false });
  stage.answer(C);
  assert.equal(stage.views.length, out, 'what is only heard does not join');
});

test('who would be taken out by a view that is not agreed yet is not told that it is out', () => {
  const stage = new Stage();
  const agreed = view(epochOf(1, 1), B, [[A, 5], [B, 7]]);
  stage.frame(B, heartbeat(1, { view: agreed, agreed: agreed.epoch }));
  const { configuration, servers } = left(stage.engine.serverList(), C);
  for (const content of serversMessages(configuration.digest, servers)) stage.frame(B, { ...content, term: 1 });
  const next = { ...view(epochOf(1, 2), B, [[A, 5], [B, 7]]), configuration };
  stage.frame(B, heartbeat(1, { view: next, agreed: agreed.epoch }));
  stage.frame(C, { kind: 'hello', accepted: 0, answerWanted: true });
  assert.equal(stage.last(C, 'outside'), undefined);
  stage.frame(B, heartbeat(1, { view: next, agreed: next.epoch }));
  stage.frame(C, { kind: 'hello', accepted: 0, answerWanted: true });
  assert.equal(stage.last(C, 'outside')!.view.epoch, next.epoch);
});

test('a new witness that heard all, and that nobody leads, asks again: it may have been taken out meanwhile', () => {
  const stage = new Stage({ self: C, roles: ['server', 'server', 'witness'] });
  for (const peer of [A, B]) stage.frame(peer, { kind: 'hello', accepted: epochOf(1, 1), answerWanted: false });
  stage.sent.length = 0;
  stage.pass(8 * L);
  for (const peer of [A, B]) assert.ok(stage.last(peer, 'hello') !== undefined, `server ${peer} is asked`);
});

test('a run that a newer view leaves out is over; one that never was a member is not', () => {
  const stage = new Stage();
  const first = view(epochOf(1, 1), B, [[A, 5], [B, 7]]);
  stage.frame(B, heartbeat(1, { view: first, agreed: first.epoch }));
  const second = { ...view(epochOf(1, 2), B, [[B, 7]]), past: [{ node: A, incarnation: incarnation(5) }] };
  stage.frame(B, heartbeat(1, { view: second, agreed: second.epoch }));
  assert.deepEqual(stage.removals, [second]);
  assert.equal(stage.last(B, 'answer')!.willing, false);
  const other = new Stage({ incarnation: 6 });
  other.frame(B, { ...heartbeat(1, { view: second, agreed: second.epoch }), to: 6 });
  assert.deepEqual(other.removals, []);
});

test('a candidate takes over a newer view that a voter has, which may be the only one left with it', () => {
  const stage = new Stage({ saved: saved(2) });
  const newer = view(epochOf(2, 3), B, [[B, 7], [C, 7]]);
  stage.pass(L + 4 * H);
  const ask = stage.last(C, 'pre-vote')!;
  const refusal = { kind: 'pre-vote-answer', granted: false, accepted: newer.epoch, view: newer } as const;
  stage.frame(C, { ...refusal, echo: ask.sentAt, term: 2 });
  stage.pass(4 * H);
  assert.equal(stage.last(C, 'pre-vote')!.accepted, newer.epoch);
});

test('a leader whose majority is silent steps down', () => {
  const stage = new Stage();
  stage.elect(C);
  stage.pass(H);
  stage.answer(C);
  stage.pass(3 * L + 2 * H);
  assert.notEqual(stage.engine.status().role, 'leader');
  assert.ok(stage.lease < stage.now);
});

test('a leader that hears nobody leaves nobody out: they may hear it, and each other', () => {
  const stage = new Stage();
  stage.elect(C);
  for (let i = 0; i < 6; i++) {
    stage.answer(B);
    stage.answer(C);
    stage.pass(H);
  }
  const all = [A, B, C];
  assert.deepEqual(stage.views.at(-1)!.members.map(({ node }) => node), all);
  stage.sent.length = 0;
  stage.pass(4 * L);
  const proposed = stage.sent.flatMap(({ message }) => (message.kind === 'heartbeat' ? [message.view!.members] : []));
  assert.ok(proposed.length > 0);
  for (const members of proposed) assert.deepEqual(members.map(({ node }) => node), all);
});

/** Three engines and what is between them: who hears whom is the test's choice. */
class Trio {
  readonly stages = [A, B, C].map((self) => new Stage({ self }));
  private readonly taken = this.stages.map(() => 0);
  hears = (_from: NodeId, _to: NodeId): boolean => true;

  pass(micros: number): void {
    for (const end = this.now + micros; this.now < end; ) {
      for (const stage of this.stages) stage.pass(H / 40);
      this.deliver();
    }
  }

  get now(): number {
    return this.stages[0]!.now;
  }

  private deliver(): void {
    for (const [from, stage] of this.stages.entries()) {
      const { sent } = stage;
      for (; this.taken[from]! < sent.length; this.taken[from]!++) {
        const { to, message } = sent[this.taken[from]!]!;
        if (this.hears(nodeId(from), to)) this.stages[to]!.frame(nodeId(from), { ...message, run: 5 });
      }
    }
  }

  get leader(): NodeId {
    const found = this.stages.findIndex(({ engine }) => engine.status().role === 'leader');
    assert.ok(found >= 0, 'nobody leads');
    return nodeId(found);
  }
}

test('a leader that does not hear the others, who hear it, is replaced soon, and only its run ends', () => {
  const trio = new Trio();
  trio.pass(4 * L);
  const old = trio.leader;
  assert.deepEqual(trio.stages.map(({ views }) => views.at(-1)!.members.length), [3, 3, 3]);
  trio.hears = (_, to) => to !== old;
  trio.pass(5 * L);
  const rest = [A, B, C].filter((node) => node !== old);
  for (const node of rest) {
    const { views, lease, now, removals } = trio.stages[node]!;
    assert.deepEqual(views.at(-1)!.members.map((member) => member.node), rest);
    assert.ok(lease > now && removals.length === 0);
  }
  trio.hears = () => true;
  trio.pass(2 * L);
  assert.equal(trio.stages[old]!.removals.length, 1);
});

test('a witness votes and accepts, and neither stands nor serves', () => {
  const stage = new Stage({ self: C, roles: ['server', 'server', 'witness'] });
  stage.pass(3 * L);
  assert.equal(stage.last(A, 'pre-vote'), undefined);
  stage.frame(B, { kind: 'vote', accepted: 0, sentAt: 3, term: 1 });
  assert.equal(stage.last(B, 'vote-answer')!.granted, true);
  const proposal = view(epochOf(1, 1), B, [[A, 5], [B, 7]]);
  stage.frame(B, heartbeat(1, { view: proposal, agreed: proposal.epoch, echo: stage.now, remaining: 200_000 }));
  assert.equal(stage.last(B, 'answer')!.accepted, proposal.epoch);
  assert.equal(stage.last(B, 'answer')!.willing, false);
  assert.deepEqual([stage.views.length, stage.lease], [0, 0]);
  assert.equal(stage.engine.status().role, 'witness');
});

test('a member that leaves gives its lease back, says so at once, and takes none again', () => {
  const stage = new Stage({ self: C });
  const members = view(epochOf(1, 1), B, [[A, 5], [B, 7], [C, 5]]);
  const beat = (): void => {
    const grant = { view: members, agreed: members.epoch, echo: stage.now, remaining: 200_000 };
    stage.frame(B, heartbeat(1, grant));
  };
  beat();
  beat();
  assert.ok(stage.lease > stage.now);
  assert.equal(stage.last(B, 'answer')!.released, false);
  stage.engine.leave();
  assert.deepEqual([stage.lease, stage.last(B, 'answer')!.released], [0, true]);
  beat();
  assert.deepEqual([stage.lease, stage.last(B, 'answer')!.willing], [0, false]);
});

test('a leader leaves out at once who gave its lease back, but not the lease of its former run', () => {
  for (const run of [7, 8]) {
    const stage = new Stage();
    stage.elect(B);
    for (let round = 0; round < 6; round++) {
      for (const peer of [B, C]) stage.answer(peer);
      stage.pass(H);
    }
    const proposed = (): NodeId[] => stage.last(B, 'heartbeat')!.view!.members.map(({ node }) => node);
    assert.deepEqual(proposed(), [A, B, C]);
    stage.answer(C, { willing: false, released: true, run });
    assert.deepEqual(proposed(), run === 7 ? [A, B] : [A, B, C]);
    stage.pass(H);
    stage.answer(B);
    assert.deepEqual(proposed(), run === 7 ? [A, B] : [A, B, C], 'its lease is not over');
  }
});

// --- the pool's protocol (docs/decisions/versions.md)

const UPGRADED = { min: 1, max: 2 };

/** A, upgraded, leads; B and C speak this, if they are heard. */
function upgradedLeader(ofB: ProtocolRange | null, ofC?: ProtocolRange): Stage {
  const stage = new Stage({ speaks: UPGRADED });
  stage.othersSpeak.set(B, ofB);
  if (ofC !== undefined) stage.othersSpeak.set(C, ofC);
  stage.frame(B, { kind: 'hello', answerWanted: false, accepted: 0 });
  stage.elect(B);
  for (let i = 0; i < 12; i++) {
    stage.pass(H);
    stage.answer(B);
    if (ofC !== undefined && stage.last(C, 'heartbeat') !== undefined) stage.answer(C);
  }
  return stage;
}

const shown = ({ views }: Stage): string =>
  views.map(({ members, protocol }) => `${protocol}: ${members.map(({ node }) => node).join('')}`).join(', ');

test('the protocol rises when every configured server is heard and speaks it, and not before', () => {
  assert.match(shown(upgradedLeader(UPGRADED, UPGRADED)), /2: 012$/);
  assert.match(shown(upgradedLeader(UPGRADED, RELEASED)), /^(1: 0, )?1: 012$/, 'C is not upgraded');
  assert.match(shown(upgradedLeader(UPGRADED)), /^(1: 0, )?1: 01$/, 'C is away');
});

test('a run whose range is not known, or has not the protocol of the pool, is not taken in', () => {
  assert.match(shown(upgradedLeader(null)), /^1: 0$/);
  const stage = upgradedLeader(UPGRADED, { min: 2, max: 3 });
  assert.match(shown(stage), /2: 012$/, 'it joins with the raise that all can take');
  const newer = upgradedLeader(RELEASED, { min: 2, max: 3 });
  assert.match(shown(newer), /1: 01$/);
  const told = newer.logs.filter((line) => line.startsWith('membership.protocol.foreign'));
  assert.equal(told.length, 1, 'once');
  assert.match(told[0]!, /"peer":2,"release":"0.2.0","speaks":"2 to 3","pool":1/);
  assert.match(told[0]!, /upgrade smbpool on the others/);
});

test('who went back a release votes and accepts views, neither stands nor serves, and says why', () => {
  const raised = { ...view(epochOf(1, 1), B, [[A, 4], [B, 7]]), protocol: 2 };
  const stage = new Stage({ saved: saved(1, raised) });
  stage.pass(9 * L);
  assert.equal(stage.last(B, 'pre-vote'), undefined);
  assert.match(stage.logs.join(), /membership.protocol.foreign .*"speaks":"1","pool":2.*install a later release/);
  assert.equal(stage.engine.status().protocol, 2);
  stage.frame(B, { kind: 'vote', accepted: raised.epoch, sentAt: 3, term: 2 });
  assert.equal(stage.last(B, 'vote-answer')!.granted, true);
  const next = { ...view(epochOf(2, 1), B, [[B, 7]]), protocol: 2 };
  stage.frame(B, heartbeat(2, { view: next, agreed: next.epoch }));
  assert.equal(stage.last(B, 'answer')!.accepted, next.epoch);
  assert.deepEqual([stage.views.length, stage.lease], [0, 0]);
});

test('a view that makes us a member of what we cannot speak is refused', () => {
  const stage = new Stage({ saved: saved(1) });
  const wrong = { ...view(epochOf(2, 1), B, [[A, 5], [B, 7]]), protocol: 2 };
  stage.frame(B, heartbeat(2, { view: wrong, agreed: wrong.epoch }));
  assert.equal(stage.counts.get('membership.frame.refused.protocol'), 1);
  assert.deepEqual([stage.views.length, stage.last(B, 'answer')], [0, undefined]);
});
