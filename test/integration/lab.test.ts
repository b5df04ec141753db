/**
 * The lab as a command: what it says when it cannot start, and that it leaves nothing behind when it fails or is
 * interrupted.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { existingNamespaces, bridgeExists } from '../../src/lab/network.js';
import { POINTER_FILE } from '../../src/lab/layout.js';
import { repositoryFolder } from '../../src/lab/repository.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import { SKIP } from './pool.js';

const ROOT = '/tmp/smbpool-test';
const CLI = join(repositoryFolder(), 'dist/src/cli/main.js');
/** Two servers start in two seconds on an idle machine. */
const RUN_MILLIS_MAX = 90_000;

function smbpool(...args: string[]): { status: number | null; said: string } {
  const result = spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8', timeout: RUN_MILLIS_MAX });
  return { status: result.status, said: `${result.stdout}${result.stderr}` };
}

function assertNothingLeft(): void {
  assert.deepEqual(existingNamespaces(), []);
  assert.equal(bridgeExists(), false);
  assert.equal(existsSync(POINTER_FILE), false);
}

test('lab up, status, exec, a second up, down', { skip: SKIP }, () => {
  try {
    const up = smbpool('lab', 'up', '2', '--root', ROOT, '--fresh');
    assert.equal(up.status, 0, up.said);
    assert.match(up.said, /server-0 +serves .*10\.77\.0\.10/);
    assert.match(up.said, /server-1 +serves .*10\.77\.0\.11/);
    const status = smbpool('lab', 'status');
    assert.equal(status.status, 0, status.said);
    assert.match(status.said, /server-1 +10\.77\.0\.11 +smbpoold runs, smbd serves/);
    const exec = smbpool('lab', 'exec', '1', '--', 'ip', '-br', 'address');
    assert.match(exec.said, /10\.77\.0\.11/);
    assert.equal(smbpool('lab', 'exec', '1', '--', 'false').status, 1);
    assert.match(smbpool('lab', 'exec', '5', '--', 'true').said, /there is no server 5/);
    const ours = smbpool('lab', 'exec', '1', '--', process.execPath, CLI, 'status', '--json');
    assert.equal((JSON.parse(ours.said) as { self: number }).self, 1);
    const second = smbpool('lab', 'up', '2');
    assert.equal(second.status, 1);
    assert.match(second.said, /a lab is up already below \/tmp\/smbpool-test/);
  } finally {
    const down = smbpool('lab', 'down', '--wipe');
    assert.equal(down.status, 0, down.said);
  }
  assertNothingLeft();
  assert.equal(existsSync(ROOT), false);
});

test('a start that fails tells the log line that explains it, and leaves nothing', { skip: SKIP }, () => {
  const up = smbpool('lab', 'up', '2', '--root', ROOT, '--fresh', '--global-option', 'ctdbd socket = /nonexistent');
  assert.equal(up.status, 1);
  assert.match(up.said, /smbd of server-0 ended: .*log.*nonexistent|smbpasswd/s);
  assertNothingLeft();
  smbpool('lab', 'down', '--root', ROOT, '--wipe');
});

test('an interrupted start leaves nothing', { skip: SKIP }, async () => {
  for (const afterMillis of [400, 800, 1600]) {
    const up = spawn(process.execPath, [CLI, 'lab', 'up', '3', '--root', ROOT, '--fresh'], { stdio: 'ignore' });
    await pause(afterMillis);
    up.kill('SIGINT');
    const ended = () => up.exitCode !== null || up.signalCode !== null;
    assert.ok(await waitUntil(ended, RUN_MILLIS_MAX), 'the interrupted command does not end');
    // on a fast machine the lab may be up by then: that is no interruption
    if (up.exitCode === 0) smbpool('lab', 'down');
    // ended by the signal itself: it was not so far yet as to handle one, and had made nothing
    else if (up.signalCode === null) assert.equal(up.exitCode, 130);
    assertNothingLeft();
  }
  smbpool('lab', 'down', '--root', ROOT, '--wipe');
});
