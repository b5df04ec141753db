/*
 * The process-wide attachment to smbpoold: made by the first tree connect, shared by all, made again by itself after
 * the daemon went away, and the resync that tells a daemon what it missed. Called by connect.c.
 * Must never block, except for smbpool_wait_for_tree, which only connect_fn may call, and process->hear, for notify.c
 * and wait.c.
 */
#include "module.h"

/* Between two tries to reach a daemon that is not there. */
#define ATTACH_AGAIN_MS 500
/* Until the next try to go on with a resync that found the ring full. */
#define RESYNC_AGAIN_MS 2

/* An smbd serves one client, so one attachment; NULL while no tree of it uses the module. */
static struct smbpool_process *the_process;

static void attach_later(struct smbpool_process *process);
static void resync_later(struct smbpool_process *process, uint32_t after_ms);

/* The events first: tevent must not watch a descriptor that is closed, or closed only on our side. */
static void close_link(struct smbpool_process *process) {
  TALLOC_FREE(process->socket_event);
  TALLOC_FREE(process->wake_event);
  smbpool_link_close(&process->link);
}

static void link_down(struct smbpool_process *process, const char *why) {
  if (process->wake_event != NULL) {
    DBG_NOTICE("smbpool: detached from smbpoold (%s); opens go on without it\n", why);
  }
  close_link(process);
  process->resync_running = false;
  process->resync_cursor = NULL;
  process->drain_number = 0;
  smbpool_folder_forget(process);
  smbpool_wait_release_all(process);
  attach_later(process);
}

static void on_reply(void *private_data, uint32_t op, const uint8_t *payload, uint32_t length_bytes) {
  struct smbpool_process *process = private_data;

  if (op == SMBPOOL_OP_OPEN_READY && length_bytes >= sizeof(struct smbpool_msg_open_ready)) {
    struct smbpool_msg_open_ready ready;
    memcpy(&ready, payload, sizeof(ready));
    smbpool_wait_answered(process, ready.operation, ready.result);
  } else if (op == SMBPOOL_OP_TREE_READY && length_bytes >= sizeof(struct smbpool_msg_tree_ready)) {
    struct smbpool_msg_tree_ready ready;
    struct smbpool_tree *tree;
    memcpy(&ready, payload, sizeof(ready));
    for (tree = process->trees; tree != NULL; tree = tree->next) {
      if (tree->number != ready.tree || ready.text_bytes > length_bytes - sizeof(ready)) continue;
      tree->answered = true;
      tree->refused = ready.result == SMBPOOL_TREE_REFUSED;
      if (tree->refused && tree->refusal == NULL) {
        tree->refusal = talloc_strndup(tree, (const char *)payload + sizeof(ready), ready.text_bytes);
      }
    }
  } else if (op == SMBPOOL_OP_WATCH_FILE && length_bytes >= sizeof(struct smbpool_msg_watch)) {
    struct smbpool_msg_watch watch;
    memcpy(&watch, payload, sizeof(watch));
    smbpool_watch_file(process, &watch.file, watch.watch_ms);
  } else if (op == SMBPOOL_OP_NOTIFY_READY && length_bytes >= sizeof(struct smbpool_msg_notify_ready)) {
    struct smbpool_msg_notify_ready ready;
    memcpy(&ready, payload, sizeof(ready));
    smbpool_notify_answered(process, &ready);
  } else if (op == SMBPOOL_OP_BREAK_ALL && length_bytes >= sizeof(struct smbpool_msg_break_all)) {
    struct smbpool_msg_break_all message;
    memcpy(&message, payload, sizeof(message));
    smbpool_drain_break_all(process, message.number);
  } else if (op == SMBPOOL_OP_RECALL && length_bytes >= sizeof(struct smbpool_msg_recall)) {
    struct smbpool_msg_recall message;
    memcpy(&message, payload, sizeof(message));
    smbpool_folder_recall(process, &message);
  } else if (op == SMBPOOL_OP_RESYNC) {
    process->resync_wanted = true;
    resync_later(process, 0);
  } else {
    smbpool_link_count(&process->link, SMBPOOL_CLIENT_REPLIES_REFUSED);
  }
}

/* Drains until nothing is left and we are marked as idle. */
static void drain(struct smbpool_process *process) {
  do {
    if (!smbpool_link_drain(&process->link, on_reply, process)) {
      link_down(process, "its ring is broken");
      return;
    }
  } while (smbpool_link_idle(&process->link));
}

static void on_wake(struct tevent_context *ev, struct tevent_fd *fde, uint16_t flags, void *private_data) {
  drain(talloc_get_type_abort(private_data, struct smbpool_process));
}

static bool send_hello(struct smbpool_process *process) {
  struct smbXsrv_client *client = process->sconn->client;
  struct server_id server = messaging_server_id(process->sconn->msg_ctx);
  struct smbpool_msg_hello hello = {
      .server = {.pid = server.pid, .task = server.task_id, .vnn = server.vnn, .unique = server.unique_id}};
  uint8_t texts[2 * SMBPOOL_NAME_BYTES_MAX];
  const char *name = process->sconn->remote_hostname;
  char *address = NULL;
  uint32_t length = 0;
  bool ok;

  if (client != NULL && client->connections != NULL) {
    hello.dialect = (uint32_t)client->connections->smb2.server.dialect;
    /* Both are 16 bytes on the wire in the same order. */
    memcpy(hello.client_guid, &client->connections->smb2.client.guid, sizeof(hello.client_guid));
  }
  address = tsocket_address_string(process->sconn->remote_address, talloc_tos());
  hello.address_bytes = smbpool_map_text_bytes(address, SMBPOOL_NAME_BYTES_MAX);
  hello.name_bytes = smbpool_map_text_bytes(name, SMBPOOL_NAME_BYTES_MAX);
  length = smbpool_map_append(texts, length, address, hello.address_bytes);
  length = smbpool_map_append(texts, length, name, hello.name_bytes);
  ok = smbpool_try_send(process, SMBPOOL_OP_HELLO, &hello, sizeof(hello), texts, length);
  TALLOC_FREE(address);
  return ok;
}

/* Sends as much of the list as the ring takes; true when all is said. */
static bool resync_step(struct smbpool_process *process) {
  struct smbpool_msg_resync resync = {0};
  struct smbpool_wait *wait;
  struct smbpool_tree *tree;

  if (!process->resync_running) {
    if (!send_hello(process)) return false;
    for (tree = process->trees; tree != NULL; tree = tree->next) {
      if (!smbpool_send_tree(tree, tree->answered ? SMBPOOL_TREE_REPLAY : SMBPOOL_TREE_WANTS_REPLY)) return false;
    }
    resync.operations_from = process->next_operation;
    for (wait = process->waits; wait != NULL; wait = wait->next) {
      if (wait->asked && wait->operation < resync.operations_from) resync.operations_from = wait->operation;
    }
    if (!smbpool_try_send(process, SMBPOOL_OP_RESYNC_BEGIN, &resync, sizeof(resync), NULL, 0)) return false;
    process->resync_running = true;
    process->resync_wanted = false;
    process->resync_cursor = process->opens;
    smbpool_link_count(&process->link, SMBPOOL_CLIENT_RESYNCS);
  }
  while (process->resync_cursor != NULL) {
    if (!smbpool_replay_open(process->resync_cursor) || !smbpool_notify_replay(process->resync_cursor)) return false;
    process->resync_cursor = process->resync_cursor->next;
  }
  if (!smbpool_drain_answer(process)) return false;
  if (!smbpool_try_send(process, SMBPOOL_OP_RESYNC_END, NULL, 0, NULL, 0)) return false;
  process->resync_running = false;
  return true;
}

static void on_resync(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);

  TALLOC_FREE(process->resync_timer);
  if (!smbpool_process_up(process)) return;
  if (!process->resync_running && !process->resync_wanted) return;
  if (!resync_step(process) || process->resync_wanted) resync_later(process, RESYNC_AGAIN_MS);
}

static void resync_later(struct smbpool_process *process, uint32_t after_ms) {
  if (process->resync_timer != NULL) return;
  process->resync_timer = tevent_add_timer(process->sconn->ev_ctx, process,
                                           timeval_current_ofs_msec(after_ms), on_resync, process);
}

static void report_lost(struct smbpool_process *process) {
  process->resync_wanted = true;
  process->resync_running = false; /* it starts over: what it said may be outdated */
  resync_later(process, RESYNC_AGAIN_MS);
}

static void on_socket(struct tevent_context *ev, struct tevent_fd *fde, uint16_t flags, void *private_data);

/* The welcome may be here: take it; when that brought the link up, say who we are. */
static void look_at_socket(struct smbpool_process *process) {
  enum smbpool_link_state before = process->link.state;
  int error = smbpool_link_readable(&process->link);

  if (error != 0) {
    if (error == EPROTO) {
      DBG_ERR("smbpool: smbpoold at %s speaks another layout than this module (%u): install module and daemon of the "
              "same smbpool release\n", process->socket_path, SMBPOOL_LAYOUT_VERSION);
    } else if (error == EPERM) {
      DBG_ERR("smbpool: smbpoold at %s refused this smbd: see its log\n", process->socket_path);
    }
    link_down(process, strerror(error));
    return;
  }
  if (before == SMBPOOL_LINK_GREETING && process->link.state == SMBPOOL_LINK_UP) {
    process->wake_event = tevent_add_fd(process->sconn->ev_ctx, process, process->link.wake_fd, TEVENT_FD_READ,
                                        on_wake, process);
    if (process->wake_event == NULL) {
      link_down(process, "no memory");
      return;
    }
    DBG_NOTICE("smbpool: attached to smbpoold at %s as client %u\n", process->socket_path, process->link.client);
    process->resync_wanted = true;
    process->resync_running = false;
    if (!resync_step(process)) resync_later(process, RESYNC_AGAIN_MS);
    drain(process);
  }
}

static void on_socket(struct tevent_context *ev, struct tevent_fd *fde, uint16_t flags, void *private_data) {
  look_at_socket(talloc_get_type_abort(private_data, struct smbpool_process));
}

static void attach_now(struct smbpool_process *process) {
  int error;

  if (process->link.broken) link_down(process, "its ring is broken");
  if (process->link.state != SMBPOOL_LINK_DOWN) return;
  /* SO_PEERCRED shows who connects: a user that smbd acts for at this moment would be refused. */
  become_root();
  error = smbpool_link_start(&process->link, process->socket_path, SMBPOOL_MODULE_VERSION);
  unbecome_root();
  if (error != 0) {
    DBG_INFO("smbpool: no smbpoold at %s: %s\n", process->socket_path, strerror(error));
    attach_later(process);
    return;
  }
  process->socket_event = tevent_add_fd(process->sconn->ev_ctx, process, process->link.socket_fd, TEVENT_FD_READ,
                                        on_socket, process);
  if (process->socket_event == NULL) link_down(process, "no memory");
}

static void on_attach(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *private_data) {
  struct smbpool_process *process = talloc_get_type_abort(private_data, struct smbpool_process);

  TALLOC_FREE(process->attach_timer);
  attach_now(process);
}

static void attach_later(struct smbpool_process *process) {
  if (process->attach_timer != NULL) return;
  process->attach_timer = tevent_add_timer(process->sconn->ev_ctx, process,
                                           timeval_current_ofs_msec(process->link.broken ? 0 : ATTACH_AGAIN_MS),
                                           on_attach, process);
}

/* For connect_fn: true when the socket became readable within the time. */
static bool poll_socket(const struct smbpool_process *process, uint32_t timeout_ms) {
  struct pollfd look = {.fd = process->link.socket_fd, .events = POLLIN};

  return sys_poll_intr(&look, 1, (int)timeout_ms) == 1;
}

static bool hear(struct smbpool_process *process, uint32_t left_ms) {
  if (process->link.state == SMBPOOL_LINK_GREETING) {
    if (poll_socket(process, left_ms)) look_at_socket(process);
    return true;
  }
  if (!smbpool_process_up(process)) return false;
  if (!smbpool_link_wait(&process->link, left_ms) && poll_socket(process, 0)) {
    look_at_socket(process);
  }
  drain(process);
  return true;
}

void smbpool_wait_for_tree(struct smbpool_process *process, struct smbpool_tree *tree) {
  uint64_t deadline_us = smbpool_now_us() + (uint64_t)tree->config.connect_wait_ms * 1000u;

  if (process->link.state == SMBPOOL_LINK_DOWN) attach_now(process);
  while (!tree->answered) {
    uint32_t left_ms = smbpool_left_ms(deadline_us);

    if (left_ms == 0) {
      DBG_NOTICE("smbpool: smbpoold did not answer the tree connect in %u ms: going on without it\n",
                 tree->config.connect_wait_ms);
      return;
    }
    if (!hear(process, left_ms)) return;
  }
}

static int process_destructor(struct smbpool_process *process) {
  smbpool_notify_stop();
  close_link(process);
  smbpool_link_end(&process->link);
  the_process = NULL;
  return 0;
}

struct smbpool_process *smbpool_process_get(struct smbpool_tree *tree, struct smbd_server_connection *sconn) {
  struct smbpool_process *process = the_process;

  if (process == NULL) {
    process = talloc_zero(sconn, struct smbpool_process);
    if (process == NULL) return NULL;
    process->sconn = sconn;
    process->on_broken = attach_later;
    process->on_report_lost = report_lost;
    process->hear = hear;
    process->next_operation = 1;
    process->next_tree = 1;
    process->next_notify = 1;
    smbpool_link_init(&process->link);
    process->bell = tevent_create_immediate(process);
    process->recall_event = tevent_create_immediate(process);
    process->socket_path = talloc_strdup(process, tree->config.socket_path);
    if (process->socket_path == NULL || process->bell == NULL || process->recall_event == NULL) {
      TALLOC_FREE(process);
      return NULL;
    }
    smbpool_notify_start(process);
    talloc_set_destructor(process, process_destructor);
    the_process = process;
  } else if (strcmp(process->socket_path, tree->config.socket_path) != 0) {
    DBG_WARNING("smbpool: shares of one client name two sockets; %s stays in use, %s is ignored\n",
                process->socket_path, tree->config.socket_path);
  }
  process->references += 1;
  return process;
}

void smbpool_process_put(struct smbpool_process *process) {
  process->references -= 1;
  if (process->references == 0) TALLOC_FREE(process);
}
