/* See daemon.h. */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAGIC 0x43544442u
#define HEADER_BYTES 32u
#define CALL_BYTES 56u
#define CONTROL_BYTES 60u
#define CALL_MIGRATE 0xFF000001u
#define CALL_FETCH 0xFF000002u
#define FLAG_IMMEDIATE_MIGRATION 1u
#define FLAG_WANT_READONLY 4u
#define FLAG_NO_REPLY 1u
#define RECORD_HAS_DELEGATIONS 0x01000000u
#define RECORD_IS_COPY 0x02000000u
#define REQUEST_BYTES_MAX 8192u

enum operation { REQUEST_CALL = 0, REPLY_CALL = 1, REQUEST_CONTROL = 7, REPLY_CONTROL = 8 };

_Noreturn void fail(const char *what, ...) {
  va_list arguments;
  va_start(arguments, what);
  fprintf(stderr, "pool_client: ");
  vfprintf(stderr, what, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
  exit(1);
}

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof(value)); }
static void put64(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof(value)); }
static uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof(value));
  return value;
}

void connect_to(struct connection *connection, const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) fail("the socket's path is too long: %s", path);
  strcpy(address.sun_path, path);
  connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
    fail("cannot connect to %s: %s", path, strerror(errno));
  }
  connection->request_id = 0;
  connection->node = (uint32_t)control(connection, NODE_CURRENT, CONTROL_GET_PNN, 0, NULL, 0, NULL, NULL);
}

static void write_all(int fd, const uint8_t *bytes, size_t length) {
  while (length > 0) {
    const ssize_t written = write(fd, bytes, length);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("the daemon closed the connection: %s", strerror(errno));
    bytes += written;
    length -= (size_t)written;
  }
}

static void read_all(int fd, uint8_t *bytes, size_t length) {
  while (length > 0) {
    const ssize_t count = read(fd, bytes, length);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("the daemon closed the connection");
    bytes += count;
    length -= (size_t)count;
  }
}

/* As smbd does: one write, then the length, then the rest. Messages and late answers are thrown away. */
static void exchange(struct connection *connection, uint8_t *packet, size_t length, enum operation operation,
                     uint32_t node, int answered) {
  put32(packet, (uint32_t)length);
  put32(packet + 4, MAGIC);
  put32(packet + 8, 1);
  put32(packet + 12, 0);
  put32(packet + 16, operation);
  put32(packet + 20, node);
  put32(packet + 24, 0);
  put32(packet + 28, ++connection->request_id);
  write_all(connection->fd, packet, length);
  while (answered) {
    read_all(connection->fd, connection->answer, 4);
    const size_t total = get32(connection->answer);
    if (total < HEADER_BYTES || total > sizeof(connection->answer)) fail("an answer of %zu bytes", total);
    read_all(connection->fd, connection->answer + 4, total - 4);
    connection->answer_length = total;
    if (get32(connection->answer + 28) != connection->request_id) continue;
    const uint32_t wanted = operation == REQUEST_CALL ? REPLY_CALL : REPLY_CONTROL;
    if (get32(connection->answer + 16) != wanted) fail("the daemon refused request %u", connection->request_id);
    return;
  }
}

static size_t control_packet(uint8_t *packet, enum control opcode, uint64_t srvid, uint32_t flags, const void *request,
                             size_t length) {
  if (length > REQUEST_BYTES_MAX - CONTROL_BYTES) fail("a request of %zu bytes", length);
  put32(packet + 32, opcode);
  put32(packet + 36, 0);
  put64(packet + 40, srvid);
  put32(packet + 48, 0);
  put32(packet + 52, flags);
  put32(packet + 56, (uint32_t)length);
  if (length > 0) memcpy(packet + CONTROL_BYTES, request, length);
  return CONTROL_BYTES + length;
}

int32_t control(struct connection *connection, uint32_t node, enum control opcode, uint64_t srvid, const void *request,
                size_t length, const uint8_t **data, size_t *data_length) {
  uint8_t packet[REQUEST_BYTES_MAX];
  const size_t total = control_packet(packet, opcode, srvid, 0, request, length);
  exchange(connection, packet, total, REQUEST_CONTROL, node, 1);
  if (data != NULL) {
    *data = connection->answer + 44;
    *data_length = get32(connection->answer + 36);
  }
  return (int32_t)get32(connection->answer + 32);
}

void control_no_reply(struct connection *connection, enum control opcode, uint64_t srvid, const void *request,
                      size_t length) {
  uint8_t packet[REQUEST_BYTES_MAX];
  const size_t total = control_packet(packet, opcode, srvid, FLAG_NO_REPLY, request, length);
  exchange(connection, packet, total, REQUEST_CONTROL, NODE_CURRENT, 0);
}

void open_database(struct connection *connection, const char *name, int persistent, struct database *database) {
  const uint8_t *data;
  size_t length;
  const enum control attach = persistent ? CONTROL_ATTACH_PERSISTENT : CONTROL_ATTACH;
  if (control(connection, NODE_CURRENT, attach, 0, name, strlen(name) + 1, &data, &length) != 0 || length < 4) {
    fail("cannot attach %s", name);
  }
  database->id = get32(data);
  uint32_t id = database->id;
  if (control(connection, NODE_CURRENT, CONTROL_OPEN_FLAGS, 0, &id, sizeof(id), &data, &length) != 0 || length < 4) {
    fail("no open flags for %s", name);
  }
  const int flags = (int)get32(data);
  if (control(connection, NODE_CURRENT, CONTROL_GET_DATABASE_PATH, 0, &id, sizeof(id), &data, &length) != 0) {
    fail("no path for %s", name);
  }
  /* without this check libtdb refuses databases with mutexes */
  (void)tdb_runtime_check_for_robust_mutexes();
  database->tdb = tdb_open((const char *)data, 0, flags, O_RDWR, 0);
  if (database->tdb == NULL) fail("cannot open %s: %s", (const char *)data, strerror(errno));
}

static void call(struct connection *connection, struct database *database, TDB_DATA key, uint32_t function,
                 uint32_t flags) {
  uint8_t packet[CALL_BYTES + 256];
  if (key.dsize > 256) fail("a key of %zu bytes", key.dsize);
  put32(packet + 32, flags);
  put32(packet + 36, database->id);
  put32(packet + 40, function);
  put32(packet + 44, 0);
  put32(packet + 48, (uint32_t)key.dsize);
  put32(packet + 52, 0);
  memcpy(packet + CALL_BYTES, key.dptr, key.dsize);
  exchange(connection, packet, CALL_BYTES + key.dsize, REQUEST_CALL, NODE_CURRENT, 1);
  if (get32(connection->answer + 32) != 0) fail("a call ended with status %u", get32(connection->answer + 32));
}

struct parsed {
  struct record_header header;
  int found;
  size_t length;
  size_t capacity;
  uint8_t *value;
};

static int parse(TDB_DATA key, TDB_DATA data, void *private_data) {
  struct parsed *parsed = private_data;
  (void)key;
  if (data.dsize < sizeof(parsed->header)) return 0;
  parsed->found = 1;
  memcpy(&parsed->header, data.dptr, sizeof(parsed->header));
  parsed->length = data.dsize - sizeof(parsed->header);
  if (parsed->length > parsed->capacity) parsed->length = parsed->capacity;
  memcpy(parsed->value, data.dptr + sizeof(parsed->header), parsed->length);
  return 0;
}

void record_lock(struct connection *connection, struct database *database, TDB_DATA key, struct locked_record *record) {
  record->key = key;
  record->calls = 0;
  for (;;) {
    struct parsed parsed = {.value = record->value, .capacity = sizeof(record->value)};
    if (tdb_chainlock(database->tdb, key) != 0) fail("chain lock: %s", tdb_errorstr(database->tdb));
    (void)tdb_parse_record(database->tdb, key, parse, &parsed);
    if (parsed.found && parsed.header.owner == connection->node &&
        (parsed.header.flags & RECORD_HAS_DELEGATIONS) == 0) {
      record->header = parsed.header;
      record->value_length = parsed.length;
      return;
    }
    tdb_chainunlock(database->tdb, key);
    record->calls++;
    call(connection, database, key, CALL_MIGRATE, FLAG_IMMEDIATE_MIGRATION);
  }
}

void record_store(struct database *database, struct locked_record *record, const void *value, size_t length) {
  uint8_t bytes[sizeof(record->header) + VALUE_BYTES_MAX];
  memcpy(bytes, &record->header, sizeof(record->header));
  if (length > 0) memcpy(bytes + sizeof(record->header), value, length);
  const TDB_DATA data = {.dptr = bytes, .dsize = sizeof(record->header) + length};
  if (tdb_store(database->tdb, record->key, data, TDB_REPLACE) != 0) fail("store: %s", tdb_errorstr(database->tdb));
}

void record_delete(struct connection *connection, struct database *database, struct locked_record *record) {
  uint8_t request[36 + 256] = {0};
  record_store(database, record, NULL, 0);
  put32(request, database->id);
  memcpy(request + 8, &record->header, sizeof(record->header));
  put32(request + 32, (uint32_t)record->key.dsize);
  memcpy(request + 36, record->key.dptr, record->key.dsize);
  control_no_reply(connection, CONTROL_SCHEDULE_FOR_DELETION, database->id, request, 36 + record->key.dsize);
}

void record_unlock(struct database *database, struct locked_record *record) {
  tdb_chainunlock(database->tdb, record->key);
}

size_t record_read(struct connection *connection, struct database *database, TDB_DATA key, void *value, size_t capacity,
                   unsigned *calls) {
  struct parsed parsed = {.value = value, .capacity = capacity};
  (void)tdb_parse_record(database->tdb, key, parse, &parsed);
  if (parsed.found && (parsed.header.owner == connection->node || (parsed.header.flags & RECORD_IS_COPY) != 0)) {
    return parsed.length;
  }
  /* smbd asks for a copy to keep when it finds that the record was here before */
  call(connection, database, key, CALL_FETCH, parsed.found ? FLAG_WANT_READONLY : 0);
  (*calls)++;
  size_t length = get32(connection->answer + 36);
  if (length > capacity) length = capacity;
  memcpy(value, connection->answer + 40, length);
  return length;
}
