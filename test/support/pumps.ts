/** Pumps of three servers for tests of the interconnect: how they are opened, and their ways to each other. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:dgram';
import { createSocket } from 'node:dgram';
import type { TestContext } from 'node:test';
import { incarnation, nodeId } from '../../src/base/ids.js';
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import type { EthernetWay, NativeTransport } from '../../src/host/native.js';
import { Pump } from '../../src/host/pump.js';
import type { FrameListener } from '../../src/ports/interconnect.js';
import type { InterconnectKind } from '../native/interconnect-contract.js';
import { eventually, sleep } from './native-helpers.js';

export const POOL_KEY = Buffer.alloc(32, 0x5a);
export const MEMBERS = [0, 1, 2].map(nodeId);
const DATAGRAM_BYTES_MAX = 1472;

interface PumpOf {
  self: NodeId;
  incarnation: Incarnation;
  transport: NativeTransport;
  listener?: FrameListener;
  poolKey?: Uint8Array;
}

/** Closed with the test. */
export function openPump(t: TestContext, options: PumpOf): Pump {
  const { self, incarnation: own, transport, listener, poolKey = POOL_KEY } = options;
  const unexpected = (): void => assert.fail('there is no gate');
  const pump = new Pump({
    interconnect: { channel: { self, members: MEMBERS, incarnation: own, poolName: 'test', poolKey }, transport },
    listener: {
      clientOpened: unexpected,
      clientPacket: unexpected,
      clientClosed: unexpected,
      frame: listener ?? (() => undefined),
      endOfBatch: () => Infinity,
    },
  });
  t.after(() => pump.close());
  return pump;
}

/** Ports of 127.0.0.1 that nobody listens on: taken once and given back. */
export async function freePorts(count: number): Promise<number[]> {
  const sockets = await Promise.all(Array.from({ length: count }, () => bound(createSocket('udp4'))));
  const ports = sockets.map((socket) => socket.address().port);
  for (const socket of sockets) socket.close();
  return ports;
}

async function bound(socket: Socket): Promise<Socket> {
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return socket;
}

const others = (self: number): NodeId[] => MEMBERS.filter((id) => id !== self);

/** Of each server, whose interfaces are `names[way]`. */
export function ethernetTransports(...names: string[][]): NativeTransport[] {
  return MEMBERS.map((self) => ({
    kind: 'ethernet',
    ways: names.map((ofWay): EthernetWay => ({ interface: ofWay[self]!, peers: others(self) })),
  }));
}

/** The interface of a server's way. */
export function interfaceOf(transport: NativeTransport | undefined, way = 0): string {
  assert.ok(transport?.kind === 'ethernet');
  return transport.ways[way]!.interface;
}

export function portOf(transport: NativeTransport | undefined, way = 0): number {
  assert.ok(transport?.kind === 'udp');
  return transport.ways[way]!.port;
}

export async function udpTransports(ways = 1): Promise<NativeTransport[]> {
  const ports = await freePorts(ways * MEMBERS.length);
  const portOfWay = (way: number, id: number): number => ports[way * MEMBERS.length + id]!;
  const place = (way: number, id: number) => ({ address: '127.0.0.1', port: portOfWay(way, id) });
  return MEMBERS.map((self) => ({
    kind: 'udp',
    ways: Array.from({ length: ways }, (_, way) => {
      return { ...place(way, self), peers: others(self).map((id) => ({ id, ...place(way, id) })) };
    }),
    datagramBytesMax: DATAGRAM_BYTES_MAX,
  }));
}

/** What becomes of a datagram. */
export type Fate = 'arrives' | 'arrives twice' | 'is lost';

/**
 * UDP by two ways, through relays that ask `fate` for each datagram: so a way can fail in one direction, or bring
 * everything twice.
 */
export async function relayedTransports(
  t: TestContext,
  fate: (way: number, from: number, to: number) => Fate,
): Promise<NativeTransport[]> {
  const ports = [await freePorts(MEMBERS.length), await freePorts(MEMBERS.length)];
  const relay = async (way: number, from: number, to: number): Promise<number> => {
    const socket = await bound(createSocket('udp4'));
    t.after(() => socket.close());
    socket.on('message', (datagram) => {
      const becomes = fate(way, from, to);
      const times = becomes === 'is lost' ? 0 : becomes === 'arrives' ? 1 : 2;
      for (let i = 0; i < times; i++) socket.send(datagram, ports[way]![to], '127.0.0.1');
    });
    return socket.address().port;
  };
  return Promise.all(MEMBERS.map(async (self) => {
    const ways = await Promise.all([0, 1].map(async (way) => ({
      address: '127.0.0.1',
      port: ports[way]![self]!,
      peers: await Promise.all(others(self).map(async (id) => {
        return { id, address: '127.0.0.1', port: await relay(way, self, id) };
      })),
    })));
    return { kind: 'udp', ways, datagramBytesMax: DATAGRAM_BYTES_MAX };
  }));
}

export type MakeTransports = (t: TestContext) => Promise<NativeTransport[]>;

/** Three pumps for the contract of interconnects. */
export function nativeKind(name: string, skip: string | false, transports: MakeTransports): InterconnectKind {
  return {
    name,
    skip,
    async start(t, listeners) {
      const all = await transports(t);
      const incarnations = [10, 20, 30].map(incarnation);
      const open = (self: number): Pump => openPump(t, {
        self: nodeId(self), incarnation: incarnations[self]!, transport: all[self]!, listener: listeners[self]!,
      });
      const ports = [0, 1, 2].map(open);
      return {
        ports,
        incarnations,
        until: (what, check) => eventually(what, check),
        settle: () => sleep(50),
        async restart(server) {
          ports[server]!.close();
          // the socket closes with the loop's next round
          await sleep(10);
          incarnations[server] = incarnation(incarnations[server]! + 1);
          ports[server] = open(server);
        },
      };
    },
  };
}
