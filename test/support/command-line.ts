/**
 * Runs the compiled command `smbpool` as people do, for tests of what it prints. In UTC, so that times are the same on
 * every machine.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export interface Ended {
  status: number | null;
  out: string;
  err: string;
}

/** Runs to its end. */
export function smbpool(...options: string[]): Promise<Ended> {
  return startSmbpool(...options).ended;
}

/** Starts it; the test ends it. */
export function startSmbpool(...options: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const env = { ...process.env, TZ: 'UTC' };
  const child = spawn(process.execPath, [MAIN, ...options], { stdio: ['ignore', 'pipe', 'pipe'], env });
  const ended = new Promise<Ended>((resolve) => {
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
    child.on('close', (status) => resolve({ status, out, err }));
  });
  return { child, ended };
}
