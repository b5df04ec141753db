/**
 * The linter as a test, so that `npm test` fails on what `npm run check` would refuse; and proof that the rules which
 * guard the layers do refuse.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ESLint } from 'eslint';
import { repositoryRoot } from '../support/repository.js';

const eslint = new ESLint({ cwd: repositoryRoot() });

test('the linter finds nothing', async () => {
  const results = await eslint.lintFiles(['.']);
  const formatter = await eslint.loadFormatter('stylish');
  const text = await formatter.format(ESLint.getErrorResults(results));
  assert.equal(text, '');
});

const TIMERS = 'src/core/timers.ts';
const HEADER = 'src/wire/record-header.ts';

/** Line by line, what the rules must refuse in an existing file of a layer. */
const REFUSED: { file: string; code: string; rule: string; says: RegExp }[] = [
  { file: TIMERS, code: 'export const x = Date.now();', rule: 'no-restricted-globals', says: /step\(input/ },
  { file: TIMERS, code: 'setTimeout(() => {}, 1);', rule: 'no-restricted-globals', says: /timers/ },
  { file: TIMERS, code: 'export const x = Math.random();', rule: 'no-restricted-properties', says: /Prng/ },
  { file: TIMERS, code: 'export async function f() {}', rule: 'no-restricted-syntax', says: /synchronous/ },
  { file: TIMERS, code: 'export let count = 0;', rule: 'no-restricted-syntax', says: /state/ },
  { file: TIMERS, code: "import 'node:fs';", rule: 'no-restricted-imports', says: /effect/ },
  { file: TIMERS, code: "import '../host/loop.js';", rule: 'no-restricted-imports', says: /src\/core may/ },
  { file: HEADER, code: "import '../core/effects.js';", rule: 'no-restricted-imports', says: /src\/wire may/ },
  { file: 'src/cli/text.ts', code: "import '../core/effects.js';", rule: 'no-restricted-imports', says: /cli may/ },
  { file: 'src/daemon/log.ts', code: "import '../../test/x.js';", rule: 'no-restricted-imports', says: /daemon/ },
];

for (const { file, code, rule, says } of REFUSED) {
  test(`${file} may not contain: ${code}`, async () => {
    const [result] = await eslint.lintText(code, { filePath: `${repositoryRoot()}/${file}` });
    const found = result?.messages.find(({ ruleId }) => ruleId === rule);
    assert.match(found?.message ?? 'nothing was refused', says);
  });
}
