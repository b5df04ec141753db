/**
 * A batch of simulated runs of the membership, some fixed seeds, and the canaries: with a bug planted the
 * checker must raise the alarm, or it would not notice a real one either.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EngineName } from '../../../src/core/membership/port.js';
import type { Measured } from './run.js';
import { describeMeasured, noMeasured, simulate } from './run.js';
import type { Sabotage } from './settings.js';
import { describeSettings, settingsOf } from './settings.js';

const seedBase = Number(process.env.SEED ?? Date.now() % 1_000_000);
console.log(`seed ${seedBase}`);

/** Some seconds of a slow machine. */
const RUNS = 60;

/**
 * In every batch: a single server that crashes, a witness with cuts, slow disks, overtaking frames, old news; one
 * that was told it is out of the pool by a server that had only accepted so; and one that was never told.
 */
const FIXED_SEEDS = [4, 11, 30, 110, 936, 900_020, 1_200_470, 330_001_231];

/** A planted bug must be found within so many runs from a fixed seed; most are found in the first. */
const CANARIES: { sabotage: Sabotage; rule: string; runs: number }[] = [
  { sabotage: 'vote-unsaved', rule: 'one-vote-a-term', runs: 200 },
  { sabotage: 'accept-unsaved', rule: 'installed-is-agreed', runs: 20 },
  { sabotage: 'no-lease-wait', rule: 'no-lease-without-view', runs: 20 },
  { sabotage: 'no-promise', rule: 'no-lease-without-view', runs: 300 },
  { sabotage: 'lease-from-receipt', rule: 'no-lease-without-view', runs: 20 },
  { sabotage: 'forget-promise', rule: 'no-lease-without-view', runs: 400 },
  { sabotage: 'inherited-ignored', rule: 'no-lease-without-view', runs: 100 },
  { sabotage: 'old-term-counts', rule: 'installed-is-agreed', runs: 60 },
  { sabotage: 'no-pre-vote', rule: 'returning-changes-no-leader', runs: 20 },
  { sabotage: 'judge-asleep', rule: 'naps-leave-nobody-out', runs: 60 },
  { sabotage: 'heard-is-enough', rule: 'silent-are-left-out', runs: 20 },
  { sabotage: 'goes-before-all', rule: 'cut-pools-serve', runs: 60 },
  { sabotage: 'take-everybody', rule: 'members-speak-it', runs: 60 },
  { sabotage: 'ask-members-only', rule: 'rises-when-all-can', runs: 60 },
  { sabotage: 'protocol-falls', rule: 'protocol-never-falls', runs: 60 },
  { sabotage: 'foreign-stands', rule: 'members-speak-it', runs: 60 },
  { sabotage: 'majority-of-the-file', rule: 'installed-is-agreed', runs: 20 },
  // that others may serve meanwhile needs five servers cut in just one way: seen as a leader that should have gone
  { sabotage: 'authority-of-the-file', rule: 'silent-are-left-out', runs: 60 },
  { sabotage: 'forgets-the-servers', rule: 'configuration-never-lost', runs: 20 },
  { sabotage: 'two-servers-at-once', rule: 'one-server-at-a-time', runs: 60 },
];

/** Of the engine etcd; the rest is shared and found above. */
const ETCD_RUNS = 40;
const ETCD_CANARIES: typeof CANARIES = [
  { sabotage: 'no-challenge-wait', rule: 'one-authority', runs: 20 },
  { sabotage: 'challenge-ignored', rule: 'no-lease-without-view', runs: 20 },
  { sabotage: 'overtaken-answers', rule: 'another-leads', runs: 60 },
  { sabotage: 'proposal-dropped', rule: 'former-views-are-told', runs: 60 },
  { sabotage: 'heard-is-enough', rule: 'silent-are-left-out', runs: 20 },
  { sabotage: 'hears-one-way', rule: 'cut-pools-go-on', runs: 40 },
  { sabotage: 'no-lease-wait', rule: 'no-lease-without-view', runs: 60 },
  { sabotage: 'lease-from-receipt', rule: 'no-lease-without-view', runs: 60 },
];

/** Servers are killed, and other runs continue theirs. */
const RESUMING_RUNS = 30;
const RESUMING_CANARIES: typeof CANARIES = [
  { sabotage: 'resumed-is-anew', rule: 'view-says-who-continues', runs: 20 },
  { sabotage: 'resumes-what-is-over', rule: 'settles', runs: 20 },
];

function runOne(seed: number, engine: EngineName = 'embedded', resumes = false): Measured {
  const settings = settingsOf(seed, 'none', engine, resumes);
  const { violations, trace, measured } = simulate(settings);
  const [violation] = violations;
  if (violation === undefined) return measured;
  assert.fail(
    [
      `seed ${seed}: ${violation.rule}: ${violation.text}`,
      describeSettings(settings),
      ...trace.tail(40),
      `repeat: node dist/test/sim/membership/main.js --seed ${seed} --engine ${engine}${resumes ? ' --resumes' : ''}`,
    ].join('\n'),
  );
}

for (const [engine, runs] of [['embedded', RUNS], ['etcd', ETCD_RUNS]] as const) {
  test(`${runs} simulated runs of the membership, ${engine}, keep all rules`, (t) => {
    const total = noMeasured();
    for (let seed = seedBase; seed < seedBase + runs; seed++) {
      const measured = runOne(seed, engine);
      for (const name of Object.keys(total) as (keyof Measured)[]) total[name].push(...measured[name]);
    }
    for (const line of describeMeasured(total)) t.diagnostic(line);
  });
}

for (const seed of FIXED_SEEDS) test(`seed ${seed} keeps all rules`, () => void runOne(seed));

for (const engine of ['embedded', 'etcd'] as const) {
  test(`the same seed gives the same run, ${engine}`, () => {
    const settings = settingsOf(seedBase, 'none', engine);
    const [first, second] = [0, 1].map(() => simulate(settings).trace.tail(500));
    assert.deepEqual(first, second);
  });
}

for (const engine of ['embedded', 'etcd'] as const) {
  test(`${RESUMING_RUNS} runs in which runs are continued, ${engine}, keep all rules`, () => {
    for (let seed = seedBase; seed < seedBase + RESUMING_RUNS; seed++) runOne(seed, engine, true);
  });
}

function findsPlanted(engine: EngineName, canary: (typeof CANARIES)[number], resumes = false): void {
  const { sabotage, rule, runs } = canary;
  test(`a planted bug is found: ${sabotage}, ${engine}`, () => {
    const found = new Set<string>();
    for (let seed = 1; seed <= runs; seed++) {
      for (const violation of simulate(settingsOf(seed, sabotage, engine, resumes)).violations) {
        assert.notEqual(violation.rule, 'no-exception', violation.text);
        found.add(violation.rule);
      }
      if (found.has(rule)) return;
    }
    assert.fail(`not found in ${runs} runs; found: ${[...found].join(', ')}`);
  });
}

for (const canary of CANARIES) findsPlanted('embedded', canary);
for (const canary of RESUMING_CANARIES) findsPlanted('embedded', canary, true);
for (const canary of ETCD_CANARIES) findsPlanted('etcd', canary);
