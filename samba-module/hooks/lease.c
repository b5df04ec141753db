/*
 * Oplock and lease changes. smbd calls no hook when it sends a break, hears the acknowledgement or times it out, so the
 * module compares what smbd has in memory with what it last reported, by a timer, for files that the daemon asks to
 * watch (because somebody waits for a break of them). Only smbd's memory is read.
 */
#include "module.h"

/* A break is over after smbd's own time-out (35 s): no watch lasts longer. */
#define WATCH_MS_MAX 40000u

/* What the client was asked to go down to; smbd keeps the old level until the client answers. */
static uint32_t asked_level(const struct files_struct *fsp) {
  if (fsp->lease != NULL || fsp->sent_oplock_break == NO_BREAK_SENT) return (uint32_t)fsp->oplock_type;
  return fsp->sent_oplock_break == LEVEL_II_BREAK_SENT ? LEVEL_II_OPLOCK : NO_OPLOCK;
}

void smbpool_open_refresh(struct smbpool_open *open) {
  struct files_struct *fsp = open->fsp;
  uint32_t oplock = (uint32_t)fsp->oplock_type;
  uint32_t lease_state = fsp->lease != NULL ? fsp->lease->lease.lease_state : 0;
  bool breaking = fsp->sent_oplock_break != NO_BREAK_SENT ||
                  (fsp->lease != NULL && (fsp->lease->lease.lease_flags & SMB2_LEASE_FLAG_BREAK_IN_PROGRESS) != 0);
  struct smbpool_msg_lease_change message = {.file = smbpool_id_of(&fsp->file_id),
                                             .share_file_id = fh_get_gen_id(fsp->fh),
                                             .tree = open->tree->number,
                                             .oplock_before = open->oplock,
                                             .oplock_after = oplock,
                                             .lease_before = open->lease_state,
                                             .lease_after = lease_state};

  if (oplock == open->oplock && lease_state == open->lease_state && breaking == open->breaking) return;
  if (fsp->op != NULL) message.persistent_id = fsp->op->global->open_persistent_id;
  if (fsp->lease != NULL) memcpy(message.lease_key, &fsp->lease->lease.lease_key, sizeof(message.lease_key));
  message.kind = breaking && !open->breaking ? SMBPOOL_LEASE_BREAK_SENT : SMBPOOL_LEASE_CHANGED;
  if (message.kind == SMBPOOL_LEASE_BREAK_SENT) message.oplock_after = asked_level(fsp);
  open->oplock = oplock;
  open->lease_state = lease_state;
  open->breaking = breaking;
  smbpool_report(open->tree->process, SMBPOOL_OP_LEASE_CHANGE, &message, sizeof(message), NULL, 0);
}

static void on_watch(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data);

static void watch_again(struct smbpool_process *process) {
  if (process->watch_timer != NULL) return;
  process->watch_interval_ms = smbpool_map_watch_interval_ms(process->watch_interval_ms);
  process->watch_timer = tevent_add_timer(process->sconn->ev_ctx, process,
                                          timeval_current_ofs_msec(process->watch_interval_ms), on_watch, process);
}

static void on_watch(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);
  uint64_t now_ms = smbpool_now_us() / 1000u;
  struct smbpool_open *open;
  bool more = false;

  TALLOC_FREE(process->watch_timer);
  for (open = process->opens; open != NULL; open = open->next) {
    if (open->watch_until_ms == 0) continue;
    smbpool_open_refresh(open);
    if (now_ms < open->watch_until_ms || open->breaking) {
      more = true;
    } else {
      open->watch_until_ms = 0;
    }
  }
  if (more) watch_again(process);
}

void smbpool_watch_open(struct smbpool_open *open) {
  struct smbpool_process *process = open->tree->process;

  open->watch_until_ms = smbpool_now_us() / 1000u + WATCH_MS_MAX;
  process->watch_interval_ms = 0;
  TALLOC_FREE(process->watch_timer);
  watch_again(process);
}

void smbpool_watch_file(struct smbpool_process *process, const struct smbpool_file_id *id, uint32_t watch_ms) {
  uint64_t until_ms = smbpool_now_us() / 1000u + (watch_ms < WATCH_MS_MAX ? watch_ms : WATCH_MS_MAX);
  struct smbpool_open *open;
  bool found = false;

  for (open = process->opens; open != NULL; open = open->next) {
    struct smbpool_file_id own = smbpool_id_of(&open->fsp->file_id);

    if (memcmp(&own, id, sizeof(own)) != 0) continue;
    if (until_ms > open->watch_until_ms) open->watch_until_ms = until_ms;
    found = true;
  }
  if (!found) return;
  process->watch_interval_ms = 0;
  TALLOC_FREE(process->watch_timer);
  watch_again(process);
}
