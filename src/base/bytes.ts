/**
 * Bounded reading and growing writing of little-endian bytes, the only way codecs touch memory. Reading never goes past
 * the end: it throws DecodeError, which every decoder's caller catches and counts. Bad input is not a bug.
 */

/** Why a packet, frame or message was refused. `reason` is stable and short: it is the label of a counter. */
export class DecodeError extends Error {
  readonly code = 'ERR_POOL_DECODE';
  constructor(
    readonly reason: string,
    detail = '',
  ) {
    super(detail === '' ? reason : `${reason}: ${detail}`);
    this.name = 'DecodeError';
  }
}

export class ByteReader {
  private at = 0;

  constructor(private readonly source: Uint8Array) {}

  get offset(): number {
    return this.at;
  }

  get remaining(): number {
    return this.source.length - this.at;
  }

  private advance(count: number): number {
    if (count > this.source.length - this.at) {
      throw new DecodeError('truncated', `${count} bytes wanted at ${this.at} of ${this.source.length}`);
    }
    const start = this.at;
    this.at += count;
    return start;
  }

  // Byte by byte, not through a DataView: making one costs more than all the numbers of a message.
  u8(): number {
    return this.source[this.advance(1)]!;
  }
  u16(): number {
    const at = this.advance(2);
    return this.source[at]! | (this.source[at + 1]! << 8);
  }
  u32(): number {
    return this.i32() >>> 0;
  }
  i32(): number {
    const at = this.advance(4);
    const { source } = this;
    return source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16) | (source[at + 3]! << 24);
  }
  u64(): bigint {
    const low = this.u32();
    const high = this.u32();
    return high === 0 ? BigInt(low) : (BigInt(high) << 32n) | BigInt(low);
  }
  /** A u64 that must fit a double exactly (below 2^53); anything larger is refused. */
  u53(): number {
    const low = this.u32();
    const high = this.u32();
    if (high > 0x1fffff) throw new DecodeError('number-too-large');
    return high * 0x1_0000_0000 + low;
  }
  /** A view of the next `count` bytes; valid only as long as the source is. */
  view8(count: number): Uint8Array {
    const start = this.advance(count);
    return this.source.subarray(start, start + count);
  }
  /** A copy of the next `count` bytes. */
  copy(count: number): Uint8Array {
    return Uint8Array.prototype.slice.call(this.view8(count));
  }
  /** The same for what is used up soon; see briefCopy. */
  brief(count: number): Uint8Array {
    const start = this.advance(count);
    return briefCopy(this.source, start, start + count);
  }
  skip(count: number): void {
    this.advance(count);
  }
  /** Refuses bytes after the end of what was decoded. */
  end(): void {
    if (this.remaining !== 0) throw new DecodeError('trailing-bytes', `${this.remaining} bytes`);
  }
}

/**
 * Where writers write: a slab is used up from the front and then left to the garbage collector, because memory of its
 * own for every message costs more than making the message. No byte is used twice, so what is not written is zero.
 */
class Slab {
  private bytes = new Uint8Array(SLAB_BYTES);
  private used = 0;

  /** `count` zero bytes that nobody else has. */
  take(count: number): { bytes: Uint8Array; start: number } {
    if (count > SLAB_BYTES / 4) return { bytes: new Uint8Array(count), start: 0 };
    if (count > SLAB_BYTES - this.used) {
      this.bytes = new Uint8Array(SLAB_BYTES);
      this.used = 0;
    }
    const start = this.used;
    this.used += count;
    return { bytes: this.bytes, start };
  }

  /** Takes the unused end of a piece back, if it was the last one taken. */
  giveBack(bytes: Uint8Array, end: number, unused: number): void {
    if (bytes === this.bytes && end === this.used) this.used -= unused;
  }
}

/**
 * A copy for what is used up soon: it lies among others, and keeps them all in memory as long as it is kept. Much
 * cheaper than memory of its own.
 */
export function briefCopy(source: Uint8Array, from: number, to: number): Uint8Array {
  const length = to - from;
  if (length === 0) return EMPTY;
  const { bytes, start } = slab.take(length);
  const copy = bytes.subarray(start, start + length);
  copy.set(source.subarray(from, to));
  return copy;
}

/** Some hundred messages; one that is kept for long keeps no more memory than this. */
const SLAB_BYTES = 32_768;
const slab = new Slab();
const EMPTY = new Uint8Array(0);

export class ByteWriter {
  private bytes: Uint8Array;
  private start: number;
  private at: number;
  private end: number;

  constructor(capacity = 256) {
    const { bytes, start } = slab.take(capacity);
    this.bytes = bytes;
    this.start = start;
    this.at = start;
    this.end = start + capacity;
  }

  get length(): number {
    return this.at - this.start;
  }

  private reserve(count: number): number {
    if (count > this.end - this.at) this.grow(count);
    const start = this.at;
    this.at += count;
    return start;
  }

  private grow(count: number): void {
    const { length } = this;
    const capacity = Math.max(length + count, 2 * (this.end - this.start));
    const { bytes, start } = slab.take(capacity);
    bytes.set(this.bytes.subarray(this.start, this.at), start);
    this.bytes = bytes;
    this.start = start;
    this.at = start + length;
    this.end = start + capacity;
  }

  u8(value: number): this {
    const at = this.reserve(1);
    this.bytes[at] = value;
    return this;
  }
  u16(value: number): this {
    const at = this.reserve(2);
    this.bytes[at] = value;
    this.bytes[at + 1] = value >>> 8;
    return this;
  }
  u32(value: number): this {
    this.set32(this.reserve(4), value);
    return this;
  }
  i32(value: number): this {
    this.set32(this.reserve(4), value);
    return this;
  }
  private set32(at: number, value: number): void {
    const { bytes } = this;
    bytes[at] = value;
    bytes[at + 1] = value >>> 8;
    bytes[at + 2] = value >>> 16;
    bytes[at + 3] = value >>> 24;
  }
  u64(value: bigint): this {
    this.u32(Number(value & 0xffff_ffffn));
    return this.u32(Number((value >> 32n) & 0xffff_ffffn));
  }
  /** A non-negative integer below 2^53 in 64 bits. */
  u53(value: number): this {
    this.u32(value % 0x1_0000_0000);
    return this.u32(Math.floor(value / 0x1_0000_0000));
  }
  raw(value: Uint8Array): this {
    const at = this.reserve(value.length);
    this.bytes.set(value, at);
    return this;
  }
  /** Text of characters 0 to 255, one byte each. */
  latin1(value: string): this {
    const at = this.reserve(value.length);
    for (let i = 0; i < value.length; i++) this.bytes[at + i] = value.charCodeAt(i);
    return this;
  }
  zeros(count: number): this {
    const at = this.reserve(count);
    this.bytes.fill(0, at, at + count);
    return this;
  }
  /** Overwrites four bytes already written, for a length known only at the end. */
  patchU32(offset: number, value: number): void {
    this.set32(this.start + offset, value);
  }
  /** The bytes written; the writer must not be used afterwards. */
  finish(): Uint8Array {
    slab.giveBack(this.bytes, this.end, this.end - this.at);
    this.end = this.at;
    return this.bytes.subarray(this.start, this.at);
  }
}
