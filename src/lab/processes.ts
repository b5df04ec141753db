/**
 * Starts the lab's daemons inside their namespaces and tells whether they live. Never signals a process whose start
 * time is not the one recorded.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, messageOf } from './errors.js';
import type { LabProcess } from './state.js';

/**
 * Clock ticks after boot at which the process started; null when there is no such process (a zombie counts as none).
 */
export function startTicks(pid: number): number | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the second field is the name in parentheses and may hold anything: count from its end
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z') return null;
    return Number(fields[19]);
  } catch {
    return null;
  }
}

export function isAlive(process_: LabProcess): boolean {
  return startTicks(process_.pid) === process_.startTicks;
}

/** The smbpoold that has the lock of this directory of databases, as it says there; null: none does. */
export function lockHolder(directory: string): number | null {
  try {
    return Number(readFileSync(join(directory, 'smbpoold.lock'), 'utf8')) || null;
  } catch {
    return null;
  }
}

export interface Start {
  kind: LabProcess['kind'];
  server: number | null;
  namespace: string;
  command: string;
  args: readonly string[];
  /** What it prints goes here, after what is there already. */
  outputFile: string;
  environment?: Record<string, string>;
  /** As of nice(1); 0 unless told. */
  nice?: number;
  /** Called when it ends, with its exit status or the signal, as long as this process lives. */
  ended?: (pid: number, how: number | NodeJS.Signals) => void;
}

/**
 * Starts a daemon in its namespace, detached from us. `ip netns exec` becomes the daemon, so its pid is the daemon's.
 */
export async function start(what: Start): Promise<LabProcess> {
  const output = openSync(what.outputFile, 'a');
  try {
    const nice = what.nice === undefined ? [] : ['nice', '-n', String(what.nice)];
    const child = spawn('ip', ['netns', 'exec', what.namespace, ...nice, what.command, ...what.args], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...process.env, ...what.environment },
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.unref();
    const pid = child.pid ?? 0;
    child.once('exit', (status, signalName) => what.ended?.(pid, status ?? signalName ?? 1));
    return { kind: what.kind, server: what.server, pid, startTicks: startTicks(pid) ?? 0 };
  } catch (error) {
    throw new LabError(`cannot start ${what.command}: ${messageOf(error)}`);
  } finally {
    closeSync(output);
  }
}

/** Signals the process if it is still the one that was started. */
export function signal(process_: LabProcess, name: NodeJS.Signals): void {
  if (!isAlive(process_)) return;
  try {
    process.kill(process_.pid, name);
  } catch {
    // ended by itself in the meantime
  }
}

/** Resident memory in kilobytes; null when the process is gone. */
export function residentKilobytes(process_: LabProcess): number | null {
  if (!isAlive(process_)) return null;
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${process_.pid}/status`, 'latin1'));
  return match ? Number(match[1]) : null;
}
