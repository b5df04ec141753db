/*
 * The messages in the rings: what smbd's module tells and asks smbpoold, and the answers. Included by module, addon and
 * (as offsets) mirrored by the TypeScript codec. Little endian, naturally aligned, fixed part first; texts follow the
 * fixed part one after another, UTF-8, without NUL, their lengths are in the fixed part. Rules and order of messages:
 * docs/shared-memory.md. Must never contain pointers or anything whose size depends on the compiler.
 */
#ifndef SMBPOOL_OPS_H
#define SMBPOOL_OPS_H

#include "smbpool_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

enum smbpool_op {
  /* smbd to smbpoold */
  SMBPOOL_OP_HELLO = 1,           /* struct smbpool_msg_hello: first message of every attachment */
  SMBPOOL_OP_TREE_CONNECT = 2,    /* struct smbpool_msg_tree; answered by TREE_READY */
  SMBPOOL_OP_TREE_DISCONNECT = 3, /* struct smbpool_msg_tree, no texts */
  SMBPOOL_OP_OPEN_BEGIN = 4,      /* struct smbpool_msg_open_begin; answered by OPEN_READY if it says so */
  SMBPOOL_OP_OPEN_CANCEL = 5,     /* struct smbpool_msg_open_cancel */
  SMBPOOL_OP_OPEN_END = 6,        /* struct smbpool_msg_open */
  SMBPOOL_OP_CLOSE = 7,           /* struct smbpool_msg_close */
  SMBPOOL_OP_LOCK = 8,            /* struct smbpool_msg_lock */
  SMBPOOL_OP_UNLOCK = 9,          /* struct smbpool_msg_lock */
  SMBPOOL_OP_LEASE_CHANGE = 10,   /* struct smbpool_msg_lease_change */
  SMBPOOL_OP_CLAIM = 11,          /* struct smbpool_msg_claim: this inode is new, it is ours */
  SMBPOOL_OP_RESYNC_BEGIN = 12,   /* struct smbpool_msg_resync: forget the opens, the whole list follows */
  SMBPOOL_OP_REPLAY_OPEN = 13,    /* struct smbpool_msg_open */
  SMBPOOL_OP_REPLAY_LOCK = 14,    /* struct smbpool_msg_lock */
  SMBPOOL_OP_RESYNC_END = 15,
  SMBPOOL_OP_NOTIFY_BEGIN = 16, /* struct smbpool_msg_notify; answered by NOTIFY_READY if it says so */
  SMBPOOL_OP_NOTIFY_END = 17,   /* struct smbpool_msg_notify_end */
  SMBPOOL_OP_BREAKS_SENT = 18,  /* struct smbpool_msg_breaks_sent: answers BREAK_ALL, behind all reports before it */
  SMBPOOL_OP_RECALLED = 19,     /* struct smbpool_msg_recalled: answers RECALL */
  /* smbpoold to smbd */
  SMBPOOL_OP_OPEN_READY = 33, /* struct smbpool_msg_open_ready */
  SMBPOOL_OP_TREE_READY = 34, /* struct smbpool_msg_tree_ready */
  SMBPOOL_OP_WATCH_FILE = 35, /* struct smbpool_msg_watch: report oplock and lease changes of this file */
  SMBPOOL_OP_RESYNC = 36,     /* no payload: send RESYNC_BEGIN and all opens */
  SMBPOOL_OP_NOTIFY_READY = 37, /* struct smbpool_msg_notify_ready */
  SMBPOOL_OP_BREAK_ALL = 38, /* struct smbpool_msg_break_all; answered by BREAKS_SENT */
  SMBPOOL_OP_RECALL = 39,    /* struct smbpool_msg_recall; answered by RECALLED */
};

/* struct file_id of smbd, and the key of locking.tdb and brlock.tdb. */
struct smbpool_file_id {
  uint64_t volume;   /* devid: the configured volume id */
  uint64_t inode;
  uint64_t snapshot; /* extid: 0 = the live file system */
};
SMBPOOL_ASSERT(sizeof(struct smbpool_file_id) == 24);

/*
 * A server's slice of a folder: the folder's id with this and the server's number in place of snapshot 0. Its record in
 * locking.tdb holds opens that exclude nobody; see docs/decisions/shared-folders.md.
 */
#define SMBPOOL_SLICE_SNAPSHOT 0x736c696300000000ull

/* struct server_id of smbd. */
struct smbpool_server_id {
  uint64_t pid;
  uint32_t task;
  uint32_t vnn;
  uint64_t unique;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_server_id) == 24);

/* Texts: client address ("10.0.0.7:49152"), client name. */
struct smbpool_msg_hello {
  struct smbpool_server_id server;
  uint8_t client_guid[16];
  uint32_t dialect; /* 0x0311 */
  uint16_t address_bytes;
  uint16_t name_bytes;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_hello) == 48);

/* Texts: share name, user ("DOMAIN\\name"), path of the share's root on this server. */
struct smbpool_msg_tree {
  uint64_t tree; /* number of this tree connect, unique in the attachment */
  uint64_t volume;      /* of the root's file id, as this smbd makes it */
  uint64_t root_inode;  /* with it the probe: must be the same on all servers */
  uint64_t root_device; /* st_dev as this server sees it; differs between servers */
  uint32_t flags;       /* SMBPOOL_TREE_* */
  uint16_t share_bytes;
  uint16_t user_bytes;
  uint16_t path_bytes;
  uint16_t reserved0;
  uint32_t reserved1;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_tree) == 48);
#define SMBPOOL_TREE_WANTS_REPLY 1u
#define SMBPOOL_TREE_REPLAY 2u /* answered before, perhaps by an earlier daemon: the answer changes nothing */

#define SMBPOOL_OPEN_WANTS_REPLY 1u /* the create waits: answer OPEN_READY when everything is home and pinned */
#define SMBPOOL_OPEN_HOME 2u        /* the module found the records home: pin them if you can, no answer */
#define SMBPOOL_OPEN_NEW 4u         /* the name does not exist yet: no file id */
#define SMBPOOL_OPEN_RETRY 8u       /* smbd runs this create again after its own wait (oplock break) */
#define SMBPOOL_OPEN_HAS_LEASE 16u
#define SMBPOOL_OPEN_HAS_BASE 32u   /* a named stream: base_id is valid */
#define SMBPOOL_OPEN_DEFERRED 64u   /* in OPEN_END: smbd itself waits now (for a break); not over */
#define SMBPOOL_OPEN_DIRECTORY 128u
#define SMBPOOL_OPEN_DURABLE 256u   /* in REPLAY_OPEN and OPEN_END of a reconnect: durable handle */
#define SMBPOOL_OPEN_RECONNECT 512u
#define SMBPOOL_OPEN_LOCKS_PARTIAL 1024u /* in REPLAY_OPEN: more locks than the module remembers */
#define SMBPOOL_OPEN_EXCLUDES 2048u /* in OPEN_BEGIN: of a folder that exists, may conflict with other opens of it */

/* Texts: path relative to the share, with the stream name. */
struct smbpool_msg_open_begin {
  uint64_t operation; /* number of the open, unique in the attachment; OPEN_READY and OPEN_END carry it */
  uint64_t tree;
  struct smbpool_file_id file;
  struct smbpool_file_id base;
  uint8_t lease_key[16];
  uint32_t flags; /* SMBPOOL_OPEN_* */
  uint32_t deadline_ms; /* the module goes on by itself after this */
  uint32_t access_mask; /* as asked */
  uint32_t share_access;
  uint32_t disposition;
  uint32_t create_options;
  uint32_t oplock; /* as asked, smbd's numbers: 1 exclusive, 3 batch, 4 level 2, 0x100 lease */
  uint32_t lease_state;
  uint16_t path_bytes;
  uint16_t reserved0;
  uint32_t reserved1;
};
SMBPOOL_ASSERT(offsetof(struct smbpool_msg_open_begin, flags) == 80);
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_open_begin) == 120);

struct smbpool_msg_open_cancel {
  uint64_t operation;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_open_cancel) == 8);

/* Reports were lost: every operation below this number is over. */
struct smbpool_msg_resync {
  uint64_t operations_from;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_resync) == 8);

/* Outcome of a create (OPEN_END), or an open that exists (REPLAY_OPEN). Texts: path. */
struct smbpool_msg_open {
  uint64_t operation; /* 0 in REPLAY_OPEN */
  uint64_t tree;
  struct smbpool_file_id file;
  uint64_t share_file_id; /* with the server id of HELLO it names the open in locking.tdb */
  uint64_t persistent_id; /* key of smbXsrv_open_global.tdb, and smblctx of its byte-range locks */
  uint64_t since_us;      /* CLOCK_REALTIME: when it was opened */
  uint8_t lease_key[16];
  uint32_t flags;
  uint32_t status; /* NTSTATUS */
  uint32_t access_mask; /* as granted */
  uint32_t share_access;
  uint32_t disposition;
  uint32_t create_action; /* 1 opened, 2 created, 3 overwritten */
  uint32_t oplock;      /* as granted */
  uint32_t lease_state;
  uint16_t path_bytes;
  uint16_t reserved0;
  uint32_t took_us; /* from OPEN_BEGIN, the wait included */
};
SMBPOOL_ASSERT(offsetof(struct smbpool_msg_open, flags) == 80);
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_open) == 120);

#define SMBPOOL_CLOSE_DISCONNECTED 1u /* a durable handle goes on without a connection */
#define SMBPOOL_CLOSE_DELETED 2u /* opened to be deleted, or marked so by this handle */
struct smbpool_msg_close {
  struct smbpool_file_id file;
  uint64_t share_file_id;
  uint64_t persistent_id;
  uint64_t tree;
  uint32_t flags; /* SMBPOOL_CLOSE_* */
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_close) == 56);

#define SMBPOOL_LOCK_READ 0u
#define SMBPOOL_LOCK_WRITE 1u
#define SMBPOOL_LOCK_UNLOCK 2u
struct smbpool_msg_lock {
  struct smbpool_file_id file;
  uint64_t share_file_id;
  uint64_t persistent_id;
  uint64_t start;
  uint64_t size;
  uint64_t blocker; /* persistent id of the open in the way, when status is not OK and smbd knows it */
  uint64_t tree;
  uint32_t type; /* SMBPOOL_LOCK_* */
  uint32_t status;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_lock) == 80);

#define SMBPOOL_LEASE_BREAK_SENT 1u /* smbd told its client to give the oplock or lease up */
#define SMBPOOL_LEASE_CHANGED 2u    /* new state in force: acknowledged, timed out, upgraded */
struct smbpool_msg_lease_change {
  struct smbpool_file_id file;
  uint64_t share_file_id;
  uint64_t persistent_id;
  uint64_t tree;
  uint8_t lease_key[16];
  uint32_t kind; /* SMBPOOL_LEASE_* */
  uint32_t oplock_before;
  uint32_t oplock_after;
  uint32_t lease_before;
  uint32_t lease_after;
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_lease_change) == 88);

struct smbpool_msg_claim {
  uint64_t tree;
  uint64_t operation; /* of the create that made it, 0 if not known */
  struct smbpool_file_id file;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_claim) == 40);

/* Result of a wait. */
#define SMBPOOL_READY_HOME 0u    /* all records home and pinned for pin_us */
#define SMBPOOL_READY_GAVE_UP 1u /* not all: go on the slow way */
#define SMBPOOL_READY_REFUSED 2u /* of one that excludes: some smbd does not answer a recall; a sharing violation */
struct smbpool_msg_open_ready {
  uint64_t operation;
  uint32_t result; /* SMBPOOL_READY_* */
  uint32_t pin_us;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_open_ready) == 16);

#define SMBPOOL_TREE_OK 0u
#define SMBPOOL_TREE_REFUSED 1u /* the servers disagree about the probe: connecting would corrupt data */
struct smbpool_msg_tree_ready {
  uint64_t tree;
  uint32_t result; /* SMBPOOL_TREE_* */
  uint16_t text_bytes;
  uint16_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_tree_ready) == 16);

struct smbpool_msg_watch {
  struct smbpool_file_id file;
  uint32_t watch_ms;
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_watch) == 32);

#define SMBPOOL_NOTIFY_WANTS_REPLY 1u /* smbd waits: answer when the watch counts on all servers */
/* smbd watches a folder for its client. Text: the folder's path on the server, as smbd's notifyd knows it. */
struct smbpool_msg_notify {
  uint64_t number; /* unique in the attachment */
  uint64_t handle; /* smbd's own name for it towards notifyd */
  uint64_t since_seconds; /* CLOCK_MONOTONIC */
  uint64_t since_nanoseconds;
  uint32_t filter; /* FILE_NOTIFY_CHANGE_* */
  uint32_t subdir_filter; /* the same for all folders below; 0: not recursive */
  uint32_t flags; /* SMBPOOL_NOTIFY_* */
  uint16_t path_bytes;
  uint16_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_notify) == 48);

struct smbpool_msg_notify_end {
  uint64_t number;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_notify_end) == 8);

#define SMBPOOL_NOTIFY_EVERYWHERE 0u
#define SMBPOOL_NOTIFY_LATE 1u /* some server does not know yet: changes made there now may not be told */
struct smbpool_msg_notify_ready {
  uint64_t number;
  uint32_t result; /* SMBPOOL_NOTIFY_* */
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_notify_ready) == 16);

/*
 * The server is drained: break what lets clients cache writes, and report what becomes of them. The page's flag
 * SMBPOOL_NODE_DRAINING was set before, so that nothing is granted behind it.
 */
struct smbpool_msg_break_all {
  uint32_t number; /* another one for each time */
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_break_all) == 8);

struct smbpool_msg_breaks_sent {
  uint32_t number; /* of BREAK_ALL */
  uint32_t breaks; /* asked of smbd: one for each lease, and for each oplock */
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_breaks_sent) == 8);

/* The folder is not delegated any more: all of it that is in the slice goes to the one record. */
struct smbpool_msg_recall {
  struct smbpool_file_id file; /* the one id */
  uint64_t number; /* another one for each time */
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_recall) == 32);

struct smbpool_msg_recalled {
  uint64_t number; /* of RECALL */
  uint32_t moved; /* share mode entries */
  uint32_t reserved0;
};
SMBPOOL_ASSERT(sizeof(struct smbpool_msg_recalled) == 16);

/* Kinds of keys in the home table; first byte of what is hashed. */
enum smbpool_home_kind {
  SMBPOOL_HOME_FILE = 1,  /* 24 bytes of file id: locking, brlock and the leases of all holders are home */
  SMBPOOL_HOME_LEASE = 2, /* client GUID 16 + lease key 16 */
  SMBPOOL_HOME_FOLDER = 3, /* 24 bytes of a folder's one id: this server has a delegation, opens go to its slice */
};

#ifdef __cplusplus
}
#endif

#endif
