/**
 * What the machine must give before the daemon can serve: its interface, the right to raw frames, its directories.
 * Called by main before the host starts, so that what is missing is told in one sentence. Reads /proc of this process,
 * whose network files are those of its own namespace.
 */
import { chmodSync, mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import type { Config } from './config.js';
import { StartError } from './errors.js';

/** Linux: include/uapi/linux/capability.h and magic.h. */
const CAP_NET_RAW = 13n;
export const CAP_SYS_NICE = 23n;
const FILE_SYSTEM_IN_MEMORY = new Set([0x01021994 /* tmpfs */, 0x858458f6 /* ramfs */]);

/** What requireMachine reads; a test gives its own. */
export interface Machine {
  /** The text of /proc/self/net/dev. */
  interfaces(): string;
  /** The text of /proc/self/status. */
  processStatus(): string;
  addresses(): string[];
}

export const thisMachine: Machine = {
  interfaces: () => readFileSync('/proc/self/net/dev', 'utf8'),
  processStatus: () => readFileSync('/proc/self/status', 'utf8'),
  addresses: () =>
    Object.values(networkInterfaces()).flatMap((entries) => entries?.map((entry) => entry.address) ?? []),
};

/**
 * Checks what the chosen transport needs of the machine.
 * @throws StartError naming what is missing and what to do.
 */
export function requireMachine(config: Config, machine: Machine = thisMachine): void {
  const { self, file } = config;
  if (config.transport.kind === 'udp') {
    for (const key of ['address', 'address2'] as const) {
      const address = self[key];
      if (address === undefined || machine.addresses().includes(address)) continue;
      throw new StartError(
        `no interface of this machine has the address ${address} of server ${self.name}: ` +
          `configure it, or correct "${key}" of that server in ${file}`,
      );
    }
    return;
  }
  const present = interfaceNames(machine.interfaces());
  for (const key of ['interface', 'interface2'] as const) {
    const name = self[key];
    if (name === undefined || present.includes(name)) continue;
    throw new StartError(
      `there is no network interface ${name} here (there are ${present.join(', ')}): ` +
        `correct "${key}" of server ${self.name} in ${file}`,
    );
  }
  if (!hasCapability(machine.processStatus(), CAP_NET_RAW)) {
    throw new StartError(
      'raw Ethernet frames need CAP_NET_RAW, which this process does not have: ' +
        `start smbpoold as root or by its systemd unit, or write "transport: { kind: udp }" in ${file}`,
    );
  }
}

function interfaceNames(text: string): string[] {
  return [...text.matchAll(/^\s*([^\s:]+):/gm)].map((match) => match[1] ?? '');
}

/** `text` is that of /proc/self/status. */
export function hasCapability(text: string, capability: bigint): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(text)?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n;
}

/**
 * Makes a directory that only root may enter, with its parents.
 * @throws StartError when that is not possible.
 */
export function makeDirectory(path: string): void {
  try {
    if (mkdirSync(path, { recursive: true }) !== undefined) chmodSync(path, 0o700);
  } catch (error) {
    throw new StartError(`the directory ${path} cannot be made: ${(error as Error).message}`, { cause: error });
  }
}

/** Whether a directory lies in memory. On a disk the volatile databases work, slowly. */
export function isInMemory(path: string): boolean {
  return FILE_SYSTEM_IN_MEMORY.has(statfsSync(path).type);
}
