/*
 * vfs_smbpool: a share of a pool of Samba servers. Forwards opens, closes, byte-range locks and oplock changes of its
 * share to smbpoold over shared memory, and lets an open wait for its records without blocking smbd. An accelerator and
 * a witness: with no daemon everything works as without the module. Options: vfs_smbpool(8). This file holds the table
 * of hooks and nothing else.
 *
 * This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
 * License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
 * version.
 */
#include "hooks/module.h"

int smbpool_debug_level = DBGC_VFS;

static struct vfs_fn_pointers smbpool_fns = {
    .connect_fn = smbpool_connect,
    .disconnect_fn = smbpool_disconnect,
    .create_file_fn = smbpool_create_file,
    .openat_fn = smbpool_openat,
    .close_fn = smbpool_close,
    .pwrite_fn = smbpool_pwrite,
    .pwrite_send_fn = smbpool_pwrite_send,
    .pwrite_recv_fn = smbpool_pwrite_recv,
    .recvfile_fn = smbpool_recvfile,
    .stat_fn = smbpool_stat,
    .fstat_fn = smbpool_fstat,
    .lstat_fn = smbpool_lstat,
    .fstatat_fn = smbpool_fstatat,
    .ftruncate_fn = smbpool_ftruncate,
    .fallocate_fn = smbpool_fallocate,
    .offload_write_send_fn = smbpool_offload_write_send,
    .offload_write_recv_fn = smbpool_offload_write_recv,
    .mkdirat_fn = smbpool_mkdirat,
    .unlinkat_fn = smbpool_unlinkat,
    .renameat_fn = smbpool_renameat,
    .symlinkat_fn = smbpool_symlinkat,
    .linkat_fn = smbpool_linkat,
    .mknodat_fn = smbpool_mknodat,
    .create_dfs_pathat_fn = smbpool_create_dfs_pathat,
    .fchmod_fn = smbpool_fchmod,
    .fchown_fn = smbpool_fchown,
    .lchown_fn = smbpool_lchown,
    .fntimes_fn = smbpool_fntimes,
    .fchflags_fn = smbpool_fchflags,
    .fsetxattr_fn = smbpool_fsetxattr,
    .fremovexattr_fn = smbpool_fremovexattr,
    .sys_acl_set_fd_fn = smbpool_sys_acl_set_fd,
    .sys_acl_delete_def_fd_fn = smbpool_sys_acl_delete_def_fd,
    .fset_nt_acl_fn = smbpool_fset_nt_acl,
    .fset_dos_attributes_fn = smbpool_fset_dos_attributes,
    .set_compression_fn = smbpool_set_compression,
    .file_id_create_fn = smbpool_file_id_create,
    .brl_lock_windows_fn = smbpool_brl_lock,
    .brl_unlock_windows_fn = smbpool_brl_unlock,
    .strict_lock_check_fn = smbpool_strict_lock_check,
    .lock_fn = smbpool_kernel_lock,
    .durable_disconnect_fn = smbpool_durable_disconnect,
    .durable_reconnect_fn = smbpool_durable_reconnect,
};

/* Called by the loader (loader/loader.c) after it has checked that this is the Samba release we were built for. */
__attribute__((visibility("default"))) NTSTATUS smbpool_module_init(TALLOC_CTX *context);

NTSTATUS smbpool_module_init(TALLOC_CTX *context) {
  NTSTATUS status = smb_register_vfs(SMB_VFS_INTERFACE_VERSION, "smbpool", &smbpool_fns);

  if (!NT_STATUS_IS_OK(status)) return status;
  smbpool_debug_level = debug_add_class("smbpool");
  if (smbpool_debug_level == -1) smbpool_debug_level = DBGC_VFS;
  return NT_STATUS_OK;
}
