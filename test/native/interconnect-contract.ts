/**
 * What every interconnect must do, whatever carries the frames: run by interconnect.test on raw Ethernet, UDP and the
 * simulated wire. Three servers, each told what arrives at it.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { nodeId } from '../../src/base/ids.js';
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { FrameListener, Interconnect } from '../../src/ports/interconnect.js';
import { chooseSeed } from '../support/native-helpers.js';

export interface Servers {
  /** The port of each server. */
  ports: Interconnect[];
  incarnations: Incarnation[];
  /** Lets time pass until `check` answers true; throws when it does not. */
  until(what: string, check: () => boolean): Promise<void>;
  /** Lets time pass in which everything sent arrives. */
  settle(): Promise<void>;
  /** Ends a server and starts it again with the next incarnation. */
  restart(server: number): Promise<void>;
}

export interface InterconnectKind {
  name: string;
  skip: string | false;
  /** Starts three servers; `listeners` get what arrives. Everything ends with the test. */
  start(t: TestContext, listeners: FrameListener[]): Promise<Servers>;
}

interface Received {
  peer: NodeId;
  incarnation: Incarnation;
  body: Buffer;
}

async function startAll(t: TestContext, kind: InterconnectKind): Promise<{ servers: Servers; received: Received[][] }> {
  const received: Received[][] = [[], [], []];
  const listeners = received.map((list): FrameListener => (peer, incarnation, body) => {
    list.push({ peer, incarnation, body: Buffer.from(body) });
  });
  return { servers: await kind.start(t, listeners), received };
}

const ZERO = nodeId(0);
const ONE = nodeId(1);
const TWO = nodeId(2);

/** So many frames fit every receiver's buffers twice. */
const BURST_FRAMES = 200;

export function testInterconnect(kind: InterconnectKind): void {
  const run = (name: string, body: (t: TestContext) => Promise<void>): void => {
    test(`${kind.name}: ${name}`, { skip: kind.skip }, body);
  };

  run('a frame arrives once, at its receiver only, with sender and incarnation', async (t) => {
    const { servers, received } = await startAll(t, kind);
    servers.ports[0]!.send(ONE, Buffer.from('hello'));
    servers.ports[0]!.flush();
    await servers.until('the frame', () => received[1]!.length === 1);
    await servers.settle();
    assert.deepEqual(received[1], [{ peer: ZERO, incarnation: servers.incarnations[0], body: Buffer.from('hello') }]);
    assert.deepEqual([received[0]!.length, received[2]!.length], [0, 0]);
  });

  run('bodies of every length up to the longest arrive unchanged', async (t) => {
    const prng = new Prng(chooseSeed(t));
    const { servers, received } = await startAll(t, kind);
    const longest = servers.ports[0]!.frameBodyBytesMax;
    assert.ok(longest >= 1000 && longest <= 65_000, `${longest}`);
    const random = Array.from({ length: 30 }, () => 1 + prng.below(longest));
    const lengths = [1, 2, 3, 16, 17, 63, 64, longest - 1, longest, ...random];
    const bodies = lengths.map((length) => Buffer.from(prng.bytes(length)));
    for (const body of bodies) servers.ports[0]!.send(TWO, body);
    servers.ports[0]!.flush();
    await servers.until('all', () => received[2]!.length === bodies.length);
    received[2]!.forEach(({ body }, i) => assert.ok(body.equals(bodies[i]!), `${lengths[i]} bytes`));
  });

  run('the body may be changed right after it was given', async (t) => {
    const { servers, received } = await startAll(t, kind);
    const body = Buffer.from('first');
    servers.ports[1]!.send(ZERO, body);
    body.write('other');
    servers.ports[1]!.send(ZERO, body);
    body.fill(0);
    servers.ports[1]!.flush();
    await servers.until('both', () => received[0]!.length === 2);
    assert.deepEqual(received[0]!.map((frame) => frame.body.toString()), ['first', 'other']);
  });

  run('a burst that fits the receiver arrives whole and in order, from both others at once', async (t) => {
    const { servers, received } = await startAll(t, kind);
    assert.ok(servers.ports[2]!.receiveFramesMax >= 2 * BURST_FRAMES, `${servers.ports[2]!.receiveFramesMax}`);
    for (let i = 0; i < BURST_FRAMES; i++) {
      for (const sender of [0, 1]) servers.ports[sender]!.send(TWO, Buffer.from(`${sender} ${i} ${'x'.repeat(i * 5)}`));
    }
    servers.ports[0]!.flush();
    servers.ports[1]!.flush();
    await servers.until('all', () => received[2]!.length === 2 * BURST_FRAMES);
    for (const sender of [ZERO, ONE]) {
      const own = received[2]!.filter(({ peer }) => peer === sender);
      const numbers = own.map(({ body }) => Number(body.toString().split(' ')[1]));
      assert.deepEqual(numbers, Array.from({ length: BURST_FRAMES }, (_, i) => i));
    }
  });

  run('all servers talk to all', async (t) => {
    const { servers, received } = await startAll(t, kind);
    for (let round = 0; round < 10; round++) {
      for (const from of [0, 1, 2]) {
        for (const to of [0, 1, 2]) {
          if (from !== to) servers.ports[from]!.send(nodeId(to), Buffer.from(`${from}>${to} ${round}`));
        }
        servers.ports[from]!.flush();
      }
      await servers.until('the round', () => received.every((list) => list.length === 2 * (round + 1)));
    }
    received.forEach((list, to) => {
      for (const { peer, body } of list) assert.match(body.toString(), new RegExp(`^${peer}>${to} \\d$`));
    });
  });

  run('what cannot be sent is dropped and harms nothing', async (t) => {
    const { servers, received } = await startAll(t, kind);
    const port = servers.ports[0]!;
    port.send(nodeId(33), Buffer.from('to nobody'));
    port.send(ONE, new Uint8Array(0));
    port.send(ONE, new Uint8Array(port.frameBodyBytesMax + 1));
    port.send(ONE, new Uint8Array(2_000_000));
    port.send(ONE, Buffer.from('good'));
    port.flush();
    await servers.until('the good one', () => received[1]!.length === 1);
    await servers.settle();
    assert.deepEqual(received[1]!.map((frame) => frame.body.toString()), ['good']);
  });

  run('a server that starts again is heard under its new incarnation', async (t) => {
    const { servers, received } = await startAll(t, kind);
    for (const from of [0, 1]) {
      servers.ports[from]!.send(TWO, Buffer.from('before'));
      servers.ports[from]!.flush();
    }
    await servers.until('both', () => received[2]!.length === 2);
    const before = servers.incarnations[0]!;
    await servers.restart(0);
    assert.ok(servers.incarnations[0]! > before);
    servers.ports[0]!.send(TWO, Buffer.from('after'));
    servers.ports[0]!.flush();
    await servers.until('it', () => received[2]!.length === 3);
    assert.deepEqual(received[2]![2], { peer: ZERO, incarnation: servers.incarnations[0], body: Buffer.from('after') });
    servers.ports[2]!.send(ZERO, Buffer.from('welcome'));
    servers.ports[2]!.flush();
    await servers.until('the answer', () => received[0]!.some(({ body }) => body.toString() === 'welcome'));
  });
}
