/*
 * Sending to the daemon, for all hooks: over the ring while it is up, not at all while it is not. Never blocks.
 */
#include "process.h"

uint64_t smbpool_now_us(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint32_t smbpool_left_ms(uint64_t deadline_us) {
  uint64_t now_us = smbpool_now_us();

  return now_us >= deadline_us ? 0 : (uint32_t)((deadline_us - now_us) / 1000u);
}

uint64_t smbpool_now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t smbpool_realtime_us(void) {
  struct timespec now;

  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

bool smbpool_process_up(const struct smbpool_process *process) {
  return process->link.state == SMBPOOL_LINK_UP && !process->link.broken;
}

static void on_bell(struct tevent_context *ev, struct tevent_immediate *im, void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);

  process->bell_scheduled = false;
  smbpool_link_ring(&process->link);
}

/* What became of a send; a broken link is taken down by a timer, not under the feet of the caller. */
static bool sent(struct smbpool_process *process, enum smbpool_ring_result result) {
  if (result == SMBPOOL_RING_BAD) process->on_broken(process);
  /* Rung from the event loop: after the answer to the client, and once for all that was posted until then. */
  if (process->link.bell_due && !process->bell_scheduled) {
    process->bell_scheduled = true;
    tevent_schedule_immediate(process->bell, process->sconn->ev_ctx, on_bell, process);
  }
  return result == SMBPOOL_RING_OK;
}

bool smbpool_try_send(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                      const void *texts, uint32_t texts_bytes) {
  if (!smbpool_process_up(process)) return false;
  return sent(process, smbpool_link_send(&process->link, op, fixed, fixed_bytes, texts, texts_bytes));
}

bool smbpool_post(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                  const void *texts, uint32_t texts_bytes) {
  if (!smbpool_process_up(process)) return false;
  return sent(process, smbpool_link_post(&process->link, op, fixed, fixed_bytes, texts, texts_bytes));
}

bool smbpool_report(struct smbpool_process *process, uint32_t op, const void *fixed, uint32_t fixed_bytes,
                    const void *texts, uint32_t texts_bytes) {
  if (!smbpool_process_up(process)) return false; /* the replay after attaching says it */
  if (smbpool_post(process, op, fixed, fixed_bytes, texts, texts_bytes)) return true;
  smbpool_link_count(&process->link, SMBPOOL_CLIENT_REPORTS_LOST);
  process->on_report_lost(process);
  return false;
}
