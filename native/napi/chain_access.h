// Reads and writes records of one tdb under their chains with two calls from JavaScript per record, which pass nothing
// but numbers: key and value lie in one buffer that both sides know. For the records that move with every open of a
// file; everything else goes through the methods of Tdb. Mirrored in src/host/native.ts.
#pragma once

#include <napi.h>

#include "../core/tdb_file.h"

namespace smbpool {

// {begin, finish} over `buffer`, of which the first `key_bytes` are for keys and the rest for values. Both keep `owner`
// alive, whose file is `*file`.
Napi::Object MakeChainAccess(Napi::Env env, Napi::Object owner, const std::unique_ptr<TdbFile>* file,
                             Napi::ArrayBuffer buffer, size_t key_bytes);

}  // namespace smbpool
