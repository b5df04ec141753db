/**
 * Bob Jenkins' lookup3 hash (little-endian variant, seed 0): the number by which the CTDB client protocol names a
 * database. Written from the published algorithm; used by the gate and by tools. Not for anything an attacker may
 * choose to collide.
 */
import { databaseId } from './ids.js';
import type { DatabaseId } from './ids.js';

const rotate = (x: number, count: number): number => (x << count) | (x >>> (32 - count));

/** The 32-bit lookup3 hash of the bytes, unsigned. */
export function lookup3(bytes: Uint8Array): number {
  let a = (0xdeadbeef + bytes.length) | 0;
  let b = a;
  let c = a;
  const word = (at: number): number => {
    // bytes past the end count as zero
    let value = 0;
    for (let i = 0; i < 4; i++) value |= (bytes[at + i] ?? 0) << (8 * i);
    return value;
  };
  let at = 0;
  while (bytes.length - at > 12) {
    a = (a + word(at)) | 0;
    b = (b + word(at + 4)) | 0;
    c = (c + word(at + 8)) | 0;
    a = ((a - c) | 0) ^ rotate(c, 4);
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ rotate(a, 6);
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ rotate(b, 8);
    b = (b + a) | 0;
    a = ((a - c) | 0) ^ rotate(c, 16);
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ rotate(a, 19);
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ rotate(b, 4);
    b = (b + a) | 0;
    at += 12;
  }
  if (at === bytes.length) return c >>> 0;
  a = (a + word(at)) | 0;
  b = (b + word(at + 4)) | 0;
  c = (c + word(at + 8)) | 0;
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c >>> 0;
}

/** The id of a database: the hash of its name together with the closing NUL. */
export function databaseIdOf(name: string): DatabaseId {
  return databaseId(lookup3(Buffer.from(`${name}\0`, 'utf8')));
}
