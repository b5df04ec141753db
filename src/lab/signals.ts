/**
 * Cleans up when somebody presses Ctrl-C or ends the program: used by everything that brings a lab up and takes it down
 * again. The handlers go away with the block they protect.
 */

/** 128 + the signal's number, as shells report it. */
const EXIT_STATUS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Interrupt = keyof typeof EXIT_STATUS;

/**
 * Runs `work`; on a signal runs `cleanUp` once and ends the program. `cleanUp` is not called when `work` ends by
 * itself.
 */
export async function cleaningUpOnSignal<T>(work: () => Promise<T>, cleanUp: () => Promise<void>): Promise<T> {
  let interrupted = false;
  const handler = (name: Interrupt) => {
    // a second Ctrl-C must not cut the clean-up short
    if (interrupted) return;
    interrupted = true;
    process.stderr.write(`\n${name}: cleaning up ...\n`);
    cleanUp().then(
      () => process.exit(EXIT_STATUS[name]),
      (error: unknown) => {
        process.stderr.write(`cleaning up failed: ${error instanceof Error ? error.message : String(error)}\n`);
        process.exit(EXIT_STATUS[name]);
      },
    );
  };
  const names = Object.keys(EXIT_STATUS) as Interrupt[];
  for (const name of names) process.on(name, handler);
  try {
    const result = await work();
    // the clean-up ends the program; do not go on beside it
    if (interrupted) await new Promise(() => undefined);
    return result;
  } catch (error) {
    if (interrupted) await new Promise(() => undefined);
    throw error;
  } finally {
    for (const name of names) process.off(name, handler);
  }
}
