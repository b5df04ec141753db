// See errors.h.
#include "errors.h"

#include <uv.h>

#include <cstring>

namespace smbpool {

Napi::Error CodeError(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

Napi::Error StatusError(Napi::Env env, const Status& status, const std::string& detail) {
  std::string message = std::string("cannot ") + status.what;
  if (!detail.empty()) message += " " + detail;
  message += std::string(": ") + std::strerror(status.code);
  return CodeError(env, uv_err_name(-status.code), message);
}

Napi::Error TdbError(Napi::Env env, int64_t result) {
  const char* code = result == kTdbClosed ? "ERR_POOL_CLOSED" : "ERR_POOL_TDB";
  return CodeError(env, code, TdbFile::ErrorText(result));
}

static Napi::Error TypeError(Napi::Env env, const std::string& what) {
  return CodeError(env, "ERR_INVALID_ARG_TYPE", what);
}

Bytes BytesArgument(const Napi::CallbackInfo& info, size_t index) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(info.Env(), info[index], &type, &length, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_uint8_array) {
    throw TypeError(info.Env(), "argument " + std::to_string(index + 1) + " must be a Uint8Array");
  }
  return Bytes{static_cast<const uint8_t*>(data), length};
}

std::string StringArgument(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsString()) {
    throw TypeError(info.Env(), "argument " + std::to_string(index + 1) + " must be a string");
  }
  return info[index].As<Napi::String>().Utf8Value();
}

double NumberArgument(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsNumber()) {
    throw TypeError(info.Env(), "argument " + std::to_string(index + 1) + " must be a number");
  }
  return info[index].As<Napi::Number>().DoubleValue();
}

std::string StringMember(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsString()) throw TypeError(options.Env(), std::string(name) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

double NumberMember(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsNumber()) throw TypeError(options.Env(), std::string(name) + " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

double NumberMember(const Napi::Object& options, const char* name, double otherwise) {
  return options.Has(name) && !options.Get(name).IsUndefined() ? NumberMember(options, name) : otherwise;
}

std::vector<uint8_t> BytesMember(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw TypeError(options.Env(), std::string(name) + " must be a Uint8Array");
  }
  const auto bytes = value.As<Napi::Uint8Array>();
  return std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength());
}

Napi::Object CountersObject(Napi::Env env, const Counters& counters) {
  Napi::Object object = Napi::Object::New(env);
  for (size_t i = 0; i < kCounterNames.size(); i++) {
    object.Set(kCounterNames[i], Napi::Number::New(env, static_cast<double>(counters.Get(static_cast<Counter>(i)))));
  }
  return object;
}

void CheckTag(const Napi::CallbackInfo& info, const napi_type_tag& tag) {
  bool matches = false;
  if (napi_check_object_type_tag(info.Env(), info.This(), &tag, &matches) != napi_ok || !matches) {
    throw TypeError(info.Env(), "called on an object of another class");
  }
}

}  // namespace smbpool
