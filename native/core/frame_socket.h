// One way for frames to travel: raw Ethernet or UDP. Moves whole frames and knows where peers are; knows no seal.
// Sending only queues until Flush, which never waits: what the system does not take is dropped and counted (the link
// layer sends again). Receiving hands out one frame at a time in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "status.h"

namespace smbpool {

// Frames queued for one sendmmsg; more are sent in several calls. A turn rarely makes more than a few.
constexpr size_t kSendFramesMax = 64;

// What became of queued frames since the last Flush.
struct FlushResult {
  size_t sent = 0;
  size_t dropped = 0;
};

class FrameSocket {
 public:
  virtual ~FrameSocket() = default;

  virtual int fd() const noexcept = 0;
  // The longest frame that travels whole.
  virtual size_t FrameBytesMax() const noexcept = 0;
  // How many frames can wait here unread before some are lost.
  virtual size_t ReceiveFramesMax() const noexcept = 0;

  // The peer is on this network from here on; with UDP at this address, which replaces another.
  virtual Status SetPeer(uint16_t peer, const std::string& address, uint16_t port) noexcept = 0;
  // Where to write the next frame to `peer` (FrameBytesMax bytes); null when the peer is not on this network.
  virtual uint8_t* SendBuffer(uint16_t peer) noexcept = 0;
  // Queues the frame written there.
  virtual void Queue(uint16_t peer, size_t length) noexcept = 0;
  virtual FlushResult Flush() noexcept = 0;

  // The next received frame, valid until Release. False when none is waiting.
  virtual bool Next(const uint8_t** frame, size_t* length) noexcept = 0;
  virtual void Release() noexcept = 0;
  // Whether frames wait that the descriptor does not show as readable any more.
  virtual bool Buffered() const noexcept = 0;
  // Whether a frame is there, as far as that can be told without a system call.
  virtual bool Arrived() const noexcept = 0;
  // Whether the source of the last Next's frame is where the peer is already.
  virtual bool Knows(uint16_t peer) const noexcept = 0;
  // The frame of the last Next was an authentic one of `peer`: its source is where the peer is.
  virtual void Learn(uint16_t peer) noexcept = 0;

  // Reads and clears an error of the descriptor, which would wake us for ever.
  virtual void ClearError() noexcept = 0;
  // Brings the counter of frames lost before we saw them up to date.
  virtual void CountDrops() noexcept = 0;
  // Our own address and a peer's as people write them; empty when not known.
  virtual std::string Address() const = 0;
  virtual std::string PeerAddress(uint16_t peer) const = 0;
};

}  // namespace smbpool
