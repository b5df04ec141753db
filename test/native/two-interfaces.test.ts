/**
 * Servers with two interfaces: the contract of every interconnect, what must hold when one of the two fails, and what
 * only real ones can meet.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { incarnation, nodeId } from '../../src/base/ids.js';
import { loadNative } from '../../src/host/native.js';
import type { NativeTransport } from '../../src/host/native.js';
import type { PoolMember, TransportOptions } from '../../src/host/pool-host.js';
import type { Pump } from '../../src/host/pump.js';
import {
  deafenInterface, joinNetworks, makeInterfaces, setInterface, whyNoEthernet,
} from '../support/ethernet-bridge.js';
import { startPool } from '../support/host-pool.js';
import { eventually, sleep } from '../support/native-helpers.js';
import type { Fate, MakeTransports } from '../support/pumps.js';
import {
  MEMBERS, POOL_KEY, ethernetTransports, interfaceOf, nativeKind, openPump, relayedTransports,
  udpTransports,
} from '../support/pumps.js';
import type { TwoWayKind, TwoWayServers } from './interconnect-contract.js';
import { ROUND_FRAMES, TwoWays, testInterconnect, testTwoInterfaces } from './interconnect-contract.js';

const noEthernet = whyNoEthernet();
const ZERO = nodeId(0);
const ONE = nodeId(1);
/** On a machine that others keep busy, for what takes 4 s otherwise. */
const BUSY_MS = 30_000;

const twoEthernets: MakeTransports = (t) =>
  Promise.resolve(ethernetTransports(makeInterfaces(t, 3), makeInterfaces(t, 3)));

type Faults = Pick<TwoWayServers, 'setLink' | 'deafen'>;
type Make = (t: TestContext) => Promise<{ transports: NativeTransport[]; faults: Faults }>;

function twoWays(name: string, skip: string | false, make: Make): TwoWayKind {
  return {
    name,
    skip,
    async start(t, listeners) {
      const { transports, faults } = await make(t);
      const servers = await nativeKind(name, skip, () => Promise.resolve(transports)).start(t, listeners);
      const pump = (server: number): Pump => servers.ports[server] as Pump;
      return {
        ...servers,
        ...faults,
        counters: (server) => pump(server).counters(),
        heardAt: (server, peer) => pump(server).peer(peer).interfaces.map(({ heardAt }) => heardAt),
      };
    },
  };
}

function ethernetFaults(transports: readonly NativeTransport[]): Faults {
  const name = (way: number, server: number): string => interfaceOf(transports[server], way);
  return {
    setLink: (way, server, state) => setInterface(name(way, server), state),
    deafen: (way, server) => deafenInterface(name(way, server)),
  };
}

const overEthernet: Make = async (t) => {
  const transports = await twoEthernets(t);
  return { transports, faults: ethernetFaults(transports) };
};

/** Both interfaces of all servers are in one network, which somebody wired wrong. */
const overOneEthernet: Make = async (t) => {
  const transports = await twoEthernets(t);
  joinNetworks(t, interfaceOf(transports[0], 0), interfaceOf(transports[0], 1));
  return { transports, faults: ethernetFaults(transports) };
};

const overUdp = (otherwise: Fate): Make => async (t) => {
  const down = new Set<string>();
  const deaf = new Set<string>();
  const transports = await relayedTransports(t, (way, from, to) => {
    const isLost = down.has(`${way} ${from}`) || down.has(`${way} ${to}`) || deaf.has(`${way} ${to}`);
    return isLost ? 'is lost' : otherwise;
  });
  const faults: Faults = {
    setLink: (way, server, state) => {
      if (state === 'down') down.add(`${way} ${server}`);
      else down.delete(`${way} ${server}`);
    },
    deafen: (way, server) => void deaf.add(`${way} ${server}`),
  };
  return { transports, faults };
};

testInterconnect(nativeKind('udp, two interfaces', false, () => udpTransports(2)));
testInterconnect(nativeKind('ethernet, two interfaces', noEthernet, twoEthernets));
testTwoInterfaces(twoWays('udp, two interfaces', false, overUdp('arrives')));
testTwoInterfaces(twoWays('ethernet, two interfaces', noEthernet, overEthernet));

const replays = ({ servers }: TwoWays): number =>
  [0, 1, 2].reduce((sum, server) => sum + servers.counters(server)['interconnect.refused.replay']!, 0);

test('udp, two interfaces: each brings every frame twice, and it counts once', async (t) => {
  const ways = await TwoWays.start(t, twoWays('doubled', false, overUdp('arrives twice')));
  assert.ok(replays(ways) >= 12 * ROUND_FRAMES, `${replays(ways)}`);
});

test('ethernet, two interfaces in one network by mistake: each frame counts once, also when one is down',
  { skip: noEthernet },
  async (t) => {
    const ways = await TwoWays.start(t, twoWays('joined', noEthernet, overOneEthernet));
    assert.ok(replays(ways) > 0, 'what was broadcast came twice');
    for (const way of [0, 1]) {
      ways.servers.setLink(way, 1, 'down');
      await hearFrom(ways, 1);
      await ways.allReachAll(`interface ${way + 1} down`);
      ways.servers.setLink(way, 1, 'up');
    }
  },
);

/** Who learnt an address that is down now learns the other one with the server's next frame. */
async function hearFrom({ servers, received }: TwoWays, from: number): Promise<void> {
  const others = MEMBERS.filter((id) => id !== from);
  const before = others.map((id) => received[id]!.length);
  for (const id of others) servers.ports[from]!.send(id, Buffer.from('here I am'));
  servers.ports[from]!.flush();
  await servers.until('the others', () => others.every((id, index) => received[id]!.length > before[index]!));
}

test('ethernet: an interface that is down costs nothing but its own frames', { skip: noEthernet }, async (t) => {
  const transports = await twoEthernets(t);
  let received = 0;
  const receiver = openPump(t, {
    self: ONE, incarnation: incarnation(1), transport: transports[1]!, listener: () => void received++,
  });
  const sender = openPump(t, { self: ZERO, incarnation: incarnation(1), transport: transports[0]! });
  for (const way of [0, 1]) {
    for (const server of [0, 1]) setInterface(interfaceOf(transports[server], way), 'down');
    await sleep(50);
    const before = { received, wakes: receiver.counters()['loop.wakes']! };
    await sleep(100);
    const idle = receiver.counters()['loop.wakes']! - before.wakes;
    assert.ok(idle < 20, `${idle} times awake without anything to do: the error wakes the loop for ever`);
    const notSent = (): number => sender.counters()[`interconnect.interface${way + 1}.not-sent`]!;
    const [first, sentBefore] = [notSent(), sender.counters()[`interconnect.interface${2 - way}.sent`]!];
    for (let i = 0; i < 10; i++) {
      sender.send(ONE, Buffer.from('x'));
      sender.flush();
    }
    await eventually('what the other one brings', () => received === before.received + 10);
    assert.equal(notSent(), first + 10);
    assert.equal(sender.counters()[`interconnect.interface${2 - way}.sent`], sentBefore + 10);
    for (const server of [0, 1]) setInterface(interfaceOf(transports[server], way), 'up');
    const copies = (): number => {
      const counters = receiver.counters();
      return counters['interconnect.interface1.copies']! + counters['interconnect.interface2.copies']!;
    };
    const copiesBefore = copies();
    await eventually('copies again', () => {
      sender.send(ONE, Buffer.from('x'));
      sender.flush();
      return copies() > copiesBefore;
    });
  }
});

test('ethernet: a changed copy proves nothing, and teaches no address', { skip: noEthernet }, async (t) => {
  const transports = await twoEthernets(t);
  const stranger = interfaceOf(transports[2], 1);
  const receiver = openPump(t, { self: ONE, incarnation: incarnation(1), transport: transports[1]! });
  const { FrameChannel } = loadNative();
  const genuine = new FrameChannel({
    self: 0, members: MEMBERS, incarnation: 7, poolName: 'test', poolKey: POOL_KEY,
  });
  const frame = genuine.seal(1, Buffer.from('genuine'))!;
  sendRaw(interfaceOf(transports[0], 0), frame);
  await eventually('the first', () => receiver.counters()['interconnect.interface1.first'] === 1);
  const changed = Buffer.from(frame);
  changed[changed.length - 1]! ^= 1;
  sendRaw(stranger, changed);
  await eventually('its refusal', () => receiver.counters()['interconnect.refused.seal'] === 1);
  assert.deepEqual(receiver.peer(ZERO).interfaces[1], { address: '', heardAt: 0 });
  sendRaw(interfaceOf(transports[0], 1), frame);
  await eventually('that it came', () => receiver.counters()['interconnect.refused.replay'] === 1);
  const next = genuine.seal(1, Buffer.from('next'))!;
  sendRaw(interfaceOf(transports[0], 0), next);
  sendRaw(interfaceOf(transports[0], 1), next);
  await eventually('a genuine copy', () => receiver.peer(ZERO).interfaces.every(({ heardAt }) => heardAt > 0));
  assert.equal(receiver.counters()['interconnect.frames-in'], 2);
});

test('hosts tell of an interface that fell silent and came back, and nothing else changes', async (t) => {
  let isCut = false;
  const relayed = await relayedTransports(t, (way, from, to) =>
    isCut && way === 1 && (from === 2 || to === 2) ? 'is lost' : 'arrives');
  const transports = relayed.map((transport): TransportOptions => {
    assert.ok(transport.kind === 'udp');
    return { kind: 'udp', ways: transport.ways };
  });
  const members = MEMBERS.map((id): PoolMember => {
    return { id, name: `n${id}`, address: `10.0.0.${id}`, role: 'server', interfaces: ['left', 'right'] };
  });
  // a lease that a busy machine keeps: what is looked at is that the interface changes no view
  const membership = { heartbeatMicros: 100_000, leaseMicros: 5_000_000 };
  const { hosts } = await startPool(t, transports, { members, membership });
  await eventually('a view of all', () => hosts.every((host) => host.status().members.length === 3), BUSY_MS);
  const epochs = hosts.map((host) => host.status().epoch);
  assert.ok(hosts.every((host) => host.status().interfaceProblems.length === 0));
  const haveProblems = (count: number): boolean =>
    hosts.every((host) => host.status().interfaceProblems.length === count);
  isCut = true;
  await eventually('all tell of it', () => haveProblems(1), BUSY_MS);
  assert.match(hosts[0]!.status().interfaceProblems[0]!.text, /^right brings nothing of n2, left does$/);
  assert.match(hosts[2]!.status().interfaceProblems[0]!.text, /^right brings nothing of any other server, left does$/);
  isCut = false;
  await eventually('and that it is over', () => haveProblems(0), BUSY_MS);
  assert.deepEqual(hosts.map((host) => host.status().epoch), epochs, 'the view changed');
  for (const host of hosts) {
    const told = host.poolEvents().filter(({ kind }) => kind === 'interface');
    assert.equal(told.length, 1);
    assert.ok(told[0]!.kind === 'interface' && told[0]!.backAtMicros !== null);
  }
});

/** One frame in an Ethernet frame from that interface, broadcast. */
function sendRaw(name: string, frame: Uint8Array): void {
  const script = [
    'import socket,sys', 's=socket.socket(socket.AF_PACKET, socket.SOCK_RAW)', 's.bind((sys.argv[1], 0))',
    's.send(b"\\xff"*6 + s.getsockname()[4] + b"\\x88\\xb5" + bytes.fromhex(sys.argv[2]))',
  ].join('\n');
  execFileSync('/usr/bin/python3', ['-c', script, name, Buffer.from(frame).toString('hex')]);
}
