/**
 * What the status says of the pool's membership: view, quorum, lease, the state of each server, and what is wrong with
 * it, in words. Pure.
 */
import type { NodeStatus } from '../core/node.js';
import type { MembershipReport, ProblemReport, ServerStatus } from '../ports/status.js';
import type { Configuration } from '../wire/membership-configuration.js';
import { isWithin } from '../wire/protocol-version.js';
import type { Config } from './config.js';

/** What is said here needs of the configuration. */
export type PoolConfig = Pick<Config, 'servers' | 'self' | 'membership'>;

export function reportMembership({ servers, self, membership }: PoolConfig, node: NodeStatus): MembershipReport {
  const own = node.membership;
  const view = own?.view ?? null;
  const isWitness = self.role === 'witness';
  const counted = countedServers(servers, own?.configuration);
  const configured = counted.length;
  const heard = counted.filter(({ id }) => id === self.id || isHeard(silence(node, id), membership.leaseMs)).length;
  const state = isWitness || node.leaseMicros === null ? 'none' : node.isFenced ? 'fenced' : 'valid';
  const engine = own?.engine ?? 'embedded';
  const register = own?.register ?? null;
  // on etcd one server may go on alone
  const needed = engine === 'etcd' ? 1 : Math.floor(configured / 2) + 1;
  return {
    engine,
    etcd: register === null ? null : { microsSinceAnswer: register.microsSinceAnswer, failure: register.failure },
    role: own?.role ?? 'follower',
    protocol: node.protocol,
    epoch: isWitness ? (view?.epoch ?? 0) : node.epoch,
    holders: view?.holders ?? [],
    members: isWitness ? (view?.members ?? []).map(({ node: id }) => id) : node.members,
    leader: own?.leader ?? null,
    leaderMicros: own?.leader == null || node.leads === null ? null : Math.round(node.leads.micros),
    leaderLonger: node.leads !== null && !node.leads.isExact,
    quorum: { configured, needed, present: heard },
    lease: { state, micros: state === 'none' ? null : node.leaseMicros },
    ...(own === null || own.configuration.number === 0 ? {} : { configuration: own.configuration.number }),
  };
}

/** Those that make majorities: who has just joined does not. */
function countedServers(
  servers: PoolConfig['servers'],
  configuration: Configuration | undefined,
): PoolConfig['servers'] {
  if (configuration === undefined || configuration.number === 0) return servers;
  return servers.filter(({ id }) => configuration.counted.some((node) => node === id));
}

export function reportServers({ servers, self, membership }: PoolConfig, node: NodeStatus): ServerStatus[] {
  const up = new Set<number>(node.links.filter((link) => link.up).map((link) => link.peer));
  const view = node.membership?.view ?? null;
  const members = new Set<number>(view === null ? node.members : view.members.map(({ node: id }) => id));
  return servers.map(({ id, name, address, role }) => {
    const silentMicros = id === self.id ? null : silence(node, id);
    const isThere = id === self.id || isHeard(silentMicros, membership.leaseMs);
    const stateInView = members.has(id) ? 'member' : members.size === 0 ? 'unknown' : isThere ? 'joining' : 'out';
    const state = role === 'witness' ? 'witness' : stateInView;
    const told = role === 'witness' ? undefined : node.fitness.find((one) => one.node === id);
    const isUp = id === self.id || up.has(id);
    const fitness = { ...fitnessWords(told?.fitness), ...leasesField(told?.leases) };
    const more = { ...interfacesOf(node, id), ...versionFields(node, id), ...countsField(node, id) };
    return { id, name, address, up: isUp, role, state, ...fitness, silentMicros, ...more };
  });
}

function fitnessWords(said?: NodeStatus['fitness'][number]['fitness']): Required<
  Pick<ServerStatus, 'fitness' | 'reasons' | 'clients'>
> {
  if (said === undefined) return { fitness: 'unknown', reasons: [], clients: null };
  const { draining, reasons, clients, named } = said;
  const fitness = draining ? 'draining' : reasons.length === 0 ? 'fit' : 'unfit';
  return { fitness, reasons, clients: { connections: clients, named } };
}

function leasesField(leases?: NodeStatus['fitness'][number]['leases']): Pick<ServerStatus, 'leases'> {
  return leases !== undefined && (leases.breaking || leases.left > 0) ? { leases } : {};
}

function countsField({ membership }: NodeStatus, id: number): Pick<ServerStatus, 'counts'> {
  return membership?.configuration.joining.some((one) => one === id) === true ? { counts: false } : {};
}

function interfacesOf({ interfaces }: NodeStatus, id: number): Pick<ServerStatus, 'interfaces'> {
  const own = interfaces.filter((one) => one.node === id);
  if (own.length === 0) return {};
  return {
    interfaces: own.map(({ interface: name, micros, isSilent }) => ({ name, silentMicros: micros, silent: isSilent })),
  };
}

/** The fields of a server's status that tell its release; none: it did not say. */
function versionFields({ announcements }: NodeStatus, id: number): Pick<ServerStatus, 'release' | 'speaks'> {
  const announcement = announcements.find(({ node }) => node === id)?.announcement;
  return announcement === undefined ? {} : { release: announcement.release, speaks: { ...announcement.speaks } };
}

/** Lost redundancy: the pool does well, but somebody should know. */
export function interfaceProblems({ interfaceProblems: problems }: NodeStatus): ProblemReport[] {
  return problems.map(({ text, remedy }) => ({ what: 'interface-silent', text, remedy }));
}

function silence(node: NodeStatus, id: number): number | null {
  return node.silent.find((server) => server.node === id)?.micros ?? null;
}

/** Within a lease. */
export function isHeard(silentMicros: number | null, leaseMs: number): boolean {
  return silentMicros !== null && silentMicros < leaseMs * 1000;
}

/** What is wrong, the worst first. */
export function problemsOf(
  membership: MembershipReport,
  servers: readonly ServerStatus[],
  { self, leaseMs }: { self: number; leaseMs: number },
): ProblemReport[] {
  const { configured, needed, present } = membership.quorum;
  const silent = servers.filter(
    ({ id, silentMicros, counts }) => id !== self && counts !== false && !isHeard(silentMicros, leaseMs),
  );
  const names = list(silent.map(({ name }) => name));
  const areNot = `${names} ${silent.length === 1 ? 'is' : 'are'} not heard`;
  const there = silent.length === 1 ? `on ${names}` : 'there';
  if (present < needed) {
    const text = `no quorum: ${needed} of ${configured} servers must run; ${areNot}`;
    const effect = 'Nobody here can open or change files';
    const remedy = `start smbpoold ${there} or check the interconnect`;
    return [{ what: 'no-quorum', text: `${text}. ${effect}`, remedy }];
  }
  const problems: ProblemReport[] = [];
  if (membership.etcd?.failure != null) {
    const effect = membership.lease.state === 'valid' ? 'If the leader cannot either, nobody' : 'Nobody here';
    problems.push({
      what: 'no-etcd', text: `etcd does not answer this server: ${membership.etcd.failure}. ${effect} can open files`,
      remedy: 'see whether etcd has a leader (etcdctl endpoint status), and whether this server reaches it',
    });
  }
  if (membership.lease.state !== 'valid' && membership.role !== 'witness') {
    problems.push({ what: 'fenced', ...fencedWords(membership, servers.find(({ id }) => id === self)) });
  }
  if (silent.length > 0) {
    const rest = present === needed ? 'one more loss stops the whole pool' : `${present - needed} more may be lost`;
    const remedy = `if nobody stopped it, start smbpoold ${there} or check the interconnect; ${rest}`;
    problems.push({ what: 'servers-out', text: areNot, remedy });
  }
  return [...problems, ...onlyHolder(membership, servers), ...unfitOnes(servers)];
}

/** Also while a server that has just come back is brought up to date. */
function onlyHolder({ holders }: MembershipReport, servers: readonly ServerStatus[]): ProblemReport[] {
  const [holder, ...more] = holders;
  const only = servers.find(({ id }) => id === holder);
  if (only === undefined || more.length > 0) return [];
  const others = list(servers.filter(({ id, role }) => id !== holder && role !== 'witness').map(({ name }) => name));
  return [{
    what: 'only-holder', text: `only ${only.name} has every change of accounts and registry`,
    remedy: `${others} is brought up to date by itself when it is a member; until then spare ${only.name} and its disk`,
  }];
}

function unfitOnes(servers: readonly ServerStatus[]): ProblemReport[] {
  const unfit = servers.filter(({ fitness, reasons = [] }) => fitness !== 'fit' && reasons.length > 0);
  const draining = servers.filter(({ fitness }) => fitness === 'draining');
  return [
    ...unfit.map(({ name, reasons = [] }): ProblemReport => ({
      what: 'unfit', text: `${name} is not fit for clients: ${reasons.join('; ')}`,
      remedy: 'put that right; it has its share of the public addresses again as soon as its checks pass',
    })),
    ...servers.flatMap(breakingOnes),
    ...draining.map(({ name }): ProblemReport => ({
      what: 'draining', text: `${name} is drained: it gets no public addresses while another server can have them`,
      remedy: `when the work on it is done: smbpool undrain ${name}`,
    })),
  ];
}

/** One that is about to be drained, or whose clients kept something. */
function breakingOnes({ name, leases }: ServerStatus): ProblemReport[] {
  if (leases === undefined) return [];
  const { breaking, left, named } = leases;
  const who = named.length === 0 ? '' : `: ${named.join('; ')}${named.length < left ? '; and more' : ''}`;
  const text = breaking
    ? `${name} is about to be drained: it breaks its clients' leases first, ${left} left${who}`
    : `${name} is drained, and its clients have leases or oplocks still, ${left} left${who}`;
  const remedy = breaking
    ? 'it goes on when they are broken, or after health.drain.leasesMs there'
    : 'what these clients had not written may be lost when they connect elsewhere; smbd takes a lease back after 35 s';
  return [{ what: 'draining', text, remedy }];
}

function fencedWords(
  { leader, lease, protocol }: MembershipReport,
  self?: ServerStatus,
): { text: string; remedy: string } {
  const since = lease.state === 'fenced' && lease.micros !== null ? ` for ${Math.round(lease.micros / 1000)} ms` : '';
  const text = `this server has no lease${since}: its clients can neither open nor change files`;
  if (leader === null) {
    return {
      text: `${text}; no server leads`,
      remedy: 'the servers elect a leader within a second; if none is, see status and log of the others',
    };
  }
  if (self?.speaks !== undefined && protocol != null && !isWithin(self.speaks, protocol)) {
    return { text, remedy: 'it does not speak the protocol of the pool: what to install is said below' };
  }
  if (self?.state !== 'member') {
    return {
      text: `${text}; it is not a member of the pool`,
      remedy: 'it joins when it hears all members and all hear it: compare the tables of links on all servers',
    };
  }
  return {
    text,
    remedy: 'if it lasts: is this machine or its disk too busy, or does the interconnect lose frames (smbpool page)?',
  };
}

/** 'alpha', 'alpha and beta', 'alpha, beta and gamma'. */
export function list(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1) ?? ''}`;
}
