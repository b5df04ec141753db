/**
 * The pool's servers as the daemon knows them: what each server keeps of the others (an entry, as in the configuration
 * file), the list that counts now, whether the file says the same, and a person's wishes in words. Pure.
 */
import { nodeId } from '../base/ids.js';
import type { ChangeResult } from '../core/membership/port.js';
import type { ServerPlace } from '../host/pool-host.js';
import type { ServersReport } from '../ports/status.js';
import type { Configuration, ConfiguredServer } from '../wire/membership-configuration.js';
import { ENTRY_BYTES_MAX } from '../wire/membership-configuration.js';
import type { ServersChange } from '../wire/membership-messages.js';
import { ADVICE_SEPARATOR, serverSchema } from './config-schema.js';
import type { Config, ServerConfig } from './config.js';
import { memberOf, transportOptions } from './ways.js';

/** The servers as agreed; number 0: nobody changed them in the running pool, and the file counts. */
export interface AgreedServers {
  configuration: Configuration;
  /** Also the former ones. */
  servers: readonly ConfiguredServer[];
}

const ENTRY_KEYS = ['name', 'address', 'interface', 'address2', 'interface2'] as const;

/** What the pool keeps of a server. */
export function entryOf(server: ServerConfig): string {
  const kept = ENTRY_KEYS.flatMap((key) => (server[key] === undefined ? [] : [[key, server[key]]]));
  return JSON.stringify(Object.fromEntries(kept));
}

/** null: what is written of it is of another release, or damaged. */
export function serverOf({ node, role, entry = '' }: ConfiguredServer): ServerConfig | null {
  try {
    const parsed = serverSchema.safeParse({ ...(JSON.parse(entry) as object), id: node, role });
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** The same server in the file, which knows better where it is. */
function inFile({ servers }: Pick<Config, 'servers'>, agreed: ServerConfig): ServerConfig {
  const own = servers.find(({ id, name, role }) => id === agreed.id && name === agreed.name && role === agreed.role);
  return own ?? agreed;
}

/** The servers that are in the pool, ascending: as agreed, each as the file describes it if it does. */
export function serversNow(config: Pick<Config, 'servers'>, agreed: AgreedServers | null): ServerConfig[] {
  if (agreed === null || agreed.configuration.number === 0) return config.servers;
  const { counted, joining } = agreed.configuration;
  const present = new Set<number>([...counted, ...joining]);
  return agreed.servers.flatMap((server) => {
    const known = present.has(server.node) ? serverOf(server) : null;
    return known === null ? [] : [inFile(config, known)];
  });
}

/** For the host: how frames reach the server. */
export function placeOf(config: Config, server: ConfiguredServer): ServerPlace | null {
  const known = serverOf(server);
  if (known === null) return null;
  const described = inFile(config, known);
  const { transport, self } = config;
  const others = described.id === self.id ? [] : [described];
  const { kind, ways } = transportOptions({ self, servers: [self, ...others], transport });
  return {
    member: { ...memberOf(described, config), entry: entryOf(described) },
    ways: kind === 'udp'
      ? ways.map(({ peers: [peer] }) => (peer === undefined ? null : { address: peer.address, port: peer.port }))
      : ways.map(({ peers }) => (peers.length === 0 ? null : { address: '', port: 0 })),
  };
}

/** A refused wish, as a sentence. */
export class WishError extends Error {}

/** What a person wrote of a server that is to join. */
export type JoinWish = Record<string, string>;

/**
 * The change to ask the pool for.
 * @throws WishError when it makes no sense, whatever the others say.
 */
export function joinChange(config: Config, agreed: AgreedServers | null, wish: JoinWish): ServersChange {
  const present = serversNow(config, agreed);
  const { configuration, servers } = agreed ?? { configuration: null, servers: [] };
  const former = servers.filter(({ node }) => configuration?.former.includes(node) === true);
  const { id = `${freeId(present, former)}`, ...rest } = wish;
  const parsed = serverSchema.safeParse({ ...rest, id: Number(id) });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const key = issue?.path.join('.') ?? '';
    throw new WishError(`--${key === '' ? 'server' : key}: it must be ${issue?.message.split(ADVICE_SEPARATOR)[0]}`);
  }
  const server = parsed.data;
  refuseTwice(present, server);
  const before = former.find(({ node }) => node === server.id);
  const nameBefore = before === undefined ? null : (serverOf(before)?.name ?? null);
  if (before !== undefined && nameBefore !== server.name) {
    const whose = `number ${server.id} was that of ${nameBefore ?? 'another server'}, whose disk may still have votes`;
    throw new WishError(`${whose}: give another one, as --id ${freeId(present, former)}`);
  }
  if (config.transport.kind === 'ethernet' && server.interface === undefined) {
    throw new WishError('raw Ethernet needs the interface that leads to the other servers: add --interface, as eth1');
  }
  const entry = entryOf(server);
  if (Buffer.byteLength(entry) > ENTRY_BYTES_MAX) throw new WishError('names and addresses are too long together');
  const node = nodeId(server.id);
  return { what: 'join', number: configuration?.number ?? 0, server: { node, role: server.role, entry } };
}

function refuseTwice(present: readonly ServerConfig[], server: ServerConfig): void {
  const addresses = [server.address, server.address2].filter((one) => one !== undefined);
  for (const other of present) {
    const has = (what: string): WishError =>
      new WishError(`${other.name} (number ${other.id}) is in the pool with ${what}: give the new server its own`);
    if (other.id === server.id) throw has(`number ${other.id}`);
    if (other.name === server.name) throw has('this name');
    const twice = addresses.find((one) => one === other.address || one === other.address2);
    if (twice !== undefined) throw has(`address ${twice}`);
  }
}

/** The lowest number that no server ever had. */
function freeId(present: readonly ServerConfig[], former: readonly ConfiguredServer[]): number {
  const used = new Set<number>([...present.map(({ id }) => id), ...former.map(({ node }) => node)]);
  let id = 0;
  while (used.has(id)) id++;
  return id;
}

/** As joinChange, for a server that is to leave. */
export function leaveChange(config: Config, agreed: AgreedServers | null, name: string): ServersChange {
  const present = serversNow(config, agreed);
  const server = present.find((one) => one.name === name || `${one.id}` === name);
  const names = present.map((one) => one.name).join(', ');
  if (server === undefined) throw new WishError(`there is no server ${JSON.stringify(name)}; the pool has ${names}`);
  if (server.id === config.self.id) {
    const others = present.filter(({ id }) => id !== server.id).map((one) => one.name);
    const remedy = others.length === 0 ? 'stop smbpoold, and the pool is gone' : `ask on ${others.join(' or ')}`;
    throw new WishError(`${server.name} is this server, whose smbpoold ends when it is taken out: ${remedy}`);
  }
  const number = agreed?.configuration.number ?? 0;
  return { what: 'leave', number, server: { node: nodeId(server.id), role: server.role } };
}

/** Why the pool did not do it, and what to do. */
export function refusalText(
  { what, server }: ServersChange,
  { why, about }: Exclude<ChangeResult, 'done'>,
  nameOf: (id: number) => string,
): string {
  const name = nameOf(server.node);
  const others = about.map((id) => nameOf(id)).join(', ');
  switch (why) {
    case 'changed':
      return 'the servers of the pool were changed meanwhile: look at smbpool status, and ask again';
    case 'busy':
      return `another change of the servers is under way${others === '' ? '' : ` (${others})`}: ask again in a moment`;
    case 'there':
      return `${name} is in the pool already`;
    case 'unknown':
      return `${name} is not in the pool`;
    case 'last':
      return `${name} is the last server that can lead, so it cannot be taken out: stop smbpoold, and the pool is gone`;
    case 'majority':
      return `without ${name} a majority of the servers must be heard, and ${others} `
        + `${about.length === 1 ? 'is' : 'are'} not: start smbpoold there first, or take that one out instead`;
    case 'accounts':
      return `not every server that is here has all changes of accounts and registry yet, so ${name} is still needed: `
        + 'see smbpool status for servers that are away, and ask again';
    case 'engine':
      return 'with membership.engine etcd the servers are those of the configuration files: stop all of smbpoold, '
        + `${what === 'join' ? 'add the server to' : 'take the server out of'} the files, and start them again`;
    case 'late':
      return 'nobody that leads the pool answered within 10 s: smbpool status says what is wrong. It may still be done';
  }
}

/** What the admin socket answers when it is done. */
export function reportChange(config: Config, agreed: AgreedServers | null): ServersReport {
  const servers = serversNow(config, agreed);
  const joining = agreed?.configuration.joining ?? [];
  return {
    configuration: agreed?.configuration.number ?? 0,
    servers: servers.map((server) => ({ ...server, counts: !joining.some((node) => node === server.id) })),
    lines: linesFor(servers),
  };
}

/** The block `servers` of the configuration file. */
export function linesFor(servers: readonly ServerConfig[]): string[] {
  const keys = ['id', 'name', 'interface', 'address', 'interface2', 'address2'] as const;
  const line = (server: ServerConfig): string => {
    const parts = keys.flatMap((key) => (server[key] === undefined ? [] : [`${key}: ${server[key]}`]));
    if (server.role === 'witness') parts.push('role: witness');
    return `  - { ${parts.join(', ')} }`;
  };
  return ['servers:', ...servers.map(line)];
}

/** How the file differs from what is agreed, in words; null: not at all. */
export function differenceText(config: Config, agreed: AgreedServers | null): string | null {
  if (agreed === null || agreed.configuration.number === 0) return null;
  const now = serversNow(config, agreed);
  const isSame = (a: ServerConfig, b: ServerConfig): boolean => a.id === b.id && a.name === b.name && a.role === b.role;
  const named = (servers: readonly ServerConfig[]): string => servers.map(({ name }) => name).join(', ');
  const missing = now.filter((one) => !config.servers.some((other) => isSame(one, other)));
  const over = config.servers.filter((one) => !now.some((other) => isSame(one, other)));
  const parts = [
    ...(missing.length === 0 ? [] : [`lacks ${named(missing)}`]),
    ...(over.length === 0 ? [] : [`has ${named(over)}, which the pool has not`]),
  ];
  return parts.length === 0 ? null : `${config.file} ${parts.join(' and ')}`;
}
