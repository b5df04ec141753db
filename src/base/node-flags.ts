/**
 * What Node.js must be told when it runs smbpoold; on the command line, since V8 reads it before any of our code runs.
 * Whoever starts a daemon uses it; the daemon says so when it is missing (docs/decisions/real-time.md).
 */

/**
 * Garbage is collected by the loop's thread alone: it must not wait for threads that it keeps from their processor. And
 * the young objects, of which hardly any live on, have 2 MiB: the loop is away for a short while at a time.
 */
export const DAEMON_NODE_FLAGS: readonly string[] = ['--single-threaded-gc', '--max-semi-space-size=2'];

/** Those that are not among what Node.js was told (process.execArgv). */
export function missingNodeFlags(told: readonly string[]): string[] {
  return DAEMON_NODE_FLAGS.filter((flag) => !told.includes(flag));
}
