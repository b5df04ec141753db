// The standby's end of its connection to the active daemon, in the environment's loop. Mirrored in src/host/native.ts.
// Lives until close() or the end of the environment.
#pragma once

#include <napi.h>

#include <initializer_list>
#include <memory>

#include "../core/unique_fd.h"
#include "loop_handle.h"

namespace smbpool {

class StandbyObject : public Napi::ObjectWrap<StandbyObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit StandbyObject(const Napi::CallbackInfo& info);
  ~StandbyObject() override;

 private:
  void OnReadable();
  void Stop();
  void Call(const Napi::FunctionReference& function, std::initializer_list<napi_value> arguments);
  Napi::Value WaitForEnd(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  UniqueFd link_;
  UniqueFd active_;
  LoopHandle<StandbyObject>* handle_ = nullptr;
  Napi::FunctionReference on_message_;
  Napi::FunctionReference on_gone_;
  std::unique_ptr<Napi::AsyncContext> context_;
};

// standbyPair(): [number, number], the two ends.
Napi::Value StandbyPairFunction(const Napi::CallbackInfo& info);

}  // namespace smbpool
