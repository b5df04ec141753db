// See kept_streams.h.
#include "kept_streams.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace smbpool {

namespace {

constexpr uint32_t kMagic = 0x5350524b;
// Of everything in kept_streams.h, and of how gate.cc marks what is settled.
constexpr uint32_t kLayout = 1;
constexpr size_t kPage = 4096;
constexpr size_t kGlobalStateBytes = 30720;
// Input and output, two of each, then two states.
constexpr size_t kLargeSlotBytes = 4 * kKeptLargeBytes + 2 * kKeptStateLargeBytes;
constexpr size_t kTotalBytes =
    kKeptGlobalBytes + 2 * kKeptLogBytes + kKeptClientsMax * kKeptSlotBytes + kKeptClientsMax * kLargeSlotBytes;
// Less than this stays for the next time.
constexpr size_t kBytesKept = size_t{1} << 20;

}  // namespace

Status KeptStreams::Make(std::unique_ptr<KeptStreams>* out) noexcept {
  std::unique_ptr<KeptStreams> streams(new KeptStreams());
  streams->memory_ = UniqueFd(::memfd_create("smbpool-streams", MFD_CLOEXEC));
  if (!streams->memory_.valid()) return Failed("make the streams' memory");
  if (::ftruncate(streams->memory_.get(), static_cast<off_t>(kTotalBytes)) != 0) {
    return Failed("size the streams' memory");
  }
  const Status status = streams->Map();
  if (!status.ok()) return status;
  streams->global_->magic = kMagic;
  streams->global_->layout = kLayout;
  for (size_t i = kKeptClientsMax; i > 0; i--) streams->free_.push_back(static_cast<int>(i - 1));
  *out = std::move(streams);
  return {};
}

Status KeptStreams::Adopt(UniqueFd memory, std::unique_ptr<KeptStreams>* out) noexcept {
  std::unique_ptr<KeptStreams> streams(new KeptStreams());
  streams->memory_ = std::move(memory);
  struct stat found {};
  if (::fstat(streams->memory_.get(), &found) != 0) return Failed("look at the streams' memory");
  if (static_cast<size_t>(found.st_size) != kTotalBytes) return Failed("know the streams' memory", EPROTO);
  const Status status = streams->Map();
  if (!status.ok()) return status;
  if (streams->global_->magic != kMagic || streams->global_->layout != kLayout) {
    return Failed("know the streams' memory", EPROTO);
  }
  for (size_t i = kKeptClientsMax; i > 0; i--) {
    const int slot = static_cast<int>(i - 1);
    if (i > streams->global_->slots_used || streams->client(slot).id == 0) streams->free_.push_back(slot);
  }
  *out = std::move(streams);
  return {};
}

Status KeptStreams::Map() noexcept {
  void* at = ::mmap(nullptr, kTotalBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_.get(), 0);
  if (at == MAP_FAILED) return Failed("map the streams' memory");
  base_ = static_cast<uint8_t*>(at);
  // a core dump has the heap; this would be terabytes of holes
  (void)::madvise(at, kTotalBytes, MADV_DONTDUMP);
  global_ = reinterpret_cast<Head*>(base_);
  slots_ = base_ + kKeptGlobalBytes + 2 * kKeptLogBytes;
  large_ = slots_ + kKeptClientsMax * kKeptSlotBytes;
  return {};
}

KeptStreams::~KeptStreams() {
  if (base_ != nullptr) ::munmap(base_, kTotalBytes);
}

int KeptStreams::Take(uint32_t id, uint32_t pid) noexcept {
  if (free_.empty()) return -1;
  const int slot = free_.back();
  free_.pop_back();
  if (global_->slots_used <= static_cast<uint32_t>(slot)) global_->slots_used = static_cast<uint32_t>(slot) + 1;
  KeptClient& kept = client(slot);
  kept = KeptClient{};
  kept.pid = pid;
  KeptOrder();
  kept.id = id;
  return slot;
}

void KeptStreams::Release(int slot) noexcept {
  KeptClient& kept = client(slot);
  kept.id = 0;
  KeptOrder();
  Forget(slot, KeptWay::kInput, kept.input.now().area, kKeptLargeBytes);
  Forget(slot, KeptWay::kOutput, kept.output.now().area, kKeptLargeBytes);
  for (uint32_t which = 0; which < 2; which++) {
    if (kept.states[which].large != 0) {
      (void)::madvise(StateAt(slot, which, true), kKeptStateLargeBytes, MADV_REMOVE);
    }
  }
  free_.push_back(slot);
}

uint8_t* KeptStreams::Large(int slot, KeptWay way, uint64_t area) noexcept {
  const size_t which = (way == KeptWay::kInput ? 0u : 2u) + (area == 2 ? 1u : 0u);
  return large_ + static_cast<size_t>(slot) * kLargeSlotBytes + which * kKeptLargeBytes;
}

uint8_t* KeptStreams::Area(int slot, KeptWay way, uint64_t area) noexcept {
  if (area != 0) return Large(slot, way, area);
  return slots_ + Slot(slot) + kPage + (way == KeptWay::kInput ? 0 : kKeptSmallBytes);
}

void KeptStreams::Forget(int slot, KeptWay way, uint64_t area, size_t touched) noexcept {
  if (area == 0 || touched < kBytesKept) return;
  (void)::madvise(Large(slot, way, area), (touched + kPage - 1) & ~(kPage - 1), MADV_REMOVE);
}

void KeptStreams::Turn(KeptDirection* direction, uint64_t area, uint64_t from, uint64_t at, uint64_t end) noexcept {
  const uint32_t next = (direction->current & 1) ^ 1;
  KeptTurn& turn = direction->turns[next];
  turn.area = area;
  turn.from = from;
  turn.at = at;
  turn.end = end;
  turn.message.msg_len = 0;
  KeptOrder();
  __atomic_store_n(&direction->current, next, __ATOMIC_RELEASE);
}

// The vector is ours: the kernel reads it during the call only. What it has moved it writes beside the data itself,
// before this process can run, or die, again.
ssize_t KeptStreams::Receive(int fd, KeptTurn* turn, uint8_t* area, size_t length) noexcept {
  iovec part{area + turn->at, length};
  turn->message.msg_hdr = msghdr{};
  turn->message.msg_hdr.msg_iov = &part;
  turn->message.msg_hdr.msg_iovlen = 1;
  const int count = ::recvmmsg(fd, &turn->message, 1, MSG_DONTWAIT, nullptr);
  return count == 1 ? static_cast<ssize_t>(turn->message.msg_len) : -1;
}

ssize_t KeptStreams::Write(int fd, KeptTurn* turn, uint8_t* area, size_t length) noexcept {
  iovec part{area + turn->at, length};
  turn->message.msg_hdr = msghdr{};
  turn->message.msg_hdr.msg_iov = &part;
  turn->message.msg_hdr.msg_iovlen = 1;
  const int count = ::sendmmsg(fd, &turn->message, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  return count == 1 ? static_cast<ssize_t>(turn->message.msg_len) : -1;
}

bool KeptStreams::Sane(int slot, uint32_t id) noexcept {
  if (slot < 0 || static_cast<size_t>(slot) >= global_->slots_used) return false;
  KeptClient& kept = client(slot);
  if (id == 0 || kept.id != id) return false;
  const KeptTurn& input = kept.input.now();
  const KeptTurn& output = kept.output.now();
  if (input.area > 2 || output.area > 2) return false;
  const size_t received = Capacity(input.area);
  const size_t written = Capacity(output.area);
  return input.at <= received && input.message.msg_len <= received - input.at &&
         input.from <= input.at + input.message.msg_len && output.end <= written && output.at <= output.end &&
         output.message.msg_len <= output.end - output.at;
}

uint8_t* KeptStreams::StateAt(int slot, uint32_t which, bool large) noexcept {
  if (large) {
    return large_ + static_cast<size_t>(slot) * kLargeSlotBytes + 4 * kKeptLargeBytes + which * kKeptStateLargeBytes;
  }
  return slots_ + Slot(slot) + kPage - (which + 1) * kKeptStateSmallBytes;
}

bool KeptStreams::SetState(int slot, const uint8_t* state, size_t length) noexcept {
  if (length > kKeptStateLargeBytes) return false;
  KeptClient& kept = client(slot);
  const uint32_t next = (kept.state_now & 1) ^ 1;
  const bool large = length > kKeptStateSmallBytes;
  if (length != 0) std::memcpy(StateAt(slot, next, large), state, length);
  kept.states[next] = {static_cast<uint32_t>(length), large ? 1u : 0u};
  KeptOrder();
  __atomic_store_n(&kept.state_now, next, __ATOMIC_RELEASE);
  return true;
}

std::vector<uint8_t> KeptStreams::State(int slot) noexcept {
  KeptClient& kept = client(slot);
  const uint32_t which = kept.state_now & 1;
  const KeptState state = kept.states[which];
  if (state.length > (state.large != 0 ? kKeptStateLargeBytes : kKeptStateSmallBytes)) return {};
  const uint8_t* bytes = StateAt(slot, which, state.large != 0);
  return {bytes, bytes + state.length};
}

uint8_t* KeptStreams::GlobalAt(uint32_t which) noexcept { return base_ + kPage + which * kGlobalStateBytes; }

bool KeptStreams::SetGlobal(const uint8_t* state, size_t length) noexcept {
  static_assert(kPage + 2 * kGlobalStateBytes <= kKeptGlobalBytes);
  if (length > kGlobalStateBytes) return false;
  const uint32_t next = (global_->state_now & 1) ^ 1;
  if (length != 0) std::memcpy(GlobalAt(next), state, length);
  global_->lengths[next] = static_cast<uint32_t>(length);
  KeptOrder();
  __atomic_store_n(&global_->state_now, next, __ATOMIC_RELEASE);
  return true;
}

void KeptStreams::Log(uint32_t database, uint64_t turn, const uint8_t* key, size_t length) noexcept {
  const size_t bytes = 16 + ((length + 7) & ~size_t{7});
  if (bytes > kKeptLogBytes) return;
  uint32_t now = global_->log_now & 1;
  if (global_->log_bytes[now] + bytes > kKeptLogBytes || global_->log_entries[now] >= kKeptLogEntries) {
    now ^= 1;
    global_->log_bytes[now] = 0;
    global_->log_entries[now] = 0;
    KeptOrder();
    global_->log_now = now;
  }
  uint8_t* at = base_ + kKeptGlobalBytes + now * kKeptLogBytes + global_->log_bytes[now];
  const uint32_t words[2] = {database, static_cast<uint32_t>(length)};
  std::memcpy(at, words, sizeof(words));
  std::memcpy(at + 8, &turn, sizeof(turn));
  std::memcpy(at + 16, key, length);
  global_->log_entries[now]++;
  KeptOrder();
  __atomic_store_n(&global_->log_bytes[now], global_->log_bytes[now] + static_cast<uint32_t>(bytes), __ATOMIC_RELEASE);
}

std::vector<uint8_t> KeptStreams::Logged() noexcept {
  std::vector<uint8_t> all;
  for (uint32_t i = 1; i <= 2; i++) {
    const uint32_t which = (global_->log_now + i) & 1;
    const uint8_t* bytes = base_ + kKeptGlobalBytes + which * kKeptLogBytes;
    if (global_->log_bytes[which] > kKeptLogBytes) continue;
    all.insert(all.end(), bytes, bytes + global_->log_bytes[which]);
  }
  return all;
}

std::vector<uint8_t> KeptStreams::Global() noexcept {
  const uint32_t which = global_->state_now & 1;
  if (global_->lengths[which] > kGlobalStateBytes) return {};
  return {GlobalAt(which), GlobalAt(which) + global_->lengths[which]};
}

}  // namespace smbpool
