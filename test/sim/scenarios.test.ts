/**
 * Plays the golden scenarios of test/scenarios and compares what happens with what is written there. With REWRITE=1 (or
 * --rewrite) the files are written anew: read the difference before you commit it.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { replay } from './scenario.js';

// compiled to dist/test/sim; the scenarios are not compiled and stay in the source tree
const beside = join(import.meta.dirname, '..', '..', '..', 'test', 'scenarios');
const folder = existsSync(beside) ? beside : join('test', 'scenarios');
const HINT = 'if this is as it should be: REWRITE=1 node --test dist/test/sim/scenarios.test.js';
const rewrite = process.env['REWRITE'] === '1' || process.argv.includes('--rewrite');

for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
  test(`scenario ${file}`, (t) => {
    const path = join(folder, file);
    const text = readFileSync(path, 'utf8');
    assert.ok(text.startsWith('# '), 'a scenario opens with its story');
    const played = replay(text);
    if (rewrite) {
      writeFileSync(path, played);
    } else {
      if (played !== text) t.diagnostic(HINT);
      assert.equal(played, text);
    }
    assert.ok(!/^ {2}(BROKEN|STUCK)/m.test(played), 'a scenario shows how it should be');
  });
}
