/** Whole hosts on this machine, each with folders of its own; they stop with the test. */
import { createSocket } from 'node:dgram';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { incarnation, nodeId } from '../../src/base/ids.js';
import { PoolHost } from '../../src/host/pool-host.js';
import { MEMBERSHIP_HEARTBEAT_MICROS, MEMBERSHIP_LEASE_MICROS } from '../../src/core/membership/limits.js';
import type { HostOptions, TransportOptions } from '../../src/host/pool-host.js';
import { eventually, ownDirectory } from './native-helpers.js';

/** A UDP port that nobody has at this moment. */
export async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  socket.close();
  return port;
}

/** Of so many servers that know each other's ports. */
export async function udp(count: number): Promise<TransportOptions[]> {
  const ports = await Promise.all(Array.from({ length: count }, freePort));
  return ports.map((port, self) => {
    const peers = ports.map((peer, id) => ({ id: nodeId(id), address: '127.0.0.1', port: peer }));
    const way = { address: '127.0.0.1', port, peers: peers.filter(({ id }) => id !== self) };
    return { kind: 'udp', ways: [way] };
  });
}

export function optionsFor(directory: string, self: number, transport: TransportOptions, count: number): HostOptions {
  return {
    self: nodeId(self),
    members: Array.from({ length: count }, (_, id) => {
      return { id: nodeId(id), name: `n${id}`, address: `10.0.0.${id}`, role: 'server' as const };
    }),
    membership: { heartbeatMicros: MEMBERSHIP_HEARTBEAT_MICROS, leaseMicros: MEMBERSHIP_LEASE_MICROS },
    incarnation: incarnation(Date.now()),
    socketPath: join(directory, String(self), 'socket'),
    volatileDirectory: join(directory, String(self), 'volatile'),
    persistentDirectory: join(directory, String(self), 'persistent'),
    transport,
    poolName: 'test',
    poolKey: Buffer.alloc(32, 3),
    log: { log: () => undefined },
    startAnew: (reason) => {
      throw new Error(reason);
    },
  };
}

export interface Pool {
  hosts: PoolHost[];
  options: HostOptions[];
}

type More = Partial<HostOptions>;

/** Waits until all hear each other. */
export async function startPool(
  t: TestContext,
  transports: TransportOptions[],
  more: More = {},
  rings: 'with rings' | 'without' = 'without',
): Promise<Pool> {
  const directory = ownDirectory(t);
  const ring = (self: number): More => ({
    ringSocketPath: join(directory, String(self), 'ring.socket'),
    pagePath: join(directory, String(self), 'node.page'),
  });
  const options = transports.map((transport, self) => ({
    ...optionsFor(directory, self, transport, transports.length), ...more, ...(rings === 'without' ? {} : ring(self)),
  }));
  const hosts: PoolHost[] = [];
  t.after(() => Promise.all(hosts.map((host) => host.stop())));
  for (const one of options) hosts.push(await PoolHost.start(one));
  await eventually('all servers up', () => hosts.every((host) => host.status().links.every(({ up }) => up)));
  return { hosts, options };
}
