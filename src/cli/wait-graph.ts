/**
 * The graph of who waits for whom, made from the pool's waits: whom to look at first, and who waits in a circle. Its
 * nodes are processes (an smbd serves one client) and servers. Pure; bounded by the answer it is made from.
 */
import type { LocksAnswer, OpenReport, WaitReport } from '../wire/locks.js';

/** A client that has not answered a break by then is likely hung; smbd itself gives it 35 s. */
export const STUCK_BREAK_MICROS = 5_000_000;

/** Whom others wait for, or who waits. */
export interface WaitNode {
  server: number;
  serverName: string;
  /** 0: the server itself. */
  pid: number;
  /** Of its client, as far as known. */
  user: string;
  client: string;
  clientName: string;
  /** What it holds or has to do. */
  holds: string[];
  state: 'alive' | 'dead' | 'stuck';
  /** What it waits for itself. */
  waits: WaitReport[];
  /** Those who wait for it, longest first. */
  waiters: WaitNode[];
}

export interface WaitGraph {
  nodes: WaitNode[];
  /** Who waits longer than the bound, longest first. */
  over: WaitReport[];
  /** Each waits for the next, the last for the first. */
  cycles: WaitNode[][];
  /** Waits over the bound for another handle of the same client: it has to answer its own break. No circle. */
  own: WaitReport[];
  /** Waits over the bound of which nobody knows for whom. */
  unknown: WaitReport[];
}

interface Edge {
  from: string;
  to: string;
}

/** Of the waits longer than the bound, with all that hold those up, however short these themselves wait. */
export function waitGraph(answer: LocksAnswer, longerMicros: number): WaitGraph {
  const over = answer.waits.filter((wait) => wait.waitMicros >= longerMicros);
  over.sort((a, b) => b.waitMicros - a.waitMicros);
  const builder = new Builder(answer);
  for (const wait of over) builder.add(wait);
  builder.finish();
  const nodes = [...builder.nodes.values()];
  const unknown = over.filter(({ waitsFor }) => waitsFor.length === 0);
  const known = over.filter(({ waitsFor }) => waitsFor.length > 0);
  const own = known.filter((wait) => wait.waitsFor.every((to) => keyOf(to) === keyOf(wait)));
  return { nodes, over, cycles: findCycles(builder.nodes, builder.edges), own, unknown };
}

class Builder {
  readonly nodes = new Map<string, WaitNode>();
  readonly edges: Edge[] = [];
  private readonly waitsOf = new Map<string, WaitReport[]>();
  /** Who is behind a process. */
  private readonly clients = new Map<string, OpenReport | WaitReport>();
  private readonly added = new Set<WaitReport>();

  constructor({ opens, waits: all }: LocksAnswer) {
    for (const report of [...opens, ...all]) this.clients.set(keyOf(report), report);
    for (const wait of all) {
      const waits = this.waitsOf.get(keyOf(wait)) ?? [];
      waits.push(wait);
      this.waitsOf.set(keyOf(wait), waits);
    }
  }

  /** A wait, and what those wait for for whom it waits. */
  add(first: WaitReport): void {
    const queue = [first];
    for (let wait = queue.pop(); wait !== undefined; wait = queue.pop()) {
      if (this.added.has(wait)) continue;
      this.added.add(wait);
      const others = wait.waitsFor.filter((target) => keyOf(target) !== keyOf(wait));
      if (others.length === 0) continue;
      const waiter = this.node(wait);
      waiter.waits.push(wait);
      for (const target of others) {
        const holder = this.node(target);
        if (!target.alive) holder.state = 'dead';
        if (!holder.holds.includes(target.what)) holder.holds.push(target.what);
        if (!holder.waiters.includes(waiter)) {
          holder.waiters.push(waiter);
          this.edges.push({ from: keyOf(wait), to: keyOf(target) });
        }
        queue.push(...(this.waitsOf.get(keyOf(target)) ?? []));
      }
    }
  }

  finish(): void {
    for (const node of this.nodes.values()) {
      node.waiters.sort((a, b) => longest(b) - longest(a));
      // it waits for nobody, is asked to break, and does not
      const isStuck = node.waits.length === 0 && node.waiters.some((waiter) => isUnanswered(waiter, node));
      if (node.state === 'alive' && isStuck) node.state = 'stuck';
    }
  }

  private node(of: { server: number; serverName: string; pid: number }): WaitNode {
    const key = keyOf(of);
    const known = this.nodes.get(key);
    if (known !== undefined) return known;
    const { server, serverName, pid } = of;
    const { user, client, clientName } = this.clients.get(key) ?? { user: '', client: '', clientName: '' };
    const rest = { holds: [], state: 'alive' as const, waits: [], waiters: [] };
    const node: WaitNode = { server, serverName, pid, user, client, clientName, ...rest };
    this.nodes.set(key, node);
    return node;
  }
}

function keyOf({ server, pid }: { server: number; pid: number }): string {
  return `${server}/${pid}`;
}

/** How long a node has waited. */
export function longest({ waits }: WaitNode): number {
  return Math.max(0, ...waits.map(({ waitMicros }) => waitMicros));
}

function isUnanswered(waiter: WaitNode, holder: WaitNode): boolean {
  return waiter.waits.some(
    ({ what, waitMicros, waitsFor }) =>
      what === 'break' && waitMicros >= STUCK_BREAK_MICROS && waitsFor.some((to) => keyOf(to) === keyOf(holder)),
  );
}

/**
 * Circles without a common node. Takes away again and again who waits for nobody; whoever is left is in a circle or
 * waits for one, so that following any way from there comes back.
 */
function findCycles(nodes: ReadonlyMap<string, WaitNode>, edges: readonly Edge[]): WaitNode[][] {
  const targets = new Map<string, Set<string>>([...nodes.keys()].map((key) => [key, new Set()]));
  const waiters = new Map<string, string[]>([...nodes.keys()].map((key) => [key, []]));
  for (const { from, to } of edges) {
    targets.get(from)?.add(to);
    waiters.get(to)?.push(from);
  }
  const remove = (gone: string[]): void => {
    const queue = [...gone];
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      if (!targets.delete(key)) continue;
      for (const waiter of waiters.get(key) ?? []) {
        const left = targets.get(waiter);
        left?.delete(key);
        if (left?.size === 0) queue.push(waiter);
      }
    }
  };
  remove([...targets].filter(([, to]) => to.size === 0).map(([key]) => key));
  const cycles: string[][] = [];
  while (targets.size > 0) {
    const path: string[] = [];
    let next = [...targets.keys()].sort()[0];
    while (next !== undefined && !path.includes(next)) {
      path.push(next);
      next = [...(targets.get(next) ?? [])].sort()[0];
    }
    const cycle = path.slice(path.indexOf(next ?? ''));
    cycles.push(cycle);
    remove(cycle);
  }
  return cycles.map((cycle) => cycle.map((key) => nodes.get(key)!));
}
