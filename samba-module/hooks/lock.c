/*
 * Byte-range locks: reported after smbd decided, remembered per open for a replay, and read anew before each read and
 * write. The hooks of lock and unlock run with the brlock and locking records locked: they must not wait, read records,
 * or call anything that could.
 */
#include "module.h"

static void remember(struct smbpool_open *open, const struct smbpool_lock *lock) {
  if (open->lock_count == SMBPOOL_LOCKS_MAX) {
    open->locks_partial = true;
    return;
  }
  if (open->locks == NULL) open->locks = talloc_array(NULL, struct smbpool_lock, SMBPOOL_LOCKS_MAX);
  if (open->locks == NULL) {
    open->locks_partial = true;
    return;
  }
  open->locks[open->lock_count++] = *lock;
}

static void forget(struct smbpool_open *open, uint64_t start, uint64_t size) {
  unsigned int i;

  for (i = 0; i < open->lock_count; i++) {
    if (open->locks[i].start != start || open->locks[i].size != size) continue;
    open->locks[i] = open->locks[--open->lock_count];
    return;
  }
}

static void report_lock(struct smbpool_open *open, uint32_t op, const struct lock_struct *plock, uint32_t type,
                        uint64_t blocker, NTSTATUS status) {
  struct files_struct *fsp = open->fsp;
  struct smbpool_msg_lock message = {.file = smbpool_id_of(&fsp->file_id),
                                     .share_file_id = fh_get_gen_id(fsp->fh),
                                     .tree = open->tree->number,
                                     .start = plock->start,
                                     .size = plock->size,
                                     .blocker = blocker,
                                     .type = type,
                                     .status = NT_STATUS_V(status)};

  if (fsp->op != NULL) message.persistent_id = fsp->op->global->open_persistent_id;
  smbpool_report(open->tree->process, op, &message, sizeof(message), NULL, 0);
}

NTSTATUS smbpool_brl_lock(struct vfs_handle_struct *handle, struct byte_range_lock *br_lck, struct lock_struct *plock) {
  struct smbpool_open *open = smbpool_open_of(handle, brl_fsp(br_lck));
  uint32_t type = plock->lock_type == READ_LOCK ? SMBPOOL_LOCK_READ : SMBPOOL_LOCK_WRITE;
  uint64_t own_context = plock->context.smblctx;
  uint64_t blocker = 0;
  NTSTATUS status;

  switch (smbpool_fence_look(handle)) {
    case SMBPOOL_FENCE_PASS:
      break;
    case SMBPOOL_FENCE_WAIT:
      /* smbd lets go of the records and asks again a little later, by a timer. */
      plock->context.smblctx = UINT64_MAX;
      return NT_STATUS_RETRY;
    case SMBPOOL_FENCE_REFUSE:
      return SMBPOOL_STATUS_FENCED;
  }
  status = SMB_VFS_NEXT_BRL_LOCK_WINDOWS(handle, br_lck, plock);
  if (open == NULL) return status;
  if (NT_STATUS_IS_OK(status)) {
    struct smbpool_lock lock = {.start = plock->start, .size = plock->size, .type = type};
    remember(open, &lock);
  } else if (plock->context.smblctx != own_context && plock->context.smblctx != UINT64_MAX) {
    /* On a conflict smbd leaves the context of the lock in the way here: its open's persistent id. */
    blocker = plock->context.smblctx;
  }
  report_lock(open, SMBPOOL_OP_LOCK, plock, type, blocker, status);
  return status;
}

/* The kernel's locks, with "posix locking = yes". */
bool smbpool_kernel_lock(struct vfs_handle_struct *handle, struct files_struct *fsp, int op, off_t offset,
                         off_t count, int type) {
  if (type != F_UNLCK && smbpool_fence_look(handle) != SMBPOOL_FENCE_PASS) {
    errno = SMBPOOL_ERRNO_FENCED;
    return false;
  }
  return SMB_VFS_NEXT_LOCK(handle, fsp, op, offset, count, type);
}

/*
 * Whether a read or write may go on. smbd keeps what it read of the file's locks while their database's sequence number
 * stands still, but asks for the number after it has read (brlock.c): a lock given on another server between the
 * daemon's answer and that question would never be seen. So it reads them each time; they are in the local database.
 */
bool smbpool_strict_lock_check(struct vfs_handle_struct *handle, struct files_struct *fsp,
                               struct lock_struct *plock) {
  TALLOC_FREE(fsp->brlock_rec);
  return SMB_VFS_NEXT_STRICT_LOCK_CHECK(handle, fsp, plock);
}

bool smbpool_brl_unlock(struct vfs_handle_struct *handle, struct byte_range_lock *br_lck,
                        const struct lock_struct *plock) {
  struct smbpool_open *open = smbpool_open_of(handle, brl_fsp(br_lck));
  bool ok = SMB_VFS_NEXT_BRL_UNLOCK_WINDOWS(handle, br_lck, plock);

  if (open == NULL) return ok;
  if (ok) forget(open, plock->start, plock->size);
  report_lock(open, SMBPOOL_OP_UNLOCK, plock, SMBPOOL_LOCK_UNLOCK, 0, ok ? NT_STATUS_OK : NT_STATUS_RANGE_NOT_LOCKED);
  return ok;
}
