// What the addon exports. All state hangs on the objects made from these classes, each belonging to the environment
// that made it: the addon may be loaded in the main thread and in workers at once. See src/host/native.ts.
#include <napi.h>

#include "../core/pump.h"
#include "address_calls.h"
#include "channel_object.h"
#include "errors.h"
#include "pump_object.h"
#include "tdb_object.h"

namespace smbpool {

// now(): microseconds of CLOCK_MONOTONIC.
static Napi::Value NowFunction(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), Pump::Now()); }

// tdbErrorText(result): what an error of a tdb's chains means.
static Napi::Value TdbErrorText(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), TdbFile::ErrorText(static_cast<int64_t>(NumberArgument(info, 0))));
}

static Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Tdb", TdbObject::Define(env));
  exports.Set("Pump", PumpObject::Define(env));
  exports.Set("FrameChannel", ChannelObject::Define(env));
  exports.Set("probeTdbUser", Napi::Function::New(env, ProbeTdbUserFunction, "probeTdbUser"));
  exports.Set("tdbErrorText", Napi::Function::New(env, TdbErrorText, "tdbErrorText"));
  exports.Set("takeAddress", Napi::Function::New(env, TakeAddressFunction, "takeAddress"));
  exports.Set("releaseAddress", Napi::Function::New(env, ReleaseAddressFunction, "releaseAddress"));
  exports.Set("removeAddress", Napi::Function::New(env, RemoveAddressFunction, "removeAddress"));
  exports.Set("now", Napi::Function::New(env, NowFunction, "now"));
  return exports;
}

}  // namespace smbpool

static Napi::Object InitializeAddon(Napi::Env env, Napi::Object exports) { return smbpool::Initialize(env, exports); }

NODE_API_MODULE(smbpool, InitializeAddon)
