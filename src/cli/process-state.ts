/**
 * What the kernel says of a process: whether it is there at all, stopped, or waits for a disk. For `smbpool page`,
 * which cannot ask the process itself.
 */
import { readFileSync } from 'node:fs';

export type ProcessState = 'running' | 'stopped' | 'disk' | 'gone';

/** /proc counts in these on Linux, whatever the kernel's own clock tick is. */
const TICKS_PER_SECOND = 100;
/** The page is made within seconds of its process's start; the clock may have been set a little since. */
const START_MICROS_TOLERANCE = 10_000_000;

/** `startedMicros`, since 1970: a process that started well after is another one with the same number. */
export function processState(pid: number, startedMicros: number): ProcessState {
  let stat: string;
  let bootTime: number;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    bootTime = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1] ?? 0);
  } catch {
    return 'gone';
  }
  // the second field, the name, is in brackets and may contain anything
  const [state = '', ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const startMicros = (bootTime + Number(fields[18]) / TICKS_PER_SECOND) * 1_000_000;
  if (startMicros > startedMicros + START_MICROS_TOLERANCE) return 'gone';
  if (state === 'Z' || state === 'X') return 'gone';
  if (state === 'T' || state === 't') return 'stopped';
  return state === 'D' ? 'disk' : 'running';
}
