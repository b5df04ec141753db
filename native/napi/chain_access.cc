// See chain_access.h.
#include "chain_access.h"

#include <memory>

#include "errors.h"

namespace smbpool {

namespace {

struct Access {
  Napi::ObjectReference owner;
  Napi::Reference<Napi::ArrayBuffer> buffer;
  const std::unique_ptr<TdbFile>* file = nullptr;
  uint8_t* bytes = nullptr;
  size_t key_bytes = 0;
  size_t value_bytes = 0;

  TdbFile* Open() const noexcept { return *file == nullptr || (*file)->closed() ? nullptr : file->get(); }
  uint8_t* value() const noexcept { return bytes + key_bytes; }
};

enum Action : uint32_t { kLeave = 0, kStore = 1, kDelete = 2 };

constexpr size_t kArgumentsMax = 3;

// The access and the numbers given; missing or wrong ones are 0, which no caller of ours passes for a length.
const Access* Arguments(napi_env env, napi_callback_info info, uint32_t* numbers) noexcept {
  napi_value values[kArgumentsMax];
  size_t count = kArgumentsMax;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &count, values, nullptr, &data) != napi_ok) return nullptr;
  for (size_t i = 0; i < kArgumentsMax; i++) {
    if (napi_get_value_uint32(env, values[i], &numbers[i]) != napi_ok) numbers[i] = 0;
  }
  return static_cast<std::shared_ptr<Access>*>(data)->get();
}

napi_value Number(napi_env env, int64_t value) noexcept {
  napi_value result = nullptr;
  (void)napi_create_int32(env, static_cast<int32_t>(value), &result);
  return result;
}

// begin(keyLength): takes the chain without waiting and reads the value. Its length (not copied when it does not fit),
// or a TdbResult; the chain is held afterwards unless that is kTdbBusy or an error.
napi_value Begin(napi_env env, napi_callback_info info) {
  uint32_t numbers[kArgumentsMax];
  const Access* access = Arguments(env, info, numbers);
  TdbFile* file = access == nullptr ? nullptr : access->Open();
  if (file == nullptr || numbers[0] > access->key_bytes) return Number(env, kTdbClosed);
  const Bytes key{access->bytes, numbers[0]};
  const int64_t locked = file->LockNonblock(key);
  if (locked != kTdbDone) return Number(env, locked);
  const int64_t length = file->Parse(key, access->value(), access->value_bytes);
  if (length < kTdbAbsent) (void)file->Unlock(key);
  return Number(env, length);
}

// finish(action, keyLength, valueLength): stores the value, deletes the record or leaves it, and lets go of the chain.
// A TdbResult.
napi_value Finish(napi_env env, napi_callback_info info) {
  uint32_t numbers[kArgumentsMax];
  const Access* access = Arguments(env, info, numbers);
  TdbFile* file = access == nullptr ? nullptr : access->Open();
  if (file == nullptr || numbers[1] > access->key_bytes || numbers[2] > access->value_bytes) {
    return Number(env, kTdbClosed);
  }
  const Bytes key{access->bytes, numbers[1]};
  int64_t result = kTdbDone;
  if (numbers[0] == kStore) result = file->Store(key, {access->value(), numbers[2]});
  if (numbers[0] == kDelete) result = file->Delete(key);
  const int64_t unlocked = file->Unlock(key);
  return Number(env, result == kTdbDone || result == kTdbAbsent ? unlocked : result);
}

napi_value MakeFunction(Napi::Env env, const char* name, napi_callback callback,
                        const std::shared_ptr<Access>& access) {
  auto held = std::make_unique<std::shared_ptr<Access>>(access);
  napi_value function = nullptr;
  napi_status status = napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, held.get(), &function);
  if (status == napi_ok) {
    const auto drop = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<Access>*>(data); };
    status = napi_add_finalizer(env, function, held.get(), drop, nullptr, nullptr);
  }
  if (status != napi_ok) throw Napi::Error::New(env);
  (void)held.release();
  return function;
}

}  // namespace

Napi::Object MakeChainAccess(Napi::Env env, Napi::Object owner, const std::unique_ptr<TdbFile>* file,
                             Napi::ArrayBuffer buffer, size_t key_bytes) {
  if (key_bytes == 0 || key_bytes >= buffer.ByteLength()) {
    throw CodeError(env, "ERR_OUT_OF_RANGE", "the buffer must have room for keys and values");
  }
  const auto access = std::make_shared<Access>();
  access->owner = Napi::Persistent(owner);
  access->buffer = Napi::Persistent(buffer);
  access->file = file;
  access->bytes = static_cast<uint8_t*>(buffer.Data());
  access->key_bytes = key_bytes;
  access->value_bytes = buffer.ByteLength() - key_bytes;
  Napi::Object functions = Napi::Object::New(env);
  functions.Set("begin", MakeFunction(env, "begin", Begin, access));
  functions.Set("finish", MakeFunction(env, "finish", Finish, access));
  return functions;
}

}  // namespace smbpool
