/**
 * Who should have which address: pure functions. Everything is in the order of the configuration and of the servers'
 * numbers, so that the same facts always give the same answer.
 */
import type { NodeId } from '../../base/ids.js';

export interface Candidates {
  /**
   * How good it is for a member to have an address; who cannot serve is missing. None has one while a better one takes
   * it.
   */
  standings: ReadonlyMap<NodeId, number>;
  refuses(node: NodeId, address: string): boolean;
}

/**
 * Present holders keep what they have while no better one takes it, or while nobody can; what is left goes to whoever
 * has fewest of the best.
 */
export function assign(
  addresses: readonly string[],
  holders: ReadonlyMap<string, NodeId>,
  candidates: Candidates,
): Map<string, NodeId> {
  const assigned = new Map<string, NodeId>();
  for (const address of addresses) {
    const holder = holders.get(address);
    if (holder !== undefined && bestFor(address, candidates).includes(holder)) assigned.set(address, holder);
  }
  for (const address of addresses) {
    if (assigned.has(address)) continue;
    const willing = bestFor(address, candidates);
    const chosen = least(willing, countsOf(assigned, willing)) ?? holders.get(address);
    if (chosen !== undefined) assigned.set(address, chosen);
  }
  return assigned;
}

/** Moves as few addresses as needed until no two of the best members differ by more than one. */
export function balance(
  addresses: readonly string[],
  assigned: ReadonlyMap<string, NodeId>,
  { standings, refuses }: Candidates,
): Map<string, NodeId> {
  const balanced = new Map(assigned);
  const best = bestOf([...standings.keys()], standings);
  for (;;) {
    const counts = countsOf(balanced, best);
    const to = least(best, counts);
    if (to === undefined) return balanced;
    const most = best.reduce((most, node) => (counts.get(node)! > counts.get(most)! ? node : most), to);
    if (counts.get(most)! - counts.get(to)! < 2) return balanced;
    const movable = addresses.filter((address) => balanced.get(address) === most && !refuses(to, address)).at(-1);
    if (movable === undefined) return balanced;
    balanced.set(movable, to);
  }
}

/** Those that may have the address, ascending: of equal standing, and nobody who takes it has a better one. */
function bestFor(address: string, { standings, refuses }: Candidates): NodeId[] {
  return bestOf([...standings.keys()].filter((node) => !refuses(node, address)), standings);
}

function bestOf(nodes: readonly NodeId[], standings: ReadonlyMap<NodeId, number>): NodeId[] {
  const best = Math.max(...nodes.map((node) => standings.get(node)!));
  return nodes.filter((node) => standings.get(node) === best).sort((a, b) => a - b);
}

function countsOf(assigned: ReadonlyMap<string, NodeId>, nodes: readonly NodeId[]): Map<NodeId, number> {
  const counts = new Map(nodes.map((node) => [node, 0]));
  for (const node of assigned.values()) counts.set(node, (counts.get(node) ?? 0) + 1);
  return counts;
}

function least(nodes: readonly NodeId[], counts: ReadonlyMap<NodeId, number>): NodeId | undefined {
  let best: NodeId | undefined;
  for (const node of nodes) if (best === undefined || counts.get(node)! < counts.get(best)!) best = node;
  return best;
}
