/**
 * The link layer on a simulated wire: whatever the wire does, each message arrives exactly once and in order per
 * incarnation of the receiver, restarts are told, silence is noticed, and nothing is left when all is done. Messages
 * pass between runs that are members of the view, and none before the receiver has installed the sender's.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Epoch, Incarnation, NodeId } from '../../src/base/ids.js';
import { nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { SendMode } from '../../src/core/context.js';
import { Links } from '../../src/core/link/link.js';
import {
  ACK_DELAY_MICROS, MESSAGE_BYTES_MAX, PROBE_MICROS_MIN, QUEUE_BYTES_MAX, RIDE_MICROS, SILENCE_MICROS_MAX,
} from '../../src/core/link/limits.js';
import { Timers } from '../../src/core/timers.js';
import { decodeFrame } from '../../src/wire/frame.js';
import type { Announcement } from '../../src/wire/protocol-version.js';
import { PROTOCOL } from '../../src/wire/protocol-version.js';
import { ANNOUNCEMENT } from '../support/announcement.js';
import { SimulatedTime } from '../support/simulated-time.js';
import type { WireFaults } from '../support/simulated-wire.js';
import { PERFECT_WIRE, SimulatedWire } from '../support/simulated-wire.js';

const EPOCH = 7 as Epoch;
const FIRST_RUN = 1 as Incarnation;
const seedBase = Number(process.env.SEED ?? 4711);
console.log(`seed ${seedBase}`);

/** One server that has links and nothing else: it notes what it is told. */
class Station {
  readonly timers = new Timers();
  readonly counts = new Map<string, number>();
  readonly heard: string[] = [];
  readonly announced: string[] = [];
  /** Messages per (peer, incarnation of ours): what arrived, by peer. */
  readonly messages = new Map<NodeId, Uint8Array[]>();
  readonly links: Links;
  onMessage: ((peer: NodeId, message: Uint8Array) => void) | null = null;
  dead = false;
  private wakeAt = Infinity;

  constructor(
    readonly time: SimulatedTime,
    readonly wire: SimulatedWire,
    readonly self: NodeId,
    all: readonly NodeId[],
    readonly incarnation: Incarnation,
    bodyBytesMax = 500,
    receiveFramesMax = 256,
    members: ReadonlyMap<NodeId, Incarnation> | null = new Map(all.map((node) => [node, FIRST_RUN])),
    announcement: Announcement = ANNOUNCEMENT,
  ) {
    const peers = all.filter((node) => node !== self);
    this.links = new Links(
      { self, peers, incarnation, announcement, frameBodyBytesMax: bodyBytesMax, receiveFramesMax },
      {
        now: () => time.now,
        timers: this.timers,
        log: () => undefined,
        count: (name, by = 1) => void this.counts.set(name, (this.counts.get(name) ?? 0) + by),
      },
      {
        deliver: (peer, message) => {
          const list = this.messages.get(peer) ?? [];
          this.messages.set(peer, list);
          list.push(Uint8Array.prototype.slice.call(message));
          this.onMessage?.(peer, message);
        },
        peerUp: (peer, of) => void this.heard.push(`up ${peer} ${of}`),
        peerDown: (peer, why) => void this.heard.push(`down ${peer}: ${why}`),
        givenUpBy: (peer) => void this.heard.push(`given up by ${peer}`),
        announced: (peer, of, { speaks, release }) =>
          void this.announced.push(`${peer} ${of}: ${release} ${speaks.min}-${speaks.max}`),
        peerReturned: (peer, of) => void this.heard.push(`returned ${peer} ${of}`),
        sendFrame: (peer, body) => {
          assert.ok(body.length <= bodyBytesMax, `frame of ${body.length} bytes`);
          wire.send(self, incarnation, peer, body);
        },
      },
    );
    if (members !== null) this.links.install(EPOCH, members);
    wire.attach(self, (from, of, body) => this.turn(() => this.links.onFrame(from, of, body)));
    this.arm();
  }

  turn(work: () => void): void {
    if (this.dead) return;
    this.timers.run(this.time.now);
    work();
    this.links.flush();
    this.arm();
  }

  /** A view with these runs. */
  install(epoch: number, ...runs: number[]): void {
    const members = new Map(runs.map((run, node) => [nodeId(node), run as Incarnation]));
    this.turn(() => this.links.install(epoch as Epoch, members));
  }

  send(peer: NodeId, message: Uint8Array, mode?: SendMode): boolean {
    let sent = false;
    this.turn(() => {
      sent = this.links.send(peer, message, mode);
    });
    return sent;
  }

  die(): void {
    this.dead = true;
  }

  private arm(): void {
    const due = this.timers.deadline();
    if (due === Infinity || (this.wakeAt <= due && this.wakeAt > this.time.now)) return;
    this.wakeAt = due;
    this.time.after(due - this.time.now, () => {
      if (this.time.now >= this.wakeAt) this.wakeAt = Infinity;
      this.turn(() => undefined);
    });
  }

  texts(peer: NodeId): string[] {
    return (this.messages.get(peer) ?? []).map((message) => Buffer.from(message).toString());
  }
}

interface World {
  time: SimulatedTime;
  wire: SimulatedWire;
  stations: Station[];
  ids: NodeId[];
}

function world(seed: number, count: number, faults: WireFaults = PERFECT_WIRE): World {
  const time = new SimulatedTime();
  const wire = new SimulatedWire(time, new Prng(seed), faults);
  const ids = Array.from({ length: count }, (_, i) => nodeId(i));
  const stations = ids.map((id) => new Station(time, wire, id, ids, 1 as Incarnation));
  return { time, wire, stations, ids };
}

/** A later run of server 1, which knows the view that names it. */
function secondRun({ time, wire, ids }: Omit<World, 'stations'>, run = 2): Station {
  const station = new Station(time, wire, one, ids, run as Incarnation, 500, 256, null);
  station.install(EPOCH + 1, 1, run);
  return station;
}

const text = (value: string): Uint8Array => Buffer.from(value);
const [zero, one] = [nodeId(0), nodeId(1)];

test('two servers meet, tell each other once, and know the round trip', () => {
  const { time, stations } = world(1, 2);
  time.advance(10_000);
  for (const [self, peer] of [
    [0, 1],
    [1, 0],
  ] as const) {
    assert.deepEqual(stations[self]!.heard, [`up ${peer} 1`]);
    const status = stations[self]!.links.status()[0]!;
    assert.equal(status.up, true);
    assert.equal(status.rttMinMicros, 100);
    assert.equal(status.incarnation, 1);
    assert.deepEqual(stations[self]!.announced, [`${peer} 1: test ${PROTOCOL.min}-${PROTOCOL.max}`]);
  }
});

test('what a run says of itself is told once, member or not, and again of its next run', () => {
  const { time, wire, stations, ids } = world(1, 2);
  stations[1]!.die();
  time.advance(100_000);
  stations[0]!.announced.length = 0;
  const start = (run: number, release: string): Station => new Station(
    time, wire, one, ids, run as Incarnation, 500, 256, null, { speaks: { min: 1, max: run }, release });
  const second = start(2, '0.1.0');
  time.advance(500_000);
  second.die();
  start(3, '0.2.0');
  time.advance(500_000);
  assert.deepEqual(stations[0]!.announced, ['1 2: 0.1.0 1-2', '1 3: 0.2.0 1-3']);
  assert.equal(stations[0]!.links.status()[0]!.announcement!.release, '0.2.0');
});

test('messages of one turn share a frame; one that fits a frame is never cut', () => {
  const { time, wire, stations } = world(1, 2);
  time.advance(10_000);
  const frames: number[] = [];
  wire.onSend = (from, _to, body) => {
    const frame = decodeFrame(body);
    if (from === 0 && frame.kind === 'data') frames.push(frame.records.length);
  };
  stations[0]!.turn(() => {
    for (let i = 0; i < 10; i++) stations[0]!.links.send(one, text(`message ${i}`));
    stations[0]!.links.send(one, Buffer.alloc(430, 'x'));
  });
  time.advance(1_000);
  assert.deepEqual(frames, [10, 1]);
  assert.equal(stations[1]!.texts(zero).length, 11);
});

test('data that flows back carries the acknowledgement; else one pure ack follows within its delay', () => {
  const { time, wire, stations } = world(1, 2);
  time.advance(10_000);
  const kinds: string[] = [];
  wire.onSend = (from, _to, body) => void kinds.push(`${from} ${decodeFrame(body).kind}`);
  stations[1]!.onMessage = (peer) => void stations[1]!.links.send(peer, text('answer'));
  stations[0]!.send(one, text('question'));
  time.advance(2_000);
  assert.deepEqual(kinds, ['0 data', '1 data', '0 ack']);
});

test('exactly once and in order on a bad wire', () => {
  for (let seed = seedBase; seed < seedBase + 12; seed++) {
    const faults = {
      lossProbability: 0.3,
      duplicateProbability: 0.1,
      reorderProbability: 0.2,
      reorderMicrosMax: 2_000,
      delayMicrosMin: 20,
      delayMicrosMax: 400,
    };
    const { time, stations, ids } = world(seed, 3, faults);
    const prng = new Prng(seed + 1);
    const expected = new Map<string, Buffer[]>();
    for (let i = 0; i < 400; i++) {
      const from = prng.pick(ids);
      const to = prng.pick(ids.filter((id) => id !== from));
      const size = prng.chance(0.05) ? prng.below(6_000) : prng.below(300);
      const message = Buffer.concat([text(`${i} `), prng.bytes(size)]);
      const path = `${from}>${to}`;
      expected.set(path, [...(expected.get(path) ?? []), message]);
      assert.equal(stations[from]!.send(to, message), true);
      time.advance(prng.below(1_000));
    }
    time.advance(5_000_000);
    for (const [path, messages] of expected) {
      const [from, to] = path.split('>').map(Number) as [number, number];
      const got = stations[to]!.messages.get(nodeId(from)) ?? [];
      assert.equal(got.length, messages.length, `seed ${seed} ${path}`);
      messages.forEach((message, i) => assert.ok(message.equals(got[i]!), `seed ${seed} ${path} message ${i}`));
    }
    for (const station of stations) {
      for (const status of station.links.status()) assert.equal(status.queuedBytes, 0, `seed ${seed}`);
      assert.ok(!station.heard.some((line) => line.startsWith('down')), `seed ${seed}`);
    }
  }
});

test('nothing is sent again on a link that is only slow, and few acknowledgements travel alone', () => {
  for (const delay of [100, 1_000, 3_000]) {
    const { time, stations } = world(1, 2, { ...PERFECT_WIRE, delayMicrosMin: delay, delayMicrosMax: delay });
    time.advance(500_000);
    const before = stations[1]!.links.status()[0]!.framesSent;
    for (let i = 0; i < 1_000; i++) {
      stations[0]!.send(one, text(`one way ${i}`));
      time.advance(500);
    }
    time.advance(50_000);
    assert.equal(stations[1]!.texts(zero).length, 1_000);
    assert.equal(stations[0]!.links.status()[0]!.retransmitted, 0, `delay ${delay}`);
    assert.ok(stations[1]!.links.status()[0]!.framesSent - before <= 520, 'one for two frames at most, and heartbeats');
  }
});

test('what can wait rides with the next message or acknowledgement, in order, and goes alone at last', () => {
  const { time, stations } = world(1, 2);
  time.advance(1_000);
  const [from, to] = [stations[0]!, stations[1]!];
  const frames = (): number => from.links.status()[0]!.framesSent;
  const quiet = frames();
  from.send(one, text('can wait'), 'ride');
  time.advance(RIDE_MICROS - 500);
  assert.deepEqual(to.texts(zero), []);
  assert.equal(frames(), quiet);
  from.send(one, text('now'));
  time.advance(200);
  assert.deepEqual(to.texts(zero), ['can wait', 'now']);
  assert.equal(frames(), quiet + 1, 'one frame for both');
  time.advance(3_000);
  from.send(one, text('with the acknowledgement'), 'ride');
  to.send(zero, text('to be acknowledged'));
  time.advance(ACK_DELAY_MICROS + 500);
  assert.equal(to.texts(zero).length, 3);
  time.advance(3_000);
  from.send(one, text('alone'), 'ride');
  time.advance(RIDE_MICROS + 500);
  assert.equal(to.texts(zero).length, 4);
});

test('a lost frame costs a round trip when others follow, and a probe when it was the last', () => {
  const { time, wire, stations } = world(1, 2);
  time.advance(10_000);
  let toLose = 1;
  wire.loseIf = (from, _to, body) => from === 0 && decodeFrame(body).kind === 'data' && toLose-- > 0;
  stations[0]!.send(one, text('lost'));
  time.advance(10);
  stations[0]!.send(one, text('follower'));
  time.advance(200);
  assert.deepEqual(stations[1]!.texts(zero), ['lost', 'follower']);
  toLose = 1;
  stations[0]!.send(one, text('last'));
  time.advance(PROBE_MICROS_MIN + 200);
  assert.deepEqual(stations[1]!.texts(zero), ['lost', 'follower', 'last']);
  assert.equal(stations[0]!.links.status()[0]!.retransmitted, 2);
  assert.equal(stations[1]!.links.status()[0]!.gaps, 1);
});

test('never more frames under way than the receiver allows', () => {
  const { time, wire, stations } = world(1, 2, { ...PERFECT_WIRE, delayMicrosMin: 5_000, delayMicrosMax: 5_000 });
  time.advance(200_000);
  const window = decodeWindow(wire, () => time.advance(100_000));
  let data = 0;
  wire.onSend = (from, _to, body) => {
    if (from === 0 && decodeFrame(body).kind === 'data') data++;
  };
  stations[0]!.turn(() => {
    for (let i = 0; i < 1_000; i++) stations[0]!.links.send(one, Buffer.alloc(400, 1));
  });
  assert.equal(data, window);
  assert.ok(window <= 128);
  time.advance(3_000_000);
  assert.equal(stations[1]!.messages.get(zero)!.length, 1_000);
});

function decodeWindow(wire: SimulatedWire, run: () => void): number {
  let window = 0;
  wire.onSend = (from, _to, body) => {
    if (from === 1) window = decodeFrame(body).window;
  };
  run();
  return window;
}

test('the windows of all peers take at most half of the receive ring', () => {
  for (const [ring, peers] of [
    [256, 2],
    [64, 15],
    [4096, 63],
    [2, 63],
  ] as const) {
    const ids = Array.from({ length: peers + 1 }, (_, i) => nodeId(i));
    const time = new SimulatedTime();
    const wire = new SimulatedWire(time, new Prng(1));
    let window = 0;
    wire.onSend = (_from, _to, body) => {
      window = decodeFrame(body).window;
    };
    new Station(time, wire, zero, ids, 1 as Incarnation, 500, ring);
    time.advance(1_000);
    assert.ok(window >= 1 && (window === 1 || window * peers <= ring / 2), `${ring} frames, ${peers} peers: ${window}`);
  }
});

test('a partition that heals loses nothing and tells the silence', () => {
  const { time, wire, stations, ids } = world(3, 2);
  time.advance(10_000);
  stations[0]!.send(one, text('before'));
  time.advance(1_000);
  wire.isolate(zero, ids);
  stations[0]!.send(one, text('meanwhile'));
  time.advance(SILENCE_MICROS_MAX + 200_000);
  assert.equal(stations[0]!.links.isUp(one), false);
  stations[0]!.send(one, text('while down'));
  assert.equal(stations[0]!.links.send(one, text('not worth waiting'), 'drop'), false);
  assert.equal(stations[0]!.links.send(one, text('for this run'), 'met'), true);
  wire.heal();
  time.advance(300_000);
  assert.deepEqual(stations[1]!.texts(zero), ['before', 'meanwhile', 'while down', 'for this run']);
  assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: silent', 'returned 1 1']);
});

test('one-way silence is noticed by the one who hears nothing, and nothing is lost', () => {
  const { time, wire, stations } = world(3, 2);
  time.advance(10_000);
  wire.cut(zero, one);
  stations[0]!.send(one, text('not heard'));
  time.advance(SILENCE_MICROS_MAX + 500_000);
  assert.equal(stations[1]!.links.isUp(zero), false);
  wire.heal();
  time.advance(300_000);
  assert.deepEqual(stations[1]!.texts(zero), ['not heard']);
});

test('who is heard knows whether it is heard itself: by this run of it, and lately', () => {
  const { time, wire, stations } = world(3, 2);
  const [first, second] = stations as [Station, Station];
  time.advance(500_000);
  assert.equal(first.links.isHeardBy(one, 100_000) && second.links.isHeardBy(zero, 100_000), true);
  wire.cut(zero, one);
  time.advance(300_000);
  assert.equal(first.links.isUp(one), true, 'it hears the other');
  assert.equal(first.links.isHeardBy(one, 100_000), false);
  wire.heal();
  time.advance(300_000);
  assert.equal(first.links.isHeardBy(one, 100_000), true);
});

test('a restarted peer is announced anew and gets nothing meant for its former life', () => {
  for (let seed = seedBase; seed < seedBase + 20; seed++) {
    const faults = { ...PERFECT_WIRE, lossProbability: 0.2, duplicateProbability: 0.2, reorderProbability: 0.3 };
    const { time, wire, stations, ids } = world(seed, 2, { ...faults, reorderMicrosMax: 5_000 });
    time.advance(300_000);
    for (let i = 0; i < 20; i++) stations[0]!.send(one, text(`old ${i}`));
    stations[1]!.send(zero, text('from the old one'));
    stations[1]!.die();
    const second = secondRun({ time, wire, ids });
    second.send(zero, text('from the new one'));
    time.advance(500_000);
    assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: started anew'], `seed ${seed}`);
    assert.ok(!stations[0]!.texts(one).includes('from the new one'), `seed ${seed}: it is no member yet`);
    stations[0]!.install(EPOCH + 1, 1, 2);
    for (let i = 0; i < 20; i++) stations[0]!.send(one, text(`new ${i}`));
    time.advance(1_000_000);
    assert.deepEqual(
      second.texts(zero),
      Array.from({ length: 20 }, (_, i) => `new ${i}`),
      `seed ${seed}`,
    );
    assert.deepEqual(second.heard, ['up 0 1'], `seed ${seed}`);
    assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: started anew', 'up 1 2'], `seed ${seed}`);
    const last = stations[0]!.texts(one).at(-1);
    assert.equal(last, 'from the new one', `seed ${seed}`);
  }
});

test('a run known from the view before it was heard gets what was sent before the first contact', () => {
  const time = new SimulatedTime();
  const wire = new SimulatedWire(time, new Prng(3));
  const early = new Station(time, wire, zero, [zero, one], FIRST_RUN, 500, 256, null);
  assert.equal(early.send(one, text('to nobody')), false, 'no view names a run');
  early.install(EPOCH, 1, 5);
  assert.equal(early.send(one, text('early')), true);
  time.advance(3_000_000);
  const late = new Station(time, wire, one, [zero, one], 5 as Incarnation, 500, 256, null);
  time.advance(200_000);
  assert.deepEqual(late.texts(zero), [], 'it has not installed the view');
  late.install(EPOCH, 1, 5);
  time.advance(200_000);
  assert.deepEqual(late.texts(zero), ['early']);
  assert.deepEqual(early.heard, ['up 1 5']);
});

test('what is sent before a new run of the peer is a member does not reach that run', () => {
  const { time, wire, stations, ids } = world(3, 2);
  time.advance(10_000);
  stations[1]!.die();
  const second = secondRun({ time, wire, ids });
  time.advance(5_000);
  assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: started anew']);
  assert.equal(stations[0]!.send(one, text('for the old run')), false);
  time.advance(200_000);
  stations[0]!.install(EPOCH + 1, 1, 2);
  assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: started anew', 'up 1 2'], 'at once: it is heard already');
  stations[0]!.send(one, text('for the new run'));
  time.advance(10_000);
  assert.deepEqual(second.texts(zero), ['for the new run']);
});

test('what is for the present run of a peer is lost before that run is met', () => {
  const { time, wire, stations, ids } = world(3, 2);
  assert.equal(stations[0]!.links.send(one, text('to whom?'), 'met'), false);
  time.advance(10_000);
  assert.equal(stations[0]!.links.send(one, text('met'), 'met'), true);
  stations[0]!.send(one, text('next'));
  time.advance(10_000);
  assert.deepEqual(stations[1]!.texts(zero), ['met', 'next']);
  wire.isolate(zero, ids);
  stations[0]!.links.send(one, text('for the old run'), 'met');
  stations[1]!.die();
  const second = secondRun({ time, wire, ids });
  stations[0]!.install(EPOCH + 1, 1, 2);
  assert.equal(stations[0]!.links.send(one, text('not met yet'), 'met'), false);
  wire.heal();
  time.advance(SILENCE_MICROS_MAX);
  assert.deepEqual(second.texts(zero), []);
});

test('what waits for a run that never heard us is not for its next one', () => {
  const time = new SimulatedTime();
  const wire = new SimulatedWire(time, new Prng(1));
  const ids = [zero, one];
  const early = new Station(time, wire, zero, ids, FIRST_RUN, 500, 256, new Map([[zero, 1], [one, 5]] as never));
  early.send(one, text('for run 5'));
  wire.cut(zero, one);
  const first = new Station(time, wire, one, ids, 5 as Incarnation, 500, 256, null);
  time.advance(300_000);
  first.die();
  wire.heal();
  const second = secondRun({ time, wire, ids }, 6);
  early.install(EPOCH + 1, 1, 6);
  early.send(one, text('for run 6'));
  time.advance(300_000);
  assert.deepEqual(early.heard, ['up 1 6']);
  assert.deepEqual(second.texts(zero), ['for run 6']);
});

test('messages pass between members only, and both ends hear of the first contact when they are', () => {
  const time = new SimulatedTime();
  const wire = new SimulatedWire(time, new Prng(1));
  const ids = [zero, one];
  const [a, b] = ids.map((id) => new Station(time, wire, id, ids, FIRST_RUN, 500, 256, null)) as [Station, Station];
  time.advance(300_000);
  assert.equal(a.links.isUp(one), false);
  assert.equal(a.send(one, text('too early')), false);
  assert.deepEqual([a.heard, b.heard], [[], []]);
  a.install(EPOCH, 1, 1);
  assert.equal(a.links.isUp(one), true);
  assert.deepEqual(a.heard, ['up 1 1']);
  a.send(one, text('waits for your view'));
  time.advance(50_000);
  assert.deepEqual([b.texts(zero), b.heard], [[], []]);
  assert.ok((b.counts.get('link.frame.refused.not-a-member') ?? 0) > 0);
  b.install(EPOCH, 1, 1);
  time.advance(200_000);
  assert.deepEqual([b.texts(zero), b.heard], [['waits for your view'], ['up 0 1']]);
});

test('what is sent under a later view is not taken before that is installed, and comes again in order', () => {
  const { time, stations } = world(3, 2);
  time.advance(10_000);
  const [from, to] = [stations[0]!, stations[1]!];
  from.send(one, text('of the first view'));
  time.advance(5_000);
  from.install(EPOCH + 1, 1, 1);
  for (let i = 0; i < 3; i++) from.send(one, text(`of the second view ${i}`));
  time.advance(500_000);
  assert.deepEqual(to.texts(zero), ['of the first view']);
  assert.ok((to.counts.get('link.frame.refused.epoch-ahead') ?? 0) > 0);
  // the other way it passes: what was said before is of use in a later view
  to.send(zero, text('behind'));
  time.advance(5_000);
  assert.deepEqual(from.texts(one), ['behind']);
  to.install(EPOCH + 1, 1, 1);
  time.advance(200_000);
  assert.deepEqual(to.texts(zero).slice(1), [0, 1, 2].map((i) => `of the second view ${i}`));
  assert.deepEqual([from.heard, to.heard], [['up 1 1'], ['up 0 1']], 'nobody was called down');
});

test('a run that is out of the view is given up, and hears it', () => {
  const { time, wire, stations, ids } = world(3, 2);
  time.advance(10_000);
  const [from, to] = [stations[0]!, stations[1]!];
  wire.isolate(zero, ids);
  from.send(one, text('waits'));
  to.send(zero, text('from a run that is out'));
  from.turn(() => from.links.install((EPOCH + 1) as Epoch, new Map([[zero, FIRST_RUN]])));
  assert.deepEqual(from.heard, ['up 1 1', 'down 1: left the pool']);
  assert.equal(from.links.status()[0]!.queuedBytes, 0, 'nothing waits for it any more');
  assert.equal(from.send(one, text('to a run that is out')), false);
  wire.heal();
  time.advance(500_000);
  assert.deepEqual([from.texts(one), to.texts(zero)], [[], []]);
  assert.deepEqual([...new Set(to.heard)], ['up 0 1', 'given up by 0']);
  assert.equal(from.links.isUp(one), false);

  to.die();
  const next = secondRun({ time, wire, ids });
  from.install(EPOCH + 1, 1, 2);
  from.send(one, text('to the next run'));
  time.advance(300_000);
  assert.deepEqual(next.texts(zero), ['to the next run']);
  assert.equal(from.heard.at(-1), 'up 1 2');
  assert.deepEqual(next.heard, ['up 0 1']);
});

test('a server that slept judges nobody by its sleep', () => {
  const { time, stations } = world(3, 2);
  time.advance(100_000);
  const sleeper = stations[0]!;
  // its timers fire 3 s late, before it could read what arrived meanwhile
  const held: (() => void)[] = [];
  const turn = sleeper.turn.bind(sleeper);
  sleeper.turn = (work) => void held.push(() => turn(work));
  time.advance(3_000_000);
  sleeper.turn = turn;
  for (const work of held) work();
  time.advance(300_000);
  assert.deepEqual(sleeper.heard, ['up 1 1']);
});

test('who missed what overflowed hears of it, and is spoken with again in its next run only', () => {
  const { time, wire, stations, ids } = world(3, 2);
  time.advance(10_000);
  stations[0]!.send(one, text('first'));
  time.advance(10_000);
  wire.isolate(zero, ids);
  const big = Buffer.alloc(MESSAGE_BYTES_MAX, 1);
  stations[0]!.turn(() => {
    for (let i = 0; i < QUEUE_BYTES_MAX / MESSAGE_BYTES_MAX; i++) stations[0]!.links.send(one, big);
    assert.equal(stations[0]!.links.send(one, text('one too many')), false);
    assert.equal(stations[0]!.links.send(one, text('nor anything later')), false);
  });
  assert.equal(stations[0]!.counts.get('link.queue.overflow'), 1);
  wire.heal();
  time.advance(300_000);
  stations[0]!.send(one, text('after'));
  time.advance(100_000);
  assert.deepEqual(stations[1]!.texts(zero), ['first']);
  assert.deepEqual(stations[0]!.heard, ['up 1 1', 'down 1: too much waited for it']);
  assert.deepEqual([...new Set(stations[1]!.heard)], ['up 0 1', 'given up by 0']);

  stations[1]!.die();
  const next = secondRun({ time, wire, ids });
  stations[0]!.install(EPOCH + 1, 1, 2);
  time.advance(300_000);
  stations[0]!.send(one, text('to the next run'));
  time.advance(100_000);
  assert.deepEqual(next.texts(zero), ['to the next run']);
  assert.equal(stations[0]!.heard.at(-1), 'up 1 2');
  assert.deepEqual(next.heard, ['up 0 1']);
});

test('a message above the limit is refused, one of many frames arrives', () => {
  const { time, stations } = world(3, 2);
  time.advance(10_000);
  assert.equal(stations[0]!.send(one, new Uint8Array(MESSAGE_BYTES_MAX + 1)), false);
  const message = Buffer.from(new Prng(5).bytes(300_000));
  assert.equal(stations[0]!.send(one, message), true);
  time.advance(2_000_000);
  assert.ok(message.equals(stations[1]!.messages.get(zero)![0]!));
});

test('garbage and frames of strangers are counted and change nothing', () => {
  const { time, stations } = world(3, 2);
  time.advance(10_000);
  const { links, counts } = stations[0]!;
  const prng = new Prng(seedBase);
  for (let i = 0; i < 2_000; i++) links.onFrame(one, 1 as Incarnation, prng.bytes(prng.below(200)));
  links.onFrame(nodeId(9), 1 as Incarnation, prng.bytes(80));
  const refused = [...counts].filter(([name]) => name.startsWith('link.frame.refused.'));
  assert.equal(
    refused.reduce((sum, [, count]) => sum + count, 0),
    2_001,
  );
  assert.equal(counts.get('link.frame.refused.unknown-peer'), 1);
  stations[1]!.send(zero, text('still here'));
  time.advance(1_000);
  assert.deepEqual(stations[0]!.texts(one), ['still here']);
});
