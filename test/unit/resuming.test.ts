/**
 * A run that continues the one before (docs/decisions/resuming.md), piece by piece: what is kept and how it is written,
 * what views say of it, whom the leader takes for whom, which messages wait for it, and what it does before it serves.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import type { NodeId, RecordKey } from '../../src/base/ids.js';
import { clientId, databaseId, epoch, incarnation, nodeId, turn } from '../../src/base/ids.js';
import type { Effect, Input } from '../../src/core/effects.js';
import { SendStream } from '../../src/core/link/stream.js';
import type { ServerFacts } from '../../src/core/membership/composition.js';
import { compose, nextHolders, nextView } from '../../src/core/membership/composition.js';
import { PoolNode } from '../../src/core/node.js';
import type { NodeOptions } from '../../src/core/node.js';
import { Homes } from '../../src/core/records/homes.js';
import type { Member, View } from '../../src/core/views.js';
import { changes } from '../../src/core/views.js';
import { CONTROL } from '../../src/wire/ctdb-controls.js';
import { decodeCtdbPacket, encodeCtdbPacket } from '../../src/wire/ctdb.js';
import type { KeptClient } from '../../src/wire/kept-state.js';
import {
  KEPT_CONNECTION_BYTES, NO_REQUEST, decodeKeptClient, decodeKeptDatabase, encodeKeptClient, encodeKeptDatabase,
} from '../../src/wire/kept-state.js';
import { decodeMembershipMessage, encodeMembershipMessage } from '../../src/wire/membership-messages.js';
import { decodeSaved, encodeSaved } from '../../src/wire/membership-state.js';
import { FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';

const [A, B, C] = [0, 1, 2].map(nodeId) as [NodeId, NodeId, NodeId];
const EMPTY = new Uint8Array(0);

// --- what is kept

const KEPT: KeptClient = {
  hasMigrated: true,
  hasModule: true,
  lastRequest: { requestId: 77, opcode: CONTROL.registerSrvid, srvid: 5n },
  srvids: new Map([[5n, 2], [0xffff_ffff_ffff_fffen, 1]]),
  notifies: new Map([[9n, Buffer.from('gone')]]),
  connections: [new Uint8Array(KEPT_CONNECTION_BYTES).fill(3)],
  traversals: [{ database: 4, requestId: 6, srvid: 8n, withEmpty: true }],
};

test('what is kept of a client and of a database comes back from its bytes', () => {
  const kept = decodeKeptClient(encodeKeptClient(KEPT));
  assert.deepEqual({ ...kept, notifies: [...kept.notifies].map(([srvid, data]) => [srvid, String(Buffer.from(data))]) },
    { ...KEPT, notifies: [[9n, 'gone']] });
  assert.deepEqual(decodeKeptClient(EMPTY), {
    hasMigrated: false, hasModule: false, lastRequest: NO_REQUEST, srvids: new Map(), notifies: new Map(),
    connections: [],
    traversals: [],
  });
  for (const database of [{ readonly: true, countsChanges: false }, { readonly: false, countsChanges: true }]) {
    assert.deepEqual(decodeKeptDatabase(encodeKeptDatabase(database)), database);
  }
});

test('what is cut off, longer, or of another version is refused', () => {
  const bytes = encodeKeptClient(KEPT);
  for (let length = 1; length < bytes.length; length++) {
    assert.throws(() => decodeKeptClient(bytes.subarray(0, length)), DecodeError, `${length} bytes`);
  }
  assert.throws(() => decodeKeptClient(Buffer.concat([bytes, EMPTY, Buffer.from([0])])), DecodeError);
  assert.throws(() => decodeKeptClient(Buffer.from([9])), { reason: 'kept-version' });
  assert.throws(() => decodeKeptDatabase(Buffer.from([1, 4])), { reason: 'kept-flags' });
});

// --- views

function member(node: NodeId, run: number, since: number, resumes?: number): Member {
  const plain = { node, incarnation: incarnation(run), since: epoch(since) };
  return resumes === undefined ? plain : { ...plain, resumes: incarnation(resumes) };
}

function view(number: number, members: Member[], change: Partial<View> = {}): View {
  return { epoch: epoch(number), leader: A, members, protocol: 2, former: [], holders: [], past: [], ...change };
}

test('a view says who continues whom, on the wire and on disk', () => {
  const runs = [{ node: A, incarnation: incarnation(1) }, { node: B, incarnation: incarnation(4) }];
  const former = [{ epoch: epoch(7), members: runs }, { epoch: epoch(8), members: runs, isRenewed: true as const }];
  const is = view(9, [member(A, 1, 7), member(B, 6, 9, 4)], { former });
  const state = { term: 3, votedFor: null, accepted: is, servers: [] };
  assert.deepEqual(decodeSaved(encodeSaved(state)), state);
  for (const resumes of [0, 6, 7]) {
    const wrong = { ...state, accepted: view(9, [member(A, 1, 7), member(B, 6, 9, resumes)]) };
    assert.throws(() => decodeSaved(encodeSaved(wrong)), { reason: 'view-resumes' });
  }
});

test('each frame of the membership says whose run continues which', () => {
  const hello = { kind: 'hello', answerWanted: true, accepted: 5, to: incarnation(3), term: 2 } as const;
  assert.deepEqual(decodeMembershipMessage(encodeMembershipMessage(hello)), hello);
  const said = { ...hello, resumes: incarnation(8) };
  assert.deepEqual(decodeMembershipMessage(encodeMembershipMessage(said)), said);
  assert.equal(encodeMembershipMessage(said).length, encodeMembershipMessage(hello).length + 8);
});

test('a run that is continued has neither left nor joined', () => {
  const before = [member(A, 1, 1), member(B, 4, 1), member(C, 5, 1)];
  const after = [member(A, 1, 1), member(B, 6, 9, 4), member(C, 8, 9, 7)];
  assert.deepEqual(changes(before, after), { left: [C], joined: [C], resumed: [B] }, 'C resumes a run after 5');
});

const OPTIONS = {
  leader: A, epoch: epoch(9), now: 0, behind: new Set<NodeId>(), mayJoin: true, unknownLeaseOverAt: 0,
  judgesUnheard: true, protocol: 2,
};

function fact(node: NodeId, run: number, change: Partial<ServerFacts> = {}): [NodeId, ServerFacts] {
  return [node, {
    node, incarnation: incarnation(run), resumes: 0, isSilent: false, isHeard: true, willing: true, unheard: new Set(),
    recovered: 0, speaks: { min: 1, max: 2 }, leaseOverAt: -Infinity, ...change,
  }];
}

test('the leader puts a run in the place of the one that it continues, in one view', () => {
  const base = view(8, [member(A, 1, 1), member(B, 4, 1)]);
  const next = (change: Partial<ServerFacts>, run = 6): string => {
    const { members, joined, resumed, left } = compose(base, new Map([fact(A, 1), fact(B, run, change)]), OPTIONS);
    const names = members.map((one) => `${one.node}.${one.incarnation}${one.resumes === undefined ? '' : '<'}`);
    const out = left.map((run) => run.node).join();
    return `${names.join(' ')} joined ${joined.join()} resumed ${resumed.join()} left ${out}`;
  };
  assert.equal(next({ resumes: 4 }), '0.1 1.6< joined  resumed 1 left ');
  assert.equal(next({ resumes: 2 }, 9), '0.1 1.9< joined  resumed 1 left ', 'a chain, one of which was never agreed');
  assert.equal(next({ resumes: 4, speaks: null }), '0.1 1.4 joined  resumed  left ', 'its protocols are not known yet');
  assert.equal(next({ resumes: 5 }), '0.1 joined  resumed  left 1', 'what it continues is another run');
  assert.equal(next({ resumes: 4, isSilent: true }), '0.1 joined  resumed  left 1');
  assert.equal(next({ resumes: 4, speaks: { min: 3, max: 3 } }), '0.1 joined  resumed  left 1');
  const out = compose(view(8, [member(A, 1, 1)]), new Map([fact(A, 1), fact(B, 6, { resumes: 4 })]), OPTIONS);
  assert.deepEqual(out.joined, [], 'what it continues is out: it has to start anew');
});

test('a leader that is continued goes on in its own place', () => {
  const base = view(8, [member(A, 1, 1), member(B, 4, 1)]);
  const { members, resumed } = compose(base, new Map([fact(A, 3, { resumes: 1 }), fact(B, 4)]), OPTIONS);
  assert.deepEqual([members[0], resumed], [member(A, 3, 9, 1), [A]]);
});

test('of a pool of two the disks of both count as before, and former views say what was renewed', () => {
  const base = view(8, [member(A, 1, 1), member(B, 6, 8, 4)], { holders: [A, B] });
  const facts = { servers: [A, B], allHold: false, blank: new Set<NodeId>() };
  const members = [member(A, 1, 1), member(B, 7, 9, 4)];
  assert.deepEqual(nextHolders(base, members, facts), [A, B]);
  const next = nextView(base, { epoch: epoch(9), leader: A, members, holders: [], protocol: 2 }, () => 8);
  assert.deepEqual(next.former.map(({ epoch: of, isRenewed }) => [of, isRenewed]), [[8, true]]);
  assert.deepEqual(next.past, []);
});

test('with a run that continues another one every home begins anew, also for who skips that view', () => {
  const key = 'k' as RecordKey;
  const database = databaseId(1);
  const homes = new Homes();
  homes.install(view(7, [member(A, 1, 7), member(B, 4, 7)]));
  homes.install(view(8, [member(A, 1, 7), member(B, 6, 8, 4)]));
  assert.deepEqual([homes.since(database, key), homes.renewedSince], [8, 8]);
  const late = new Homes();
  late.install(view(7, [member(A, 1, 7), member(B, 4, 7)]));
  const skipped = { epoch: epoch(8), members: [member(A, 1, 7), member(B, 6, 8)], isRenewed: true as const };
  late.install(view(9, [member(A, 1, 7), member(B, 6, 8, 4)], { former: [skipped] }));
  assert.deepEqual([late.since(database, key), late.renewedSince], [8, 8]);
});

// --- messages

test('all that a run did not acknowledge is there for the next one, whole', () => {
  const stream = new SendStream(200);
  const large = Buffer.alloc(500, 'x');
  const texts = ['one', 'two'].map((text) => Buffer.from(text));
  for (const message of [texts[0]!, large, texts[1]!]) stream.push(message);
  for (let i = 0; i < 3; i++) stream.transmitted(stream.next(64)!);
  const shown = (): string[] => stream.unacknowledged().map((message) => `${message.length}`);
  assert.deepEqual(shown(), ['3', '500', '3']);
  stream.acknowledge(2, 0, 0);
  assert.deepEqual(shown(), ['500', '3'], 'its first parts have arrived, and went with that run');
  assert.deepEqual(Buffer.from(stream.unacknowledged()[0]!), large);
  while (stream.hasQueued) stream.transmitted(stream.next(64)!);
  stream.acknowledge(2, 2, 0);
  assert.deepEqual(shown(), ['500', '3'], 'what came behind a gap was not delivered');
});

// --- the run itself

/** One server alone, whose views and lease are given. */
class Alone {
  time = 1_000_000;
  readonly effects: Effect[] = [];
  private readonly node: PoolNode;

  constructor(change: Partial<NodeOptions> = {}) {
    this.node = new PoolNode({
      self: A, servers: [A, B], incarnation: incarnation(5), resumes: incarnation(3), frameBodyBytesMax: 1400,
      receiveFramesMax: 512, gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 }, ...change,
    });
  }

  step(...inputs: Input[]): this {
    for (const input of inputs) this.effects.push(...this.node.step(input, this.time));
    return this;
  }

  of<Kind extends Effect['kind']>(kind: Kind): Extract<Effect, { kind: Kind }>[] {
    return this.effects.filter((effect): effect is Extract<Effect, { kind: Kind }> => effect.kind === kind);
  }

  control(client: number, requestId: number, opcode: number, srvid: bigint): this {
    const header = { generation: 1, destination: 0xf000_0001, source: 0, requestId };
    const body = { kind: 'request-control', opcode, srvid, clientId: 0, flags: 0, data: EMPTY } as const;
    const packet = encodeCtdbPacket({ ...header, ...body }, false);
    return this.step({ kind: 'client-packet', client: clientId(client), packet });
  }

  tell(client: number, srvid: bigint): number {
    const before = this.of('client-send').length;
    const header = { generation: 1, destination: 0xf000_0001, source: 0, requestId: 0 };
    const packet = encodeCtdbPacket({ ...header, kind: 'message', srvid, data: Buffer.from('hi') }, false);
    this.step({ kind: 'client-packet', client: clientId(client), packet });
    return this.of('client-send').length - before;
  }
}

const own = view(9, [member(A, 5, 9, 3)]);
const keptClient = (change: Partial<KeptClient> = {}): Input => {
  const state = encodeKeptClient({ ...KEPT, connections: [], ...change });
  return { kind: 'client-kept', client: clientId(7), pid: 70, state };
};

test('it has resumed when it is a member and has a lease, and says so once', () => {
  const alone = new Alone().step({ kind: 'lease', until: 0 }, keptClient({ traversals: [] }), { kind: 'tick' });
  assert.equal(alone.of('resumed').length, 0);
  alone.step({ kind: 'view', view: own });
  assert.equal(alone.of('resumed').length, 0, 'without a lease it gives no answers');
  alone.step({ kind: 'lease', until: 9_000_000 }, { kind: 'tick' });
  assert.equal(alone.of('resumed').length, 1);
  assert.equal(alone.of('start-anew').length, 0);
});

test('a client is known as before, and a registration that was done is not done twice', () => {
  const alone = new Alone().step(keptClient({ traversals: [] }), { kind: 'view', view: own });
  assert.equal(alone.tell(7, 5n), 2, 'it registered twice');
  alone.control(7, 77, CONTROL.registerSrvid, 5n);
  const answer = decodeCtdbPacket(alone.of('client-send').at(-1)!.packet);
  assert.deepEqual([answer.kind, answer.requestId], ['reply-control', 77]);
  assert.equal(alone.tell(7, 5n), 2, 'as often as before');
  alone.control(7, 77, CONTROL.registerSrvid, 5n);
  assert.equal(alone.tell(7, 5n), 3, 'another one that has the number again counts');
  const kept = decodeKeptClient(alone.of('client-keep').at(-1)!.state);
  assert.deepEqual([kept.srvids.get(5n), kept.lastRequest], [3, KEPT.lastRequest]);
  const order = alone.effects.map(({ kind }) => kind).lastIndexOf('client-keep');
  assert.equal(alone.effects[order + 1]!.kind, 'client-send', 'kept before it is answered');
});

test('a request is another one when it wants something else, though it has the number', () => {
  const alone = new Alone().step(keptClient({ traversals: [] }), { kind: 'view', view: own });
  alone.control(7, 77, CONTROL.registerSrvid, 1234n);
  assert.equal(alone.tell(7, 1234n), 1);
});

test('its last wishes are done when a client ends after all', () => {
  const alone = new Alone().step(keptClient({ srvids: new Map([[9n, 1]]), traversals: [] }));
  alone.step({ kind: 'client-opened', client: clientId(8), pid: 80 }, { kind: 'view', view: own });
  alone.control(8, 1, CONTROL.registerSrvid, 9n);
  const before = alone.of('client-send').length;
  alone.step({ kind: 'client-closed', client: clientId(7) });
  const told = alone.of('client-send').slice(before).map(({ packet }) => decodeCtdbPacket(packet));
  assert.deepEqual(told.map((packet) => (packet.kind === 'message' ? packet.srvid : null)), [9n]);
});

test('records are what their headers say', () => {
  const database = databaseId(0x1234);
  const alone = new Alone();
  const record = (key: string, dmaster: NodeId, flags = 0): Input => {
    return { kind: 'record-kept', database, key: key as RecordKey, dmaster, turn: turn(40), flags, isEmpty: false };
  };
  const state = encodeKeptDatabase({ readonly: false, countsChanges: true });
  alone.step({ kind: 'database-kept', database, name: 'locking.tdb', path: '/x', flags: 1, state });
  alone.step(record('mine', A), record('given', B), record('copy', B, FLAG_HAVE_READONLY), { kind: 'tick' });
  const [status] = (alone as unknown as { node: PoolNode }).node.status().records;
  assert.deepEqual([status!.owned, status!.copies, status!.name], [1, 1, 'locking.tdb']);
  assert.equal(alone.of('database-open').length, 0, 'it is open');
});

test('it starts anew when a view does not name what it continues, or what was kept cannot be read', () => {
  const without = { ...own, members: [member(B, 2, 1)], leader: B };
  assert.equal(new Alone().step({ kind: 'view', view: without }).of('start-anew').length, 1);
  const state = Buffer.from([200]);
  const broken = new Alone().step({ kind: 'client-kept', client: clientId(1), pid: 1, state });
  assert.match(broken.of('start-anew')[0]!.reason, /kept-version/);
});

test('in a pool that does not know of such runs, or whose disk knows no pool, it starts anew', () => {
  const servers = [A, B].map((node) => ({ node, role: 'server' as const }));
  const started = (saved: View | null): number => {
    const disk = saved === null ? null : { term: 1, votedFor: null, accepted: saved, servers };
    const membership = { servers, heartbeatMicros: 40_000, leaseMicros: 300_000, saved: disk };
    return new Alone({ membership }).step({ kind: 'tick' }).of('start-anew').length;
  };
  const old = { ...own, protocol: 1, members: [member(A, 3, 1)] };
  assert.deepEqual([started(own), started(old), started(null)], [0, 1, 1]);
});

test('an address stays until the lease of the run before is over, and longer if there is another by then', () => {
  const place = { address: '10.0.0.1', prefixLength: 24, interface: 'eth0' };
  const kept = (): Alone => {
    const alone = new Alone({ addresses: [place] });
    return alone.step({ kind: 'lease', until: 0 }, { kind: 'address-kept', address: place.address }, { kind: 'tick' });
  };
  const late = kept();
  late.time += 299_000;
  late.step({ kind: 'tick' });
  assert.equal(late.of('address-release').length, 0);
  late.time += 2_000;
  late.step({ kind: 'tick' });
  assert.equal(late.of('address-release').length, 1);
  const soon = kept().step({ kind: 'view', view: own }, { kind: 'lease', until: 9_000_000 });
  soon.time += 500_000;
  soon.step({ kind: 'tick' });
  assert.equal(soon.of('address-release').length, 0);
  assert.equal(soon.of('address-take').length > 0, true, 'and is said to stay');
});
