/*
 * Prints one message of each kind as the C structures lay it out, for test/native/ring-pool.test.ts: NAME OP HEX. Every
 * field holds another value, so that a swapped or shifted one shows.
 */
#include <stdio.h>
#include <string.h>

#include "../shared/smbpool_ops.h"

static const struct smbpool_file_id file = {11, 0x1122334455667788ull, 13};
static const struct smbpool_file_id base = {21, 22, 23};

static void print(const char *name, unsigned int op, const void *fixed, size_t fixed_bytes, const char *texts) {
  const uint8_t *bytes = (const uint8_t *)fixed;
  size_t i;
  printf("%s %u ", name, op);
  for (i = 0; i < fixed_bytes; i++) printf("%02x", bytes[i]);
  for (i = 0; i < strlen(texts); i++) printf("%02x", (unsigned int)(uint8_t)texts[i]);
  printf("\n");
}

static void print_open(const char *name, unsigned int op, uint64_t operation) {
  struct smbpool_msg_open open = {.operation = operation, .tree = 5, .file = file, .share_file_id = 32,
    .persistent_id = 33, .since_us = 34, .flags = SMBPOOL_OPEN_HAS_LEASE, .status = 0, .access_mask = 0x120089,
    .share_access = 3, .disposition = 1, .create_action = 2, .oplock = 0x100, .lease_state = 7, .path_bytes = 7,
    .took_us = 35};
  memset(open.lease_key, 'k', sizeof(open.lease_key));
  print(name, op, &open, sizeof(open), "d/a.txt");
}

int main(void) {
  struct smbpool_msg_hello hello = {
    .server = {4711, 1, 2, 3}, .dialect = 0x0311, .address_bytes = 14, .name_bytes = 2};
  struct smbpool_msg_tree tree = {.tree = 5, .volume = 6, .root_inode = 7, .root_device = 8,
    .flags = SMBPOOL_TREE_WANTS_REPLY, .share_bytes = 4, .user_bytes = 5, .path_bytes = 6};
  struct smbpool_msg_tree end = {.tree = 5};
  struct smbpool_msg_open_begin begin = {.operation = 41, .tree = 5, .file = file, .base = base,
    .flags = SMBPOOL_OPEN_WANTS_REPLY, .deadline_ms = 42, .access_mask = 0x120089, .share_access = 3, .disposition = 1,
    .create_options = 43, .oplock = 0x100, .lease_state = 7, .path_bytes = 7};
  struct smbpool_msg_open_cancel cancel = {41};
  struct smbpool_msg_close closed = {file, 32, 33, 5, SMBPOOL_CLOSE_DELETED, 51};
  struct smbpool_msg_lock lock = {file, 32, 33, 52, 53, 54, 5, SMBPOOL_LOCK_WRITE, 55};
  struct smbpool_msg_lease_change change = {.file = file, .share_file_id = 32, .persistent_id = 33, .tree = 5,
    .kind = SMBPOOL_LEASE_CHANGED, .oplock_before = 61, .oplock_after = 62, .lease_before = 63, .lease_after = 64};
  struct smbpool_msg_claim claim = {5, 41, file};
  struct smbpool_msg_resync resync = {71};
  struct smbpool_msg_notify notify = {.number = 81, .handle = 0x8283848586878889ull, .since_seconds = 90,
    .since_nanoseconds = 91, .filter = 92, .subdir_filter = 93, .flags = SMBPOOL_NOTIFY_WANTS_REPLY, .path_bytes = 6};
  struct smbpool_msg_notify_end notify_end = {81};
  struct smbpool_msg_breaks_sent breaks_sent = {101, 102};

  memset(hello.client_guid, 'g', sizeof(hello.client_guid));
  memset(begin.lease_key, 'k', sizeof(begin.lease_key));
  print("hello", SMBPOOL_OP_HELLO, &hello, sizeof(hello), "10.0.0.7:49152pc");
  print("tree-connect", SMBPOOL_OP_TREE_CONNECT, &tree, sizeof(tree), "workD\\bob/srv/w");
  print("tree-disconnect", SMBPOOL_OP_TREE_DISCONNECT, &end, sizeof(end), "");
  print("open-begin", SMBPOOL_OP_OPEN_BEGIN, &begin, sizeof(begin), "d/a.txt");
  print("open-cancel", SMBPOOL_OP_OPEN_CANCEL, &cancel, sizeof(cancel), "");
  print_open("open-end", SMBPOOL_OP_OPEN_END, 41);
  print("close", SMBPOOL_OP_CLOSE, &closed, sizeof(closed), "");
  print("lock", SMBPOOL_OP_LOCK, &lock, sizeof(lock), "");
  print("unlock", SMBPOOL_OP_UNLOCK, &lock, sizeof(lock), "");
  print("lease-change", SMBPOOL_OP_LEASE_CHANGE, &change, sizeof(change), "");
  print("claim", SMBPOOL_OP_CLAIM, &claim, sizeof(claim), "");
  print("resync-begin", SMBPOOL_OP_RESYNC_BEGIN, &resync, sizeof(resync), "");
  print_open("replay-open", SMBPOOL_OP_REPLAY_OPEN, 0);
  print("replay-lock", SMBPOOL_OP_REPLAY_LOCK, &lock, sizeof(lock), "");
  print("resync-end", SMBPOOL_OP_RESYNC_END, "", 0, "");
  print("notify-begin", SMBPOOL_OP_NOTIFY_BEGIN, &notify, sizeof(notify), "/srv/w");
  print("notify-end", SMBPOOL_OP_NOTIFY_END, &notify_end, sizeof(notify_end), "");
  print("breaks-sent", SMBPOOL_OP_BREAKS_SENT, &breaks_sent, sizeof(breaks_sent), "");
  return 0;
}
