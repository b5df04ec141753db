// Turns statuses and results of native/core into JavaScript errors, and JavaScript arguments into plain values. The
// only place that throws. Every error has a `code`: the errno name, or ERR_INVALID_ARG_TYPE, ERR_POOL_CLOSED,
// ERR_POOL_TDB.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../core/counters.h"
#include "../core/status.h"
#include "../core/tdb_file.h"

namespace smbpool {

Napi::Error StatusError(Napi::Env env, const Status& status, const std::string& detail);
Napi::Error CodeError(Napi::Env env, const char* code, const std::string& message);
// For a negative result that is no ordinary outcome of the call.
Napi::Error TdbError(Napi::Env env, int64_t result);

// The bytes of a Uint8Array or Buffer, valid until JavaScript runs again. Throws for anything else.
Bytes BytesArgument(const Napi::CallbackInfo& info, size_t index);
std::string StringArgument(const Napi::CallbackInfo& info, size_t index);
double NumberArgument(const Napi::CallbackInfo& info, size_t index);

// Members of an options object; they throw when missing or of another type.
std::string StringMember(const Napi::Object& options, const char* name);
double NumberMember(const Napi::Object& options, const char* name);
std::vector<uint8_t> BytesMember(const Napi::Object& options, const char* name);
// Absent: `otherwise`.
double NumberMember(const Napi::Object& options, const char* name, double otherwise);

Napi::Object CountersObject(Napi::Env env, const Counters& counters);

// Each wrapped class has its own tag, so that a method called on an object of another class is refused.
void CheckTag(const Napi::CallbackInfo& info, const napi_type_tag& tag);

}  // namespace smbpool
