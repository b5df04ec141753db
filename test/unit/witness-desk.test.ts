/** The desk between people's questions about locks and the core: tokens, answers, readers that leave, stopping. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Input } from '../../src/core/effects.js';
import { WitnessDesk } from '../../src/host/witness.js';
import type { HotAnswer, LocksAnswer, TraceEvent } from '../../src/wire/locks.js';

const NOTHING: LocksAnswer = { opens: [], waits: [], missing: [2], truncated: false };
const HOT: HotAnswer = { intervalMicros: 1_000_000, files: [], missing: [] };
const EVENT = { kind: 'open', path: 'a' } as TraceEvent;

interface Desk {
  desk: WitnessDesk;
  inputs: Input[];
  runLater(): void;
}

function makeDesk(): Desk {
  const inputs: Input[] = [];
  const later: (() => void)[] = [];
  const desk = new WitnessDesk({ input: (input) => inputs.push(input), later: (action) => later.push(action) });
  return { desk, inputs, runLater: () => later.splice(0).forEach((action) => action()) };
}

test('each question gets its own answer; answers to nobody are dropped', async () => {
  const { desk, inputs } = makeDesk();
  const locks = desk.locks({ path: 'a' });
  const hot = desk.hot();
  assert.deepEqual(inputs, [
    { kind: 'witness-query', token: 1, query: { what: 'locks', filter: { path: 'a' } } },
    { kind: 'witness-query', token: 2, query: { what: 'hot' } },
  ]);
  desk.onAnswer(99, NOTHING);
  desk.onAnswer(2, HOT);
  desk.onAnswer(1, NOTHING);
  desk.onAnswer(1, NOTHING);
  assert.equal(await locks, NOTHING);
  assert.equal(await hot, HOT);
});

test('a reader gets its events until it leaves, which it may in the middle of one', () => {
  const { desk, inputs, runLater } = makeDesk();
  let seen = 0;
  const leave = desk.trace({ kinds: ['open'] }, () => {
    seen++;
    if (seen === 2) leave();
  });
  assert.deepEqual(inputs, [{ kind: 'trace-start', token: 1, filter: { kinds: ['open'] } }]);
  for (let i = 0; i < 4; i++) desk.onEvent(1, EVENT);
  assert.equal(seen, 2);
  assert.equal(inputs.length, 1, 'the core is not told inside a turn');
  leave();
  runLater();
  assert.deepEqual(inputs.slice(1), [{ kind: 'trace-stop', token: 1 }]);
});

test('stopping ends questions and readers', async () => {
  const { desk, inputs, runLater } = makeDesk();
  const question = desk.locks({});
  let seen = 0;
  const leave = desk.trace({}, () => seen++);
  desk.stop();
  await assert.rejects(question, { code: 'ERR_POOL_STOPPED' });
  await assert.rejects(desk.hot(), { code: 'ERR_POOL_STOPPED' });
  desk.onEvent(2, EVENT);
  leave();
  runLater();
  desk.trace({}, () => seen++)();
  assert.equal(seen, 0);
  assert.equal(inputs.length, 2);
});
