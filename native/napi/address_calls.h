// The calls of native/core/addresses.h for JavaScript: those that wait for the kernel run in libuv's threads and answer
// with a promise; removal also at once, for a daemon that is about to end.
#pragma once

#include <napi.h>

namespace smbpool {

// takeAddress({interface, address, prefixLength, lifetimeSeconds, deadlineMicros, announce, tickle}): Promise<string>,
// an empty text or what could not be announced. Rejects when the address is not there.
Napi::Value TakeAddressFunction(const Napi::CallbackInfo& info);
// releaseAddress({interface, address, prefixLength}): Promise<{wasThere, ended, why}>. Rejects when it is still there.
Napi::Value ReleaseAddressFunction(const Napi::CallbackInfo& info);
// removeAddress({interface, address, prefixLength}): whether it was there. Throws.
Napi::Value RemoveAddressFunction(const Napi::CallbackInfo& info);

}  // namespace smbpool
