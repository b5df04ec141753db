// The JavaScript class Tdb over native/core/tdb_file: argument checks and conversion only. Mirrored, with documentation
// of each method, in src/host/native.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "../core/tdb_file.h"

namespace smbpool {

class TdbObject : public Napi::ObjectWrap<TdbObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit TdbObject(const Napi::CallbackInfo& info);

 private:
  TdbFile& Checked(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value ChainlockNonblock(const Napi::CallbackInfo& info);
  Napi::Value Chainunlock(const Napi::CallbackInfo& info);
  Napi::Value Chains(const Napi::CallbackInfo& info);
  Napi::Value Parse(const Napi::CallbackInfo& info);
  Napi::Value Fetch(const Napi::CallbackInfo& info);
  Napi::Value Store(const Napi::CallbackInfo& info);
  Napi::Value Delete(const Napi::CallbackInfo& info);
  Napi::Value SequenceNumber(const Napi::CallbackInfo& info);
  Napi::Value AddFlags(const Napi::CallbackInfo& info);
  Napi::Value ScanHeaders(const Napi::CallbackInfo& info);
  Napi::Value Traverse(const Napi::CallbackInfo& info);
  Napi::Value TransactionStartNonblock(const Napi::CallbackInfo& info);
  Napi::Value TransactionCommit(const Napi::CallbackInfo& info);
  Napi::Value TransactionCancel(const Napi::CallbackInfo& info);
  Napi::Value Wipe(const Napi::CallbackInfo& info);
  Napi::Value HashSize(const Napi::CallbackInfo& info);

  std::unique_ptr<TdbFile> file_;
};

// probeTdbUser(path): the process that has a shared tdb open; 0: nobody.
Napi::Value ProbeTdbUserFunction(const Napi::CallbackInfo& info);

}  // namespace smbpool
