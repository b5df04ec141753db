/**
 * The pool's servers as one server knows them (docs/decisions/joining.md): which configuration counts, what was written
 * of its servers, and what the next one is. A configuration changes by one server at a time, so that any majority of
 * one meets any majority of the next.
 */
import type { NodeId } from '../../base/ids.js';
import type { Configuration, ConfiguredServer } from '../../wire/membership-configuration.js';
import { digestOf } from '../../wire/membership-configuration.js';

/** Lists kept whole: that of the accepted view, of one before and of one that is on its way. */
const LISTS_MAX = 4;

/** How the servers were before anybody changed them: as the file of this server says. */
export function firstConfiguration(servers: readonly ConfiguredServer[]): Configuration {
  return {
    number: 0,
    counted: servers.map(({ node }) => node),
    joining: [],
    witnesses: servers.filter(({ role }) => role === 'witness').map(({ node }) => node),
    former: [],
    digest: digestOf(servers),
  };
}

/** All that are in the pool, ascending. */
export function presentIn({ counted, joining }: Configuration): NodeId[] {
  return [...counted, ...joining].sort((a, b) => a - b);
}

/** Those that can be members, ascending. */
export function serversIn(configuration: Configuration): NodeId[] {
  return presentIn(configuration).filter((node) => !configuration.witnesses.includes(node));
}

/** Those of them that keep databases and count, ascending: who may lead, and of whom a majority has each commit. */
export function fileServersIn({ counted, witnesses }: Configuration): NodeId[] {
  return counted.filter((node) => !witnesses.includes(node));
}

export function majorityOf({ counted }: Configuration): number {
  return Math.floor(counted.length / 2) + 1;
}

/** Whether these are a majority. */
export function isMajority(configuration: Configuration, has: (node: NodeId) => boolean): boolean {
  return configuration.counted.filter(has).length >= majorityOf(configuration);
}

/** A configuration and what was written of each of its servers, also the former ones. */
export interface ServerList {
  configuration: Configuration;
  servers: readonly ConfiguredServer[];
}

function made(configuration: Omit<Configuration, 'digest'>, servers: readonly ConfiguredServer[]): ServerList {
  const all = [...servers].sort((a, b) => a.node - b.node);
  return { configuration: { ...configuration, digest: digestOf(all) }, servers: all };
}

const without = (nodes: readonly NodeId[], node: NodeId): NodeId[] => nodes.filter((other) => other !== node);
const plus = (nodes: readonly NodeId[], node: NodeId): NodeId[] =>
  [...without(nodes, node), node].sort((a, b) => a - b);

/** With one server more, which does not count yet. */
export function joined({ configuration, servers }: ServerList, server: ConfiguredServer): ServerList {
  const { number, counted, joining, witnesses, former } = configuration;
  const { node, role } = server;
  return made(
    {
      number: number + 1,
      counted,
      joining: plus(joining, node),
      witnesses: role === 'witness' ? plus(witnesses, node) : witnesses,
      former: without(former, node),
    },
    [...servers.filter((other) => other.node !== node), server],
  );
}

/** The joining server counts from here on. */
export function counting({ configuration, servers }: ServerList, node: NodeId): ServerList {
  const { number, counted, joining } = configuration;
  const next = { number: number + 1, counted: plus(counted, node), joining: without(joining, node) };
  return made({ ...configuration, ...next }, servers);
}

/** With one server less. */
export function left({ configuration, servers }: ServerList, node: NodeId): ServerList {
  const { number, counted, joining, witnesses, former } = configuration;
  return made(
    {
      number: number + 1,
      counted: without(counted, node),
      joining: without(joining, node),
      witnesses: without(witnesses, node),
      former: plus(former, node),
    },
    servers,
  );
}

/** What was written of the servers of configurations; views name them by digest only. */
export class ServerLists {
  private readonly first: ServerList;
  /** Newest last. */
  private lists: { digest: number; servers: readonly ConfiguredServer[] }[] = [];
  private partial: { digest: number; servers: Map<NodeId, ConfiguredServer> } | null = null;

  constructor(own: readonly ConfiguredServer[], saved: readonly ConfiguredServer[] | null) {
    const servers = [...own].sort((a, b) => a.node - b.node);
    this.first = { configuration: firstConfiguration(servers), servers };
    if (saved !== null) this.keep(saved);
  }

  /** null: not all is known of its servers. */
  of(configuration: Configuration | undefined): ServerList | null {
    if (configuration === undefined) return this.first;
    const known = this.lists.find(({ digest }) => digest === configuration.digest);
    if (known !== undefined) return { configuration, servers: known.servers };
    const servers = this.assembled(configuration);
    if (servers === null) return null;
    this.keep(servers);
    return { configuration, servers };
  }

  keep(servers: readonly ConfiguredServer[]): void {
    const digest = digestOf(servers);
    this.lists = [...this.lists.filter((list) => list.digest !== digest), { digest, servers }].slice(-LISTS_MAX);
  }

  /** Another server tells some of the servers that this digest is of. */
  learn(digest: number, servers: readonly ConfiguredServer[]): void {
    if (this.partial?.digest !== digest) this.partial = { digest, servers: new Map() };
    for (const server of servers) this.partial.servers.set(server.node, server);
  }

  /** From what others told, and what we know of the others of its servers. */
  private assembled(configuration: Configuration): readonly ConfiguredServer[] | null {
    const { digest, former } = configuration;
    const told = this.partial?.digest === digest ? this.partial.servers : new Map<NodeId, ConfiguredServer>();
    const known = [this.first.servers, ...this.lists.map(({ servers }) => servers)].reverse();
    const nodes = [...presentIn(configuration), ...former].sort((a, b) => a - b);
    const servers = nodes.flatMap((node) => {
      const server = told.get(node) ?? known.flat().find((other) => other.node === node);
      return server === undefined ? [] : [server];
    });
    return digestOf(servers) === digest ? servers : null;
  }
}
