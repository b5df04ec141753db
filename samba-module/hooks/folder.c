/*
 * Folders that clients of all servers have open at once (docs/decisions/shared-folders.md). While this server has a
 * delegation of a folder, opens that exclude nobody have their share mode entries in the server's slice, a record under
 * an id of its own. When the daemon recalls the folder, all that this smbd has in the slice goes to the folder's one
 * record, by smbd's own functions. Called by fileid.c, attach.c and wait.c. Must not run while smbd holds a record of
 * share modes: it can lock only one at a time.
 */
#include "module.h"
#include "librpc/gen_ndr/open_files.h"
#include "lib/util/server_id.h"

/* Until the next try to answer with a ring that was full. */
#define ANSWER_AGAIN_MS 2
/* Until the next try to move what could not be moved: memory or a record may be had again. */
#define MOVE_AGAIN_MS 100

/* Access that can conflict with how others share. */
#define CONFLICTING_ACCESS \
  (FILE_READ_DATA | FILE_WRITE_DATA | FILE_APPEND_DATA | FILE_EXECUTE | DELETE_ACCESS)

/* A move of all handles of one folder. */
struct move {
  struct server_id self;
  struct file_id one;
  struct file_id slice;
  struct smbd_server_connection *sconn;
  struct share_mode_entry *entries; /* this smbd's, in the slice */
  size_t count;
  uint32_t moved;
  bool failed;
};

static struct file_id id_of_smbd(const struct smbpool_file_id *id) {
  struct file_id theirs = {.devid = id->volume, .inode = id->inode, .extid = id->snapshot};

  return theirs;
}

static bool is_excluded(const struct smbpool_process *process, const struct smbpool_file_id *one) {
  const struct smbpool_exclusion *exclusion;

  for (exclusion = process->exclusions; exclusion != NULL; exclusion = exclusion->outer) {
    if (memcmp(&exclusion->folder, one, sizeof(*one)) == 0) return true;
  }
  return false;
}

struct smbpool_file_id smbpool_folder_id(const struct smbpool_tree *tree, const struct smbpool_file_id *one) {
  const struct smbpool_process *process = tree->process;

  if (process == NULL || one->snapshot != 0 || !smbpool_link_shares_folders(&process->link)) return *one;
  if (!smbpool_link_is_home(&process->link, SMBPOOL_HOME_FOLDER, one, sizeof(*one))) return *one;
  if (is_excluded(process, one)) return *one;
  return smbpool_map_slice_id(one, smbpool_link_node(&process->link));
}

static bool collect_own(struct share_mode_entry *entry, bool *modified, void *private_data) {
  struct move *move = private_data;
  struct share_mode_entry *more;

  if (!server_id_equal(&entry->pid, &move->self)) return false;
  more = talloc_realloc(talloc_tos(), move->entries, struct share_mode_entry, move->count + 1);
  if (more == NULL) {
    move->failed = true;
    return true;
  }
  move->entries = more;
  move->entries[move->count++] = *entry;
  return false;
}

static bool drop_own(struct share_mode_entry *entry, bool *modified, void *private_data) {
  const struct move *move = private_data;

  if (server_id_equal(&entry->pid, &move->self)) entry->stale = true;
  return false;
}

/* Runs fn for the entries of the slice, with its record locked. False: nobody knows what is in there. */
static bool for_slice(struct move *move, bool (*fn)(struct share_mode_entry *, bool *, void *)) {
  struct share_mode_lock *lock = get_existing_share_mode_lock(talloc_tos(), move->slice);
  size_t count = 0;
  NTSTATUS status;
  bool ok;

  if (lock == NULL) {
    /* Nothing there, or it cannot be had. */
    status = share_mode_count_entries(move->slice, &count);
    return NT_STATUS_EQUAL(status, NT_STATUS_NOT_FOUND) || (NT_STATUS_IS_OK(status) && count == 0);
  }
  ok = share_mode_forall_entries(lock, fn, move);
  TALLOC_FREE(lock);
  return ok && !move->failed;
}

static const struct share_mode_entry *entry_of(const struct move *move, const struct files_struct *fsp) {
  uint64_t share_file_id = fh_get_gen_id(fsp->fh);
  size_t i;

  for (i = 0; i < move->count; i++) {
    if (move->entries[i].share_file_id == share_file_id) return &move->entries[i];
  }
  return NULL;
}

/* As smbd does it for an open: what the record as a whole allows, then the entry. */
static bool add_entry(struct share_mode_lock *lock, struct files_struct *fsp, const struct share_mode_entry *entry) {
  uint32_t access_mask = 0, share_access = 0, lease = 0;

  share_mode_flags_get(lock, &access_mask, &share_access, &lease);
  access_mask |= entry->access_mask;
  if ((entry->access_mask & CONFLICTING_ACCESS) != 0) share_access &= entry->share_access;
  share_mode_flags_set(lock, access_mask, share_access, lease, NULL);
  return set_share_mode(lock, fsp, entry->uid, entry->op_mid, entry->op_type, &entry->lease_key, entry->share_access,
                        entry->access_mask);
}

/* With the one record locked. A handle is in the one record from the moment its id says so. */
static void add_entries(struct share_mode_lock *lock, void *private_data) {
  struct move *move = private_data;
  struct files_struct *fsp;

  for (fsp = move->sconn->files; fsp != NULL; fsp = fsp->next) {
    const struct share_mode_entry *entry;

    if (!file_id_equal(&fsp->file_id, &move->slice)) continue;
    entry = entry_of(move, fsp);
    if (entry == NULL) continue;
    if (!add_entry(lock, fsp, entry)) {
      move->failed = true;
      return;
    }
    fsp->file_id = move->one;
    move->moved++;
  }
}

/* Gives the one id to all handles that have no entry, and finds one that has; NULL: there is none. */
static struct files_struct *rewrite_others(struct move *move) {
  struct files_struct *fsp, *first = NULL;

  for (fsp = move->sconn->files; fsp != NULL; fsp = fsp->next) {
    if (!file_id_equal(&fsp->file_id, &move->slice)) continue;
    if (entry_of(move, fsp) == NULL) {
      fsp->file_id = move->one;
    } else if (first == NULL) {
      first = fsp;
    }
  }
  return first;
}

static bool has_handles(const struct move *move) {
  const struct files_struct *fsp;

  for (fsp = move->sconn->files; fsp != NULL; fsp = fsp->next) {
    if (file_id_equal(&fsp->file_id, &move->slice)) return true;
  }
  return false;
}

/*
 * smbd can lock one record of share modes at a time, so the entries are in both for a moment: they conflict with no
 * more than they do in one.
 */
static bool move_all(struct smbpool_process *process, struct smbpool_recall *recall) {
  struct smbpool_file_id slice = smbpool_map_slice_id(&recall->folder, smbpool_link_node(&process->link));
  struct move move = {.self = messaging_server_id(process->sconn->msg_ctx),
                      .one = id_of_smbd(&recall->folder),
                      .slice = id_of_smbd(&slice),
                      .sconn = process->sconn};
  struct files_struct *first;

  if (!recall->began && !has_handles(&move)) return true;
  recall->began = true;
  if (!for_slice(&move, collect_own)) return false;
  first = rewrite_others(&move);
  if (first != NULL && !smbpool_with_share_modes(move.one, first, add_entries, &move)) move.failed = true;
  /* smbd remembers who it found last by an id, and also that it found nobody. */
  ZERO_STRUCT(process->sconn->fsp_fi_cache);
  recall->moved += move.moved;
  if (move.failed) return false;
  return move.count == 0 || for_slice(&move, drop_own);
}

static bool answer(struct smbpool_process *process, const struct smbpool_recall *recall) {
  struct smbpool_msg_recalled message = {.number = recall->number, .moved = recall->moved};

  return smbpool_try_send(process, SMBPOOL_OP_RECALLED, &message, sizeof(message), NULL, 0);
}

static void on_recall_timer(struct tevent_context *ev, struct tevent_timer *te, struct timeval now,
                            void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);

  TALLOC_FREE(process->recall_timer);
  smbpool_folder_work(process);
}

static void work_later(struct smbpool_process *process, uint32_t after_ms) {
  TALLOC_FREE(process->recall_timer);
  process->recall_timer = tevent_add_timer(process->sconn->ev_ctx, process, timeval_current_ofs_msec(after_ms),
                                           on_recall_timer, process);
}

static void tell_once(struct smbpool_recall *recall) {
  if (recall->told) return;
  recall->told = true;
  DBG_ERR("smbpool: could not move all open handles of folder %" PRIu64 " to its one record (no memory, or no lock): "
          "trying again; who wants to delete or rename it is refused meanwhile\n", recall->folder.inode);
}

void smbpool_folder_work(struct smbpool_process *process) {
  struct smbpool_recall *recall, *next;
  uint32_t again_ms = 0;

  /* The number of this server's slice is the daemon's word; without one, who comes next asks again. */
  if (!smbpool_process_up(process)) return;
  for (recall = process->recalls; recall != NULL; recall = next) {
    next = recall->next;
    if (!recall->over) {
      TALLOC_CTX *frame = talloc_stackframe();
      recall->over = move_all(process, recall);
      TALLOC_FREE(frame);
    }
    if (!recall->over) {
      tell_once(recall);
      again_ms = MOVE_AGAIN_MS;
    } else if (!recall->wanted || answer(process, recall)) {
      DLIST_REMOVE(process->recalls, recall);
      TALLOC_FREE(recall);
    } else if (again_ms == 0) {
      again_ms = ANSWER_AGAIN_MS;
    }
  }
  if (again_ms != 0) work_later(process, again_ms);
}

static void on_recall(struct tevent_context *ev, struct tevent_immediate *im, void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);

  process->recall_scheduled = false;
  smbpool_folder_work(process);
}

/* Messages are also taken while hooks wait, in the middle of smbd's work: so not now. */
void smbpool_folder_recall(struct smbpool_process *process, const struct smbpool_msg_recall *message) {
  struct smbpool_recall *recall;

  for (recall = process->recalls; recall != NULL; recall = recall->next) {
    if (memcmp(&recall->folder, &message->file, sizeof(recall->folder)) == 0) break;
  }
  if (recall == NULL) {
    recall = talloc_zero(process, struct smbpool_recall);
    if (recall == NULL) {
      /* An smbd that forgot it was asked would be waited for without end: it attaches anew, and is asked again. */
      process->link.broken = true;
      process->on_broken(process);
      return;
    }
    recall->folder = message->file;
    DLIST_ADD_END(process->recalls, recall);
  }
  recall->number = message->number;
  recall->wanted = true;
  /* Handles may have come into the slice between two recalls. */
  recall->over = false;
  if (process->recall_scheduled) return;
  process->recall_scheduled = true;
  tevent_schedule_immediate(process->recall_event, process->sconn->ev_ctx, on_recall, process);
}

void smbpool_folder_forget(struct smbpool_process *process) {
  struct smbpool_recall *recall, *next;

  for (recall = process->recalls; recall != NULL; recall = next) {
    next = recall->next;
    recall->wanted = false;
    /* What was begun is brought to its end, so that no entry is left behind in the slice. */
    if (recall->began && !recall->over) continue;
    DLIST_REMOVE(process->recalls, recall);
    TALLOC_FREE(recall);
  }
}

/*
 * smbd renames a folder through any handle that may write its attributes, and (4.17) through any at all; Windows wants
 * DELETE. The new name reaches the other handles by the one record, so they must all be there: as they are while one
 * with DELETE is open. What smbd renames that nobody has open yet is a folder that it is making.
 */
bool smbpool_folder_may_move(struct vfs_handle_struct *handle, struct files_struct *dirfsp,
                             const struct smb_filename *smb_fname) {
  struct smbpool_tree *tree = handle->data;
  struct smbpool_file_id moved = {0};
  const struct files_struct *fsp;
  SMB_STRUCT_STAT now = {0};
  bool looked = false, open = false;

  if (tree == NULL || tree->process == NULL) return true;
  if (!smbpool_link_shares_folders(&tree->process->link)) return true;
  for (fsp = tree->process->sconn->files; fsp != NULL; fsp = fsp->next) {
    struct smbpool_file_id id = smbpool_id_of(&fsp->file_id);

    if (!fsp->fsp_flags.is_fsa || !fsp->fsp_flags.is_directory) continue;
    if (!looked) {
      if (SMB_VFS_NEXT_FSTATAT(handle, dirfsp, smb_fname, &now, AT_SYMLINK_NOFOLLOW) != 0) return true;
      if (!S_ISDIR(now.st_ex_mode)) return true;
      moved = smbpool_one_id(handle, &now);
      looked = true;
    }
    id = smbpool_map_one_id(&id);
    if (memcmp(&id, &moved, sizeof(id)) != 0) continue;
    if ((fsp->access_mask & DELETE_ACCESS) != 0) return true;
    open = true;
  }
  if (open) errno = EACCES;
  return !open;
}
