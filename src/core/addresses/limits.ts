/** The times and bounds of public addresses, each with its reason. */

/** A server that comes and goes cuts no connections; one that stays is not idle for long. */
export const BALANCE_AFTER_MICROS = 1_000_000;
/**
 * After it was taken: switches, neighbours and clients may have missed what was said before. Linux answers segments
 * that it did not wait for every 500 ms (tcp_invalid_ratelimit): the first repeats what was lost on its way to the
 * client, the second also what its answer met.
 */
export const ANNOUNCE_AGAIN_MICROS: readonly number[] = [200_000, 1_000_000, 2_000_000];
/** How often the kernel is told that the address stays; its lifetime there (host/addresses) is three times as long. */
export const RENEW_MICROS = 1_000_000;
/** What failed is tried again. */
export const RETRY_MICROS = 1_000_000;
/** So long another server serves what could not be taken here. */
export const REFUSED_MICROS = 30_000_000;
/** Long after the last tickle of whoever took the address. */
export const FORGET_MICROS = 60_000_000;
/** Of one server; more are not remembered, and counted. */
export const CONNECTIONS_MAX = 65_536;
