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
 * of the best has fewest of its kind, and of those fewest of all.
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
    const chosen = least(willing, loadsOf(assigned, willing, kindOf(address))) ?? holders.get(address);
    if (chosen !== undefined) assigned.set(address, chosen);
  }
  return assigned;
}

/**
 * Moves as few addresses as needed until no two of the best members differ by more than one, in each kind and in all. A
 * client prefers one kind, so a member with only the other would have few.
 */
export function balance(
  addresses: readonly string[],
  assigned: ReadonlyMap<string, NodeId>,
  candidates: Candidates,
): Map<string, NodeId> {
  const balanced = new Map(assigned);
  for (const kind of new Set(addresses.map(kindOf))) level(addresses, balanced, candidates, kind);
  level(addresses, balanced, candidates, null);
  return balanced;
}

/** Of one kind, or of all that together are uneven. */
function level(
  addresses: readonly string[],
  balanced: Map<string, NodeId>,
  { standings, refuses }: Candidates,
  kind: Kind | null,
): void {
  const best = bestOf([...standings.keys()], standings);
  for (;;) {
    const loads = loadsOf(balanced, best, kind);
    const to = least(best, loads);
    if (to === undefined) return;
    const from = best.reduce((most, node) => (isLess(loads.get(most)!, loads.get(node)!) ? node : most), to);
    if (loads.get(from)![0] - loads.get(to)![0] < 2) return;
    const mayMove = (address: string): boolean => {
      if (balanced.get(address) !== from || refuses(to, address)) return false;
      if (kind !== null) return kindOf(address) === kind;
      // this kind is not less even afterwards
      const ofKind = loadsOf(balanced, best, kindOf(address));
      return ofKind.get(from)![0] > ofKind.get(to)![0];
    };
    const movable = addresses.filter(mayMove).at(-1);
    if (movable === undefined) return;
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

type Kind = 'IPv4' | 'IPv6';

function kindOf(address: string): Kind {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

/** How many addresses of the kind in question a member has, and how many of all. */
type Load = readonly [ofKind: number, ofAll: number];

/** With `kind` null all are in question. */
function loadsOf(
  assigned: ReadonlyMap<string, NodeId>,
  nodes: readonly NodeId[],
  kind: Kind | null,
): Map<NodeId, Load> {
  const loads = new Map<NodeId, Load>(nodes.map((node) => [node, [0, 0]]));
  for (const [address, node] of assigned) {
    const [ofKind, ofAll] = loads.get(node) ?? [0, 0];
    loads.set(node, [ofKind + (kind === null || kindOf(address) === kind ? 1 : 0), ofAll + 1]);
  }
  return loads;
}

function isLess(a: Load, b: Load): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}

/** The first of those that have least. */
function least(nodes: readonly NodeId[], loads: ReadonlyMap<NodeId, Load>): NodeId | undefined {
  let best: NodeId | undefined;
  for (const node of nodes) if (best === undefined || isLess(loads.get(node)!, loads.get(best)!)) best = node;
  return best;
}
