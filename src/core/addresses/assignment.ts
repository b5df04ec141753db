/**
 * Who should have which address: pure functions. Everything is in the order of the configuration and of the servers'
 * numbers, so that the same facts always give the same answer.
 */
import type { NodeId } from '../../base/ids.js';

export interface Candidates {
  /** Members that serve, ascending. */
  able: readonly NodeId[];
  refuses(node: NodeId, address: string): boolean;
}

/**
 * Present holders keep what they have while they can serve it, or while nobody else can; what is left goes to whoever
 * has fewest.
 */
export function assign(
  addresses: readonly string[],
  holders: ReadonlyMap<string, NodeId>,
  { able, refuses }: Candidates,
): Map<string, NodeId> {
  const assigned = new Map<string, NodeId>();
  for (const address of addresses) {
    const holder = holders.get(address);
    if (holder !== undefined && able.includes(holder) && !refuses(holder, address)) assigned.set(address, holder);
  }
  for (const address of addresses) {
    if (assigned.has(address)) continue;
    const counts = countsOf(assigned, able);
    const willing = able.filter((node) => !refuses(node, address));
    const chosen = least(willing, counts) ?? holders.get(address);
    if (chosen !== undefined) assigned.set(address, chosen);
  }
  return assigned;
}

/** Moves as few addresses as needed until no two members differ by more than one. */
export function balance(
  addresses: readonly string[],
  assigned: ReadonlyMap<string, NodeId>,
  { able, refuses }: Candidates,
): Map<string, NodeId> {
  const balanced = new Map(assigned);
  for (;;) {
    const counts = countsOf(balanced, able);
    const to = least(able, counts);
    if (to === undefined) return balanced;
    const most = able.reduce((most, node) => (counts.get(node)! > counts.get(most)! ? node : most), to);
    if (counts.get(most)! - counts.get(to)! < 2) return balanced;
    const movable = addresses.filter((address) => balanced.get(address) === most && !refuses(to, address)).at(-1);
    if (movable === undefined) return balanced;
    balanced.set(movable, to);
  }
}

function countsOf(assigned: ReadonlyMap<string, NodeId>, able: readonly NodeId[]): Map<NodeId, number> {
  const counts = new Map(able.map((node) => [node, 0]));
  for (const node of assigned.values()) counts.set(node, (counts.get(node) ?? 0) + 1);
  return counts;
}

function least(nodes: readonly NodeId[], counts: ReadonlyMap<NodeId, number>): NodeId | undefined {
  let best: NodeId | undefined;
  for (const node of nodes) if (best === undefined || counts.get(node)! < counts.get(best)!) best = node;
  return best;
}
