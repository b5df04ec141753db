// Frames to and from the other servers, by one interface or by two. Each frame is sealed once and sent on all that lead
// to its receiver, always; of the copies that come the first counts, and the others only prove that their interface
// works. An interface that fails is nothing to the other. Owned by Pump, whose descriptor wakes for it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch.h"
#include "counters.h"
#include "ethernet_socket.h"
#include "frame_channel.h"
#include "frame_socket.h"
#include "status.h"
#include "udp_socket.h"

namespace smbpool {

struct InterconnectOptions {
  ChannelOptions channel;
  // one kind or the other, one or kInterfacesMax of it
  std::vector<EthernetOptions> ethernet;
  std::vector<UdpOptions> udp;
};

class Interconnect {
 public:
  static Status Open(const InterconnectOptions& options, Counters* counters,
                     std::unique_ptr<Interconnect>* out) noexcept;

  size_t interfaces() const noexcept { return ways_.size(); }
  int fd(size_t interface) const noexcept { return ways_[interface].socket->fd(); }
  // What epoll says of an interface's descriptor.
  void OnEvent(size_t interface, uint32_t events) noexcept;
  // What has come, into the batch. `now`: microseconds of CLOCK_MONOTONIC.
  void Collect(BatchWriter* writer, double now) noexcept;
  // Whether frames wait that no descriptor shows as readable any more.
  bool Buffered() const noexcept;
  // Whether a frame is there, as far as that can be told without a system call.
  bool Arrived() const noexcept;

  // FrameSocket::SetPeer of this interface.
  Status SetPeer(size_t interface, uint16_t peer, const std::string& address, uint16_t port) noexcept;
  // Queues a body; one that is for nobody, empty or too long is counted and dropped.
  void Send(uint32_t peer, const uint8_t* body, size_t length) noexcept;
  void Flush() noexcept;

  // What every interface carries whole.
  size_t BodyBytesMax() const noexcept;
  // How many frames can wait at the interface with the smallest buffer.
  size_t ReceiveFramesMax() const noexcept;
  std::string Address(size_t interface) const { return ways_[interface].socket->Address(); }
  std::string PeerAddress(uint16_t peer, size_t interface) const {
    return ways_[interface].socket->PeerAddress(peer);
  }
  uint64_t PeerIncarnation(uint16_t peer) const noexcept { return channel_.PeerIncarnation(peer); }
  // When an authentic frame of the peer's present run came by this interface last, off by up to kProofMicros; 0: never.
  double HeardAt(uint16_t peer, size_t interface) const noexcept {
    return peer < kNodesMax ? ways_[interface].heard[peer] : 0;
  }
  void CountDrops() noexcept;

 private:
  struct Way {
    std::unique_ptr<FrameSocket> socket;
    bool readable = false;
    // of each peer, the last authentic frame; 0: none
    std::array<double, kNodesMax> heard{};
  };

  Interconnect(const ChannelOptions& options, Counters* counters) noexcept
      : channel_(options, counters), counters_(counters) {}
  void CollectFrom(size_t interface, BatchWriter* writer, double now) noexcept;
  void Take(size_t interface, const uint8_t* frame, size_t length, BatchWriter* writer, double now) noexcept;
  void TakeCopy(size_t interface, uint16_t from, const uint8_t* frame, uint8_t* scratch, double now) noexcept;

  FrameChannel channel_;
  Counters* counters_;
  std::vector<Way> ways_;
  // whose turn it is to come first in the next batch
  size_t first_ = 0;
};

}  // namespace smbpool
