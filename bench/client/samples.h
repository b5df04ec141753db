/*
 * Latencies of one worker, in memory that the parent process reads after the worker's end: a histogram with buckets
 * that grow by 1/64, so that a quantile is off by at most 1.6 %. Used by main.c; knows nothing of what is measured.
 */
#ifndef SMBPOOL_BENCH_SAMPLES_H
#define SMBPOOL_BENCH_SAMPLES_H

#include <stdint.h>

#define SAMPLE_SUB_BUCKETS 64
#define SAMPLE_BUCKETS (48 * SAMPLE_SUB_BUCKETS)

struct samples {
  uint64_t count;
  uint64_t max_ns;
  uint32_t buckets[SAMPLE_BUCKETS];
};

void samples_add(struct samples *samples, uint64_t latency_ns);
void samples_merge(struct samples *into, const struct samples *from);
/* The latency that a share `fraction` (0 to 1) of the samples does not exceed; 0 without samples. */
uint64_t samples_quantile_ns(const struct samples *samples, double fraction);
/* CLOCK_MONOTONIC. */
uint64_t now_ns(void);

#endif
