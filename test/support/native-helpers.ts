/**
 * Small helpers of the tests that use the addon: directories of their own, seeds, waiting for something to become true.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** A directory that goes away with the test. */
export function ownDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'smbpool-test-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** From the environment variable SEED, else a fresh one; printed, so that a failure can be repeated. */
export function chooseSeed(t: TestContext): number {
  const given = process.env['SEED'];
  const seed = given === undefined ? (Date.now() ^ (process.pid << 8)) >>> 0 : Number(given);
  t.diagnostic(`seed ${seed}`);
  console.log(`seed ${seed}`);
  return seed;
}

/** How long a fuzz test may take, in milliseconds. */
export function fuzzMs(): number {
  return Number(process.env['FUZZ_SECONDS'] ?? 3) * 1000;
}

export async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `check` answers true. Throws, naming `what`, when it does not within `timeoutMs`. */
export async function eventually(what: string, check: () => boolean, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!check()) {
    if (Date.now() > deadline) throw new Error(`still not so after ${timeoutMs} ms: ${what}`);
    await sleep(2);
  }
}
