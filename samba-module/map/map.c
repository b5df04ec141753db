/*
 * See map.h.
 */
#include "map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "smbpool_ring.h"

#define WATCH_FIRST_MS 2u
#define WATCH_LAST_MS 50u

/* smbd's numbers (source3/include/smb.h), exclusive and batch in one; and SMB2_LEASE_WRITE. */
#define EXCLUSIVE_OPLOCKS 3u
#define LEVEL_2_OPLOCK 4u
#define LEASE_OPLOCK_TYPE 0x100u
#define LEASE_WRITE 4u

/* Access that may turn out to be that to delete: DELETE itself, MAXIMUM_ALLOWED, GENERIC_ALL. */
#define MAY_DELETE 0x12010000u
#define SHARE_ALL 7u
#define OPEN_EXISTING 1u
#define OPEN_OR_CREATE 3u
#define DELETE_ON_CLOSE 0x1000u

/* The lower half of a slice's snapshot is the server's number. */
#define SLICE_MASK 0xffffffff00000000ull

bool smbpool_map_volume(const char *text, uint64_t *volume) {
  char *end = NULL;
  unsigned long long number;

  if (text == NULL || text[0] == '\0') return false;
  errno = 0;
  number = strtoull(text, &end, 0);
  if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0) {
    *volume = number;
    return number != 0;
  }
  *volume = smbpool_fingerprint(0, text, strlen(text));
  return true;
}

struct smbpool_file_id smbpool_map_file_id(uint64_t volume, uint64_t root_device, uint64_t device, uint64_t inode) {
  struct smbpool_file_id id = {.volume = device == root_device || device == volume ? volume : device, .inode = inode};

  return id;
}

struct smbpool_file_id smbpool_map_slice_id(const struct smbpool_file_id *one, uint32_t node) {
  struct smbpool_file_id id = *one;

  id.snapshot = SMBPOOL_SLICE_SNAPSHOT | node;
  return id;
}

bool smbpool_map_is_slice(const struct smbpool_file_id *id) {
  return (id->snapshot & SLICE_MASK) == SMBPOOL_SLICE_SNAPSHOT;
}

struct smbpool_file_id smbpool_map_one_id(const struct smbpool_file_id *id) {
  struct smbpool_file_id one = *id;

  if (smbpool_map_is_slice(id)) one.snapshot = 0;
  return one;
}

bool smbpool_map_open_excludes(uint32_t access_mask, uint32_t share_access, uint32_t disposition, uint32_t options) {
  if ((access_mask & MAY_DELETE) != 0 || (options & DELETE_ON_CLOSE) != 0) return true;
  if ((share_access & SHARE_ALL) != SHARE_ALL) return true;
  return disposition != OPEN_EXISTING && disposition != OPEN_OR_CREATE;
}

uint16_t smbpool_map_text_bytes(const char *text, size_t bytes_max) {
  size_t bytes;

  if (text == NULL) return 0;
  bytes = strnlen(text, bytes_max + 1);
  if (bytes <= bytes_max) return (uint16_t)bytes;
  bytes = bytes_max;
  while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0u) == 0x80u) bytes--;
  return (uint16_t)bytes;
}

uint32_t smbpool_map_append(uint8_t *buffer, uint32_t length, const char *text, uint16_t bytes) {
  if (bytes > 0) memcpy(buffer + length, text, bytes);
  return length + bytes;
}

enum smbpool_open_plan smbpool_map_open_plan(const struct smbpool_open_facts *facts) {
  bool ask = facts->link_up && facts->exists && !facts->keys_home && facts->defer_option;

  if (facts->excludes) {
    if (!facts->link_up) return SMBPOOL_PLAN_REFUSE;
    return facts->can_wait ? SMBPOOL_PLAN_WAIT : SMBPOOL_PLAN_BLOCK;
  }
  if (facts->can_wait && ask) return SMBPOOL_PLAN_WAIT;
  if (facts->can_wait && facts->delay_ms > 0) return SMBPOOL_PLAN_DELAY;
  return facts->link_up ? SMBPOOL_PLAN_TELL : SMBPOOL_PLAN_GO;
}

enum smbpool_fence_step smbpool_map_fence(struct smbpool_fence *fence, uint64_t deadline_us, uint64_t now_us,
                                          uint32_t wait_ms) {
  if (!smbpool_lease_over(deadline_us, now_us)) return SMBPOOL_FENCE_PASS;
  /* Later than the last look: it was valid in between. */
  if (deadline_us > fence->seen_us) {
    fence->since_us = now_us;
    fence->told = false;
  }
  fence->seen_us = now_us;
  return now_us - fence->since_us < (uint64_t)wait_ms * 1000u ? SMBPOOL_FENCE_WAIT : SMBPOOL_FENCE_REFUSE;
}

uint32_t smbpool_map_drained_lease(uint32_t lease_state) { return lease_state & ~LEASE_WRITE; }

uint32_t smbpool_map_drained_oplock(uint32_t oplock) {
  if ((oplock & LEASE_OPLOCK_TYPE) != 0 || (oplock & EXCLUSIVE_OPLOCKS) == 0) return oplock;
  return (oplock & ~EXCLUSIVE_OPLOCKS) | LEVEL_2_OPLOCK;
}

bool smbpool_map_is_caching(uint32_t oplock, uint32_t lease_state) {
  if ((oplock & LEASE_OPLOCK_TYPE) != 0) return (lease_state & LEASE_WRITE) != 0;
  return (oplock & EXCLUSIVE_OPLOCKS) != 0;
}

uint32_t smbpool_map_watch_interval_ms(uint32_t previous_ms) {
  uint32_t next = previous_ms == 0 ? WATCH_FIRST_MS : previous_ms * 2u;

  return next > WATCH_LAST_MS ? WATCH_LAST_MS : next;
}
