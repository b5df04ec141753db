// The JavaScript class Pump over native/core/pump: watches its descriptor in the environment's loop and crosses into
// JavaScript once per batch. Mirrored in src/host/native.ts. Lives until close() or the end of the environment.
#pragma once

#include <napi.h>

#include <memory>

#include "../core/pump.h"
#include "loop_handle.h"

namespace smbpool {

class PumpObject : public Napi::ObjectWrap<PumpObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit PumpObject(const Napi::CallbackInfo& info);
  ~PumpObject() override;

 private:
  Pump& Checked(const Napi::CallbackInfo& info);
  void OpenPump(const Napi::Object& options);
  void MakeBuffers(const Napi::Object& options);
  void Start();
  void Stop();
  void OnReadable();
  size_t CallBatch(size_t in_length);
  void Route(size_t out_length);

  Napi::Value RouteOut(const Napi::CallbackInfo& info);
  Napi::Value Flush(const Napi::CallbackInfo& info);
  Napi::Value SendPacket(const Napi::CallbackInfo& info);
  Napi::Value TakeLarge(const Napi::CallbackInfo& info);
  Napi::Value ReadCounters(const Napi::CallbackInfo& info);
  Napi::Value PeerStatus(const Napi::CallbackInfo& info);
  Napi::Value SetPeer(const Napi::CallbackInfo& info);
  Napi::Value SetServing(const Napi::CallbackInfo& info);
  Napi::Value Beat(const Napi::CallbackInfo& info);
  Napi::Value RecordError(const Napi::CallbackInfo& info);
  Napi::Value SetLease(const Napi::CallbackInfo& info);
  Napi::Value SetDraining(const Napi::CallbackInfo& info);
  Napi::Value SetSharesFolders(const Napi::CallbackInfo& info);
  Napi::Value RingCounters(const Napi::CallbackInfo& info);
  Napi::Value Describe(const Napi::CallbackInfo& info);
  Napi::Value Kept(const Napi::CallbackInfo& info);
  Napi::Value KeepState(const Napi::CallbackInfo& info);
  Napi::Value KeepGlobal(const Napi::CallbackInfo& info);
  Napi::Value KeepErasure(const Napi::CallbackInfo& info);
  Napi::Value Resume(const Napi::CallbackInfo& info);
  Napi::Value Heirloom(const Napi::CallbackInfo& info);
  Napi::Value SetStandby(const Napi::CallbackInfo& info);
  Napi::Value TellStandby(const Napi::CallbackInfo& info);
  Napi::Value Abandon(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  std::unique_ptr<Pump> pump_;
  LoopHandle<PumpObject>* handle_ = nullptr;
  bool in_turn_ = false;
  bool stop_wanted_ = false;
  Napi::FunctionReference on_batch_;
  Napi::Reference<Napi::ArrayBuffer> in_;
  Napi::Reference<Napi::ArrayBuffer> out_;
  Napi::Reference<Napi::ArrayBuffer> control_;
  uint8_t* in_bytes_ = nullptr;
  size_t in_capacity_ = 0;
  // of what waits in the in buffer for company
  size_t in_waiting_ = 0;
  uint8_t* out_bytes_ = nullptr;
  size_t out_capacity_ = 0;
  // [0] time of this batch, written here; [1] deadline of the timer, [2] how long some packets may wait for company,
  // written by JavaScript: microseconds
  double* control_values_ = nullptr;
  std::unique_ptr<Napi::AsyncContext> context_;
};

}  // namespace smbpool
