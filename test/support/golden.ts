/**
 * Compares a text with the expectation kept in a file beside the tests; `REWRITE=1` writes the file instead. Commit a
 * rewritten file only after reading its difference.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from './repository.js';

/** `file` is relative to the repository's test folder. */
export function assertGolden(file: string, actual: string): void {
  const path = join(repositoryRoot(), 'test', file);
  if (process.env['REWRITE'] === '1') writeFileSync(path, actual);
  assert.equal(actual, readFileSync(path, 'utf8'), `differs from test/${file}; REWRITE=1 accepts the new text`);
}
