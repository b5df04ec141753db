/**
 * A chaos run on real smbds: servers, processes and links fail at random while clients do work that can be checked.
 * What its judges find is tested in test/unit/chaos.test.ts.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { chaos } from '../../src/lab/chaos/chaos.js';
import type { LabOptions } from '../../src/lab/options.js';
import { forgetTheEnd } from './kill-daemon.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const MINUTES = Number(process.env['SMBPOOL_CHAOS_MINUTES'] ?? 2);
/** A round takes ten seconds on a busy machine, and twice that where a standby has to end as well. */
const FAULTS_A_MINUTE_MIN = 2;
const DONE_MIN = 100;

/** Each run of the tests tries one of these as well, for half the time. */
const OTHER_POOLS: { name: string; options: Partial<LabOptions>; flags: string }[] = [
  { name: 'on etcd', options: { engine: 'etcd' }, flags: '--engine etcd' },
  { name: 'with standbys', options: { standby: true }, flags: '--standby' },
  { name: 'with two interfaces', options: { interfaces: 2 }, flags: '--interfaces 2' },
];

const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const other = OTHER_POOLS[seed % OTHER_POOLS.length]!;

async function nothingIsViolated(minutes: number, options: Partial<LabOptions>, flags: string): Promise<void> {
  process.stdout.write(`seed ${seed}\n`);
  await withLab({ servers: 3, ...options }, async (lab) => {
    const { violations, faults, done } = await chaos(lab, { seed, minutes }, (line) => {
      process.stdout.write(`${line}\n`);
    });
    const repeat = `npx smbpool lab chaos --seed ${seed} --minutes ${minutes} ${flags}`.trim();
    assert.deepEqual(violations, [], `violated with seed ${seed}; "${repeat}" repeats it`);
    for (const place of lab.servers()) forgetTheEnd(place);
    const isProof = faults >= Math.floor(minutes * FAULTS_A_MINUTE_MIN) && done >= DONE_MIN;
    assert.ok(isProof, `only ${faults} faults and ${done} answers: nothing was proved`);
  });
}

test(`${MINUTES} minutes of chaos`, { skip: WITHOUT_MODULE }, () => nothingIsViolated(MINUTES, {}, ''));

test(`${MINUTES / 2} minutes of chaos ${other.name}`, { skip: WITHOUT_MODULE }, async () => {
  await nothingIsViolated(MINUTES / 2, other.options, other.flags);
});
