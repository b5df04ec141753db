/**
 * Reads and judges the configuration file: one YAML file, the same on all servers of a pool. Called by main and by
 * `--check-config`. Every problem becomes one line that names file, line and key, what is wrong and what to write; all
 * of them are reported at once. Never changes anything on disk.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { isMap, isNode, LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import type { z } from 'zod';
import { addressBytes, canonicalAddress, whyNotForClients } from '../base/ip-address.js';
import { NODE_PAGE_NAME } from '../ports/admin.js';
import { ADVICE_SEPARATOR, configSchema, parsePublicAddress } from './config-schema.js';
import type { ConfigFile } from './config-schema.js';
import { etcdProblems } from './etcd-config.js';
import { ConfigError } from './errors.js';

export type ServerConfig = ConfigFile['servers'][number];

/** A configuration that was found good; `self` is the entry of `servers` that this machine is. */
export interface Config extends Omit<ConfigFile, 'server'> {
  file: string;
  self: ServerConfig;
  ringSocket: string;
  nodePage: string;
}

/** Which server the daemon is to be, from --server; the host name decides when nothing else does. */
export interface Identity {
  server?: string;
  hostName?: string;
}

type Path = readonly PropertyKey[];

/** A parsed file that can say on which line a key stands. */
class Source {
  constructor(
    readonly file: string,
    private readonly document: Document,
    private readonly lines: LineCounter,
  ) {}

  /** `file:line: key` of the key at `path`, or of the nearest block around it that exists. */
  where(path: Path): string {
    const key = keyText(path);
    return `${this.file}:${this.line(path)}:${key === '' ? '' : ` ${key}`}`;
  }

  private line(path: Path): number {
    for (let length = path.length; length > 0; length--) {
      const parent = this.document.getIn(path.slice(0, length - 1), true);
      const pair = isMap(parent) ? parent.items.find((item) => keyName(item.key) === path[length - 1]) : undefined;
      const node = isNode(pair?.key) ? pair.key : this.document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return this.lines.linePos(node.range[0]).line;
    }
    return 1;
  }
}

function keyName(key: unknown): unknown {
  return isNode(key) ? key.toJSON() : key;
}

/** `servers[1].id` as people write it. */
function keyText(path: Path): string {
  return path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : `${text}${text === '' ? '' : '.'}${String(part)}`),
    '',
  );
}

/**
 * Reads the file and picks this machine's server.
 * @throws ConfigError with every problem found.
 */
export function loadConfig(file: string, identity: Identity = {}): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'does not exist' : (error as Error).message;
    throw new ConfigError([`${file}: cannot be read: ${why}; write it (see README.md) or name another with --config`]);
  }
  return parseConfig(file, text, identity);
}

/** As loadConfig, for a text already read. */
export function parseConfig(file: string, text: string, identity: Identity = {}): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  if (document.errors.length > 0) {
    throw new ConfigError(
      document.errors.map((error) => {
        const [firstLine] = error.message.split('\n');
        return `${file}: is not YAML: ${firstLine?.replace(/:$/, '') ?? error.code}; correct that line`;
      }),
    );
  }
  const source = new Source(file, document, lines);
  const raw = plainValue(file, document);
  const parsed = configSchema.safeParse(raw);
  if (!parsed.success) {
    throw new ConfigError(parsed.error.issues.flatMap((issue) => describeIssue(source, raw, issue)));
  }
  const { server, ...asWritten } = parsed.data;
  const config = { ...asWritten, ...ringPaths(asWritten) };
  const problems = [
    ...duplicates(source, config), ...missingInterfaces(source, config), ...secondWayProblems(source, config),
    ...publicAddressProblems(source, config), ...etcdProblems((path) => source.where(path), config),
  ];
  if (problems.length > 0) throw new ConfigError(problems);
  const self = chooseServer(source, config, server, identity);
  return { file, self, ...config };
}

type RingPaths = Pick<Config, 'ringSocket' | 'nodePage'>;

/** In a folder that is the daemon's own already. */
function ringPaths({ socket, ringSocket, nodePage }: Omit<ConfigFile, 'server'>): RingPaths {
  const beside = (name: string): string => join(dirname(socket), name);
  return { ringSocket: ringSocket ?? beside('ring.socket'), nodePage: nodePage ?? beside(NODE_PAGE_NAME) };
}

/** The document as plain values; YAML's aliases can make it endless, which no configuration needs. */
function plainValue(file: string, document: Document): unknown {
  try {
    const raw: unknown = document.toJS() ?? {};
    JSON.stringify(raw);
    return raw;
  } catch (error) {
    const [why] = (error as Error).message.split('\n');
    throw new ConfigError([`${file}: is not usable YAML: ${why ?? ''}; write it without anchors and aliases`]);
  }
}

function describeIssue(source: Source, raw: unknown, issue: z.core.$ZodIssue): string[] {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => describeUnknownKey(source, issue.path, key));
  const value = issue.path.reduce<unknown>((at, part) => (at as Record<PropertyKey, unknown> | null)?.[part], raw);
  const [mustBe, example] = issue.message.split(ADVICE_SEPARATOR);
  const found = value === undefined || value === null ? 'is missing' : `is ${shown(value)}`;
  const write = example === undefined ? '' : `; write for example "${example}"`;
  return [`${source.where(issue.path)} ${found}: it must be ${mustBe ?? issue.message}${write}`];
}

/** A value as it is shown in a message: short, on one line. */
function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function describeUnknownKey(source: Source, path: Path, key: string): string {
  const known = knownKeys(path);
  const nearest = nearestKey(key, known);
  const hint = nearest === undefined ? `the keys here are ${known.join(', ')}` : `did you mean "${nearest}"?`;
  return `${source.where([...path, key])} is not a known key: ${hint}`;
}

/** The keys that the schema allows in the block at `path`. */
function knownKeys(path: Path): string[] {
  let schema: unknown = configSchema;
  for (const part of path) {
    const outer = unwrap(schema) as { shape?: Record<PropertyKey, unknown>; element?: unknown };
    schema = typeof part === 'number' ? outer.element : outer.shape?.[part];
  }
  return Object.keys((unwrap(schema) as { shape?: object }).shape ?? {});
}

/** The schema inside defaults and optionals. */
function unwrap(schema: unknown): unknown {
  const inner = (schema as { def?: { innerType?: unknown } } | undefined)?.def?.innerType;
  return inner === undefined ? schema : unwrap(inner);
}

/** The known key that `key` is probably a misspelling of: at most a third of its letters differ. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  let best: { name: string; distance: number } | undefined;
  for (const name of known) {
    const distance = editDistance(key.toLowerCase(), name.toLowerCase());
    if (distance <= Math.max(1, name.length / 3) && distance < (best?.distance ?? Infinity)) best = { name, distance };
  }
  return best?.name;
}

/** Levenshtein: insertions, deletions and replacements that make `a` into `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

function duplicates(source: Source, config: Omit<Config, 'file' | 'self'>): string[] {
  const problems: string[] = [];
  for (const key of ['id', 'name', 'address'] as const) {
    const first = new Map<unknown, number>();
    config.servers.forEach((server, index) => {
      const other = first.get(server[key]);
      if (other === undefined) first.set(server[key], index);
      else {
        problems.push(
          `${source.where(['servers', index, key])} is ${shown(server[key])}, which servers[${other}] has already: ` +
            `give each server its own ${key}`,
        );
      }
    });
  }
  const paths = ['socket', 'adminSocket', 'ringSocket', 'nodePage'] as const;
  paths.forEach((key, index) => {
    const other = paths.slice(0, index).find((earlier) => config[earlier] === config[key]);
    if (other === undefined) return;
    problems.push(`${source.where([key])} is the same path as ${other}: give each a path of its own`);
  });
  return problems;
}

function missingInterfaces(source: Source, config: Omit<ConfigFile, 'server'>): string[] {
  if (config.transport.kind !== 'ethernet') return [];
  return config.servers.flatMap((server, index) =>
    server.interface !== undefined
      ? []
      : [
          `${source.where(['servers', index, 'interface'])} is missing: raw Ethernet needs the interface that leads ` +
            'to the other servers; write for example "interface: eth1", or "transport: { kind: udp }"',
        ],
  );
}

/** The key of a server's second way to the others, and that of its first. */
const WAY_KEYS = {
  ethernet: { first: 'interface', second: 'interface2' },
  udp: { first: 'address', second: 'address2' },
} as const;

function secondWayProblems(source: Source, { transport, servers }: Omit<ConfigFile, 'server'>): string[] {
  const { first, second } = WAY_KEYS[transport.kind];
  const foreign = WAY_KEYS[transport.kind === 'udp' ? 'ethernet' : 'udp'].second;
  const where = (index: number, key: string): string => source.where(['servers', index, key]);
  const problems: string[] = [];
  const addresses = new Map(servers.map(({ address }, index) => [canonicalAddress(address) ?? address, index]));
  for (const [index, server] of servers.entries()) {
    if (server[foreign] !== undefined) {
      problems.push(`${where(index, foreign)} means nothing with transport ${transport.kind}: write "${second}" there`);
    }
    const value = server[second];
    if (value === undefined) continue;
    if (value === server[first]) {
      const remedy = 'name another one, which leads to the other servers over another switch, or leave it out';
      problems.push(`${where(index, second)} is ${shown(value)}, as ${first}: ${remedy}`);
      continue;
    }
    if (transport.kind !== 'udp') continue;
    const address = canonicalAddress(value) ?? value;
    const other = addresses.get(address);
    if (other === undefined) addresses.set(address, index);
    else {
      const remedy = 'give each server its own';
      problems.push(`${where(index, second)} is ${shown(value)}, which servers[${other}] has already: ${remedy}`);
    }
  }
  const withTwo = servers.flatMap((server, index) => (server[second] === undefined ? [] : [index]));
  if (withTwo.length === 1 && servers.length > 1) {
    const remedy = `write "${second}" for the others too, or leave it out`;
    problems.push(`${where(withTwo[0]!, second)} is the only one, so it leads to nobody: ${remedy}`);
  }
  return problems;
}

/** A public address moves: it can be neither a server's own nor there twice, and clients must be able to reach it. */
function publicAddressProblems(source: Source, { addresses = [], servers }: Omit<ConfigFile, 'server'>): string[] {
  const problems: string[] = [];
  const seen = new Map<string, string>();
  for (const [index, { address, address2 }] of servers.entries()) {
    for (const own of [address, address2]) {
      if (own !== undefined) seen.set(canonicalAddress(own) ?? own, `servers[${index}] has as its own`);
    }
  }
  for (const [index, { address, interfaces = {} }] of addresses.entries()) {
    const text = parsePublicAddress(address)?.address ?? address;
    const other = seen.get(text);
    const where = source.where(['addresses', index, 'address']);
    const bytes = addressBytes(text);
    const unfit = bytes === null ? null : whyNotForClients(bytes);
    if (unfit !== null) {
      problems.push(`${where} is ${shown(address)}, which ${unfit}: write one of the clients' network`);
    } else if (other === undefined) {
      seen.set(text, `addresses[${index}] has already`);
    } else {
      problems.push(`${where} is ${shown(address)}, which ${other}: give the pool an address that nothing else has`);
    }
    for (const name of Object.keys(interfaces)) {
      if (servers.some((server) => server.name === name)) continue;
      const where = source.where(['addresses', index, 'interfaces', name]);
      problems.push(`${where} is no server: it must be one of ${servers.map((server) => server.name).join(', ')}`);
    }
  }
  return problems;
}

function chooseServer(
  source: Source,
  config: Omit<ConfigFile, 'server'>,
  configured: string | undefined,
  identity: Identity,
): ServerConfig {
  const hostName = identity.hostName ?? hostname();
  const names = config.servers.map((server) => server.name).join(', ');
  const find = (name: string): ServerConfig | undefined => config.servers.find((server) => server.name === name);
  if (identity.server !== undefined) {
    const self = find(identity.server);
    if (self) return self;
    throw new ConfigError([
      `${source.where(['servers'])} has no server named ${shown(identity.server)} (--server); it has ${names}`,
    ]);
  }
  if (configured !== undefined) {
    const self = find(configured);
    if (self) return self;
    throw new ConfigError([`${source.where(['server'])} is ${shown(configured)}: it must be one of ${names}`]);
  }
  const self = find(hostName) ?? find(hostName.split('.')[0] ?? hostName);
  if (self) return self;
  throw new ConfigError([
    `${source.where(['servers'])} has no server with this machine's host name ${shown(hostName)} (it has ${names}): ` +
      'start with --server NAME, or write "server: NAME" in this file',
  ]);
}
