/**
 * The models of views and leases (README.md beside this file), checked exhaustively by spin, and the bugs planted in
 * them, each of which spin must find: check.sh does both and prints the figures. SMBPOOL_MODEL_FULL=1 takes the larger
 * bounds, too.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { repositoryRoot } from '../support/repository.js';

const FULL = process.env['SMBPOOL_MODEL_FULL'] === '1';

test('no run of the models breaks a rule of membership, and every planted bug does', () => {
  const script = join(repositoryRoot(), 'test/model/check.sh');
  const { status } = spawnSync('bash', FULL ? [script, 'full'] : [script], { stdio: ['ignore', 'inherit', 'inherit'] });
  assert.equal(status, 0, 'check.sh says above which run failed, and how to read its trail');
});
