/*
 * Folders that the client watches (SMB2 CHANGE_NOTIFY). smbd tells its notifyd, which tells those of the other servers
 * within a second; a change made there until then is lost. There is no hook for it, so a look at the event loop, before
 * smbd takes the client's next request, finds the handles that are watched now. The daemon is told and smbd waits until
 * the watch counts on all servers: whatever the client does next, a change that follows is reported. Without the daemon
 * it is as late as without the module.
 */
#include "module.h"

/* The event loop outlives the attachment. */
static struct smbpool_process *looked_for;
static tevent_trace_callback_t loop_callback;
static void *loop_callback_data;

static void remove_from_list(struct smbpool_process *process, struct smbpool_folder *folder) {
  if (folder->number == 0) DLIST_REMOVE(process->folders, folder);
}

void smbpool_notify_opened(struct smbpool_open *open) {
  struct smbpool_process *process = open->tree->process;

  if (!open->fsp->fsp_flags.is_directory) return;
  /* Without memory for it: the folder is watched as without the module. */
  open->folder = talloc_zero(process, struct smbpool_folder);
  if (open->folder == NULL) return;
  open->folder->open = open;
  DLIST_ADD(process->folders, open->folder);
}

void smbpool_notify_closed(struct smbpool_open *open) {
  struct smbpool_process *process = open->tree->process;
  struct smbpool_folder *folder = open->folder;

  if (folder == NULL) return;
  open->folder = NULL;
  remove_from_list(process, folder);
  if (folder->number != 0) {
    struct smbpool_msg_notify_end message = {.number = folder->number};
    smbpool_report(process, SMBPOOL_OP_NOTIFY_END, &message, sizeof(message), NULL, 0);
  }
  TALLOC_FREE(folder);
}

/* The path as notifyd has it; its length, 0: none that fits. Writes at most SMBPOOL_PATH_BYTES_MAX bytes and a NUL. */
static uint16_t put_folder(struct files_struct *fsp, char *path) {
  size_t length = fsp_fullbasepath(fsp, path, SMBPOOL_PATH_BYTES_MAX + 1);

  if (length > SMBPOOL_PATH_BYTES_MAX) return 0;
  /* The share's root: smbd leaves this out for notifyd. */
  if (length > 2 && path[length - 1] == '.' && path[length - 2] == '/') length -= 2;
  return (uint16_t)length;
}

static bool send_notify(struct smbpool_folder *folder, uint64_t number, uint32_t flags) {
  struct files_struct *fsp = folder->open->fsp;
  struct smbpool_process *process = folder->open->tree->process;
  struct timespec now;
  char path[SMBPOOL_PATH_BYTES_MAX + 1];
  struct smbpool_msg_notify message = {.number = number,
                                       .handle = (uintptr_t)fsp,
                                       .filter = fsp->notify->filter,
                                       .subdir_filter = fsp->notify->subdir_filter,
                                       .flags = flags};

  message.path_bytes = put_folder(fsp, path);
  if (message.path_bytes == 0) {
    smbpool_link_count(&process->link, SMBPOOL_CLIENT_NOTIFIES_LATE);
    return true;
  }
  clock_gettime(CLOCK_MONOTONIC, &now);
  message.since_seconds = (uint64_t)now.tv_sec;
  message.since_nanoseconds = (uint64_t)now.tv_nsec;
  if (!smbpool_try_send(process, SMBPOOL_OP_NOTIFY_BEGIN, &message, sizeof(message), path, message.path_bytes)) {
    return false;
  }
  if ((flags & SMBPOOL_NOTIFY_WANTS_REPLY) != 0) process->notify_missing++;
  return true;
}

void smbpool_notify_answered(struct smbpool_process *process, const struct smbpool_msg_notify_ready *ready) {
  if (ready->result != SMBPOOL_NOTIFY_EVERYWHERE) smbpool_link_count(&process->link, SMBPOOL_CLIENT_NOTIFIES_LATE);
  /* One of an earlier wait may still come after that was given up. */
  if (ready->number >= process->notify_first && process->notify_missing > 0) process->notify_missing--;
}

/* False: not all that was asked is answered. */
static bool wait_for_answers(struct smbpool_process *process, uint32_t wait_ms) {
  uint64_t deadline_us = smbpool_now_us() + (uint64_t)wait_ms * 1000u;

  while (process->notify_missing > 0) {
    uint32_t left_ms = smbpool_left_ms(deadline_us);

    if (left_ms == 0 || !process->hear(process, left_ms)) return false;
  }
  return true;
}

bool smbpool_notify_replay(struct smbpool_open *open) {
  struct smbpool_folder *folder = open->folder;

  if (folder == NULL || folder->number == 0 || open->fsp->notify == NULL) return true;
  return send_notify(folder, folder->number, 0);
}

/* Tells the daemon of the folders that are watched now. */
static void look(struct smbpool_process *process) {
  struct smbpool_folder *folder, *next;
  uint32_t wait_ms = 0;

  process->notify_first = process->next_notify;
  process->notify_missing = 0;
  for (folder = process->folders; folder != NULL; folder = next) {
    const struct notify_change_buf *notify = folder->open->fsp->notify;

    next = folder->next;
    /* Without a filter smbd tells nobody. */
    if (notify == NULL || (notify->filter == 0 && notify->subdir_filter == 0)) continue;
    if (!send_notify(folder, process->next_notify, SMBPOOL_NOTIFY_WANTS_REPLY)) break;
    remove_from_list(process, folder);
    folder->number = process->next_notify++;
    wait_ms = folder->open->tree->config.notify_wait_ms;
  }
  if (wait_ms > 0 && !wait_for_answers(process, wait_ms)) {
    smbpool_link_count(&process->link, SMBPOOL_CLIENT_NOTIFIES_LATE);
    DBG_NOTICE("smbpool: no answer from smbpoold in %u ms: changes made through other servers may not be told for "
               "another second\n", wait_ms);
  }
}

static void on_loop(enum tevent_trace_point point, void *private_data) {
  if (loop_callback != NULL) loop_callback(point, loop_callback_data);
  if (looked_for == NULL || looked_for->folders == NULL || !smbpool_process_up(looked_for)) return;
  /* Between two events, so that what is scheduled in the wait is not overlooked. */
  if (point == TEVENT_TRACE_BEFORE_LOOP_ONCE) look(looked_for);
}

void smbpool_notify_start(struct smbpool_process *process) {
  tevent_trace_callback_t callback = NULL;
  void *data = NULL;

  looked_for = process;
  tevent_get_trace_callback(process->sconn->ev_ctx, &callback, &data);
  if (callback == on_loop) return;
  loop_callback = callback;
  loop_callback_data = data;
  tevent_set_trace_callback(process->sconn->ev_ctx, on_loop, NULL);
}

void smbpool_notify_stop(void) {
  looked_for = NULL;
}
