/*
 * File ids that all servers of the pool agree about: (configured volume, inode, snapshot 0), whatever st_dev a server's
 * kernel gives the file system; of a folder that this server has a delegation of, the id of its slice. The device is
 * also folded in the stat calls, because modules above (streams_xattr) and the cookie of a durable handle use it. Must
 * not do I/O of its own.
 */
#include "module.h"

static struct smbpool_tree *tree_of(struct vfs_handle_struct *handle) {
  return handle->data;
}

struct smbpool_file_id smbpool_id_of(const struct file_id *id) {
  struct smbpool_file_id ours = {.volume = id->devid, .inode = id->inode, .snapshot = id->extid};

  return ours;
}

struct smbpool_file_id smbpool_one_id(struct vfs_handle_struct *handle, const SMB_STRUCT_STAT *sbuf) {
  struct smbpool_tree *tree = tree_of(handle);
  struct file_id id;

  if (tree != NULL && tree->config.volume != 0) {
    return smbpool_map_file_id(tree->config.volume, tree->root_device, sbuf->st_ex_dev, sbuf->st_ex_ino);
  }
  id = SMB_VFS_NEXT_FILE_ID_CREATE(handle, sbuf);
  return smbpool_id_of(&id);
}

struct file_id smbpool_file_id_create(struct vfs_handle_struct *handle, const SMB_STRUCT_STAT *sbuf) {
  struct smbpool_tree *tree = tree_of(handle);
  struct smbpool_file_id ours = smbpool_one_id(handle, sbuf);
  struct file_id id = {0};

  if (tree != NULL && S_ISDIR(sbuf->st_ex_mode)) ours = smbpool_folder_id(tree, &ours);
  id.devid = ours.volume;
  id.inode = ours.inode;
  id.extid = ours.snapshot;
  return id;
}

static void fold_device(struct vfs_handle_struct *handle, SMB_STRUCT_STAT *sbuf) {
  struct smbpool_tree *tree = tree_of(handle);

  if (tree == NULL || tree->config.volume == 0) return;
  if (sbuf->st_ex_dev == tree->root_device) {
    sbuf->st_ex_dev = tree->config.volume;
  } else if (sbuf->st_ex_dev != tree->config.volume && !tree->warned_device) {
    tree->warned_device = true;
    DBG_WARNING("smbpool: another file system is mounted below %s: its files have ids of this server only, so other "
                "servers do not see their locks. Give it a share of its own with its own \"smbpool:volume id\"\n",
                handle->conn->connectpath);
  }
}

int smbpool_stat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname) {
  int result = SMB_VFS_NEXT_STAT(handle, smb_fname);

  if (result == 0) fold_device(handle, &smb_fname->st);
  return result;
}

int smbpool_lstat(struct vfs_handle_struct *handle, struct smb_filename *smb_fname) {
  int result = SMB_VFS_NEXT_LSTAT(handle, smb_fname);

  if (result == 0) fold_device(handle, &smb_fname->st);
  return result;
}

int smbpool_fstat(struct vfs_handle_struct *handle, struct files_struct *fsp, SMB_STRUCT_STAT *sbuf) {
  int result = SMB_VFS_NEXT_FSTAT(handle, fsp, sbuf);

  if (result == 0) fold_device(handle, sbuf);
  return result;
}

int smbpool_fstatat(struct vfs_handle_struct *handle, const struct files_struct *dirfsp,
                    const struct smb_filename *smb_fname, SMB_STRUCT_STAT *sbuf, int flags) {
  int result = SMB_VFS_NEXT_FSTATAT(handle, dirfsp, smb_fname, sbuf, flags);

  if (result == 0) fold_device(handle, sbuf);
  return result;
}
