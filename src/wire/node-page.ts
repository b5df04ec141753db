/**
 * The node page as TypeScript reads it: what the daemon writes into shared memory for those who cannot or need not ask
 * it. Mirrors struct smbpool_node_page in native/shared/smbpool_layout.h; docs/shared-memory.md tells who writes what.
 * Pure; used by the command line, and for the names by the host.
 */
import { DecodeError } from '../base/bytes.js';

const MAGIC = 0x474c4f50;
/** SMBPOOL_LAYOUT_VERSION. */
export const LAYOUT_VERSION = 4;
export const NODE_PAGE_BYTES = 65_536 + 524_288;
const FLAG_SERVING = 1;

const AT = {
  layoutVersion: 4,
  totalBytes: 8,
  generation: 12,
  node: 16,
  flags: 20,
  startedMicros: 24,
  daemonPid: 32,
  leaseDeadlineMicros: 256,
  heartbeatMicros: 384,
  counters: 4096,
  histograms: 8192,
  longestMicros: 12_288,
  errors: 16_384,
  home: 65_536,
} as const;
const HISTOGRAM_BUCKETS = 32;
const ERRORS = 64;
const ERROR_BYTES = 256;
const ERROR_TEXT_AT = 32;

/** enum smbpool_node_counter: the numbers 0 to 63. */
export const RING_COUNTER_NAMES = [
  'attached', 'detached', 'bad-rings', 'refused', 'messages', 'replies', 'replies-full', 'wakes.futex',
  'wakes.eventfd', 'scans', 'scan-found', 'late-generation', 'home.added', 'home.evicted', 'home.removed',
  'fence.waits', 'fence.refused',
] as const;

/** The core's counters in the page, from number 64 on; a new one goes to the end. */
export const CORE_COUNTER_NAMES = [
  'record.arrived.move', 'record.arrived.copy', 'record.arrived.keep', 'record.given.move', 'record.given.copy',
  'record.granted-on-the-spot', 'record.erased', 'record.reclaimed', 'record.lost', 'record.lost-locally',
  'record.store.busy', 'record.store.failed', 'record.hold.short', 'pin.expired', 'pin.gave-up',
  'witness.open.ready', 'witness.open.gave-up', 'gate.call.migrate', 'gate.call.fetch', 'gate.call.failed',
  'gate.message.sent', 'gate.message.delivered', 'link.up', 'link.down', 'link.frame.retransmitted',
  'persistent.commit.durable', 'folder.delegated', 'folder.recalls', 'folder.excluded', 'folder.refused',
] as const;
const FIRST_CORE_COUNTER = 64;

/** enum smbpool_histogram, in words. */
export const LATENCY_NAMES = ['open: records', 'open: pinned', 'move of a record', 'turn of the loop'] as const;

export interface PageLatency {
  name: string;
  count: number;
  /** At most: the end of the bucket, which doubles from one to the next. */
  medianMicros: number;
  p99Micros: number;
  /** As measured. */
  maxMicros: number;
}

export interface PageError {
  /** 1: error, 2: warning. */
  code: number;
  text: string;
  count: number;
  /** Microseconds since 1970. */
  firstMicros: number;
  lastMicros: number;
}

export interface NodePage {
  /** Of this run of the daemon; 0: it went away in order. */
  generation: number;
  node: number;
  serving: boolean;
  /** Microseconds since 1970. */
  startedMicros: number;
  daemonPid: number;
  /** CLOCK_MONOTONIC microseconds; 0: no lease in use. */
  leaseDeadlineMicros: number;
  /** CLOCK_MONOTONIC microseconds; 0: none yet. */
  heartbeatMicros: number;
  /** Those that are not 0. */
  counters: Record<string, number>;
  latencies: PageLatency[];
  errors: PageError[];
  /** Errors that were being written just then, and are left out. */
  errorsUnread: number;
  /** Keys of files and leases whose records are on this server. */
  keysHome: number;
}

/** @throws DecodeError for what is no node page, or one of another layout. */
export function decodeNodePage(bytes: Uint8Array): NodePage {
  const page = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (page.length < NODE_PAGE_BYTES) throw new DecodeError('page-length', `${page.length} bytes`);
  if (page.readUInt32LE(0) !== MAGIC) throw new DecodeError('page-magic');
  const version = page.readUInt32LE(AT.layoutVersion);
  if (version !== LAYOUT_VERSION || page.readUInt32LE(AT.totalBytes) !== NODE_PAGE_BYTES) {
    throw new DecodeError('page-version', `layout ${version}, this is for layout ${LAYOUT_VERSION}`);
  }
  const errors = readErrors(page);
  return {
    generation: page.readUInt32LE(AT.generation),
    node: page.readUInt32LE(AT.node),
    serving: (page.readUInt32LE(AT.flags) & FLAG_SERVING) !== 0,
    startedMicros: u64(page, AT.startedMicros),
    daemonPid: page.readUInt32LE(AT.daemonPid),
    leaseDeadlineMicros: u64(page, AT.leaseDeadlineMicros),
    heartbeatMicros: u64(page, AT.heartbeatMicros),
    counters: readCounters(page),
    latencies: LATENCY_NAMES.map((name, histogram) => readLatency(page, name, histogram)),
    ...errors,
    keysHome: countKeys(page),
  };
}

function readCounters(page: Buffer): Record<string, number> {
  const counters: Record<string, number> = {};
  const take = (name: string, index: number): void => {
    const value = u64(page, AT.counters + 8 * index);
    if (value !== 0) counters[name] = value;
  };
  RING_COUNTER_NAMES.forEach((name, index) => take(`ring.${name}`, index));
  CORE_COUNTER_NAMES.forEach((name, index) => take(name, FIRST_CORE_COUNTER + index));
  return counters;
}

function readLatency(page: Buffer, name: string, histogram: number): PageLatency {
  const start = AT.histograms + histogram * HISTOGRAM_BUCKETS * 8;
  const buckets = Array.from({ length: HISTOGRAM_BUCKETS }, (_, bucket) => u64(page, start + 8 * bucket));
  const count = buckets.reduce((sum, one) => sum + one, 0);
  const maxMicros = u64(page, AT.longestMicros + 8 * histogram);
  const quantile = (fraction: number): number => {
    let left = Math.ceil(count * fraction);
    if (left === 0) return 0;
    const bucket = buckets.findIndex((one) => (left -= one) <= 0);
    return Math.min(2 ** (bucket + 1) - 1, maxMicros);
  };
  return { name, count, medianMicros: quantile(0.5), p99Micros: quantile(0.99), maxMicros };
}

function readErrors(page: Buffer): { errors: PageError[]; errorsUnread: number } {
  const errors: PageError[] = [];
  let errorsUnread = 0;
  for (let index = 0; index < ERRORS; index++) {
    const at = AT.errors + index * ERROR_BYTES;
    const text = page.toString('utf8', at + ERROR_TEXT_AT, at + ERROR_BYTES).replace(/\0[^]*$/, '');
    const count = u64(page, at + 8);
    const times = { firstMicros: u64(page, at + 16), lastMicros: u64(page, at + 24) };
    if ((page.readUInt32LE(at) & 1) !== 0) errorsUnread += 1;
    else if (count !== 0) errors.push({ code: page.readUInt32LE(at + 4), text, count, ...times });
  }
  return { errors: errors.sort((a, b) => b.lastMicros - a.lastMicros), errorsUnread };
}

function countKeys(page: Buffer): number {
  let count = 0;
  for (let at = AT.home; at < NODE_PAGE_BYTES; at += 8) {
    if (page.readUInt32LE(at) !== 0 || page.readUInt32LE(at + 4) !== 0) count += 1;
  }
  return count;
}

function u64(page: Buffer, at: number): number {
  return Number(page.readBigUInt64LE(at));
}
