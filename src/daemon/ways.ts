/**
 * By which interfaces this server reaches which others, from the configuration: the first of each, and the second of
 * those that have one. Pure; used by daemon.ts.
 */
import { nodeId } from '../base/ids.js';
import type { PoolMember, TransportOptions } from '../host/pool-host.js';
import type { Config, ServerConfig } from './config.js';

export type WaysConfig = Pick<Config, 'self' | 'servers' | 'transport'>;

/** One way or two of this server, each to the others that have it, too. */
export function transportOptions({ self, servers, transport }: WaysConfig): TransportOptions {
  const others = servers.filter(({ id }) => id !== self.id);
  if (transport.kind === 'ethernet') {
    const way = (key: 'interface' | 'interface2') => {
      const peers = others.filter((server) => server[key] !== undefined).map(({ id }) => nodeId(id));
      return self[key] === undefined ? [] : [{ interface: self[key], peers }];
    };
    return { kind: 'ethernet', ways: [...way('interface'), ...way('interface2')] };
  }
  const { port } = transport;
  const way = (key: 'address' | 'address2') => {
    const peers = others.flatMap(({ id, [key]: address }) =>
      address === undefined ? [] : [{ id: nodeId(id), address, port }],
    );
    return self[key] === undefined ? [] : [{ address: self[key], port, peers }];
  };
  return { kind: 'udp', ways: [...way('address'), ...way('address2')] };
}

/** As the host knows a server, with the names of its interfaces when there are two: with UDP their addresses. */
export function memberOf(server: ServerConfig, { transport }: Pick<Config, 'transport'>): PoolMember {
  const { id, name, address, role, ...ways } = server;
  const [first, second] = transport.kind === 'udp' ? [address, ways.address2] : [ways.interface, ways.interface2];
  const interfaces = first === undefined || second === undefined ? {} : { interfaces: [first, second] as const };
  return { id: nodeId(id), name, address, role, ...interfaces };
}
