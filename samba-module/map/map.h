/*
 * Pure mapping: options, ids, texts, decisions. Used by every hook; includes nothing of smbd, so cmocka tests it alone.
 * Must never allocate, log or do I/O.
 */
#ifndef SMBPOOL_MAP_H
#define SMBPOOL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smbpool_ops.h"

/* Longest texts sent; longer ones are cut at a character. Their sum with the fixed part fits one message. */
#define SMBPOOL_PATH_BYTES_MAX 4096u
#define SMBPOOL_SHARE_BYTES_MAX 160u
#define SMBPOOL_USER_BYTES_MAX 480u
#define SMBPOOL_NAME_BYTES_MAX 256u

/* A number ("7", "0x1f") is taken as it is; any other text is hashed, never to 0. False for an empty or 0 one. */
bool smbpool_map_volume(const char *text, uint64_t *volume);

/*
 * The pool-wide id of a file. Only the file system of the share's root has the configured volume; what is mounted
 * below it keeps its own device, because its inode numbers overlap with the root's.
 */
struct smbpool_file_id smbpool_map_file_id(uint64_t volume, uint64_t root_device, uint64_t device, uint64_t inode);

/*
 * Folders that servers have delegations of: an open that cannot conflict with others like it has its entry in its
 * server's slice. See docs/decisions/shared-folders.md.
 */
struct smbpool_file_id smbpool_map_slice_id(const struct smbpool_file_id *one, uint32_t node);
/* Of whatever server. */
bool smbpool_map_is_slice(const struct smbpool_file_id *id);
/* The id of the folder itself; of anything that is no slice: the id given. */
struct smbpool_file_id smbpool_map_one_id(const struct smbpool_file_id *id);
/* An open of a folder that exists, by the numbers of SMB: it may conflict with other opens of the folder. */
bool smbpool_map_open_excludes(uint32_t access_mask, uint32_t share_access, uint32_t disposition, uint32_t options);

/* Longest prefix of at most `bytes_max` bytes that ends between two UTF-8 characters. NULL is empty. */
uint16_t smbpool_map_text_bytes(const char *text, size_t bytes_max);

/* Appends a text (its first `bytes` bytes) to a message under construction; returns the new length. */
uint32_t smbpool_map_append(uint8_t *buffer, uint32_t length, const char *text, uint16_t bytes);

/* What create_file knows before it decides. */
struct smbpool_open_facts {
  bool can_wait;     /* an SMB2 create of a client */
  bool link_up;      /* a daemon is there */
  bool exists;       /* the file id is known */
  bool keys_home;    /* every key of it was found in the home table */
  bool defer_option; /* smbpool:defer */
  bool excludes;     /* a folder that servers may share, and this open must not pass by their slices */
  uint32_t delay_ms; /* smbpool:delay ms */
};
enum smbpool_open_plan {
  SMBPOOL_PLAN_GO = 0,    /* no report of a wait is due: no daemon, or nothing to ask */
  SMBPOOL_PLAN_TELL = 1,  /* go on, telling the daemon that the operation begins */
  SMBPOOL_PLAN_WAIT = 2,  /* ask the daemon and defer */
  SMBPOOL_PLAN_DELAY = 3, /* defer for the fault option alone */
  SMBPOOL_PLAN_BLOCK = 4, /* ask the daemon and wait for it on the spot */
  SMBPOOL_PLAN_REFUSE = 5, /* it must be asked for, and nobody is there to ask */
};
enum smbpool_open_plan smbpool_map_open_plan(const struct smbpool_open_facts *facts);

/*
 * What becomes of a request that opens or changes something, by this server's lease. An episode is a time in which the
 * lease was over at every look and can have been valid at no moment in between: an smbd waits once in each, so that
 * requests that queue up behind a waiting one do not wait one after the other.
 */
struct smbpool_fence {
  uint64_t since_us; /* the episode's first look that found the lease over */
  uint64_t seen_us;  /* and its last one */
  bool told;         /* somebody was told of this episode */
};
enum smbpool_fence_step {
  SMBPOOL_FENCE_PASS = 0,
  SMBPOOL_FENCE_WAIT = 1, /* a server that was only slow has its lease back in a moment */
  SMBPOOL_FENCE_REFUSE = 2,
};
enum smbpool_fence_step smbpool_map_fence(struct smbpool_fence *fence, uint64_t deadline_us, uint64_t now_us,
                                          uint32_t wait_ms);

/* What smbd is asked for instead, on a server that drains: SMB2_LEASE_* bits, and smbd's oplock numbers. */
uint32_t smbpool_map_drained_lease(uint32_t lease_state);
uint32_t smbpool_map_drained_oplock(uint32_t oplock);
/* The client may keep writes to itself. Of a lease `oplock` is 0x100. */
bool smbpool_map_is_caching(uint32_t oplock, uint32_t lease_state);

/* Next interval of a watch on a breaking oplock: doubles from 2 ms up to 50 ms. */
uint32_t smbpool_map_watch_interval_ms(uint32_t previous_ms);

#endif
