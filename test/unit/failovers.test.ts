/**
 * The history of the pool's changes: what it makes of what it is told, its words, and the text that people read,
 * compared with golden files (REWRITE=1 accepts new ones).
 */
import type { Changes } from '../../src/core/views.js';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId } from '../../src/base/ids.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import { failoversText } from '../../src/cli/failovers.js';
import { EVENTS_MAX, Failovers } from '../../src/core/failovers/failovers.js';
import type { LeaveReason, View } from '../../src/core/membership/composition.js';
import { Timers } from '../../src/core/timers.js';
import { problemsOf } from '../../src/daemon/membership-report.js';
import type { FailoversReport, ViewChangeReport } from '../../src/wire/failovers.js';
import { epochOf } from '../../src/wire/membership-messages.js';
import { exampleStatus } from '../support/example-status.js';
import { assertGolden } from '../support/golden.js';

const changed = (left: NodeId[], joined: NodeId[]): Changes => ({ left, joined, resumed: [] });

process.env['TZ'] = 'UTC';

const [A, B, C] = [0, 1, 2].map(nodeId) as [NodeId, NodeId, NodeId];
const LEASE = 300_000;
/** 2026-11-29 10:00:00 UTC. */
const ORIGIN = Date.UTC(2026, 10, 29, 10) * 1000;

function view(term: number, number: number, leader: NodeId, runs: [NodeId, number][]): View {
  const members = runs.map(([node, run]) => ({ node, incarnation: incarnation(run), since: epoch(1) }));
  return { epoch: epochOf(term, number), leader, members, protocol: 1, former: [], holders: [], past: [] };
}

/** The history of server A, in the middle of what the test tells. */
class Told {
  now = 0;
  readonly timers = new Timers();
  readonly counters = new Map<string, number>();
  readonly logged: Record<string, unknown>[] = [];
  readonly history: Failovers;

  constructor() {
    const context = {
      self: A, servers: [A, B, C], timers: this.timers, now: () => this.now,
      log: (_level: string, event: string, fields: Record<string, unknown> = {}) => {
        this.logged.push({ event, ...fields });
      },
    };
    this.history = new Failovers(context, {
      leaseMicros: LEASE,
      wallClockOriginMicros: ORIGIN,
      nameOf: (node) => `server-${node}`,
      counter: (name) => this.counters.get(name) ?? 0,
    });
  }

  at(millis: number): Failovers {
    this.now = millis * 1000;
    this.timers.run(this.now);
    return this.history;
  }

  hear(millis: number, ...servers: NodeId[]): void {
    for (const server of servers) this.at(millis).heard(server, incarnation(7));
  }

  count(name: string, by: number): void {
    this.counters.set(name, (this.counters.get(name) ?? 0) + by);
  }

  /** All three serve, and A or another leads. */
  begin(leader: NodeId = A): void {
    this.hear(990, B, C);
    this.at(1_000).installed(view(1, 1, leader, [[A, 5], [B, 7], [C, 7]]), changed([], [A, B, C]));
    this.at(1_002).settled();
    this.at(1_003).claimsSent();
    this.at(1_004).recovered();
    this.at(1_600);
  }

  get report(): FailoversReport {
    const servers = [A, B, C].map((id) => ({ id, name: `server-${id}` }));
    return { self: A, servers, events: this.history.report() };
  }

  get last(): ViewChangeReport {
    const event = this.history.report().at(-1);
    assert.ok(event?.kind === 'view');
    return event;
  }
}

const because = (why: LeaveReason['why'], ...by: NodeId[]): LeaveReason => ({ why, by });

/** A leads and loses B. */
function lostMember(): Told {
  const told = new Told();
  told.begin();
  told.hear(9_996, B, C);
  told.hear(10_300, C);
  told.at(10_296).suspects(new Map([[B, because('silent')]]));
  told.at(10_306).suspects(new Map([[B, because('silent')]]));
  const next = view(1, 2, A, [[A, 5], [C, 7]]);
  told.at(10_307).proposed(next, new Map([[B, 10_302_000]]));
  told.at(10_312).installed(next, changed([B], []));
  told.count('record.home.new', 12);
  told.count('record.claim.sent', 7);
  told.at(10_314).settled();
  told.at(10_314).claimsSent();
  told.count('record.claim.received', 9);
  told.count('record.claimed-now', 2);
  told.at(10_316).recovered();
  told.count('record.restored', 4);
  told.count('record.lost.for-good', 1);
  told.at(10_400).recovered();
  return told;
}

test('a member that fell silent: a timeline with cause, remedy and what became of the records', () => {
  const told = lostMember();
  assert.deepEqual(told.last.steps.map(({ what }) => what), [
    'last-frame', 'suspected', 'lease-over', 'proposed', 'installed', 'settled', 'claims-sent', 'recovered',
  ]);
  assert.equal(told.last.causes[0]?.text, 'server-1 was not heard for 300 ms');
  assertGolden('unit/cli-golden/failovers.txt', failoversText(told.report));
});

test('one line of the log for each change, when records have come back', () => {
  const told = lostMember();
  assert.equal(told.logged.length, 1, 'of the first view');
  told.at(11_000);
  assert.deepEqual(told.logged[1], {
    event: 'view-complete', epoch: epochOf(1, 2), cause: 'server-1 was not heard for 300 ms',
    members: ['server-0', 'server-2'], ms: 320, msFrom: 'last frame',
    newHomes: 12, claimsSent: 7, claimsReceived: 9, claimedFirst: 2, restored: 4, lost: 1,
  });
});

test('a view that only raises the protocol says so', () => {
  const told = new Told();
  told.begin(B);
  told.at(5_000).installed({ ...view(1, 2, B, [[A, 5], [B, 7], [C, 9]]), protocol: 2 }, changed([], []));
  assert.equal(told.last.causes.map(({ text }) => text).join('; '),
    'all servers are upgraded: the pool speaks protocol 2 from now on');
});

test('a follower whose leader fell silent was fenced until another led', () => {
  const told = new Told();
  told.begin(C);
  told.hear(5_000, C);
  told.hear(5_400, B);
  told.at(5_310).fenced(5_297_000);
  told.at(5_320).suspects(new Map([[C, because('silent')]]));
  const next = view(2, 1, B, [[A, 5], [B, 7]]);
  told.at(5_430).proposed(next, new Map());
  told.at(5_436).installed(next, changed([C], []));
  told.at(5_440).renewed();
  told.at(5_450).settled();
  const report = told.report;
  assert.equal(told.last.causes.map(({ text }) => text).join('; '),
    'server-2 was not heard for 320 ms; server-1 leads from now on');
  assertGolden('unit/cli-golden/failovers-leader.txt', failoversText({ ...report, events: report.events.slice(1) }));
});

test('causes other than silence', () => {
  const told = new Told();
  told.begin();
  const lose = (millis: number, reason: LeaveReason): string => {
    told.hear(millis, B, C);
    told.at(millis).suspects(new Map([[C, reason]]));
    told.at(millis + 5).installed(view(1, millis, A, [[A, 5], [B, 7]]), changed([C], []));
    const text = told.last.causes.map((cause) => cause.text).join('; ');
    told.at(millis + 6).installed(view(1, millis + 1, A, [[A, 5], [B, 7], [C, 7]]), changed([], [C]));
    assert.equal(told.last.causes.map((cause) => cause.text).join('; '), 'server-2 joined');
    return text;
  };
  assert.equal(lose(2_000, because('unheard', B)), 'server-1 and server-2 do not hear each other');
  assert.equal(lose(2_500, because('unresponsive')), 'server-2 was heard, but did not answer');
  assert.equal(lose(3_000, because('unwilling')), 'server-2 asked to be left out');
  assert.equal(lose(4_000, because('behind')), 'server-2 did not make up for the changes of the view before');
  told.at(5_000).heard(C, incarnation(8));
  told.at(5_001).installed(view(1, 5_001, A, [[A, 5], [B, 7], [C, 8]]), changed([C], [C]));
  assert.equal(told.last.causes.map((cause) => cause.text).join('; '), 'server-2 runs anew');
});

test('a run that continues the one before lost nothing', () => {
  const told = new Told();
  told.begin();
  told.hear(5_000, B);
  told.at(5_000).heard(C, incarnation(8));
  const next = view(1, 5_001, A, [[A, 5], [B, 7], [C, 8]]);
  told.at(5_001).installed(next, { left: [], joined: [], resumed: [C] });
  assert.equal(told.last.causes.map(({ text }) => text).join('; '),
    'smbpoold of server-2 was restarted; its clients went on');
  assert.match(failoversText(told.report), /smbpoold of server-2 was restarted; its clients went on/);
  assert.match(told.last.causes[0]!.remedy ?? '', /log of smbpoold on server-2/);
});

test('who was heard and left out by another: the leader knows why', () => {
  const told = new Told();
  told.begin(B);
  told.hear(3_000, B, C);
  told.at(3_010).installed(view(1, 2, B, [[A, 5], [B, 7]]), changed([C], []));
  const [cause] = told.last.causes;
  assert.equal(cause?.text, 'server-2 was left out, although it was heard here');
  assert.equal(cause?.remedy, 'server-1, which leads, knows why: ask smbpool failovers there');
});

test('a suspicion is void when the server spoke after it', () => {
  const told = new Told();
  told.begin();
  told.hear(2_000, B, C);
  told.at(2_310).suspects(new Map([[B, because('silent')]]));
  told.hear(2_320, B, C);
  told.at(2_330).suspects(new Map());
  told.at(2_650).suspects(new Map([[B, because('silent')]]));
  told.hear(2_650, C);
  told.at(2_660).installed(view(1, 2, A, [[A, 5], [C, 7]]), changed([B], []));
  assert.equal(told.last.causes[0]?.text, 'server-1 was not heard for 330 ms');
});

test('who spoke again before the view was agreed is out all the same, for its silence', () => {
  const told = new Told();
  told.begin();
  told.hear(2_000, B, C);
  told.at(2_310).suspects(new Map([[B, because('silent')]]));
  const next = view(1, 2, A, [[A, 5], [C, 7]]);
  told.at(2_311).proposed(next, new Map([[B, 2_305_000]]));
  told.hear(2_312, B, C);
  told.at(2_313).suspects(new Map([[B, because('silent')]]));
  told.at(2_320).installed(next, changed([B], []));
  assert.equal(told.last.causes[0]?.text, 'server-1 was not heard for 310 ms');
  assert.equal(told.last.steps[0]?.atMicros, ORIGIN + 2_000_000);
});

test('a view that comes before the one before is complete ends that one', () => {
  const told = new Told();
  told.begin();
  told.hear(2_000, B, C);
  told.at(2_400).installed(view(1, 2, A, [[A, 5], [C, 7]]), changed([B], []));
  told.count('record.claim.sent', 3);
  told.at(2_800).installed(view(1, 3, A, [[A, 5]]), changed([C], []));
  told.count('record.claim.sent', 5);
  const [, first, second] = told.history.report();
  assert.ok(first?.kind === 'view' && second?.kind === 'view');
  assert.deepEqual([first.overtaken, first.records.claimsSent], [true, 3]);
  assert.deepEqual([second.overtaken, second.records.claimsSent], [false, 5]);
  assert.equal(told.logged.at(-1)?.['overtaken'], true);
});

test('no quorum is said with the names of those that are missing', () => {
  const told = new Told();
  told.begin();
  told.hear(2_000, B, C);
  told.at(2_310).fenced(2_298_000);
  const report = told.report;
  assertGolden('unit/cli-golden/failovers-fenced.txt', failoversText({ ...report, events: report.events.slice(1) }));
});

test('only the newest events are kept, and before the first there is a sentence', () => {
  const told = new Told();
  assert.equal(failoversText(told.report), 'server-0 has seen no change of the pool since its smbpoold started\n');
  told.begin();
  for (let number = 0; number < 2 * EVENTS_MAX; number++) told.at(2_000 + number).fenced(told.now);
  assert.equal(told.history.report().length, EVENTS_MAX);
});

test('problems: etcd does not answer', () => {
  const { membership, servers } = exampleStatus();
  const fit = servers.map((server) => ({ ...server, fitness: 'fit' as const, reasons: [], silentMicros: 20_000 }));
  const etcd = { microsSinceAnswer: 3_000_000, failure: 'http://10.0.0.11:2379: no answer within 100 ms' };
  const told = (state: 'valid' | 'fenced'): string[] => {
    const lease = { state, micros: 1_000 };
    return problemsOf({ ...membership, engine: 'etcd', etcd, lease }, fit, { self: 0, leaseMs: 300 })
      .map(({ what, text }) => `${what}: ${text}`);
  };
  const says = 'no-etcd: etcd does not answer this server: http://10.0.0.11:2379: no answer within 100 ms.';
  assert.deepEqual(told('valid'), [`${says} If the leader cannot either, nobody can open files`]);
  assert.equal(told('fenced')[0], `${says} Nobody here can open files`);
});

test('problems: of two servers one was away', () => {
  const { membership, servers } = exampleStatus();
  const well = { fitness: 'fit' as const, reasons: [], silentMicros: 20_000 };
  const [first, second] = servers.map((one) => ({ ...one, ...well }));
  assert.ok(first !== undefined && second !== undefined);
  const pair = [first, second, { ...second, id: 9, name: 'tally', role: 'witness' as const }];
  const told = (holders: number[]): string[] =>
    problemsOf({ ...membership, holders }, pair, { self: 0, leaseMs: 300 })
      .map(({ text, remedy }) => `${text}: ${remedy}`);
  assert.deepEqual(told([]), []);
  assert.deepEqual(told([0, 1]), []);
  assert.deepEqual(told([0]), [
    `only ${first.name} has every change of accounts and registry: ${second.name} is brought up to date by itself when `
      + `it is a member; until then spare ${first.name} and its disk`,
  ]);
});

test('problems: no quorum, no lease, servers that are out', () => {
  const { membership, servers } = exampleStatus();
  const options = { self: 0, leaseMs: 300 };
  const [, , gamma] = servers;
  const alone = servers.map((server) => ({ ...server, silentMicros: server.id === 0 ? null : 5_000_000 }));
  const quorum = { configured: 3, needed: 2, present: 1 };
  assert.deepEqual(problemsOf({ ...membership, quorum }, alone, options), [{
    what: 'no-quorum',
    text: 'no quorum: 2 of 3 servers must run; beta and gamma are not heard. Nobody here can open or change files',
    remedy: 'start smbpoold there or check the interconnect',
  }]);
  assert.deepEqual(problemsOf(membership, servers, options), exampleStatus().problems);
  const lease = { state: 'fenced', micros: 421_000 } as const;
  const fit = servers.map((server) => ({ ...server, fitness: 'fit' as const, reasons: [] }));
  const present = fit.map((server) => (server.id === gamma?.id ? { ...server, silentMicros: 20_000 } : server));
  const [fenced, more] = problemsOf({ ...membership, leader: null, lease }, present, options);
  assert.equal(more, undefined);
  assert.equal(fenced?.text,
    'this server has no lease for 421 ms: its clients can neither open nor change files; no server leads');
  assert.deepEqual(problemsOf(membership, present, options), []);
});
