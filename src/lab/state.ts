/**
 * What a lab that is up (or was interrupted on its way) has made: written to ROOT/lab.json before each thing is made,
 * so that `lab down` can undo it after a crash. Holds no behaviour beyond reading and writing.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { LabError, messageOf } from './errors.js';
import type { Layout } from './layout.js';
import { POINTER_FILE } from './layout.js';
import type { LabOptions } from './options.js';

/** A process the lab started. The start time tells it from a later process with the same number. */
export interface LabProcess {
  kind: 'smbpoold' | 'smbd' | 'etcd';
  /** null for the unclustered smbd. */
  server: number | null;
  pid: number;
  /** Clock ticks after boot, from /proc/PID/stat. */
  startTicks: number;
}

export interface LabState {
  options: LabOptions;
  /** The process that is building the lab; null once it is up. */
  builder: { pid: number; startTicks: number } | null;
  /** Unix users that this lab created and so removes. */
  createdUsers: string[];
  processes: LabProcess[];
}

export function saveState(layout: Layout, state: LabState): void {
  const next = `${layout.stateFile}.next`;
  writeFileSync(next, `${JSON.stringify(state, null, 2)}\n`);
  renameSync(next, layout.stateFile);
  writeFileSync(POINTER_FILE, `${layout.root}\n`);
}

/** The state of the lab below this root, or null when there is none. */
export function loadState(layout: Layout): LabState | null {
  if (!existsSync(layout.stateFile)) return null;
  try {
    return JSON.parse(readFileSync(layout.stateFile, 'utf8')) as LabState;
  } catch (error) {
    throw new LabError(`${layout.stateFile} cannot be read (${messageOf(error)}); remove it and run "lab down" again`);
  }
}

export function forgetState(layout: Layout): void {
  rmSync(layout.stateFile, { force: true });
  if (pointedRoot() === layout.root) rmSync(POINTER_FILE, { force: true });
}

/** The root of the lab that is up now, if any. */
export function pointedRoot(): string | null {
  return existsSync(POINTER_FILE) ? readFileSync(POINTER_FILE, 'utf8').trim() : null;
}
