/**
 * A batch of simulated runs, and the canaries: with a bug planted in the store adapter the checkers must raise the
 * alarm, or they would not notice a real one either.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeFactory } from './nodes.js';
import { simulate } from './run.js';
import type { Sabotage } from './settings.js';
import { describeSettings, settingsOf } from './settings.js';

const seedBase = Number(process.env.SEED ?? Date.now() % 1_000_000);
console.log(`seed ${seedBase}`);

/** Enough for all kinds of settings to meet; some 15 s of a slow machine. */
const RUNS = 200;
/** A planted bug must be found within so many runs; most are found in the first. */
const CANARY_RUNS_MAX = 30;

test(`${RUNS} simulated runs keep all rules`, () => {
  for (let seed = seedBase; seed < seedBase + RUNS; seed++) {
    const settings = settingsOf(seed);
    const result = simulate(settings, nodeFactory('pool'));
    const [violation] = result.violations;
    if (violation === undefined) continue;
    assert.fail(
      [
        `seed ${seed}: ${violation.rule}: ${violation.text}`,
        describeSettings(settings),
        ...result.trace.tail(40, violation.record),
        `repeat: npm run sim -- --seed ${seed}`,
      ].join('\n'),
    );
  }
});

test('the same seed gives the same run', () => {
  const [first, second] = [0, 1].map(() => simulate(settingsOf(seedBase), nodeFactory('pool')));
  assert.equal(first!.summary, second!.summary);
  assert.deepEqual(first!.trace.tail(500), second!.trace.tail(500));
});

const sabotages: Sabotage[] = ['forget-delegations', 'keep-copies', 'give-old-payload'];

for (const sabotage of sabotages) {
  test(`a planted bug is found: ${sabotage}`, () => {
    for (let seed = seedBase; seed < seedBase + CANARY_RUNS_MAX; seed++) {
      const [violation] = simulate({ ...settingsOf(seed), sabotage }, nodeFactory('pool')).violations;
      if (violation === undefined) continue;
      assert.notEqual(violation.rule, 'no-exception', violation.text);
      return;
    }
    assert.fail(`not found in ${CANARY_RUNS_MAX} runs`);
  });
}
