/**
 * The configuration file's schema: keys, defaults and, for each value, what it must be and an example to write instead.
 * Used by config.ts only, which turns what zod refuses into sentences. Holds no file access.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { NODE_COUNT_MAX } from '../base/ids.js';
import { canonicalAddress } from '../base/ip-address.js';
import { ADMIN_SOCKET_DEFAULT } from '../ports/admin.js';
import { ADDRESSES_MAX } from '../wire/address-messages.js';
import { PROTOCOL } from '../wire/protocol-version.js';

const SOCKET_DEFAULT = '/run/smbpool/ctdbd.socket';

/** The UDP port used when the transport is udp and none is named; unassigned at IANA, below the ephemeral range. */
export const UDP_PORT_DEFAULT = 4455;

/** Linux: struct sockaddr_un has 108 bytes for the path, one of them the final NUL. */
const SOCKET_PATH_BYTES_MAX = 107;
/** Linux: IFNAMSIZ is 16 with the final NUL. */
const INTERFACE_NAME_LENGTH_MAX = 15;
/** More loss than this is a partition, not a test of retransmission. */
const FAULT_PERCENT_MAX = 50;
/** Longer than the silence after which a server counts as down. */
const DELAY_MS_MAX = 2000;

/** Longer than smbd waits for a client to answer a break. */
const DRAIN_MS_MAX = 120_000;

/** Below it a busy machine misses it; above it a loss is noticed too late to be worth it. */
const HEARTBEAT_MS_MIN = 5;
const HEARTBEAT_MS_MAX = 1_000;
const LEASE_MS_MIN = 50;
const LEASE_MS_MAX = 30_000;

/** What a refused value must be and what to write: the message of every rule below. Split again by config.ts. */
export const ADVICE_SEPARATOR = '\u0000';
const advice = (mustBe: string, example: string): string => `${mustBe}${ADVICE_SEPARATOR}${example}`;

function text(mustBe: string, example: string, accept: (value: string) => boolean): z.ZodString {
  const message = advice(mustBe, example);
  return z.string({ error: message }).refine(accept, { error: message });
}

function whole(min: number, max: number, example: string): z.ZodNumber {
  const message = advice(`a whole number from ${min} to ${max}`, example);
  return z.int({ error: message }).min(min, { error: message }).max(max, { error: message });
}

function path(example: string): z.ZodString {
  return text('an absolute path', example, (value) => value.startsWith('/') && !value.includes('\0'));
}

function socketPath(key: string, example: string): z.ZodString {
  const mustBe = `an absolute path of at most ${SOCKET_PATH_BYTES_MAX} bytes`;
  return text(
    mustBe,
    `${key}: ${example}`,
    (value) => value.startsWith('/') && !value.includes('\0') && Buffer.byteLength(value) <= SOCKET_PATH_BYTES_MAX,
  );
}

/** A block of keys; a missing or empty block is refused with the block's own advice. */
function block<Shape extends z.ZodRawShape>(example: string, shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, { error: (issue) => blockError(issue.code, example) });
}

/** Unknown keys have a message of config.ts's own (it knows the nearest key); everything else gets the advice. */
function blockError(code: string, example: string): string | undefined {
  return code === 'unrecognized_keys' ? undefined : advice('a block of keys', example);
}

const POOL_EXAMPLE = 'pool: { name: office, keyFile: /etc/smbpool/pool.key }';
const SERVER_EXAMPLE = '{ id: 0, name: alpha, interface: eth1, address: 10.0.0.1 }';
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const NAME_RULE = 'a name of 1 to 63 letters, digits, ".", "_" or "-", a letter or digit first';
const FAULT_EXAMPLE = 'faults: { lossPercent: 2, seed: 1 }';
const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;

function percent(example: string): z.ZodNumber {
  const message = advice(`a number from 0 to ${FAULT_PERCENT_MAX}`, example);
  return z.number({ error: message }).min(0, { error: message }).max(FAULT_PERCENT_MAX, { error: message });
}

const INTERFACE_RULE = `the name of a network interface, at most ${INTERFACE_NAME_LENGTH_MAX} characters`;

function interfaceName(example: string): z.ZodString {
  const isName = (value: string): boolean =>
    value.length > 0 && value.length <= INTERFACE_NAME_LENGTH_MAX && !/[\s/]/.test(value);
  return text(INTERFACE_RULE, example, isName);
}

/** One of `servers`. */
export const serverSchema = block(`servers: [${SERVER_EXAMPLE}]`, {
  id: whole(0, NODE_COUNT_MAX - 1, 'id: 0'),
  name: text(NAME_RULE, 'name: alpha', (value) => NAME.test(value)),
  interface: interfaceName('interface: eth1').optional(),
  address: text('an IPv4 or IPv6 address', 'address: 10.0.0.1', (value) => isIP(value) !== 0),
  /** A second way to the others, on a network of its own: docs/decisions/second-interface.md. */
  interface2: interfaceName('interface2: eth2').optional(),
  /** The same for UDP. */
  address2: text('an IPv4 or IPv6 address', 'address2: 10.0.1.1', (value) => isIP(value) !== 0).optional(),
  /** A witness has no smbd: it gives the third vote to a pool of two. */
  role: z.enum(['server', 'witness'], { error: advice('"server" or "witness"', 'role: witness') }).default('server'),
});

/** An address and the length of its network's prefix; null when the text is none. */
export function parsePublicAddress(value: string): { address: string; prefixLength: number } | null {
  const [text = '', length = '', more] = value.split('/');
  const address = canonicalAddress(text);
  const prefixLength = /^\d{1,3}$/.test(length) ? Number(length) : 0;
  // IPv4 written as IPv6 would be the other kind of address in the end
  if (address === null || address.includes(':') !== text.includes(':') || more !== undefined) return null;
  return prefixLength >= 1 && prefixLength <= (address.includes(':') ? 128 : 32) ? { address, prefixLength } : null;
}

const PUBLIC_EXAMPLE = '{ address: 10.0.0.100/24, interface: eth0 }';
const PUBLIC_ADVICE = advice(`a list of at most ${ADDRESSES_MAX} addresses`, `addresses: [${PUBLIC_EXAMPLE}]`);
const INTERFACES_ADVICE = advice('interfaces by the names of servers', 'interfaces: { beta: ens3 }');

const publicAddress = block(`addresses: [${PUBLIC_EXAMPLE}]`, {
  address: text(
    'an IPv4 or IPv6 address with the length of its prefix', 'address: 10.0.0.100/24',
    (value) => parsePublicAddress(value) !== null,
  ),
  interface: interfaceName('interface: eth0'),
  /** Of servers on which it has another name. */
  interfaces: z
    .record(z.string(), interfaceName('interfaces: { beta: ens3 }'), { error: INTERFACES_ADVICE })
    .optional(),
});

/** Oftener is load, seldomer is no check. */
const CHECK_MS_MIN = 200;
const CHECK_MS_MAX = 3_600_000;
const IN_ROW_MAX = 100;
/** More free space than this no daemon needs. */
const SPACE_MIB_MAX = 1024 * 1024;

/** How often a check runs, how long it may take, and how many outcomes in a row change the verdict. */
function checkTimes(intervalMs: number, timeoutMs: number, failures = 2, passes = 2) {
  return {
    intervalMs: whole(CHECK_MS_MIN, CHECK_MS_MAX, `intervalMs: ${intervalMs}`).default(intervalMs),
    timeoutMs: whole(CHECK_MS_MIN, CHECK_MS_MAX, `timeoutMs: ${timeoutMs}`).default(timeoutMs),
    failures: whole(1, IN_ROW_MAX, `failures: ${failures}`).default(failures),
    passes: whole(1, IN_ROW_MAX, `passes: ${passes}`).default(passes),
  };
}

const FOLDERS_ADVICE = advice('a list of folders', 'paths: [/srv/pool]');

const ETCD_EXAMPLE = 'etcd: { endpoints: [http://10.0.0.11:2379] }';
/** Larger clusters of etcd are no safer, only slower. */
const ENDPOINTS_MAX = 9;
const ENDPOINTS_ADVICE = advice(`a list of 1 to ${ENDPOINTS_MAX} endpoints`, 'endpoints: [http://10.0.0.11:2379]');

/** Only scheme, host and port: what follows is ours. */
function isEndpoint(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : null;
  const isBare = url !== null && url.pathname === '/' && url.search === '' && url.hash === '' && url.username === '';
  return isBare && (url.protocol === 'http:' || url.protocol === 'https:');
}

const endpoint = text('the address of an etcd server', 'http://10.0.0.11:2379', isEndpoint);

const SERVERS_ADVICE = advice(`a list of 1 to ${NODE_COUNT_MAX} servers`, `servers: [${SERVER_EXAMPLE}]`);

/** The whole file. Every object is strict: a key that is not here is refused. */
export const configSchema = block(POOL_EXAMPLE, {
  /** Shared by all servers: a frame from another pool, or under another key, is dropped. */
  pool: block(POOL_EXAMPLE, {
    name: text(NAME_RULE, 'name: office', (value) => NAME.test(value)),
    keyFile: path('keyFile: /etc/smbpool/pool.key'),
  }),
  /** Which of `servers` this machine is; otherwise --server, otherwise the host name. */
  server: text(NAME_RULE, 'server: alpha', (value) => NAME.test(value)).optional(),
  servers: z
    .array(serverSchema, { error: SERVERS_ADVICE })
    .min(1, { error: SERVERS_ADVICE })
    .max(NODE_COUNT_MAX, { error: SERVERS_ADVICE }),
  /** Addresses that clients connect to, served by one of the servers each: docs/decisions/public-addresses.md. */
  addresses: z.array(publicAddress, { error: PUBLIC_ADVICE }).max(ADDRESSES_MAX, { error: PUBLIC_ADVICE }).optional(),
  directories: block('directories: { persistent: /var/lib/smbpool }', {
    /** On tmpfs: share modes, locks, sessions; worthless after a reboot and written all the time. */
    volatile: path('volatile: /run/smbpool/volatile').default('/run/smbpool/volatile'),
    /** On a disk: user accounts, secrets, registry, and the daemon's own state. */
    persistent: path('persistent: /var/lib/smbpool').default('/var/lib/smbpool'),
  }).prefault({}),
  /** smbd's `ctdbd socket`. */
  socket: socketPath('socket', SOCKET_DEFAULT).default(SOCKET_DEFAULT),
  adminSocket: socketPath('adminSocket', ADMIN_SOCKET_DEFAULT).default(ADMIN_SOCKET_DEFAULT),
  /** `smbpool:socket` of the shares' VFS module; beside `socket` when absent. */
  ringSocket: socketPath('ringSocket', '/run/smbpool/ring.socket').optional(),
  /** Counters, errors and what is here, for people to read when the daemon hangs; beside `socket` when absent. */
  nodePage: path('nodePage: /run/smbpool/node.page').optional(),
  transport: block('transport: { kind: ethernet }', {
    kind: z.enum(['ethernet', 'udp'], { error: advice('"ethernet" or "udp"', 'kind: ethernet') }).default('ethernet'),
    port: whole(1, 65535, `port: ${UDP_PORT_DEFAULT}`).default(UDP_PORT_DEFAULT),
  }).prefault({}),
  /** How soon a lost server is noticed: docs/decisions/membership.md. The same on all servers. */
  membership: block('membership: { leaseMs: 300 }', {
    /** Who agrees on who belongs to the pool: the servers themselves, or an etcd cluster (docs/decisions/etcd.md). */
    engine: z.enum(['embedded', 'etcd'], { error: advice('"embedded" or "etcd"', 'engine: etcd') })
      .default('embedded'),
    etcd: block(ETCD_EXAMPLE, {
      /** Asked one after the other; the first that answers is kept. */
      endpoints: z.array(endpoint, { error: ENDPOINTS_ADVICE })
        .min(1, { error: ENDPOINTS_ADVICE })
        .max(ENDPOINTS_MAX, { error: ENDPOINTS_ADVICE }),
      /** PEM: whom to believe that it is etcd; who this server is. */
      ca: path('ca: /etc/smbpool/etcd-ca.pem').optional(),
      cert: path('cert: /etc/smbpool/etcd.pem').optional(),
      key: path('key: /etc/smbpool/etcd.key').optional(),
    }).optional(),
    /** How often the leader and the others hear of each other. */
    heartbeatMs: whole(HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX, 'heartbeatMs: 40').default(40),
    /** How long a server goes on without hearing the leader; the others take over after it. */
    leaseMs: whole(LEASE_MS_MIN, LEASE_MS_MAX, 'leaseMs: 300').default(300),
  }).prefault({}).refine(({ heartbeatMs, leaseMs }) => leaseMs >= 6 * heartbeatMs, {
    error: advice(
      'a lease of at least six heartbeats: after half of it another server may lead, and frames may be lost',
      'membership: { leaseMs: 300 }',
    ),
  }),
  /**
   * The most that this server offers to speak with the others: holds the pool there during an upgrade that may have to
   * be taken back (docs/decisions/versions.md).
   */
  protocolMax: whole(PROTOCOL.min, PROTOCOL.max, `protocolMax: ${PROTOCOL.max}`).optional(),
  /** A second process that goes on with the connections of all smbds when this one dies: docs/decisions/standby.md. */
  standby: z.enum(['on', 'off'], { error: advice('"on" or "off"', 'standby: on') }).default('off'),
  /**
   * Opens of folders that many clients have open need no record of the pool. The same on all servers, and all shares of
   * the pool's files have the VFS module: docs/decisions/shared-folders.md.
   */
  sharedFolders: z.enum(['on', 'off'], { error: advice('"on" or "off"', 'sharedFolders: on') }).default('off'),
  /** Whether the loop comes before everything ordinary on the machine: docs/decisions/real-time.md. */
  realtime: z.boolean({ error: advice('true or false', 'realtime: true') }).default(true),
  /** What makes a server unfit for new clients: docs/decisions/health.md. */
  health: block('health: { folders: { paths: [/srv/pool] } }', {
    /** smbd answers a negotiate. */
    smbd: block('smbd: { port: 445 }', {
      check: z.boolean({ error: advice('true or false', 'check: true') }).default(true),
      address: text('an IPv4 or IPv6 address', 'address: 127.0.0.1', (value) => isIP(value) !== 0).default('127.0.0.1'),
      port: whole(1, 65535, 'port: 445').default(445),
      ...checkTimes(5_000, 5_000),
    }).prefault({}),
    /** The file systems below the shares answer. */
    folders: block('folders: { paths: [/srv/pool] }', {
      paths: z.array(path('paths: [/srv/pool]'), { error: FOLDERS_ADVICE }).max(64, { error: FOLDERS_ADVICE })
        .default([]),
      /** Write a small hidden file there, too. */
      write: z.boolean({ error: advice('true or false', 'write: true') }).default(true),
      ...checkTimes(10_000, 10_000),
    }).prefault({}),
    /** The daemon's directories have room. */
    space: block('space: { persistentMib: 16 }', {
      volatileMib: whole(0, SPACE_MIB_MAX, 'volatileMib: 8').default(8),
      persistentMib: whole(0, SPACE_MIB_MAX, 'persistentMib: 16').default(16),
      ...checkTimes(10_000, 10_000),
    }).prefault({}),
    /** The daemon's loop comes round. */
    loop: block('loop: { delayMs: 2000 }', {
      delayMs: whole(100, 60_000, 'delayMs: 2000').default(2_000),
      ...checkTimes(10_000, 10_000),
    }).prefault({}),
    /** What a server that is drained does before its clients are sent away. */
    drain: block('drain: { leasesMs: 10000 }', {
      leasesMs: whole(0, DRAIN_MS_MAX, 'leasesMs: 10000').default(10_000),
    }).prefault({}),
  }).prefault({}),
  /** The administrator's own programs. */
  hooks: block('hooks: { directory: /etc/smbpool/hooks.d }', {
    directory: path('directory: /etc/smbpool/hooks.d').default('/etc/smbpool/hooks.d'),
    ...checkTimes(10_000, 20_000),
  }).prefault({}),
  /** For tests: what the interconnect does to the frames it sends. */
  faults: block(FAULT_EXAMPLE, {
    lossPercent: percent('lossPercent: 2').default(0),
    duplicatePercent: percent('duplicatePercent: 1').default(0),
    /** Each frame waits a random time up to this, so that frames overtake each other. */
    delayMsMax: whole(0, DELAY_MS_MAX, 'delayMsMax: 5').default(0),
    seed: whole(0, 0xffffffff, 'seed: 1').default(1),
  }).optional(),
  log: block('log: { level: info }', {
    level: z.enum(LOG_LEVELS, { error: advice('one of "debug", "info", "warn", "error"', 'level: info') })
      .default('info'),
    /** Standard output when absent. */
    file: path('file: /var/log/smbpoold.log').optional(),
  }).prefault({}),
});

export type ConfigFile = z.output<typeof configSchema>;
