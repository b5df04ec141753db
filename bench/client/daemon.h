/*
 * A client of the daemon that smbd calls "ctdbd": one blocking unix socket, the few requests that smbd's database layer
 * makes, and the database files themselves, used as smbd uses them. Runs unchanged against ctdbd and smbpoold. Every
 * failure ends the process with a sentence: a benchmark that goes on after one measures nothing.
 */
#ifndef SMBPOOL_BENCH_DAEMON_H
#define SMBPOOL_BENCH_DAEMON_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* tdb.h needs what comes above */
#include <tdb.h>

enum control {
  CONTROL_PING = 3,
  CONTROL_GET_DATABASE_PATH = 4,
  CONTROL_ATTACH = 18,
  CONTROL_GET_PNN = 35,
  CONTROL_ATTACH_PERSISTENT = 61,
  CONTROL_COMMIT = 119,
  CONTROL_GET_SEQUENCE = 120,
  CONTROL_SCHEDULE_FOR_DELETION = 128,
  CONTROL_OPEN_FLAGS = 149,
};

#define NODE_CURRENT 0xF0000001u
#define VALUE_BYTES_MAX 4096

struct connection {
  int fd;
  uint32_t request_id;
  uint32_t node; /* the server's number */
  size_t answer_length;
  uint8_t answer[65536];
};

struct database {
  uint32_t id;
  struct tdb_context *tdb;
};

/* The header in front of every stored value. */
struct record_header {
  uint64_t rsn;
  uint32_t owner;
  uint32_t reserved;
  uint32_t flags;
  uint32_t padding;
};

/* A record whose chain is locked and which may be written here. */
struct locked_record {
  TDB_DATA key;
  struct record_header header;
  unsigned calls; /* times that the daemon had to be asked for it */
  size_t value_length;
  uint8_t value[VALUE_BYTES_MAX];
};

_Noreturn void fail(const char *what, ...) __attribute__((format(printf, 1, 2)));

void connect_to(struct connection *connection, const char *path);
/* Returns the status; the answer's data is at *data until the next request. */
int32_t control(struct connection *connection, uint32_t node, enum control opcode, uint64_t srvid, const void *request,
                size_t length, const uint8_t **data, size_t *data_length);
void control_no_reply(struct connection *connection, enum control opcode, uint64_t srvid, const void *request,
                      size_t length);

/* Attaches, and opens the file with the flags that the daemon wants. */
void open_database(struct connection *connection, const char *name, int persistent, struct database *database);

/* Locks the record's chain with the record here, asking the daemon until it is. */
void record_lock(struct connection *connection, struct database *database, TDB_DATA key, struct locked_record *record);
void record_store(struct database *database, struct locked_record *record, const void *value, size_t length);
/* Stores an empty record and tells the daemon that it may go. */
void record_delete(struct connection *connection, struct database *database, struct locked_record *record);
void record_unlock(struct database *database, struct locked_record *record);
/* Reads without owning: the local copy if it may be used, else by asking. Returns the length, at most `capacity`. */
size_t record_read(struct connection *connection, struct database *database, TDB_DATA key, void *value, size_t capacity,
                   unsigned *calls);

#endif
