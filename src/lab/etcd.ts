/**
 * The lab's etcd, for pools whose membership's engine it is: beside the first server, or the first three, in their
 * namespaces. Says how it is started and whether it answers; lab.ts starts it.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from './errors.js';
import type { Layout, ServerPlace } from './layout.js';
import type { LabOptions } from './options.js';
import { tryRun, waitUntil } from './run.js';

const CLIENT_PORT = 2379;
const PEER_PORT = 2380;
/** As for servers of one rack: the loss of etcd's leader fences the pool until etcd has another. */
const HEARTBEAT_MS = 50;
const ELECTION_MS = 500;
const START_MILLIS_MAX = 30_000;

/** Where an etcd runs; nowhere with the embedded engine. */
export function etcdPlaces(layout: Layout, { engine, servers }: LabOptions): ServerPlace[] {
  if (engine !== 'etcd') return [];
  return layout.servers(servers >= 3 ? 3 : 1);
}

export function etcdEndpoint({ address }: ServerPlace): string {
  return `http://${address}:${CLIENT_PORT}`;
}

const peerUrl = ({ address }: ServerPlace): string => `http://${address}:${PEER_PORT}`;

/** @throws LabError when there is no etcd on this machine. */
export async function requireEtcd(): Promise<void> {
  const found = await tryRun('etcd', ['--version']);
  if (found.status === 0) return;
  throw new LabError('--engine etcd needs etcd: apt-get install etcd-server (npm run setup does it too)');
}

/** Makes its folder, and tells how to start it. */
export function etcdArguments(place: ServerPlace, all: readonly ServerPlace[]): string[] {
  const directory = join(place.directory, 'etcd');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const cluster = all.map((one) => `${one.name}=${peerUrl(one)}`).join();
  return [
    '--name', place.name, '--data-dir', directory,
    '--listen-client-urls', etcdEndpoint(place), '--advertise-client-urls', etcdEndpoint(place),
    '--listen-peer-urls', peerUrl(place), '--initial-advertise-peer-urls', peerUrl(place),
    '--initial-cluster', cluster, '--initial-cluster-token', 'smbpool-lab',
    '--heartbeat-interval', String(HEARTBEAT_MS), '--election-timeout', String(ELECTION_MS),
    '--logger', 'zap', '--log-level', 'warn',
  ];
}

/** @throws LabError when one of them has no leader to ask. */
export async function waitForEtcd(places: readonly ServerPlace[], checkWanted: () => void): Promise<void> {
  for (const place of places) {
    const isThere = async (): Promise<boolean> => {
      checkWanted();
      return isHealthy(place);
    };
    if (await waitUntil(isThere, START_MILLIS_MAX, 100)) continue;
    throw new LabError(`etcd of ${place.name} does not answer: see ${etcdLog(place)}`);
  }
}

/** Whether it answers, and its cluster has a leader. */
export async function isHealthy(place: ServerPlace): Promise<boolean> {
  try {
    const response = await fetch(`${etcdEndpoint(place)}/health`, { signal: AbortSignal.timeout(1_000) });
    return ((await response.json()) as { health?: unknown }).health === 'true';
  } catch {
    return false;
  }
}

export function etcdLog({ logs }: ServerPlace): string {
  return join(logs, 'etcd.log');
}
