/*
 * Everything that depends on the Samba release the module is built against: private layouts of smbd that no header
 * declares, and names that moved. Included by module.h only. A release that is not named here does not compile: check
 * the listed places of its source, then add it.
 */
#ifndef SMBPOOL_SAMBA_COMPAT_H
#define SMBPOOL_SAMBA_COMPAT_H

#if SMB_VFS_INTERFACE_VERSION != 47 && SMB_VFS_INTERFACE_VERSION != 50
#error "No Samba of samba-module/compat/releases: install one of these, or port this file and the hooks to it."
#endif

/*
 * What smbd keeps for a create that waits. source3/smbd/open.c declares it privately; cancel reads `async_open`, so the
 * members must be the same and in the same order. Checked for 4.17.0 to 4.17.12, and 4.22.11.
 */
struct deferred_open_record {
  struct smbXsrv_connection *xconn;
  uint64_t mid;
  bool async_open;
  struct tevent_timer *te;
  struct tevent_req *watch_req;
};

/*
 * What a client wants to be told of a folder; the first members only. source3/smbd/notify.c declares it privately.
 * Checked for 4.17.12 and 4.22.11.
 */
struct notify_change_buf {
  uint32_t filter;
  uint32_t subdir_filter;
};

/*
 * Runs fn with a record of share modes locked, which is made if there is none, with the names that fsp has. False: not
 * run. 4.22 has no get_share_mode_lock; what it has instead lets fn call no hook of the VFS.
 */
typedef void (*smbpool_share_modes_fn)(struct share_mode_lock *lock, void *private_data);
#if SMB_VFS_INTERFACE_VERSION < 50
static inline bool smbpool_with_share_modes(struct file_id id, struct files_struct *fsp, smbpool_share_modes_fn fn,
                                            void *private_data) {
  struct timespec no_time = make_omit_timespec();
  struct share_mode_lock *lock =
      get_share_mode_lock(talloc_tos(), id, fsp->conn->connectpath, fsp->fsp_name, &no_time);

  if (lock == NULL) return false;
  fn(lock, private_data);
  TALLOC_FREE(lock);
  return true;
}
#else
struct smbpool_share_modes_call {
  smbpool_share_modes_fn fn;
  void *private_data;
};

static inline void smbpool_call_with_share_modes(struct share_mode_lock *lock, bool *keep_locked, void *private_data) {
  struct smbpool_share_modes_call *call = private_data;

  call->fn(lock, call->private_data);
  *keep_locked = false;
}

static inline bool smbpool_with_share_modes(struct file_id id, struct files_struct *fsp, smbpool_share_modes_fn fn,
                                            void *private_data) {
  struct timespec no_time = make_omit_timespec();
  struct smbpool_share_modes_call call = {.fn = fn, .private_data = private_data};
  struct share_mode_entry_prepare_state prepared = {};
  NTSTATUS status = share_mode_entry_prepare_lock_add(&prepared, id, fsp->conn->connectpath, fsp->fsp_name, &no_time,
                                                      smbpool_call_with_share_modes, &call);

  return NT_STATUS_IS_OK(status);
}
#endif

/* Whether smbd grants leases of folders: 4.22 can, with "smb3 directory leases = yes". */
static inline bool smbpool_leases_folders(void) {
#if SMB_VFS_INTERFACE_VERSION < 50
  return false;
#else
  return lp_smb3_directory_leases();
#endif
}

/* A rename has a last parameter, how, in 4.22 and not in 4.17. */
#if SMB_VFS_INTERFACE_VERSION < 50
#define SMBPOOL_RENAME_HOW
#define SMBPOOL_NEXT_RENAMEAT(handle, from_dirfsp, from, to_dirfsp, to) \
  SMB_VFS_NEXT_RENAMEAT(handle, from_dirfsp, from, to_dirfsp, to)
#else
#define SMBPOOL_RENAME_HOW , const struct vfs_rename_how *how
#define SMBPOOL_NEXT_RENAMEAT(handle, from_dirfsp, from, to_dirfsp, to) \
  SMB_VFS_NEXT_RENAMEAT(handle, from_dirfsp, from, to_dirfsp, to, how)
#endif

#endif
