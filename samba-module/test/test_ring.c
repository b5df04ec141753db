/*
 * The ring by itself: both ends in one process, indices placed by hand at the edges, hostile words, two threads, and a
 * producer that dies. Run by scripts/test-module.sh; also under the sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <signal.h>

#include <cmocka.h>

#include "smbpool_ring.h"

static struct smbpool_ring *new_ring(void) {
  struct smbpool_ring *ring =
      mmap(NULL, sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(ring != MAP_FAILED);
  return ring;
}

static void fill(uint8_t *payload, uint32_t length, uint32_t seed) {
  uint32_t i;
  for (i = 0; i < length; i++) payload[i] = (uint8_t)(seed * 31u + i * 7u + (i >> 8));
}

/* All lengths at all positions, so that every way of wrapping is met; indices start just before 2^32. */
static void every_length_survives_every_wrap(void **state) {
  struct smbpool_ring *ring = new_ring();
  struct smbpool_channel in = smbpool_request_channel(ring), out = smbpool_request_channel(ring);
  static uint8_t sent[SMBPOOL_MESSAGE_BYTES_MAX], got[SMBPOOL_MESSAGE_BYTES_MAX];
  struct smbpool_slot_header header;
  uint32_t length, round = 0;
  (void)state;

  in.position = in.seen = out.position = out.seen = UINT32_MAX - 50;
  ring->request_head = ring->request_tail = UINT32_MAX - 50;
  for (length = 0; length <= SMBPOOL_MESSAGE_BYTES_MAX; length += length < 600 ? 1 : 61) {
    uint32_t fixed = length / 3;
    fill(sent, length, ++round);
    assert_int_equal(smbpool_publish(&in, round, 9, sent, fixed, sent + fixed, length - fixed), SMBPOOL_RING_OK);
    assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_OK);
    assert_int_equal(header.length_bytes, length);
    assert_int_equal(header.op, round);
    assert_int_equal(header.generation, 9);
    assert_memory_equal(sent, got, length);
    assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_EMPTY);
  }
  munmap(ring, sizeof(*ring));
}

static void full_is_said_and_nothing_is_lost(void **state) {
  struct smbpool_ring *ring = new_ring();
  struct smbpool_channel in = smbpool_request_channel(ring), out = smbpool_request_channel(ring);
  static uint8_t got[SMBPOOL_MESSAGE_BYTES_MAX];
  struct smbpool_slot_header header;
  uint32_t i, long_bytes = 2 * SMBPOOL_SLOT_BYTES;
  (void)state;

  for (i = 0; i < SMBPOOL_SLOTS; i++) {
    assert_int_equal(smbpool_publish(&in, i, 1, &i, sizeof(i), NULL, 0), SMBPOOL_RING_OK);
  }
  assert_int_equal(smbpool_publish(&in, i, 1, &i, sizeof(i), NULL, 0), SMBPOOL_RING_FULL);
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_OK);
  /* One free slot is not enough for a long one; the refused one left no trace in the sequence. */
  assert_int_equal(smbpool_publish(&in, 1, 1, got, long_bytes, NULL, 0), SMBPOOL_RING_FULL);
  assert_int_equal(smbpool_publish(&in, SMBPOOL_SLOTS, 1, &i, sizeof(i), NULL, 0), SMBPOOL_RING_OK);
  for (i = 1; i <= SMBPOOL_SLOTS; i++) {
    assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_OK);
    assert_int_equal(header.op, i);
  }
  assert_int_equal(smbpool_publish(&in, 1, 1, got, SMBPOOL_MESSAGE_BYTES_MAX + 1, NULL, 0), SMBPOOL_RING_TOO_LONG);
  munmap(ring, sizeof(*ring));
}

static void consumer_refuses_what_no_producer_writes(void **state) {
  struct smbpool_ring *ring = new_ring();
  struct smbpool_channel in = smbpool_request_channel(ring), out;
  static uint8_t got[SMBPOOL_MESSAGE_BYTES_MAX];
  struct smbpool_slot_header header = {.length_bytes = 0, .op = 1, .generation = 1, .sequence = 1};
  (void)state;

  out = smbpool_request_channel(ring);
  ring->request_head = SMBPOOL_SLOTS + 1;
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_BAD);
  ring->request_head = UINT32_MAX;
  out = smbpool_request_channel(ring);
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_BAD);

  /* A length beyond the bound, and one beyond what was published. */
  ring->request_head = 1;
  header.length_bytes = SMBPOOL_MESSAGE_BYTES_MAX + 1;
  memcpy(ring->request_slots, &header, sizeof(header));
  out = smbpool_request_channel(ring);
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_BAD);
  header.length_bytes = SMBPOOL_SLOT_BYTES;
  memcpy(ring->request_slots, &header, sizeof(header));
  out = smbpool_request_channel(ring);
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_BAD);

  /* A sequence that is not the next one. */
  header.length_bytes = 0;
  header.sequence = 2;
  memcpy(ring->request_slots, &header, sizeof(header));
  out = smbpool_request_channel(ring);
  assert_int_equal(smbpool_consume(&out, &header, got), SMBPOOL_RING_BAD);

  /* And the producer refuses a tail ahead of its head. */
  in.position = in.seen = 5;
  in.seen = 5 - SMBPOOL_SLOTS;
  ring->request_tail = 6;
  assert_int_equal(smbpool_publish(&in, 1, 1, NULL, 0, NULL, 0), SMBPOOL_RING_BAD);
  munmap(ring, sizeof(*ring));
}

#define THREAD_MESSAGES 200000u

static void *produce(void *data) {
  struct smbpool_channel in = smbpool_request_channel(data);
  static uint8_t payload[1500];
  uint32_t i = 0;
  while (i < THREAD_MESSAGES) {
    uint32_t length = (i * 2654435761u) % sizeof(payload);
    fill(payload, length, i);
    if (smbpool_publish(&in, i, 1, payload, length, NULL, 0) == SMBPOOL_RING_OK) {
      i++;
    } else {
      sched_yield();
    }
  }
  return NULL;
}

static void two_threads_agree(void **state) {
  struct smbpool_ring *ring = new_ring();
  struct smbpool_channel out = smbpool_request_channel(ring);
  static uint8_t got[SMBPOOL_MESSAGE_BYTES_MAX], expected[1500];
  struct smbpool_slot_header header;
  pthread_t producer;
  uint32_t i = 0;
  (void)state;

  assert_int_equal(pthread_create(&producer, NULL, produce, ring), 0);
  while (i < THREAD_MESSAGES) {
    enum smbpool_ring_result result = smbpool_consume(&out, &header, got);
    if (result == SMBPOOL_RING_EMPTY) {
      sched_yield();
      continue;
    }
    assert_int_equal(result, SMBPOOL_RING_OK);
    assert_int_equal(header.op, i);
    if (i % 16 == 0) {
      fill(expected, header.length_bytes, i);
      assert_memory_equal(expected, got, header.length_bytes);
    }
    i++;
  }
  pthread_join(producer, NULL);
  munmap(ring, sizeof(*ring));
}

/* A producer killed anywhere leaves whole messages or nothing. */
static void death_of_the_producer_leaves_whole_messages(void **state) {
  static uint8_t got[SMBPOOL_MESSAGE_BYTES_MAX], expected[700];
  int round;
  (void)state;

  for (round = 0; round < 100; round++) {
    struct smbpool_ring *ring = new_ring();
    struct smbpool_channel out = smbpool_request_channel(ring);
    struct smbpool_slot_header header;
    uint32_t seen = 0;
    pid_t child = fork();
    if (child == 0) {
      struct smbpool_channel in = smbpool_request_channel(ring);
      uint32_t i = 0;
      for (;;) {
        fill(expected, sizeof(expected), i);
        if (smbpool_publish(&in, i, 1, expected, sizeof(expected), NULL, 0) == SMBPOOL_RING_OK) i++;
      }
    }
    for (;;) {
      enum smbpool_ring_result result = smbpool_consume(&out, &header, got);
      if (result == SMBPOOL_RING_OK) {
        assert_int_equal(header.op, seen);
        fill(expected, sizeof(expected), seen++);
        assert_memory_equal(expected, got, sizeof(expected));
        if (child != -1 && seen > (uint32_t)round * 3) {
          kill(child, SIGKILL);
          waitpid(child, NULL, 0);
          child = -1;
        }
      } else {
        assert_int_equal(result, SMBPOOL_RING_EMPTY);
        if (child == -1) break;
      }
    }
    munmap(ring, sizeof(*ring));
  }
}

/* Values that module, addon and the TypeScript tests share: a change of the function breaks running pairs. */
static void fingerprints_are_frozen(void **state) {
  static const uint8_t key[24] = {7, 0, 0, 0, 0, 0, 0, 0, 99};
  static uint64_t home[SMBPOOL_HOME_ENTRIES];
  uint64_t fingerprint = smbpool_fingerprint(SMBPOOL_HOME_FILE, key, sizeof(key));
  (void)state;

  assert_true(fingerprint == 0x4ba93ca7ce7b1391ull);
  assert_true(fingerprint != smbpool_fingerprint(SMBPOOL_HOME_LEASE, key, sizeof(key)));
  assert_false(smbpool_home_has(home, fingerprint));
  home[(fingerprint % SMBPOOL_HOME_BUCKETS) * SMBPOOL_HOME_WAYS + 7] = fingerprint;
  assert_true(smbpool_home_has(home, fingerprint));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_length_survives_every_wrap),
      cmocka_unit_test(full_is_said_and_nothing_is_lost),
      cmocka_unit_test(consumer_refuses_what_no_producer_writes),
      cmocka_unit_test(two_threads_agree),
      cmocka_unit_test(death_of_the_producer_leaves_whole_messages),
      cmocka_unit_test(fingerprints_are_frozen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
