/**
 * The records in the two buffers that cross between the addon and JavaScript once per batch; mirrors
 * native/core/batch.h: {u32 kind, u32 id, u32 length, u32 detail, payload, padding to 8}, little endian. Used by
 * host/pump only.
 */

export const BATCH_HEADER_BYTES = 16;

/** From native to JavaScript. */
export const IN_CLIENT_OPENED = 1;
export const IN_CLIENT_PACKET = 2;
export const IN_CLIENT_CLOSED = 3;
export const IN_CLIENT_PACKET_LARGE = 4;
export const IN_FRAME = 5;
/** id: the attachment; detail: pid, operation, reason of the end. */
export const IN_RING_ATTACHED = 6;
export const IN_RING_MESSAGE = 7;
export const IN_RING_DETACHED = 8;

/** From JavaScript to native. */
export const OUT_CLIENT_PACKET = 1;
export const OUT_CLIENT_CLOSE = 2;
export const OUT_FRAME = 3;
/** id: the attachment; detail: the operation. */
export const OUT_RING_REPLY = 4;
/** detail: enum smbpool_home_kind. */
export const OUT_HOME_ADD = 5;
export const OUT_HOME_REMOVE = 6;
/** id: enum smbpool_histogram; detail: microseconds. */
export const OUT_LATENCY = 7;
/** id: the attachment. */
export const OUT_RING_END = 8;

/** Fills the out buffer. Full is not an error: `put` answers false and the caller hands over what is there. */
export class BatchWriter {
  private readonly words: Uint32Array;
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(buffer: ArrayBuffer) {
    this.words = new Uint32Array(buffer);
    this.bytes = new Uint8Array(buffer);
  }

  /** The largest payload that fits an empty buffer. */
  get payloadMax(): number {
    return this.bytes.length - BATCH_HEADER_BYTES - 8;
  }

  get length(): number {
    return this.at;
  }

  put(kind: number, id: number, payload: Uint8Array | null, detail = 0): boolean {
    const length = payload === null ? 0 : payload.length;
    const end = this.at + BATCH_HEADER_BYTES + ((length + 7) & ~7);
    if (end > this.bytes.length) return false;
    const word = this.at >>> 2;
    this.words[word] = kind;
    this.words[word + 1] = id;
    this.words[word + 2] = length;
    this.words[word + 3] = detail;
    if (payload !== null) this.bytes.set(payload, this.at + BATCH_HEADER_BYTES);
    this.at = end;
    return true;
  }

  /** Starts again; answers what length was filled. */
  take(): number {
    const length = this.at;
    this.at = 0;
    return length;
  }
}
