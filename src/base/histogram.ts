/**
 * A histogram of whole numbers (microseconds, bytes) with buckets that grow by an eighth, so that a quantile is off by
 * at most that much and a million samples cost no more memory than one. Deterministic; used by the core and the CLI.
 */

const SUB_BUCKETS_LOG2 = 3;
const SUB_BUCKETS = 1 << SUB_BUCKETS_LOG2;
const BUCKET_COUNT = 48 * SUB_BUCKETS;
/** Has a bucket of its own and is a whole number of 31 bits. */
const SMALL_MAX = 0x7fff_ffff;

export interface HistogramSummary {
  count: number;
  median: number;
  p99: number;
  max: number;
}

export class Histogram {
  private readonly buckets = new Uint32Array(BUCKET_COUNT);
  private count = 0;
  private max = 0;

  add(value: number): void {
    const sample = Math.max(0, Math.floor(value));
    const index = bucketOf(sample);
    this.buckets[index] = (this.buckets[index] ?? 0) + 1;
    this.count += 1;
    if (sample > this.max) this.max = sample;
  }

  /**
   * The value that a share `fraction` (0 to 1) of the samples does not exceed, rounded up to its bucket's end; 0 if
   * empty.
   */
  quantile(fraction: number): number {
    const wanted = Math.ceil(this.count * fraction);
    let seen = 0;
    for (let i = 0; i < BUCKET_COUNT; i++) {
      seen += this.buckets[i]!;
      if (seen >= wanted && seen > 0) return Math.min(bucketEnd(i), this.max);
    }
    return this.max;
  }

  summary(): HistogramSummary {
    return { count: this.count, median: this.quantile(0.5), p99: this.quantile(0.99), max: this.max };
  }
}

function bucketOf(value: number): number {
  if (value < SUB_BUCKETS) return value;
  // logarithms and powers of floating-point numbers cost more than all else here: only for what needs them
  if (value <= SMALL_MAX) {
    const exponent = 31 - Math.clz32(value) - SUB_BUCKETS_LOG2;
    return (exponent + 1) * SUB_BUCKETS + ((value >>> exponent) - SUB_BUCKETS);
  }
  const exponent = Math.floor(Math.log2(value)) - SUB_BUCKETS_LOG2;
  const index = (exponent + 1) * SUB_BUCKETS + (Math.floor(value / 2 ** exponent) - SUB_BUCKETS);
  return Math.min(index, BUCKET_COUNT - 1);
}

function bucketEnd(index: number): number {
  if (index < SUB_BUCKETS) return index;
  const exponent = Math.floor(index / SUB_BUCKETS) - 1;
  return (SUB_BUCKETS + (index % SUB_BUCKETS) + 1) * 2 ** exponent - 1;
}
