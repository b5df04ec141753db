/**
 * Compares the pool with one unclustered smbd, test by test: what passes there must pass here. Tests that cannot,
 * because of what they assume, are in not-on-one-server.json, each with its reason.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { repositoryFolder } from '../../src/lab/repository.js';
import type { SuiteResult } from './smbtorture.js';
import { runSuite } from './smbtorture.js';

/**
 * Some tests depend on timing and now and then fail on any smbd. A test that fails only in the pool is tried again on
 * both, in the pool with the servers dealt in another order; every attempt is reported.
 */
const ATTEMPTS_MAX = 3;

export interface Difference {
  test: string;
  /** What the pool said, one entry per attempt. */
  said: string[];
  /** passed: a later attempt passed. unstable: it failed on the unclustered smbd too. failed: only the pool fails. */
  verdict: 'passed' | 'unstable' | 'failed';
}

export interface SuiteComparison {
  suite: string;
  passedUnclustered: number;
  passedInPool: number;
  /** Passed on the unclustered smbd and not at the first attempt in the pool. */
  differences: Difference[];
  /** Of the differences: those of not-on-one-server.json, with the reason. */
  excused: Map<string, string>;
}

/** Test name to reason. */
export function excuses(): Map<string, string> {
  const file = join(repositoryFolder(), 'test/suites/not-on-one-server.json');
  return new Map(Object.entries(JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>));
}

function rotated<T>(items: readonly T[], by: number): T[] {
  const shift = by % items.length;
  return [...items.slice(shift), ...items.slice(0, shift)];
}

function passes(results: SuiteResult): string[] {
  return [...results].filter(([, result]) => result.outcome === 'success').map(([name]) => name);
}

function described(results: SuiteResult, name: string): string {
  const result = results.get(name);
  return result ? `${result.outcome} ${result.detail.trim()}`.trim() : 'was not run';
}

async function examine(lab: Lab, servers: ServerPlace[], test: string, first: string): Promise<Difference> {
  const said = [first];
  for (let attempt = 1; attempt < ATTEMPTS_MAX; attempt++) {
    const [alone, pool] = await runOnBoth(lab, rotated(servers, attempt), test);
    said.push(described(pool, test));
    if (pool.get(test)?.outcome === 'success') return { test, said, verdict: 'passed' };
    if (alone.get(test)?.outcome !== 'success') {
      said.push(`unclustered: ${described(alone, test)}`);
      return { test, said, verdict: 'unstable' };
    }
  }
  return { test, said, verdict: 'failed' };
}

/** Runs a suite or test on the unclustered smbd and on the pool at the same time. */
function runOnBoth(lab: Lab, servers: ServerPlace[], suite: string): Promise<[SuiteResult, SuiteResult]> {
  return Promise.all([runSuite(lab, [lab.layout.baseline()], suite), runSuite(lab, servers, suite)]);
}

/** Runs a suite on both and finds what passes on the unclustered smbd only. */
export async function compareSuite(lab: Lab, suite: string): Promise<SuiteComparison> {
  const servers = lab.servers();
  const [alone, pool] = await runOnBoth(lab, servers, suite);
  const excused = excuses();
  const comparison: SuiteComparison = {
    suite,
    passedUnclustered: passes(alone).length,
    passedInPool: passes(pool).length,
    differences: [],
    excused: new Map(),
  };
  for (const test of passes(alone)) {
    if (pool.get(test)?.outcome === 'success') continue;
    const reason = excused.get(test);
    if (reason !== undefined && lab.options.servers > 1) comparison.excused.set(test, reason);
    else comparison.differences.push(await examine(lab, servers, test, described(pool, test)));
  }
  return comparison;
}

const VERDICTS: Record<Difference['verdict'], string> = {
  passed: 'passed only when repeated',
  unstable: 'fails now and then on the unclustered smbd too',
  failed: 'NOT PASSED',
};

/** The comparison in lines, for the test's output. */
export function report(comparison: SuiteComparison): string[] {
  const { suite, passedUnclustered, passedInPool } = comparison;
  return [
    `${suite}: unclustered ${passedUnclustered} pass, pool ${passedInPool} pass`,
    ...[...comparison.excused].map(([name, reason]) => `  ${name}: not passed, as expected: ${reason}`),
    ...comparison.differences.map(
      ({ test, said, verdict }) => `  ${test}: ${VERDICTS[verdict]}; ${said.join(' | ')}`,
    ),
  ];
}
