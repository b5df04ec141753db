/*
 * An smbd's end of the ring without an smbd, driven by lines on standard input, for test/native/ring.test.ts. Built by
 * test/support/ring-probe.ts from this and the module's own client. Never does what no line asked for.
 *   ring_probe SOCKET            one client:
 *     send OP HEX, post OP HEX   publish, with or without ringing at once: sent, full or bad
 *     flood OP HEX               publish until full: flooded COUNT
 *     pause, resume              stop and go on reading replies: reply OP HEX
 *     wait MS                    sleep in the futex until a reply is there: waited 0|1
 *     home KIND HEX              what the node page says: home 0|1
 *     break                      write what no honest client writes
 *   ring_probe SOCKET --crowd N  N clients in as many processes that ask all the time, until killed
 * Says "up PID" for each client that is attached, "down ERRNO" at the end of an attachment.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../samba-module/client/ring_client.h"

#define LINE_BYTES_MAX (2 * SMBPOOL_MESSAGE_BYTES_MAX + 1024)

static struct smbpool_link link_;
static bool paused;

static void say(const char *line) {
  /* one write each: the lines of a crowd must not mix */
  if (write(STDOUT_FILENO, line, strlen(line)) == -1) _exit(1);
}

static void on_reply(void *data, uint32_t op, const uint8_t *payload, uint32_t length) {
  static char line[LINE_BYTES_MAX];
  int at = snprintf(line, sizeof(line), "reply %u ", op);
  uint32_t i;
  (void)data;
  for (i = 0; i < length; i++) at += sprintf(line + at, "%02x", payload[i]);
  strcpy(line + at, "\n");
  say(line);
}

static void on_nothing(void *data, uint32_t op, const uint8_t *payload, uint32_t length) {
  (void)data, (void)op, (void)payload, (void)length;
}

static void attach(const char *path) {
  char line[64];
  struct pollfd look;
  int error = smbpool_link_start(&link_, path, "probe");
  while (error == 0 && link_.state == SMBPOOL_LINK_GREETING) {
    look = (struct pollfd){.fd = link_.socket_fd, .events = POLLIN};
    poll(&look, 1, -1);
    error = smbpool_link_readable(&link_);
  }
  if (error != 0) {
    snprintf(line, sizeof(line), "down %d\n", error);
    say(line);
    exit(1);
  }
  snprintf(line, sizeof(line), "up %d\n", (int)getpid());
  say(line);
}

static uint32_t from_hex(const char *hex, uint8_t *out) {
  uint32_t length = 0;
  unsigned int byte;
  while (length <= SMBPOOL_MESSAGE_BYTES_MAX && sscanf(hex + 2 * length, "%2x", &byte) == 1) {
    out[length++] = (uint8_t)byte;
  }
  return length;
}

static void flood(uint32_t op, const uint8_t *payload, uint32_t length) {
  char line[64];
  unsigned int count = 0;
  while (smbpool_link_send(&link_, op, payload, length, NULL, 0) == SMBPOOL_RING_OK) count++;
  snprintf(line, sizeof(line), "flooded %u\n", count);
  say(line);
}

static void obey(char *line) {
  static uint8_t payload[SMBPOOL_MESSAGE_BYTES_MAX + 1];
  static char hex[LINE_BYTES_MAX];
  char verb[16] = "";
  unsigned int number = 0;
  uint32_t length;
  enum smbpool_ring_result result;

  hex[0] = '\0';
  sscanf(line, "%15s %u %s", verb, &number, hex);
  length = from_hex(hex, payload);
  if (strcmp(verb, "send") == 0 || strcmp(verb, "post") == 0) {
    result = strcmp(verb, "send") == 0 ? smbpool_link_send(&link_, number, payload, length, NULL, 0)
                                       : smbpool_link_post(&link_, number, payload, length, NULL, 0);
    say(result == SMBPOOL_RING_OK ? "sent\n" : result == SMBPOOL_RING_FULL ? "full\n" : "bad\n");
  } else if (strcmp(verb, "flood") == 0) {
    flood(number, payload, length);
  } else if (strcmp(verb, "pause") == 0) {
    paused = true;
    say("paused\n");
  } else if (strcmp(verb, "resume") == 0) {
    paused = false;
  } else if (strcmp(verb, "wait") == 0) {
    say(smbpool_link_wait(&link_, number) ? "waited 1\n" : "waited 0\n");
  } else if (strcmp(verb, "home") == 0) {
    say(smbpool_link_is_home(&link_, (enum smbpool_home_kind)number, payload, length) ? "home 1\n" : "home 0\n");
  } else if (strcmp(verb, "break") == 0) {
    __atomic_store_n(&link_.ring->request_head, 12345u, __ATOMIC_RELEASE);
    say("broken\n");
  }
}

/* Standard input comes in pieces; answers whether it goes on. */
static bool read_lines(void) {
  static char buffer[LINE_BYTES_MAX];
  static size_t filled;
  char *end;
  ssize_t got = read(STDIN_FILENO, buffer + filled, sizeof(buffer) - 1 - filled);
  if (got <= 0) return false;
  filled += (size_t)got;
  buffer[filled] = '\0';
  while ((end = strchr(buffer, '\n')) != NULL) {
    *end = '\0';
    obey(buffer);
    filled -= (size_t)(end + 1 - buffer);
    memmove(buffer, end + 1, filled + 1);
  }
  return true;
}

static int run_one(void) {
  char line[64];
  int error;
  for (;;) {
    struct pollfd look[3] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = link_.socket_fd, .events = POLLIN},
                             {.fd = paused ? -1 : link_.wake_fd, .events = POLLIN}};
    if (!paused) {
      if (!smbpool_link_drain(&link_, on_reply, NULL)) say("replies broken\n");
      if (smbpool_link_idle(&link_)) continue;
    }
    poll(look, 3, -1);
    if (look[0].revents != 0 && !read_lines()) return 0;
    if (look[1].revents == 0) continue;
    error = smbpool_link_readable(&link_);
    if (error == 0) continue;
    snprintf(line, sizeof(line), "down %d\n", error);
    say(line);
    return 0;
  }
}

static void run_in_crowd(const char *path) {
  struct smbpool_msg_open_begin begin = {.flags = SMBPOOL_OPEN_WANTS_REPLY};
  attach(path);
  while (smbpool_link_drain(&link_, on_nothing, NULL)) {
    struct pollfd look = {.fd = link_.wake_fd, .events = POLLIN};
    begin.operation++;
    smbpool_link_send(&link_, SMBPOOL_OP_OPEN_BEGIN, &begin, sizeof(begin), NULL, 0);
    if (!smbpool_link_idle(&link_)) poll(&look, 1, 5);
  }
  _exit(1);
}

int main(int argc, char **argv) {
  int count;
  if (argc != 2 && argc != 4) return 2;
  smbpool_link_init(&link_);
  if (argc == 2) {
    attach(argv[1]);
    return run_one();
  }
  for (count = atoi(argv[3]); count > 0; count--) {
    if (fork() == 0) run_in_crowd(argv[1]);
  }
  for (;;) pause();
}
