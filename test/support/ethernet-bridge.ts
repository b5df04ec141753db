/**
 * Ethernet interfaces for tests: veth pairs whose other ends are on one bridge, with names of this process, gone with
 * the test. Needs root.
 */
import { execFileSync } from 'node:child_process';
import type { TestContext } from 'node:test';

let bridgesMade = 0;

function ip(...words: string[]): void {
  execFileSync('ip', words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Why there can be no such interfaces here; false when there can. */
export function whyNoEthernet(): string | false {
  if (process.getuid?.() !== 0) return 'needs root to make network interfaces: run the tests with sudo';
  const probe = `tap${process.pid % 100_000}`;
  try {
    ip('link', 'add', probe, 'type', 'bridge');
    ip('link', 'del', probe);
    return false;
  } catch (error) {
    return `network interfaces cannot be made here (ip link add): ${(error as Error).message.split('\n').at(-2) ?? ''}`;
  }
}

/** The names of `count` interfaces that reach each other. */
export function makeInterfaces(t: TestContext, count: number, mtu = 1500): string[] {
  // the kernel allows 15 characters
  const prefix = `ta${process.pid % 100_000}${String.fromCharCode(97 + (bridgesMade++ % 26))}`;
  const bridge = `${prefix}br`;
  const ends = Array.from({ length: count }, (_, i) => `${prefix}${i}`);
  t.after(() => {
    for (const name of [...ends, bridge]) {
      try {
        ip('link', 'del', name);
      } catch {
        // was not made
      }
    }
  });
  ip('link', 'add', bridge, 'mtu', String(mtu), 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0');
  ip('link', 'set', bridge, 'up');
  for (const end of ends) {
    ip('link', 'add', end, 'mtu', String(mtu), 'type', 'veth', 'peer', 'name', `${end}p`, 'mtu', String(mtu));
    ip('link', 'set', `${end}p`, 'master', bridge, 'up');
    ip('link', 'set', end, 'up');
  }
  return ends;
}

/** Nothing reaches an interface of makeInterfaces any more; what it sends is passed on. */
export function deafenInterface(name: string): void {
  const port = `${name}p`;
  execFileSync('bridge', [
    'link', 'set', 'dev', port, 'learning', 'off', 'flood', 'off', 'mcast_flood', 'off', 'bcast_flood', 'off',
  ]);
  ip('link', 'set', 'dev', bridgeOf(name), 'type', 'bridge', 'fdb_flush');
}

/** Of two sets of makeInterfaces, by one interface of each: one network from here on. */
export function joinNetworks(t: TestContext, one: string, other: string): void {
  const ends = [one, other].map((name) => `${name}j`) as [string, string];
  t.after(() => ip('link', 'del', ends[0]));
  ip('link', 'add', ends[0], 'type', 'veth', 'peer', 'name', ends[1]);
  for (const [index, name] of [one, other].entries()) ip('link', 'set', ends[index]!, 'master', bridgeOf(name), 'up');
}

function bridgeOf(name: string): string {
  return name.replace(/\d+$/, 'br');
}

/** Takes an interface down or up. */
export function setInterface(name: string, state: 'up' | 'down'): void {
  ip('link', 'set', name, state);
}
