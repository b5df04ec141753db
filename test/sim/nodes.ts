/** The cores the simulator can run: the whole PoolNode, or links and records with the smallest gate (bare-node). */
import { PoolNode } from '../../src/core/node.js';
import { BareNode } from './bare-node.js';
import type { NodeFactory, NodeOptions, SteppedNode } from './server.js';

export type NodeKind = 'pool' | 'bare';

/** A frame that carries some dozen records, and a ring small enough that windows matter. */
const FRAME_BODY_BYTES_MAX = 1400;
const RECEIVE_FRAMES_MAX = 512;

export function makePoolNode(options: NodeOptions): SteppedNode {
  const node = new PoolNode({
    ...options,
    frameBodyBytesMax: FRAME_BODY_BYTES_MAX,
    receiveFramesMax: RECEIVE_FRAMES_MAX,
    gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
  });
  return {
    step: (input, now) => node.step(input, now),
    deadline: () => node.deadline(),
    waiting: () => node.status().waitingRequests,
  };
}

export function nodeFactory(kind: NodeKind): NodeFactory {
  return kind === 'pool' ? makePoolNode : (options) => new BareNode(options);
}
