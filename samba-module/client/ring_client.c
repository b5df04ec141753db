/*
 * See ring_client.h. The order of stores and loads here is the contract of docs/shared-memory.md.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring_client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* One look at the socket for each so many milliseconds of a futex wait: a dead daemon is an error and not a hang. */
#define WAIT_SLICE_MS 100u
/* Messages handed over in one drain: more than a full ring cannot be there without the daemon writing meanwhile. */
#define DRAIN_MESSAGES_MAX (4u * SMBPOOL_SLOTS)

static void close_fd(int *fd) {
  if (*fd != -1) {
    close(*fd);
    *fd = -1;
  }
}

void smbpool_link_init(struct smbpool_link *link) {
  *link = (struct smbpool_link){.state = SMBPOOL_LINK_DOWN, .socket_fd = -1, .bell_fd = -1, .wake_fd = -1};
}

static void unmap_page(const struct smbpool_node_page *page) {
  if (page != NULL) munmap((void *)(uintptr_t)page, sizeof(*page));
}

void smbpool_link_close(struct smbpool_link *link) {
  const struct smbpool_node_page *lease_page = link->lease_page;
  bool draining = link->draining;

  if (link->ring != NULL) munmap(link->ring, sizeof(*link->ring));
  if (link->page != lease_page) unmap_page(link->page);
  if (link->ready != NULL) munmap(link->ready, sizeof(*link->ready));
  close_fd(&link->socket_fd);
  close_fd(&link->bell_fd);
  close_fd(&link->wake_fd);
  smbpool_link_init(link);
  link->lease_page = lease_page;
  link->draining = draining;
}

void smbpool_link_end(struct smbpool_link *link) {
  smbpool_link_close(link);
  unmap_page(link->lease_page);
  link->lease_page = NULL;
}

uint64_t smbpool_link_lease_deadline(const struct smbpool_link *link) {
  return link->lease_page == NULL ? 0 : smbpool_lease_deadline(link->lease_page);
}

static bool page_has(const struct smbpool_link *link, uint32_t flag) {
  if (link->lease_page == NULL) return false;
  return (__atomic_load_n(&link->lease_page->flags, __ATOMIC_ACQUIRE) & flag) != 0;
}

bool smbpool_link_draining(const struct smbpool_link *link) { return page_has(link, SMBPOOL_NODE_DRAINING); }

bool smbpool_link_shares_folders(const struct smbpool_link *link) {
  return page_has(link, SMBPOOL_NODE_SHARES_FOLDERS);
}

uint32_t smbpool_link_node(const struct smbpool_link *link) { return link->page->node; }

int smbpool_link_start(struct smbpool_link *link, const char *socket_path, const char *module_version) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct smbpool_hello hello = {.magic = SMBPOOL_HELLO_MAGIC, .layout_version = SMBPOOL_LAYOUT_VERSION};
  int error;

  smbpool_link_close(link);
  if (strlen(socket_path) >= sizeof(address.sun_path)) return ENAMETOOLONG;
  strcpy(address.sun_path, socket_path);
  snprintf(hello.module_version, sizeof(hello.module_version), "%s", module_version);

  link->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (link->socket_fd == -1) return errno;
  if (connect(link->socket_fd, (struct sockaddr *)&address, sizeof(address)) == -1 ||
      send(link->socket_fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello)) {
    error = errno;
    smbpool_link_close(link);
    return error;
  }
  link->state = SMBPOOL_LINK_GREETING;
  return 0;
}

/* Maps one descriptor of the welcome; NULL when it is smaller than what we are going to touch. */
static void *map_fd(int fd, size_t bytes, int protection) {
  struct stat status;
  void *at;

  if (fstat(fd, &status) == -1 || status.st_size < (off_t)bytes) return NULL;
  at = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return NULL;
  /* A child of this smbd must not write into our rings. */
  madvise(at, bytes, MADV_DONTFORK);
  return at;
}

static int accept_welcome(struct smbpool_link *link, const struct smbpool_welcome *welcome, int *fds,
                          unsigned int count) {
  if (welcome->magic != SMBPOOL_HELLO_MAGIC || welcome->layout_version != SMBPOOL_LAYOUT_VERSION) return EPROTO;
  if (welcome->result == SMBPOOL_REFUSED_VERSION) return EPROTO;
  if (welcome->result != SMBPOOL_WELCOME_OK) return EPERM;
  if (count != SMBPOOL_FDS || welcome->client >= SMBPOOL_CLIENTS_MAX) return EPROTO;

  link->ring = map_fd(fds[SMBPOOL_FD_RING], sizeof(*link->ring), PROT_READ | PROT_WRITE);
  link->page = map_fd(fds[SMBPOOL_FD_PAGE], sizeof(*link->page), PROT_READ);
  link->ready = map_fd(fds[SMBPOOL_FD_READY], sizeof(*link->ready), PROT_READ | PROT_WRITE);
  if (link->ring == NULL || link->page == NULL || link->ready == NULL) return EPROTO;
  if (link->ring->magic != SMBPOOL_RING_MAGIC || link->page->magic != SMBPOOL_PAGE_MAGIC) return EPROTO;

  /* From here on the word of this run of the daemon counts. */
  unmap_page(link->lease_page);
  link->lease_page = link->page;
  link->bell_fd = fds[SMBPOOL_FD_BELL];
  link->wake_fd = fds[SMBPOOL_FD_WAKE];
  fds[SMBPOOL_FD_BELL] = -1;
  fds[SMBPOOL_FD_WAKE] = -1;
  link->requests = smbpool_request_channel(link->ring);
  link->replies = smbpool_reply_channel(link->ring);
  link->client = welcome->client;
  link->generation = welcome->generation;
  link->state = SMBPOOL_LINK_UP;
  return 0;
}

/*
 * The descriptors stay until the close: an event loop may still watch them, and one that the daemon holds too (wake_fd)
 * would go on telling it of a watcher that is freed.
 */
static int gone(struct smbpool_link *link, int error) {
  link->state = SMBPOOL_LINK_DOWN;
  link->broken = true;
  return error;
}

int smbpool_link_readable(struct smbpool_link *link) {
  struct smbpool_welcome welcome = {0};
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SMBPOOL_FDS * sizeof(int))];
  } control;
  struct iovec part = {&welcome, sizeof(welcome)};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  struct cmsghdr *header;
  int fds[SMBPOOL_FDS];
  unsigned int count = 0, i;
  ssize_t got;
  int error;

  if (link->socket_fd == -1) return ENOTCONN;
  got = recvmsg(link->socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got == -1 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) return gone(link, ECONNRESET);
  for (header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS || count != 0) continue;
    count = (unsigned int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    if (count > SMBPOOL_FDS) count = SMBPOOL_FDS;
    memcpy(fds, CMSG_DATA(header), count * sizeof(int));
  }
  /* After the welcome the daemon never speaks on this socket. */
  error = EPROTO;
  if (link->state == SMBPOOL_LINK_GREETING && got == (ssize_t)sizeof(welcome)) {
    error = accept_welcome(link, &welcome, fds, count);
  }
  for (i = 0; i < count; i++) close_fd(&fds[i]);
  return error != 0 ? gone(link, error) : 0;
}

/* Quiet messages ring all the same when so many slots are taken: else a burst of them would fill the ring unheard. */
#define QUIET_SLOTS_MAX (SMBPOOL_SLOTS / 4u)

static void ring_now(struct smbpool_link *link) {
  const uint64_t one = 1;

  link->bell_due = false;
  smbpool_link_count(link, SMBPOOL_CLIENT_DOORBELLS);
  /* EAGAIN means that the counter is full: it is ringing already. */
  if (write(link->bell_fd, &one, sizeof(one)) == -1 && errno != EAGAIN) link->broken = true;
}

void smbpool_link_ring(struct smbpool_link *link) {
  if (link->state != SMBPOOL_LINK_UP || !link->bell_due) return;
  link->bell_due = false;
  if (__atomic_load_n(&link->page->daemon_sleeps, __ATOMIC_SEQ_CST) != 0) ring_now(link);
}

static enum smbpool_ring_result put(struct smbpool_link *link, bool quiet, uint32_t op, const void *fixed,
                                    uint32_t fixed_bytes, const void *texts, uint32_t texts_bytes) {
  enum smbpool_ring_result result;

  if (link->state != SMBPOOL_LINK_UP || link->broken) return SMBPOOL_RING_BAD;
  result = smbpool_publish(&link->requests, op, link->generation, fixed, fixed_bytes, texts, texts_bytes);
  if (result == SMBPOOL_RING_BAD) link->broken = true;
  if (result != SMBPOOL_RING_OK) return result;
  /* `seen` is behind the true tail, so this rings too often rather than too seldom. */
  if (link->requests.position - link->requests.seen > QUIET_SLOTS_MAX) {
    uint32_t tail = smbpool_load_acquire(link->requests.tail);
    if (link->requests.position - tail <= SMBPOOL_SLOTS) link->requests.seen = tail;
    quiet = quiet && link->requests.position - link->requests.seen <= QUIET_SLOTS_MAX;
  }
  if (!smbpool_must_ring(link->ready, link->client, &link->page->daemon_sleeps)) return SMBPOOL_RING_OK;
  if (quiet) {
    link->bell_due = true;
  } else {
    ring_now(link);
  }
  return SMBPOOL_RING_OK;
}

enum smbpool_ring_result smbpool_link_send(struct smbpool_link *link, uint32_t op, const void *fixed,
                                           uint32_t fixed_bytes, const void *texts, uint32_t texts_bytes) {
  return put(link, false, op, fixed, fixed_bytes, texts, texts_bytes);
}

enum smbpool_ring_result smbpool_link_post(struct smbpool_link *link, uint32_t op, const void *fixed,
                                           uint32_t fixed_bytes, const void *texts, uint32_t texts_bytes) {
  return put(link, true, op, fixed, fixed_bytes, texts, texts_bytes);
}

bool smbpool_link_drain(struct smbpool_link *link, smbpool_reply_handler handler, void *private_data) {
  static uint8_t payload[SMBPOOL_MESSAGE_BYTES_MAX]; /* one thread, guarded by `draining` */
  struct smbpool_slot_header header;
  enum smbpool_ring_result result = SMBPOOL_RING_EMPTY;
  uint64_t woken;
  unsigned int i;

  if (link->state != SMBPOOL_LINK_UP || link->draining) return true;
  __atomic_store_n(&link->ring->client_state, SMBPOOL_CLIENT_RUNNING, __ATOMIC_RELAXED);
  if (read(link->wake_fd, &woken, sizeof(woken)) == -1 && errno != EAGAIN && errno != EINTR) link->broken = true;
  link->draining = true;
  for (i = 0; i < DRAIN_MESSAGES_MAX && link->state == SMBPOOL_LINK_UP && !link->broken; i++) {
    result = smbpool_consume(&link->replies, &header, payload);
    if (result != SMBPOOL_RING_OK) break;
    if (header.generation == link->generation) handler(private_data, header.op, payload, header.length_bytes);
  }
  link->draining = false;
  if (result == SMBPOOL_RING_BAD) link->broken = true;
  return !link->broken;
}

bool smbpool_link_idle(struct smbpool_link *link) {
  if (link->state != SMBPOOL_LINK_UP) return false;
  __atomic_store_n(&link->ring->client_state, SMBPOOL_CLIENT_IN_LOOP, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return __atomic_load_n(link->replies.head, __ATOMIC_SEQ_CST) != link->replies.position;
}

static uint64_t now_ms(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static bool socket_ended(const struct smbpool_link *link) {
  struct pollfd look = {.fd = link->socket_fd, .events = POLLIN};

  return poll(&look, 1, 0) != 0;
}

bool smbpool_link_ended(const struct smbpool_link *link) {
  return link->state != SMBPOOL_LINK_UP || socket_ended(link);
}

bool smbpool_link_wait(struct smbpool_link *link, uint32_t timeout_ms) {
  uint64_t deadline = now_ms() + timeout_ms;
  bool there = false;

  if (link->state != SMBPOOL_LINK_UP || link->broken) return false;
  __atomic_store_n(&link->ring->client_state, SMBPOOL_CLIENT_IN_FUTEX, __ATOMIC_SEQ_CST);
  for (;;) {
    struct timespec slice = {.tv_sec = 0, .tv_nsec = (long)WAIT_SLICE_MS * 1000000l};
    uint64_t now = now_ms();

    there = __atomic_load_n(link->replies.head, __ATOMIC_SEQ_CST) != link->replies.position;
    if (there || now >= deadline || socket_ended(link)) break;
    if (deadline - now < WAIT_SLICE_MS) slice.tv_nsec = (long)(deadline - now) * 1000000l;
    syscall(SYS_futex, link->replies.head, FUTEX_WAIT, link->replies.position, &slice, NULL, 0);
  }
  __atomic_store_n(&link->ring->client_state, SMBPOOL_CLIENT_RUNNING, __ATOMIC_SEQ_CST);
  return there;
}

bool smbpool_link_is_home(const struct smbpool_link *link, enum smbpool_home_kind kind, const void *key,
                          uint32_t key_bytes) {
  if (link->state != SMBPOOL_LINK_UP || link->broken) return false;
  if (__atomic_load_n(&link->page->generation, __ATOMIC_RELAXED) != link->generation) return false;
  return smbpool_home_has(link->page->home, smbpool_fingerprint((uint8_t)kind, key, key_bytes)) != 0;
}

void smbpool_link_count_by(struct smbpool_link *link, enum smbpool_client_counter counter, uint64_t by) {
  if (link->state != SMBPOOL_LINK_UP) return;
  __atomic_store_n(&link->ring->counters[counter], link->ring->counters[counter] + by, __ATOMIC_RELAXED);
}

void smbpool_link_count(struct smbpool_link *link, enum smbpool_client_counter counter) {
  smbpool_link_count_by(link, counter, 1);
}
