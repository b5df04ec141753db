/*
 * Create: find out whether the records of the open are on this server, wait for them without blocking if they are not,
 * let smbd open, report what came of it. And openat: say which inode was made. Called by smbd for each SMB2 CREATE,
 * once or, for one that was deferred, again from the top. Must be right whatever the daemon does or does not answer.
 */
#include "module.h"

/* The arguments of one create that the reports need. */
struct create_facts {
  struct smbpool_tree *tree;
  struct smb_request *req;
  struct smb_filename *name;
  uint32_t access_mask;
  uint32_t share_access;
  uint32_t disposition;
  uint32_t options;
  uint32_t oplock;
  const struct smb2_lease *lease;
  struct file_id id;
  bool exists;
};

/* At the file of a create that was granted. */
struct looks {
  SMB_STRUCT_STAT before; /* smbd's, before it locked the share modes */
  SMB_STRUCT_STAT now;
  bool changed;
};

static bool keys_home(const struct create_facts *create) {
  struct smbpool_process *process = create->tree->process;
  struct smbpool_file_id id = smbpool_id_of(&create->id);
  const struct files_struct *pathref = create->name->fsp;

  if (!smbpool_link_is_home(&process->link, SMBPOOL_HOME_FILE, &id, sizeof(id))) return false;
  if (create->lease != NULL && create->req->xconn != NULL) {
    uint8_t key[32];
    /* As leases.tdb has them: the client's GUID, then the key of the lease. */
    memcpy(key, &create->req->xconn->smb2.client.guid, 16);
    memcpy(key + 16, &create->lease->lease_key, 16);
    if (!smbpool_link_is_home(&process->link, SMBPOOL_HOME_LEASE, key, sizeof(key))) return false;
  }
  if (pathref != NULL && pathref->base_fsp != NULL) {
    struct smbpool_file_id base = smbpool_id_of(&pathref->base_fsp->file_id);
    if (!smbpool_link_is_home(&process->link, SMBPOOL_HOME_FILE, &base, sizeof(base))) return false;
  }
  return true;
}

static uint32_t put_path(const struct smb_filename *name, uint8_t *texts) {
  uint16_t base_bytes = smbpool_map_text_bytes(name->base_name, SMBPOOL_PATH_BYTES_MAX);
  uint16_t stream_bytes = smbpool_map_text_bytes(name->stream_name, SMBPOOL_PATH_BYTES_MAX - base_bytes);
  uint32_t length = smbpool_map_append(texts, 0, name->base_name, base_bytes);

  return smbpool_map_append(texts, length, name->stream_name, stream_bytes);
}

static bool send_begin(const struct create_facts *create, uint64_t operation, uint32_t flags) {
  const struct files_struct *pathref = create->name->fsp;
  struct smbpool_msg_open_begin message = {
      .operation = operation,
      .tree = create->tree->number,
      .flags = flags,
      .deadline_ms = create->tree->config.wait_ms,
      .access_mask = create->access_mask,
      .share_access = create->share_access,
      .disposition = create->disposition,
      .create_options = create->options,
      .oplock = create->oplock,
  };
  uint8_t texts[SMBPOOL_PATH_BYTES_MAX];
  uint32_t length = put_path(create->name, texts);

  if (create->exists) {
    message.file = smbpool_id_of(&create->id);
  } else {
    message.flags |= SMBPOOL_OPEN_NEW;
  }
  if (pathref != NULL && pathref->base_fsp != NULL) {
    message.flags |= SMBPOOL_OPEN_HAS_BASE;
    message.base = smbpool_id_of(&pathref->base_fsp->file_id);
  }
  if (create->lease != NULL) {
    message.flags |= SMBPOOL_OPEN_HAS_LEASE;
    message.lease_state = create->lease->lease_state;
    memcpy(message.lease_key, &create->lease->lease_key, sizeof(message.lease_key));
  }
  if (get_deferred_open_message_state(create->req, NULL, NULL)) message.flags |= SMBPOOL_OPEN_RETRY;
  message.path_bytes = (uint16_t)length;
  if ((flags & SMBPOOL_OPEN_WANTS_REPLY) == 0) {
    return smbpool_post(create->tree->process, SMBPOOL_OP_OPEN_BEGIN, &message, sizeof(message), texts, length);
  }
  return smbpool_try_send(create->tree->process, SMBPOOL_OP_OPEN_BEGIN, &message, sizeof(message), texts, length);
}

/* Outcome of a create that made no handle. */
static void send_refused(const struct create_facts *create, uint64_t operation, NTSTATUS status, uint32_t took_us) {
  struct smbpool_msg_open message = {
      .operation = operation,
      .tree = create->tree->number,
      .status = NT_STATUS_V(status),
      .access_mask = create->access_mask,
      .share_access = create->share_access,
      .disposition = create->disposition,
      .oplock = create->oplock,
      .took_us = took_us,
  };
  uint8_t texts[SMBPOOL_PATH_BYTES_MAX];
  uint32_t length = put_path(create->name, texts);

  if (create->exists) message.file = smbpool_id_of(&create->id);
  if (create->lease != NULL) {
    message.flags |= SMBPOOL_OPEN_HAS_LEASE;
    memcpy(message.lease_key, &create->lease->lease_key, sizeof(message.lease_key));
  }
  if (open_was_deferred(create->req->xconn, create->req->mid)) message.flags |= SMBPOOL_OPEN_DEFERRED;
  message.path_bytes = (uint16_t)length;
  smbpool_report(create->tree->process, SMBPOOL_OP_OPEN_END, &message, sizeof(message), texts, length);
}

static void send_result(const struct create_facts *create, uint64_t operation, uint64_t began_us, NTSTATUS status,
                        struct files_struct *fsp, const struct looks *looks, int action) {
  uint32_t took_us = (uint32_t)(smbpool_now_us() - began_us);
  struct smbpool_open *open = NULL;

  if (!NT_STATUS_IS_OK(status)) {
    send_refused(create, operation, status, took_us);
    return;
  }
  open = smbpool_open_add(create->tree, fsp);
  if (open == NULL) return;
  open->share_access = create->share_access;
  open->disposition = create->disposition;
  open->create_action = (uint32_t)action;
  smbpool_break_note(open, looks->changed ? &looks->before : &looks->now, &looks->now);
  smbpool_send_open(open, SMBPOOL_OP_OPEN_END, operation, 0, took_us);
  smbpool_drain_opened(open);
}

/*
 * First pass of a create: true when it was deferred. Otherwise *operation is the number to report the end under, 0 when
 * there is no daemon; *home: every record of it was found here.
 */
static bool begin(const struct create_facts *create, uint64_t *operation, bool *home) {
  struct smbpool_process *process = create->tree->process;
  struct smbpool_open_facts facts = {
      .can_wait = create->req->smb2req != NULL && create->req->smb2req->subreq != NULL,
      .link_up = smbpool_process_up(process),
      .exists = create->exists,
      .defer_option = create->tree->config.defer,
      .delay_ms = create->tree->config.delay_ms,
  };
  enum smbpool_open_plan plan;
  struct smbpool_wait *wait = NULL;

  facts.keys_home = facts.link_up && facts.exists && keys_home(create);
  plan = smbpool_map_open_plan(&facts);
  if (plan == SMBPOOL_PLAN_WAIT || plan == SMBPOOL_PLAN_DELAY) wait = smbpool_wait_new(create->tree, create->req);
  if (wait != NULL) {
    *operation = wait->operation;
    if (plan == SMBPOOL_PLAN_WAIT) {
      wait->asked = send_begin(create, wait->operation, SMBPOOL_OPEN_WANTS_REPLY);
      wait->answered = !wait->asked;
      smbpool_link_count(&process->link, wait->asked ? SMBPOOL_CLIENT_OPENS_WAITED : SMBPOOL_CLIENT_OPENS_SLOW);
    }
    if ((!wait->answered || facts.delay_ms > 0) && smbpool_wait_defer(wait, create->req, create->id)) return true;
    wait->asked = false; /* it goes on at once and reports its end as usual */
    TALLOC_FREE(wait);
    return false;
  }
  if (!facts.link_up) return false;
  *operation = process->next_operation++;
  *home = facts.keys_home;
  smbpool_link_count(&process->link, facts.keys_home ? SMBPOOL_CLIENT_OPENS_HOME : SMBPOOL_CLIENT_OPENS_SLOW);
  send_begin(create, *operation, facts.keys_home ? SMBPOOL_OPEN_HOME : 0);
  return false;
}

/*
 * smbd noted the time of its look in the share modes, as the write time that further opens are told. Never back:
 * whoever cut the file off meanwhile has noted a later time, and who is told an earlier one takes new content for old.
 */
static void note_write_time(struct file_id id, struct timespec written) {
  struct share_mode_lock *lock = get_existing_share_mode_lock(talloc_tos(), id);
  struct timespec noted;

  if (lock == NULL) return;
  noted = get_share_mode_write_time(lock);
  if (is_omit_timespec(&noted) || timespec_compare(&noted, &written) < 0) set_write_time(id, written);
  TALLOC_FREE(lock);
}

/*
 * smbd looks at the file before it locks its share modes, and the record of these may have to come from another server
 * first. What a client there wrote in between is missing in that look; and the lease that smbd grants with it makes the
 * client go by it until somebody breaks the lease, which that writer does not do any more. So look again after the
 * grant: whoever writes from here on breaks it.
 */
static void look_again(struct files_struct *fsp, int action, struct looks *looks) {
  SMB_STRUCT_STAT *seen = &fsp->fsp_name->st;
  SMB_STRUCT_STAT *now = &looks->now;

  looks->before = *seen;
  /* Keeps what fstat does not fill in: since 4.18 the DOS attributes that smbd has cached there. */
  *now = *seen;
  if (!S_ISREG(seen->st_ex_mode) || fsp_get_pathref_fd(fsp) == -1) return;
  if (SMB_VFS_FSTAT(fsp, now) != 0) return;
  looks->changed = now->st_ex_size != seen->st_ex_size;
  /* To make or overwrite a file, smbd itself changes more of it after its look. */
  if (action == FILE_WAS_OPENED && timespec_compare(&now->st_ex_ctime, &seen->st_ex_ctime) != 0) looks->changed = true;
  if (!looks->changed) return;
  now->st_ex_btime = seen->st_ex_btime;
  *seen = *now;
  note_write_time(fsp->file_id, now->st_ex_mtime);
}

/* An open that must not be granted after all. What it created stays: this server changes nothing any more. */
static NTSTATUS take_back(struct smb_request *req, files_struct **result) {
  close_file_free(req, result, ERROR_CLOSE);
  return SMBPOOL_STATUS_FENCED;
}

NTSTATUS smbpool_create_file(struct vfs_handle_struct *handle, struct smb_request *req, struct files_struct *dirfsp,
                             struct smb_filename *smb_fname, uint32_t access_mask, uint32_t share_access,
                             uint32_t create_disposition, uint32_t create_options, uint32_t file_attributes,
                             uint32_t oplock_request, const struct smb2_lease *lease, uint64_t allocation_size,
                             uint32_t private_flags, struct security_descriptor *sd, struct ea_list *ea_list,
                             files_struct **result, int *pinfo, const struct smb2_create_blobs *in_context_blobs,
                             struct smb2_create_blobs *out_context_blobs) {
  struct smbpool_tree *tree = handle->data;
  struct create_facts create = {.tree = tree,
                                .req = req,
                                .name = smb_fname,
                                .access_mask = access_mask,
                                .share_access = share_access,
                                .disposition = create_disposition,
                                .options = create_options,
                                .oplock = oplock_request,
                                .lease = lease};
  bool ours = tree != NULL && tree->process != NULL && req != NULL;
  struct smbpool_wait *wait = NULL;
  uint64_t began_us = 0, operation = 0, outer_operation = 0;
  uint64_t own_ns = 0;
  struct looks looks = {0};
  struct smb2_lease drained_lease;
  bool home = false;
  bool fenced = !smbpool_fence_pass(handle);
  int info = FILE_WAS_OPENED;
  NTSTATUS status;

  if (ours) {
    own_ns = smbpool_now_ns();
    began_us = own_ns / 1000u;
    create.exists = VALID_STAT(smb_fname->st);
    if (create.exists) create.id = vfs_file_id_from_sbuf(handle->conn, &smb_fname->st);
    if (req->smb2req != NULL) wait = smbpool_wait_find(tree->process, req->smb2req);
    if (wait != NULL) {
      operation = wait->operation;
      began_us = wait->began_us;
      smbpool_wait_leave(wait, req);
    } else if (!fenced && begin(&create, &operation, &home)) {
      return NT_STATUS_RETRY; /* smbd sees that the create was deferred; the status goes nowhere */
    }
    /* Deferred by smbd itself before: with its mark the request would be parked for ever. */
    if (fenced) remove_deferred_open_message_smb(req->xconn, req->mid);
    outer_operation = tree->process->running_operation;
    tree->process->running_operation = operation;
    own_ns = smbpool_now_ns() - own_ns;
  }

  if (ours && smbpool_link_draining(&tree->process->link)) {
    if (lease != NULL) {
      drained_lease = *lease;
      drained_lease.lease_state = smbpool_map_drained_lease(lease->lease_state);
      lease = &drained_lease;
    }
    oplock_request = smbpool_map_drained_oplock(oplock_request);
  }
  if (tree != NULL) tree->creates_running++;
  status = fenced ? SMBPOOL_STATUS_FENCED
                  : SMB_VFS_NEXT_CREATE_FILE(handle, req, dirfsp, smb_fname, access_mask, share_access,
                                             create_disposition, create_options, file_attributes, oplock_request,
                                             lease, allocation_size, private_flags, sd, ea_list, result, &info,
                                             in_context_blobs, out_context_blobs);
  if (tree != NULL) tree->creates_running--;
  if (pinfo != NULL) *pinfo = info;
  /* Records come from other servers in there: by now the lease may be over. */
  if (NT_STATUS_IS_OK(status) && !smbpool_fence_pass(handle)) status = take_back(req, result);
  if (NT_STATUS_IS_OK(status)) look_again(*result, info, &looks);

  if (ours) {
    uint64_t back_ns = smbpool_now_ns();

    tree->process->running_operation = outer_operation;
    if (looks.changed) smbpool_link_count(&tree->process->link, SMBPOOL_CLIENT_OPENS_CHANGED);
    if (wait != NULL) {
      wait->asked = false; /* the end is reported below, it was not cancelled */
      smbpool_wait_finish(wait, req);
    }
    /* The daemon never heard of a create that did not begin. */
    if (!fenced || operation != 0) {
      send_result(&create, operation, began_us, status, NT_STATUS_IS_OK(status) ? *result : NULL, &looks, info);
    }
    own_ns += smbpool_now_ns() - back_ns;
    if (home) smbpool_link_count_by(&tree->process->link, SMBPOOL_CLIENT_HOME_NS, own_ns);
  }
  return status;
}

int smbpool_openat(struct vfs_handle_struct *handle, const struct files_struct *dirfsp,
                   const struct smb_filename *smb_fname, struct files_struct *fsp, const struct vfs_open_how *how) {
  struct smbpool_tree *tree = handle->data;
  struct stat made;
  int fd, saved_errno;

  if ((how->flags & (O_CREAT | O_TRUNC)) != 0 && !smbpool_fence_pass(handle)) return -1;
  fd = SMB_VFS_NEXT_OPENAT(handle, dirfsp, smb_fname, fsp, how);
  saved_errno = errno;
  if (fd == -1 || tree == NULL || tree->process == NULL || !smbpool_process_up(tree->process)) return fd;
  /* smbd makes files with O_EXCL: success means that nobody had this inode before. */
  if ((how->flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL) || fsp->fsp_flags.is_pathref) return fd;
  if (fstat(fd, &made) == 0) {
    SMB_STRUCT_STAT as_smbd_has_it = {.st_ex_dev = made.st_dev, .st_ex_ino = made.st_ino};
    struct file_id id = vfs_file_id_from_sbuf(handle->conn, &as_smbd_has_it);
    struct smbpool_msg_claim claim = {
        .tree = tree->number,
        .operation = tree->process->running_operation,
        .file = smbpool_id_of(&id),
    };
    smbpool_post(tree->process, SMBPOOL_OP_CLAIM, &claim, sizeof(claim), NULL, 0);
  }
  errno = saved_errno;
  return fd;
}
