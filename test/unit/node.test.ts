/** What a server says when another one falls silent and comes back: one line each, with the cause. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { NodeId } from '../../src/base/ids.js';
import type { Input } from '../../src/core/effects.js';
import { PoolNode } from '../../src/core/node.js';

const [ALPHA, BETA] = [nodeId(0), nodeId(1)];
const STEP_MICROS = 10_000;

/** Two servers whose frames arrive at once while the wire is whole. */
class Pair {
  readonly said: string[] = [];
  isCut = false;
  private time = 1_000_000;
  private readonly nodes = [ALPHA, BETA].map(
    (self) =>
      new PoolNode({
        self,
        members: [ALPHA, BETA],
        incarnation: incarnation(1),
        epoch: epoch(1),
        frameBodyBytesMax: 1400,
        receiveFramesMax: 512,
        gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
      }),
  );

  private step(self: NodeId, input: Input): void {
    for (const effect of this.nodes[self]!.step(input, this.time)) {
      if (effect.kind === 'frame-send' && !this.isCut) {
        this.step(effect.peer, { kind: 'frame', peer: self, incarnation: incarnation(1), body: effect.body });
      }
      if (effect.kind === 'log' && effect.level !== 'debug' && self === ALPHA) {
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

test('a server that falls silent is warned of in one line, with what to do', () => {
  const pair = new Pair();
  pair.advance(1_000_000);
  pair.isCut = true;
  pair.advance(3_000_000);
  pair.isCut = false;
  pair.advance(1_000_000);
  assert.deepEqual(pair.said, ['info peer-up', 'warn peer-down silent', 'info peer-returned']);
});
