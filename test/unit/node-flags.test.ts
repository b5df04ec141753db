/** Wherever smbpoold is started, Node.js is told what it needs. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DAEMON_NODE_FLAGS, missingNodeFlags } from '../../src/base/node-flags.js';

const text = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');

test('the unit file and the program start Node.js with all flags of the daemon', () => {
  const unit = text('packaging/smbpoold.service').replaceAll('\\\n', ' ');
  const started = unit.split('\n').find((line) => line.startsWith('ExecStart='))!;
  const [program] = text('src/daemon/main.ts').split('\n');
  for (const words of [started, program!].map((line) => line.split(/\s+/))) {
    for (const flag of DAEMON_NODE_FLAGS) assert.ok(words.includes(flag), `${flag} in ${words.join(' ')}`);
  }
});

test('flags that are missing are named', () => {
  assert.deepEqual(missingNodeFlags(['--cpu-prof', ...DAEMON_NODE_FLAGS]), []);
  assert.deepEqual(missingNodeFlags(DAEMON_NODE_FLAGS.slice(1)), DAEMON_NODE_FLAGS.slice(0, 1));
});
