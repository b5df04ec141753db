/*
 * Fencing: a server whose lease is over opens and changes nothing, because the others may already have taken over what
 * it had. smbpoold writes into the node page until when the server may serve; each smbd compares that with the clock by
 * itself, so that it holds while the daemon is stopped, stuck or dead. Here is the look, the wait for a lease that
 * comes back, and the hooks that do hardly anything else; open.c, write.c, lock.c and durable.c look too. Reads of
 * open handles go on. Must be as cheap as a look at the clock while the lease is valid, and must not need anything of
 * the daemon. A rename, or a delete at a close, waits while smbd has the file's record locked: it keeps others of this
 * server from opening the file, who are fenced as well.
 */
#include "module.h"

/* Between two looks of a request that waits; a tenth of the time between two renewals. */
#define LOOK_AGAIN_US 4000

static struct smbpool_tree *tree_of(struct vfs_handle_struct *handle) {
  struct smbpool_tree *tree = handle->data;

  /* No client, so no attachment, so no page. */
  return tree == NULL || tree->process == NULL ? NULL : tree;
}

static enum smbpool_fence_step look(struct smbpool_tree *tree) {
  struct smbpool_process *process = tree->process;
  uint64_t deadline_us = smbpool_link_lease_deadline(&process->link);

  if (deadline_us == 0) return SMBPOOL_FENCE_PASS;
  return smbpool_map_fence(&process->fence, deadline_us, smbpool_now_us(), tree->config.fence_wait_ms);
}

static bool refuse(struct smbpool_tree *tree) {
  struct smbpool_process *process = tree->process;

  smbpool_link_count(&process->link, SMBPOOL_CLIENT_FENCE_REFUSED);
  if (!process->fence.told) {
    process->fence.told = true;
    DBG_ERR("smbpool: this server's lease in the pool is over: opens and changes are refused until it is back, because "
            "other servers may have taken over. Does smbpoold run here, and does it reach the others? See \"smbpool "
            "page\", \"smbpool status\" and its log\n");
  }
  errno = SMBPOOL_ERRNO_FENCED;
  return false;
}

/*
 * The whole smbd waits: it serves one client, and that one is fenced. Not for a daemon that has ended: smbd ends behind
 * it as soon as it is back in its event loop, and the daemon's next run waits for that.
 */
static enum smbpool_fence_step wait_for_lease(struct smbpool_tree *tree) {
  uint64_t began_us = smbpool_now_us();
  enum smbpool_fence_step step;

  smbpool_link_count(&tree->process->link, SMBPOOL_CLIENT_FENCE_WAITS);
  do {
    struct timespec pause = {.tv_nsec = LOOK_AGAIN_US * 1000l};

    if (smbpool_link_ended(&tree->process->link)) return SMBPOOL_FENCE_REFUSE;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    step = look(tree);
    /* A lease that comes and goes between the looks begins new episodes: bounded all the same. */
    if (smbpool_now_us() - began_us >= (uint64_t)tree->config.fence_wait_ms * 1000u && step == SMBPOOL_FENCE_WAIT) {
      step = SMBPOOL_FENCE_REFUSE;
    }
  } while (step == SMBPOOL_FENCE_WAIT);
  return step;
}

bool smbpool_fence_pass(struct vfs_handle_struct *handle) {
  struct smbpool_tree *tree = tree_of(handle);
  enum smbpool_fence_step step;
  int saved_errno;

  if (tree == NULL) return true;
  step = look(tree);
  if (step == SMBPOOL_FENCE_PASS) return true;
  saved_errno = errno;
  if (step == SMBPOOL_FENCE_WAIT) step = wait_for_lease(tree);
  if (step == SMBPOOL_FENCE_REFUSE) return refuse(tree);
  errno = saved_errno;
  return true;
}

enum smbpool_fence_step smbpool_fence_look(struct vfs_handle_struct *handle) {
  struct smbpool_tree *tree = tree_of(handle);
  enum smbpool_fence_step step = tree == NULL ? SMBPOOL_FENCE_PASS : look(tree);

  if (step == SMBPOOL_FENCE_REFUSE) refuse(tree);
  return step;
}

int smbpool_mkdirat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, mode_t mode) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_MKDIRAT(handle, dirfsp, smb_fname, mode) : -1;
}

int smbpool_unlinkat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                     const struct smb_filename *smb_fname, int flags) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_UNLINKAT(handle, dirfsp, smb_fname, flags) : -1;
}

int smbpool_renameat(struct vfs_handle_struct *handle, struct files_struct *from_dirfsp,
                     const struct smb_filename *from, struct files_struct *to_dirfsp,
                     const struct smb_filename *to SMBPOOL_RENAME_HOW) {
  if (!smbpool_fence_pass(handle) || !smbpool_folder_may_move(handle, from_dirfsp, from)) return -1;
  return SMBPOOL_NEXT_RENAMEAT(handle, from_dirfsp, from, to_dirfsp, to);
}

int smbpool_symlinkat(struct vfs_handle_struct *handle, const struct smb_filename *contents,
                      struct files_struct *dirfsp, const struct smb_filename *smb_fname) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_SYMLINKAT(handle, contents, dirfsp, smb_fname) : -1;
}

int smbpool_linkat(struct vfs_handle_struct *handle, struct files_struct *from_dirfsp,
                   const struct smb_filename *from, struct files_struct *to_dirfsp, const struct smb_filename *to,
                   int flags) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_LINKAT(handle, from_dirfsp, from, to_dirfsp, to, flags) : -1;
}

int smbpool_mknodat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, mode_t mode, SMB_DEV_T device) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_MKNODAT(handle, dirfsp, smb_fname, mode, device) : -1;
}

NTSTATUS smbpool_create_dfs_pathat(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                                   const struct smb_filename *smb_fname, const struct referral *referrals,
                                   size_t count) {
  if (!smbpool_fence_pass(handle)) return SMBPOOL_STATUS_FENCED;
  return SMB_VFS_NEXT_CREATE_DFS_PATHAT(handle, dirfsp, smb_fname, referrals, count);
}

int smbpool_fchmod(struct vfs_handle_struct *handle, struct files_struct *fsp, mode_t mode) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FCHMOD(handle, fsp, mode) : -1;
}

int smbpool_fchown(struct vfs_handle_struct *handle, struct files_struct *fsp, uid_t uid, gid_t gid) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FCHOWN(handle, fsp, uid, gid) : -1;
}

int smbpool_lchown(struct vfs_handle_struct *handle, const struct smb_filename *smb_fname, uid_t uid, gid_t gid) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_LCHOWN(handle, smb_fname, uid, gid) : -1;
}

int smbpool_fntimes(struct vfs_handle_struct *handle, struct files_struct *fsp, struct smb_file_time *times) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FNTIMES(handle, fsp, times) : -1;
}

int smbpool_fchflags(struct vfs_handle_struct *handle, struct files_struct *fsp, unsigned int flags) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FCHFLAGS(handle, fsp, flags) : -1;
}

int smbpool_fsetxattr(struct vfs_handle_struct *handle, struct files_struct *fsp, const char *name, const void *value,
                      size_t size, int flags) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FSETXATTR(handle, fsp, name, value, size, flags) : -1;
}

int smbpool_fremovexattr(struct vfs_handle_struct *handle, struct files_struct *fsp, const char *name) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_FREMOVEXATTR(handle, fsp, name) : -1;
}

int smbpool_sys_acl_set_fd(struct vfs_handle_struct *handle, struct files_struct *fsp, SMB_ACL_TYPE_T type,
                           SMB_ACL_T acl) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_SYS_ACL_SET_FD(handle, fsp, type, acl) : -1;
}

int smbpool_sys_acl_delete_def_fd(struct vfs_handle_struct *handle, struct files_struct *fsp) {
  return smbpool_fence_pass(handle) ? SMB_VFS_NEXT_SYS_ACL_DELETE_DEF_FD(handle, fsp) : -1;
}

NTSTATUS smbpool_fset_nt_acl(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t parts,
                             const struct security_descriptor *descriptor) {
  if (!smbpool_fence_pass(handle)) return SMBPOOL_STATUS_FENCED;
  return SMB_VFS_NEXT_FSET_NT_ACL(handle, fsp, parts, descriptor);
}

NTSTATUS smbpool_fset_dos_attributes(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t dosmode) {
  if (!smbpool_fence_pass(handle)) return SMBPOOL_STATUS_FENCED;
  return SMB_VFS_NEXT_FSET_DOS_ATTRIBUTES(handle, fsp, dosmode);
}

NTSTATUS smbpool_set_compression(struct vfs_handle_struct *handle, TALLOC_CTX *context, struct files_struct *fsp,
                                 uint16_t format) {
  if (!smbpool_fence_pass(handle)) return SMBPOOL_STATUS_FENCED;
  return SMB_VFS_NEXT_SET_COMPRESSION(handle, context, fsp, format);
}
