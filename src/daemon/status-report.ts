/**
 * Makes the report that the admin socket serves from what the node and the host tell and the configuration names. Pure.
 */
import { databaseIdOf } from '../base/jenkins.js';
import type { AddressStatus } from '../core/addresses/addresses.js';
import type { NodeStatus } from '../core/node.js';
import type {
  AddressReport,
  DatabaseReport,
  LinkReport,
  ModulesReport,
  PersistentReport,
  RealtimeReport,
  StandbyReport,
  StatusReport,
  WaitReport,
} from '../ports/status.js';
import type { Config } from './config.js';
import type { AgreedServers } from './pool-servers.js';
import { serversProblems } from './servers-report.js';
import { versionProblems } from './version-report.js';
import { interfaceProblems, problemsOf, reportMembership, reportServers } from './membership-report.js';

export interface ReportSources {
  /** With the servers that the pool has now. */
  config: Config;
  /** As written; absent: the same. */
  file?: Config;
  /** Absent or null: nobody changed the servers since the files were written. */
  agreed?: AgreedServers | null;
  node: NodeStatus;
  version: string;
  realtime: RealtimeReport;
  standby: StandbyReport;
  /** The age of this run. */
  uptimeMicros: number;
}

export function reportStatus(sources: ReportSources): StatusReport {
  const { config, agreed = null, node, version, realtime, standby, uptimeMicros } = sources;
  const { pool, self, transport } = config;
  const servers = reportServers(config, node);
  const membership = reportMembership(config, node);
  const view = { self: self.id, leaseMs: config.membership.leaseMs };
  return {
    poolName: pool.name,
    self: self.id,
    name: self.name,
    version,
    pid: process.pid,
    incarnation: node.incarnation,
    epoch: node.epoch,
    uptimeMicros: Math.round(uptimeMicros),
    transport: transport.kind,
    realtime,
    standby,
    servers,
    membership,
    problems: [
      ...serversProblems(config, sources.file ?? config, agreed, node),
      ...problemsOf(membership, servers, view),
      ...versionProblems(membership, servers, view),
      ...interfaceProblems(node),
    ],
    awaiting: node.awaiting,
    links: node.links.map(reportLink),
    databases: reportDatabases(node),
    persistent: node.persistent.map(reportPersistent),
    clients: node.gate.clients,
    modules: reportModules(node),
    waitingRequests: node.waitingRequests,
    waits: node.records.flatMap(reportWait),
    counters: node.counters,
  };
}

export function reportAddresses(
  config: Config,
  node: NodeStatus,
  addresses: readonly AddressStatus[],
): AddressReport[] {
  const servers = reportServers(config, node);
  return addresses.map(({ address, prefixLength, interface: name, holder, sinceMicros, connections }) => {
    const server = servers.find(({ id }) => id === holder);
    const who = { holder, holderName: server?.name ?? null, holderFitness: server?.fitness ?? null };
    return { address, prefixLength, interface: name, ...who, sinceMicros, connections };
  });
}

function reportLink(link: NodeStatus['links'][number]): LinkReport {
  const { peer, up, rttMicros, rttMinMicros, framesSent, framesReceived, retransmitted } = link;
  const { duplicates, gaps, refused, downs, queuedBytes, incarnation } = link;
  return {
    peer, up, rttMicros, rttMicrosMin: rttMinMicros, framesSent, framesReceived, retransmitted, duplicates, gaps,
    refused, downs, queuedBytes, incarnation,
  };
}

function reportDatabases(node: NodeStatus): DatabaseReport[] {
  const records = new Map(node.records.map((database) => [database.name, database]));
  return node.gate.databases.map(({ name, kind }) => {
    const known = records.get(name);
    return {
      name,
      id: databaseIdOf(name),
      persistent: kind === 'persistent',
      recordsOwned: known?.owned ?? 0,
      copies: known?.copies ?? 0,
      directoryEntries: known?.directoryEntries ?? 0,
      moves: known?.moves ?? 0,
    };
  });
}

function reportPersistent(database: NodeStatus['persistent'][number]): PersistentReport {
  const { name, sequence, term, inSync, leader } = database;
  if (leader === null) return { name, sequence, term, inSync, leader };
  const { phase, holders, waiting } = leader;
  return { name, sequence, term, inSync, leader: { phase, holders, waiting } };
}

function reportModules({ witness, operations, gate }: NodeStatus): ModulesReport {
  const { attachments, opens, waits } = witness;
  return { attachments, opens, waits, operations, watches: gate.watches };
}

function reportWait({ name, wait }: NodeStatus['records'][number]): WaitReport[] {
  if (wait.count === 0) return [];
  return [{ name, count: wait.count, medianMicros: wait.median, p99Micros: wait.p99, maxMicros: wait.max }];
}
