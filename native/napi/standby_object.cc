// See standby_object.h.
#include "standby_object.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "../core/standby_link.h"
#include "errors.h"

namespace smbpool {

namespace {

constexpr napi_type_tag kTag = {0x534d42504f4f4c00, 0x7374627900000001};

}  // namespace

Napi::Function StandbyObject::Define(Napi::Env env) {
  return DefineClass(env, "StandbyEnd",
                     {
                         InstanceMethod<&StandbyObject::WaitForEnd>("waitForEnd"),
                         InstanceMethod<&StandbyObject::Close>("close"),
                     });
}

// new StandbyEnd(fd, activePid, onMessage(kind, id, slot, payload, fd), onGone()); takes the descriptor.
StandbyObject::StandbyObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StandbyObject>(info) {
  const Napi::Env env = info.Env();
  info.This().As<Napi::Object>().TypeTag(&kTag);
  link_ = UniqueFd(static_cast<int>(NumberArgument(info, 0)));
  // the active one lives yet, or the link tells its end at once: the number is not of another process
  active_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(NumberArgument(info, 1)), 0)));
  if (!info[2].IsFunction() || !info[3].IsFunction()) {
    throw CodeError(env, "ERR_INVALID_ARG_TYPE", "arguments 3 and 4 must be functions");
  }
  on_message_ = Napi::Persistent(info[2].As<Napi::Function>());
  on_gone_ = Napi::Persistent(info[3].As<Napi::Function>());
  context_ = std::make_unique<Napi::AsyncContext>(env, "smbpool:standby");
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw CodeError(env, "ERR_POOL_LOOP", "no event loop");
  auto handle = std::make_unique<LoopHandle<StandbyObject>>();
  handle->owner = this;
  const int failed = uv_poll_init(loop, &handle->poll, link_.get());
  if (failed != 0) throw CodeError(env, uv_err_name(failed), "cannot watch the active daemon");
  handle_ = handle.release();
  handle_->poll.data = handle_;
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle hook, void* argument) {
        auto* closing = static_cast<LoopHandle<StandbyObject>*>(argument);
        closing->hook = hook;
        if (closing->owner != nullptr) closing->owner->handle_ = nullptr;
        closing->owner = nullptr;
        LoopHandle<StandbyObject>::Close(closing);
      },
      handle_, &handle_->hook);
  uv_poll_start(&handle_->poll, UV_READABLE, [](uv_poll_t* poll, int, int) {
    auto* readable = static_cast<LoopHandle<StandbyObject>*>(poll->data);
    if (readable->owner != nullptr) readable->owner->OnReadable();
  });
  Ref();
}

StandbyObject::~StandbyObject() {
  if (handle_ == nullptr) return;
  handle_->owner = nullptr;
  LoopHandle<StandbyObject>::Close(handle_);
}

void StandbyObject::Stop() {
  if (handle_ == nullptr) return;
  handle_->owner = nullptr;
  LoopHandle<StandbyObject>::Close(handle_);
  handle_ = nullptr;
  Unref();
}

void StandbyObject::Call(const Napi::FunctionReference& function, std::initializer_list<napi_value> arguments) {
  try {
    function.MakeCallback(Value(), arguments, *context_);
  } catch (const Napi::Error& error) {
    napi_fatal_exception(Env(), error.Value());
  }
}

void StandbyObject::OnReadable() {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  bool gone = false;
  while (handle_ != nullptr) {
    StandbyHeader header;
    std::vector<uint8_t> payload;
    UniqueFd fd;
    if (!ReceiveFromActive(link_.get(), &header, &payload, &fd, &gone)) break;
    // JavaScript has it from here on
    const int number = fd.Release();
    const Napi::HandleScope each(env);
    Call(on_message_, {Napi::Number::New(env, header.kind), Napi::Number::New(env, header.id),
                       Napi::Number::New(env, header.slot),
                       Napi::Buffer<uint8_t>::Copy(env, payload.data(), payload.size()),
                       Napi::Number::New(env, number)});
  }
  if (!gone || handle_ == nullptr) return;
  Stop();
  Call(on_gone_, {});
}

// waitForEnd(millis): whether the active process has ended, all its threads; waits, and so is for the moment between
// two lives only.
Napi::Value StandbyObject::WaitForEnd(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  pollfd look{active_.get(), POLLIN, 0};
  // without a descriptor of it, it had ended before
  const bool ended = !active_.valid() || ::poll(&look, 1, static_cast<int>(NumberArgument(info, 0))) == 1;
  return Napi::Boolean::New(info.Env(), ended);
}

Napi::Value StandbyObject::Close(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  Stop();
  return info.Env().Undefined();
}

Napi::Value StandbyPairFunction(const Napi::CallbackInfo& info) {
  UniqueFd one;
  UniqueFd other;
  if (!MakeStandbyPair(&one, &other)) throw StatusError(info.Env(), Failed("make a pair of sockets"), "");
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, one.Release());
  pair.Set(1u, other.Release());
  return pair;
}

}  // namespace smbpool
