/** A peer that was not configured at the start is reached when the pool has taken it in, by UDP at its address. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { incarnation, nodeId } from '../../src/base/ids.js';
import type { Pump } from '../../src/host/pump.js';
import { eventually } from '../support/native-helpers.js';
import { openPump, portOf, udpTransports } from '../support/pumps.js';

const [ZERO, ONE] = [nodeId(0), nodeId(1)];

test('udp: a peer gets an address while the interconnect runs', async (t) => {
  const [first, second] = await udpTransports();
  assert.ok(first?.kind === 'udp' && second !== undefined);
  const alone = { ...first, ways: first.ways.map((way) => ({ ...way, peers: [] })) };
  const heard: string[] = [];
  const sender: Pump = openPump(t, { self: ZERO, incarnation: incarnation(5), transport: alone });
  openPump(t, {
    self: ONE, incarnation: incarnation(6), transport: second,
    listener: (peer, of, body) => void heard.push(`${peer}/${of} ${Buffer.from(body).toString()}`),
  });
  const say = (text: string): void => {
    sender.send(ONE, Buffer.from(text));
    sender.flush();
  };
  say('to nobody');
  assert.equal(sender.counters()['interconnect.send.nobody'], 1);
  assert.throws(() => sender.setPeer(ONE, 0, { address: 'nowhere', port: 1 }), /cannot read address of peer/);
  assert.throws(() => sender.setPeer(ONE, 0, { address: '::1', port: 1 }), /mix IPv4 and IPv6/);
  assert.throws(() => sender.setPeer(ONE, 1, { address: '127.0.0.1', port: 1 }), /interface/);
  sender.setPeer(ONE, 0, { address: '127.0.0.1', port: portOf(second) });
  say('found');
  await eventually('the frame arrives', () => heard.length > 0);
  assert.deepEqual(heard, ['0/5 found']);
});
