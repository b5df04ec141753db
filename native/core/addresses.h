// Public addresses of this server: put on an interface and removed by netlink, announced to the neighbours by ARP or
// neighbour advertisements, connections of clients tickled and ended. Each call opens what it needs, waits for the
// kernel's answer, and may be made from any thread. Decides nothing; see src/host/addresses.ts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "status.h"
#include "unique_fd.h"

namespace smbpool {

// 4 bytes (IPv4) or 16 (IPv6), in network order.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};
  size_t length = 0;
};

// False when the text is no address.
bool ParseIpAddress(const std::string& text, IpAddress* out) noexcept;

struct TcpConnection {
  IpAddress server;
  uint16_t server_port = 0;
  IpAddress client;
  uint16_t client_port = 0;
};

// Adds the address, or gives it this lifetime (seconds) anew when it is there. Usable at once: no duplicate detection.
// This machine does not call others from it while it has another one, and the interface's routes stay as they are where
// they lead to its network already.
Status AddAddress(const char* interface, const IpAddress& address, uint8_t prefix_length, uint32_t lifetime) noexcept;
// Waits until what arrives for the address is taken. Of IPv6 the kernel sees to that some time after AddAddress, and
// drops it until then: also the answers to tickles. ETIMEDOUT: the interface is down.
Status AwaitAddress(const IpAddress& address) noexcept;
// With whatever prefix length it is there. `was_there` false: there was none to remove, which is no failure.
Status DeleteAddress(const char* interface, const IpAddress& address, bool* was_there) noexcept;
// Broadcasts that the address is here: an ARP request and a reply, or an unsolicited neighbour advertisement. `used` is
// to be closed when nothing is urgent any more: the kernel takes some 15 ms to close a packet socket.
Status AnnounceAddress(const char* interface, const IpAddress& address, UniqueFd* used) noexcept;
// Sends each client an ACK of a sequence number that it did not wait for, in the name of the server. The interface is
// for clients with a link-local address.
Status TickleClients(const char* interface, const std::vector<TcpConnection>& connections) noexcept;
// Ends all TCP connections of this machine whose own end is the address. EOPNOTSUPP: the kernel cannot.
Status EndConnections(const IpAddress& address, size_t* ended) noexcept;

}  // namespace smbpool
