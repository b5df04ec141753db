/**
 * Samba's own suites on the pool, connections dealt over its servers, against one unclustered smbd beside it: every
 * test that passes there passes here. The whole list on three servers; a short one on other transports and sizes and
 * with losses.
 *   SMBPOOL_FULL=1   the whole list there, too
 *   SMBPOOL_SHORT=1  the short list on three servers, and nothing else
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { daemonStatus } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import type { LabOptions } from '../../src/lab/options.js';
import type { SuiteComparison } from './comparison.js';
import { compareSuite, report } from './comparison.js';
import { PATIENT_LEASE_MILLIS, SKIP, withLab } from '../integration/pool.js';
import { parseOutput } from './smbtorture.js';
import { ALL_LANES, ALONE, SHORT_LANES, SUITE_OPTIONS } from './suites.js';

const FULL = process.env['SMBPOOL_FULL'] === '1';
const SHORT = process.env['SMBPOOL_SHORT'] === '1';

/** The module's fault option; on the unclustered smbd, which has no module, it means nothing. */
const WAITING = [...SUITE_OPTIONS.shareOptions, 'smbpool:delay ms = 50'];

const VARIANTS: { title: string; wishes: Partial<LabOptions> }[] = [
  { title: 'three servers, 2 % of frames lost', wishes: { servers: 3, lossPercent: 2 } },
  { title: 'three servers over UDP', wishes: { servers: 3, transport: 'udp' } },
  { title: 'three servers without the VFS module', wishes: { servers: 3, module: false } },
  { title: 'three servers that share folders', wishes: { servers: 3, sharedFolders: true } },
  { title: 'one server', wishes: { servers: 1 } },
  { title: 'five servers', wishes: { servers: 5 } },
  { title: 'three servers, each open waits 50 ms in the module', wishes: { servers: 3, shareOptions: WAITING } },
];

async function compareLanes(lab: Lab, lanes: string[][], alone: string[]): Promise<SuiteComparison[]> {
  const runLane = async (lane: string[]) => {
    const done: SuiteComparison[] = [];
    for (const suite of lane) done.push(await compareSuite(lab, suite));
    return done;
  };
  const beside = await Promise.all(lanes.map(runLane));
  return [...beside.flat(), ...(await runLane(alone))];
}

/** That the pool really was the one asked for: speaks over that transport, lost frames, used all servers. */
async function assertVariant(lab: Lab): Promise<void> {
  for (const place of lab.servers()) {
    const status = await daemonStatus(place.adminSocket);
    assert.ok(status, `smbpoold of ${place.name} does not answer`);
    assert.equal(status.transport, lab.options.transport);
    assert.equal(status.links.length, lab.options.servers - 1);
    const lost = status.counters['interconnect.fault.lost'] ?? 0;
    if (lab.options.lossPercent > 0) assert.ok(lost > 0, 'nothing was lost');
    assert.equal((status.counters['witness.attached'] ?? 0) > 0, lab.options.module, 'the module was not as asked for');
    if (lab.options.servers > 1) assert.ok((status.counters['record.arrived.move'] ?? 0) > 0, 'no record moved here');
  }
}

async function compare(wishes: Partial<LabOptions>, lanes: string[][], alone: string[]): Promise<string[]> {
  const lines: string[] = [];
  await withLab({ ...SUITE_OPTIONS, leaseMillis: PATIENT_LEASE_MILLIS, ...wishes, baseline: true }, async (lab) => {
    const comparisons = await compareLanes(lab, lanes, alone);
    lines.push(...comparisons.flatMap(report));
    process.stdout.write(`${lines.join('\n')}\n`);
    const failed = comparisons.flatMap((one) => one.differences.filter(({ verdict }) => verdict === 'failed'));
    // the names first: of a long message some show only the beginning
    const names = failed.map(({ test }) => test).join(', ');
    assert.deepEqual(failed, [], `passes only on the unclustered smbd: ${names}\n${lines.join('\n')}`);
    await assertVariant(lab);
    // a comparison with a server on which nothing passes would prove nothing
    const proved = comparisons.reduce((sum, one) => sum + one.passedUnclustered, 0);
    assert.ok(proved > 100, `only ${proved} tests passed on the unclustered smbd`);
  });
  return lines;
}

test('smbtorture output is read test by test', () => {
  const output = [
    'test: smb2.lock.a', 'time: 1', 'success: smb2.lock.a', 'test: smb2.lock.b', 'half a linefailure: smb2.lock.b [',
    'why', ']', 'test: smb2.lock.c', 'skip: smb2.lock.c [', 'because', ']', 'test: smb2.lock.d',
  ].join('\n');
  assert.deepEqual([...parseOutput(output)], [
    ['smb2.lock.a', { outcome: 'success', detail: '' }],
    ['smb2.lock.b', { outcome: 'failure', detail: 'why ' }],
    ['smb2.lock.c', { outcome: 'skip', detail: 'because ' }],
    ['smb2.lock.d', { outcome: 'no result', detail: '' }],
  ]);
});

const all = SHORT ? 'the short list' : 'all suites';
test(`three servers pass what one unclustered smbd passes, ${all}`, { skip: SKIP }, async () => {
  await (SHORT ? compare({ servers: 3 }, SHORT_LANES, []) : compare({ servers: 3 }, ALL_LANES, ALONE));
});

for (const { title, wishes } of VARIANTS) {
  const skip = SHORT ? 'only three servers with SMBPOOL_SHORT=1: unset it' : SKIP;
  test(`${title}: pass what one unclustered smbd passes`, { skip }, async () => {
    await (FULL ? compare(wishes, ALL_LANES, ALONE) : compare(wishes, SHORT_LANES, []));
  });
}
