/**
 * The smbd processes of a lab, as the kernel knows them: for faults and for the tests of the VFS module. Reads only.
 */
import { readFileSync, readdirSync } from 'node:fs';
import type { Lab } from './lab.js';
import type { ServerPlace } from './layout.js';

/** What the module's shared memory is called in /proc/PID/maps. */
const RING_NAME = 'smbpool-ring';

function parentOf(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return 0;
  }
}

/** How many rings of the VFS module the process has mapped; 0 when there is no such process. */
export function ringsOf(pid: number): number {
  try {
    return readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n').filter((line) => line.includes(RING_NAME)).length;
  } catch {
    return 0;
  }
}

/** The smbds of this server that serve a client through the module. */
export function attachedSmbds(lab: Lab, place: ServerPlace): number[] {
  const main = lab.process('smbd', place.id)?.pid ?? 0;
  const numbers = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.filter((pid) => parentOf(pid) === main && ringsOf(pid) > 0);
}
