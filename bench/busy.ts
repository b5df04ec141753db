/** Processes that do nothing but work, at ordinary priority: the load beside which others are measured. */
import { spawn } from 'node:child_process';

/** They work until the function returned is called, or this process ends in whatever way. */
export function makeBusy(count: number): () => void {
  // sessions of their own: where the kernel shares time between sessions, the measured are not preferred to them
  const work = ['--pdeathsig', 'KILL', 'sh', '-c', 'while :; do :; done'];
  const children = Array.from({ length: count }, () => spawn('setpriv', work, { detached: true, stdio: 'ignore' }));
  return () => void children.forEach((child) => child.kill('SIGKILL'));
}
