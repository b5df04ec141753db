// Seals frames to the servers of the pool and opens theirs: keys, numbers, replay windows. Knows no sockets; used by
// Pump and, directly, by tests. Every frame that is not authentic, fresh and for us is refused with a counted reason.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "counters.h"
#include "frame_format.h"
#include "frame_sealer.h"
#include "replay_window.h"

namespace smbpool {

struct ChannelOptions {
  uint16_t self = 0;
  std::vector<uint16_t> members;
  uint64_t incarnation = 0;
  PoolSecret secret;
};

enum class FrameResult {
  // and counted by reason
  kRefused,
  // opened
  kFirst,
  // a frame that came by another interface before, or too late to tell; as its header says: it was not opened
  kCopy,
};

struct OpenedFrame {
  uint16_t from = 0;
  uint64_t incarnation = 0;
  size_t body_length = 0;
  // the first of this incarnation
  bool is_new_run = false;
};

class FrameChannel {
 public:
  FrameChannel(ChannelOptions options, Counters* counters) noexcept;
  ~FrameChannel();

  // Whether ids, incarnation and secret can be used.
  static bool Valid(const ChannelOptions& options) noexcept;

  // Writes a whole frame (body_length + kFrameOverheadBytes) to `out`; its length, or 0 when `peer` is no other member
  // or the body too long.
  size_t Seal(uint16_t peer, const uint8_t* body, size_t body_length, uint8_t* out) noexcept;

  // Opens a frame of `length` bytes, which may be followed by padding and came by this interface; writes the body to
  // `out`, which must hold `length` bytes. Of a copy only `opened->from` is told.
  FrameResult Open(const uint8_t* frame, size_t length, size_t interface, uint8_t* out, OpenedFrame* opened) noexcept;
  // Right after Open called it a copy: whether it is authentic, so that it proves that its interface works. `out` is
  // for scribbling. False is counted.
  bool Verify(const uint8_t* frame, uint8_t* out) noexcept;

  // The newest incarnation heard of; 0 for none.
  uint64_t PeerIncarnation(uint16_t peer) const noexcept;

 private:
  struct Peer;
  FrameResult Refuse(Counter reason) noexcept {
    counters_->Add(reason);
    return FrameResult::kRefused;
  }
  Peer* Find(uint16_t id) noexcept { return id < peers_.size() ? peers_[id].get() : nullptr; }

  ChannelOptions options_;
  Counters* counters_;
  std::array<std::unique_ptr<Peer>, kNodesMax> peers_;
};

}  // namespace smbpool
