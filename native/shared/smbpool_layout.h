/*
 * The shared memory between smbd (the VFS module) and smbpoold (the addon): one ring pair per smbd, one page per
 * node. Included by C11 (samba-module) and C++17 (native/core). It holds layout only: numbers, structs, static
 * asserts. How the words are read and written is smbpool_ring.h; what they mean and what happens when a side dies is
 * docs/shared-memory.md. It must never contain a pointer, a bitfield, an enum in a struct, or a size that depends on
 * the compiler.
 */
#ifndef SMBPOOL_LAYOUT_H
#define SMBPOOL_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SMBPOOL_ASSERT(what) static_assert(what, #what)
extern "C" {
#else
#define SMBPOOL_ASSERT(what) _Static_assert(what, #what)
#endif

/*
 * Raised with every change in this file or in smbpool_ops.h that the other side could notice; module and daemon must
 * carry the same. A word of the page taken from a reserved part is no such change: it is 0 for who does not know it.
 */
#define SMBPOOL_LAYOUT_VERSION 4u
#define SMBPOOL_RING_MAGIC 0x524c4f50u /* "POLR" */
#define SMBPOOL_PAGE_MAGIC 0x474c4f50u /* "POLG" */

/* Two cache lines: the prefetcher of today's CPUs fetches them in pairs. */
#define SMBPOOL_LINE_BYTES 128u

/* Slots each way. A power of two: indices run freely and are masked. 64 x 256 B = 16 KiB each way, 36 KiB a client. */
#define SMBPOOL_SLOTS 64u
#define SMBPOOL_SLOT_BYTES 256u
#define SMBPOOL_SLOT_HEADER_BYTES 16u
/* A message longer than one slot goes on in the next ones; a third of the ring at most, so that one never fills it. */
#define SMBPOOL_MESSAGE_SLOTS_MAX 20u
#define SMBPOOL_MESSAGE_BYTES_MAX (SMBPOOL_MESSAGE_SLOTS_MAX * SMBPOOL_SLOT_BYTES - SMBPOOL_SLOT_HEADER_BYTES)

/* First 16 bytes of the first slot of a message. `sequence` counts the sender's messages from 1, modulo 2^32. */
struct smbpool_slot_header {
  uint32_t length_bytes; /* payload only */
  uint32_t op;           /* enum smbpool_op */
  uint32_t generation;   /* of the daemon: the one this mapping was made by */
  uint32_t sequence;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_slot_header) == SMBPOOL_SLOT_HEADER_BYTES);

/* What an smbd does at this moment, for the daemon: how it wants to be woken after a reply was published. */
#define SMBPOOL_CLIENT_RUNNING 0u   /* it will look by itself before it sleeps */
#define SMBPOOL_CLIENT_IN_FUTEX 1u  /* wake by FUTEX_WAKE on reply_head */
#define SMBPOOL_CLIENT_IN_LOOP 2u   /* idle in its event loop: write its eventfd */

/* Counters that the client keeps for the daemon and the CLI. Advice only: the client may write anything. */
#define SMBPOOL_CLIENT_COUNTERS 16u
enum smbpool_client_counter {
  SMBPOOL_CLIENT_OPENS_HOME = 0,     /* opens that found their records home */
  SMBPOOL_CLIENT_OPENS_WAITED = 1,   /* opens that were deferred */
  SMBPOOL_CLIENT_WAITS_READY = 2,    /* waits ended by the daemon's answer */
  SMBPOOL_CLIENT_WAITS_EXPIRED = 3,  /* waits ended by the module's own deadline */
  SMBPOOL_CLIENT_WAITS_CANCELLED = 4,
  SMBPOOL_CLIENT_OPENS_SLOW = 5,     /* not home and could not wait: ring full, internal open */
  SMBPOOL_CLIENT_REPORTS_LOST = 6,   /* reports not written because the ring was full: a resync follows */
  SMBPOOL_CLIENT_RESYNCS = 7,
  SMBPOOL_CLIENT_DOORBELLS = 8,
  SMBPOOL_CLIENT_REPLIES_REFUSED = 9, /* replies this client could not understand */
  SMBPOOL_CLIENT_HOME_NS = 10,        /* nanoseconds the module itself spent in the opens of OPENS_HOME */
  SMBPOOL_CLIENT_OPENS_CHANGED = 11,  /* opens whose file changed while they waited for its share modes */
  SMBPOOL_CLIENT_BREAKS_REPEATED = 12, /* leases broken once more, because a handle of theirs closed meanwhile */
  SMBPOOL_CLIENT_NOTIFIES_LATE = 13, /* watched folders of which another server may have heard too late */
  SMBPOOL_CLIENT_FENCE_WAITS = 14,   /* requests that waited because this server's lease was over */
  SMBPOOL_CLIENT_FENCE_REFUSED = 15, /* requests refused for that */
};

/*
 * One per smbd, in a memfd made, sized and sealed by smbpoold. The daemon remembers every size itself and never reads
 * back what it wrote here for itself.
 */
struct smbpool_ring {
  /* Line 0: written once by the daemon before it passes the memfd. */
  uint32_t magic;
  uint32_t layout_version;
  uint32_t total_bytes;
  uint32_t slots;
  uint32_t slot_bytes;
  uint32_t generation;
  uint32_t client; /* number of the attachment, and of its bit in the ready map */
  uint32_t reserved0[25];
  /* Line 1: client writes. Free-running count of slots published to the daemon. */
  uint32_t request_head;
  uint32_t reserved1[31];
  /* Line 2: daemon writes. Slots it has copied out. */
  uint32_t request_tail;
  uint32_t reserved2[31];
  /* Line 3: daemon writes; the futex word of a waiting client. */
  uint32_t reply_head;
  uint32_t reserved3[31];
  /* Line 4: client writes. */
  uint32_t reply_tail;
  uint32_t reserved4[31];
  /* Line 5: client writes: SMBPOOL_CLIENT_RUNNING, _IN_FUTEX or _IN_LOOP. */
  uint32_t client_state;
  uint32_t reserved5[31];
  /* Line 6: client writes. */
  uint64_t counters[SMBPOOL_CLIENT_COUNTERS];
  uint8_t reserved6[4096 - 7 * 128];
  uint8_t request_slots[SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES];
  uint8_t reply_slots[SMBPOOL_SLOTS * SMBPOOL_SLOT_BYTES];
};
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, request_head) == 128);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, request_tail) == 256);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, reply_head) == 384);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, reply_tail) == 512);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, client_state) == 640);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, counters) == 768);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, request_slots) == 4096);
SMBPOOL_ASSERT(offsetof(struct smbpool_ring, reply_slots) == 4096 + 16384);
SMBPOOL_ASSERT(sizeof(struct smbpool_ring) == 36864);

/*
 * The ready map: a second memfd of the node, writable by every client. A bit says "look at this client's ring". It is a
 * hint: a client that clears another's bit delays it until the daemon's next full scan, nothing else.
 */
#define SMBPOOL_CLIENTS_MAX 4096u
struct smbpool_ready_map {
  uint64_t bits[SMBPOOL_CLIENTS_MAX / 64u];
  uint8_t reserved[4096 - SMBPOOL_CLIENTS_MAX / 8u];
};
SMBPOOL_ASSERT(sizeof(struct smbpool_ready_map) == 4096);

/* Daemon counters in the node page, in the order of the name table in docs/shared-memory.md. */
#define SMBPOOL_NODE_COUNTERS 256u
enum smbpool_node_counter {
  SMBPOOL_NODE_ATTACHED = 0,        /* attachments ever made */
  SMBPOOL_NODE_DETACHED = 1,
  SMBPOOL_NODE_BAD_RINGS = 2,       /* attachments ended because of what the client wrote */
  SMBPOOL_NODE_REFUSED = 3,         /* hellos refused: version, user, limit */
  SMBPOOL_NODE_MESSAGES = 4,        /* messages drained from all rings */
  SMBPOOL_NODE_REPLIES = 5,
  SMBPOOL_NODE_REPLIES_FULL = 6,    /* replies that found the ring full */
  SMBPOOL_NODE_WAKES_FUTEX = 7,
  SMBPOOL_NODE_WAKES_EVENTFD = 8,
  SMBPOOL_NODE_SCANS = 9,           /* full scans of all rings */
  SMBPOOL_NODE_SCAN_FOUND = 10,     /* messages found only by a scan */
  SMBPOOL_NODE_LATE_GENERATION = 11, /* messages that carried another generation and were dropped */
  SMBPOOL_NODE_HOME_ADDED = 12,
  SMBPOOL_NODE_HOME_EVICTED = 13,
  SMBPOOL_NODE_HOME_REMOVED = 14,
  /* Sums over all clients, as they count: twice a second, and when one ends. */
  SMBPOOL_NODE_FENCE_WAITS = 15,
  SMBPOOL_NODE_FENCE_REFUSED = 16,
  /* 17..63 for the ring server; 64..255 belong to the daemon's core and are named by it. */
  SMBPOOL_NODE_FREE = 64,
};

/* Histogram h, bucket b counts times of [2^b, 2^(b+1)) microseconds; bucket 0 also holds 0. */
#define SMBPOOL_HISTOGRAMS 16u
#define SMBPOOL_HISTOGRAM_BUCKETS 32u
enum smbpool_histogram {
  SMBPOOL_HISTOGRAM_OPEN_WAIT = 0, /* OPEN_BEGIN drained to OPEN_READY published */
  SMBPOOL_HISTOGRAM_PIN = 1,       /* OPEN_READY to OPEN_END */
  SMBPOOL_HISTOGRAM_MOVE = 2, /* a record asked for to here, coming from another owner */
  SMBPOOL_HISTOGRAM_TURN = 3, /* one batch of the daemon's loop */
};

/* Errors that differ only in time share one entry. Written under a sequence word: odd while it is being written. */
#define SMBPOOL_ERRORS 64u
#define SMBPOOL_ERROR_TEXT_BYTES 216u
struct smbpool_error {
  uint32_t sequence;
  uint32_t code;
  uint64_t count;
  uint64_t first_us; /* CLOCK_REALTIME */
  uint64_t last_us;
  char text[SMBPOOL_ERROR_TEXT_BYTES + 8];
};
SMBPOOL_ASSERT(sizeof(struct smbpool_error) == 256);

/*
 * Which keys are home: buckets of eight 64-bit fingerprints (one cache line), 0 = free. Only the daemon writes. A full
 * bucket forgets one entry: a forgotten or late key costs a detour, never correctness.
 */
#define SMBPOOL_HOME_WAYS 8u
#define SMBPOOL_HOME_BUCKETS 8192u
#define SMBPOOL_HOME_ENTRIES (SMBPOOL_HOME_WAYS * SMBPOOL_HOME_BUCKETS)

/* Node page flags. */
#define SMBPOOL_NODE_SERVING 1u /* the daemon takes part in its pool */
#define SMBPOOL_NODE_DRAINING 2u /* clients are to be sent away: smbds let them cache no writes */
#define SMBPOOL_NODE_SHARES_FOLDERS 4u /* the pool's servers may have delegations of folders: who excludes must ask */

/* One per node. The daemon has it writable; smbd and the CLI get a descriptor that can only be mapped for reading. */
struct smbpool_node_page {
  uint32_t magic;
  uint32_t layout_version;
  uint32_t total_bytes;
  uint32_t generation; /* of the daemon; 0 while it is going away */
  uint32_t node;
  uint32_t flags;
  uint64_t started_us; /* CLOCK_REALTIME */
  uint32_t daemon_pid;
  uint32_t reserved0[23];
  /* Line 1: 1 = the daemon sleeps or is about to: ring the bell. Only the daemon writes it. */
  uint32_t daemon_sleeps;
  uint32_t reserved1[31];
  /* Line 2: CLOCK_MONOTONIC microseconds until which this node may serve; 0 = no lease is used. Smbds compare it. */
  uint64_t lease_deadline_us;
  uint64_t reserved2[15];
  /* Line 3: CLOCK_MONOTONIC microseconds; the daemon's loop writes it twice a second. 0 = it never did. */
  uint64_t heartbeat_us;
  uint64_t reserved3[15];
  uint8_t reserved4[4096 - 4 * 128];
  uint64_t counters[SMBPOOL_NODE_COUNTERS];                             /* 4096 */
  uint8_t reserved5[2048];
  uint64_t histograms[SMBPOOL_HISTOGRAMS][SMBPOOL_HISTOGRAM_BUCKETS];   /* 8192 */
  uint64_t longest_us[SMBPOOL_HISTOGRAMS];                              /* 12288 */
  uint8_t reserved6[4096 - 8 * SMBPOOL_HISTOGRAMS];
  struct smbpool_error errors[SMBPOOL_ERRORS];                          /* 16384 */
  uint8_t reserved7[32768];
  uint64_t home[SMBPOOL_HOME_ENTRIES];                                  /* 65536 */
};
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, started_us) == 24);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, daemon_sleeps) == 128);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, lease_deadline_us) == 256);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, heartbeat_us) == 384);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, counters) == 4096);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, histograms) == 8192);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, longest_us) == 12288);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, errors) == 16384);
SMBPOOL_ASSERT(offsetof(struct smbpool_node_page, home) == 65536);
SMBPOOL_ASSERT(sizeof(struct smbpool_node_page) == 65536 + 524288);

/*
 * The two messages of the attachment socket (SOCK_SEQPACKET). The client sends its hello; the daemon answers with a
 * welcome and, when result is 0, the descriptors in the order of enum smbpool_fd. The socket then stays open and
 * silent: its end is how each side learns of the other's death.
 */
#define SMBPOOL_HELLO_MAGIC 0x4f4c4c48u /* "HLLO" */
struct smbpool_hello {
  uint32_t magic;
  uint32_t layout_version;
  char module_version[56]; /* text, for logs */
};
SMBPOOL_ASSERT(sizeof(struct smbpool_hello) == 64);

enum smbpool_fd {
  SMBPOOL_FD_RING = 0,     /* memfd: struct smbpool_ring */
  SMBPOOL_FD_PAGE = 1,     /* struct smbpool_node_page, read-only */
  SMBPOOL_FD_READY = 2,    /* memfd: struct smbpool_ready_map */
  SMBPOOL_FD_BELL = 3,     /* eventfd that wakes the daemon */
  SMBPOOL_FD_WAKE = 4,     /* eventfd that wakes this client */
  SMBPOOL_FDS = 5,
};

/* Why the daemon refused a hello. */
enum smbpool_refusal {
  SMBPOOL_WELCOME_OK = 0,
  SMBPOOL_REFUSED_VERSION = 1,
  SMBPOOL_REFUSED_USER = 2,
  SMBPOOL_REFUSED_FULL = 3,
  SMBPOOL_REFUSED_INTERNAL = 4,
};

struct smbpool_welcome {
  uint32_t magic; /* SMBPOOL_HELLO_MAGIC */
  uint32_t layout_version;
  uint32_t result; /* enum smbpool_refusal */
  uint32_t client;
  uint32_t generation;
  uint32_t node;
  uint32_t reserved[2];
};
SMBPOOL_ASSERT(sizeof(struct smbpool_welcome) == 32);

#ifdef __cplusplus
}
#endif

#endif
