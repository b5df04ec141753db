/**
 * A daemon whose run is over exits at once, whatever its worker does just then: with its exit status, no abort.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { ownDirectory } from '../support/native-helpers.js';

const PROGRAM = fileURLToPath(new URL('exit-in-worker.js', import.meta.url));

test('process.exit while a worker is in a call of the addon', (t) => {
  const ended = spawnSync(process.execPath, [PROGRAM, join(ownDirectory(t), 'worker.tdb')], { encoding: 'utf8' });
  assert.deepEqual([ended.status, ended.signal, ended.stderr], [3, null, '']);
});
