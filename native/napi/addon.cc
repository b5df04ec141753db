// What the addon exports. All state hangs on the objects made from these classes, each belonging to the environment
// that made it: the addon may be loaded in the main thread and in workers at once. Only real-time priority is the
// process's, as it is for the kernel. See src/host/native.ts.
#include <napi.h>

#include "../core/pump.h"
#include "../core/realtime.h"
#include "address_calls.h"
#include "channel_object.h"
#include "errors.h"
#include "pump_object.h"
#include "standby_object.h"
#include "tdb_object.h"

namespace smbpool {

// now(): microseconds of CLOCK_MONOTONIC.
static Napi::Value NowFunction(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), Pump::Now()); }

// tdbErrorText(result): what an error of a tdb's chains means.
static Napi::Value TdbErrorText(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), TdbFile::ErrorText(static_cast<int64_t>(NumberArgument(info, 0))));
}

// realtimeStart(helpers): an array of thread ids.
static Napi::Value RealtimeStartFunction(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "argument 1 must be an array");
  const auto list = info[0].As<Napi::Array>();
  std::vector<pid_t> helpers;
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value helper = list.Get(i);
    if (!helper.IsNumber()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "helpers must be numbers");
    helpers.push_back(helper.As<Napi::Number>().Int32Value());
  }
  const Status status = Realtime::Start(helpers);
  if (!status.ok()) throw StatusError(env, status, "");
  return env.Undefined();
}

// realtimeLook(): {active, demotions, stuckMicros}
static Napi::Value RealtimeLookFunction(const Napi::CallbackInfo& info) {
  const RealtimeState state = Realtime::Look();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("active", state.active);
  object.Set("demotions", static_cast<double>(state.demotions));
  object.Set("stuckMicros", static_cast<double>(state.stuck_micros));
  return object;
}

static Napi::Value RealtimeStopFunction(const Napi::CallbackInfo& info) {
  Realtime::Stop();
  return info.Env().Undefined();
}

static Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Tdb", TdbObject::Define(env));
  exports.Set("Pump", PumpObject::Define(env));
  exports.Set("StandbyEnd", StandbyObject::Define(env));
  exports.Set("standbyPair", Napi::Function::New(env, StandbyPairFunction, "standbyPair"));
  exports.Set("FrameChannel", ChannelObject::Define(env));
  exports.Set("probeTdbUser", Napi::Function::New(env, ProbeTdbUserFunction, "probeTdbUser"));
  exports.Set("tdbErrorText", Napi::Function::New(env, TdbErrorText, "tdbErrorText"));
  exports.Set("realtimeStart", Napi::Function::New(env, RealtimeStartFunction, "realtimeStart"));
  exports.Set("realtimeLook", Napi::Function::New(env, RealtimeLookFunction, "realtimeLook"));
  exports.Set("realtimeStop", Napi::Function::New(env, RealtimeStopFunction, "realtimeStop"));
  exports.Set("takeAddress", Napi::Function::New(env, TakeAddressFunction, "takeAddress"));
  exports.Set("releaseAddress", Napi::Function::New(env, ReleaseAddressFunction, "releaseAddress"));
  exports.Set("removeAddress", Napi::Function::New(env, RemoveAddressFunction, "removeAddress"));
  exports.Set("now", Napi::Function::New(env, NowFunction, "now"));
  return exports;
}

}  // namespace smbpool

static Napi::Object InitializeAddon(Napi::Env env, Napi::Object exports) { return smbpool::Initialize(env, exports); }

NODE_API_MODULE(smbpool, InitializeAddon)
