/**
 * Runs the native tests of the shared-memory ring and of the module's own code (scripts/test-module.sh) as part of
 * `npm test`: mapping and ring under cmocka, client against server, hostile and dying clients; all with sanitizers.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { repositoryRoot } from '../support/repository.js';

const FUZZ_SECONDS = 5;
const BUILD_AND_RUN_MILLIS_MAX = 180_000;

const skip = existsSync('/usr/include/cmocka.h') ? false : 'needs cmocka: apt-get install libcmocka-dev';

test('ring and module code, natively, with sanitizers', { skip, timeout: BUILD_AND_RUN_MILLIS_MAX }, async () => {
  const script = join(repositoryRoot(), 'scripts/test-module.sh');
  const { output, code } = await new Promise<{ output: string; code: number }>((resolve) => {
    execFile('bash', [script, String(FUZZ_SECONDS)], { maxBuffer: 4 << 20 }, (error, stdout, stderr) => {
      resolve({ output: stdout + stderr, code: error === null ? 0 : 1 });
    });
  });
  // the fuzzer prints its seed first; SEED=n in the environment repeats it
  assert.equal(code, 0, output);
  assert.match(output, /^ok: \d+ clients/m);
});
