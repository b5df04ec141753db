/**
 * The engine on etcd: what is stored, what is said to etcd, and one engine whose peers and register the test plays.
 * What random runs find is in test/sim/membership.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId } from '../../src/base/ids.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { Effect, RegisterRequest, RegisterResult } from '../../src/core/effects.js';
import { EtcdMembership } from '../../src/core/membership/etcd.js';
import type { View } from '../../src/core/membership/composition.js';
import { Timers } from '../../src/core/timers.js';
import { requestBody, resultOf } from '../../src/host/etcd/messages.js';
import { EtcdRegister } from '../../src/host/etcd/register.js';
import type { MembershipContent, MembershipMessage } from '../../src/wire/membership-messages.js';
import { decodeMembershipMessage, encodeMembershipMessage, epochOf } from '../../src/wire/membership-messages.js';
import type { RegisterState } from '../../src/wire/membership-register.js';
import { decodeRegister, encodeRegister } from '../../src/wire/membership-register.js';
import { ANNOUNCEMENT } from '../support/announcement.js';

const H = 40_000;
const L = 300_000;
const [A, B, C] = [0, 1, 2].map(nodeId) as [NodeId, NodeId, NodeId];
const OWN = { node: A, incarnation: incarnation(5) };
const OTHER = { node: B, incarnation: incarnation(7) };
const NOTHING: RegisterState = { term: 0, leader: null, challenge: null, view: null };

function view(number: number, leader: NodeId, runs: [NodeId, number][]): View {
  const members = runs.map(([node, run]) => ({ node, incarnation: incarnation(run), since: epoch(number) }));
  return { epoch: epoch(number), leader, members, former: [], holders: [], past: [], protocol: 1 };
}

/** One engine, server A of three, in the middle of what the test plays. */
class Stage {
  now = 1_000_000;
  readonly timers = new Timers();
  readonly asked: { token: number; request: RegisterRequest }[] = [];
  readonly sent: { to: NodeId; message: MembershipMessage }[] = [];
  readonly counts = new Map<string, number>();
  readonly logged: string[] = [];
  readonly views: View[] = [];
  lease = 0;
  revision = 0;
  state: RegisterState | null = null;
  answers = true;
  readonly engine: EtcdMembership;

  constructor(state: RegisterState | null = null) {
    if (state !== null) this.write(state);
    const context = {
      now: () => this.now,
      timers: this.timers,
      emit: (effect: Effect) => {
        if (effect.kind === 'register-request') this.asked.push(effect);
        if (effect.kind === 'membership-save') this.engine.onSaved(effect.token, true);
      },
      log: (_: string, event: string) => void this.logged.push(event),
      count: (name: string) => void this.counts.set(name, (this.counts.get(name) ?? 0) + 1),
    };
    const servers = [A, B, C].map((node) => ({ node, role: 'server' as const }));
    const times = { heartbeatMicros: H, leaseMicros: L };
    const { incarnation: own } = OWN;
    const options = { self: A, incarnation: own, announcement: ANNOUNCEMENT, servers, ...times, saved: null };
    this.engine = new EtcdMembership(context, options, {
      view: (its) => this.views.push(its),
      lease: (until) => (this.lease = until),
      removed: () => undefined,
      send: (to, body) => this.sent.push({ to, message: decodeMembershipMessage(body, 'etcd') }),
    });
    this.engine.setHeard([A, B, C]);
    for (const node of [B, C]) this.engine.announced(node, OTHER.incarnation, ANNOUNCEMENT);
  }

  /** As another server would. */
  write(state: RegisterState): void {
    this.revision += 2;
    this.state = decodeRegister(encodeRegister(state));
  }

  pass(micros: number): void {
    const end = this.now + micros;
    for (;;) {
      this.register();
      const next = this.timers.deadline();
      if (next > end) break;
      this.now = Math.max(this.now, next);
      this.timers.run(this.now);
    }
    this.now = end;
  }

  register(): void {
    while (this.answers && this.asked.length > 0) {
      const { token, request } = this.asked.shift()!;
      this.engine.onRegister(token, this.perform(request));
    }
  }

  perform(request: RegisterRequest): RegisterResult {
    const value = this.state === null ? null : encodeRegister(this.state);
    if (request.kind === 'read') return { kind: 'value', revision: this.revision, value };
    if (request.revision !== this.revision) return { kind: 'refused', revision: this.revision, value };
    this.write(decodeRegister(request.value));
    return { kind: 'swapped', revision: this.revision };
  }

  frame(from: NodeId, content: MembershipContent & { term: number }): void {
    const message = { ...content, to: OWN.incarnation };
    this.engine.onFrame(from, incarnation(7), encodeMembershipMessage(message, 'etcd'));
    this.register();
  }

  heartbeat(from: NodeId, term: number, its: View | null = null, grant = { echo: 0, remaining: 0 }): void {
    const rest = { sentAt: 10, agreed: its?.epoch ?? 0, view: its, term, ...grant };
    this.frame(from, { kind: 'heartbeat', ...rest });
  }
}

test('what is stored comes back; anything else is refused, with a reason', () => {
  const states: RegisterState[] = [
    NOTHING,
    { term: 3, leader: OWN, challenge: { ...OTHER, hears: [B, C] }, view: view(epochOf(3, 1), A, [[A, 5], [B, 7]]) },
  ];
  for (const state of states) {
    const bytes = encodeRegister(state);
    assert.deepEqual(decodeRegister(bytes), state);
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeRegister(bytes.subarray(0, length)));
    }
    for (let at = 0; at < bytes.length; at++) {
      const spoiled = bytes.slice();
      spoiled[at]! ^= 1;
      assert.throws(() => decodeRegister(spoiled), { name: 'DecodeError' });
    }
  }
  const unheard = encodeRegister({ ...NOTHING, challenge: { ...OTHER, hears: [C] } });
  assert.throws(() => decodeRegister(unheard), /register-hears/);
});

test('a frame of the other engine is refused', () => {
  const stage = new Stage();
  const hello = { kind: 'hello', answerWanted: true, accepted: 0, to: OWN.incarnation, term: 0 } as const;
  const body = encodeMembershipMessage(hello);
  stage.engine.onFrame(B, incarnation(7), body);
  assert.equal(stage.counts.get('membership.frame.refused.other-engine'), 1);
  assert.throws(() => decodeMembershipMessage(encodeMembershipMessage(hello, 'etcd')), /other-engine/);
});

test('an empty register: a challenge, a whole lease by any clock, then the lead and a view', () => {
  const stage = new Stage();
  stage.pass(0.5 * L + H);
  assert.deepEqual(stage.state?.challenge, { ...OWN, hears: [A, B, C] });
  const challengedBy = stage.now;
  stage.pass(L - 2 * H);
  assert.equal(stage.state?.leader, null, 'not before the lease is over');
  stage.pass(3 * H);
  assert.deepEqual(stage.state?.leader, OWN);
  assert.ok(stage.now >= challengedBy + L);
  stage.pass(3 * H);
  assert.deepEqual(stage.state?.view?.members.map(({ node }) => node), [A]);
  assert.deepEqual(stage.views.map(({ epoch: its }) => its), [epochOf(1, 1)]);
  assert.equal(stage.engine.status().role, 'leader');
});

/** A leads in term 1, alone in the view. */
function leading(): Stage {
  const stage = new Stage();
  stage.pass(2 * L);
  assert.equal(stage.engine.status().role, 'leader');
  return stage;
}

test('a leader serves as long as etcd answers, counted from the question', () => {
  const stage = leading();
  assert.ok(stage.lease > stage.now + L - 2 * H);
  stage.answers = false;
  stage.pass(2 * H);
  const until = stage.lease;
  const [read] = stage.asked;
  assert.equal(read?.request.kind, 'read');
  stage.pass(L);
  assert.equal(stage.lease, until, 'no answer, no lease');
  stage.engine.onRegister(read.token, stage.perform(read.request));
  assert.ok(stage.lease <= until + H, 'a late answer is of when it was asked for');
  assert.ok(stage.lease < stage.now);
  assert.equal(stage.engine.status().role, 'leader', 'the register still says so');
});

test('a challenge is written away by a leader that hears as many; until then it has no new lease', () => {
  const stage = leading();
  const before = stage.lease;
  stage.answers = false;
  stage.write({ ...stage.state!, challenge: { ...OTHER, hears: [B] } });
  stage.pass(H);
  assert.equal(stage.lease, before);
  const read = stage.asked.shift()!;
  stage.engine.onRegister(read.token, stage.perform(read.request));
  assert.equal(stage.lease, before, 'a register with a challenge confirms nothing');
  stage.answers = true;
  stage.register();
  assert.equal(stage.state?.challenge, null);
  assert.ok(stage.lease > before);
});

test('a challenger that hears more servers gets the lead', () => {
  const stage = leading();
  stage.write({ ...stage.state!, challenge: { ...OTHER, hears: [B, C] } });
  stage.pass(H);
  const until = stage.lease;
  stage.pass(4 * H);
  assert.deepEqual(stage.state?.challenge, { ...OTHER, hears: [B, C] }, 'it is left there');
  assert.equal(stage.lease, until);
  assert.ok(stage.logged.includes('membership.challenged'));
  stage.write({ term: 2, leader: OTHER, challenge: null, view: stage.state.view });
  stage.pass(2 * H);
  assert.equal(stage.engine.status().role, 'follower');
});

test('who is heard by a challenged leader but does not answer it is none of those that count for it', () => {
  const stage = leading();
  const greet = (): void => {
    for (const node of [B, C]) stage.frame(node, { kind: 'hello', accepted: 0, answerWanted: false, term: 1 });
  };
  greet();
  stage.pass(L);
  greet();
  stage.write({ ...stage.state!, challenge: { ...OTHER, hears: [B, C] } });
  stage.pass(4 * H);
  assert.deepEqual(stage.state?.challenge, { ...OTHER, hears: [B, C] }, 'it is left there');
});

test('a challenger that hears no more than the leader is refused', () => {
  const stage = leading();
  stage.write({ ...stage.state!, challenge: { ...OTHER, hears: [B] } });
  stage.pass(2 * H);
  assert.equal(stage.state?.challenge, null);
  assert.ok(stage.lease > stage.now + L - 3 * H);
});

test('who follows hears the leader and leaves etcd alone; silent, it is challenged, and answers', () => {
  const stage = new Stage({ ...NOTHING, term: 4, leader: OTHER });
  const its = view(epochOf(4, 1), B, [[A, 5], [B, 7]]);
  for (let i = 0; i < 60; i++) {
    stage.heartbeat(B, 4, its, { echo: stage.now - 1, remaining: L });
    stage.pass(H);
  }
  assert.deepEqual(stage.views, [its]);
  assert.equal(stage.counts.get('membership.stood'), undefined);
  assert.equal(stage.engine.status().leader, B);
  assert.ok(stage.lease > stage.now);
  assert.ok(stage.counts.get('membership.register.read')! <= 4, 'one look a second');
  stage.pass(0.5 * L + H);
  assert.deepEqual(stage.state?.challenge, { ...OWN, hears: [A, C] }, 'without the leader');
  stage.write({ ...stage.state, challenge: null });
  stage.pass(3 * L);
  assert.equal(stage.counts.get('membership.stood'), 1, 'it rests');
  stage.pass(2 * L);
  assert.equal(stage.counts.get('membership.stood'), 2);
});

test('a member that hears the leader and gets no lease wants another leader', () => {
  const stage = new Stage({ ...NOTHING, term: 4, leader: OTHER });
  const its = view(epochOf(4, 1), B, [[A, 5], [B, 7]]);
  for (let i = 0; i < 12; i++) {
    stage.heartbeat(B, 4, its);
    stage.pass(H);
  }
  assert.equal(stage.state?.challenge?.node, A);
});

test('a view whose swap was not answered is sent again until it is there, and no other', () => {
  const stage = leading();
  const answer: MembershipContent = {
    kind: 'answer', willing: true, released: false, isBlank: false, echo: 1, sentAt: 1, accepted: 0, installed: 0,
    recovered: 0, unheard: [],
  };
  stage.pass(3 * L);
  stage.answers = false;
  stage.frame(B, { ...answer, term: 1 });
  stage.frame(C, { ...answer, term: 1 });
  stage.pass(H);
  const swaps = stage.asked.filter(({ request }) => request.kind === 'swap');
  assert.equal(swaps.length, 1);
  stage.engine.onRegister(swaps[0]!.token, { kind: 'failed', why: 'lost' });
  const [wanted] = swaps.map(({ request }) => decodeRegister((request as { value: Uint8Array }).value));
  assert.deepEqual(wanted?.view?.members.map(({ node }) => node), [A, B, C]);
  // B is not willing any more, but the view may come yet
  stage.frame(B, { ...answer, willing: false, sentAt: 2, term: 1 });
  stage.pass(H);
  for (const { token, request } of [...stage.asked]) {
    if (request.kind === 'read') stage.engine.onRegister(token, stage.perform(request));
  }
  const again = stage.asked.filter(({ request }) => request.kind === 'swap').at(-1)!;
  assert.notEqual(again, swaps[0]);
  assert.deepEqual(again.request, swaps[0]!.request);
  assert.equal(stage.counts.get('membership.register.failed'), 1);
});

test('a state of a lost etcd: servers know a later term, and go on from there', () => {
  const stage = leading();
  stage.state = null;
  stage.revision = 0;
  stage.pass(3 * L);
  assert.equal(stage.state!.term, 2);
  assert.ok(stage.logged.includes('membership.register.went-back'));
  stage.pass(3 * H);
  assert.ok(stage.views.at(-1)!.epoch >= epochOf(2, 1));
});

test('a value that is none of ours is an error with a remedy, and nobody serves', () => {
  const stage = new Stage();
  stage.pass(0);
  const [read] = stage.asked;
  assert.equal(read, undefined, 'the first was answered');
  stage.answers = false;
  stage.pass(L);
  const next = stage.asked[0]!;
  stage.engine.onRegister(next.token, { kind: 'value', revision: 3, value: Buffer.from('something else') });
  assert.match(stage.engine.status().register!.failure!, /no state of a pool \(register-magic\)/);
  assert.ok(stage.logged.includes('membership.register.fails'));
});

test('what etcd is asked, and what its answers mean', () => {
  const key = Buffer.from('/smbpool/p/membership').toString('base64');
  const read = requestBody('/smbpool/p/membership', { kind: 'read' });
  assert.deepEqual([read.path, JSON.parse(read.body)], ['/v3/kv/range', { key }]);
  const value = Buffer.from('new');
  const swap = requestBody('/smbpool/p/membership', { kind: 'swap', revision: 0, value });
  assert.deepEqual([swap.path, JSON.parse(swap.body)], ['/v3/kv/txn', {
    compare: [{ key, target: 'MOD', result: 'EQUAL', mod_revision: '0' }],
    success: [{ request_put: { key, value: 'bmV3' } }],
    failure: [{ request_range: { key } }],
  }]);
  const header = { cluster_id: '1', member_id: '2', revision: '12', raft_term: '3' };
  const kv = { key, create_revision: '4', mod_revision: '9', version: '2', value: 'bmV3' };
  const bytes = new Uint8Array(value);
  const swapped: RegisterRequest = { kind: 'swap', revision: 9, value };
  assert.deepEqual(resultOf({ kind: 'read' }, { header, kvs: [kv], count: '1' }),
    { kind: 'value', revision: 9, value: bytes });
  assert.deepEqual(resultOf({ kind: 'read' }, { header }), { kind: 'value', revision: 0, value: null });
  assert.deepEqual(resultOf(swapped, { header, succeeded: true, responses: [{ response_put: { header } }] }),
    { kind: 'swapped', revision: 12 });
  assert.deepEqual(resultOf(swapped, { header, responses: [{ response_range: { header, kvs: [kv] } }] }),
    { kind: 'refused', revision: 9, value: bytes });
  assert.deepEqual(resultOf(swapped, { header, responses: [{ response_range: { header } }] }),
    { kind: 'refused', revision: 0, value: null });
  for (const odd of [null, {}, { header: { revision: -1 } }, { header, kvs: [{ mod_revision: 'x' }] }]) {
    assert.throws(() => resultOf({ kind: 'read' }, odd));
  }
});

test('endpoints that refuse are left for the next; when none answers, all are named', async () => {
  // ports of loopback that nobody has: the discard service's, and that of echo
  const endpoints = ['http://127.0.0.1:9', 'http://127.0.0.1:7'];
  const register = new EtcdRegister({ endpoints, poolName: 'p' });
  const result = await register.request({ kind: 'read' }, 30_000_000);
  assert.equal(result.kind, 'failed');
  assert.match(result.why, /127\.0\.0\.1:9: .*ECONNREFUSED.*127\.0\.0\.1:7: .*ECONNREFUSED/);
  assert.deepEqual(register.counters(), { 'etcd.request': 2, 'etcd.failure': 2, 'etcd.failover': 2 });
  register.close();
});
