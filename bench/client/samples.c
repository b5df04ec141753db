/* See samples.h. */
#include "samples.h"

#include <time.h>

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t value) {
  if (value < SAMPLE_SUB_BUCKETS) return (unsigned)value;
  const unsigned exponent = 63u - (unsigned)__builtin_clzll(value) - 6u;
  const unsigned index = (exponent + 1) * SAMPLE_SUB_BUCKETS + (unsigned)((value >> exponent) - SAMPLE_SUB_BUCKETS);
  return index < SAMPLE_BUCKETS ? index : SAMPLE_BUCKETS - 1;
}

static uint64_t bucket_middle(unsigned index) {
  if (index < SAMPLE_SUB_BUCKETS) return index;
  const unsigned exponent = index / SAMPLE_SUB_BUCKETS - 1;
  const uint64_t start = (uint64_t)(SAMPLE_SUB_BUCKETS + index % SAMPLE_SUB_BUCKETS) << exponent;
  return start + ((uint64_t)1 << exponent) / 2;
}

void samples_add(struct samples *samples, uint64_t latency_ns) {
  samples->buckets[bucket_of(latency_ns)]++;
  samples->count++;
  if (latency_ns > samples->max_ns) samples->max_ns = latency_ns;
}

void samples_merge(struct samples *into, const struct samples *from) {
  for (unsigned i = 0; i < SAMPLE_BUCKETS; i++) into->buckets[i] += from->buckets[i];
  into->count += from->count;
  if (from->max_ns > into->max_ns) into->max_ns = from->max_ns;
}

uint64_t samples_quantile_ns(const struct samples *samples, double fraction) {
  const uint64_t wanted = (uint64_t)((double)samples->count * fraction);
  uint64_t seen = 0;
  for (unsigned i = 0; i < SAMPLE_BUCKETS; i++) {
    seen += samples->buckets[i];
    if (seen > wanted) return bucket_middle(i) < samples->max_ns ? bucket_middle(i) : samples->max_ns;
  }
  return samples->max_ns;
}
