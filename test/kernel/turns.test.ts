/**
 * Two kernel clients take turns over files on two servers (turns.sh), on a busy machine: none may go on reading what it
 * has cached after the other wrote. Optional: npm test -- kernel
 *   SMBPOOL_KERNEL_ROUNDS    rounds for each setting (default 3)
 *   SMBPOOL_KERNEL_SETTINGS  a regular expression: only the settings whose name it matches
 *   SMBPOOL_KERNEL_OPTIONS   of mount.cifs (default vers=3.1.1,cache=strict,nosharesock)
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Lab } from '../../src/lab/lab.js';
import type { LabOptions } from '../../src/lab/options.js';
import { PATIENT_LEASE_MILLIS, WITHOUT_MODULE, withLab } from '../integration/pool.js';
import { makeBusy } from '../support/busy-machine.js';
import { KERNEL_SKIP, KernelClient, makeSystem } from './kernel-client.js';

const TURNS = 150;
const ROUNDS = Number(process.env['SMBPOOL_KERNEL_ROUNDS'] ?? 3);
const CHOSEN = new RegExp(process.env['SMBPOOL_KERNEL_SETTINGS'] ?? '');
const OPTIONS = process.env['SMBPOOL_KERNEL_OPTIONS'] ?? 'vers=3.1.1,cache=strict,nosharesock';
/** A turn takes a tenth of a second; a client that waits in vain says so after half a minute. */
const ROUND_MILLIS_MAX = 600_000;

const DEBIAN_STACK = ['acl_xattr', 'streams_xattr'];
const SETTINGS: { name: string; wishes: Partial<LabOptions>; baseline?: true }[] = [
  { name: 'three servers', wishes: {} },
  { name: 'three servers with acl_xattr and streams_xattr', wishes: { vfs: DEBIAN_STACK } },
  {
    name: 'three servers over UDP with losses, acl_xattr and streams_xattr',
    wishes: { vfs: DEBIAN_STACK, transport: 'udp', lossPercent: 2 },
  },
  {
    name: 'three servers without the module, without oplocks',
    wishes: { vfs: DEBIAN_STACK, module: false, shareOptions: ['oplocks = no'] },
  },
  { name: 'one unclustered smbd', wishes: { servers: 1, vfs: DEBIAN_STACK, baseline: true }, baseline: true },
];

/** What one client tells of a round: nothing when it saw every turn. */
async function stalenessOf(client: KernelClient): Promise<string | null> {
  let stale: string | null = null;
  for (;;) {
    const told = await client.next(ROUND_MILLIS_MAX);
    if (told.startsWith('stale')) stale = told;
    if (!told.startsWith('done ')) continue;
    return stale ?? (Number(told.slice('done '.length)) === TURNS ? null : `stopped after ${told}`);
  }
}

async function playRounds(share: string, servers: readonly [string, string]): Promise<string[]> {
  const [a, b] = servers;
  const booting = await Promise.allSettled([
    KernelClient.boot({ name: 'A', server: a, turns: TURNS, options: OPTIONS }),
    KernelClient.boot({ name: 'B', server: b, turns: TURNS, options: OPTIONS }),
  ]);
  const clients = booting.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const failures: string[] = [];
  try {
    for (const one of booting) if (one.status === 'rejected') throw one.reason;
    for (let round = 1; round <= ROUNDS; round++) {
      const folder = `round-${round}`;
      mkdirSync(join(share, folder));
      chmodSync(join(share, folder), 0o777);
      const began = Date.now();
      for (const client of clients) client.say(folder);
      const stale = (await Promise.all(clients.map(stalenessOf))).filter((one) => one !== null);
      const seconds = ((Date.now() - began) / 1000).toFixed(1);
      const verdict = `round ${round}: ${stale.length === 0 ? `${TURNS} turns` : stale.join('; ')}`;
      process.stdout.write(`${verdict}, ${seconds} s\n`);
      if (stale.length > 0) failures.push(verdict);
    }
    for (const client of clients) client.say('end');
  } finally {
    for (const client of clients) client.kill();
  }
  return failures;
}

/** The share's folder, and the servers of the two clients. */
function placesOf(lab: Lab, baseline: boolean): { share: string; servers: [string, string] } {
  const places = baseline ? lab.places().filter(({ name }) => name === 'baseline') : lab.servers();
  const [first, second = first] = places;
  assert.ok(first !== undefined && second !== undefined, 'the lab has no such servers');
  return { share: first.share, servers: [first.address, second.address] };
}

for (const { name, wishes, baseline = false } of SETTINGS) {
  const needsModule = !baseline && wishes.module !== false;
  const cannot = KERNEL_SKIP !== false ? KERNEL_SKIP : needsModule && WITHOUT_MODULE;
  const skip = cannot !== false ? cannot : !CHOSEN.test(name) && 'not chosen by SMBPOOL_KERNEL_SETTINGS';
  test(`kernel clients take turns: ${name}, ${ROUNDS} rounds`, { skip }, async () => {
    await makeSystem();
    await withLab({ servers: 3, leaseMillis: PATIENT_LEASE_MILLIS, ...wishes }, async (lab) => {
      const idle = makeBusy();
      try {
        const { share, servers } = placesOf(lab, baseline);
        assert.deepEqual(await playRounds(share, servers), []);
      } finally {
        idle();
      }
    });
  });
}
