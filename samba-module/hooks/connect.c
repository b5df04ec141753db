/*
 * Tree connect and disconnect: options, the attachment, the probe by which the servers find out whether they mean the
 * same file system. Like notify.c it may block on the daemon, with a named bound, but only in connect.
 */
#include "module.h"

#define SOCKET_PATH_DEFAULT "/run/smbpool/ring.socket"
/* Longer than any honest move of records, shorter than a client's patience. */
#define WAIT_MS_DEFAULT 1000
#define CONNECT_WAIT_MS_DEFAULT 2000
/* Longer than smbpoold waits for the other servers. */
#define NOTIFY_WAIT_MS_DEFAULT 1500
/* Above this a waiting create would outlive the client's own timeout. */
#define WAIT_MS_MAX 30000
/* Some thirty leases, and less than a client's patience. */
#define FENCE_WAIT_MS_DEFAULT 10000
/* A client's patience: after about a minute it gives the connection up. */
#define FENCE_WAIT_MS_MAX 60000

static uint32_t option_ms(int snum, const char *name, uint32_t fallback, uint32_t value_max) {
  unsigned long value = lp_parm_ulong(snum, "smbpool", name, fallback);

  if (value > value_max) {
    DBG_WARNING("smbpool: \"smbpool:%s = %lu\" is more than %u: using %u\n", name, value, value_max, value_max);
    value = value_max;
  }
  return (uint32_t)value;
}

static bool read_config(struct smbpool_config *config, int snum) {
  const char *volume = lp_parm_const_string(snum, "smbpool", "volume id", NULL);

  config->socket_path = lp_parm_const_string(snum, "smbpool", "socket", SOCKET_PATH_DEFAULT);
  config->wait_ms = option_ms(snum, "wait ms", WAIT_MS_DEFAULT, WAIT_MS_MAX);
  config->connect_wait_ms = option_ms(snum, "connect wait ms", CONNECT_WAIT_MS_DEFAULT, WAIT_MS_MAX);
  config->notify_wait_ms = option_ms(snum, "notify wait ms", NOTIFY_WAIT_MS_DEFAULT, WAIT_MS_MAX);
  config->fence_wait_ms = option_ms(snum, "fence wait ms", FENCE_WAIT_MS_DEFAULT, FENCE_WAIT_MS_MAX);
  config->delay_ms = option_ms(snum, "delay ms", 0, WAIT_MS_MAX);
  config->defer = lp_parm_bool(snum, "smbpool", "defer", true);
  if (volume != NULL && !smbpool_map_volume(volume, &config->volume)) {
    DBG_ERR("smbpool: \"smbpool:volume id = %s\" must be a number above 0 or a name, the same everywhere\n", volume);
    return false;
  }
  return true;
}

/* Learns device and inode of the share's root; file ids are made from them. */
static bool probe_root(struct smbpool_tree *tree) {
  SMB_STRUCT_STAT as_smbd_has_it = {0};
  struct stat root;

  if (stat(tree->handle->conn->connectpath, &root) == -1) {
    DBG_ERR("smbpool: cannot stat the share's root %s: %s\n", tree->handle->conn->connectpath, strerror(errno));
    return false;
  }
  tree->root_device = root.st_dev;
  tree->root_inode = root.st_ino;
  /* Through all modules: without a volume of ours another one (vfs_fileid) may make the ids. */
  as_smbd_has_it.st_ex_dev = root.st_dev;
  as_smbd_has_it.st_ex_ino = root.st_ino;
  tree->effective_volume = vfs_file_id_from_sbuf(tree->handle->conn, &as_smbd_has_it).devid;
  return true;
}

static void tree_free(void **data) {
  TALLOC_FREE(*data);
}

int smbpool_connect(struct vfs_handle_struct *handle, const char *service, const char *user) {
  struct smbpool_tree *tree = NULL;
  int saved_errno;

  if (SMB_VFS_NEXT_CONNECT(handle, service, user) == -1) return -1;
  /* No client behind it (rpc, tools), or nothing that opens files: stay out. */
  if (IS_IPC(handle->conn) || handle->conn->printer || handle->conn->sconn == NULL) return 0;

  tree = talloc_zero(handle->conn, struct smbpool_tree);
  if (tree == NULL) {
    errno = ENOMEM;
    goto fail;
  }
  tree->handle = handle;
  SMB_VFS_HANDLE_SET_DATA(handle, tree, tree_free, struct smbpool_tree, errno = EINVAL; goto fail);
  if (!read_config(&tree->config, SNUM(handle->conn)) || !probe_root(tree)) {
    errno = EINVAL;
    goto fail;
  }
  if (handle->conn->sconn->client == NULL) return 0; /* file ids only */

  tree->process = smbpool_process_get(tree, handle->conn->sconn);
  if (tree->process == NULL) {
    errno = ENOMEM;
    goto fail;
  }
  tree->number = tree->process->next_tree++;
  DLIST_ADD_END(tree->process->trees, tree);
  if (smbpool_process_up(tree->process)) smbpool_send_tree(tree, SMBPOOL_TREE_WANTS_REPLY);
  smbpool_wait_for_tree(tree->process, tree);
  if (tree->refused) {
    DBG_ERR("smbpool: share %s refused: %s. Two servers that disagree about file ids would damage files: see \"smbpool:"
            "volume id\" in vfs_smbpool(8)\n", service, tree->refusal != NULL ? tree->refusal : "no reason given");
    errno = EINVAL;
    goto fail;
  }
  return 0;

fail:
  saved_errno = errno;
  smbpool_disconnect(handle);
  errno = saved_errno;
  return -1;
}

void smbpool_disconnect(struct vfs_handle_struct *handle) {
  struct smbpool_tree *tree = handle->data;

  if (tree != NULL && tree->process != NULL) {
    struct smbpool_process *process = tree->process;
    struct smbpool_msg_tree message = {.tree = tree->number};
    struct smbpool_open *open, *next;
    struct smbpool_wait *wait, *following;

    for (open = process->opens; open != NULL; open = next) {
      next = open->next;
      /* Its fsp is closed already; a handle that is left points to a tree that goes away now. */
      if (open->tree != tree) continue;
      if (process->resync_cursor == open) process->resync_cursor = open->next;
      DLIST_REMOVE(process->opens, open);
      smbpool_notify_closed(open);
      open->orphan = true;
    }
    for (wait = process->waits; wait != NULL; wait = following) {
      following = wait->next;
      if (wait->tree != tree) continue;
      smbpool_wait_abandon(wait);
    }
    smbpool_report(process, SMBPOOL_OP_TREE_DISCONNECT, &message, sizeof(message), NULL, 0);
    DLIST_REMOVE(process->trees, tree);
    tree->process = NULL;
    smbpool_process_put(process);
  }
  SMB_VFS_NEXT_DISCONNECT(handle);
}
