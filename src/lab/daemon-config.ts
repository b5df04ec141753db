/**
 * The configuration file of the lab's smbpoold: one per server, because each has folders and sockets of its own on this
 * one machine. Pure text; lab.ts writes it, src/daemon/config.ts reads it.
 */
import { join } from 'node:path';
import { stringify } from 'yaml';
import { etcdEndpoint, etcdPlaces } from './etcd.js';
import type { Layout, ServerPlace } from './layout.js';
import {
  PREFIX_LENGTH, PREFIX_LENGTH_6, SECOND_INTERFACE, SERVER_INTERFACE, publicAddress, publicAddress6, secondAddress,
} from './layout.js';
import type { LabOptions } from './options.js';

/** The folders smbpoold of this server keeps its databases in; lab.ts makes them. */
export function daemonFolders(place: ServerPlace): { volatile: string; persistent: string } {
  return { volatile: join(place.volatile, 'databases'), persistent: join(place.directory, 'persistent') };
}

function publicAddresses({ addresses, addresses6 }: LabOptions): { address: string; interface: string }[] {
  const of = (count: number, address: (index: number) => string): { address: string; interface: string }[] =>
    Array.from({ length: count }, (_, index) => ({ address: address(index), interface: SERVER_INTERFACE }));
  return [
    ...of(addresses, (index) => `${publicAddress(index)}/${PREFIX_LENGTH}`),
    ...of(addresses6, (index) => `${publicAddress6(index)}/${PREFIX_LENGTH_6}`),
  ];
}

function secondWay({ id }: ServerPlace, { interfaces, transport }: LabOptions): Record<string, string> {
  if (interfaces === 1 || id === null) return {};
  return transport === 'udp' ? { address2: secondAddress(id) } : { interface2: SECOND_INTERFACE };
}

/** The one beside it first. */
function endpointsFor(layout: Layout, { id }: ServerPlace, options: LabOptions): string[] {
  const places = etcdPlaces(layout, options);
  return [...places.filter((place) => place.id === id), ...places.filter((place) => place.id !== id)].map(etcdEndpoint);
}

/** Empty: all as smbpoold does by itself. */
function membershipOf(layout: Layout, place: ServerPlace, options: LabOptions): object {
  const { engine, leaseMillis } = options;
  return {
    ...(engine === 'etcd' ? { engine, etcd: { endpoints: endpointsFor(layout, place, options) } } : {}),
    ...(leaseMillis === null ? {} : { leaseMs: leaseMillis }),
  };
}

export function daemonConfig(layout: Layout, place: ServerPlace, options: LabOptions): string {
  const faults = options.lossPercent > 0 || options.duplicatePercent > 0;
  return stringify({
    pool: { name: 'lab', keyFile: layout.keyFile },
    server: place.name,
    servers: layout.servers(options.servers + (options.witness ? 1 : 0)).map((server) => ({
      id: server.id,
      name: server.name,
      interface: SERVER_INTERFACE,
      address: server.address,
      ...secondWay(server, options),
      ...(server.id === options.servers ? { role: 'witness' } : {}),
    })),
    ...(options.addresses + options.addresses6 > 0 ? { addresses: publicAddresses(options) } : {}),
    directories: daemonFolders(place),
    socket: place.socket,
    adminSocket: place.adminSocket,
    ringSocket: place.ringSocket,
    transport: { kind: options.transport },
    membership: membershipOf(layout, place, options),
    // not the machine's own
    hooks: { directory: join(place.directory, 'hooks.d') },
    standby: options.standby ? 'on' : 'off',
    ...(options.sharedFolders ? { sharedFolders: 'on' } : {}),
    ...(options.realtime ? {} : { realtime: false }),
    ...(faults
      ? {
          faults: {
            lossPercent: options.lossPercent,
            duplicatePercent: options.duplicatePercent,
            // another seed on each server: otherwise all lose the same frames
            seed: options.seed + (place.id ?? 0),
          },
        }
      : {}),
    log: { level: options.logLevel },
  });
}
