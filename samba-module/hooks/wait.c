/*
 * Deferring a create while its records come home, and running it again: smbd parks the request as it does for an oplock
 * break. Called by open.c and, when the daemon answers or dies, by attach.c. The state hangs on the smb2 request, so
 * cancel and disconnect clean up by themselves. Must never leave a request parked without a timer. What cannot be
 * parked and must not go on unasked waits on the spot, for a bounded time.
 */
#include "module.h"

/* Between two tries to do or answer what is recalled, while no timer runs. */
#define RECALL_LOOK_MS 10u

/*
 * Goes with smbd's own record of the deferral, so that its destructor tells us when smbd took the deferral off: because
 * we or smbd ran the create again, because the client cancelled, or because the connection ended.
 */
struct smbpool_deferral {
  struct smbpool_wait *wait;
};

static int deferral_destructor(struct smbpool_deferral *deferral) {
  struct smbpool_wait *wait = deferral->wait;

  if (wait == NULL) return 0;
  wait->deferral = NULL;
  smb2_request_set_async_internal(wait->smb2req, false);
  if (!wait->resumed) {
    /* Nobody asked it to go on: a cancel. */
    wait->over = true;
    TALLOC_FREE(wait->deadline_timer);
    TALLOC_FREE(wait->delay_timer);
    smbpool_link_count(&wait->tree->process->link, SMBPOOL_CLIENT_WAITS_CANCELLED);
  }
  return 0;
}

static int wait_destructor(struct smbpool_wait *wait) {
  struct smbpool_process *process = wait->tree->process;

  if (wait->deferral != NULL) wait->deferral->wait = NULL;
  wait->deferral = NULL;
  DLIST_REMOVE(process->waits, wait);
  if (wait->asked) {
    struct smbpool_msg_open_cancel cancel = {.operation = wait->operation};
    smbpool_report(process, SMBPOOL_OP_OPEN_CANCEL, &cancel, sizeof(cancel), NULL, 0);
  }
  return 0;
}

struct smbpool_wait *smbpool_wait_find(struct smbpool_process *process, const struct smbd_smb2_request *smb2req) {
  struct smbpool_wait *wait;

  for (wait = process->waits; wait != NULL; wait = wait->next) {
    /* One that is over belongs to an earlier request of the same compound. */
    if (wait->smb2req == smb2req && !wait->over) return wait;
  }
  return NULL;
}

struct smbpool_wait *smbpool_wait_new(struct smbpool_tree *tree, struct smb_request *req) {
  struct smbpool_wait *wait = NULL;

  if (req != NULL) {
    wait = talloc_zero(req->smb2req, struct smbpool_wait);
  } else {
    wait = talloc_zero(tree->process, struct smbpool_wait);
  }
  if (wait == NULL) return NULL;
  wait->tree = tree;
  if (req != NULL) {
    wait->smb2req = req->smb2req;
    wait->xconn = req->xconn;
    wait->mid = req->mid;
  }
  wait->operation = tree->process->next_operation++;
  wait->began_us = smbpool_now_us();
  wait->answered = true;
  DLIST_ADD(tree->process->waits, wait);
  talloc_set_destructor(wait, wait_destructor);
  return wait;
}

static void resume(struct smbpool_wait *wait) {
  if (wait->over || wait->resumed || wait->deferral == NULL) return;
  wait->resumed = true;
  TALLOC_FREE(wait->deadline_timer);
  TALLOC_FREE(wait->delay_timer);
  if (!schedule_deferred_open_message_smb(wait->xconn, wait->mid)) {
    /* The request is being torn down; its memory, and so this wait, goes with it. */
    DBG_DEBUG("smbpool: mid %" PRIu64 " is gone\n", wait->mid);
  }
}

static void maybe_resume(struct smbpool_wait *wait) {
  if (wait->answered && !wait->delayed) resume(wait);
}

static uint32_t deadline_ms(const struct smbpool_wait *wait) {
  return wait->excludes ? SMBPOOL_EXCLUSION_WAIT_MS : wait->tree->config.wait_ms;
}

static void expire(struct smbpool_wait *wait) {
  smbpool_link_count(&wait->tree->process->link, SMBPOOL_CLIENT_WAITS_EXPIRED);
  DBG_NOTICE("smbpool: no answer from smbpoold in %u ms, the open %s\n", deadline_ms(wait),
             wait->excludes ? "is refused" : "goes on without it");
  wait->refused = wait->excludes;
  wait->answered = true;
}

static void on_deadline(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data) {
  struct smbpool_wait *wait = talloc_get_type_abort(private_data, struct smbpool_wait);

  TALLOC_FREE(wait->deadline_timer);
  if (!wait->answered) expire(wait);
  maybe_resume(wait);
}

static void on_delay(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data) {
  struct smbpool_wait *wait = talloc_get_type_abort(private_data, struct smbpool_wait);

  TALLOC_FREE(wait->delay_timer);
  wait->delayed = false;
  maybe_resume(wait);
}

static bool start_timers(struct smbpool_wait *wait, struct tevent_context *ev) {
  const struct smbpool_config *config = &wait->tree->config;

  if (config->delay_ms > 0) {
    wait->delayed = true;
    wait->delay_timer = tevent_add_timer(ev, wait, timeval_current_ofs_msec(config->delay_ms), on_delay, wait);
    if (wait->delay_timer == NULL) return false;
  }
  if (!wait->answered) {
    wait->deadline_timer = tevent_add_timer(ev, wait, timeval_current_ofs_msec(deadline_ms(wait)), on_deadline, wait);
    if (wait->deadline_timer == NULL) return false;
  }
  return true;
}

bool smbpool_wait_defer(struct smbpool_wait *wait, struct smb_request *req, struct file_id id) {
  struct timeval timeout = {.tv_sec = 0};
  struct deferred_open_record *record = talloc_zero(NULL, struct deferred_open_record);
  struct deferred_open_record *earlier = NULL;

  if (record == NULL) return false;
  record->xconn = req->xconn;
  record->mid = req->mid;
  wait->deferral = talloc_zero(record, struct smbpool_deferral);
  if (wait->deferral == NULL || !start_timers(wait, req->sconn->ev_ctx)) {
    wait->deferral = NULL;
    TALLOC_FREE(record);
    return false;
  }
  if (get_deferred_open_message_state(req, &req->request_time, &earlier)) {
    /* smbd itself runs this create again: it must find its mark, and the time the request came, when we are done. */
    wait->keep_mark = true;
    TALLOC_FREE(earlier);
  }
  wait->deferral->wait = wait;
  talloc_set_destructor(wait->deferral, deferral_destructor);
  if (!push_deferred_open_message_smb(req, timeout, id, record)) {
    wait->resumed = true;
    TALLOC_FREE(record);
    return false;
  }
  /* No interim answer to the client, and compounds stay legal: to smbd this is synchronous work that takes long. */
  smb2_request_set_async_internal(req->smb2req, true);
  return true;
}

void smbpool_wait_leave(struct smbpool_wait *wait, struct smb_request *req) {
  wait->resumed = true;
  TALLOC_FREE(wait->deadline_timer);
  TALLOC_FREE(wait->delay_timer);
  smb2_request_set_async_internal(req->smb2req, false);
  if (wait->deferral != NULL && !wait->keep_mark) remove_deferred_open_message_smb(req->xconn, req->mid);
}

void smbpool_wait_finish(struct smbpool_wait *wait, struct smb_request *req) {
  /*
   * A kept mark that smbd did not take off would park the request for ever. It is ours as long as our part of the
   * record lives: smbd's own new deferral has a record of its own.
   */
  if (wait->deferral != NULL) remove_deferred_open_message_smb(req->xconn, req->mid);
  TALLOC_FREE(wait);
}

void smbpool_wait_block(struct smbpool_wait *wait) {
  struct smbpool_process *process = wait->tree->process;
  uint64_t deadline_us = smbpool_now_us() + SMBPOOL_EXCLUSION_WAIT_MS * 1000u;

  while (!wait->answered) {
    uint32_t left_ms = smbpool_left_ms(deadline_us);

    if (left_ms == 0) break;
    /*
     * The daemon waits for this smbd, too, and other smbds may wait on the spot for this one. The pass that waits has
     * made no entry yet and makes its ids anew; the handles it has are rewritten like all others.
     */
    smbpool_folder_work(process);
    if (process->recalls != NULL && left_ms > RECALL_LOOK_MS) left_ms = RECALL_LOOK_MS;
    if (!process->hear(process, left_ms)) break;
  }
  if (!wait->answered) expire(wait);
}

void smbpool_wait_answered(struct smbpool_process *process, uint64_t operation, uint32_t result) {
  struct smbpool_wait *wait;

  for (wait = process->waits; wait != NULL; wait = wait->next) {
    if (wait->operation != operation || wait->answered || wait->over) continue;
    wait->answered = true;
    wait->refused = wait->excludes && result == SMBPOOL_READY_REFUSED;
    smbpool_link_count(&process->link, SMBPOOL_CLIENT_WAITS_READY);
    maybe_resume(wait);
    return;
  }
}

void smbpool_wait_abandon(struct smbpool_wait *wait) {
  resume(wait);
  TALLOC_FREE(wait);
}

void smbpool_wait_release_all(struct smbpool_process *process) {
  struct smbpool_wait *wait;

  for (wait = process->waits; wait != NULL; wait = wait->next) {
    wait->asked = false; /* whom we asked is gone */
    wait->answered = true;
    /* Also one that was answered and did not run yet: nobody keeps the folder for it any more. */
    wait->refused = wait->excludes;
    if (!wait->over) maybe_resume(wait);
  }
}
