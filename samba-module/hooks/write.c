/*
 * Changes of a file's content: smbd tells the holders of read leases before it writes, and lets go of the share modes
 * before the write is done. Who is granted a read lease in between and reads what was there goes by that for ever;
 * with a write in a thread, and an opener on another server, that is not rare. So they are told once more when the
 * write is done, before its client is answered. Costs nothing while nobody opened anything meanwhile: smbd compares
 * the sequence number of its database first. And a server whose lease is over writes nothing; what was under way when
 * it ran out is not told as written.
 */
#include "module.h"

/* Before the answer to whoever wrote. Not for smbd's own opens, which no share mode stands for. */
static void tell_readers(struct vfs_handle_struct *handle, struct files_struct *fsp, enum level2_contention_type how) {
  const struct smbpool_tree *tree = handle->data;
  int saved_errno = errno;

  /* An open that truncates holds the share modes all the time. */
  if (fsp->op == NULL || tree == NULL || tree->creates_running > 0) return;
  contend_level2_oplocks_begin(fsp, how);
  contend_level2_oplocks_end(fsp, how);
  errno = saved_errno;
}

ssize_t smbpool_pwrite(struct vfs_handle_struct *handle, struct files_struct *fsp, const void *data, size_t bytes,
                       off_t offset) {
  ssize_t written;

  if (!smbpool_fence_pass(handle)) return -1;
  written = SMB_VFS_NEXT_PWRITE(handle, fsp, data, bytes, offset);
  tell_readers(handle, fsp, LEVEL2_CONTEND_WRITE);
  return written;
}

ssize_t smbpool_recvfile(struct vfs_handle_struct *handle, int from, struct files_struct *fsp, off_t offset,
                         size_t bytes) {
  ssize_t written;

  if (!smbpool_fence_pass(handle)) {
    int saved_errno = errno;
    /* What the client sent is still in its socket, before its next request. */
    if (drain_socket(from, bytes) != (ssize_t)bytes) return -1;
    errno = saved_errno;
    return -1;
  }
  written = SMB_VFS_NEXT_RECVFILE(handle, from, fsp, offset, bytes);
  tell_readers(handle, fsp, LEVEL2_CONTEND_WRITE);
  return written;
}

int smbpool_ftruncate(struct vfs_handle_struct *handle, struct files_struct *fsp, off_t size) {
  int result;

  if (!smbpool_fence_pass(handle)) return -1;
  result = SMB_VFS_NEXT_FTRUNCATE(handle, fsp, size);
  tell_readers(handle, fsp, LEVEL2_CONTEND_SET_FILE_LEN);
  return result;
}

int smbpool_fallocate(struct vfs_handle_struct *handle, struct files_struct *fsp, uint32_t mode, off_t offset,
                      off_t bytes) {
  int result;

  if (!smbpool_fence_pass(handle)) return -1;
  result = SMB_VFS_NEXT_FALLOCATE(handle, fsp, mode, offset, bytes);
  tell_readers(handle, fsp, LEVEL2_CONTEND_ALLOC_GROW);
  return result;
}

struct pwrite_state {
  struct vfs_handle_struct *handle;
  struct files_struct *fsp;
  ssize_t written;
  struct vfs_aio_state aio;
};

static void pwrite_done(struct tevent_req *subreq) {
  struct tevent_req *req = tevent_req_callback_data(subreq, struct tevent_req);
  struct pwrite_state *state = tevent_req_data(req, struct pwrite_state);

  state->written = SMB_VFS_PWRITE_RECV(subreq, &state->aio);
  TALLOC_FREE(subreq);
  tell_readers(state->handle, state->fsp, LEVEL2_CONTEND_WRITE);
  /* It waited for a thread: by then the lease may have been over. */
  if (state->written != -1 && !smbpool_fence_pass(state->handle)) {
    state->written = -1;
    state->aio.error = errno;
  }
  tevent_req_done(req);
}

struct tevent_req *smbpool_pwrite_send(struct vfs_handle_struct *handle, TALLOC_CTX *context,
                                       struct tevent_context *ev, struct files_struct *fsp, const void *data,
                                       size_t bytes, off_t offset) {
  struct pwrite_state *state = NULL;
  struct tevent_req *req = tevent_req_create(context, &state, struct pwrite_state);
  struct tevent_req *subreq = NULL;

  if (req == NULL) return NULL;
  state->handle = handle;
  state->fsp = fsp;
  if (!smbpool_fence_pass(handle)) {
    tevent_req_error(req, errno);
    return tevent_req_post(req, ev);
  }
  subreq = SMB_VFS_NEXT_PWRITE_SEND(state, ev, handle, fsp, data, bytes, offset);
  if (tevent_req_nomem(subreq, req)) return tevent_req_post(req, ev);
  tevent_req_set_callback(subreq, pwrite_done, req);
  return req;
}

ssize_t smbpool_pwrite_recv(struct tevent_req *req, struct vfs_aio_state *aio) {
  struct pwrite_state *state = tevent_req_data(req, struct pwrite_state);
  ssize_t written = state->written;

  if (tevent_req_is_unix_error(req, &aio->error)) {
    written = -1;
  } else {
    *aio = state->aio;
  }
  tevent_req_received(req);
  return written;
}

/* A copy within the server: smbd tells nobody of these. */
struct offload_state {
  struct vfs_handle_struct *handle;
  struct files_struct *fsp;
  off_t copied;
};

static void offload_done(struct tevent_req *subreq) {
  struct tevent_req *req = tevent_req_callback_data(subreq, struct tevent_req);
  struct offload_state *state = tevent_req_data(req, struct offload_state);
  NTSTATUS status = SMB_VFS_NEXT_OFFLOAD_WRITE_RECV(state->handle, subreq, &state->copied);

  TALLOC_FREE(subreq);
  tell_readers(state->handle, state->fsp, LEVEL2_CONTEND_WRITE);
  if (NT_STATUS_IS_OK(status) && !smbpool_fence_pass(state->handle)) status = SMBPOOL_STATUS_FENCED;
  if (tevent_req_nterror(req, status)) return;
  tevent_req_done(req);
}

struct tevent_req *smbpool_offload_write_send(struct vfs_handle_struct *handle, TALLOC_CTX *context,
                                              struct tevent_context *ev, uint32_t fsctl, DATA_BLOB *token,
                                              off_t from, struct files_struct *fsp, off_t to, off_t bytes) {
  struct offload_state *state = NULL;
  struct tevent_req *req = tevent_req_create(context, &state, struct offload_state);
  struct tevent_req *subreq = NULL;

  if (req == NULL) return NULL;
  state->handle = handle;
  state->fsp = fsp;
  if (!smbpool_fence_pass(handle)) {
    tevent_req_nterror(req, SMBPOOL_STATUS_FENCED);
    return tevent_req_post(req, ev);
  }
  subreq = SMB_VFS_NEXT_OFFLOAD_WRITE_SEND(handle, state, ev, fsctl, token, from, fsp, to, bytes);
  if (tevent_req_nomem(subreq, req)) return tevent_req_post(req, ev);
  tevent_req_set_callback(subreq, offload_done, req);
  return req;
}

NTSTATUS smbpool_offload_write_recv(struct vfs_handle_struct *handle, struct tevent_req *req, off_t *copied) {
  struct offload_state *state = tevent_req_data(req, struct offload_state);
  NTSTATUS status = NT_STATUS_OK;

  (void)handle;
  *copied = state->copied;
  (void)tevent_req_is_nterror(req, &status);
  tevent_req_received(req);
  return status;
}
