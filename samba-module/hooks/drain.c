/*
 * Draining: before a client is sent to another server, where its handles may be gone, it is to write what it caches.
 * The daemon says so twice: by a flag in the node page, with which a create is granted no caching of writes, and by a
 * message, with which all that was granted before is broken down to that. The breaks are smbd's own; what becomes of
 * them is reported as for any watched file. Touches no record.
 */
#include "module.h"
#include "librpc/gen_ndr/open_files.h"

static bool is_caching(const struct files_struct *fsp) {
  return smbpool_map_is_caching((uint32_t)fsp->oplock_type, fsp->lease != NULL ? fsp->lease->lease.lease_state : 0);
}

/* One handle stands for its lease. */
static bool is_first_of_lease(const struct smbpool_open *open) {
  const struct fsp_lease *lease = open->fsp->lease;
  const struct smbpool_open *other;

  if (lease == NULL || lease->ref_count < 2) return true;
  for (other = open->tree->process->opens; other != open; other = other->next) {
    if (other->fsp->lease == lease) return false;
  }
  return true;
}

static bool send_break(const struct smbpool_open *open) {
  struct messaging_context *messages = open->tree->process->sconn->msg_ctx;
  const struct files_struct *fsp = open->fsp;
  struct share_mode_entry entry = {.pid = messaging_server_id(messages),
                                   .op_type = (uint16_t)fsp->oplock_type,
                                   .share_file_id = fh_get_gen_id(fsp->fh)};
  /* A lease keeps what is no danger: with H its durable handles can be taken up again elsewhere. */
  uint32_t to = fsp->lease != NULL ? smbpool_map_drained_lease(fsp->lease->lease.lease_state) : SMB2_LEASE_READ;

  return NT_STATUS_IS_OK(send_break_message(messages, &fsp->file_id, &entry, (uint16_t)to));
}

void smbpool_drain_break_all(struct smbpool_process *process, uint32_t number) {
  struct smbpool_open *open;

  process->drain_breaks = 0;
  for (open = process->opens; open != NULL; open = open->next) {
    /* Whatever became of a lease that nobody watched: the daemon would wait for it. */
    smbpool_open_refresh(open);
    if (!is_caching(open->fsp)) continue;
    smbpool_watch_open(open);
    if (is_first_of_lease(open) && send_break(open)) process->drain_breaks++;
  }
  process->drain_number = number;
  /* A report that was lost comes again in the resync, and the answer behind it. */
  if (process->resync_wanted || process->resync_running) return;
  if (!smbpool_drain_answer(process)) process->on_report_lost(process);
}

bool smbpool_drain_answer(struct smbpool_process *process) {
  struct smbpool_msg_breaks_sent message = {.number = process->drain_number, .breaks = process->drain_breaks};

  if (message.number == 0) return true;
  if (!smbpool_try_send(process, SMBPOOL_OP_BREAKS_SENT, &message, sizeof(message), NULL, 0)) return false;
  process->drain_number = 0;
  return true;
}

/* A handle came with W all the same: of a lease that is being broken, or back as a durable handle. */
void smbpool_drain_opened(struct smbpool_open *open) {
  if (!smbpool_link_draining(&open->tree->process->link) || !is_caching(open->fsp)) return;
  smbpool_watch_open(open);
  send_break(open);
}
