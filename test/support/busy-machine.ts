/** Load beside a test: servers then wait for each other in the middle of their work, as on a busy machine. */
import { spawn } from 'node:child_process';

/** It works so long, and then rests as long. */
const SLICE_MILLIS = 20;
const SOURCE = `
  const rest = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const end = Date.now() + ${SLICE_MILLIS};
    while (Date.now() < end);
    Atomics.wait(rest, 0, 0, ${SLICE_MILLIS});
  }
`;

/** Takes half of a processor until the test ends, however it ends, or the function returned is called. */
export function makeBusy(): () => void {
  // it dies with us also when nobody calls the function
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, '-e', SOURCE]);
  return () => void child.kill();
}
