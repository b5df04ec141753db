/**
 * Runs other programs for the lab: to the end, with their output, a deadline and no shell. Programs run in a session of
 * their own, so that Ctrl-C at the terminal reaches only us and the clean-up's own commands are not cut short.
 */
import { spawn } from 'node:child_process';
import { LabError } from './errors.js';

/** Long enough for the slowest helper on a busy machine; a program that hangs must not hang the lab for ever. */
const RUN_MILLIS_MAX = 60_000;
/** More output than this from one program is a fault of the program; the rest is thrown away. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

export interface RunOptions {
  /** Given to the program as standard input; otherwise that is empty. */
  input?: string;
  timeoutMs?: number;
  environment?: Record<string, string>;
}

export interface RunResult {
  /** The exit status; null when it was ended by a signal or by the deadline. */
  status: number | null;
  stdout: string;
  stderr: string;
  timedOut: boolean;
}

/** Runs a program to its end and tells how it ended; throws LabError only when it cannot be started. */
export function tryRun(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.environment },
    });
    const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    let bytes = 0;
    const keep = (list: Buffer[]) => (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= OUTPUT_BYTES_MAX) list.push(chunk);
    };
    child.stdout.on('data', keep(output.stdout));
    child.stderr.on('data', keep(output.stderr));
    // a program that does not read its input closes the pipe early: no fault
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    let timedOut = false;
    const deadline = setTimeout(() => {
      timedOut = true;
      killGroup(child.pid);
    }, options.timeoutMs ?? RUN_MILLIS_MAX);
    child.on('error', (error) => {
      clearTimeout(deadline);
      reject(new LabError(`cannot run ${command}: ${error.message}; "npm run setup" installs what is needed`));
    });
    child.on('close', (status) => {
      clearTimeout(deadline);
      resolve({
        status: timedOut ? null : status,
        stdout: Buffer.concat(output.stdout).toString(),
        stderr: Buffer.concat(output.stderr).toString(),
        timedOut,
      });
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ended by itself in the meantime
  }
}

/** Runs a program that must succeed; returns its standard output. Throws LabError with what it said. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await tryRun(command, args, options);
  if (result.status !== 0) {
    const said = (result.stderr.trim() || result.stdout.trim() || 'it said nothing').split('\n').slice(-5).join(' / ');
    const how = result.timedOut ? 'did not end in time' : `failed (status ${result.status ?? 'none'})`;
    throw new LabError(`"${[command, ...args].join(' ')}" ${how}: ${said}`);
  }
  return result.stdout;
}

/** Waits `millis`. */
export function pause(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

/**
 * Asks `probe` again and again until it answers true. Returns false when `timeoutMs` passed first. Errors of the probe
 * end the wait.
 */
export async function waitUntil(
  probe: () => boolean | Promise<boolean>,
  timeoutMs: number,
  intervalMs = 50,
): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    if (await probe()) return true;
    if (Date.now() >= deadline) return false;
    await pause(intervalMs);
  }
}
