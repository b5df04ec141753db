/**
 * What is measured of the daemons: the workloads of client/main.c, each with its title, the figures to compare and what
 * must hold for a run to count. No behaviour but judging.
 */

export interface Latency {
  count: number;
  medianMicros: number;
  p99Micros: number;
  maxMicros: number;
}

/** What the client prints; see client/main.c. */
export interface ClientResult {
  workload: string;
  clients: number;
  seconds: number;
  /** How long it worked before it measured, when it tells. */
  warmUpSeconds?: number;
  operations: number;
  calls: number;
  /** The share of the client that got least of an even share: 1 is fair, 0 is starved. */
  fairness: number;
  backwards: number;
  expected?: number;
  found?: number;
  latency: Latency;
  writer?: Latency;
}

export interface Workload {
  name: string;
  title: string;
  /** What a row's latency is of. */
  latencyOf: string;
}

export const WORKLOADS: readonly Workload[] = [
  { name: 'owned', title: 'record that is here already', latencyOf: 'update' },
  { name: 'ping-local', title: 'request to the own daemon', latencyOf: 'request' },
  { name: 'ping-remote', title: 'request to another server', latencyOf: 'request' },
  { name: 'move', title: 'records taken in turn by two servers', latencyOf: 'update' },
  { name: 'token', title: 'one record passed round three servers', latencyOf: 'update' },
  { name: 'hot-paced', title: 'one record, a client per server, pauses of 0.2 ms', latencyOf: 'update' },
  { name: 'hot', title: 'one record, a client per server, no pauses', latencyOf: 'updates that had to ask' },
  { name: 'many', title: '16 clients per server, each its own records', latencyOf: 'updates that had to ask' },
  { name: 'fresh', title: 'new records under random keys', latencyOf: 'creation' },
  { name: 'readers', title: 'one writer (every 2 ms), two readers', latencyOf: 'read' },
  { name: 'commit', title: 'commits to a persistent database', latencyOf: 'commit' },
];

/** Why a result is wrong, or null: a fast wrong answer must not become a figure. */
export function wrong(result: ClientResult): string | null {
  if (result.operations === 0) return 'nothing was done in time';
  if (result.expected !== result.found) return `${result.expected} updates were made, ${result.found} are there`;
  if (result.backwards > 0) return `${result.backwards} reads were older than one before`;
  return null;
}
