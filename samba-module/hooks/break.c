/*
 * A break of a lease that was lost. smbd sends the break of a lease to one of the handles that are open under it. When
 * that handle was closed before the message is read, the message is thrown away; the lease lives on in the client's
 * other handles, and who wrote has told whoever there was to tell. So when such a handle closes and the file is not
 * what it was when the handle was granted its lease, the lease is broken through another handle. By the time of the
 * look nobody sends a break to the closing handle any more: its share mode is gone.
 */
#include "module.h"
#include "librpc/gen_ndr/open_files.h"

static bool is_as_granted(const struct smbpool_open *open, const SMB_STRUCT_STAT *now) {
  return now->st_ex_size == open->granted_size && timespec_compare(&now->st_ex_ctime, &open->granted_ctime) == 0;
}

static void note_shared(struct smbpool_open *open, const struct fsp_lease *lease, const SMB_STRUCT_STAT *now) {
  bool is_writer = (lease->lease.lease_state & SMB2_LEASE_WRITE) != 0;
  struct smbpool_open *other;

  for (other = open->tree->process->opens; other != NULL; other = other->next) {
    if (other == open || other->fsp->lease != lease) continue;
    if (is_writer) {
      /* Nobody else has the file open, and nobody wrote before: what is written from here on is the client's own. */
      if (is_as_granted(other, now)) other->granted_epoch = open->granted_epoch;
    } else if (other->granted_epoch == open->granted_epoch) {
      /* No break since then: the client may go by what it read through the older handle. */
      open->granted_ctime = other->granted_ctime;
      open->granted_size = other->granted_size;
      return;
    }
  }
}

/* After the grant: `before` and `now` are looks before and after it. */
void smbpool_break_note(struct smbpool_open *open, const SMB_STRUCT_STAT *before, const SMB_STRUCT_STAT *now) {
  const struct fsp_lease *lease = open->fsp->lease;
  const SMB_STRUCT_STAT *at;

  if (lease == NULL) return;
  /* What others wrote between the looks they may have told this handle only, and the client may know older content. */
  at = (lease->lease.lease_state & SMB2_LEASE_WRITE) != 0 ? now : before;
  open->granted_ctime = at->st_ex_ctime;
  open->granted_size = at->st_ex_size;
  open->granted_epoch = lease->lease.lease_epoch;
  if (lease->ref_count > 1) note_shared(open, lease, now);
}

/* The client has been the only one who may write since the handle was granted its lease: any break counts the epoch. */
static bool is_alone(const struct smbpool_open *open, const struct smb2_lease *lease) {
  return (lease->lease_state & SMB2_LEASE_WRITE) != 0 && lease->lease_epoch == open->granted_epoch;
}

static bool has_changed(struct smbpool_open *open) {
  struct files_struct *fsp = open->fsp;
  SMB_STRUCT_STAT now = {0};

  if (!S_ISREG(fsp->fsp_name->st.st_ex_mode) || fsp_get_pathref_fd(fsp) == -1) return false;
  if (SMB_VFS_FSTAT(fsp, &now) != 0) return true;
  return !is_as_granted(open, &now);
}

static struct smbpool_open *other_of_lease(const struct smbpool_open *open) {
  struct smbpool_open *other;

  for (other = open->tree->process->opens; other != NULL; other = other->next) {
    if (other != open && other->fsp->lease == open->fsp->lease) return other;
  }
  return NULL;
}

/* The handle is being closed: its share mode is gone, its descriptor is still there. */
void smbpool_break_again(struct smbpool_open *open) {
  struct smbpool_process *process = open->tree->process;
  const struct fsp_lease *lease = open->fsp->lease;
  struct share_mode_entry entry = {.op_type = LEASE_OPLOCK};
  struct smbpool_open *other;

  if (lease == NULL || lease->ref_count < 2 || (lease->lease.lease_state & SMB2_LEASE_READ) == 0) return;
  if (is_alone(open, &lease->lease) || !has_changed(open)) return;
  other = other_of_lease(open);
  if (other == NULL) return;
  entry.pid = messaging_server_id(process->sconn->msg_ctx);
  entry.share_file_id = fh_get_gen_id(other->fsp->fh);
  smbpool_link_count(&process->link, SMBPOOL_CLIENT_BREAKS_REPEATED);
  send_break_message(process->sconn->msg_ctx, &other->fsp->file_id, &entry, SMB2_LEASE_NONE);
}
