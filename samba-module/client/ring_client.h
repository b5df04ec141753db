/*
 * The module's end of the attachment: socket, mappings, rings, waiting. Called by hooks/attach.c; knows nothing of smbd
 * and so is tested without it. It must never block except in smbpool_link_wait, and must never trust a length it reads.
 */
#ifndef SMBPOOL_RING_CLIENT_H
#define SMBPOOL_RING_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "smbpool_ring.h"

enum smbpool_link_state {
  SMBPOOL_LINK_DOWN = 0,
  SMBPOOL_LINK_GREETING = 1, /* hello sent, welcome not yet here */
  SMBPOOL_LINK_UP = 2,
};

struct smbpool_link {
  enum smbpool_link_state state;
  int socket_fd;
  int bell_fd; /* wakes the daemon */
  int wake_fd; /* wakes us */
  struct smbpool_ring *ring;
  const struct smbpool_node_page *page;
  /* The page mapped last. It outlives the link: what it says of the lease holds when the daemon is gone, too. */
  const struct smbpool_node_page *lease_page;
  struct smbpool_ready_map *ready;
  struct smbpool_channel requests;
  struct smbpool_channel replies;
  uint32_t client;
  uint32_t generation;
  bool bell_due; /* something was posted while the daemon slept */
  bool draining; /* a handler must not drain again */
  bool broken;   /* to be closed by whoever notices: a handler may still be using the mapping */
};

/* Payload is a private copy and may be kept until the handler returns. */
typedef void (*smbpool_reply_handler)(void *private_data, uint32_t op, const uint8_t *payload, uint32_t length_bytes);

/* A link without descriptors. */
void smbpool_link_init(struct smbpool_link *link);

/* Connects and sends the hello; 0, or an errno (nothing to close then). Never blocks: a full backlog is EAGAIN. */
int smbpool_link_start(struct smbpool_link *link, const char *socket_path, const char *module_version);

/*
 * To be called when socket_fd is readable. 0: nothing more to do or up now (look at state). Otherwise an errno and the
 * link is down: ECONNRESET the daemon went away, EPROTO it speaks another version, EPERM it refused us. Then call
 * smbpool_link_close, after the descriptors were taken out of any event loop.
 */
int smbpool_link_readable(struct smbpool_link *link);

/* Unmaps and closes everything but the lease's page. Safe in any state. */
void smbpool_link_close(struct smbpool_link *link);

/* Closes, and forgets the lease too: the end. */
void smbpool_link_end(struct smbpool_link *link);

/* The daemon that we were attached to has ended, or has sent us away: nothing comes of it any more. Never blocks. */
bool smbpool_link_ended(const struct smbpool_link *link);

/* Until when this server may serve, by the page mapped last; 0: no lease is in use, or there was never a page. */
uint64_t smbpool_link_lease_deadline(const struct smbpool_link *link);

/* The server drains, by the page mapped last: clients are to cache no writes. */
bool smbpool_link_draining(const struct smbpool_link *link);

/* Servers of the pool may have delegations of folders, by the page mapped last: who excludes others must ask. */
bool smbpool_link_shares_folders(const struct smbpool_link *link);

/* This server's number in the pool. Only while the link is up. */
uint32_t smbpool_link_node(const struct smbpool_link *link);

/* Publishes one message and rings when the daemon sleeps. SMBPOOL_RING_BAD also marks the link broken. */
enum smbpool_ring_result smbpool_link_send(struct smbpool_link *link, uint32_t op, const void *fixed,
                                           uint32_t fixed_bytes, const void *texts, uint32_t texts_bytes);

/*
 * The same without ringing now: when the daemon sleeps, bell_due is set and smbpool_link_ring is to be called when
 * there is nothing better to do. Keeps the system call, and the daemon's waking up, out of the time a client waits
 * for.
 */
enum smbpool_ring_result smbpool_link_post(struct smbpool_link *link, uint32_t op, const void *fixed,
                                           uint32_t fixed_bytes, const void *texts, uint32_t texts_bytes);

/* Rings if a bell is due and the daemon still sleeps. */
void smbpool_link_ring(struct smbpool_link *link);

/* Hands every waiting reply to the handler; false when the ring is broken. */
bool smbpool_link_drain(struct smbpool_link *link, smbpool_reply_handler handler, void *private_data);

/* Says that we are back in the event loop; true when replies came in between and must be drained first. */
bool smbpool_link_idle(struct smbpool_link *link);

/* Blocks until a reply is there (true), at most timeout_ms; false also when the daemon's socket ended. */
bool smbpool_link_wait(struct smbpool_link *link, uint32_t timeout_ms);

/* The home table says that this key is here. False when the link is down or the daemon is going away. */
bool smbpool_link_is_home(const struct smbpool_link *link, enum smbpool_home_kind kind, const void *key,
                          uint32_t key_bytes);

void smbpool_link_count(struct smbpool_link *link, enum smbpool_client_counter counter);
void smbpool_link_count_by(struct smbpool_link *link, enum smbpool_client_counter counter, uint64_t by);

#endif
