/*
 * What the hook files of vfs_smbpool share: the per-tree and per-process state, and the functions they call in each
 * other. Everything runs in smbd's one thread. Rules for every hook: never block on the daemon (connect_fn excepted),
 * never touch a tdb record (but by smbd's own functions for share modes: open.c, write.c), be right with no daemon at
 * all.
 */
#ifndef SMBPOOL_MODULE_H
#define SMBPOOL_MODULE_H

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
  /* As last reported: a difference is a change to report. */
  uint32_t oplock;
  uint32_t lease_state;
  bool breaking;
  uint64_t watch_until_ms;
  unsigned int lock_count;
  struct smbpool_lock *locks;
};

/* One create that waits, or that smbd is running for us; a talloc child of its smb2req. */
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
  struct smbpool_deferral *deferral;
  struct tevent_timer *deadline_timer;
  struct tevent_timer *delay_timer;
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
  struct tevent_timer *attach_timer;
  struct tevent_timer *resync_timer;
  struct tevent_timer *watch_timer;
  uint32_t watch_interval_ms;
  bool resync_wanted;
  struct smbpool_open *resync_cursor;
  bool resync_running;
  uint64_t next_operation;
  uint64_t next_tree;
  uint64_t running_operation; /* the create smbd is inside of, for openat; 0: none */
  struct smbpool_tree *trees;
  struct smbpool_open *opens;
  struct smbpool_wait *waits;
};

/* attach.c */
struct smbpool_process *smbpool_process_get(struct smbpool_tree *tree, struct smbd_server_connection *sconn);
void smbpool_process_put(struct smbpool_process *process);
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
/* For connect_fn: blocks until this tree is answered, the deadline passed or the daemon is gone. */
void smbpool_wait_for_tree(struct smbpool_process *process, struct smbpool_tree *tree);
uint64_t smbpool_now_us(void);
uint64_t smbpool_now_ns(void);
uint64_t smbpool_realtime_us(void);

/* connect.c */
int smbpool_connect(struct vfs_handle_struct *handle, const char *service, const char *user);
void smbpool_disconnect(struct vfs_handle_struct *handle);
bool smbpool_send_tree(struct smbpool_tree *tree, uint32_t flags);

/* fileid.c */
struct smbpool_file_id smbpool_id_of(const struct file_id *id);
struct file_id smbpool_file_id_create(struct vfs_handle_struct *handle, const SMB_STRUCT_STAT *sbuf);
int smbpool_stat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname);
int smbpool_lstat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname);
int smbpool_fstat(struct vfs_handle_struct *handle, struct files_struct *fsp, SMB_STRUCT_STAT *sbuf);
int smbpool_fstatat(struct vfs_handle_struct *handle, const struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, SMB_STRUCT_STAT *sbuf, int flags);

/* open.c */
NTSTATUS smbpool_create_file(struct vfs_handle_struct *handle, struct smb_request *req, struct files_struct *dirfsp,
                             struct smb_filename *smb_fname, uint32_t access_mask, uint32_t share_access,
                             uint32_t create_disposition, uint32_t create_options, uint32_t file_attributes,
                             uint32_t oplock_request, const struct smb2_lease *lease, uint64_t allocation_size,
                             uint32_t private_flags, struct security_descriptor *sd, struct ea_list *ea_list,
                             files_struct **result, int *pinfo, const struct smb2_create_blobs *in_context_blobs,
                             struct smb2_create_blobs *out_context_blobs);
int smbpool_openat(struct vfs_handle_struct *handle, const struct files_struct *dirfsp,
                   const struct smb_filename *smb_fname, struct files_struct *fsp, const struct vfs_open_how *how);

/* write.c */
ssize_t smbpool_pwrite(struct vfs_handle_struct *handle, struct files_struct *fsp, const void *data, size_t bytes,
                       off_t offset);
struct tevent_req *smbpool_pwrite_send(struct vfs_handle_struct *handle, TALLOC_CTX *context,
                                       struct tevent_context *ev, struct files_struct *fsp, const void *data,
                                       size_t bytes, off_t offset);
ssize_t smbpool_pwrite_recv(struct tevent_req *req, struct vfs_aio_state *aio);
ssize_t smbpool_recvfile(struct vfs_handle_struct *handle, int from, struct files_struct *fsp, off_t offset,
                         size_t bytes);
int smbpool_ftruncate(struct vfs_handle_struct *handle, struct files_struct *fsp, off_t size);
int smbpool_fallocate(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t mode, off_t offset,
                      off_t bytes);
struct tevent_req *smbpool_offload_write_send(struct vfs_handle_struct *handle, TALLOC_CTX *context,
                                              struct tevent_context *ev, uint32_t fsctl, DATA_BLOB *token,
                                              off_t from, struct files_struct *fsp, off_t to, off_t bytes);
NTSTATUS smbpool_offload_write_recv(struct vfs_handle_struct *handle, struct tevent_req *req, off_t *copied);

/* wait.c: deferring a create and running it again */
struct smbpool_wait *smbpool_wait_find(struct smbpool_process *process, const struct smbd_smb2_request *smb2req);
struct smbpool_wait *smbpool_wait_new(struct smbpool_tree *tree, struct smb_request *req);
bool smbpool_wait_defer(struct smbpool_wait *wait, struct smb_request *req, struct file_id id);
/* Before NEXT: takes our mark off the request. After NEXT: takes it off if smbd did not. */
void smbpool_wait_leave(struct smbpool_wait *wait, struct smb_request *req);
void smbpool_wait_finish(struct smbpool_wait *wait, struct smb_request *req);
void smbpool_wait_answered(struct smbpool_process *process, uint64_t operation);
/* The tree connect ends: runs the create again, if it still waits, and forgets it. */
void smbpool_wait_abandon(struct smbpool_wait *wait);
/* The daemon is gone: everything that waits for it goes on. */
void smbpool_wait_release_all(struct smbpool_process *process);

/* report.c: opens as the daemon hears of them */
struct smbpool_open *smbpool_open_add(struct smbpool_tree *tree, struct files_struct *fsp);
struct smbpool_open *smbpool_open_of(struct vfs_handle_struct *handle, struct files_struct *fsp);
bool smbpool_send_open(struct smbpool_open *open, uint32_t op, uint64_t operation, uint32_t flags, uint32_t took_us);
bool smbpool_replay_open(struct smbpool_open *open);
void smbpool_open_refresh(struct smbpool_open *open);
/* Once per open; what comes later is ignored. */
void smbpool_report_closed(struct smbpool_open *open, uint32_t flags);
int smbpool_close(struct vfs_handle_struct *handle, struct files_struct *fsp);

/* lock.c */
NTSTATUS smbpool_brl_lock(struct vfs_handle_struct *handle, struct byte_range_lock *br_lck, struct lock_struct *plock);
bool smbpool_brl_unlock(struct vfs_handle_struct *handle, struct byte_range_lock *br_lck,
                        const struct lock_struct *plock);
bool smbpool_strict_lock_check(struct vfs_handle_struct *handle, struct files_struct *fsp, struct lock_struct *plock);

/* lease.c: oplock and lease changes, which smbd makes without any hook */
void smbpool_watch_file(struct smbpool_process *process, const struct smbpool_file_id *id, uint32_t watch_ms);

/* break.c: breaks of a lease that are lost with a handle */
void smbpool_break_note(struct smbpool_open *open, const SMB_STRUCT_STAT *now);
void smbpool_break_again(struct smbpool_open *open);

/* durable.c */
NTSTATUS smbpool_durable_disconnect(struct vfs_handle_struct *handle, struct files_struct *fsp,
                                    const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx, DATA_BLOB *new_cookie);
NTSTATUS smbpool_durable_reconnect(struct vfs_handle_struct *handle, struct smb_request *smb1req,
                                   struct smbXsrv_open *op, const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx,
                                   struct files_struct **fsp, DATA_BLOB *new_cookie);

#endif
