/**
 * Runs Samba's own test suites against a server, or dealt over several, and reads what each test did. smbtorture opens
 * its connections in turn at the lines of the file given with --unclist: two connections of one test are on two
 * servers.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { LAB_PASSWORD, LAB_USER, SHARE } from '../../src/lab/layout.js';
import { tryRun } from '../../src/lab/run.js';

/**
 * The longest suite takes three minutes where all is well; a pool in which requests get stuck waits out many timeouts.
 */
const SUITE_MILLIS_MAX = 400_000;
/** One test by itself: the slowest waits out a few oplock breaks (35 s each). */
const TEST_MILLIS_MAX = 120_000;

export type Outcome = 'success' | 'failure' | 'error' | 'skip' | 'no result';

export interface TestResult {
  outcome: Outcome;
  /** What smbtorture said about it; empty for a success. */
  detail: string;
}

export type SuiteResult = Map<string, TestResult>;

/**
 * Reads smbtorture's output (with --fullname). A test that began and has no result was cut off by a crash or the
 * deadline.
 */
export function parseOutput(output: string): SuiteResult {
  const results: SuiteResult = new Map();
  let detailOf: TestResult | null = null;
  for (const line of output.split('\n')) {
    if (detailOf) {
      if (line === ']') detailOf = null;
      else if (!line.startsWith('time: ')) detailOf.detail += `${line} `;
      continue;
    }
    const began = /^test: (\S+)$/.exec(line);
    if (began?.[1]) results.set(began[1], { outcome: 'no result', detail: '' });
    // some tests print without a newline before their result
    const ended = /(success|failure|error|skip): (\S+)( \[)?$/.exec(line);
    const name = ended?.[2];
    if (!ended || !name || !results.has(name)) continue;
    const result: TestResult = { outcome: ended[1] as Outcome, detail: '' };
    results.set(name, result);
    if (ended[3]) detailOf = result;
  }
  return results;
}

/** Runs one suite, or one test of it, with its connections dealt over `places` in their order. */
export async function runSuite(lab: Lab, places: readonly ServerPlace[], suite: string): Promise<SuiteResult> {
  const uncs = places.map((place) => `//${place.address}/${SHARE}`);
  const first = uncs[0] ?? '';
  const list = join(lab.layout.root, `unclist-${places.map((place) => place.name).join('-')}`);
  writeFileSync(list, uncs.map((unc) => `${unc}\n`).join(''));
  const dealt = places.length > 1 ? [`--unclist=${list}`] : [];
  // without a base folder it leaves one behind wherever it was started
  const basics = ['-s', lab.layout.clientConf, '-U', `${LAB_USER}%${LAB_PASSWORD}`, `--basedir=${lab.layout.root}`];
  const args = [first, ...basics, ...dealt, '--fullname', suite];
  // smb2.lock is a suite, smb2.lock.contend a test
  const timeoutMs = suite.split('.').length > 2 ? TEST_MILLIS_MAX : SUITE_MILLIS_MAX;
  const result = await tryRun('smbtorture', args, { timeoutMs });
  return parseOutput(result.stdout);
}
