/**
 * IP addresses as text and as bytes. One address has one canonical text (IPv6 as RFC 5952 says, IPv4 in IPv6 as IPv4),
 * so that texts can be compared: what smbd says, what the configuration says, what peers say. Pure.
 */

/** 4 or 16 bytes; null when the text is no address. */
export function addressBytes(text: string): number[] | null {
  return text.includes(':') ? ipv6Bytes(text) : ipv4Bytes(text);
}

function ipv4Bytes(text: string): number[] | null {
  const parts = text.split('.');
  const isSound = parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256);
  return isSound ? parts.map(Number) : null;
}

function ipv6Bytes(text: string): number[] | null {
  const [head = '', tail, more] = text.split('::');
  if (more !== undefined) return null;
  const before = groupBytes(head);
  const after = tail === undefined ? [] : groupBytes(tail);
  if (before === null || after === null) return null;
  const missing = 16 - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 2) return null;
  return [...before, ...new Array<number>(missing).fill(0), ...after];
}

/** Of groups between colons; the last may be an IPv4 address. */
function groupBytes(text: string): number[] | null {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [index, group] of groups.entries()) {
    const ipv4 = index === groups.length - 1 && group.includes('.') ? ipv4Bytes(group) : null;
    if (ipv4 !== null) bytes.push(...ipv4);
    else if (/^[0-9a-fA-F]{1,4}$/.test(group)) bytes.push(parseInt(group, 16) >> 8, parseInt(group, 16) & 0xff);
    else return null;
  }
  return bytes;
}

/** The canonical text of 4 or 16 bytes. */
export function addressText(bytes: readonly number[]): string {
  if (bytes.length === 4) return bytes.join('.');
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (isMapped) return bytes.slice(12).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  let start = -1;
  let length = 1;
  for (let from = 0; from < 8; from++) {
    let count = 0;
    while (from + count < 8 && groups[from + count] === 0) count++;
    if (count > length) [start, length] = [from, count];
  }
  const hex = (from: number, to: number): string =>
    groups.slice(from, to).map((group) => group.toString(16)).join(':');
  return start === -1 ? hex(0, 8) : `${hex(0, start)}::${hex(start + length, 8)}`;
}

/** The one text of this address; null when it is none. */
export function canonicalAddress(text: string): string | null {
  const bytes = addressBytes(text);
  return bytes === null ? null : addressText(bytes);
}

/**
 * Why the address is none that clients anywhere on the network can connect to, in words that follow "which"; null when
 * it is one. Takes what addressBytes gives.
 */
export function whyNotForClients(bytes: readonly number[]): string | null {
  const [first = 0, second = 0] = bytes;
  const isIpv6 = bytes.length === 16;
  if (bytes.every((byte) => byte === 0)) return 'stands for any address';
  const isLoopback = isIpv6 ? bytes.slice(0, -1).every((byte) => byte === 0) && bytes[15] === 1 : first === 127;
  if (isLoopback) return 'every machine has for itself';
  if (isIpv6 ? first === 0xff : first >= 224) return 'is for many machines at once';
  const isLinkLocal = isIpv6 ? first === 0xfe && (second & 0xc0) === 0x80 : first === 169 && second === 254;
  return isLinkLocal ? 'holds on one link only, and leads nowhere without the name of an interface' : null;
}
