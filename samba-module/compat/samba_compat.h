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
