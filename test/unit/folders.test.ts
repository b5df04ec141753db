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
const EXCLUDED_RECORD = new Uint8Array([2]);

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

class Bench {
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
  readonly folders = new Folders(this.context, this.lock, (data) => data[0] === EXCLUDED_RECORD[0]);
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
  for (const server of [0, 1, 63, 255, 256, 70_000].map(nodeId)) {
    assert.equal(sliceServer(sliceOf(FOLDER, server)), server);
    assert.equal(wholeOf(sliceOf(FOLDER, server)), FOLDER);
  }
  assert.equal(sliceServer(FOLDER), null);
  assert.equal(sliceServer(`${FOLDER}cils` as FileId), null, 'too long');
  assert.equal(wholeOf(`${FOLDER.slice(0, 16)}\x05${'\0'.repeat(7)}` as FileId).charCodeAt(16), 5, 'a snapshot stays');
});

test('a folder that is opened now and then is not asked for; one that is opened often is, once', () => {
  const bench = new Bench();
  for (let i = 0; i < 3 * FOLDER_TERMS.opens; i++) {
    bench.folders.waits(FOLDER);
    bench.pass(FOLDER_TERMS.often + 1);
  }
  assert.deepEqual(bench.lock.modes(), []);
  bench.openOften();
  bench.folders.waits(FOLDER);
  assert.deepEqual(bench.lock.modes(), ['read']);
});

test('a copy of the lock and a record without an excluding entry make a delegation', () => {
  const bench = new Bench();
  bench.openOften();
  bench.folders.offer(FOLDER, RECORD);
  assert.ok(!bench.isDelegated(), 'without the lock');
  bench.lock.arrive();
  bench.folders.offer(FOLDER, EXCLUDED_RECORD);
  assert.ok(!bench.isDelegated(), 'somebody excludes');
  bench.lock.isWantedElsewhere = true;
  bench.folders.offer(FOLDER, RECORD);
  assert.ok(!bench.isDelegated(), 'the lock is about to go');
  bench.lock.isWantedElsewhere = false;
  bench.folders.setMayDelegate(false);
  bench.folders.offer(FOLDER, RECORD);
  assert.ok(!bench.isDelegated(), 'a server of the pool does not ask');
  bench.folders.setMayDelegate(true);
  bench.folders.offer(FOLDER, RECORD);
  assert.ok(bench.isDelegated());
  assert.ok(bench.lock.guard.isInUse(FOLDER));
  assert.ok(bench.lock.guard.mayBeShared(FOLDER));
});

test('the lock leaves when all modules have moved what they had in the slice, also who attached anew', () => {
  const bench = new Bench();
  const [first, second] = [bench.attach(1), bench.attach(2)];
  bench.delegate();
  assert.ok(!bench.lock.guard.mayLeave(FOLDER), 'not before the modules have answered');
  assert.ok(!bench.isDelegated(), 'no further open goes by the slice');
  const [number] = bench.recalls(first);
  assert.deepEqual(bench.recalls(second), [number]);
  assert.ok(!bench.lock.guard.mayLeave(FOLDER));
  assert.equal(bench.recalls(first).length, 1, 'asked once');
  bench.folders.recalled(1, number!);
  bench.folders.recalled(1, number!);
  bench.folders.recalled(2, number! + 1n);
  assert.equal(bench.lock.freed, 0);
  bench.folders.detached(second, [], true);
  const again = bench.attach(2);
  assert.deepEqual(bench.recalls(again), [number], 'who lost its ring is asked again');
  bench.folders.recalled(2, number!);
  assert.equal(bench.lock.freed, 1);
  assert.ok(bench.lock.guard.mayLeave(FOLDER));
});

test('a process that ends has nothing in a slice any more', () => {
  const bench = new Bench();
  const attachment = bench.attach(1);
  bench.delegate();
  assert.ok(!bench.lock.guard.mayLeave(FOLDER));
  bench.folders.detached(attachment, [], false);
  assert.equal(bench.lock.freed, 1);
});

test('an open that excludes waits for the lock and for the own modules, and keeps the lock until it is over', () => {
  const bench = new Bench();
  const attachment = bench.attach(1);
  bench.delegate();
  const open = bench.exclude(5);
  assert.deepEqual(bench.lock.modes(), ['write']);
  assert.equal(open.granted, null);
  bench.lock.arrive();
  assert.equal(open.granted, null, 'entries of this server are in the slice');
  assert.ok(!bench.lock.guard.mayBeShared(FOLDER));
  bench.folders.recalled(1, bench.recalls(attachment)[0]!);
  assert.equal(open.granted, true);
  assert.ok(!bench.lock.guard.mayLeave(FOLDER));
  bench.folders.over(4);
  assert.ok(!bench.lock.guard.mayLeave(FOLDER), 'that was another one');
  bench.folders.over(5);
  assert.ok(bench.lock.guard.mayLeave(FOLDER));
});

test('an open that cannot exclude in time is refused, and leaves nothing behind', () => {
  const bench = new Bench();
  const open = bench.exclude(5);
  bench.pass(FOLDER_TERMS.exclude - 1);
  assert.equal(open.granted, null);
  bench.pass(1);
  assert.equal(open.granted, false);
  assert.deepEqual(bench.warned, ['folder-not-excluded']);
  assert.deepEqual(bench.lock.modes(), [], 'the ask for the lock is taken back');
  assert.ok(bench.lock.guard.mayLeave(FOLDER));
});

test('an exclusion outlives the ring of a process that lives until it has told anew what it does', () => {
  const bench = new Bench();
  const attachment = bench.attach(7);
  const open = bench.exclude(5);
  bench.lock.arrive();
  assert.equal(open.granted, true);
  bench.folders.detached(attachment, [5], true);
  assert.ok(!bench.lock.guard.mayLeave(FOLDER), 'it may be in the middle of the open');
  bench.attach(7);
  bench.folders.resynced(7);
  assert.ok(bench.lock.guard.mayLeave(FOLDER));
});

test('a folder that was recalled rests, twice as long with each further recall', () => {
  const bench = new Bench();
  const rests: number[] = [];
  for (let i = 0; i < 3; i++) {
    bench.delegate();
    assert.ok(bench.lock.guard.mayLeave(FOLDER), 'there are no modules');
    bench.lock.isHere = false;
    const since = bench.time;
    for (let waits = 0; waits < 400 && bench.lock.asks.size === 0; waits++) {
      bench.folders.waits(FOLDER);
      bench.pass(50_000);
    }
    rests.push(bench.time - since);
  }
  assert.ok(rests[0]! >= FOLDER_TERMS.rest, `${rests.join(', ')}`);
  assert.ok(rests[2]! >= 4 * FOLDER_TERMS.rest, `${rests.join(', ')}`);
});

test('a delegation that nobody uses ends', () => {
  const bench = new Bench();
  bench.delegate();
  bench.pass(FOLDER_TERMS.calm / 2);
  bench.folders.used(FOLDER);
  bench.pass(FOLDER_TERMS.calm / 2);
  assert.ok(bench.isDelegated());
  bench.pass(FOLDER_TERMS.calm / 2);
  bench.pass(FOLDER_TERMS.calm / 2);
  assert.ok(!bench.isDelegated());
});

test('what a former run left is recalled before anything is granted', () => {
  const bench = new Bench();
  bench.folders.keptModule(1);
  bench.folders.keptLock(FOLDER);
  bench.folders.resume();
  assert.ok(!bench.lock.guard.mayLeave(FOLDER));
  const open = bench.exclude(5);
  bench.lock.arrive();
  assert.equal(open.granted, null);
  const attachment = bench.attach(1);
  bench.folders.recalled(1, bench.recalls(attachment)[0]!);
  assert.equal(open.granted, true);
});

test('delegations wait until every member has said that it shares folders, and end when one says otherwise', () => {
  const bench = new Bench();
  const agreement = new FolderAgreement(bench.context, bench.folders, true, (server) => `server ${server}`);
  const may = () => {
    const before = bench.isDelegated();
    bench.folders.offer(FOLDER, RECORD);
    return before || bench.isDelegated();
  };
  bench.openOften();
  bench.lock.arrive();
  agreement.installed([nodeId(1), nodeId(2)]);
  agreement.settled();
  assert.deepEqual([...bench.sent.keys()], [1, 2]);
  assert.deepEqual(decodeWitnessMessage(bench.sent.get(nodeId(1))!), { kind: 'folders', shares: true });
  agreement.heard(nodeId(1), true);
  assert.ok(!may(), 'server 2 has not said so');
  agreement.heard(nodeId(2), true);
  assert.ok(may());
  agreement.heard(nodeId(2), false);
  assert.ok(!bench.isDelegated());
  assert.deepEqual(bench.warned, ['folders-not-shared']);
  agreement.installed([nodeId(2)]);
  bench.speaks = FOLDERS_PROTOCOL - 1;
  bench.sent.clear();
  agreement.settled();
  assert.equal(bench.sent.size, 0, 'to who would not understand it');
});
