/*
 * Create: find out whether the records of the open are on this server, wait for them without blocking if they are not,
 * let smbd open, report what came of it. And openat: say which inode was made. Called by smbd for each SMB2 CREATE,
 * once or, for one that was deferred, again from the top. Must be right whatever the daemon does or does not answer.
 * An open of a folder that may conflict with other servers' is let through with the daemon's yes only (folder.c).
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
  bool folder;   /* one that exists, and whose opens may be in slices */
  bool excludes; /* such a one, and this open must not pass by them */
};

/* What becomes of one run of a create, around smbd's own part. */
struct create_pass {
  struct smbpool_wait *wait;
  uint64_t operation; /* the number to report the end under; 0: the daemon does not know of it */
  uint64_t outer_operation;
  uint64_t began_us;
  uint64_t own_ns;
  bool home;    /* every record of it was found here */
  bool fenced;  /* this server's lease is over */
  bool refused; /* it excludes, and the daemon did not say yes */
  struct smbpool_exclusion exclusion;
};

/* At the file of a create that was granted. */
struct looks {
  SMB_STRUCT_STAT before; /* smbd's, before it locked the share modes */
  SMB_STRUCT_STAT now;
  bool changed;
};

static bool is_home(const struct smbpool_process *process, const struct file_id *file) {
  struct smbpool_file_id id = smbpool_id_of(file);

  /* A slice never leaves its server. */
  return smbpool_map_is_slice(&id) || smbpool_link_is_home(&process->link, SMBPOOL_HOME_FILE, &id, sizeof(id));
}

static bool keys_home(const struct create_facts *create) {
  struct smbpool_process *process = create->tree->process;
  const struct files_struct *pathref = create->name->fsp;

  if (!is_home(process, &create->id)) return false;
  if (create->lease != NULL && create->req->xconn != NULL) {
    uint8_t key[32];
    /* As leases.tdb has them: the client's GUID, then the key of the lease. */
    memcpy(key, &create->req->xconn->smb2.client.guid, 16);
    memcpy(key + 16, &create->lease->lease_key, 16);
    if (!smbpool_link_is_home(&process->link, SMBPOOL_HOME_LEASE, key, sizeof(key))) return false;
  }
  return pathref == NULL || pathref->base_fsp == NULL || is_home(process, &pathref->base_fsp->file_id);
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
      .deadline_ms = create->excludes ? SMBPOOL_EXCLUSION_WAIT_MS : create->tree->config.wait_ms,
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
  if (create->folder) message.flags |= SMBPOOL_OPEN_DIRECTORY;
  if (create->excludes) message.flags |= SMBPOOL_OPEN_EXCLUDES;
  if (create->req != NULL && get_deferred_open_message_state(create->req, NULL, NULL)) {
    message.flags |= SMBPOOL_OPEN_RETRY;
  }
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

static bool can_defer(const struct smb_request *req) {
  return req != NULL && req->smb2req != NULL && req->smb2req->subreq != NULL;
}

/*
 * Whether the open is of a folder that servers may share, and may conflict with other opens of it. What cannot be
 * deferred counts as if it could, whatever it asks for: SMB1, and smbd's own opens. Those with req NULL are no
 * exception: of a folder, smbd makes a share mode entry for each create, also for one that asks for attributes only
 * (open_directory does not look at INTERNAL_OPEN_ONLY). What it opens without a create (pathrefs, and the handles by
 * which it reads a folder) makes none, and does not come here.
 */
static void look_at_folder(struct create_facts *create) {
  const struct smbpool_tree *tree = create->tree;
  const struct smb_filename *name = create->name;
  struct smbpool_file_id id = smbpool_id_of(&create->id), one = smbpool_map_one_id(&id);

  if (!create->exists || !S_ISDIR(name->st.st_ex_mode) || name->stream_name != NULL) return;
  if (one.snapshot != 0 || !smbpool_link_shares_folders(&tree->process->link)) return;
  create->folder = true;
  create->excludes = !can_defer(create->req) || smbpool_map_open_excludes(create->access_mask, create->share_access,
                                                                          create->disposition, create->options);
  if (create->excludes) create->id.extid = 0;
}

/*
 * The daemon's leave for an open that excludes: false when it was deferred until the answer comes. Otherwise
 * pass->refused says what became of it.
 */
static bool ask_to_exclude(const struct create_facts *create, enum smbpool_open_plan plan, struct create_pass *pass) {
  struct smbpool_process *process = create->tree->process;
  struct smbpool_wait *wait = NULL;

  pass->refused = true;
  if (plan == SMBPOOL_PLAN_REFUSE) return true;
  wait = smbpool_wait_new(create->tree, plan == SMBPOOL_PLAN_WAIT ? create->req : NULL);
  if (wait == NULL) return true;
  wait->excludes = true;
  wait->excluded = smbpool_id_of(&create->id);
  wait->asked = send_begin(create, wait->operation, SMBPOOL_OPEN_WANTS_REPLY);
  wait->answered = !wait->asked;
  smbpool_link_count(&process->link, wait->asked ? SMBPOOL_CLIENT_OPENS_WAITED : SMBPOOL_CLIENT_OPENS_SLOW);
  if (wait->asked && plan == SMBPOOL_PLAN_WAIT && smbpool_wait_defer(wait, create->req, create->id)) return false;
  if (!wait->asked || plan == SMBPOOL_PLAN_WAIT) {
    TALLOC_FREE(wait); /* a daemon that was asked hears that it was in vain */
    return true;
  }
  smbpool_wait_block(wait);
  pass->wait = wait;
  pass->operation = wait->operation;
  pass->refused = wait->refused;
  return true;
}

/* First pass of a create: false when it was deferred. */
static bool begin(const struct create_facts *create, struct create_pass *pass) {
  struct smbpool_process *process = create->tree->process;
  struct smbpool_open_facts facts = {
      .can_wait = can_defer(create->req),
      .link_up = smbpool_process_up(process),
      .exists = create->exists,
      .defer_option = create->tree->config.defer,
      .excludes = create->excludes,
      .delay_ms = create->tree->config.delay_ms,
  };
  enum smbpool_open_plan plan;
  struct smbpool_wait *wait = NULL;

  facts.keys_home = facts.link_up && facts.exists && !facts.excludes && keys_home(create);
  plan = smbpool_map_open_plan(&facts);
  if (create->excludes) return ask_to_exclude(create, plan, pass);
  if (plan == SMBPOOL_PLAN_WAIT || plan == SMBPOOL_PLAN_DELAY) wait = smbpool_wait_new(create->tree, create->req);
  if (wait != NULL) {
    pass->operation = wait->operation;
    if (plan == SMBPOOL_PLAN_WAIT) {
      wait->asked = send_begin(create, wait->operation, SMBPOOL_OPEN_WANTS_REPLY);
      wait->answered = !wait->asked;
      smbpool_link_count(&process->link, wait->asked ? SMBPOOL_CLIENT_OPENS_WAITED : SMBPOOL_CLIENT_OPENS_SLOW);
    }
    if ((!wait->answered || facts.delay_ms > 0) && smbpool_wait_defer(wait, create->req, create->id)) return false;
    wait->asked = false; /* it goes on at once and reports its end as usual */
    TALLOC_FREE(wait);
    return true;
  }
  if (!facts.link_up) return true;
  pass->operation = process->next_operation++;
  pass->home = facts.keys_home;
  smbpool_link_count(&process->link, facts.keys_home ? SMBPOOL_CLIENT_OPENS_HOME : SMBPOOL_CLIENT_OPENS_SLOW);
  send_begin(create, pass->operation, facts.keys_home ? SMBPOOL_OPEN_HOME : 0);
  return true;
}

/* An earlier pass waited for what this one needs. */
static bool has_waited(const struct create_facts *create, const struct smbpool_wait *wait) {
  struct smbpool_file_id id = smbpool_id_of(&create->id);

  if (!create->excludes) return true;
  return wait->excludes && memcmp(&wait->excluded, &id, sizeof(id)) == 0;
}

/* Before smbd's part: false when the create was deferred. */
static bool pass_begin(const struct create_facts *create, struct create_pass *pass) {
  struct smbpool_process *process = create->tree->process;
  struct smb_request *req = create->req;
  struct smbpool_wait *wait = NULL;

  pass->own_ns = smbpool_now_ns();
  pass->began_us = pass->own_ns / 1000u;
  if (req != NULL && req->smb2req != NULL) wait = smbpool_wait_find(process, req->smb2req);
  if (wait != NULL) {
    pass->began_us = wait->began_us;
    smbpool_wait_leave(wait, req);
    if (!has_waited(create, wait)) {
      /* Meanwhile there is another folder of this name, or the pool began to share folders. */
      smbpool_wait_finish(wait, req);
      wait = NULL;
    }
  }
  if (wait != NULL) {
    pass->wait = wait;
    pass->operation = wait->operation;
    /* Whoever has it run again: without the answer it does not go on. */
    pass->refused = wait->refused || (wait->excludes && !wait->answered);
  } else if (!pass->fenced && !begin(create, pass)) {
    return false;
  }
  /* Deferred by smbd itself before: with its mark the request would be parked for ever. */
  if (req != NULL && (pass->fenced || pass->refused)) remove_deferred_open_message_smb(req->xconn, req->mid);
  pass->outer_operation = process->running_operation;
  process->running_operation = pass->operation;
  if (create->excludes && !pass->refused) {
    pass->exclusion.folder = smbpool_id_of(&create->id);
    pass->exclusion.outer = process->exclusions;
    process->exclusions = &pass->exclusion;
  }
  pass->own_ns = smbpool_now_ns() - pass->own_ns;
  return true;
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
static NTSTATUS take_back(struct smb_request *req, files_struct **result, NTSTATUS status) {
  close_file_free(req, result, ERROR_CLOSE);
  return status;
}

/* The open made the folder, or somebody did between the look at its name and the open: nobody was asked. */
static bool excludes_unasked(const struct create_facts *create, const struct files_struct *fsp) {
  const struct smbpool_tree *tree = create->tree;

  if (create->excludes || !fsp->fsp_flags.is_directory) return false;
  if (!smbpool_link_shares_folders(&tree->process->link)) return false;
  return smbpool_map_open_excludes(create->access_mask, create->share_access, FILE_OPEN, create->options);
}

/*
 * Asks now: with the daemon's yes, whoever opened the folder by a slice before this open locked its record is in that
 * record, too, so that they exclude each other. False: the open must not stand.
 */
static bool exclude_late(const struct create_facts *create, const struct files_struct *fsp) {
  const uint32_t share_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  struct create_facts late = *create;
  struct smbpool_wait *wait = NULL;
  size_t entries = 0;
  bool stands = false;

  if (!smbpool_process_up(create->tree->process)) return false;
  late.exists = late.folder = late.excludes = true;
  late.id = fsp->file_id;
  late.id.extid = 0;
  wait = smbpool_wait_new(create->tree, NULL);
  if (wait == NULL) return false;
  wait->excludes = true;
  wait->excluded = smbpool_id_of(&late.id);
  wait->asked = send_begin(&late, wait->operation, SMBPOOL_OPEN_WANTS_REPLY);
  wait->answered = !wait->asked;
  if (wait->asked) {
    smbpool_wait_block(wait);
    stands = !wait->refused;
  }
  /* Who asks to delete, and shares all, conflicts with nobody who was there before. */
  if (stands && (create->share_access & share_all) != share_all) {
    stands = NT_STATUS_IS_OK(share_mode_count_entries(late.id, &entries)) && entries == 1;
  }
  smbpool_wait_finish(wait, NULL);
  return stands;
}

/* After smbd's part. */
static void pass_end(const struct create_facts *create, struct create_pass *pass, NTSTATUS status,
                     struct files_struct *fsp, const struct looks *looks, int action) {
  struct smbpool_process *process = create->tree->process;
  uint64_t back_ns = smbpool_now_ns();

  process->running_operation = pass->outer_operation;
  if (process->exclusions == &pass->exclusion) process->exclusions = pass->exclusion.outer;
  if (looks->changed) smbpool_link_count(&process->link, SMBPOOL_CLIENT_OPENS_CHANGED);
  if (pass->wait != NULL) {
    /* The end is reported below, it was not cancelled. Of opens of smbd's own, only that they are over. */
    if (create->req != NULL) pass->wait->asked = false;
    smbpool_wait_finish(pass->wait, create->req);
  }
  /* The daemon never heard of a create that did not begin. */
  if (create->req != NULL && (pass->operation != 0 || (!pass->fenced && !pass->refused))) {
    send_result(create, pass->operation, pass->began_us, status, fsp, looks, action);
  }
  pass->own_ns += smbpool_now_ns() - back_ns;
  if (pass->home) smbpool_link_count_by(&process->link, SMBPOOL_CLIENT_HOME_NS, pass->own_ns);
}

/*
 * What the client may cache is less than it asks for while the server drains, and nothing of a folder that servers may
 * share: who breaks leases of folders does not look into slices. `lease` is a copy for what is left.
 */
static void limit_caching(const struct create_facts *create, uint32_t *oplock, const struct smb2_lease **asked,
                          struct smb2_lease *lease) {
  const struct smbpool_tree *tree = create->tree;
  bool makes_folder = !create->exists && (create->options & FILE_DIRECTORY_FILE) != 0;

  if (smbpool_link_draining(&tree->process->link)) {
    if (*asked != NULL) {
      *lease = **asked;
      lease->lease_state = smbpool_map_drained_lease(lease->lease_state);
      *asked = lease;
    }
    *oplock = smbpool_map_drained_oplock(*oplock);
  }
  if (!smbpool_leases_folders()) return;
  if (!create->folder && !(makes_folder && smbpool_link_shares_folders(&tree->process->link))) return;
  *asked = NULL;
  *oplock = NO_OPLOCK;
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
  struct create_pass pass = {.fenced = !smbpool_fence_pass(handle)};
  bool ours = tree != NULL && tree->process != NULL;
  struct looks looks = {0};
  struct smb2_lease limited_lease;
  int info = FILE_WAS_OPENED;
  NTSTATUS status;

  if (ours) {
    create.exists = VALID_STAT(smb_fname->st);
    if (create.exists) create.id = vfs_file_id_from_sbuf(handle->conn, &smb_fname->st);
    look_at_folder(&create);
    /* The daemon does not hear of smbd's own opens, but of those that exclude. */
    ours = req != NULL || create.excludes;
  }
  if (ours) {
    /* smbd sees that the create was deferred; the status goes nowhere. */
    if (!pass_begin(&create, &pass)) return NT_STATUS_RETRY;
    if (req != NULL) limit_caching(&create, &oplock_request, &lease, &limited_lease);
  }

  if (tree != NULL) tree->creates_running++;
  if (pass.fenced || pass.refused) {
    status = pass.fenced ? SMBPOOL_STATUS_FENCED : NT_STATUS_SHARING_VIOLATION;
  } else {
    status = SMB_VFS_NEXT_CREATE_FILE(handle, req, dirfsp, smb_fname, access_mask, share_access, create_disposition,
                                      create_options, file_attributes, oplock_request, lease, allocation_size,
                                      private_flags, sd, ea_list, result, &info, in_context_blobs, out_context_blobs);
  }
  if (tree != NULL) tree->creates_running--;
  if (pinfo != NULL) *pinfo = info;
  /* Records come from other servers in there: by now the lease may be over. */
  if (NT_STATUS_IS_OK(status) && !smbpool_fence_pass(handle)) status = take_back(req, result, SMBPOOL_STATUS_FENCED);
  if (ours && NT_STATUS_IS_OK(status) && excludes_unasked(&create, *result) && !exclude_late(&create, *result)) {
    status = take_back(req, result, NT_STATUS_SHARING_VIOLATION);
  }
  if (NT_STATUS_IS_OK(status)) look_again(*result, info, &looks);
  if (ours) pass_end(&create, &pass, status, NT_STATUS_IS_OK(status) ? *result : NULL, &looks, info);
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
