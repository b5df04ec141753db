/*
 * Trees and opens as the daemon hears of them: what is reported when a handle comes into being, changes and goes, and
 * again in a replay. The state hangs on the fsp as its extension, so whatever way smbd closes a handle, it is reported
 * closed. Must not wait, and must not read a record: everything comes from smbd's memory.
 */
#include "module.h"

bool smbpool_send_tree(struct smbpool_tree *tree, uint32_t flags) {
  struct connection_struct *conn = tree->handle->conn;
  const struct loadparm_substitution *lp_sub = loadparm_s3_global_substitution();
  const char *share = lp_servicename(talloc_tos(), lp_sub, SNUM(conn));
  const char *path = conn->connectpath;
  char *user = NULL;
  struct smbpool_msg_tree message = {.tree = tree->number,
                                     .volume = tree->effective_volume,
                                     .root_inode = tree->root_inode,
                                     .root_device = tree->root_device,
                                     .flags = flags};
  uint8_t texts[SMBPOOL_SHARE_BYTES_MAX + SMBPOOL_USER_BYTES_MAX + SMBPOOL_PATH_BYTES_MAX];
  uint32_t length = 0;
  bool ok;

  if (conn->session_info != NULL && conn->session_info->info != NULL) {
    user = talloc_asprintf(talloc_tos(), "%s\\%s", conn->session_info->info->domain_name,
                           conn->session_info->info->account_name);
  }
  message.share_bytes = smbpool_map_text_bytes(share, SMBPOOL_SHARE_BYTES_MAX);
  message.user_bytes = smbpool_map_text_bytes(user, SMBPOOL_USER_BYTES_MAX);
  message.path_bytes = smbpool_map_text_bytes(path, SMBPOOL_PATH_BYTES_MAX);
  length = smbpool_map_append(texts, length, share, message.share_bytes);
  length = smbpool_map_append(texts, length, user, message.user_bytes);
  length = smbpool_map_append(texts, length, path, message.path_bytes);
  ok = smbpool_try_send(tree->process, SMBPOOL_OP_TREE_CONNECT, &message, sizeof(message), texts, length);
  TALLOC_FREE(user);
  return ok;
}

static void fill_open(const struct smbpool_open *open, struct smbpool_msg_open *message) {
  const struct files_struct *fsp = open->fsp;

  *message = (struct smbpool_msg_open){
      .tree = open->tree->number,
      .file = smbpool_id_of(&fsp->file_id),
      .share_file_id = fh_get_gen_id(fsp->fh),
      .persistent_id = fsp->op != NULL ? fsp->op->global->open_persistent_id : 0,
      .since_us = open->since_us,
      .access_mask = fsp->access_mask,
      .share_access = open->share_access,
      .disposition = open->disposition,
      .create_action = open->create_action,
      .oplock = (uint32_t)fsp->oplock_type,
  };
  if (fsp->lease != NULL) {
    message->flags |= SMBPOOL_OPEN_HAS_LEASE;
    message->lease_state = fsp->lease->lease.lease_state;
    memcpy(message->lease_key, &fsp->lease->lease.lease_key, sizeof(message->lease_key));
  }
  if (fsp->fsp_flags.is_directory) message->flags |= SMBPOOL_OPEN_DIRECTORY;
  if (fsp->op != NULL && fsp->op->global->durable) message->flags |= SMBPOOL_OPEN_DURABLE;
}

bool smbpool_send_open(struct smbpool_open *open, uint32_t op, uint64_t operation, uint32_t flags, uint32_t took_us) {
  const struct smb_filename *name = open->fsp->fsp_name;
  struct smbpool_msg_open message;
  uint8_t texts[SMBPOOL_PATH_BYTES_MAX];
  uint16_t base_bytes, stream_bytes;
  uint32_t length;

  fill_open(open, &message);
  message.operation = operation;
  message.flags |= flags;
  message.took_us = took_us;
  base_bytes = smbpool_map_text_bytes(name->base_name, SMBPOOL_PATH_BYTES_MAX);
  stream_bytes = smbpool_map_text_bytes(name->stream_name, SMBPOOL_PATH_BYTES_MAX - base_bytes);
  length = smbpool_map_append(texts, 0, name->base_name, base_bytes);
  length = smbpool_map_append(texts, length, name->stream_name, stream_bytes);
  message.path_bytes = (uint16_t)length;

  open->persistent_id = message.persistent_id;
  open->oplock = message.oplock;
  open->lease_state = message.lease_state;
  if (op == SMBPOOL_OP_REPLAY_OPEN) {
    return smbpool_try_send(open->tree->process, op, &message, sizeof(message), texts, length);
  }
  return smbpool_report(open->tree->process, op, &message, sizeof(message), texts, length);
}

bool smbpool_replay_open(struct smbpool_open *open) {
  struct smbpool_msg_lock message = {.tree = open->tree->number,
                                     .file = smbpool_id_of(&open->fsp->file_id),
                                     .share_file_id = fh_get_gen_id(open->fsp->fh)};
  unsigned int i;

  if (open->fsp->op != NULL) message.persistent_id = open->fsp->op->global->open_persistent_id;
  if (!smbpool_send_open(open, SMBPOOL_OP_REPLAY_OPEN, 0, open->locks_partial ? SMBPOOL_OPEN_LOCKS_PARTIAL : 0, 0)) {
    return false;
  }
  /* When the ring fills up in between, this open is sent again with all its locks: the daemon replaces what it has. */
  for (i = 0; i < open->lock_count; i++) {
    message.start = open->locks[i].start;
    message.size = open->locks[i].size;
    message.type = open->locks[i].type;
    if (!smbpool_try_send(open->tree->process, SMBPOOL_OP_REPLAY_LOCK, &message, sizeof(message), NULL, 0)) {
      return false;
    }
  }
  return true;
}

void smbpool_report_closed(struct smbpool_open *open, uint32_t flags) {
  struct smbpool_process *process = open->tree->process;
  struct files_struct *fsp = open->fsp;
  struct smbpool_msg_close message = {.file = smbpool_id_of(&fsp->file_id),
                                      .share_file_id = fh_get_gen_id(fsp->fh),
                                      .persistent_id = open->persistent_id,
                                      .tree = open->tree->number,
                                      .flags = flags};

  if (open->closed_reported) return;
  open->closed_reported = true;
  if (process->resync_cursor == open) process->resync_cursor = open->next;
  DLIST_REMOVE(process->opens, open);
  smbpool_notify_closed(open);
  smbpool_report(process, SMBPOOL_OP_CLOSE, &message, sizeof(message), NULL, 0);
}

static void open_destroy(void *data) {
  struct smbpool_open *open = data;

  /* The tree may be gone before a handle that smbd forgot to close. */
  if (open->tree != NULL && open->tree->process != NULL && !open->orphan) smbpool_report_closed(open, 0);
  TALLOC_FREE(open->locks);
}

struct smbpool_open *smbpool_open_of(struct vfs_handle_struct *handle, struct files_struct *fsp) {
  struct smbpool_tree *tree = handle->data;

  if (tree == NULL || tree->process == NULL) return NULL;
  return VFS_FETCH_FSP_EXTENSION(handle, fsp);
}

struct smbpool_open *smbpool_open_add(struct smbpool_tree *tree, struct files_struct *fsp) {
  struct smbpool_open *open = VFS_FETCH_FSP_EXTENSION(tree->handle, fsp);

  if (open != NULL) return open;
  open = VFS_ADD_FSP_EXTENSION(tree->handle, fsp, struct smbpool_open, open_destroy);
  if (open == NULL) return NULL;
  open->tree = tree;
  open->fsp = fsp;
  open->since_us = smbpool_realtime_us();
  DLIST_ADD(tree->process->opens, open);
  smbpool_notify_opened(open);
  return open;
}

int smbpool_close(struct vfs_handle_struct *handle, struct files_struct *fsp) {
  struct smbpool_open *open = smbpool_open_of(handle, fsp);

  /* The first hook of a close: share mode entry, oplock and locks are gone already. */
  if (open != NULL && !open->disconnecting) {
    bool delete_it = fsp->fsp_flags.delete_on_close || fsp->fsp_flags.initial_delete_on_close;
    smbpool_break_again(open);
    smbpool_report_closed(open, delete_it ? SMBPOOL_CLOSE_DELETED : 0);
  }
  return SMB_VFS_NEXT_CLOSE(handle, fsp);
}
