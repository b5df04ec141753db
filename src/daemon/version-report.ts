/**
 * What the status says of releases and the pool's protocol (docs/decisions/versions.md): who holds an upgrade up, and
 * who cannot take part, with what to do about it. Pure.
 */
import type { MembershipReport, ProblemReport, ServerStatus } from '../ports/status.js';
import { isWithin, rangeText } from '../wire/protocol-version.js';
import { isHeard, list } from './membership-report.js';

/** Servers that are no members because of their release first, then those that hold the others up. */
export function versionProblems(
  { protocol }: MembershipReport,
  servers: readonly ServerStatus[],
  { self, leaseMs }: { self: number; leaseMs: number },
): ProblemReport[] {
  if (protocol == null) return [];
  const isThere = ({ id, silentMicros }: ServerStatus): boolean => id === self || isHeard(silentMicros, leaseMs);
  const isForeign = ({ speaks }: ServerStatus): boolean => speaks !== undefined && !isWithin(speaks, protocol);
  const foreign = servers.filter((server) => isThere(server) && isForeign(server));
  const problems = foreign.map((server) => foreignProblem(server, servers, protocol));
  const told = servers.flatMap(({ speaks }) => (speaks === undefined ? [] : [speaks.max]));
  const newest = Math.max(...told);
  if (newest <= protocol) return problems;
  // a server that is too old for the pool is told above, and one that did not say yet may be the one
  const old = servers.filter((server) => isThere(server) && server.speaks?.max === protocol);
  const away = servers.filter((server) => !isThere(server));
  return [...problems, ...heldProblem(old, protocol), ...awayProblem(away, protocol)];
}

function foreignProblem(server: ServerStatus, servers: readonly ServerStatus[], protocol: number): ProblemReport {
  const text = `${described(server)} is not taken in: the pool is at protocol ${protocol}`;
  const { min, max } = server.speaks!;
  if (max < protocol) {
    const remedy = `install a release of smbpool that speaks ${protocol} on ${server.name}, or raise protocolMax there`;
    return { what: 'foreign-release', text, remedy };
  }
  const older = servers.filter(({ speaks }) => speaks !== undefined && speaks.max < min).map(({ name }) => name);
  const others = older.length === 0 ? 'the others' : list(older);
  const remedy = `install a release that speaks ${protocol} on ${server.name} until ${others} can speak ${min}`;
  return { what: 'foreign-release', text, remedy: `${remedy}: no release may be skipped in an upgrade` };
}

function heldProblem(old: readonly ServerStatus[], protocol: number): ProblemReport[] {
  if (old.length === 0) return [];
  const [it, hold] = old.length === 1 ? ['it', 'holds'] : ['them', 'hold'];
  const text = `${list(old.map(described))} ${hold} the pool at protocol ${protocol}`;
  const remedy = `upgrade smbpool on ${it}, or take protocolMax out of the configuration there; the pool goes on by `
    + 'itself when all configured servers can';
  return [{ what: 'upgrade-held', text, remedy }];
}

function awayProblem(away: readonly ServerStatus[], protocol: number): ProblemReport[] {
  if (away.length === 0) return [];
  const names = list(away.map(({ name }) => name));
  const [is, hold] = away.length === 1 ? ['is', 'holds'] : ['are', 'hold'];
  const text = `${names} ${is} not heard, and so ${hold} the pool at protocol ${protocol}`;
  const remedy = `start smbpoold of the new release on ${names}; a server that is gone for good has to be taken out of `
    + 'the configuration of all';
  return [{ what: 'upgrade-held', text, remedy }];
}

function described({ name, release = '', speaks }: ServerStatus): string {
  const range = speaks === undefined ? '' : `speaks ${rangeText(speaks)}`;
  const words = [release === '' ? '' : `release ${release}`, range].filter((word) => word !== '');
  return words.length === 0 ? name : `${name} (${words.join(', ')})`;
}
