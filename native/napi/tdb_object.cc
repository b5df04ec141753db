// See tdb_object.h.
#include "tdb_object.h"

#include <algorithm>
#include <vector>

#include "chain_access.h"
#include "errors.h"

namespace smbpool {

namespace {

constexpr napi_type_tag kTag = {0x534d42504f4f4c00, 0x7464620000000001};

Napi::Value BufferOf(Napi::Env env, const std::vector<uint8_t>& bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

// True: done. False: busy. Anything else throws.
Napi::Value DoneOrBusy(Napi::Env env, int64_t result) {
  if (result == kTdbDone) return Napi::Boolean::New(env, true);
  if (result == kTdbBusy) return Napi::Boolean::New(env, false);
  throw TdbError(env, result);
}

Napi::Value DoneOrThrow(Napi::Env env, int64_t result) {
  if (result != kTdbDone) throw TdbError(env, result);
  return env.Undefined();
}

}  // namespace

Napi::Function TdbObject::Define(Napi::Env env) {
  return DefineClass(env, "Tdb",
                     {
                         InstanceMethod<&TdbObject::Close>("close"),
                         InstanceMethod<&TdbObject::ChainlockNonblock>("chainlockNonblock"),
                         InstanceMethod<&TdbObject::Chainunlock>("chainunlock"),
                         InstanceMethod<&TdbObject::Chains>("chains"),
                         InstanceMethod<&TdbObject::Parse>("parse"),
                         InstanceMethod<&TdbObject::Fetch>("fetch"),
                         InstanceMethod<&TdbObject::Store>("store"),
                         InstanceMethod<&TdbObject::Delete>("delete"),
                         InstanceMethod<&TdbObject::SequenceNumber>("sequenceNumber"),
                         InstanceMethod<&TdbObject::AddFlags>("addFlags"),
                         InstanceMethod<&TdbObject::Traverse>("traverse"),
                         InstanceMethod<&TdbObject::ScanHeaders>("scanHeaders"),
                         InstanceMethod<&TdbObject::TransactionStartNonblock>("transactionStartNonblock"),
                         InstanceMethod<&TdbObject::TransactionCommit>("transactionCommit"),
                         InstanceMethod<&TdbObject::TransactionCancel>("transactionCancel"),
                         InstanceMethod<&TdbObject::Wipe>("wipe"),
                         InstanceMethod<&TdbObject::HashSize>("hashSize"),
                     });
}

// new Tdb(path, {hashSize, tdbFlags, openFlags, mode})
TdbObject::TdbObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TdbObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTag);
  const std::string path = StringArgument(info, 0);
  if (!info[1].IsObject()) throw CodeError(info.Env(), "ERR_INVALID_ARG_TYPE", "argument 2 must be an object");
  const auto options = info[1].As<Napi::Object>();
  TdbOptions native;
  native.hash_size = static_cast<int>(NumberMember(options, "hashSize"));
  native.tdb_flags = static_cast<int>(NumberMember(options, "tdbFlags"));
  native.open_flags = static_cast<int>(NumberMember(options, "openFlags"));
  native.mode = static_cast<unsigned>(NumberMember(options, "mode"));
  const Status status = TdbFile::Open(path.c_str(), native, &file_);
  if (!status.ok()) throw StatusError(info.Env(), status, path);
}

TdbFile& TdbObject::Checked(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  if (file_ == nullptr || file_->closed()) throw TdbError(info.Env(), kTdbClosed);
  return *file_;
}

Napi::Value TdbObject::Close(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  if (file_ != nullptr) file_->Close();
  return info.Env().Undefined();
}

Napi::Value TdbObject::ChainlockNonblock(const Napi::CallbackInfo& info) {
  return DoneOrBusy(info.Env(), Checked(info).LockNonblock(BytesArgument(info, 0)));
}

Napi::Value TdbObject::Chainunlock(const Napi::CallbackInfo& info) {
  return DoneOrThrow(info.Env(), Checked(info).Unlock(BytesArgument(info, 0)));
}

// chains(buffer, keyBytes): see chain_access.h.
Napi::Value TdbObject::Chains(const Napi::CallbackInfo& info) {
  (void)Checked(info);
  const Napi::Env env = info.Env();
  if (!info[0].IsArrayBuffer()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "argument 1 must be an ArrayBuffer");
  const auto buffer = info[0].As<Napi::ArrayBuffer>();
  const auto key_bytes = static_cast<size_t>(NumberArgument(info, 1));
  return MakeChainAccess(env, info.This().As<Napi::Object>(), &file_, buffer, key_bytes);
}

// parse(key, target): the length of the value, copied when it fits; -1 absent.
Napi::Value TdbObject::Parse(const Napi::CallbackInfo& info) {
  TdbFile& file = Checked(info);
  const Bytes target = BytesArgument(info, 1);
  const int64_t result = file.Parse(BytesArgument(info, 0), const_cast<uint8_t*>(target.data), target.length);
  if (result < kTdbAbsent) throw TdbError(info.Env(), result);
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

// fetch(key): a fresh Buffer, or null.
Napi::Value TdbObject::Fetch(const Napi::CallbackInfo& info) {
  TdbFile& file = Checked(info);
  const Bytes key = BytesArgument(info, 0);
  std::vector<uint8_t> value;
  // without a chain held the record may grow between the two looks
  for (;;) {
    const int64_t length = file.Parse(key, value.data(), value.size());
    if (length == kTdbAbsent) return info.Env().Null();
    if (length < 0) throw TdbError(info.Env(), length);
    const bool whole = static_cast<size_t>(length) <= value.size();
    value.resize(static_cast<size_t>(length));
    if (whole) return BufferOf(info.Env(), value);
  }
}

Napi::Value TdbObject::Store(const Napi::CallbackInfo& info) {
  TdbFile& file = Checked(info);
  return DoneOrThrow(info.Env(), file.Store(BytesArgument(info, 0), BytesArgument(info, 1)));
}

// delete(key): whether there was such a record.
Napi::Value TdbObject::Delete(const Napi::CallbackInfo& info) {
  const int64_t result = Checked(info).Delete(BytesArgument(info, 0));
  if (result < kTdbAbsent) throw TdbError(info.Env(), result);
  return Napi::Boolean::New(info.Env(), result == kTdbDone);
}

Napi::Value TdbObject::SequenceNumber(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Checked(info).SequenceNumber());
}

Napi::Value TdbObject::AddFlags(const Napi::CallbackInfo& info) {
  Checked(info).AddFlags(static_cast<int>(NumberArgument(info, 0)));
  return info.Env().Undefined();
}

// traverse(chain, recordsMax): {next, records: [[key, value], ...]}
Napi::Value TdbObject::Traverse(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  TdbFile& file = Checked(info);
  const auto chain = static_cast<int>(NumberArgument(info, 0));
  const auto records_max = static_cast<size_t>(NumberArgument(info, 1));
  if (chain < 0) throw CodeError(env, "ERR_OUT_OF_RANGE", "argument 1 must not be negative");
  std::vector<TdbRecord> records;
  const int64_t next = file.TraverseChains(chain, records_max, &records);
  if (next < 0) throw TdbError(env, next);
  Napi::Array list = Napi::Array::New(env, records.size());
  for (size_t i = 0; i < records.size(); i++) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0u, BufferOf(env, records[i].key));
    pair.Set(1u, BufferOf(env, records[i].value));
    list.Set(static_cast<uint32_t>(i), pair);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("next", Napi::Number::New(env, static_cast<double>(next)));
  result.Set("records", list);
  return result;
}

// scanHeaders(headerBytes): one Buffer of all records, as TdbFile::ScanHeaders.
Napi::Value TdbObject::ScanHeaders(const Napi::CallbackInfo& info) {
  TdbFile& file = Checked(info);
  std::vector<uint8_t> records;
  const int64_t result = file.ScanHeaders(static_cast<size_t>(std::max(0.0, NumberArgument(info, 0))), &records);
  if (result != kTdbDone) throw TdbError(info.Env(), result);
  return BufferOf(info.Env(), records);
}

Napi::Value TdbObject::TransactionStartNonblock(const Napi::CallbackInfo& info) {
  return DoneOrBusy(info.Env(), Checked(info).TransactionStartNonblock());
}

Napi::Value TdbObject::TransactionCommit(const Napi::CallbackInfo& info) {
  return DoneOrThrow(info.Env(), Checked(info).TransactionCommit());
}

Napi::Value TdbObject::TransactionCancel(const Napi::CallbackInfo& info) {
  return DoneOrThrow(info.Env(), Checked(info).TransactionCancel());
}

Napi::Value TdbObject::Wipe(const Napi::CallbackInfo& info) { return DoneOrThrow(info.Env(), Checked(info).Wipe()); }

Napi::Value TdbObject::HashSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Checked(info).HashSize());
}

Napi::Value ProbeTdbUserFunction(const Napi::CallbackInfo& info) {
  const std::string path = StringArgument(info, 0);
  int pid = 0;
  const Status status = ProbeTdbUser(path.c_str(), &pid);
  if (!status.ok()) throw StatusError(info.Env(), status, path);
  return Napi::Number::New(info.Env(), pid);
}

}  // namespace smbpool
