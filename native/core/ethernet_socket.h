// Frames in raw Ethernet, EtherType 0x88B5, on one interface: AF_PACKET with a TPACKET_V2 receive ring that is walked
// without system calls, and sendmmsg past the queueing discipline. V3 would hand frames over a millisecond late.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "counters.h"
#include "frame_format.h"
#include "frame_socket.h"
#include "status.h"

namespace smbpool {

// "Local experimental EtherType 1" of IEEE 802.
constexpr uint16_t kEtherType = 0x88b5;

struct EthernetOptions {
  std::string interface;
  // to whom frames are sent; the others are not on this network
  std::vector<uint16_t> peers;
};

Status OpenEthernetSocket(const EthernetOptions& options, Counters* counters,
                          std::unique_ptr<FrameSocket>* out) noexcept;

}  // namespace smbpool
