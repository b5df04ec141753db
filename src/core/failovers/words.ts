/** Why the pool changed, and what a person could do, in words. Pure functions. */
import type { NodeId } from '../../base/ids.js';
import type { CauseKind, CauseReport } from '../../wire/failovers.js';
import type { Micros } from '../effects.js';

export interface Cause {
  what: CauseKind;
  server: NodeId;
  /** silent: since its last frame; null: it was never heard. */
  micros?: Micros | null;
  /** unheard: who does not hear it, or is not heard by it. */
  by?: readonly NodeId[];
  /** protocol: which one. */
  protocol?: number;
  /** Who leads: knows more. */
  leader?: NodeId;
}

export type NameOf = (server: NodeId) => string;

export function describeCause(cause: Cause, nameOf: NameOf): CauseReport {
  const { what, server } = cause;
  return { what, server, text: causeText(cause, nameOf), remedy: causeRemedy(cause, nameOf) };
}

function causeText({ what, server, micros, by, protocol }: Cause, nameOf: NameOf): string {
  const name = nameOf(server);
  switch (what) {
    case 'silent':
      return micros == null ? `${name} was never heard` : `${name} was not heard for ${millis(micros)} ms`;
    case 'unresponsive':
      return `${name} was heard, but did not answer`;
    case 'anew':
      return `${name} runs anew`;
    case 'resumed':
      return `smbpoold of ${name} was restarted; its clients went on`;
    case 'joined':
      return `${name} joined`;
    case 'unheard':
      return `${list([...(by ?? []), server].sort((a, b) => a - b), nameOf)} do not hear each other`;
    case 'unwilling':
      return `${name} asked to be left out`;
    case 'behind':
      return `${name} did not make up for the changes of the view before`;
    case 'unconfigured':
      return `${name} is not configured as a server any more`;
    case 'removed':
      return `${name} was taken out of the pool by smbpool leave`;
    case 'left-out':
      return `${name} was left out, although it was heard here`;
    case 'leader':
      return `${name} leads from now on`;
    case 'protocol':
      return `all servers are upgraded: the pool speaks protocol ${protocol} from now on`;
  }
}

function causeRemedy({ what, server, by, leader }: Cause, nameOf: NameOf): string | null {
  const name = nameOf(server);
  switch (what) {
    case 'silent':
      return `see that ${name} is up and runs smbpoold, and that the interconnect works; it joins by itself`;
    case 'unresponsive':
      return `see what keeps frames from arriving at ${name}: its interface, cable and port; it joins by itself`;
    case 'anew':
      return `nothing, if somebody started it; else see the log of smbpoold on ${name} for why its run before ended`;
    case 'resumed':
      return `nothing, if somebody ended it; else see the log of smbpoold on ${name} for why its run before ended`;
    case 'unheard':
      return `check cables, ports and switch between ${list([...(by ?? []), server].sort((a, b) => a - b), nameOf)}`;
    case 'behind':
      return `it starts anew by itself; see the log of smbpoold on ${name} for what kept it`;
    case 'left-out':
      return leader === undefined ? null : `${nameOf(leader)}, which leads, knows why: ask smbpool failovers there`;
    default:
      return null;
  }
}

/** Why this server lost its lease. */
export interface FencedCause {
  configured: number;
  needed: number;
  /** Not heard lately. */
  unheard: readonly NodeId[];
  leader: NodeId;
  isLeading: boolean;
}

export function describeFenced(cause: FencedCause, nameOf: NameOf): { text: string; remedy: string | null } {
  const { configured, needed, unheard, leader, isLeading } = cause;
  if (configured - unheard.length < needed) {
    const verb = unheard.length === 1 ? 'is' : 'are';
    return {
      text: `no quorum: ${needed} of ${configured} servers must run; ${list(unheard, nameOf)} ${verb} not heard`,
      remedy: 'start smbpoold there or check the interconnect; this server goes on by itself when enough are heard',
    };
  }
  if (!isLeading && unheard.includes(leader)) {
    return { text: `${nameOf(leader)}, which led, was not heard: the others elect a leader`, remedy: null };
  }
  return {
    text: isLeading
      ? 'too few servers answered in time'
      : `the lease that ${nameOf(leader)} gives was not renewed in time`,
    remedy: 'if it happens often: is a machine or a disk too busy, does the interconnect lose frames? See smbpool page',
  };
}

/** One of two interfaces that does not bring what the other one does. */
export interface SilentInterface {
  /** Our own name of it, and of the one that works. */
  name: string;
  other: string;
  servers: readonly NodeId[];
  /** It should bring something of nobody else. */
  isAll: boolean;
  /** What the servers call theirs on the same network. */
  nameThere(server: NodeId): string;
}

export function describeSilence(silence: SilentInterface, nameOf: NameOf): { text: string; remedy: string } {
  const { name, other, servers, isAll, nameThere } = silence;
  const ends = servers.map((server) => `${nameThere(server)} of ${nameOf(server)}`);
  const effect = 'until then the next lost link can be a lost server';
  // several at once: what they have in common is here
  if (isAll && servers.length > 1) {
    return {
      text: `${name} brings nothing of any other server, ${other} does`,
      remedy: `check cable, port and switch of ${name} of this server; ${effect}`,
    };
  }
  return {
    text: `${name} brings nothing of ${list(servers, nameOf)}, ${other} does`,
    remedy: `check cables, ports and switch between ${name} of this server and ${joined(ends)}; ${effect}`,
  };
}

/** 'server-0', 'server-0 and server-2', 'server-0, server-1 and server-2'. */
export function list(servers: readonly NodeId[], nameOf: NameOf): string {
  return joined(servers.map(nameOf));
}

function joined(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1) ?? ''}`;
}

export function millis(micros: Micros): number {
  return Math.round(micros / 1000);
}
