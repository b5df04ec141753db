/**
 * What is told of servers with two interfaces: when one of these counts as silent and when as back, what is said of it,
 * and that random failures are told of as an obvious rule, looked at from outside, wants it.
 */
import type { Changes } from '../../src/core/views.js';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeId } from '../../src/base/ids.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import { failoversText } from '../../src/cli/failovers.js';
import { statusText } from '../../src/cli/status.js';
import type { PeerHeard } from '../../src/core/effects.js';
import { EVENTS_MAX, Failovers, INTERFACE_EVENTS_MAX } from '../../src/core/failovers/failovers.js';
import { INTERFACE_SILENT_MICROS, InterfaceWatch } from '../../src/core/failovers/interfaces.js';
import { Timers } from '../../src/core/timers.js';
import { epochOf } from '../../src/wire/membership-messages.js';
import { exampleStatus } from '../support/example-status.js';
import { assertGolden } from '../support/golden.js';
import { chooseSeed } from '../support/native-helpers.js';

const changed = (left: NodeId[], joined: NodeId[]): Changes => ({ left, joined, resumed: [] });

process.env['TZ'] = 'UTC';

const [A, B, C] = [0, 1, 2].map(nodeId) as [NodeId, NodeId, NodeId];
const ORIGIN = Date.UTC(2026, 10, 29, 10) * 1000;
const SECOND = 1_000_000;

/** The history of server A, whose peers B and C have two interfaces, too. */
class Told {
  now = 0;
  readonly timers = new Timers();
  readonly logged: Record<string, unknown>[] = [];
  readonly history: Failovers;
  private readonly at = new Map<NodeId, [number | null, number | null]>([[B, [null, null]], [C, [null, null]]]);

  constructor() {
    const context = {
      self: A, servers: [A, B, C], timers: this.timers, now: () => this.now,
      log: (level: string, event: string, fields: Record<string, unknown> = {}) => {
        this.logged.push({ level, event, ...fields });
      },
    };
    this.history = new Failovers(context, {
      leaseMicros: 300_000,
      wallClockOriginMicros: ORIGIN,
      nameOf: (node) => `server-${node}`,
      interfaces: new Map([[A, ['eth1', 'eth2']], [B, ['ens1', 'ens2']], [C, ['eno1', 'eno2']]]),
      counter: () => 0,
    });
  }

  /** Until then, those are heard all the time by the interfaces named: 'B1' is B by the first. */
  until(seconds: number, ...heard: string[]): void {
    while (this.now < seconds * SECOND) {
      this.now += 100_000;
      for (const [name, node] of [['B', B], ['C', C]] as const) {
        for (const way of [0, 1]) if (heard.includes(`${name}${way + 1}`)) this.at.get(node)![way] = this.now;
      }
      const told = [...this.at].map(([peer, at]): PeerHeard => ({ peer, incarnation: incarnation(7), at: [...at] }));
      this.history.heardBy(told);
    }
  }

  get problems(): string[] {
    return this.history.interfaceProblems().map(({ text }) => text);
  }

  get text(): string {
    const servers = [A, B, C].map((id) => ({ id, name: `server-${id}` }));
    return failoversText({ self: A, servers, events: this.history.report() });
  }
}

test('an interface that falls silent while the other works, and comes back', () => {
  const told = new Told();
  told.until(10, 'B1', 'B2', 'C1', 'C2');
  told.until(12.9, 'B1', 'C1', 'C2');
  assert.deepEqual([told.problems, told.logged], [[], []]);
  told.until(13.1, 'B1', 'C1', 'C2');
  assert.deepEqual(told.problems, ['eth2 brings nothing of server-1, eth1 does']);
  assert.deepEqual(told.logged, [{
    level: 'warn', event: 'interface-silent', why: 'eth2 brings nothing of server-1, eth1 does', servers: [1],
    remedy: 'check cables, ports and switch between eth2 of this server and ens2 of server-1; '
      + 'until then the next lost link can be a lost server',
  }]);
  told.until(20, 'B1', 'C1', 'C2');
  told.until(20.1, 'B1', 'B2', 'C1', 'C2');
  assert.deepEqual(told.problems, []);
  assert.deepEqual(told.logged.slice(1), [
    { level: 'info', event: 'interface-back', interface: 'eth2', servers: [1], ms: 10_100 },
  ]);
});

test('who hears nobody by an interface has the fault itself: one event of all, told once', () => {
  const told = new Told();
  told.until(5, 'B1', 'B2', 'C1', 'C2');
  // the last frames of several servers differ a little
  told.until(5.3, 'B1', 'B2', 'C2');
  told.until(30, 'B2', 'C2');
  assert.deepEqual(told.problems, ['eth1 brings nothing of any other server, eth2 does']);
  assert.equal(told.logged.length, 1);
  told.until(31, 'B1', 'B2', 'C2');
  assert.deepEqual(told.problems, ['eth1 brings nothing of server-2, eth2 does']);
  told.until(32, 'B1', 'B2', 'C1', 'C2');
  assert.equal(told.logged.length, 2);
  told.until(40, 'B1', 'B2', 'C1', 'C2');
  told.until(50, 'B1', 'B2', 'C1');
  assertGolden('unit/cli-golden/failovers-interfaces.txt', told.text);
});

test('a server that is not heard at all has another problem than an interface', () => {
  const told = new Told();
  told.until(10, 'B1', 'B2', 'C1', 'C2');
  told.until(20, 'C1', 'C2');
  assert.deepEqual([told.problems, told.logged], [[], []]);
  // back by one of them: the other one gets its time
  told.until(22.9, 'B2', 'C1', 'C2');
  assert.deepEqual(told.problems, []);
  told.until(24, 'B2', 'C1', 'C2');
  assert.deepEqual(told.problems, ['eth1 brings nothing of server-1, eth2 does']);
  // and it is gone while an interface is silent
  told.until(26, 'C1', 'C2');
  assert.deepEqual(told.problems, []);
  told.until(27, 'B1', 'B2', 'C1', 'C2');
  assert.deepEqual([told.problems, told.logged.at(-1)?.['event']], [[], 'interface-back']);
});

test('an interface that never brought anything is told of, too', () => {
  const told = new Told();
  told.until(4, 'B1', 'C1', 'C2');
  assert.deepEqual(told.problems, ['eth2 brings nothing of server-1, eth1 does']);
  assert.deepEqual(told.history.interfaceStatus(told.now), [
    { node: B, interface: 'eth1', micros: 0, isSilent: false },
    { node: B, interface: 'eth2', micros: null, isSilent: true },
    { node: C, interface: 'eth1', micros: 0, isSilent: false },
    { node: C, interface: 'eth2', micros: 0, isSilent: false },
  ]);
});

test('the timeline of a lost server tells its last frame by each interface, of the run that was lost only', () => {
  const told = new Told();
  const run = (node: NodeId, number: number) => ({ node, incarnation: incarnation(number), since: epoch(1) });
  const view = (number: number, ...members: ReturnType<typeof run>[]) =>
    ({ epoch: epochOf(1, number), leader: A, members, protocol: 1, holders: [], former: [], past: [] });
  told.history.installed(view(1, run(A, 5), run(B, 7), run(C, 7)), changed([], [A, B, C]));
  told.until(1, 'B1', 'B2', 'C1', 'C2');
  told.until(2, 'B1', 'C1', 'C2');
  told.history.heard(B, incarnation(7));
  told.until(2.5, 'C1', 'C2');
  told.history.installed(view(2, run(A, 5), run(C, 7)), changed([B], []));
  const [, event] = told.history.report();
  assert.ok(event?.kind === 'view');
  const byInterface = event.steps.filter(({ what }) => what === 'last-frame-by');
  assert.deepEqual(byInterface.map(({ interface: name, atMicros }) => [name, atMicros - ORIGIN]), [
    ['eth2', SECOND], ['eth1', 2 * SECOND],
  ]);
  assert.match(told.text, /\n {2}10:00:02\.000 +0 ms {2}last frame of server-1 by eth1\n/);
  told.history.installed(view(3, run(A, 5), run(C, 7), run(B, 6)), changed([], [B]));
  told.history.installed(view(4, run(A, 5), run(C, 7)), changed([B], []));
  const last = told.history.report().at(-1);
  assert.ok(last?.kind === 'view' && last.steps.every(({ what }) => what !== 'last-frame-by'), 'of another run');
});

test('a bad cable does not make people forget the lost servers', () => {
  const told = new Told();
  const lists = { members: [], holders: [], former: [], past: [] };
  told.history.installed({ epoch: epochOf(1, 1), leader: A, protocol: 1, ...lists }, changed([], []));
  for (let round = 1; round <= 2 * EVENTS_MAX; round++) {
    told.until(10 * round, 'B1', 'C1', 'C2');
    told.until(10 * round + 1, 'B1', 'B2', 'C1', 'C2');
  }
  const kinds = told.history.report().map(({ kind }) => kind);
  assert.equal(kinds[0], 'view');
  assert.equal(kinds.length, 1 + INTERFACE_EVENTS_MAX);
});

test('random failures: an interface is told of exactly while the rule wants it', (t) => {
  const prng = new Prng(chooseSeed(t));
  let told = 0;
  for (let run = 0; run < 30; run++) {
    const watch = new InterfaceWatch();
    const peers = [1, 2, 3].map(nodeId);
    const works = peers.map(() => [true, true]);
    /** Of each peer and interface the looks at which it was heard, newest last. */
    const heard = peers.map(() => [[], []] as [number[], number[]]);
    for (let look = 1; look <= 300; look++) {
      const now = look * 100_000;
      for (const [index] of peers.entries()) {
        for (const way of [0, 1]) {
          if (prng.chance(0.02)) works[index]![way] = !works[index]![way];
          if (works[index]![way]) heard[index]![way as 0 | 1].push(now);
        }
      }
      watch.look(peers.map((peer, index) => {
        return { peer, incarnation: incarnation(1), at: heard[index]!.map((times) => times.at(-1) ?? null) };
      }), now);
      const found = watch.silent();
      for (const [index, peer] of peers.entries()) {
        for (const way of [0, 1] as const) {
          const last = heard[index]![way].at(-1) ?? -Infinity;
          const other = heard[index]![1 - way]!.at(-1) ?? -Infinity;
          const isTold = found.some((one) => one.interface === way && one.servers.includes(peer));
          if (isTold) {
            told++;
            assert.ok(now - last >= 1_000_000, 'told of one that works');
            assert.ok(now - other < 1_000_000, 'told of one although nothing works');
          }
          // for longer than the time the other one has worked without a break, and the looks in between
          const otherHeard = heard[index]![1 - way]!.filter((at) => at > now - INTERFACE_SILENT_MICROS - 200_000);
          const hasWorked = otherHeard.length === INTERFACE_SILENT_MICROS / 100_000 + 2;
          if (hasWorked && now - last > INTERFACE_SILENT_MICROS + 200_000) assert.ok(isTold, 'not told');
        }
      }
    }
  }
  assert.ok(told > 500, `only ${told} looks at something silent`);
});

test('smbpool status shows each interface, and marks the silent one', () => {
  const report = exampleStatus();
  report.servers[1]!.interfaces = [
    { name: 'eth1', silentMicros: 21_000, silent: false },
    { name: 'eth2', silentMicros: 12_400_000, silent: true },
  ];
  report.servers[2]!.interfaces = [
    { name: 'eth1', silentMicros: 31_000, silent: false },
    { name: 'eth2', silentMicros: null, silent: true },
  ];
  const text = statusText({ report }, false);
  const section = text.slice(text.indexOf('Interfaces\n'), text.indexOf('\nLinks\n'));
  assertGolden('unit/cli-golden/status-interfaces.txt', section);
});
