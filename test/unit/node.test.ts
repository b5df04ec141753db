/** What a server says and does when another one falls silent, when a view comes, and when its lease runs out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { Epoch, NodeId } from '../../src/base/ids.js';
import type { Effect, Input } from '../../src/core/effects.js';
import type { CoreContext } from '../../src/core/context.js';
import type { View } from '../../src/core/views.js';
import { PoolNode } from '../../src/core/node.js';

const [ALPHA, BETA] = [nodeId(0), nodeId(1)];
const STEP_MICROS = 10_000;

/** A view of these runs of the two; 0: the server is no member. */
function view(number: number, runs: [number, number]): View {
  const members = runs
    .map((run, node) => ({ node: nodeId(node), incarnation: incarnation(run), since: epoch(1) }))
    .filter((member) => Number(member.incarnation) !== 0);
  return { epoch: number as Epoch, leader: members[0]!.node, members, protocol: 1, former: [], holders: [], past: [] };
}

/** Two servers whose frames arrive at once while the wire is whole. */
class Pair {
  readonly said: string[] = [];
  readonly ended: string[] = [];
  isCut = false;
  time = 1_000_000;
  private readonly nodes = [ALPHA, BETA].map(
    (self) =>
      new PoolNode({
        self,
        servers: [ALPHA, BETA],
        incarnation: incarnation(1),
        frameBodyBytesMax: 1400,
        receiveFramesMax: 512,
        gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
      }),
  );

  constructor(private readonly onEffect: (effect: Effect) => void = () => undefined) {
    for (const self of [ALPHA, BETA]) this.step(self, { kind: 'view', view: view(1, [1, 1]) });
  }

  step(self: NodeId, input: Input): void {
    for (const effect of this.nodes[self]!.step(input, this.time)) {
      if (self === ALPHA) this.onEffect(effect);
      if (effect.kind === 'frame-send' && !this.isCut) {
        this.step(effect.peer, { kind: 'frame', peer: self, incarnation: incarnation(1), body: effect.body });
      }
      if (effect.kind === 'start-anew') this.ended.push(effect.reason);
      const isSaid = effect.kind === 'log' && effect.level !== 'debug' && !effect.event.startsWith('view');
      if (isSaid && self === ALPHA) {
        const { why } = effect.fields;
        this.said.push([effect.level, effect.event, ...(typeof why === 'string' ? [why] : [])].join(' '));
      }
    }
  }

  advance(micros: number): void {
    const until = this.time + micros;
    for (; this.time < until; this.time += STEP_MICROS) {
      for (const self of [ALPHA, BETA]) {
        this.step(self, { kind: 'tick' });
        this.step(self, { kind: 'turn-end' });
      }
    }
  }
}

test('a run that leaves serves no more at once, whatever lease comes later', () => {
  const effects: Effect[] = [];
  const pair = new Pair((effect) => effects.push(effect));
  pair.advance(1_000_000);
  pair.step(ALPHA, { kind: 'lease', until: pair.time + 300_000 });
  effects.length = 0;
  pair.step(ALPHA, { kind: 'leave' });
  pair.step(ALPHA, { kind: 'lease', until: pair.time + 300_000 });
  const told = effects.filter(({ kind }) => kind === 'lease' || kind === 'left');
  assert.deepEqual(told, [{ kind: 'lease', until: 0 }, { kind: 'left' }, { kind: 'lease', until: 0 }]);
  assert.deepEqual(pair.said, ['info peer-up'], 'an end in order is no fault');
});

test('a server that falls silent is warned of in one line, with what to do', () => {
  const pair = new Pair();
  pair.advance(1_000_000);
  pair.isCut = true;
  pair.advance(3_000_000);
  pair.isCut = false;
  pair.advance(1_000_000);
  assert.deepEqual(pair.said, ['info peer-up', 'warn peer-down silent', 'info peer-returned']);
});

test('a run that a view does not name ends; an older view changes nothing', () => {
  const pair = new Pair();
  pair.advance(1_000_000);
  pair.step(ALPHA, { kind: 'view', view: view(3, [1, 1]) });
  pair.step(ALPHA, { kind: 'view', view: view(2, [0, 1]) });
  assert.deepEqual(pair.ended, []);
  pair.step(ALPHA, { kind: 'view', view: view(4, [2, 1]) });
  assert.equal(pair.ended.length, 1);
  assert.match(pair.ended[0]!, /view 4 without this run/);
});

test('a server whose lease ran out says so once, and once when it is renewed', () => {
  const pair = new Pair();
  pair.advance(100_000);
  pair.said.length = 0;
  pair.step(ALPHA, { kind: 'lease', until: pair.time + 300_000 });
  pair.advance(1_000_000);
  assert.deepEqual(pair.said, ['warn fenced']);
  pair.step(ALPHA, { kind: 'lease', until: pair.time + 300_000 });
  pair.advance(100_000);
  assert.deepEqual(pair.said, ['warn fenced', 'info lease-renewed']);
});

test('new code may use what the installed view says that all members speak', () => {
  const announcement = { speaks: { min: 1, max: 3 }, release: '0.3.0' };
  const node = new PoolNode({
    self: ALPHA, servers: [ALPHA, BETA], incarnation: incarnation(1), announcement, frameBodyBytesMax: 1400,
    receiveFramesMax: 512, gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
  });
  // what the rooms of the core are given
  const { speaks } = Reflect.get(node, 'context') as CoreContext;
  const gates = (): boolean[] => [1, 2, 3].map((protocol) => speaks(protocol));
  assert.deepEqual(gates(), [false, false, false], 'no view yet');
  node.step({ kind: 'view', view: view(1, [1, 1]) }, 1);
  assert.deepEqual(gates(), [true, false, false], 'whatever we speak ourselves');
  node.step({ kind: 'view', view: { ...view(2, [1, 1]), protocol: 2 } }, 2);
  assert.deepEqual(gates(), [true, true, false]);
  assert.deepEqual([node.status().protocol, node.status().announcements], [2, [{ node: ALPHA, announcement }]]);
});
