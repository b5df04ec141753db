/*
 * What the hook files of vfs_smbpool call in each other. They lie upon each other: process (state, sending); notify;
 * folder; report, wait, lease, break, drain, fence; attach; connect, open and the other hooks. Rules for every hook:
 * never block on the daemon (but in connect.c, notify.c, fence.c and wait.c, for a bounded time), never touch a tdb
 * record (but by smbd's own functions for share modes: open.c, write.c, folder.c), be right with no daemon at all.
 */
#ifndef SMBPOOL_MODULE_H
#define SMBPOOL_MODULE_H

#include "process.h"

/* attach.c */
struct smbpool_process *smbpool_process_get(struct smbpool_tree *tree, struct smbd_server_connection *sconn);
void smbpool_process_put(struct smbpool_process *process);
/* For connect_fn: blocks until this tree is answered, the deadline passed or the daemon is gone. */
void smbpool_wait_for_tree(struct smbpool_process *process, struct smbpool_tree *tree);

/* connect.c */
int smbpool_connect(struct vfs_handle_struct *handle, const char *service, const char *user);
void smbpool_disconnect(struct vfs_handle_struct *handle);

/* fence.c */
/* What a client gets: it sees a broken connection, tries again or goes to another server, and believes no success. */
#define SMBPOOL_STATUS_FENCED NT_STATUS_CONNECTION_DISCONNECTED
#define SMBPOOL_ERRNO_FENCED EPIPE /* smbd makes that status of it */
/*
 * Before and, where time passes in between, after whatever opens or changes something: true while this server has its
 * lease; waits for it to come back. False: errno is set, the request is to be refused.
 */
bool smbpool_fence_pass(struct vfs_handle_struct *handle);
/* The same without waiting, for hooks below a lock: REFUSE is counted and told. */
enum smbpool_fence_step smbpool_fence_look(struct vfs_handle_struct *handle);
int smbpool_mkdirat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, mode_t mode);
int smbpool_unlinkat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                     const struct smb_filename *smb_fname, int flags);
int smbpool_renameat(struct vfs_handle_struct *handle, struct files_struct *from_dirfsp,
                     const struct smb_filename *from, struct files_struct *to_dirfsp,
                     const struct smb_filename *to SMBPOOL_RENAME_HOW);
int smbpool_symlinkat(struct vfs_handle_struct *handle, const struct smb_filename *contents,
                      struct files_struct *dirfsp, const struct smb_filename *smb_fname);
int smbpool_linkat(struct vfs_handle_struct *handle, struct files_struct *from_dirfsp,
                   const struct smb_filename *from, struct files_struct *to_dirfsp, const struct smb_filename *to,
                   int flags);
int smbpool_mknodat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, mode_t mode, SMB_DEV_T device);
NTSTATUS smbpool_create_dfs_pathat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                                   const struct smb_filename *smb_fname, const struct referral *referrals,
                                   size_t count);
int smbpool_fchmod(struct vfs_handle_struct *handle, struct files_struct *fsp, mode_t mode);
int smbpool_fchown(struct vfs_handle_struct *handle, struct files_struct *fsp, uid_t uid, gid_t gid);
int smbpool_lchown(struct vfs_handle_struct *handle, const struct smb_filename *smb_fname, uid_t uid, gid_t gid);
int smbpool_fntimes(struct vfs_handle_struct *handle, struct files_struct *fsp, struct smb_file_time *times);
int smbpool_fchflags(struct vfs_handle_struct *handle, struct files_struct *fsp, unsigned int flags);
int smbpool_fsetxattr(struct vfs_handle_struct *handle, struct files_struct *fsp, const char *name, const void *value,
                      size_t size, int flags);
int smbpool_fremovexattr(struct vfs_handle_struct *handle, struct files_struct *fsp, const char *name);
int smbpool_sys_acl_set_fd(struct vfs_handle_struct *handle, struct files_struct *fsp, SMB_ACL_TYPE_T type,
                           SMB_ACL_T acl);
int smbpool_sys_acl_delete_def_fd(struct vfs_handle_struct *handle, struct files_struct *fsp);
NTSTATUS smbpool_fset_nt_acl(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t parts,
                             const struct security_descriptor *descriptor);
NTSTATUS smbpool_fset_dos_attributes(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t dosmode);
NTSTATUS smbpool_set_compression(struct vfs_handle_struct *handle, TALLOC_CTX *context, struct files_struct *fsp,
                                 uint16_t format);

/* fileid.c */
struct smbpool_file_id smbpool_id_of(const struct file_id *id);
/* Of a file, or of a folder whether or not its opens go to slices. */
struct smbpool_file_id smbpool_one_id(struct vfs_handle_struct *handle, const SMB_STRUCT_STAT *sbuf);
struct file_id smbpool_file_id_create(struct vfs_handle_struct *handle, const SMB_STRUCT_STAT *sbuf);
int smbpool_stat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname);
int smbpool_lstat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname);
int smbpool_fstat(struct vfs_handle_struct *handle, struct files_struct *fsp, SMB_STRUCT_STAT *sbuf);
int smbpool_fstatat(struct vfs_handle_struct *handle, const struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, SMB_STRUCT_STAT *sbuf, int flags);

/* folder.c: folders that all servers have open at once, and their slices */
/* The id that smbd is to use for a folder now: the one id, or that of this server's slice. */
struct smbpool_file_id smbpool_folder_id(const struct smbpool_tree *tree, const struct smbpool_file_id *one);
/* Takes a RECALL; what it asks for is done from the event loop. */
void smbpool_folder_recall(struct smbpool_process *process, const struct smbpool_msg_recall *message);
/* Does and answers what is recalled. From the event loop, or while a hook waits that has locked nothing. */
void smbpool_folder_work(struct smbpool_process *process);
/* Nobody waits for answers any more: the daemon is gone. */
void smbpool_folder_forget(struct smbpool_process *process);
/* Before a rename; false: it is of a folder, through a handle without DELETE, errno is set. */
bool smbpool_folder_may_move(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                             const struct smb_filename *smb_fname);

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
/* Longer than the daemon takes to say no when an smbd does not answer its recall. */
#define SMBPOOL_EXCLUSION_WAIT_MS 6000u
struct smbpool_wait *smbpool_wait_find(struct smbpool_process *process, const struct smbd_smb2_request *smb2req);
/* With req NULL: for smbpool_wait_block. */
struct smbpool_wait *smbpool_wait_new(struct smbpool_tree *tree, struct smb_request *req);
bool smbpool_wait_defer(struct smbpool_wait *wait, struct smb_request *req, struct file_id id);
/* Before NEXT: takes our mark off the request. After NEXT: takes it off if smbd did not. */
void smbpool_wait_leave(struct smbpool_wait *wait, struct smb_request *req);
void smbpool_wait_finish(struct smbpool_wait *wait, struct smb_request *req);
/* Until the daemon has answered, or refused by its silence. Meanwhile this smbd does what is recalled from it. */
void smbpool_wait_block(struct smbpool_wait *wait);
void smbpool_wait_answered(struct smbpool_process *process, uint64_t operation, uint32_t result);
/* The tree connect ends: runs the create again, if it still waits, and forgets it. */
void smbpool_wait_abandon(struct smbpool_wait *wait);
/* The daemon is gone: everything that waits for it goes on. */
void smbpool_wait_release_all(struct smbpool_process *process);

/* report.c: trees and opens as the daemon hears of them */
bool smbpool_send_tree(struct smbpool_tree *tree, uint32_t flags);
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
bool smbpool_kernel_lock(struct vfs_handle_struct *handle, struct files_struct *fsp, int op, off_t offset,
                         off_t count, int type);

/* lease.c: oplock and lease changes, which smbd makes without any hook */
void smbpool_watch_file(struct smbpool_process *process, const struct smbpool_file_id *id, uint32_t watch_ms);
/* As long as any watch. */
void smbpool_watch_open(struct smbpool_open *open);

/* drain.c: a server that is drained lets its clients cache no writes */
void smbpool_drain_break_all(struct smbpool_process *process, uint32_t number);
/* Sends the answer that is due, if one is; false: the ring is full. Behind all reports only. */
bool smbpool_drain_answer(struct smbpool_process *process);
void smbpool_drain_opened(struct smbpool_open *open);

/* break.c: breaks of a lease that are lost with a handle */
void smbpool_break_note(struct smbpool_open *open, const SMB_STRUCT_STAT *before, const SMB_STRUCT_STAT *now);
void smbpool_break_again(struct smbpool_open *open);

/* notify.c: folders that the client watches */
void smbpool_notify_start(struct smbpool_process *process);
void smbpool_notify_stop(void);
void smbpool_notify_opened(struct smbpool_open *open);
void smbpool_notify_closed(struct smbpool_open *open);
bool smbpool_notify_replay(struct smbpool_open *open);
void smbpool_notify_answered(struct smbpool_process *process, const struct smbpool_msg_notify_ready *ready);

/* durable.c */
NTSTATUS smbpool_durable_disconnect(struct vfs_handle_struct *handle, struct files_struct *fsp,
                                    const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx, DATA_BLOB *new_cookie);
NTSTATUS smbpool_durable_reconnect(struct vfs_handle_struct *handle, struct smb_request *smb1req,
                                   struct smbXsrv_open *op, const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx,
                                   struct files_struct **fsp, DATA_BLOB *new_cookie);

#endif
