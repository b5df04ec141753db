/**
 * The lab's network: one bridge in the root namespace, one network namespace per server, a veth pair between them; with
 * a second interface per server another bridge and another pair. Only things whose names start with the lab's prefix
 * are ever made or removed.
 */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { LabError } from './errors.js';
import {
  BASELINE_NAMESPACE, BRIDGE, HOST_ADDRESS, HOST_ADDRESS_6, LAB_PREFIX, PREFIX_LENGTH, PREFIX_LENGTH_6, SECOND_BRIDGE,
  SECOND_INTERFACE, SERVER_INTERFACE, hostInterface, secondHostInterface,
} from './layout.js';
import { pause, run, tryRun } from './run.js';

/** Where `ip netns` keeps the names. */
const NAMESPACE_FOLDER = '/run/netns';
/** Of the firewall, for frames that are lost on purpose. */
const FILTER_TABLE = 'smbpool_lab';
/** How long processes have to end after a TERM signal before they are killed. */
const TERMINATE_MILLIS_MAX = 3000;

export async function createBridge(): Promise<void> {
  await addBridge(BRIDGE);
  await run('ip', ['addr', 'add', `${HOST_ADDRESS}/${PREFIX_LENGTH}`, 'dev', BRIDGE]);
}

/** IPv6 beside it, for clients, where the pool has public addresses of that kind. Usable at once. */
export async function addBridgeIpv6(): Promise<void> {
  const disabled = `/proc/sys/net/ipv6/conf/${BRIDGE}/disable_ipv6`;
  if (!existsSync(disabled)) throw new LabError('the kernel of this machine has no IPv6, which --addresses6 needs');
  const foreign = await run('ip', ['-6', 'route', 'show', 'root', `${HOST_ADDRESS_6}/${PREFIX_LENGTH_6}`]);
  if (foreign !== '') throw new LabError(`this machine already has a route for the lab's IPv6 addresses: ${foreign}`);
  writeFileSync(disabled, '0');
  await run('ip', ['addr', 'add', `${HOST_ADDRESS_6}/${PREFIX_LENGTH_6}`, 'dev', BRIDGE, 'nodad']);
}

/** The same for a server. */
export async function addNamespaceIpv6(namespace: string, address: string): Promise<void> {
  const disabled = `/proc/sys/net/ipv6/conf/${SERVER_INTERFACE}/disable_ipv6`;
  await run('ip', ['netns', 'exec', namespace, 'tee', disabled], { input: '0' });
  const where = `${address}/${PREFIX_LENGTH_6}`;
  await run('ip', ['-n', namespace, 'addr', 'add', where, 'dev', SERVER_INTERFACE, 'nodad']);
}

/** Of the second interfaces: the servers are among themselves there. */
export async function createSecondBridge(): Promise<void> {
  await addBridge(SECOND_BRIDGE);
}

async function addBridge(name: string): Promise<void> {
  await run('ip', ['link', 'add', 'name', name, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']);
  await run('ip', ['link', 'set', name, 'up']);
}

/** Makes a namespace with `eth0` at `address`, connected to the bridge. */
export async function createNamespace(namespace: string, address: string): Promise<void> {
  await run('ip', ['netns', 'add', namespace]);
  await addPair(namespace, { outside: hostInterface(namespace), inside: SERVER_INTERFACE, bridge: BRIDGE, address });
  await run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
}

/** Adds `eth1` at `address`, connected to the second bridge. */
export async function addSecondInterface(namespace: string, address: string): Promise<void> {
  const outside = secondHostInterface(namespace);
  await addPair(namespace, { outside, inside: SECOND_INTERFACE, bridge: SECOND_BRIDGE, address });
}

interface Pair {
  outside: string;
  inside: string;
  bridge: string;
  address: string;
}

async function addPair(namespace: string, { outside, inside, bridge, address }: Pair): Promise<void> {
  await run('ip', ['link', 'add', outside, 'type', 'veth', 'peer', 'name', inside, 'netns', namespace]);
  await run('ip', ['link', 'set', outside, 'master', bridge, 'up']);
  await run('ip', ['-n', namespace, 'addr', 'add', `${address}/${PREFIX_LENGTH}`, 'dev', inside]);
  await run('ip', ['-n', namespace, 'link', 'set', inside, 'up']);
}

/** The lab's namespaces that exist now. */
export function existingNamespaces(): string[] {
  if (!existsSync(NAMESPACE_FOLDER)) return [];
  const ours = new RegExp(`^${LAB_PREFIX}[0-9]+$`);
  return readdirSync(NAMESPACE_FOLDER).filter((name) => ours.test(name) || name === BASELINE_NAMESPACE);
}

export function bridgeExists(): boolean {
  return bridges().length > 0;
}

function bridges(): string[] {
  return [BRIDGE, SECOND_BRIDGE].filter((name) => existsSync(`/sys/class/net/${name}`));
}

/** Another network of this machine that already uses our addresses would make the lab unreachable: refuse early. */
export async function refuseForeignNetwork(): Promise<void> {
  const routes = await run('ip', ['-4', 'route', 'show', 'root', '10.77.0.0/23']);
  const foreign = routes.split('\n').filter((line) => line.startsWith('10.77.') && !line.includes(BRIDGE));
  if (foreign.length > 0) {
    throw new LabError(`this machine already has a route for the lab's addresses 10.77.0.0/23: ${foreign[0]}`);
  }
}

/**
 * Where Docker or libvirt let the firewall judge bridged packets, servers may not reach each other by IP (raw Ethernet
 * frames pass): a sentence for when they do not, empty where that cannot be the cause.
 */
export function bridgeFilterHint(): string {
  const file = '/proc/sys/net/bridge/bridge-nf-call-iptables';
  if (!existsSync(file) || readFileSync(file, 'utf8').trim() !== '1') return '';
  return `; this machine's firewall judges bridged packets (${file} is 1) and may drop the lab's: set it to 0`;
}

/** Processes inside a namespace; all of them are the lab's, or somebody's who went in through `lab exec`. */
export async function processesIn(namespace: string): Promise<number[]> {
  const result = await tryRun('ip', ['netns', 'pids', namespace]);
  return result.stdout.split(/\s+/).filter((word) => word !== '').map(Number);
}

export function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // ended by itself in the meantime
    }
  }
}

/** Ends what runs in the namespace and removes it and its veth pair. Safe to call for one that does not exist. */
export async function removeNamespace(namespace: string): Promise<void> {
  if (!existsSync(`${NAMESPACE_FOLDER}/${namespace}`)) return;
  signalAll(await processesIn(namespace), 'SIGTERM');
  const deadline = Date.now() + TERMINATE_MILLIS_MAX;
  for (let left = await processesIn(namespace); left.length > 0; left = await processesIn(namespace)) {
    if (Date.now() > deadline) signalAll(left, 'SIGKILL');
    await pause(50);
    if (Date.now() > deadline + TERMINATE_MILLIS_MAX) {
      throw new LabError(`processes ${left.join(', ')} in namespace ${namespace} do not end, even when killed`);
    }
  }
  // the pair goes with the namespace, but only some time later; by name it goes at once
  for (const outside of [hostInterface(namespace), secondHostInterface(namespace)]) {
    await tryRun('ip', ['link', 'del', outside]);
  }
  await run('ip', ['netns', 'del', namespace]);
}

export async function removeBridge(): Promise<void> {
  for (const name of bridges()) await run('ip', ['link', 'del', name]);
}

/** The cable of a server, at the bridge's end: nothing reaches it any more, and it sees that the line is dead. */
export async function setLink(namespace: string, state: 'up' | 'down'): Promise<void> {
  await run('ip', ['link', 'set', hostInterface(namespace), state]);
}

/** The server's own end: sending fails, too. */
export async function setInterface(namespace: string, state: 'up' | 'down'): Promise<void> {
  await run('ip', ['-n', namespace, 'link', 'set', SERVER_INTERFACE, state]);
}

/** Frames from one server to another that are lost on the bridge; what clients send and get is not meant. */
export interface FrameLoss {
  /** Namespaces; null: of, or to, all servers. */
  from: string | null;
  to: string | null;
  percent: number;
}

/** Has these frames lost, and no others. Needs nft(8), since the kernels of some machines have no netem. */
export async function setFrameLoss(losses: readonly FrameLoss[]): Promise<void> {
  const rules = losses.map(({ from, to, percent }) => {
    const source = from === null ? '' : `iifname "${hostInterface(from)}" `;
    const target = to === null ? '' : `oifname "${hostInterface(to)}" `;
    const random = percent >= 100 ? '' : `numgen random mod 100 < ${percent} `;
    return `${source}${target}${random}drop`;
  });
  const chain = `chain forward { type filter hook forward priority 0; policy accept;\n${rules.join('\n')}\n}\n`;
  // one transaction; the first line is for the second, which fails where there is no table
  const table = `table bridge ${FILTER_TABLE}`;
  await run('nft', ['-f', '-'], { input: `add ${table}\ndelete ${table}\n${table} {\n${chain}}\n` });
}

/** Undoes setFrameLoss, also that of a run that was killed. */
export async function removeFrameLoss(): Promise<void> {
  // who has no nft has lost no frames
  await tryRun('nft', ['delete', 'table', 'bridge', FILTER_TABLE]).catch(() => undefined);
}
