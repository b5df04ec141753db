/** The contract of every interconnect on raw Ethernet, UDP and the simulated wire, and what only real ones can meet. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { incarnation, nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import { FaultyInterconnect } from '../../src/host/faults.js';
import { loadNative } from '../../src/host/native.js';
import type { NativeTransport } from '../../src/host/native.js';
import type { FrameListener, Interconnect } from '../../src/ports/interconnect.js';
import { makeInterfaces, setInterface, whyNoEthernet } from '../support/ethernet-bridge.js';
import { eventually, sleep } from '../support/native-helpers.js';
import {
  POOL_KEY, ethernetTransports, interfaceOf, nativeKind, openPump, portOf, udpTransports,
} from '../support/pumps.js';
import { SimulatedInterconnect } from '../support/simulated-interconnect.js';
import { SimulatedTime } from '../support/simulated-time.js';
import { PERFECT_WIRE, SimulatedWire } from '../support/simulated-wire.js';
import { testInterconnect } from './interconnect-contract.js';
import type { InterconnectKind } from './interconnect-contract.js';

const noEthernet = whyNoEthernet();

const ethernet = (mtu: number) => (t: TestContext): Promise<NativeTransport[]> =>
  Promise.resolve(ethernetTransports(makeInterfaces(t, 3, mtu)));

const simulated: InterconnectKind = {
  name: 'simulated',
  skip: false,
  async start(_t, listeners) {
    const time = new SimulatedTime();
    const wire = new SimulatedWire(time, new Prng(1), PERFECT_WIRE);
    const incarnations = [10, 20, 30].map(incarnation);
    const open = (self: number): Interconnect => {
      wire.attach(nodeId(self), listeners[self]!);
      return new SimulatedInterconnect(wire, nodeId(self), incarnations[self]!);
    };
    const ports = [0, 1, 2].map(open);
    return {
      ports,
      incarnations,
      async until(what, check) {
        time.advance(10_000_000);
        assert.ok(check(), what);
      },
      settle: async () => time.advance(10_000_000),
      async restart(server) {
        wire.detach(nodeId(server));
        incarnations[server] = incarnation(incarnations[server]! + 1);
        ports[server] = open(server);
      },
    };
  },
};

testInterconnect(nativeKind('udp', false, () => udpTransports()));
testInterconnect(nativeKind('ethernet', noEthernet, ethernet(1500)));
testInterconnect(nativeKind('ethernet with jumbo frames', noEthernet, ethernet(9000)));
testInterconnect(simulated);

test('ethernet: the address of a peer is learnt from its first authentic frame', { skip: noEthernet }, async (t) => {
  const transports = await ethernet(1500)(t);
  const received: string[] = [];
  const listen = (self: number): FrameListener => (peer, _incarnation, body) =>
    void received.push(`${peer}>${self} ${Buffer.from(body).toString()}`);
  const pumps = transports.map((transport, self) =>
    openPump(t, { self: nodeId(self), incarnation: incarnation(1), transport, listener: listen(self) }),
  );
  assert.equal(pumps[1]!.peer(nodeId(0)).interfaces[0]!.address, '');
  pumps[0]!.send(nodeId(1), Buffer.from('broadcast'));
  pumps[0]!.flush();
  await eventually('it', () => received.length === 1);
  assert.equal(pumps[1]!.peer(nodeId(0)).interfaces[0]!.address, pumps[0]!.addresses()[0]);
  // server 2 saw the broadcast, too, and refused what was not for it
  await eventually('its refusal', () => pumps[2]!.counters()['interconnect.refused.address'] === 1);
  pumps[1]!.send(nodeId(0), Buffer.from('straight'));
  pumps[1]!.flush();
  await eventually('the answer', () => received.length === 2);
  assert.deepEqual(received, ['0>1 broadcast', '1>0 straight']);
  assert.equal(pumps[2]!.counters()['interconnect.refused.address'], 1, 'the second went to one server');
});

test('ethernet: frames of another pool are refused and teach nothing', { skip: noEthernet }, async (t) => {
  const transports = await ethernet(1500)(t);
  const receiver = openPump(t, { self: nodeId(1), incarnation: incarnation(1), transport: transports[1]! });
  const stranger = openPump(t, {
    self: nodeId(0), incarnation: incarnation(99), transport: transports[2]!, poolKey: Buffer.alloc(32, 1),
  });
  for (let i = 0; i < 100; i++) stranger.send(nodeId(1), Buffer.from(`forged ${i}`));
  stranger.flush();
  await eventually('refusals', () => receiver.counters()['interconnect.refused.seal'] === 100);
  assert.deepEqual(receiver.peer(nodeId(0)), { incarnation: 0, interfaces: [{ address: '', heardAt: 0 }] });
});

test('ethernet: an interface that goes down and up again carries on', { skip: noEthernet }, async (t) => {
  const transports = await ethernet(1500)(t);
  let received = 0;
  const receiver = openPump(t, {
    self: nodeId(1), incarnation: incarnation(1), transport: transports[1]!, listener: () => void received++,
  });
  const sender = openPump(t, { self: nodeId(0), incarnation: incarnation(1), transport: transports[0]! });
  const name = interfaceOf(transports[1]);
  const sendOne = (): void => {
    sender.send(nodeId(1), Buffer.from('x'));
    sender.flush();
  };
  sendOne();
  await eventually('the first', () => received === 1);
  setInterface(name, 'down');
  await sleep(50);
  const wakes = receiver.counters()['loop.wakes']!;
  await sleep(100);
  const idle = receiver.counters()['loop.wakes']! - wakes;
  assert.ok(idle < 20, `${idle} times awake without anything to do: the error wakes the loop for ever`);
  setInterface(name, 'up');
  await eventually('one more', () => {
    sendOne();
    return received > 1;
  });
});

test('ethernet: a missing interface is named', { skip: noEthernet }, (t) => {
  assert.throws(
    () => {
      const transport: NativeTransport = { kind: 'ethernet', ways: [{ interface: 'nosuch0', peers: [] }] };
      openPump(t, { self: nodeId(0), incarnation: incarnation(1), transport });
    },
    { code: 'ERR_POOL_INTERFACE', message: /nosuch0.*No such device/ },
  );
});

test('udp: an address that is not ours or in use is named', async (t) => {
  const [transport] = await udpTransports();
  const options = { self: nodeId(0), incarnation: incarnation(1) };
  openPump(t, { ...options, transport: transport! });
  assert.throws(() => openPump(t, { ...options, transport: transport! }), {
    code: 'ERR_POOL_ADDRESS', message: /127\.0\.0\.1.*in use/,
  });
  const way = { address: '192.0.2.1', port: portOf(transport), peers: [] };
  const foreign: NativeTransport = { kind: 'udp', ways: [way], datagramBytesMax: 1472 };
  assert.throws(() => openPump(t, { ...options, transport: foreign }), { code: 'ERR_POOL_ADDRESS' });
});

test('udp: garbage, truncated, replayed and forged datagrams are counted and harm nothing', async (t) => {
  const transports = await udpTransports();
  const received: string[] = [];
  const receiver = openPump(t, {
    self: nodeId(1),
    incarnation: incarnation(5),
    transport: transports[1]!,
    listener: (_peer, _incarnation, body) => void received.push(Buffer.from(body).toString()),
  });
  const { FrameChannel } = loadNative();
  const secret = { poolName: 'test', poolKey: POOL_KEY };
  const genuine = new FrameChannel({ self: 0, members: [0, 1, 2], incarnation: 7, ...secret });
  const frame = genuine.seal(1, Buffer.from('genuine'))!;
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  const port = portOf(transports[1]);
  const send = (bytes: Uint8Array): Promise<void> =>
    new Promise((resolve) => socket.send(bytes, port, '127.0.0.1', () => resolve()));
  const changed = (offset: number, by = 1): Buffer => {
    const copy = Buffer.from(frame);
    copy[offset]! ^= by;
    return copy;
  };
  const counted = async (reason: string, bytes: Uint8Array): Promise<void> => {
    const name = `interconnect.refused.${reason}`;
    const before = receiver.counters()[name]!;
    await send(bytes);
    await eventually(`refused: ${reason}`, () => receiver.counters()[name] === before + 1);
  };
  await counted('truncated', Buffer.alloc(0));
  await counted('truncated', frame.subarray(0, 43));
  await counted('magic', changed(0));
  await counted('version', changed(4));
  await counted('flags', changed(5));
  await counted('length', frame.subarray(0, frame.length - 1));
  await counted('length', Buffer.concat([frame.subarray(0, 10), Buffer.from([44, 0]), frame.subarray(12)]));
  await counted('address', changed(8));
  await counted('sender', changed(6, 3 + 40));
  await counted('sender', changed(6));
  await counted('number', changed(19, 0x80));
  await counted('seal', changed(12));
  await counted('number', changed(20));
  await counted('seal', changed(21));
  await counted('seal', changed(30));
  await counted('seal', changed(frame.length - 1));
  await send(frame);
  await eventually('the genuine one', () => received.length === 1);
  await counted('replay', frame);
  const older = new FrameChannel({ self: 0, members: [0, 1], incarnation: 6, ...secret });
  await counted('incarnation', older.seal(1, Buffer.from('from the past'))!);
  await send(Buffer.concat([genuine.seal(1, Buffer.from('padded'))!, Buffer.alloc(30)]));
  await eventually('padding does not matter', () => received.length === 2);
  assert.deepEqual(received, ['genuine', 'padded']);
});

test('faults: loss, doubling and delay happen as often as asked, and repeat with the seed', async () => {
  const run = async (): Promise<string[]> => {
    const sent: string[] = [];
    const inner: Interconnect = {
      frameBodyBytesMax: 100,
      receiveFramesMax: 100,
      send: (_peer, body) => void sent.push(Buffer.from(body).toString()),
      flush: () => undefined,
    };
    const faulty = new FaultyInterconnect(inner, { lossPercent: 10, duplicatePercent: 20, delayMsMax: 3, seed: 42 });
    const bytes = Buffer.alloc(8);
    for (let i = 0; i < 2000; i++) {
      bytes.write(String(i).padStart(8));
      faulty.send(nodeId(1), bytes);
    }
    await eventually('the delayed', () => sent.length === 2000 - faulty.totals.lost + faulty.totals.doubled);
    assert.ok(faulty.totals.lost > 140 && faulty.totals.lost < 260, `${faulty.totals.lost} of 2000 lost`);
    assert.ok(faulty.totals.doubled > 260 && faulty.totals.doubled < 460, `${faulty.totals.doubled} doubled`);
    assert.ok(faulty.totals.delayed > 1000);
    assert.notDeepEqual(sent, [...sent].sort(), 'frames overtook each other');
    return sent.sort();
  };
  assert.deepEqual(await run(), await run());
});
