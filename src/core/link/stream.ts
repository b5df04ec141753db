/**
 * The two ends of one reliable stream of messages to a peer: SendStream packs, numbers, keeps and finds the lost;
 * ReceiveStream orders, removes doubles, joins parts and says what to acknowledge. Used by core/link, which owns time,
 * timers and headers. Neither end sends anything itself.
 */
import { assert } from '../../base/assert.js';
import { DecodeError } from '../../base/bytes.js';
import type { FrameRecord } from '../../wire/frame.js';
import { FRAME_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../wire/frame.js';
import { MESSAGE_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, WINDOW_FRAMES_MAX } from './limits.js';

/** A data frame under way. */
export interface SentFrame {
  readonly sequence: number;
  readonly records: readonly FrameRecord[];
  readonly bytes: number;
  /** Number of its last transmission among all transmissions of the stream: tells what was overtaken. */
  order: number;
  acked: boolean;
  /** Something sent later arrived, so this one did not: to be sent again in this turn. */
  lost: boolean;
}

export class SendStream {
  /** Grows when everything under way had to be given up towards the same incarnation of the peer. */
  number = 1;
  private queue: Uint8Array[] = [];
  private queueHead = 0;
  /** How much of the first queued message is already in frames. */
  private headOffset = 0;
  private queuedBytesNow = 0;
  private sent: SentFrame[] = [];
  /** Of a message of which the rest is under way or waits. */
  private arrivedParts: Uint8Array[] = [];
  private nextSequence = 1;
  private transmissions = 0;
  private lostCount = 0;

  constructor(private readonly frameBodyBytesMax: number) {
    assert(frameBodyBytesMax >= FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + 64, 'frames too small to carry anything');
  }

  /** Memory of what waits or is under way: its bytes, and what each message needs besides. */
  get queuedBytes(): number {
    return this.queuedBytesNow;
  }
  /** Frames under way, not acknowledged. */
  get underWay(): number {
    return this.sent.length;
  }
  get hasQueued(): boolean {
    return this.queueHead < this.queue.length;
  }
  get hasLost(): boolean {
    return this.lostCount > 0;
  }

  push(message: Uint8Array): void {
    this.queue.push(message);
    this.queuedBytesNow += message.length + MESSAGE_OVERHEAD_BYTES;
  }

  /** All messages that are not known to have arrived, in their order. */
  unacknowledged(): Uint8Array[] {
    const messages: Uint8Array[] = [];
    let parts = [...this.arrivedParts];
    // also of frames that arrived before others: nothing behind a gap was delivered
    for (const { records } of this.sent) {
      for (const { first, last, bytes } of records) {
        if (first) parts = [];
        parts.push(bytes);
        if (last) messages.push(parts.length === 1 ? bytes : joined(parts));
      }
    }
    return [...messages, ...this.queue.slice(this.queueHead)];
  }

  /** Forgets everything waiting and under way; the next frame is the first of a stream with this number. */
  restart(number: number): void {
    this.number = number;
    this.queue = [];
    this.queueHead = 0;
    this.headOffset = 0;
    this.queuedBytesNow = 0;
    this.sent = [];
    this.arrivedParts = [];
    this.nextSequence = 1;
    this.lostCount = 0;
  }

  /** Only the last record of a frame can be less than the rest of its message. */
  private noteParts({ first, last, bytes }: FrameRecord): void {
    if (last) {
      if (this.arrivedParts.length > 0) this.arrivedParts = [];
    } else if (first) this.arrivedParts = [bytes];
    else this.arrivedParts.push(bytes);
  }

  /** Makes the next frame from what is queued, if the window allows one more under way. */
  next(window: number): SentFrame | null {
    if (!this.hasQueued || this.sent.length >= Math.min(window, WINDOW_FRAMES_MAX)) return null;
    const records = this.pack();
    let bytes = 0;
    for (const record of records) bytes += record.bytes.length + (record.last ? MESSAGE_OVERHEAD_BYTES : 0);
    const frame = { sequence: this.nextSequence++, records, bytes, order: 0, acked: false, lost: false };
    this.sent.push(frame);
    return frame;
  }

  private pack(): FrameRecord[] {
    const records: FrameRecord[] = [];
    let room = this.frameBodyBytesMax - FRAME_HEADER_BYTES;
    const roomWhole = room - RECORD_HEADER_BYTES;
    while (this.queueHead < this.queue.length && room > RECORD_HEADER_BYTES && records.length < 0xffff) {
      const message = this.queue[this.queueHead]!;
      const left = message.length - this.headOffset;
      const fits = room - RECORD_HEADER_BYTES;
      // a message that a frame can hold is not cut: it waits for the next frame
      if (left > fits && message.length <= roomWhole) break;
      // nearly always the whole message: a view of its own would cost more than packing it
      const isWhole = this.headOffset === 0 && left <= fits;
      const end = this.headOffset + Math.min(left, fits);
      const part = isWhole ? message : message.subarray(this.headOffset, end);
      records.push({ first: this.headOffset === 0, last: part.length === left, bytes: part });
      room -= RECORD_HEADER_BYTES + part.length;
      if (part.length === left) this.dropHead();
      else this.headOffset += part.length;
    }
    return records;
  }

  private dropHead(): void {
    this.headOffset = 0;
    this.queueHead++;
    if (this.queueHead < this.queue.length) {
      if (this.queueHead < 1024) return;
      this.queue = this.queue.slice(this.queueHead);
    } else {
      this.queue = [];
    }
    this.queueHead = 0;
  }

  /** To be called for each transmission of a frame, the first one too. */
  transmitted(frame: SentFrame): void {
    frame.order = ++this.transmissions;
    if (frame.lost) {
      frame.lost = false;
      this.lostCount--;
    }
  }

  /**
   * Takes an acknowledgement. Returns whether anything new was acknowledged. What was overtaken by something that
   * arrived is marked lost. Throws DecodeError when frames are acknowledged that were never sent.
   */
  acknowledge(ack: number, mapLow: number, mapHigh: number): boolean {
    if (ack >= this.nextSequence) throw new DecodeError('frame-ack-beyond');
    let newestOrder = 0;
    for (const frame of this.sent) {
      if (frame.acked || !isAcked(frame.sequence, ack, mapLow, mapHigh)) continue;
      frame.acked = true;
      if (frame.lost) {
        frame.lost = false;
        this.lostCount--;
      }
      this.queuedBytesNow -= frame.bytes;
      newestOrder = Math.max(newestOrder, frame.order);
    }
    if (newestOrder === 0) return false;
    let done = 0;
    while (done < this.sent.length && this.sent[done]!.acked) done++;
    for (const { records } of this.sent.splice(0, done)) this.noteParts(records.at(-1)!);
    for (const frame of this.sent) if (!frame.acked && frame.order < newestOrder) this.markLost(frame);
    return true;
  }

  private markLost(frame: SentFrame): void {
    if (frame.lost) return;
    frame.lost = true;
    this.lostCount++;
  }

  /** Everything under way is taken for lost: after a silence. */
  markAllLost(): void {
    for (const frame of this.sent) if (!frame.acked) this.markLost(frame);
  }

  /** The frames to send again now, oldest first. */
  lostFrames(): SentFrame[] {
    return this.lostCount === 0 ? [] : this.sent.filter((frame) => frame.lost);
  }

  oldestUnacked(count: number): SentFrame[] {
    const result: SentFrame[] = [];
    for (const frame of this.sent) {
      if (result.length >= count) break;
      if (!frame.acked) result.push(frame);
    }
    return result;
  }

  newestUnacked(): SentFrame | null {
    for (let i = this.sent.length - 1; i >= 0; i--) if (!this.sent[i]!.acked) return this.sent[i]!;
    return null;
  }
}

function isAcked(sequence: number, ack: number, mapLow: number, mapHigh: number): boolean {
  const bit = sequence - ack - 1;
  if (bit < 0) return true;
  if (bit < 32) return (mapLow & (1 << bit)) !== 0;
  return bit < 64 && (mapHigh & (1 << (bit - 32))) !== 0;
}

export type Acceptance = 'delivered' | 'held' | 'duplicate' | 'beyond-window';

export class ReceiveStream {
  /** The number of the peer's stream being received; 0 before the first. */
  number = 0;
  /** Every frame up to here was delivered. */
  delivered = 0;
  /** Frames that came too early, with bytes of their own. At most WINDOW_FRAMES_MAX. */
  private readonly held = new Map<number, FrameRecord[]>();
  private parts: Uint8Array[] = [];
  private partsBytes = 0;

  /** Forgets all and expects the first frame of the stream with this number. */
  restart(number: number): void {
    this.number = number;
    this.delivered = 0;
    this.held.clear();
    this.dropParts();
  }

  /**
   * Takes a data frame and hands every message now complete to `deliver`, in order. The messages are valid only during
   * the call unless they were joined from parts. `refuse` hears of parts that do not fit together.
   */
  accept(
    sequence: number,
    records: readonly FrameRecord[],
    deliver: (message: Uint8Array) => void,
    refuse: (reason: string) => void,
  ): Acceptance {
    if (sequence <= this.delivered || this.held.has(sequence)) return 'duplicate';
    if (sequence > this.delivered + WINDOW_FRAMES_MAX) return 'beyond-window';
    if (sequence > this.delivered + 1) {
      this.held.set(sequence, records.map(ownRecord));
      return 'held';
    }
    let next: readonly FrameRecord[] | undefined = records;
    while (next !== undefined) {
      // counted first: what `deliver` makes the node send already acknowledges this frame
      this.delivered++;
      for (const record of next) this.join(record, deliver, refuse);
      next = this.held.get(this.delivered + 1);
      if (next !== undefined) this.held.delete(this.delivered + 1);
    }
    return 'delivered';
  }

  get hasGap(): boolean {
    return this.held.size > 0;
  }

  /** The acknowledgement map: bits 0 to 31 and 32 to 63. */
  ackMap(): [number, number] {
    let low = 0;
    let high = 0;
    for (const sequence of this.held.keys()) {
      const bit = sequence - this.delivered - 1;
      if (bit < 32) low = (low | (1 << bit)) >>> 0;
      else high = (high | (1 << (bit - 32))) >>> 0;
    }
    return [low, high];
  }

  private join(record: FrameRecord, deliver: (message: Uint8Array) => void, refuse: (reason: string) => void): void {
    if (record.first !== (this.parts.length === 0)) {
      this.dropParts();
      refuse('part-out-of-place');
      if (!record.first) return;
    }
    if (record.first && record.last) {
      deliver(record.bytes);
      return;
    }
    if (this.partsBytes + record.bytes.length > MESSAGE_BYTES_MAX) {
      this.dropParts();
      refuse('message-too-large');
      return;
    }
    this.parts.push(Uint8Array.prototype.slice.call(record.bytes));
    this.partsBytes += record.bytes.length;
    if (!record.last) return;
    const message = joined(this.parts);
    this.dropParts();
    deliver(message);
  }

  private dropParts(): void {
    this.parts = [];
    this.partsBytes = 0;
  }
}

function ownRecord(record: FrameRecord): FrameRecord {
  return { ...record, bytes: Uint8Array.prototype.slice.call(record.bytes) };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const message = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    message.set(part, at);
    at += part.length;
  }
  return message;
}
