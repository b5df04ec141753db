/** What an active daemon and its standby say to each other, and the descriptors that a standby is started with. */

/** Of the standby: what it says goes to the first, a line of JSON each; the others are as in host/native. */
export const STANDBY_FD = { says: 3, link: 4, streams: 5, listener: 6, locks: 7 } as const;

/** The hidden option of smbpoold that makes it a standby; its value is the process id of the active one. */
export const STANDBY_OPTION = 'standby';

/** From the active one. */
export type ActiveSays =
  /** All connections were told before this. Takeovers are times in milliseconds of the wall clock, newest last. */
  | { say: 'told'; databases: string[]; locks: number; takeovers: number[]; config: string }
  | { say: 'database'; name: string }
  /** The active one ends in order, and so does the standby. */
  | { say: 'stop' }
  /** The active one ends, and no run can continue it: smbds end, and a plain start follows. */
  | { say: 'anew' };

/** From the standby. */
export type StandbySays = { say: 'up' } | { say: 'ready'; residentKib: number };

/** More takeovers than this within so long are a crash loop. */
export const TAKEOVERS_MAX = 5;
export const TAKEOVERS_WITHIN_MS = 60_000;

/** Whether one more takeover now would be one too many. Pure. */
export function isCrashLoop(takeovers: readonly number[], now: number): boolean {
  return takeovers.filter((at) => now - at < TAKEOVERS_WITHIN_MS).length >= TAKEOVERS_MAX;
}
