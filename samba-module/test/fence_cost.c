/*
 * What a look at the lease costs a write, in nanoseconds: what smbpool_fence_pass does while the lease is valid,
 * without smbd around it. As the module is compiled (-O2, position independent), with the word in a shared mapping that
 * another thread renews as smbpoold would. Built and run by scripts/test-module.sh, for docs/measurements.md.
 *   fence_cost [LOOKS]
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "../client/ring_client.h"
#include "../map/map.h"

#define ROUNDS 15
#define LOOKS_DEFAULT 1000000ul
#define RENEW_NS 40000000l
#define LEASE_US 300000ull

static uint64_t now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* hooks/process.c has it in a file of its own, too. */
__attribute__((noinline)) static uint64_t now_us(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static bool over;

static void *renew(void *data) {
  struct smbpool_node_page *page = data;
  struct timespec pause = {.tv_nsec = RENEW_NS};

  while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
    __atomic_store_n(&page->lease_deadline_us, now_us() + LEASE_US, __ATOMIC_RELEASE);
    nanosleep(&pause, NULL);
  }
  return NULL;
}

static int compare(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;

  return left < right ? -1 : left > right;
}

/* The whole loop, in nanoseconds a look. */
static double measure(const struct smbpool_link *link, unsigned long looks, unsigned long *refused) {
  static struct smbpool_fence fence;
  uint64_t began = now_ns();
  unsigned long i;

  for (i = 0; i < looks; i++) {
    uint64_t deadline_us = smbpool_link_lease_deadline(link);
    if (deadline_us == 0) continue;
    *refused += smbpool_map_fence(&fence, deadline_us, now_us(), 10000) != SMBPOOL_FENCE_PASS;
  }
  return (double)(now_ns() - began) / (double)looks;
}

static void report(const char *what, const struct smbpool_link *link, unsigned long looks) {
  double took[ROUNDS];
  unsigned long refused = 0;
  unsigned int round;

  for (round = 0; round < ROUNDS; round++) took[round] = measure(link, looks, &refused);
  qsort(took, ROUNDS, sizeof(took[0]), compare);
  printf("fence_cost: %s: median %.1f ns, fastest %.1f, slowest %.1f (%d rounds of %lu looks), refused %lu\n", what,
         took[ROUNDS / 2], took[0], took[ROUNDS - 1], ROUNDS, looks, refused);
}

int main(int argc, char **argv) {
  unsigned long looks = argc > 1 ? strtoul(argv[1], NULL, 10) : LOOKS_DEFAULT;
  struct smbpool_node_page *page =
      mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct smbpool_link link;
  pthread_t renewer;

  if (page == MAP_FAILED || looks == 0) return 2;
  smbpool_link_init(&link);
  link.lease_page = page;
  report("no lease in use", &link, looks);
  page->lease_deadline_us = now_us() + LEASE_US;
  if (pthread_create(&renewer, NULL, renew, page) != 0) return 2;
  report("lease valid, renewed every 40 ms", &link, looks);
  __atomic_store_n(&over, true, __ATOMIC_RELAXED);
  pthread_join(renewer, NULL);
  return 0;
}
