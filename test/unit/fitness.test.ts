/**
 * What servers say of their fitness, and how the wish to drain one reaches it: the room alone, with the others' rooms
 * beside it, and garbage for its messages.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import type { ClientId, NodeId } from '../../src/base/ids.js';
import { epoch, nodeId } from '../../src/base/ids.js';
import type { CoreContext } from '../../src/core/context.js';
import type { Effect } from '../../src/core/effects.js';
import { Fitness, NO_SMBD } from '../../src/core/fitness/fitness.js';
import type { CachingSmbds } from '../../src/core/fitness/lease-breaks.js';
import { Timers } from '../../src/core/timers.js';
import type { FitnessMessage } from '../../src/wire/fitness-messages.js';
import {
  CLIENTS_NAMED_MAX, REASONS_MAX, REASON_BYTES_MAX, cutReason, decodeFitnessMessage, encodeFitnessMessage,
} from '../../src/wire/fitness-messages.js';
import { fuzz, spoil } from '../support/fuzzing.js';

const NAMES = ['alpha', 'beta', 'gamma'];
const SECOND = 1_000_000;

const NO_SMBDS: CachingSmbds = {
  breakAll: () => undefined, silent: () => [], caching: () => ({ left: 0, named: [] }),
};

/** Rooms whose messages arrive at once. */
class Rooms {
  protocol = 2;
  /** Of server 2: what its clients cache, and smbds that do not answer. */
  caching: string[] = [];
  silent: string[] = [];
  readonly asked: (number | null)[] = [];
  now = 1;
  members = [0, 1, 2].map(nodeId);
  readonly effects: { node: NodeId; effect: Effect }[] = [];
  readonly changes: string[] = [];
  /** Servers that take messages and say nothing. */
  readonly deaf = new Set<NodeId>();
  private readonly timers = new Timers();
  readonly rooms: Fitness[];

  /** How long modules may need to come back after the start. */
  constructor(private readonly modulesBackMicros = 0) {
    this.rooms = this.members.map((node) => this.make(node));
  }

  room(node: number): Fitness {
    return this.rooms[node]!;
  }

  runUntil(end: number): void {
    this.now = end;
    this.timers.run(end);
  }

  /** As the server `asked` knows the other one. */
  known(asked: number, of: number): string {
    const known = this.room(asked).status().find(({ node }) => node === of)?.fitness;
    if (known === undefined) return 'unknown';
    return `${known.draining ? 'draining' : 'serving'} ${known.reasons.join(', ') || 'fit'} ${known.clients}`;
  }

  answers(): (string | null)[] {
    return this.effects.flatMap(({ effect }) => (effect.kind === 'drain-answer' ? [effect.error] : []));
  }

  /** The disk of each server that was asked to write does, or does not. */
  save(error: string | null = null): void {
    for (const { node, effect } of this.effects.splice(0)) {
      if (effect.kind !== 'drain-save') this.effects.push({ node, effect });
      else this.room(node).onSaved(effect.token, effect.draining, error);
    }
  }

  private make(self: NodeId): Fitness {
    const members = () => this.members;
    const context: CoreContext = {
      self, servers: this.members, fileServers: this.members, epoch: epoch(1), timers: this.timers, now: () => this.now,
      get members() {
        return members();
      },
      emit: (effect) => void this.effects.push({ node: self, effect }),
      send: (peer, message) => {
        if (!this.deaf.has(peer)) this.room(peer).onMessage(self, message);
        return true;
      },
      isUp: () => true, speaks: (protocol) => protocol <= this.protocol,
      isFenced: () => false, log: () => undefined, count: () => undefined,
    };
    return new Fitness(context, (node) => NAMES[node]!, {
      changed: (isFit, draining) => {
        this.changes.push(`${self} ${isFit ? 'fit' : 'unfit'}${draining ? ' draining' : ''}`);
      },
    }, self === 2 ? this.smbds() : NO_SMBDS, { leasesMicros: 10 * SECOND, modulesBackMicros: this.modulesBackMicros });
  }

  private smbds(): CachingSmbds {
    return {
      breakAll: (number) => void this.asked.push(number),
      silent: () => this.silent,
      caching: (max) => ({ left: this.caching.length, named: this.caching.slice(0, max) }),
    };
  }

  /** The words in the node page of server 2. */
  words(): boolean[] {
    const own = this.effects.filter(({ node }) => node === 2);
    return own.flatMap(({ effect }) => (effect.kind === 'draining' ? [effect.draining] : []));
  }

  /** What server 0 knows of leases of server 2. */
  leases(): string {
    const leases = this.room(0).status().find(({ node }) => node === 2)?.leases;
    if (leases === undefined) return 'untold';
    return `${leases.breaking ? 'breaking' : 'over'} ${leases.left} ${leases.named.join()}`;
  }
}

test('each says of itself what its checks find and whether smbd runs; the others know it', () => {
  const rooms = new Rooms();
  assert.equal(rooms.known(0, 1), 'unknown');
  rooms.room(1).peerUp(nodeId(0));
  assert.equal(rooms.known(0, 1), `serving ${NO_SMBD} 0`);
  rooms.room(1).setSmbd(true);
  assert.equal(rooms.known(0, 1), 'serving fit 0');
  rooms.room(1).setReasons(['the disk is full']);
  rooms.room(1).setReasons(['the disk is full']);
  assert.equal(rooms.known(2, 1), 'serving the disk is full 0');
  rooms.room(1).setReasons([]);
  assert.deepEqual(rooms.changes, ['1 fit', '1 unfit', '1 fit']);
  const events = rooms.effects.flatMap(({ effect }) => (effect.kind === 'event' ? [effect.event] : []));
  assert.deepEqual(events, ['fit', 'unfit', 'fit']);
  rooms.room(0).peerLeft(nodeId(1));
  assert.equal(rooms.known(0, 1), 'unknown');
});

test('a server is drained through another one, when its disk has it', () => {
  const rooms = new Rooms();
  rooms.room(2).setSmbd(true);
  rooms.room(0).onQuery(7, nodeId(2), true);
  assert.deepEqual(rooms.answers(), []);
  assert.equal(rooms.known(0, 2), 'serving fit 0', 'not before it is on disk');
  rooms.save();
  assert.deepEqual(rooms.answers(), [null]);
  assert.equal(rooms.known(0, 2), 'draining fit 0');
  rooms.room(2).onQuery(8, nodeId(2), false);
  rooms.save();
  assert.deepEqual(rooms.answers(), [null, null]);
  assert.equal(rooms.known(1, 2), 'serving fit 0');
  assert.deepEqual(rooms.changes, ['2 fit', '2 fit draining', '2 fit']);
});

/** Server 2 serves, and a person drains it. */
function drainedWith(rooms: Rooms): void {
  rooms.room(2).setSmbd(true);
  rooms.room(0).onQuery(7, nodeId(2), true);
  rooms.save();
}

test('a server says that it drains when its leases are broken, and not before', () => {
  const rooms = new Rooms();
  rooms.caching = ['lease RWH on a', 'batch on b'];
  rooms.silent = ['smbd 7'];
  drainedWith(rooms);
  assert.deepEqual([rooms.words(), rooms.asked], [[true], [1]], 'nothing more is granted, and all are asked');
  assert.deepEqual(rooms.answers(), [null], 'the person need not wait for it');
  assert.equal(rooms.leases(), 'breaking 3 lease RWH on a,batch on b,smbd 7');
  rooms.caching = [];
  rooms.runUntil(5 * SECOND);
  assert.equal(rooms.leases(), 'breaking 1 smbd 7');
  assert.equal(rooms.known(0, 2), 'serving fit 0', 'one that did not answer may have what is not told yet');
  rooms.silent = [];
  rooms.runUntil(6 * SECOND);
  assert.equal(rooms.known(0, 2), 'draining fit 0');
  assert.equal(rooms.leases(), 'over 0 ');
  assert.deepEqual(rooms.changes, ['2 fit', '2 fit draining']);
});

test('what is not broken after the bounded time is told, and the server drains', () => {
  const rooms = new Rooms();
  rooms.caching = ['lease RWH on a'];
  drainedWith(rooms);
  const since = rooms.now;
  rooms.runUntil(since + 10 * SECOND - 1);
  assert.equal(rooms.known(0, 2), 'serving fit 0');
  rooms.runUntil(since + 10 * SECOND + SECOND / 10);
  assert.equal(rooms.known(0, 2), 'draining fit 0');
  assert.equal(rooms.leases(), 'over 1 lease RWH on a');
  rooms.caching = [];
  rooms.runUntil(since + 13 * SECOND);
  assert.equal(rooms.leases(), 'over 0 ', 'it is seen when smbd has taken it back');
  // a peer that comes later hears of it
  rooms.caching = ['lease RH on c'];
  rooms.runUntil(since + 15 * SECOND);
  rooms.room(0).peerLeft(nodeId(2));
  assert.equal(rooms.leases(), 'untold');
  rooms.room(2).peerUp(nodeId(0));
  assert.equal(rooms.leases(), 'over 1 lease RH on c');
});

test('a drain that is taken back while leases are broken leaves the server as it was', () => {
  const rooms = new Rooms();
  rooms.caching = ['lease RWH on a'];
  drainedWith(rooms);
  rooms.runUntil(3 * SECOND);
  rooms.room(2).onQuery(8, nodeId(2), false);
  rooms.save();
  assert.deepEqual([rooms.words(), rooms.asked], [[true, false], [1, null]]);
  rooms.runUntil(30 * SECOND);
  assert.deepEqual(rooms.changes, ['2 fit'], 'nobody was told that it drains');
  assert.equal(rooms.leases(), 'over 0 ');
  rooms.room(2).onQuery(9, nodeId(2), true);
  rooms.save();
  assert.deepEqual(rooms.asked, [1, null, 2], 'answers to the first break-all are none to the second');
});

test('a run that starts drained sets the word and waits for nobody; one that is not takes the word back', () => {
  const rooms = new Rooms();
  rooms.caching = ['lease RWH on a'];
  rooms.room(2).onSaved(0, true, null);
  assert.deepEqual(rooms.changes, ['2 unfit draining']);
  assert.deepEqual([rooms.words(), rooms.asked], [[true], [1]]);
  const other = new Rooms();
  other.room(2).onSaved(0, false, null);
  assert.deepEqual([other.words(), other.changes], [[false], []]);
});

test('in protocol 1 leases are broken, and nobody else is told of them', () => {
  const rooms = new Rooms();
  rooms.protocol = 1;
  rooms.caching = ['lease RWH on a'];
  drainedWith(rooms);
  assert.equal(rooms.leases(), 'untold');
  assert.equal(rooms.known(0, 2), 'serving fit 0');
  rooms.caching = [];
  rooms.runUntil(2 * SECOND);
  assert.equal(rooms.known(0, 2), 'draining fit 0');
});

test('what keeps a drain from being done is told to whoever asked', () => {
  const rooms = new Rooms();
  rooms.room(0).onQuery(1, nodeId(1), true);
  rooms.save('the disk is full');
  assert.deepEqual(rooms.answers(), ['the disk is full']);
  assert.equal(rooms.known(1, 1), `serving ${NO_SMBD} 0`);
  rooms.deaf.add(nodeId(1));
  rooms.room(0).onQuery(2, nodeId(1), true);
  rooms.room(0).peerLeft(nodeId(1));
  assert.match(rooms.answers().at(-1)!, /beta was lost/);
  rooms.room(0).onQuery(3, nodeId(1), true);
  rooms.runUntil(5 * SECOND);
  assert.match(rooms.answers().at(-1)!, /beta did not answer/);
  rooms.members = [0, 2].map(nodeId);
  rooms.room(0).onQuery(4, nodeId(1), true);
  assert.match(rooms.answers().at(-1)!, /beta is no member/);
  assert.equal(rooms.answers().length, 4, 'each is answered once');
  // late, unasked and from the wrong server
  rooms.room(0).onMessage(nodeId(2), encodeFitnessMessage({ kind: 'drained', token: 3, error: '' }));
  assert.equal(rooms.answers().length, 4);
});

test('what an earlier run saved holds from the start', () => {
  const rooms = new Rooms();
  rooms.room(0).onSaved(0, true, null);
  assert.deepEqual(rooms.changes, ['0 unfit draining']);
  assert.deepEqual(rooms.answers(), []);
});

test('what a run had asked is not answered to the next one, which may have asked by the same token', () => {
  const rooms = new Rooms();
  rooms.room(0).onQuery(1, nodeId(2), true);
  rooms.room(2).peerUp(nodeId(0));
  rooms.save();
  assert.deepEqual(rooms.answers(), []);
  rooms.room(1).onQuery(2, nodeId(2), false);
  rooms.save();
  assert.deepEqual(rooms.answers(), [null]);
});

test('what the run before told of its leases is void when another one goes on', () => {
  const rooms = new Rooms();
  rooms.caching = ['lease RWH on a'];
  drainedWith(rooms);
  assert.equal(rooms.leases(), 'breaking 1 lease RWH on a');
  rooms.room(0).peerUp(nodeId(2));
  assert.equal(rooms.leases(), 'untold');
});

test('in a run that goes on in the place of another it waits for modules that may have something', () => {
  const rooms = new Rooms(SECOND);
  rooms.room(2).onSaved(0, false, null);
  rooms.runUntil(SECOND / 2);
  drainedWith(rooms);
  assert.equal(rooms.leases(), 'breaking 0 ', 'none has attached yet');
  rooms.runUntil(SECOND - SECOND / 10);
  assert.equal(rooms.known(0, 2), 'serving fit 0');
  rooms.caching = ['lease RWH on a'];
  rooms.runUntil(2 * SECOND);
  assert.equal(rooms.leases(), 'breaking 1 lease RWH on a');
  rooms.caching = [];
  rooms.runUntil(3 * SECOND);
  assert.equal(rooms.known(0, 2), 'draining fit 0');
});

test('clients are counted and named, but not those of the server itself; who drains tells of them', () => {
  const rooms = new Rooms();
  const room = rooms.room(0);
  const connect = (client: number, address: string, server = '10.0.0.1'): void =>
    room.connected(client as ClientId, { server, serverPort: 445, client: address, clientPort: 1000 + client });
  connect(1, '127.0.0.1', '127.0.0.1');
  connect(2, '10.0.0.1');
  connect(3, '10.0.0.7');
  connect(4, '10.0.0.7');
  for (let i = 0; i < 2 * CLIENTS_NAMED_MAX; i++) connect(10 + i, `10.1.0.${i}`);
  const own = room.status()[0]!.fitness;
  assert.equal(own.clients, 2 + 2 * CLIENTS_NAMED_MAX);
  assert.equal(own.named.length, CLIENTS_NAMED_MAX);
  assert.equal(own.named[0], '10.0.0.7');
  room.onSaved(0, true, null);
  for (let i = 0; i < 2 * CLIENTS_NAMED_MAX; i++) room.disconnected((10 + i) as ClientId);
  room.disconnected(3 as ClientId);
  rooms.runUntil(SECOND);
  assert.equal(rooms.known(1, 0), `draining ${NO_SMBD} 1`);
});

test('there are no more reasons than travel, and none is too long', () => {
  const rooms = new Rooms();
  const long = '\u{1f600}'.repeat(REASON_BYTES_MAX);
  rooms.room(0).setReasons(Array.from({ length: 2 * REASONS_MAX }, (_, i) => `${i} ${long}`));
  const { reasons } = rooms.room(1).status().find(({ node }) => node === 0)!.fitness;
  assert.equal(reasons.length, REASONS_MAX);
  assert.ok(reasons.every((reason) => Buffer.byteLength(reason) <= REASON_BYTES_MAX));
  assert.ok(Buffer.byteLength(cutReason('\ud800'.repeat(1000))) <= REASON_BYTES_MAX);
});

function decoded(bytes: Uint8Array): FitnessMessage | null {
  try {
    return decodeFitnessMessage(bytes);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

test('spoiled messages are refused, or are other messages', () => {
  fuzz((prng) => {
    const texts = (): string[] => ['', 'full', 'voll: \u00e4', 'x'.repeat(400)].filter(() => prng.chance(0.5));
    const message = prng.pick<FitnessMessage>([
      { kind: 'fitness', draining: prng.chance(0.5), clients: prng.u32(), reasons: texts(), named: texts() },
      { kind: 'leases', breaking: prng.chance(0.5), left: prng.u32(), named: texts() },
      { kind: 'drain', token: prng.u32(), draining: prng.chance(0.5) },
      { kind: 'drained', token: prng.u32(), error: prng.pick(['', 'the disk is full']) },
    ]);
    assert.deepEqual(decodeFitnessMessage(encodeFitnessMessage(message)), message);
    const other = decoded(spoil(prng, encodeFitnessMessage(message)));
    if (other !== null) assert.deepEqual(decodeFitnessMessage(encodeFitnessMessage(other)), other);
  });
});
