/*
 * The state that the hook files of vfs_smbpool share, and how they send to the daemon: below all of them. One process
 * is one smbd, with its trees, opens and waiting creates. Everything runs in smbd's one thread; nothing here blocks.
 */
#ifndef SMBPOOL_PROCESS_H
#define SMBPOOL_PROCESS_H

#include "includes.h"
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "fd_handle.h"
#include "../libcli/security/security.h"
#include "messages.h"
#include "lib/tsocket/tsocket.h"
#include "lib/util/select.h"
#include "lib/util/tevent_ntstatus.h"
#include "lib/util/tevent_unix.h"

#include "../compat/samba_compat.h"
#include "../client/ring_client.h"
#include "../map/map.h"

#undef DBGC_CLASS
#define DBGC_CLASS smbpool_debug_level
extern int smbpool_debug_level;

/* Read once, in connect. Units in the names. */
struct smbpool_config {
  const char *socket_path;
  uint64_t volume;          /* 0: not configured, ids are smbd's own */
  uint32_t wait_ms;         /* an open goes on by itself after so long */
  uint32_t connect_wait_ms; /* a tree connect goes on after so long without an answer */
  uint32_t notify_wait_ms;  /* a client that watches a folder goes on after so long without an answer */
  uint32_t fence_wait_ms;   /* an open or change waits so long for this server's lease, then it is refused */
  uint32_t delay_ms;        /* fault option: each create waits so long */
  bool defer;
};

/* Byte-range locks remembered per open for a replay; a handle with more is replayed as "partial". */
#define SMBPOOL_LOCKS_MAX 64u

struct smbpool_lock {
  uint64_t start;
  uint64_t size;
  uint32_t type;
};

struct smbpool_tree;
struct smbpool_open;

/* A folder that is open, for notify.c. */
struct smbpool_folder {
  struct smbpool_folder *prev, *next; /* among those that are not watched */
  struct smbpool_open *open;
  uint64_t number; /* 0: not watched */
};

/* One open, hung on the fsp as an extension; it lives as long as smbd's share mode entry may. */
struct smbpool_open {
  struct smbpool_open *prev, *next;
  struct smbpool_tree *tree;
  struct files_struct *fsp;
  bool closed_reported;
  bool disconnecting; /* as a durable handle: its descriptor's close is not its end */
  bool orphan; /* its tree connect is over */
  bool locks_partial;
  uint32_t share_access;
  uint32_t disposition;
  uint32_t create_action;
  uint64_t since_us;
  uint64_t persistent_id; /* kept: smbd forgets it before the last chance to report */
  /* The file and the lease when this handle was granted the lease; for break.c. */
  struct timespec granted_ctime;
  off_t granted_size;
  uint16_t granted_epoch;
  struct smbpool_folder *folder; /* NULL: a file */
  /* As last reported: a difference is a change to report. */
  uint32_t oplock;
  uint32_t lease_state;
  bool breaking;
  uint64_t watch_until_ms;
  unsigned int lock_count;
  struct smbpool_lock *locks;
};

/*
 * One create that waits, or that smbd is running for us; a talloc child of its smb2req. One that cannot be deferred has
 * no smb2req here: the hook itself waits.
 */
struct smbpool_wait {
  struct smbpool_wait *prev, *next;
  struct smbpool_tree *tree;
  struct smbd_smb2_request *smb2req;
  struct smbXsrv_connection *xconn;
  uint64_t mid;
  uint64_t operation;
  uint64_t began_us;
  bool asked;     /* the daemon knows of this operation and must hear its end */
  bool answered;  /* by the daemon, or there is nothing to wait for from it */
  bool delayed;   /* the fault option's time is not over */
  bool keep_mark; /* smbd had deferred this create itself: it must go on seeing that */
  bool resumed;   /* scheduled to run again */
  bool over;      /* cancelled: never resume */
  /* Of a folder that servers share: without a yes of the daemon that holds to its end, this create is refused. */
  bool excludes;
  bool refused;
  struct smbpool_file_id excluded; /* the folder's one id */
  struct smbpool_deferral *deferral;
  struct tevent_timer *deadline_timer;
  struct tevent_timer *delay_timer;
};

/* A folder that smbd opens with the daemon's leave to exclude others, until that open is over; on the stack. */
struct smbpool_exclusion {
  struct smbpool_exclusion *outer;
  struct smbpool_file_id folder;
};

/* A folder that the daemon recalls, until it has its answer. */
struct smbpool_recall {
  struct smbpool_recall *prev, *next;
  struct smbpool_file_id folder; /* the one id */
  uint64_t number;
  bool wanted; /* the daemon that asked is still there */
  bool began;  /* a move failed in the middle: entries may be in both records */
  bool over;   /* all is moved, the answer is due */
  bool told;   /* smbd's log says that it does not succeed */
  uint32_t moved;
};

struct smbpool_tree {
  struct smbpool_tree *prev, *next;
  struct smbpool_process *process;
  struct vfs_handle_struct *handle;
  uint64_t number;
  uint64_t root_device;
  uint64_t root_inode;
  uint64_t effective_volume; /* devid of the root's file id, whoever makes it */
  unsigned int creates_running; /* smbd is inside of so many creates: one of a stream opens its file */
  bool warned_device;
  bool answered; /* the daemon said something about this tree connect */
  bool refused;
  char *refusal;
  struct smbpool_config config;
};

/* One per smbd, counted by tree connects. */
struct smbpool_process {
  unsigned int references;
  struct smbd_server_connection *sconn;
  struct smbpool_link link;
  const char *socket_path;
  struct tevent_fd *socket_event;
  struct tevent_fd *wake_event;
  struct tevent_immediate *bell;
  bool bell_scheduled;
  /* Set by attach.c. The link is broken; a report was lost. Both only arrange for what is done later. */
  void (*on_broken)(struct smbpool_process *process);
  void (*on_report_lost)(struct smbpool_process *process);
  /* Set by attach.c. Blocks: takes what the daemon says next, if it comes in time; false: there is no daemon. */
  bool (*hear)(struct smbpool_process *process, uint32_t left_ms);
  struct tevent_timer *attach_timer;
  struct tevent_timer *resync_timer;
  struct tevent_timer *watch_timer;
  uint32_t watch_interval_ms;
  bool resync_wanted;
  struct smbpool_open *resync_cursor;
  bool resync_running;
  uint64_t next_operation;
  uint64_t next_tree;
  /* For drain.c: the answer that is due to the daemon; 0: none. */
  uint32_t drain_number;
  uint32_t drain_breaks;
  uint64_t running_operation; /* the create smbd is inside of, for openat; 0: none */
  struct smbpool_fence fence;
  /* For folder.c. */
  struct smbpool_exclusion *exclusions;
  struct smbpool_recall *recalls;
  struct tevent_immediate *recall_event;
  bool recall_scheduled;
  struct tevent_timer *recall_timer;
  /* For notify.c: folders that are not watched, and answers of the daemon that are missing. */
  struct smbpool_folder *folders;
  uint64_t next_notify;
  uint64_t notify_first; /* of those that are waited for */
  unsigned int notify_missing;
  struct smbpool_tree *trees;
  struct smbpool_open *opens;
  struct smbpool_wait *waits;
};

bool smbpool_process_up(const struct smbpool_process *process);
/* Sends a report; when it cannot be sent now, a resync is arranged that says the same later. */
bool smbpool_report(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                    const void *texts, uint32_t texts_bytes);
/* Sends something that a resync does not repeat; false: it was not sent. */
bool smbpool_try_send(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                      const void *texts, uint32_t texts_bytes);
/* The same, rung for from the event loop: costs no system call now. */
bool smbpool_post(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                  const void *texts, uint32_t texts_bytes);
uint64_t smbpool_now_us(void);
/* Milliseconds until a time of smbpool_now_us; 0: it is over. */
uint32_t smbpool_left_ms(uint64_t deadline_us);
uint64_t smbpool_now_ns(void);
uint64_t smbpool_realtime_us(void);

#endif
