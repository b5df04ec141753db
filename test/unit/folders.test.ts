/** Folders alone: when a folder is delegated to this server, and what comes before an open that excludes others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { epoch, nodeId } from '../../src/base/ids.js';
import type { NodeId } from '../../src/base/ids.js';
import type { CoreContext } from '../../src/core/context.js';
import type { Effect } from '../../src/core/effects.js';
import { Attachment } from '../../src/core/operations/attachments.js';
import { FolderAgreement } from '../../src/core/operations/folder-agreement.js';
import { FOLDER_TERMS, Folders } from '../../src/core/operations/folders.js';
import type { RecordsForFolders } from '../../src/core/operations/folders.js';
import type { Guard } from '../../src/core/records/events.js';
import type { NeededRecord } from '../../src/core/records/pins.js';
import { Timers } from '../../src/core/timers.js';
import { sliceOf, sliceServer, wholeOf } from '../../src/wire/folder-ids.js';
import { FOLDERS_PROTOCOL } from '../../src/wire/protocol-version.js';
import type { FileId } from '../../src/wire/ring-ops.js';
import { RING_OP } from '../../src/wire/ring-ops.js';
import { decodeWitnessMessage } from '../../src/wire/witness-messages.js';

const FOLDER = `${'\x01'.padEnd(16, '\0')}${'\0'.repeat(8)}` as FileId;
const RECORD = new Uint8Array([1]);
const RECORD_WITH_EXCLUDER = new Uint8Array([2]);

/** The lock of one folder, as core/records would have it here. */
class FakeLock implements RecordsForFolders {
  guard!: Guard;
  isHere = false;
  isWantedElsewhere = false;
  freed = 0;
  readonly asks = new Map<number, { mode: NeededRecord['mode']; then: () => void }>();
  private lastToken = 0;

  obtain({ mode }: NeededRecord, then: () => void): number {
    const token = ++this.lastToken;
    this.asks.set(token, { mode, then });
    return token;
  }

  /** The lock, or a copy, arrives for all who asked. */
  arrive(): void {
    this.isHere = true;
    const asks = [...this.asks.values()];
    this.asks.clear();
    for (const { then } of asks) then();
  }

  modes(): NeededRecord['mode'][] {
    return [...this.asks.values()].map(({ mode }) => mode);
  }

  cancel(token: number): void {
    this.asks.delete(token);
  }

  isHome(): boolean {
    return this.isHere;
  }

  isWanted(): boolean {
    return this.isWantedElsewhere;
  }

  setGuard(_database: unknown, guard: Guard): void {
    this.guard = guard;
  }

  guardOpened(): void {
    this.freed++;
  }
}

/** Folders with all that they see of their server. */
class OneServer {
  time = 1_000_000;
  readonly timers = new Timers();
  readonly effects: Effect[] = [];
  readonly sent = new Map<NodeId, Uint8Array>();
  readonly warned: string[] = [];
  readonly lock = new FakeLock();
  speaks = FOLDERS_PROTOCOL;
  readonly context: CoreContext = {
    self: nodeId(0),
    servers: [0, 1, 2].map(nodeId),
    fileServers: [0, 1, 2].map(nodeId),
    members: [0, 1, 2].map(nodeId),
    epoch: epoch(1),
    timers: this.timers,
    now: () => this.time,
    emit: (effect) => void this.effects.push(effect),
    send: (peer, message) => (this.sent.set(peer, message), true),
    isUp: () => true,
    speaks: (protocol) => protocol <= this.speaks,
    isFenced: () => false,
    log: (_level, event) => void this.warned.push(event),
    count: () => undefined,
  };
  readonly folders = new Folders(this.context, this.lock, (data) => data[0] === RECORD_WITH_EXCLUDER[0]);
  private lastAttachment = 0;

  constructor() {
    this.folders.setMayDelegate(true);
  }

  pass(micros: number): void {
    this.time += micros;
    this.timers.run(this.time);
  }

  attach(pid: number): Attachment {
    const attachment = new Attachment(++this.lastAttachment, pid);
    this.folders.attached(attachment);
    return attachment;
  }

  /** Opens that wait for the one record, for long enough to make a delegation worth it. */
  openOften(): void {
    for (let i = 0; i <= FOLDER_TERMS.opens; i++) {
      this.folders.waits(FOLDER);
      this.pass(FOLDER_TERMS.often / FOLDER_TERMS.opens);
    }
    this.folders.waits(FOLDER);
  }

  delegate(): void {
    this.openOften();
    this.lock.arrive();
    this.folders.offer(FOLDER, RECORD);
    assert.ok(this.isDelegated());
  }

  isDelegated(): boolean {
    const said = this.effects.filter((effect) => effect.kind === 'home');
    return said.at(-1)?.present === true;
  }

  /** Numbers of the recalls that a module was sent, by attachment. */
  recalls({ id }: Attachment): bigint[] {
    return this.effects.flatMap((effect) =>
      effect.kind === 'ring-send' && effect.attachment === id && effect.op === RING_OP.recall
        ? [Buffer.from(effect.payload).readBigUInt64LE(24)] : []);
  }

  /** What became of an open that excludes. */
  exclude(operation: number, pid = 7): { granted: boolean | null } {
    const outcome: { granted: boolean | null } = { granted: null };
    this.folders.exclude(FOLDER, operation, pid, (granted) => (outcome.granted = granted));
    return outcome;
  }
}

test('a slice is the folder with a server in it, and nothing else is one', () => {
  for (const id of [0, 1, 63, 255, 256, 70_000].map(nodeId)) {
    assert.equal(sliceServer(sliceOf(FOLDER, id)), id);
    assert.equal(wholeOf(sliceOf(FOLDER, id)), FOLDER);
  }
  assert.equal(sliceServer(FOLDER), null);
  assert.equal(sliceServer(`${FOLDER}cils` as FileId), null, 'too long');
  assert.equal(wholeOf(`${FOLDER.slice(0, 16)}\x05${'\0'.repeat(7)}` as FileId).charCodeAt(16), 5, 'a snapshot stays');
});

test('a folder that is opened now and then is not asked for; one that is opened often is, once', () => {
  const server = new OneServer();
  for (let i = 0; i < 3 * FOLDER_TERMS.opens; i++) {
    server.folders.waits(FOLDER);
    server.pass(FOLDER_TERMS.often + 1);
  }
  assert.deepEqual(server.lock.modes(), []);
  server.openOften();
  server.folders.waits(FOLDER);
  assert.deepEqual(server.lock.modes(), ['read']);
});

test('a copy of the lock and a record without an excluding entry make a delegation', () => {
  const server = new OneServer();
  server.openOften();
  server.folders.offer(FOLDER, RECORD);
  assert.ok(!server.isDelegated(), 'without the lock');
  server.lock.arrive();
  server.folders.offer(FOLDER, RECORD_WITH_EXCLUDER);
  assert.ok(!server.isDelegated(), 'somebody excludes');
  server.lock.isWantedElsewhere = true;
  server.folders.offer(FOLDER, RECORD);
  assert.ok(!server.isDelegated(), 'the lock is about to go');
  server.lock.isWantedElsewhere = false;
  server.folders.setMayDelegate(false);
  server.folders.offer(FOLDER, RECORD);
  assert.ok(!server.isDelegated(), 'a server of the pool does not ask');
  server.folders.setMayDelegate(true);
  server.folders.offer(FOLDER, RECORD);
  assert.ok(server.isDelegated());
  assert.ok(server.lock.guard.isInUse(FOLDER));
  assert.ok(server.lock.guard.mayBeShared(FOLDER));
});

test('the lock leaves when all modules have moved what they had in the slice, also who attached anew', () => {
  const server = new OneServer();
  const [first, second] = [server.attach(1), server.attach(2)];
  server.delegate();
  assert.ok(!server.lock.guard.mayLeave(FOLDER), 'not before the modules have answered');
  assert.ok(!server.isDelegated(), 'no further open goes by the slice');
  const [number] = server.recalls(first);
  assert.deepEqual(server.recalls(second), [number]);
  assert.ok(!server.lock.guard.mayLeave(FOLDER));
  assert.equal(server.recalls(first).length, 1, 'asked once');
  server.folders.recalled(1, number!);
  server.folders.recalled(1, number!);
  server.folders.recalled(2, number! + 1n);
  assert.equal(server.lock.freed, 0);
  server.folders.detached(second, [], true);
  const again = server.attach(2);
  assert.deepEqual(server.recalls(again), [number], 'who lost its ring is asked again');
  server.folders.recalled(2, number!);
  assert.equal(server.lock.freed, 1);
  assert.ok(server.lock.guard.mayLeave(FOLDER));
});

test('a process that ends has nothing in a slice any more', () => {
  const server = new OneServer();
  const attachment = server.attach(1);
  server.delegate();
  assert.ok(!server.lock.guard.mayLeave(FOLDER));
  server.folders.detached(attachment, [], false);
  assert.equal(server.lock.freed, 1);
});

test('an open that excludes waits for the lock and for the own modules, and keeps the lock until it is over', () => {
  const server = new OneServer();
  const attachment = server.attach(1);
  server.delegate();
  const open = server.exclude(5);
  assert.deepEqual(server.lock.modes(), ['write']);
  assert.equal(open.granted, null);
  server.lock.arrive();
  assert.equal(open.granted, null, 'entries of this server are in the slice');
  assert.ok(!server.lock.guard.mayBeShared(FOLDER));
  server.folders.recalled(1, server.recalls(attachment)[0]!);
  assert.equal(open.granted, true);
  assert.ok(!server.lock.guard.mayLeave(FOLDER));
  server.folders.over(4);
  assert.ok(!server.lock.guard.mayLeave(FOLDER), 'that was another one');
  server.folders.over(5);
  assert.ok(server.lock.guard.mayLeave(FOLDER));
});

test('an open that cannot exclude in time is refused, and leaves nothing behind', () => {
  const server = new OneServer();
  const open = server.exclude(5);
  server.pass(FOLDER_TERMS.exclude - 1);
  assert.equal(open.granted, null);
  server.pass(1);
  assert.equal(open.granted, false);
  assert.deepEqual(server.warned, ['folder-not-excluded']);
  assert.deepEqual(server.lock.modes(), [], 'the ask for the lock is taken back');
  assert.ok(server.lock.guard.mayLeave(FOLDER));
});

test('an exclusion outlives the ring of a process that lives until it has told anew what it does', () => {
  const server = new OneServer();
  const attachment = server.attach(7);
  const open = server.exclude(5);
  server.lock.arrive();
  assert.equal(open.granted, true);
  server.folders.detached(attachment, [5], true);
  assert.ok(!server.lock.guard.mayLeave(FOLDER), 'it may be in the middle of the open');
  server.attach(7);
  server.folders.resynced(7);
  assert.ok(server.lock.guard.mayLeave(FOLDER));
});

test('a folder that was recalled rests, twice as long with each further recall', () => {
  const server = new OneServer();
  const rests: number[] = [];
  for (let i = 0; i < 3; i++) {
    server.delegate();
    assert.ok(server.lock.guard.mayLeave(FOLDER), 'there are no modules');
    server.lock.isHere = false;
    const since = server.time;
    for (let waits = 0; waits < 400 && server.lock.asks.size === 0; waits++) {
      server.folders.waits(FOLDER);
      server.pass(50_000);
    }
    assert.ok(server.lock.asks.size > 0, 'it is asked for again');
    rests.push(server.time - since);
  }
  assert.ok(rests[0]! >= FOLDER_TERMS.rest, `${rests.join(', ')}`);
  assert.ok(rests[2]! >= 4 * FOLDER_TERMS.rest, `${rests.join(', ')}`);
});

test('a delegation that nobody uses ends', () => {
  const server = new OneServer();
  server.delegate();
  server.pass(FOLDER_TERMS.calm / 2);
  server.folders.used(FOLDER);
  server.pass(FOLDER_TERMS.calm / 2);
  assert.ok(server.isDelegated());
  server.pass(FOLDER_TERMS.calm / 2);
  server.pass(FOLDER_TERMS.calm / 2);
  assert.ok(!server.isDelegated());
});

test('what a former run left is recalled before anything is granted', () => {
  const server = new OneServer();
  server.folders.keptModule(1);
  server.folders.keptLock(FOLDER);
  server.folders.resume();
  assert.ok(!server.lock.guard.mayLeave(FOLDER));
  const open = server.exclude(5);
  server.lock.arrive();
  assert.equal(open.granted, null);
  const attachment = server.attach(1);
  server.folders.recalled(1, server.recalls(attachment)[0]!);
  assert.equal(open.granted, true);
});

test('delegations wait until every member has said that it shares folders, and end when one says otherwise', () => {
  const server = new OneServer();
  const agreement = new FolderAgreement(server.context, server.folders, true, (id) => `server ${id}`);
  const may = () => {
    const before = server.isDelegated();
    server.folders.offer(FOLDER, RECORD);
    return before || server.isDelegated();
  };
  server.openOften();
  server.lock.arrive();
  agreement.installed([nodeId(1), nodeId(2)]);
  agreement.settled();
  assert.deepEqual([...server.sent.keys()], [1, 2]);
  assert.deepEqual(decodeWitnessMessage(server.sent.get(nodeId(1))!), { kind: 'folders', shares: true });
  agreement.heard(nodeId(1), true);
  assert.ok(!may(), 'server 2 has not said so');
  agreement.heard(nodeId(2), true);
  assert.ok(may());
  agreement.heard(nodeId(2), false);
  assert.ok(!server.isDelegated());
  assert.deepEqual(server.warned, ['folders-not-shared']);
  agreement.installed([nodeId(2)]);
  server.speaks = FOLDERS_PROTOCOL - 1;
  server.sent.clear();
  agreement.settled();
  assert.equal(server.sent.size, 0, 'to who would not understand it');
});

test('with a new view delegations wait for the word of who is new in it, whatever its former run said', () => {
  const server = new OneServer();
  const agreement = new FolderAgreement(server.context, server.folders, true, (id) => `server ${id}`);
  const may = () => {
    server.folders.offer(FOLDER, RECORD);
    return server.isDelegated();
  };
  for (const id of [1, 2].map(nodeId)) agreement.heard(id, true);
  server.openOften();
  server.lock.arrive();
  agreement.installed([nodeId(2)]);
  assert.ok(!may(), 'before all have installed the view');
  agreement.settled();
  assert.ok(!may(), 'server 2 began anew and has not said so yet');
  agreement.heard(nodeId(2), true);
  assert.ok(may());
});
