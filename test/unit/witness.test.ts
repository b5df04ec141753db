/**
 * The witness fed by hand, without records or links: who is named for a record that moves, what is counted, and that
 * what a reader lost is told even when the event that carried the number is not for him.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { databaseId, epoch, nodeId } from '../../src/base/ids.js';
import { databaseIdOf } from '../../src/base/jenkins.js';
import type { NodeId, RecordKey } from '../../src/base/ids.js';
import type { CoreContext } from '../../src/core/context.js';
import type { Effect } from '../../src/core/effects.js';
import { Timers } from '../../src/core/timers.js';
import { Folders } from '../../src/core/operations/folders.js';
import { Operations } from '../../src/core/operations/operations.js';
import { Witness } from '../../src/core/witness/witness.js';
import type { HotAnswer, TraceEvent, TraceFilter } from '../../src/wire/locks.js';
import { LEASE_CHANGE, RING_OP, encodeBreakAll } from '../../src/wire/ring-ops.js';
import { decodeWitnessMessage } from '../../src/wire/witness-messages.js';
import {
  encodeClose,
  encodeHello,
  encodeOpenBegin,
  encodeOpenEnd,
  encodeTreeConnect,
} from '../support/ring-messages.js';

const LOCKING = databaseIdOf('locking.tdb');
const BRLOCK = databaseIdOf('brlock.tdb');
const FILE = Buffer.concat([Buffer.from([1]), Buffer.alloc(7), Buffer.from([42]), Buffer.alloc(15)]).toString(
  'latin1',
) as RecordKey;
const READER = 7;
const [ALPHA, BETA] = [nodeId(0), nodeId(1)];

class Scene {
  readonly operations: Operations;
  readonly witness: Witness;
  readonly sent: Uint8Array[] = [];
  effects: Effect[] = [];
  time = 1_000_000;
  private readonly timers = new Timers();

  constructor() {
    const context: CoreContext = {
      self: ALPHA,
      servers: [ALPHA, BETA],
      fileServers: [ALPHA, BETA],
      members: [ALPHA, BETA],
      epoch: epoch(1),
      timers: this.timers,
      now: () => this.time,
      emit: (effect) => void this.effects.push(effect),
      send: (_peer, message) => this.sent.push(message) > 0,
      isUp: () => true,
      speaks: (protocol) => protocol === 1,
      isFenced: () => false,
      log: () => undefined,
      count: () => undefined,
    };
    const records = {
      beginOperation: () => undefined,
      extendOperation: () => undefined,
      endOperation: () => undefined,
      inspect: () => undefined,
      isHome: () => false,
    };
    const nameOf = (server: NodeId): string => (server === ALPHA ? 'alpha' : 'beta');
    const watches = {
      begin: () => undefined,
      end: () => undefined,
      resyncBegins: () => undefined,
      resyncEnds: () => undefined,
      whenComplete: (done: () => void) => done(),
    };
    const processes = { moduleAttached: () => undefined, isAlive: () => false };
    const locks = { obtain: () => 0, cancel: () => undefined, isWanted: () => false, setGuard: () => undefined };
    const folders = new Folders(context, { ...records, ...locks, guardOpened: () => undefined }, () => false);
    this.operations = new Operations(context, records, watches, processes, folders, nameOf);
    const attachments = () => this.operations.attachments();
    this.witness = new Witness(context, { attachments, homeOf: () => BETA, nameOf }, 0);
    this.operations.watch(this.witness);
  }

  /** A client with the share connected. */
  client(attachment: number, name: string): void {
    this.operations.attached(attachment, 1000 + attachment);
    const address = `10.0.0.${attachment}:1`;
    this.operations.onRingMessage(attachment, RING_OP.hello, encodeHello('g'.repeat(16), address, name));
    this.operations.onRingMessage(attachment, RING_OP.treeConnect, encodeTreeConnect('pool', name, '/srv/pool'));
  }

  begin(attachment: number): void {
    this.operations.onRingMessage(attachment, RING_OP.openBegin, encodeOpenBegin(1n, FILE, null, true));
  }

  open(attachment: number): void {
    this.begin(attachment);
    this.operations.onRingMessage(attachment, RING_OP.openEnd, encodeOpenEnd(1n, FILE, 5));
  }

  move(database = LOCKING, key = FILE): void {
    this.witness.moved(database, key, BETA, 370);
  }

  /** What the reader got since the last call. */
  events(...kinds: string[]): TraceEvent[] {
    this.witness.flush();
    const events = this.effects.flatMap((effect) => (effect.kind === 'trace-event' ? [effect.event] : []));
    this.effects = [];
    return events.filter(({ kind }) => kinds.length === 0 || kinds.includes(kind));
  }

  fromPeer(events: Partial<TraceEvent>[]): void {
    const message = { kind: 'trace-events', number: READER, text: JSON.stringify(events) } as const;
    this.witness.onMessage(BETA, message);
  }
}

function watched(filter: TraceFilter = {}): Scene {
  const scene = new Scene();
  scene.witness.traceStart(READER, filter);
  return scene;
}

test('a record that moves is told with the open that asked for it, the database and where it came from', () => {
  const scene = watched();
  scene.client(1, 'anna');
  scene.begin(1);
  scene.move();
  scene.move(BRLOCK);
  const [first, second, ...more] = scene.events('moved');
  assert.deepEqual(more, []);
  assert.deepEqual([first?.pid, first?.user, first?.share, first?.path], [1001, 'anna', 'pool', 'file']);
  assert.deepEqual([first?.fileId, first?.tookMicros, first?.detail], ['1:42:0', 370, 'locking.tdb from beta']);
  assert.equal(second?.detail, 'brlock.tdb from beta');
});

test('a record that moves for a lock or a close is told with who has the file open', () => {
  const scene = watched();
  scene.client(1, 'anna');
  scene.open(1);
  scene.move();
  assert.deepEqual(scene.events('moved').map(({ user, path }) => [user, path]), [['anna', 'file']]);
  scene.client(2, 'bob');
  scene.open(2);
  scene.move();
  const [shared] = scene.events('moved');
  assert.deepEqual([shared?.pid, shared?.user, shared?.path, shared?.share], [0, '', 'file', 'pool'], 'either of them');
  scene.operations.onRingMessage(1, RING_OP.close, encodeClose(FILE, 1n));
  scene.move();
  assert.deepEqual(scene.events('moved').map(({ user }) => user), ['bob']);
  scene.operations.detached(2, false);
  scene.move();
  const [unknown] = scene.events('moved');
  assert.deepEqual([unknown?.path, unknown?.share, unknown?.fileId], ['', '', '1:42:0'], 'a share without the module');
});

test("records of other databases are not told of, a lease's is, with the open that has it", () => {
  const scene = watched();
  scene.client(1, 'anna');
  scene.move(databaseId(1));
  scene.move(databaseIdOf('leases.tdb'), 'x'.repeat(32) as RecordKey);
  assert.deepEqual(scene.events('moved').map(({ detail, fileId }) => [detail, fileId]), [['leases.tdb from beta', '']]);
});

test('files are counted as moved when their record came from another server, not when it became usable', () => {
  const scene = new Scene();
  scene.client(1, 'anna');
  scene.open(1);
  scene.operations.came(LOCKING, FILE);
  scene.move();
  scene.move(BRLOCK);
  scene.time += 2_000_000;
  scene.witness.hotFiles(1);
  const query = scene.sent.map((message) => decodeWitnessMessage(message)).find(({ kind }) => kind === 'hot-query');
  assert.ok(query?.kind === 'hot-query');
  scene.witness.onMessage(BETA, { kind: 'answer', number: query.number, text: '[]' });
  const answers = scene.effects.flatMap((effect) => (effect.kind === 'witness-answer' ? [effect.answer] : []));
  const { files } = answers[0] as HotAnswer;
  assert.deepEqual(files.map(({ path, opens, moves }) => [path, opens, moves]), [['file', 1, 1]]);
});

test('what was lost is told with the next event that is wanted, whatever carried the number', () => {
  const scene = watched({ kinds: ['close'] });
  const event = { path: 'x', user: '', client: '', clientName: '', share: '' };
  scene.fromPeer([{ ...event, kind: 'open', dropped: 3 }, { ...event, kind: 'lock', dropped: 4 }]);
  assert.deepEqual(scene.events(), []);
  scene.fromPeer([{ ...event, kind: 'close', dropped: 2 }, { ...event, kind: 'close' }]);
  assert.deepEqual(scene.events().map(({ kind, dropped }) => [kind, dropped]), [['close', 9], ['close', undefined]]);
});

test('a server that comes back is asked for what the reader wants, not for everything', () => {
  const filter: TraceFilter = { path: 'docs', kinds: ['open'] };
  const scene = watched(filter);
  scene.sent.length = 0;
  scene.witness.peerUp(BETA);
  const asked = scene.sent.map((message) => decodeWitnessMessage(message));
  assert.deepEqual(asked, [{ kind: 'trace-start', number: READER, text: JSON.stringify(filter) }]);
});

/** What became of the lease or oplock of this open. */
function changed(scene: Scene, id: bigint, change: number, [oplock, lease]: [number, number]): void {
  const message = Buffer.alloc(88);
  Buffer.from(FILE, 'latin1').copy(message);
  message.writeBigUInt64LE(id, 24);
  [change, 0x100, oplock, 7, lease].forEach((word, index) => message.writeUInt32LE(word, 64 + 4 * index));
  scene.operations.onRingMessage(1, RING_OP.leaseChange, new Uint8Array(message));
}

test('what lets clients cache writes is counted, each lease once, until it is broken', () => {
  const scene = new Scene();
  scene.client(1, 'anna');
  const open = (id: bigint, lease: { key?: string; oplock: number; state: number }): void =>
    scene.operations.onRingMessage(1, RING_OP.openEnd, encodeOpenEnd(id, FILE, 5, lease));
  const one = 'a'.repeat(16);
  open(1n, { key: one, oplock: 0x100, state: 7 });
  open(2n, { key: one, oplock: 0x100, state: 7 });
  open(3n, { key: 'b'.repeat(16), oplock: 0x100, state: 5 });
  open(4n, { key: 'c'.repeat(16), oplock: 0x100, state: 3 });
  open(5n, { oplock: 2, state: 0 });
  open(6n, { oplock: 1, state: 0 });
  open(7n, { oplock: 4, state: 0 });
  open(8n, { oplock: 0, state: 0 });
  const { left, named } = scene.witness.caching(2);
  assert.deepEqual([left, named], [4, [
    'lease RWH on pool/file, of 10.0.0.1:1 (anna)', 'lease RW on pool/file, of 10.0.0.1:1 (anna)',
  ]]);
  changed(scene, 1n, LEASE_CHANGE.breakSent, [0x100, 7]);
  assert.equal(scene.witness.caching(0).left, 4, 'a break that is sent is not answered');
  changed(scene, 1n, LEASE_CHANGE.changed, [0x100, 3]);
  changed(scene, 2n, LEASE_CHANGE.changed, [0x100, 3]);
  changed(scene, 5n, LEASE_CHANGE.changed, [4, 0]);
  assert.equal(scene.witness.caching(0).left, 2);
  scene.operations.onRingMessage(1, RING_OP.close, encodeClose(FILE, 3n));
  scene.operations.detached(1, false);
  assert.equal(scene.witness.caching(0).left, 0);
});

test('all modules hear a break-all, those that attach later too; one that tells all anew has not answered', () => {
  const scene = new Scene();
  const sent = (): [number, Uint8Array][] => scene.effects.splice(0).flatMap((effect) => {
    const isBreakAll = effect.kind === 'ring-send' && effect.op === RING_OP.breakAll;
    return isBreakAll ? [[effect.attachment, effect.payload] as [number, Uint8Array]] : [];
  });
  const answer = (attachment: number, number: number): void => {
    const message = new Uint8Array(new Uint32Array([number, 0]).buffer);
    scene.operations.onRingMessage(attachment, RING_OP.breaksSent, message);
  };
  const without = (number: number): number[] => scene.operations.withoutBreaks(number).map(({ id }) => id);
  scene.client(1, 'anna');
  scene.operations.breakAll(3);
  scene.client(2, 'bob');
  assert.deepEqual(sent(), [[1, encodeBreakAll(3)], [2, encodeBreakAll(3)]]);
  assert.deepEqual(without(3), [1, 2]);
  answer(1, 3);
  answer(2, 2);
  assert.deepEqual(without(3), [2], 'an answer to an earlier one is none');
  scene.operations.onRingMessage(1, RING_OP.resyncBegin, new Uint8Array(8));
  assert.deepEqual(without(3), [1, 2], 'what it had is not told again yet');
  scene.operations.onRingMessage(1, RING_OP.resyncEnd, new Uint8Array(0));
  assert.deepEqual(without(3), [2]);
  scene.operations.detached(2, false);
  assert.deepEqual(without(3), []);
  scene.operations.breakAll(null);
  scene.client(3, 'carl');
  assert.deepEqual(sent(), []);
});
