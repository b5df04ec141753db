// The byte streams of the local processes in memory that outlives the daemon: a sparse memfd, of which a standby
// process has a duplicate (docs/decisions/standby.md). A daemon that is killed at any instruction leaves in it, of each
// connection, what it has received and not settled, and what it has to send and not written: the kernel itself writes
// there how much it moved (recvmmsg, sendmmsg), and every other change is one store. Used by gate only; one process at
// a time. Holds no decision about packets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <sys/socket.h>
#include <sys/types.h>

#include "status.h"
#include "unique_fd.h"

namespace smbpool {

constexpr size_t kKeptClientsMax = 8192;
// What a slot has of its own: its first page for what is said below and short states, then the small areas.
constexpr size_t kKeptSlotBytes = 65536;
constexpr size_t kKeptSmallBytes = 28672;
// What does not fit goes to one of two large areas. Only what is touched is memory.
constexpr size_t kKeptLargeBytes = size_t{128} << 20;
constexpr size_t kKeptStateSmallBytes = 1280;
constexpr size_t kKeptStateLargeBytes = size_t{4} << 20;
constexpr size_t kKeptGlobalBytes = 65536;
// Of each of two logs of erasures; the older one is emptied when the newer one has so many, or is full.
constexpr size_t kKeptLogBytes = size_t{1} << 20;
constexpr uint32_t kKeptLogEntries = 4096;

// One call that moves bytes. Of an input, [from, at + message.msg_len) is there and not settled; of an output, [at +
// message.msg_len, end) is to be written.
struct KeptTurn {
  uint64_t area = 0;  // 0: the small one, 1 and 2: the large ones
  uint64_t from = 0;
  uint64_t at = 0;
  uint64_t end = 0;
  mmsghdr message{};
};

// The turn that counts is turns[current]; the other one is prepared, then `current` is stored.
struct KeptDirection {
  uint32_t current = 0;
  uint32_t unused = 0;
  KeptTurn turns[2];

  KeptTurn& now() noexcept { return turns[current & 1]; }
};

struct KeptState {
  uint32_t length = 0;
  uint32_t large = 0;
};

// At the start of a slot.
struct KeptClient {
  uint32_t id = 0;  // 0: nobody
  uint32_t pid = 0;
  // The request at this place of the input (plus one; 0: none) is settled once the output ends there or behind.
  uint64_t settles = 0;
  uint64_t settles_at_end = 0;
  KeptDirection input;
  KeptDirection output;
  uint32_t state_now = 0;
  uint32_t unused = 0;
  KeptState states[2];
};
static_assert(sizeof(KeptClient) + 2 * kKeptStateSmallBytes <= 4096);

enum class KeptWay { kInput, kOutput };

class KeptStreams {
 public:
  // A new one; sparse, so it costs nothing by itself.
  static Status Make(std::unique_ptr<KeptStreams>* out) noexcept;
  // One that another process made; takes the descriptor. `code` EPROTO: of another layout, or damaged.
  static Status Adopt(UniqueFd memory, std::unique_ptr<KeptStreams>* out) noexcept;
  ~KeptStreams();
  KeptStreams(const KeptStreams&) = delete;
  KeptStreams& operator=(const KeptStreams&) = delete;

  int fd() const noexcept { return memory_.get(); }

  // The number of the connection given last, by whichever process.
  uint32_t last_id() const noexcept { return global_->last_id; }
  size_t slots_used() const noexcept { return global_->slots_used; }
  void SetLastId(uint32_t id) noexcept { global_->last_id = id; }

  // A free slot for this connection; -1: none.
  int Take(uint32_t id, uint32_t pid) noexcept;
  void Release(int slot) noexcept;
  KeptClient& client(int slot) noexcept { return *reinterpret_cast<KeptClient*>(slots_ + Slot(slot)); }

  uint8_t* Area(int slot, KeptWay way, uint64_t area) noexcept;
  static size_t Capacity(uint64_t area) noexcept { return area == 0 ? kKeptSmallBytes : kKeptLargeBytes; }
  // The bytes of an area that is not used any more, `touched` from its start, are given back when they are many.
  void Forget(int slot, KeptWay way, uint64_t area, size_t touched) noexcept;

  // Another turn begins. Everything said of the last one must be in the arguments.
  static void Turn(KeptDirection* direction, uint64_t area, uint64_t from, uint64_t at, uint64_t end) noexcept;
  // Into or from the area, at the turn's place, without waiting; the kernel writes msg_len. As recv and send answer.
  static ssize_t Receive(int fd, KeptTurn* turn, uint8_t* area, size_t length) noexcept;
  static ssize_t Write(int fd, KeptTurn* turn, uint8_t* area, size_t length) noexcept;

  // Whether this slot is of this connection, and what another process left of it makes sense: places within areas.
  bool Sane(int slot, uint32_t id) noexcept;

  // All or nothing. False: too long.
  bool SetState(int slot, const uint8_t* state, size_t length) noexcept;
  // The same for the daemon as a whole; at most 30 KiB.
  bool SetGlobal(const uint8_t* state, size_t length) noexcept;
  std::vector<uint8_t> State(int slot) noexcept;
  std::vector<uint8_t> Global() noexcept;
  // Appends to a log of which the newest kKeptLogEntries stay, as a rule.
  void Log(uint32_t database, uint64_t turn, const uint8_t* key, size_t length) noexcept;
  // All of it, oldest first: {u32 database, u32 length of the key, u64 turn, key, padding to 8}.
  std::vector<uint8_t> Logged() noexcept;

 private:
  struct Head {
    uint32_t magic;
    uint32_t layout;
    uint32_t last_id;
    // slots from here on were never used, and nobody looks at them: that would make them memory
    uint32_t slots_used;
    uint32_t state_now;
    uint32_t lengths[2];
    uint32_t log_now;
    uint32_t log_bytes[2];
    uint32_t log_entries[2];
  };

  KeptStreams() noexcept = default;
  Status Map() noexcept;
  static size_t Slot(int slot) noexcept { return static_cast<size_t>(slot) * kKeptSlotBytes; }
  uint8_t* Large(int slot, KeptWay way, uint64_t area) noexcept;
  uint8_t* StateAt(int slot, uint32_t which, bool large) noexcept;
  uint8_t* GlobalAt(uint32_t which) noexcept;

  UniqueFd memory_;
  uint8_t* base_ = nullptr;
  Head* global_ = nullptr;
  uint8_t* slots_ = nullptr;
  uint8_t* large_ = nullptr;
  std::vector<int> free_;
};

// Stores of one process in their order: a killed process has done the first of them and not the others.
inline void KeptOrder() noexcept { __atomic_thread_fence(__ATOMIC_RELEASE); }

}  // namespace smbpool
