// Frames in UDP datagrams, for networks that pass no unknown EtherType: one socket, recvmmsg and sendmmsg. Peers'
// addresses are configured, not learnt.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "counters.h"
#include "frame_format.h"
#include "frame_socket.h"
#include "status.h"

namespace smbpool {

struct UdpEndpoint {
  uint16_t id = 0;
  // a numeric IPv4 or IPv6 address
  std::string address;
  uint16_t port = 0;
};

struct UdpOptions {
  UdpEndpoint own;
  std::vector<UdpEndpoint> peers;
  // the longest datagram, without IP and UDP headers
  size_t datagram_bytes_max = 0;
};

Status OpenUdpSocket(const UdpOptions& options, Counters* counters, std::unique_ptr<FrameSocket>* out) noexcept;

}  // namespace smbpool
