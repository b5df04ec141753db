// How the core of the addon answers: no exceptions, a status. Used by everything in native/core; native/napi turns a
// failed status into one JavaScript error. Texts are literals and live for ever.
#pragma once

#include <cerrno>

namespace smbpool {

struct Status {
  // 0, or an errno value
  int code = 0;
  // what was being done when it failed; never null when code is set
  const char* what = "";

  bool ok() const noexcept { return code == 0; }
};

inline Status Failed(const char* what) noexcept { return Status{errno != 0 ? errno : EIO, what}; }
inline Status Failed(const char* what, int code) noexcept { return Status{code, what}; }

}  // namespace smbpool
