/**
 * A chaos run on real smbds: servers, processes and links fail at random while clients do work that can be checked.
 * What its judges find is tested in test/unit/chaos.test.ts.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { chaos } from '../../src/lab/chaos/chaos.js';
import { forgetTheEnd } from './kill-daemon.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const MINUTES = Number(process.env['SMBPOOL_CHAOS_MINUTES'] ?? 2);
/** A round takes ten seconds on a busy machine. */
const FAULTS_MIN = Math.floor(MINUTES * 3);
const DONE_MIN = 100;

test(`${MINUTES} minutes of chaos`, { skip: WITHOUT_MODULE }, async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  await withLab({ servers: 3 }, async (lab) => {
    const { violations, faults, done } = await chaos(lab, { seed, minutes: MINUTES }, (line) => {
      process.stdout.write(`${line}\n`);
    });
    assert.deepEqual(violations, [], `violated with seed ${seed}; "npx smbpool lab chaos --seed ${seed}" repeats it`);
    for (const place of lab.servers()) forgetTheEnd(place);
    const isProof = faults >= FAULTS_MIN && done >= DONE_MIN;
    assert.ok(isProof, `only ${faults} faults and ${done} answers: nothing was proved`);
  });
});
