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

/** An interconnect of servers with two interfaces each, and what can happen to these. */
export interface TwoWayKind {
  name: string;
  skip: string | false;
  start(t: TestContext, listeners: FrameListener[]): Promise<TwoWayServers>;
}

export interface TwoWayServers extends Servers {
  /** The link of a server's interface, 0 or 1, in both directions. */
  setLink(way: number, server: number, state: 'up' | 'down'): void;
  /** Nothing reaches the server by this interface any more; what it sends arrives. */
  deafen(way: number, server: number): void;
  counters(server: number): Record<string, number>;
  /** When a peer was heard by each interface, in microseconds; 0: never. */
  heardAt(server: number, peer: NodeId): number[];
}

/** Frames sent in each situation. */
export const ROUND_FRAMES = 50;

/** Three servers with two interfaces each, of which some fail. */
export class TwoWays {
  private rounds = 0;

  private constructor(readonly servers: TwoWayServers, readonly received: Received[][]) {}

  static async start(t: TestContext, kind: TwoWayKind): Promise<TwoWays> {
    const received: Received[][] = [[], [], []];
    const listeners = received.map((list): FrameListener => (peer, incarnation, body) => {
      list.push({ peer, incarnation, body: Buffer.from(body) });
    });
    const ways = new TwoWays(await kind.start(t, listeners), received);
    await ways.allReachAll('in the beginning');
    return ways;
  }

  /** All send to all; everything arrives, once. */
  async allReachAll(when: string): Promise<void> {
    // what was sent before this is there
    await this.servers.settle();
    const before = this.received.map((list) => list.length);
    this.send();
    await this.servers.until(`all frames, ${when}`, () =>
      this.received.every((list, server) => list.length >= before[server]! + 2 * ROUND_FRAMES),
    );
    await this.servers.settle();
    this.received.forEach((list, server) => {
      const bodies = list.slice(before[server]).map(({ body }) => body.toString());
      assert.equal(bodies.length, 2 * ROUND_FRAMES, `${when}: at server ${server}`);
      assert.equal(new Set(bodies).size, bodies.length, when);
    });
  }

  /** All send to all, and what arrives is taken for nothing. */
  async sendInVain(): Promise<void> {
    this.send();
    await this.servers.settle();
  }

  private send(): void {
    this.rounds++;
    for (const [from, port] of this.servers.ports.entries()) {
      for (let i = 0; i < ROUND_FRAMES; i++) {
        for (const to of [0, 1, 2]) {
          if (to !== from) port.send(nodeId(to), Buffer.from(`${this.rounds}: ${from}>${to} ${i}`));
        }
      }
      port.flush();
    }
  }
}

/** What must hold with two interfaces, beside the contract of every interconnect. */
export function testTwoInterfaces(kind: TwoWayKind): void {
  const run = (name: string, body: (ways: TwoWays) => Promise<void>): void => {
    test(`${kind.name}: ${name}`, { skip: kind.skip }, async (t) => body(await TwoWays.start(t, kind)));
  };

  run('each frame goes by both interfaces and counts once', async ({ servers }) => {
    const first = (server: number, way: number): number =>
      servers.counters(server)[`interconnect.interface${way + 1}.first`]!;
    const copies = (server: number, way: number): number =>
      servers.counters(server)[`interconnect.interface${way + 1}.copies`]!;
    for (const server of [0, 1, 2]) {
      assert.equal(first(server, 0) + first(server, 1), 2 * ROUND_FRAMES);
      assert.equal(copies(server, 0) + copies(server, 1), 2 * ROUND_FRAMES);
      assert.equal(servers.counters(server)['interconnect.refused.replay'], 0);
      for (const peer of [0, 1, 2]) {
        if (peer !== server) assert.ok(servers.heardAt(server, nodeId(peer)).every((at) => at > 0), 'heard by both');
      }
    }
  });

  for (const way of [0, 1]) {
    run(`interface ${way + 1} of a server is down and comes back: all reach all`, async (ways) => {
      const { servers } = ways;
      servers.setLink(way, 1, 'down');
      await ways.allReachAll('one link down');
      const before = servers.heardAt(0, ONE);
      await ways.allReachAll('one link down for longer');
      const after = servers.heardAt(0, ONE);
      assert.equal(after[way], before[way], 'heard by a dead link');
      assert.ok(after[1 - way]! > before[1 - way]!);
      servers.setLink(way, 1, 'up');
      await servers.until('heard by it again', () => {
        servers.ports[1]!.send(ZERO, Buffer.from(`again ${ways.received[0]!.length}`));
        servers.ports[1]!.flush();
        return servers.heardAt(0, ONE)[way]! > after[way]!;
      });
    });

    run(`interface ${way + 1} of a server loses in one direction: all reach all`, async (ways) => {
      const { servers } = ways;
      servers.deafen(way, 2);
      await ways.allReachAll('one deaf interface');
      const before = servers.heardAt(2, ZERO)[way];
      const beforeThere = servers.heardAt(0, TWO)[way]!;
      await ways.allReachAll('one deaf interface for longer');
      assert.equal(servers.heardAt(2, ZERO)[way], before, 'the deaf one hears');
      assert.ok(servers.heardAt(0, TWO)[way]! > beforeThere, 'what it sends does not arrive');
    });
  }

  run('interfaces that are down on different servers: all that have one in common reach each other', async (ways) => {
    const { servers, received } = ways;
    servers.setLink(0, 0, 'down');
    servers.setLink(1, 1, 'down');
    const count = (server: number, peer: NodeId): number => received[server]!.filter((one) => one.peer === peer).length;
    const [between, to] = [count(0, ONE), count(0, TWO)];
    await ways.sendInVain();
    await servers.until('the third', () => count(0, TWO) === to + ROUND_FRAMES);
    assert.equal(count(0, ONE), between, 'they have no network in common');
    servers.setLink(0, 0, 'up');
    servers.setLink(1, 1, 'up');
    await servers.until('the other', () => {
      servers.ports[1]!.send(ZERO, Buffer.from(`again ${received[0]!.length}`));
      servers.ports[1]!.flush();
      return count(0, ONE) > between;
    });
  });

  run('both interfaces down and up again, one after the other', async (ways) => {
    const { servers, received } = ways;
    for (const way of [0, 1]) servers.setLink(way, 0, 'down');
    const before = received[0]!.length;
    await ways.sendInVain();
    assert.equal(received[0]!.length, before, 'a frame came by nothing');
    for (const way of [1, 0]) {
      servers.setLink(way, 0, 'up');
      const heard = servers.heardAt(0, ONE)[way]!;
      await servers.until(`interface ${way + 1}`, () => {
        servers.ports[1]!.send(ZERO, Buffer.from(`again ${received[0]!.length}`));
        servers.ports[1]!.flush();
        return servers.heardAt(0, ONE)[way]! > heard;
      });
    }
    await ways.allReachAll('in the end');
  });
}

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
