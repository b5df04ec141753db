/*
 * Durable handles: a disconnect is not a close, and a reconnect makes a handle without any create. Reported as such.
 */
#include "module.h"

NTSTATUS smbpool_durable_disconnect(struct vfs_handle_struct *handle, struct files_struct *fsp,
                                    const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx, DATA_BLOB *new_cookie) {
  struct smbpool_open *open = smbpool_open_of(handle, fsp);
  NTSTATUS status;

  /* smbd closes the descriptor in there, before it is known whether the handle goes on. */
  if (open != NULL) open->disconnecting = true;
  status = SMB_VFS_NEXT_DURABLE_DISCONNECT(handle, fsp, old_cookie, mem_ctx, new_cookie);
  if (open != NULL) {
    open->disconnecting = false;
    if (NT_STATUS_IS_OK(status)) smbpool_report_closed(open, SMBPOOL_CLOSE_DISCONNECTED);
  }
  return status;
}

NTSTATUS smbpool_durable_reconnect(struct vfs_handle_struct *handle, struct smb_request *smb1req,
                                   struct smbXsrv_open *op, const DATA_BLOB old_cookie, TALLOC_CTX *mem_ctx,
                                   struct files_struct **fsp, DATA_BLOB *new_cookie) {
  struct smbpool_tree *tree = handle->data;
  uint64_t began_us = smbpool_now_us();
  struct smbpool_open *open = NULL;
  NTSTATUS status;

  if (!smbpool_fence_pass(handle)) return SMBPOOL_STATUS_FENCED;
  status = SMB_VFS_NEXT_DURABLE_RECONNECT(handle, smb1req, op, old_cookie, mem_ctx, fsp, new_cookie);
  if (!NT_STATUS_IS_OK(status) || tree == NULL || tree->process == NULL) return status;
  open = smbpool_open_add(tree, *fsp);
  if (open != NULL) {
    open->create_action = FILE_WAS_OPENED;
    /* smbd has just looked, and refuses a client whose file changed meanwhile. */
    smbpool_break_note(open, &(*fsp)->fsp_name->st, &(*fsp)->fsp_name->st);
    smbpool_send_open(open, SMBPOOL_OP_OPEN_END, 0, SMBPOOL_OPEN_RECONNECT | SMBPOOL_OPEN_DURABLE,
                      (uint32_t)(smbpool_now_us() - began_us));
    smbpool_drain_opened(open);
  }
  return status;
}
