/**
 * The protocol between servers has a number, and each release speaks a range of them (docs/decisions/versions.md). Here
 * are this release's range and the announcement, which tells peers of all releases a run's range. Layout (little
 * endian), fixed for ever, at the end of hellos and heartbeats:
 *
 *   u8 length of what follows, u16 min, u16 max, u8 length of the release, release (printable ASCII), more
 *
 * `more` is of later releases, and skipped.
 */
import type { ByteReader, ByteWriter } from '../base/bytes.js';
import { DecodeError } from '../base/bytes.js';

/** From the lowest to the highest protocol that a run speaks; at least 1. */
export interface ProtocolRange {
  min: number;
  max: number;
}

/** What a run tells all others of itself. */
export interface Announcement {
  speaks: ProtocolRange;
  /** Of smbpool, for people: printable ASCII without spaces, RELEASE_BYTES_MAX at most. */
  release: string;
}

/**
 * What this release speaks. Whoever changes what is sent or what a file that is shared means raises `max` and asks
 * CoreContext.speaks; `min` goes up only past what the release before this one speaks at most.
 */
export const PROTOCOL: ProtocolRange = { min: 1, max: 3 };

/** Since this protocol a run may continue the one before (docs/decisions/resuming.md). */
export const RESUMING_PROTOCOL = 2;

/** Since this protocol all servers ask before an open excludes others from a folder: servers may have delegations. */
export const FOLDERS_PROTOCOL = 3;

export const PROTOCOL_NUMBER_MAX = 0xffff;
export const RELEASE_BYTES_MAX = 32;

/** min, max and the length of the release. */
const FIXED_BYTES = 5;

export function isWithin({ min, max }: ProtocolRange, protocol: number): boolean {
  return protocol >= min && protocol <= max;
}

/** The highest protocol that all of them speak; null: none is common to all. */
export function highestCommon(ranges: readonly ProtocolRange[]): number | null {
  const highest = Math.min(...ranges.map(({ max }) => max));
  return ranges.length > 0 && ranges.every((range) => isWithin(range, highest)) ? highest : null;
}

/** "1", or "1 to 3". */
export function rangeText({ min, max }: ProtocolRange): string {
  return min === max ? `${min}` : `${min} to ${max}`;
}

/** The name of a release as it may be announced: what cannot be is left out. */
export function releaseText(release: string): string {
  return release.replace(/[^\x21-\x7e]/g, '').slice(0, RELEASE_BYTES_MAX);
}

export function announcementBytes({ release }: Announcement): number {
  return 1 + FIXED_BYTES + release.length;
}

export function writeAnnouncement(writer: ByteWriter, { speaks, release }: Announcement): void {
  writer.u8(FIXED_BYTES + release.length).u16(speaks.min).u16(speaks.max).u8(release.length);
  for (let i = 0; i < release.length; i++) writer.u8(release.charCodeAt(i));
}

/** Throws DecodeError for anything that is no announcement of this or a later release. */
export function readAnnouncement(reader: ByteReader): Announcement {
  const length = reader.u8();
  const min = reader.u16();
  const max = reader.u16();
  const releaseLength = reader.u8();
  if (min === 0 || max < min) throw new DecodeError('announcement-range', `${min} to ${max}`);
  if (releaseLength > RELEASE_BYTES_MAX) throw new DecodeError('announcement-release');
  if (length < FIXED_BYTES + releaseLength) throw new DecodeError('announcement-length');
  const codes = [...reader.view8(releaseLength)];
  if (codes.some((code) => code < 0x21 || code > 0x7e)) throw new DecodeError('announcement-release');
  reader.skip(length - FIXED_BYTES - releaseLength);
  return { speaks: { min, max }, release: String.fromCharCode(...codes) };
}
