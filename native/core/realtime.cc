// See realtime.h. How the guard works: the kernel sends SIGXCPU when a thread with real-time priority has used the
// processor for RLIMIT_RTTIME without sleeping once, and again after each further second. The handler then looks
// whether the loop still makes turns; it allocates nothing, takes no lock and only calls the kernel, since it may
// interrupt anything.
#include "realtime.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>

namespace smbpool {

namespace {

// Low: above everything ordinary, below what people gave real-time priority on purpose. The loop comes before the
// threads that work for it.
constexpr int kLoopPriority = 2;
constexpr int kHelperPriority = 1;
// The longest turns, with a whole collection of garbage in them, take a tenth of it; and who has not come round for so
// long has lost its lease of 300 ms anyway.
constexpr uint64_t kRunMicros = 500'000;
// As above, for the time since a turn began or ended; a little less, since both are counted from about the same moment.
constexpr uint64_t kTurnMicrosMax = 400'000;
// A loop that makes turns is only busy, but it must leave room for the rest of the machine some day.
constexpr uint64_t kRestlessMicrosMax = 10'000'000;
// Node.js has about ten threads.
constexpr size_t kThreadsMax = 64;

static_assert(std::atomic<uint64_t>::is_always_lock_free, "the handler of a signal may wait for nothing");

struct Guard {
  // the loop's thread first; 0: none
  std::array<std::atomic<pid_t>, kThreadsMax> threads{};
  std::atomic<bool> active{false};
  std::atomic<uint64_t> demotions{0};
  std::atomic<uint64_t> stuck_micros{0};
  std::atomic<uint64_t> turned_at{0};
  std::atomic<uint64_t> rested_at{0};
  // only the loop's thread uses the rest
  long sleeps = -1;
  bool handling = false;
};

Guard guard;

uint64_t NowMicros() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

// The kernel's call itself: the C library's speaks of processes, and musl's refuses.
int SetScheduler(pid_t thread, int policy, int priority) noexcept {
  sched_param parameters{};
  parameters.sched_priority = priority;
  return static_cast<int>(syscall(SYS_sched_setscheduler, thread, policy | SCHED_RESET_ON_FORK, &parameters));
}

void MakeAllOrdinary() noexcept {
  for (const std::atomic<pid_t>& thread : guard.threads) {
    const pid_t id = thread.load(std::memory_order_relaxed);
    if (id == 0) break;
    SetScheduler(id, SCHED_OTHER, 0);
  }
}

// In whichever thread: the signal is the process's. So it demotes all, not the thread it interrupts.
void OnRunLong(int) {
  const int saved_errno = errno;
  const uint64_t now = NowMicros();
  const auto since = [now](const std::atomic<uint64_t>& then) {
    const uint64_t at = then.load(std::memory_order_relaxed);
    return now > at ? now - at : 0;
  };
  const uint64_t stuck = since(guard.turned_at);
  if (stuck >= kTurnMicrosMax || since(guard.rested_at) >= kRestlessMicrosMax) {
    MakeAllOrdinary();
    if (guard.active.exchange(false, std::memory_order_relaxed)) {
      guard.stuck_micros.store(stuck, std::memory_order_relaxed);
      guard.demotions.fetch_add(1, std::memory_order_relaxed);
    }
  }
  errno = saved_errno;
}

// The soft limit only, which the kernel raises by a second with each signal. The hard one would kill: it stays.
Status SetRunLimit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_RTTIME, &limit) != 0) return Failed("read RLIMIT_RTTIME");
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < 2 * kRestlessMicrosMax) {
    return Failed("use real-time priority under a hard RLIMIT_RTTIME, which kills", ERANGE);
  }
  limit.rlim_cur = kRunMicros;
  return setrlimit(RLIMIT_RTTIME, &limit) == 0 ? Status{} : Failed("set RLIMIT_RTTIME");
}

Status Handle() noexcept {
  if (guard.handling) return {};
  struct sigaction action {};
  action.sa_handler = OnRunLong;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGXCPU, &action, nullptr) != 0) return Failed("handle SIGXCPU");
  guard.handling = true;
  return {};
}

// How often the loop's thread gave the processor away by itself.
long Sleeps() noexcept {
  rusage usage{};
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : -1;
}

}  // namespace

Status Realtime::Start(const std::vector<pid_t>& helpers) noexcept {
  const auto self = static_cast<pid_t>(syscall(SYS_gettid));
  const uint64_t now = NowMicros();
  Status status = Handle();
  if (status.ok()) status = SetRunLimit();
  if (!status.ok()) return status;
  guard.turned_at.store(now, std::memory_order_relaxed);
  guard.rested_at.store(now, std::memory_order_relaxed);
  guard.sleeps = Sleeps();
  size_t count = 0;
  guard.threads[count++].store(self, std::memory_order_relaxed);
  for (const pid_t helper : helpers) {
    if (helper != self && count < kThreadsMax) guard.threads[count++].store(helper, std::memory_order_relaxed);
  }
  while (count < kThreadsMax) guard.threads[count++].store(0, std::memory_order_relaxed);
  guard.active.store(true, std::memory_order_relaxed);
  for (const std::atomic<pid_t>& thread : guard.threads) {
    const pid_t id = thread.load(std::memory_order_relaxed);
    if (id == 0) break;
    if (SetScheduler(id, SCHED_RR, id == self ? kLoopPriority : kHelperPriority) == 0 || errno == ESRCH) continue;
    status = Failed("set real-time priority");
    Stop();
    return status;
  }
  return {};
}

RealtimeState Realtime::Look() noexcept {
  const long sleeps = Sleeps();
  if (sleeps != guard.sleeps) {
    guard.sleeps = sleeps;
    guard.rested_at.store(NowMicros(), std::memory_order_relaxed);
    if (guard.active.load(std::memory_order_relaxed)) SetRunLimit();
  }
  RealtimeState state;
  state.active = guard.active.load(std::memory_order_relaxed);
  state.demotions = guard.demotions.load(std::memory_order_relaxed);
  state.stuck_micros = guard.stuck_micros.load(std::memory_order_relaxed);
  return state;
}

void Realtime::Turn(double now_micros) noexcept {
  guard.turned_at.store(static_cast<uint64_t>(now_micros), std::memory_order_relaxed);
}

void Realtime::Stop() noexcept {
  guard.active.store(false, std::memory_order_relaxed);
  MakeAllOrdinary();
}

}  // namespace smbpool
