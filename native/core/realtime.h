// Real-time priority for the thread of the loop and for those it waits for, and the guard that takes it away when the
// loop runs and runs. Called by native/napi; the pump says when a turn began. The state belongs to the process, as
// scheduling and signals do: there is one loop with real-time priority in a process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "status.h"

namespace smbpool {

struct RealtimeState {
  bool active = false;
  // how often the guard took the priority away
  uint64_t demotions = 0;
  // how long the loop had not come round when it last did
  uint64_t stuck_micros = 0;
};

class Realtime {
 public:
  // Gives real-time priority to the calling thread, which is the loop's, and one step less to `helpers`; those that
  // ended meanwhile are left out. Threads and processes made afterwards have none. All or nothing. May be called again
  // after the guard took it away.
  static Status Start(const std::vector<pid_t>& helpers) noexcept;

  // Called by the loop about once a second: it came round. Answers what the guard did.
  static RealtimeState Look() noexcept;

  // The loop began or ended a turn at this time; as cheap as a store. Also without real-time priority.
  static void Turn(double now_micros) noexcept;

  // Ordinary priority for all of them, and no guard.
  static void Stop() noexcept;
};

}  // namespace smbpool
