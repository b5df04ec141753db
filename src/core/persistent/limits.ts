/** The times and sizes of the persistent databases (core/persistent*), each with its reason. No behaviour. */

/**
 * A process waits so long to attach while no majority has the database; then it is refused and its starter tries again.
 */
export const ATTACH_WAIT_MICROS_MAX = 30_000_000;

/**
 * A commit waits so long for leader and majority. smbd waits with it; after a refusal it looks at its file and tries
 * again, so a shorter time would only make it spin.
 */
export const COMMIT_WAIT_MICROS_MAX = 60_000_000;

/**
 * Once a majority has a commit, servers that are up but slow get so long before the client is answered without them:
 * people expect a user added here to log on there at once.
 */
export const STRAGGLER_WAIT_MICROS_MAX = 5_000_000;

/**
 * A commit waits so long for a server that is being brought up to date, so that it joins instead of falling behind
 * again.
 */
export const SYNC_WAIT_MICROS_MAX = 2_000_000;

/** A server whose disk refused is tried again after so long. */
export const RETRY_MICROS = 1_000_000;

/** Commits that wait at the leader for one database; each belongs to a process that waits. */
export const COMMITS_WAITING_MAX = 256;

/** Work on one local file that waits; the leader sends one commit at a time, so more is a fault. */
export const TASKS_WAITING_MAX = 256;

/** Part of a large message: small enough that records pass between the parts. */
export const FRAGMENT_BYTES = 512 * 1024;

/** The largest message put together from parts: a database of this size is far beyond any that Samba keeps. */
export const TRANSFER_BYTES_MAX = 256 * 1024 * 1024;
