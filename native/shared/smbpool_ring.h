/*
 * How the words of smbpool_layout.h are read and written: publishing into and copying out of a ring, the doorbell, the
 * home table's fingerprint. Inline, without system calls or allocation, for the module (C11) and native/core (C++17).
 * Neither side may ever act on a length or index before it was checked here: the other side may be hostile or dying.
 */
#ifndef SMBPOOL_RING_H
#define SMBPOOL_RING_H

#include <string.h>

#include "smbpool_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One direction of a ring, seen by one side. `own` is ours to write, `theirs` is only ever read. */
struct smbpool_channel {
  uint8_t *slots;
  uint32_t *head; /* the producer's word */
  uint32_t *tail; /* the consumer's word */
  uint32_t position; /* private copy of our own word: what the other side did to it does not matter */
  uint32_t seen;     /* private copy of the other's word */
  uint32_t sequence; /* last one sent, or last one received */
};

enum smbpool_ring_result {
  SMBPOOL_RING_OK = 0,
  SMBPOOL_RING_FULL = 1,  /* as a producer: try later */
  SMBPOOL_RING_EMPTY = 2, /* as a consumer */
  SMBPOOL_RING_BAD = 3,   /* the other side broke the rules: give the attachment up */
  SMBPOOL_RING_TOO_LONG = 4,
};

static inline uint32_t smbpool_load_acquire(const uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void smbpool_store_release(uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Slots a message of so many payload bytes takes. */
static inline uint32_t smbpool_slots_for(uint32_t length_bytes) {
  return (length_bytes + SMBPOOL_SLOT_HEADER_BYTES + SMBPOOL_SLOT_BYTES - 1u) / SMBPOOL_SLOT_BYTES;
}

/* Copies to or from the slots of one message, which may wrap at the end of the ring. */
static inline void smbpool_copy_in(uint8_t *slots, uint32_t position, uint32_t offset, const void *from,
                                   uint32_t count) {
  uint32_t at = ((position % SMBPOOL_SLOTS) * SMBPOOL_SLOT_BYTES + offset) % (SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES);
  uint32_t first = SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES - at;
  if (first > count) first = count;
  memcpy(slots + at, from, first);
  memcpy(slots, (const uint8_t *)from + first, count - first);
}

static inline void smbpool_copy_out(const uint8_t *slots, uint32_t position, uint32_t offset, void *to,
                                    uint32_t count) {
  uint32_t at = ((position % SMBPOOL_SLOTS) * SMBPOOL_SLOT_BYTES + offset) % (SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES);
  uint32_t first = SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES - at;
  if (first > count) first = count;
  memcpy(to, slots + at, first);
  memcpy((uint8_t *)to + first, slots, count - first);
}

/* A message made of two parts (fixed struct, texts), so that callers need not join them first. */
static inline enum smbpool_ring_result smbpool_publish(struct smbpool_channel *channel, uint32_t op,
                                                       uint32_t generation, const void *fixed, uint32_t fixed_bytes,
                                                       const void *texts, uint32_t texts_bytes) {
  struct smbpool_slot_header header;
  uint32_t length_bytes = fixed_bytes + texts_bytes;
  uint32_t needed;
  if (length_bytes > SMBPOOL_MESSAGE_BYTES_MAX || fixed_bytes > SMBPOOL_MESSAGE_BYTES_MAX) return SMBPOOL_RING_TOO_LONG;
  needed = smbpool_slots_for(length_bytes);
  if (SMBPOOL_SLOTS - (channel->position - channel->seen) < needed) {
    uint32_t tail = smbpool_load_acquire(channel->tail);
    if (channel->position - tail > SMBPOOL_SLOTS) return SMBPOOL_RING_BAD;
    channel->seen = tail;
    if (SMBPOOL_SLOTS - (channel->position - tail) < needed) return SMBPOOL_RING_FULL;
  }
  channel->sequence += 1u;
  header.length_bytes = length_bytes;
  header.op = op;
  header.generation = generation;
  header.sequence = channel->sequence;
  smbpool_copy_in(channel->slots, channel->position, 0, &header, sizeof(header));
  if (fixed_bytes > 0) smbpool_copy_in(channel->slots, channel->position, sizeof(header), fixed, fixed_bytes);
  if (texts_bytes > 0) {
    smbpool_copy_in(channel->slots, channel->position, (uint32_t)sizeof(header) + fixed_bytes, texts, texts_bytes);
  }
  channel->position += needed;
  smbpool_store_release(channel->head, channel->position);
  return SMBPOOL_RING_OK;
}

/*
 * Takes one message out, into a buffer of SMBPOOL_MESSAGE_BYTES_MAX bytes. The header is copied first and only the
 * copy is looked at, so a producer that goes on writing changes nothing but its own message.
 */
static inline enum smbpool_ring_result smbpool_consume(struct smbpool_channel *channel,
                                                       struct smbpool_slot_header *header, uint8_t *payload) {
  uint32_t available = channel->seen - channel->position;
  uint32_t needed;
  if (available == 0) {
    channel->seen = smbpool_load_acquire(channel->head);
    available = channel->seen - channel->position;
    if (available > SMBPOOL_SLOTS) return SMBPOOL_RING_BAD;
    if (available == 0) return SMBPOOL_RING_EMPTY;
  }
  smbpool_copy_out(channel->slots, channel->position, 0, header, sizeof(*header));
  if (header->length_bytes > SMBPOOL_MESSAGE_BYTES_MAX) return SMBPOOL_RING_BAD;
  needed = smbpool_slots_for(header->length_bytes);
  if (needed > available) return SMBPOOL_RING_BAD;
  if (header->sequence != channel->sequence + 1u) return SMBPOOL_RING_BAD;
  smbpool_copy_out(channel->slots, channel->position, sizeof(*header), payload, header->length_bytes);
  channel->sequence = header->sequence;
  channel->position += needed;
  smbpool_store_release(channel->tail, channel->position);
  return SMBPOOL_RING_OK;
}

static inline struct smbpool_channel smbpool_request_channel(struct smbpool_ring *ring) {
  struct smbpool_channel channel = {ring->request_slots, &ring->request_head, &ring->request_tail, 0, 0, 0};
  return channel;
}

static inline struct smbpool_channel smbpool_reply_channel(struct smbpool_ring *ring) {
  struct smbpool_channel channel = {ring->reply_slots, &ring->reply_head, &ring->reply_tail, 0, 0, 0};
  return channel;
}

/*
 * After publishing requests: marks the client's bit, always (the atomic or is also the full fence between the head and
 * the sleep word), then tells whether the daemon must be rung. The client never clears the daemon's word.
 */
static inline int smbpool_must_ring(struct smbpool_ready_map *ready, uint32_t client, const uint32_t *daemon_sleeps) {
  __atomic_fetch_or(&ready->bits[client / 64u], (uint64_t)1 << (client % 64u), __ATOMIC_SEQ_CST);
  return __atomic_load_n(daemon_sleeps, __ATOMIC_SEQ_CST) != 0;
}

/* After publishing replies: how the client wants to be woken. */
static inline uint32_t smbpool_client_state(const struct smbpool_ring *ring) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return __atomic_load_n(&ring->client_state, __ATOMIC_SEQ_CST);
}

/* Until when this server may serve; 0: no lease is in use. The clock is to be read after it. */
static inline uint64_t smbpool_lease_deadline(const struct smbpool_node_page *page) {
  return __atomic_load_n(&page->lease_deadline_us, __ATOMIC_ACQUIRE);
}

/* Both in microseconds of CLOCK_MONOTONIC. At the deadline it is over. */
static inline int smbpool_lease_over(uint64_t deadline_us, uint64_t now_us) {
  return deadline_us != 0 && now_us >= deadline_us;
}

/* 64-bit fingerprint of a key: FNV-1a over kind and bytes, then a finalizer so that any bits may choose the bucket. */
static inline uint64_t smbpool_fingerprint(uint8_t kind, const void *key, size_t key_bytes) {
  const uint8_t *bytes = (const uint8_t *)key;
  uint64_t hash = 0xcbf29ce484222325ull;
  size_t i;
  hash = (hash ^ kind) * 0x100000001b3ull;
  for (i = 0; i < key_bytes; i++) hash = (hash ^ bytes[i]) * 0x100000001b3ull;
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccdull;
  hash ^= hash >> 33;
  return hash == 0 ? 1 : hash;
}

static inline int smbpool_home_has(const uint64_t *home, uint64_t fingerprint) {
  const uint64_t *bucket = home + (fingerprint % SMBPOOL_HOME_BUCKETS) * SMBPOOL_HOME_WAYS;
  unsigned int i;
  for (i = 0; i < SMBPOOL_HOME_WAYS; i++) {
    if (__atomic_load_n(&bucket[i], __ATOMIC_RELAXED) == fingerprint) return 1;
  }
  return 0;
}

#ifdef __cplusplus
}
#endif

#endif
