// A descriptor watched by the environment's loop for an object that JavaScript holds. It outlives the object until the
// loop has let go of it, and the environment waits for that.
#pragma once

#include <napi.h>
#include <uv.h>

namespace smbpool {

template <typename Owner>
struct LoopHandle {
  uv_poll_t poll{};
  Owner* owner = nullptr;
  napi_async_cleanup_hook_handle hook = nullptr;

  // Called once, by close() or by the end of the environment; the handle frees itself when the loop has let go.
  static void Close(LoopHandle* handle) {
    if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&handle->poll)) != 0) return;
    uv_poll_stop(&handle->poll);
    handle->poll.data = handle;
    uv_close(reinterpret_cast<uv_handle_t*>(&handle->poll), [](uv_handle_t* closed) {
      auto* self = static_cast<LoopHandle*>(closed->data);
      if (self->hook != nullptr) napi_remove_async_cleanup_hook(self->hook);
      delete self;
    });
  }
};

}  // namespace smbpool
