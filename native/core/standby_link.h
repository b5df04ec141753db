// The active daemon's end of the connection to its standby: messages in order, some with a descriptor. What the socket
// does not take is kept and sent later; a standby that is gone is forgotten. Used by gate, and through it by
// JavaScript. Never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "unique_fd.h"

namespace smbpool {

enum class StandbyKind : uint32_t {
  kOpened = 1,  // id, slot; with the connection's descriptor
  kClosed = 2,  // id
  kSay = 3,     // what JavaScript says, opaque here
};

struct StandbyHeader {
  uint32_t kind = 0;
  uint32_t id = 0;
  uint32_t slot = 0;
  uint32_t length = 0;
};

constexpr size_t kStandbySayBytesMax = 65536;

class StandbyLink {
 public:
  // From now on to this one.
  void Set(UniqueFd link) noexcept;
  bool there() const noexcept { return link_.valid(); }
  // `fd` is duplicated at once when it must wait.
  void Tell(const StandbyHeader& header, const uint8_t* payload, int fd) noexcept;
  // Sends what was kept.
  void Retry() noexcept;

 private:
  struct Kept {
    StandbyHeader header;
    std::vector<uint8_t> payload;
    UniqueFd fd;
  };
  enum class Sent { kDone, kLater, kGone };
  Sent Send(const StandbyHeader& header, const uint8_t* payload, int fd) noexcept;

  UniqueFd link_;
  std::deque<Kept> kept_;
};

// Both ends; they stay open in a child only where it is told so. False: errno says why.
bool MakeStandbyPair(UniqueFd* one, UniqueFd* other) noexcept;
// The standby's side: one message, without waiting. False: nothing there (`*gone`: and nobody any more).
bool ReceiveFromActive(int link, StandbyHeader* header, std::vector<uint8_t>* payload, UniqueFd* fd,
                       bool* gone) noexcept;

}  // namespace smbpool
