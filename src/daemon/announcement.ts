/** What this run tells all other servers of itself: its release and the protocols that it speaks. Pure. */
import type { Announcement, ProtocolRange } from '../wire/protocol-version.js';
import { PROTOCOL, PROTOCOL_NUMBER_MAX, releaseText } from '../wire/protocol-version.js';

/**
 * For tests only, which need two releases and have one: "1-2" makes this run say that it speaks 1 and 2. It changes
 * nothing of what it really understands.
 */
export const TEST_PROTOCOL_VARIABLE = 'SMBPOOLD_TEST_PROTOCOL';

/** `protocolMax` of the configuration, if there is one, is the most that is announced. */
export function announcementOf(
  release: string,
  protocolMax: number | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Announcement {
  const { min, max } = testRange(environment[TEST_PROTOCOL_VARIABLE]) ?? PROTOCOL;
  return { speaks: { min, max: Math.max(min, Math.min(max, protocolMax ?? max)) }, release: releaseText(release) };
}

function testRange(text: string | undefined): ProtocolRange | null {
  const [, min, max] = /^(\d{1,5})-(\d{1,5})$/.exec(text ?? '')?.map(Number) ?? [];
  if (min === undefined || max === undefined || min < 1 || max < min || max > PROTOCOL_NUMBER_MAX) return null;
  return { min, max };
}
