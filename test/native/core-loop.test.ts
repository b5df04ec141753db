/** The host's loop with a scripted core: order of effects, outcomes in the same turn, the guard against a runaway. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { clientId, databaseId, nodeId } from '../../src/base/ids.js';
import type { RecordKey } from '../../src/base/ids.js';
import type { Effect, Input, RecordOp } from '../../src/core/effects.js';
import { CoreLoop, OUTCOMES_PER_TURN_MAX } from '../../src/host/core-loop.js';
import type { CoreLoopPorts } from '../../src/host/core-loop.js';
import type { PersistentResult } from '../../src/ports/record-store.js';

const DATABASE = databaseId(1);
const KEY = 'k' as RecordKey;
const PEEK: RecordOp = { op: 'peek', mode: 'read' };
const CLIENT = clientId(1);
const PACKET = Buffer.from('packet');

interface Scripted {
  loop: CoreLoop;
  /** What happened, in order. */
  story: string[];
  later: (() => void)[];
  time: { now: number; deadline: number };
  resolvePersistent: ((result: PersistentResult) => void)[];
}

function scripted(script: (input: Input) => Effect[]): Scripted {
  const story: string[] = [];
  const later: (() => void)[] = [];
  const time = { now: 100, deadline: Infinity };
  const resolvePersistent: ((result: PersistentResult) => void)[] = [];
  const core = {
    step(input: Input): Effect[] {
      story.push(`<${input.kind}`);
      return script(input);
    },
    deadline: () => time.deadline,
  };
  const ports: CoreLoopPorts = {
    gate: {
      sendPacket: (_client, packet) => void story.push(`send ${Buffer.from(packet).toString()}`),
      closeClient: (client) => void story.push(`close ${client}`),
    },
    ring: {
      sendToRing: (attachment, op) => void story.push(`ring ${attachment} op ${op}`),
      endRing: (attachment) => void story.push(`ring ${attachment} ends`),
      setHome: (present, what) => void story.push(`home ${what} ${present}`),
      recordLatency: (histogram, micros) => void story.push(`latency ${histogram} ${micros}`),
      setLease: (until) => void story.push(`lease ${until}`),
      setDraining: (draining) => void story.push(`draining ${draining}`),
      setSharesFolders: (shares) => void story.push(`shares folders ${shares}`),
    },
    interconnect: {
      frameBodyBytesMax: 1000,
      receiveFramesMax: 100,
      send: (peer) => void story.push(`frame to ${peer}`),
      flush: () => undefined,
    },
    records: {
      open: (_database, name) => {
        if (name === 'bad') throw new Error('no space');
        return { path: `/v/${name}`, flags: 1 };
      },
      perform: (_database, _key, op) => {
        story.push(op.op);
        return { result: 'done' };
      },
      close: () => undefined,
    },
    persistent: {
      open: async (_database, name) => ({ path: `/p/${name}`, flags: 2 }),
      perform: (_database, work) => {
        story.push(`persistent ${work.op}`);
        return new Promise((resolve) => resolvePersistent.push(resolve));
      },
      close: async () => undefined,
    },
    log: { log: (level, event) => void story.push(`log ${level} ${event}`) },
    now: () => time.now,
    later: (action) => void later.push(action),
    outsideTurnDone: () => void story.push('left'),
    recordAnswer: (token) => void story.push(`answer ${token}`),
    witnessAnswer: (token) => void story.push(`witness ${token}`),
    traceEvent: (token) => void story.push(`trace ${token}`),
    saveMembership: () => Promise.resolve(true),
    saveDraining: () => Promise.resolve(null),
    left: () => void story.push('left the pool'),
    drainAnswer: (token) => void story.push(`drain ${token}`),
    servers: ({ number }) => void story.push(`servers ${number}`),
    serversChanged: (token) => void story.push(`servers changed ${token}`),
    event: (event) => void story.push(`event ${event}`),
    startAnew: (reason) => void story.push(`start anew: ${reason}`),
  };
  return { loop: new CoreLoop(core, ports), story, later, time, resolvePersistent };
}

const opened: Input = { kind: 'client-opened', client: CLIENT, pid: 1 };
const record = (op: RecordOp): Effect => ({ kind: 'record', database: DATABASE, key: KEY, op });
const send = (text: string): Effect => ({ kind: 'client-send', client: CLIENT, packet: Buffer.from(text) });

test('a run that must start anew performs nothing more', () => {
  const anew: Effect = { kind: 'start-anew', reason: 'why', remedy: 'what to do' };
  const s = scripted(() => [send('before'), anew, send('after'), record(PEEK)]);
  s.loop.input(opened);
  s.loop.input(opened);
  assert.equal(s.loop.endOfBatch(), Infinity);
  assert.deepEqual(s.story.slice(1), ['send before', 'start anew: why']);
});

test('effects are performed in order and outcomes come back in the same turn, before the next input', () => {
  const s = scripted((input) => {
    if (input.kind === 'client-opened') return [record(PEEK), send('first')];
    if (input.kind === 'record-done') return [send('second')];
    return input.kind === 'turn-end' ? [{ kind: 'frame-send', peer: nodeId(2), body: PACKET }] : [];
  });
  s.loop.input(opened);
  s.loop.input({ kind: 'client-closed', client: CLIENT });
  assert.equal(s.loop.endOfBatch(), Infinity);
  assert.deepEqual(s.story, [
    '<client-opened', 'peek', 'send first', '<record-done', 'send second', '<client-closed', '<turn-end',
    'frame to 2',
  ]);
});

test('without input there is no turn; a deadline that passed makes a tick', () => {
  const s = scripted(() => []);
  s.loop.endOfBatch();
  assert.deepEqual(s.story, []);
  s.time.deadline = 100;
  s.loop.endOfBatch();
  assert.deepEqual(s.story, ['<tick', '<turn-end']);
});

test('work that turn-end causes is finished in the turn, with its frames', () => {
  let ends = 0;
  const s = scripted((input) => (input.kind === 'turn-end' && ends++ === 0 ? [record(PEEK)] : []));
  s.loop.input(opened);
  s.loop.endOfBatch();
  assert.deepEqual(s.story, ['<client-opened', '<turn-end', 'peek', '<record-done', '<turn-end']);
});

test('a core that answers each outcome with new work does not hold the loop', () => {
  const s = scripted((input) => (input.kind === 'client-opened' || input.kind === 'record-done' ? [record(PEEK)] : []));
  s.loop.input(opened);
  s.loop.endOfBatch();
  const peeks = s.story.filter((line) => line === 'peek').length;
  assert.ok(peeks <= OUTCOMES_PER_TURN_MAX + 1, `${peeks} operations in one turn`);
  assert.ok(s.story.includes('log error turn.runaway'));
  assert.equal(s.later.length, 1, 'the rest is done in a later turn');
  s.story.length = 0;
  s.later[0]!();
  assert.ok(s.story.filter((line) => line === 'peek').length > 0);
  assert.equal(s.story.at(-1), 'left');
});

test('databases are opened, or the failure is told', async () => {
  const results: unknown[] = [];
  const s = scripted((input) => {
    if (input.kind === 'client-opened') {
      return [
        { kind: 'database-open', database: DATABASE, name: 'good', persistent: false },
        { kind: 'database-open', database: DATABASE, name: 'bad', persistent: false },
        { kind: 'database-open', database: DATABASE, name: 'durable', persistent: true },
      ];
    }
    if (input.kind === 'database-opened') results.push(input.error ?? `${input.path} ${input.flags}`);
    return [];
  });
  s.loop.input(opened);
  s.loop.endOfBatch();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(results, ['/v/good 1', 'no space', '/p/durable 2']);
  assert.equal(s.story.at(-1), 'left', 'a turn of its own');
});

test('persistent work is answered in a turn of its own; after stop nothing is fed', async () => {
  const s = scripted((input) =>
    input.kind === 'client-opened' ? [{ kind: 'persistent', database: DATABASE, token: 5, work: { op: 'read' } }] : [],
  );
  s.loop.input(opened);
  s.loop.endOfBatch();
  s.resolvePersistent[0]!({ ok: true, sequence: 1 });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(s.story.slice(-3), ['<persistent-done', '<turn-end', 'left']);
  s.loop.input(opened);
  s.loop.stop();
  const before = s.story.length;
  s.resolvePersistent[1]!({ ok: true, sequence: 2 });
  s.loop.input(opened);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(s.story.length, before);
  assert.equal(s.loop.endOfBatch(), Infinity);
});

test('effects for the ring and for those who ask about locks reach their ports', () => {
  const s = scripted((input) => {
    if (input.kind !== 'ring-message') return [];
    return [
      { kind: 'home', present: true, what: 1, key: PACKET },
      { kind: 'ring-send', attachment: input.attachment, op: 33, payload: PACKET },
      { kind: 'ring-end', attachment: 6 },
      { kind: 'latency', histogram: 0, micros: 12 },
      { kind: 'witness-answer', token: 7, answer: { opens: [], waits: [], missing: [], truncated: false } },
    ];
  });
  s.loop.input({ kind: 'ring-message', attachment: 5, op: 4, payload: PACKET });
  const ring = ['home 1 true', 'ring 5 op 33', 'ring 6 ends', 'latency 0 12'];
  assert.deepEqual(s.story, ['<ring-message', ...ring, 'witness 7']);
});
