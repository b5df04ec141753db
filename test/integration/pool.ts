/**
 * A lab for one test file: up before the work, down after it, also when the run is interrupted. Its logs stay for
 * reading when the work failed; the next lab wipes them.
 */
import assert from 'node:assert/strict';
import { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { lastWarnings, panics } from '../../src/lab/logs.js';
import type { LabOptions } from '../../src/lab/options.js';
import { labOptions } from '../../src/lab/options.js';
import { cleaningUpOnSignal } from '../../src/lab/signals.js';
import { SmbClient } from '../../src/lab/smb-client.js';

/** scripts/test.sh knows it too, for the case that the tests are killed. */
export const TEST_ROOT = '/tmp/smbpool-test';

/** Why the integration tests cannot run here; false when they can. */
export const SKIP: string | false =
  process.getuid?.() === 0 ? false : 'needs root, for network namespaces and smbd: sudo npm test -- integration';

/** Why the tests of the VFS module, and of what only holds with it, cannot run here; false when they can. */
export const WITHOUT_MODULE: string | false =
  process.env['SMBPOOL_NO_MODULE'] === '1' ? 'there is no module to test: unset SMBPOOL_NO_MODULE' : SKIP;

/**
 * The lease of labs whose tests are about something else than losing a server: a test machine may keep a daemon waiting
 * for longer than the usual 300 ms, and a lab has nobody who would start it again.
 */
export const PATIENT_LEASE_MILLIS = 2_000;

/** Of each server, when a test failed. */
const WARNINGS_TOLD = 6;

/** SMBPOOL_KEEP=1: a lab in which something failed stays up, to be looked at with "npx smbpool lab exec". */
const KEEP = process.env['SMBPOOL_KEEP'] === '1';

/** Runs `work` with a fresh lab; afterwards no smbd and no daemon of it may have panicked. */
export async function withLab(wishes: Partial<LabOptions>, work: (lab: Lab) => Promise<void>): Promise<void> {
  const options = labOptions({ root: TEST_ROOT, fresh: true, ...wishes });
  await cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(options);
      let held = false;
      try {
        await work(lab);
        assertNoPanics(lab);
        held = true;
      } catch (error) {
        // the logs may be gone, or out of reach, when somebody reads of the failure
        if (error instanceof Error) error.message += `\n${lastWords(lab)}`;
        throw error;
      } finally {
        if (held || !KEEP) await lab.down();
      }
      lab.wipe();
    },
    () => Lab.interrupt(),
  );
}

function lastWords(lab: Lab): string {
  const said = lab.places().flatMap((place) => lastWarnings(place, WARNINGS_TOLD));
  if (said.length === 0) return 'no smbpoold warned of anything';
  return `what each smbpoold warned of last:\n${said.join('\n')}`;
}

export function assertNoPanics(lab: Lab): void {
  const found = lab.places().flatMap((place) => panics(place));
  assert.deepEqual(found, [], 'a smbd or smbpoold of the lab broke');
}

/** A client opens the file there, and closes it. */
export async function useFile(place: ServerPlace, path: string): Promise<void> {
  const client = await SmbClient.connect(place.address);
  try {
    await client.closeHandle((await client.mustOpen(path, { disposition: 'open_if' })).handle);
  } finally {
    client.close();
  }
}
