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
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly source: Uint8Array) {
    this.view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  }

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

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }
  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }
  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }
  i32(): number {
    return this.view.getInt32(this.advance(4), true);
  }
  u64(): bigint {
    return this.view.getBigUint64(this.advance(8), true);
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
  skip(count: number): void {
    this.advance(count);
  }
  /** Refuses bytes after the end of what was decoded. */
  end(): void {
    if (this.remaining !== 0) throw new DecodeError('trailing-bytes', `${this.remaining} bytes`);
  }
}

export class ByteWriter {
  private bytes: Uint8Array;
  private view: DataView;
  private at = 0;

  constructor(capacity = 256) {
    this.bytes = new Uint8Array(capacity);
    this.view = new DataView(this.bytes.buffer);
  }

  get length(): number {
    return this.at;
  }

  private reserve(count: number): number {
    const start = this.at;
    const end = start + count;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2));
      grown.set(this.bytes.subarray(0, start));
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    this.at = end;
    return start;
  }

  u8(value: number): this {
    const start = this.reserve(1);
    this.view.setUint8(start, value);
    return this;
  }
  u16(value: number): this {
    const start = this.reserve(2);
    this.view.setUint16(start, value, true);
    return this;
  }
  u32(value: number): this {
    const start = this.reserve(4);
    this.view.setUint32(start, value, true);
    return this;
  }
  i32(value: number): this {
    const start = this.reserve(4);
    this.view.setInt32(start, value, true);
    return this;
  }
  u64(value: bigint): this {
    const start = this.reserve(8);
    this.view.setBigUint64(start, value, true);
    return this;
  }
  /** A non-negative integer below 2^53 in 64 bits. */
  u53(value: number): this {
    this.u32(value % 0x1_0000_0000);
    return this.u32(Math.floor(value / 0x1_0000_0000));
  }
  raw(value: Uint8Array): this {
    const start = this.reserve(value.length);
    this.bytes.set(value, start);
    return this;
  }
  zeros(count: number): this {
    const start = this.reserve(count);
    this.bytes.fill(0, start, start + count);
    return this;
  }
  /** Overwrites four bytes already written, for a length known only at the end. */
  patchU32(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
  }
  /** The bytes written; the writer must not be used afterwards. */
  finish(): Uint8Array {
    return this.bytes.subarray(0, this.at);
  }
}
