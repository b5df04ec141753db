// See addresses.h.
#include "addresses.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_packet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <cstring>

namespace smbpool {

namespace {

// The kernel answers at once; longer means that it never will.
constexpr timeval kAnswerTime = {2, 0};
// Until the address is announced again. On an interface that is down it is never usable.
constexpr int kUsableMillis = 200;
constexpr size_t kAnswerBytes = 32768;
constexpr size_t kIpv6Bytes = 16;
// The states of connections, as bits: all but LISTEN, CLOSE and TIME_WAIT.
constexpr uint32_t kConnectedStates = 0xfff & ~((1u << TCP_LISTEN) | (1u << TCP_CLOSE) | (1u << TCP_TIME_WAIT) | 1u);
constexpr uint8_t kIpv4Ttl = 64;
constexpr uint16_t kTickleWindow = 1234;

bool IsIpv6(const IpAddress& address) { return address.length == kIpv6Bytes; }
uint8_t FamilyOf(const IpAddress& address) { return IsIpv6(address) ? AF_INET6 : AF_INET; }

// A request built in place, and the kernel's answers.
class Netlink {
 public:
  // Hears what the kernel tells the groups, too.
  Status Open(int protocol, uint32_t groups = 0) noexcept {
    fd_ = UniqueFd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    if (!fd_.valid()) return Failed("open netlink socket");
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerTime, sizeof(kAnswerTime));
    sockaddr_nl here{};
    here.nl_family = AF_NETLINK;
    here.nl_groups = groups;
    const auto* bound = reinterpret_cast<const sockaddr*>(&here);
    if (groups != 0 && ::bind(fd_.get(), bound, sizeof(here)) != 0) return Failed("listen to the kernel");
    return {};
  }

  // False when nothing was told in so many milliseconds. What was told is to be looked up: it may be lost here.
  bool WaitUntilTold(int millis) noexcept {
    pollfd told = {fd_.get(), POLLIN, 0};
    if (::poll(&told, 1, millis) <= 0) return false;
    while (::recv(fd_.get(), answer_, sizeof(answer_), MSG_DONTWAIT) > 0) {
    }
    return true;
  }

  template <typename Body>
  Body* Begin(uint16_t type, uint16_t flags) noexcept {
    std::memset(request_, 0, sizeof(request_));
    auto* header = reinterpret_cast<nlmsghdr*>(request_);
    header->nlmsg_len = NLMSG_LENGTH(sizeof(Body));
    header->nlmsg_type = type;
    header->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header->nlmsg_seq = ++sequence_;
    return static_cast<Body*>(NLMSG_DATA(header));
  }

  void Attribute(uint16_t type, const void* data, size_t length) noexcept {
    auto* header = reinterpret_cast<nlmsghdr*>(request_);
    auto* attribute = reinterpret_cast<rtattr*>(request_ + NLMSG_ALIGN(header->nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = static_cast<uint16_t>(RTA_LENGTH(length));
    std::memcpy(RTA_DATA(attribute), data, length);
    header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
  }

  // Sends, and calls `take` for each message of the answer. The error is the kernel's own.
  template <typename Take>
  Status Ask(const char* what, Take take) noexcept {
    const auto* header = reinterpret_cast<const nlmsghdr*>(request_);
    if (::send(fd_.get(), request_, header->nlmsg_len, 0) < 0) return Failed(what);
    for (;;) {
      const ssize_t length = ::recv(fd_.get(), answer_, sizeof(answer_), 0);
      if (length < 0 && errno == EINTR) continue;
      if (length <= 0) return Failed(what);
      auto left = static_cast<uint32_t>(length);
      for (auto* message = reinterpret_cast<const nlmsghdr*>(answer_); NLMSG_OK(message, left);
           message = NLMSG_NEXT(message, left)) {
        if (message->nlmsg_seq != sequence_) continue;
        if (message->nlmsg_type == NLMSG_DONE) return {};
        if (message->nlmsg_type == NLMSG_ERROR) {
          const int error = -static_cast<const nlmsgerr*>(NLMSG_DATA(message))->error;
          return error == 0 ? Status{} : Failed(what, error);
        }
        take(message);
      }
    }
  }

  Status Ask(const char* what) noexcept {
    return Ask(what, [](const nlmsghdr*) {});
  }

 private:
  UniqueFd fd_;
  uint32_t sequence_ = 0;
  alignas(8) char request_[512];
  alignas(8) char answer_[kAnswerBytes];
};

// The Internet checksum over parts of which all but the last have an even length.
class Checksum {
 public:
  void Add(const void* data, size_t length) noexcept {
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i + 1 < length; i += 2) sum_ += static_cast<uint32_t>(bytes[i] << 8 | bytes[i + 1]);
    if (length % 2 == 1) sum_ += static_cast<uint32_t>(bytes[length - 1] << 8);
  }
  uint16_t Get() const noexcept {
    uint32_t sum = sum_;
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return htons(static_cast<uint16_t>(~sum));
  }

 private:
  uint32_t sum_ = 0;
};

// What IPv4's and IPv6's pseudo headers add, both the same sum.
void AddPseudoHeader(Checksum* sum, const IpAddress& from, const IpAddress& to, uint8_t protocol, size_t length) {
  const uint8_t rest[4] = {static_cast<uint8_t>(length >> 8), static_cast<uint8_t>(length), 0, protocol};
  sum->Add(from.bytes.data(), from.length);
  sum->Add(to.bytes.data(), to.length);
  sum->Add(rest, sizeof(rest));
}

// What `address_flags` and `lifetime` say is for one that is added.
Status ChangeAddress(uint16_t type, uint16_t flags, const char* interface, const IpAddress& address,
                     uint8_t prefix_length, uint32_t address_flags, uint32_t lifetime) noexcept {
  const bool adds = type == RTM_NEWADDR;
  const unsigned index = ::if_nametoindex(interface);
  if (index == 0) return Failed("find interface", ENODEV);
  Netlink netlink;
  const Status opened = netlink.Open(NETLINK_ROUTE);
  if (!opened.ok()) return opened;
  auto* body = netlink.Begin<ifaddrmsg>(type, static_cast<uint16_t>(NLM_F_ACK | flags));
  body->ifa_family = FamilyOf(address);
  body->ifa_prefixlen = prefix_length;
  body->ifa_scope = RT_SCOPE_UNIVERSE;
  body->ifa_index = index;
  netlink.Attribute(IFA_LOCAL, address.bytes.data(), address.length);
  netlink.Attribute(IFA_ADDRESS, address.bytes.data(), address.length);
  if (adds) {
    netlink.Attribute(IFA_FLAGS, &address_flags, sizeof(address_flags));
    // IPv4 calls from an interface's first address, IPv6 from any that is preferred: what moves is none to call from
    const ifa_cacheinfo info = {IsIpv6(address) ? 0u : lifetime, lifetime, 0, 0};
    netlink.Attribute(IFA_CACHEINFO, &info, sizeof(info));
  }
  return netlink.Ask(adds ? "add the address to interface" : "remove the address from interface");
}

struct Configured {
  IpAddress address;
  uint8_t prefix_length;
  bool is_deprecated;
};

// The interface's addresses of the family; none where there is no such interface, or no IPv6.
Status ListAddresses(const char* interface, uint8_t family, std::vector<Configured>* found) noexcept {
  const unsigned index = ::if_nametoindex(interface);
  if (index == 0) return {};
  Netlink netlink;
  const Status opened = netlink.Open(NETLINK_ROUTE);
  if (!opened.ok()) return opened;
  netlink.Begin<ifaddrmsg>(RTM_GETADDR, NLM_F_DUMP)->ifa_family = family;
  const Status listed = netlink.Ask("list the addresses of interface", [&](const nlmsghdr* message) {
    const auto* body = static_cast<const ifaddrmsg*>(NLMSG_DATA(message));
    // a kernel without IPv6 lists the other kind
    if (message->nlmsg_type != RTM_NEWADDR || body->ifa_family != family || body->ifa_index != index) return;
    Configured one{{}, body->ifa_prefixlen, (body->ifa_flags & IFA_F_DEPRECATED) != 0};
    auto left = static_cast<int>(IFA_PAYLOAD(message));
    for (const rtattr* part = IFA_RTA(body); RTA_OK(part, left); part = RTA_NEXT(part, left)) {
      // IFA_ADDRESS is the other end where IFA_LOCAL is there, too
      const bool is_own = part->rta_type == IFA_LOCAL || (part->rta_type == IFA_ADDRESS && one.address.length == 0);
      if (!is_own || RTA_PAYLOAD(part) > kIpv6Bytes) continue;
      one.address.length = RTA_PAYLOAD(part);
      std::memcpy(one.address.bytes.data(), RTA_DATA(part), one.address.length);
    }
    found->push_back(one);
  });
  return listed.code == EOPNOTSUPP ? Status{} : listed;
}

// Whether what arrives for the address is for this machine.
bool IsLocal(const IpAddress& address) noexcept {
  Netlink netlink;
  if (!netlink.Open(NETLINK_ROUTE).ok()) return false;
  auto* body = netlink.Begin<rtmsg>(RTM_GETROUTE, NLM_F_ACK);
  body->rtm_family = FamilyOf(address);
  body->rtm_dst_len = static_cast<uint8_t>(address.length * 8);
  netlink.Attribute(RTA_DST, address.bytes.data(), address.length);
  bool is_local = false;
  const Status asked = netlink.Ask("look up the address", [&](const nlmsghdr* message) {
    is_local = static_cast<const rtmsg*>(NLMSG_DATA(message))->rtm_type == RTN_LOCAL;
  });
  return asked.ok() && is_local;
}

int64_t NowMillis() noexcept {
  timespec now{};
  (void)::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

bool IsSame(const IpAddress& a, const IpAddress& b) { return a.length == b.length && a.bytes == b.bytes; }

bool IsInNetwork(const IpAddress& a, const IpAddress& b, uint8_t prefix_length) {
  const size_t whole = prefix_length / 8;
  const auto rest = static_cast<uint8_t>(0xff00 >> prefix_length % 8);
  if (std::memcmp(a.bytes.data(), b.bytes.data(), whole) != 0) return false;
  return rest == 0 || ((a.bytes[whole] ^ b.bytes[whole]) & rest) == 0;
}

// Whether an address that stays leads to the network. Its route may have a lifetime (of a router's advertisement), and
// the kernel would give it ours. Those of the pool are deprecated.
bool HasNetwork(const char* interface, const IpAddress& address, uint8_t prefix_length) noexcept {
  std::vector<Configured> all;
  if (!ListAddresses(interface, FamilyOf(address), &all).ok()) return false;
  for (const Configured& one : all) {
    if (one.is_deprecated || one.prefix_length != prefix_length || IsSame(one.address, address)) continue;
    if (IsInNetwork(one.address, address, prefix_length)) return true;
  }
  return false;
}

struct ArpFrame {
  ethhdr ethernet;
  arphdr head;
  uint8_t sender_mac[ETH_ALEN];
  uint8_t sender_ip[4];
  uint8_t target_mac[ETH_ALEN];
  uint8_t target_ip[4];
} __attribute__((packed));
static_assert(sizeof(ArpFrame) == 42, "ARP over Ethernet");

// RFC 4861, 4.4, with the option of the target's link address.
struct AdvertisementFrame {
  ethhdr ethernet;
  uint32_t version;
  uint16_t length;
  uint8_t next;
  uint8_t hop_limit;
  uint8_t from[16];
  uint8_t to[16];
  uint8_t type;
  uint8_t code;
  uint16_t checksum;
  uint32_t flags;
  uint8_t target[16];
  uint8_t option_type;
  uint8_t option_length;
  uint8_t mac[ETH_ALEN];
} __attribute__((packed));
constexpr size_t kAdvertisementBytes = 32;
static_assert(sizeof(AdvertisementFrame) == 14 + 40 + kAdvertisementBytes, "a neighbour advertisement");

struct Ipv4Segment {
  uint8_t version_and_words;
  uint8_t service;
  uint16_t length;
  uint16_t id;
  uint16_t fragment;
  uint8_t ttl;
  uint8_t protocol;
  uint16_t checksum;
  uint8_t from[4];
  uint8_t to[4];
  tcphdr tcp;
} __attribute__((packed));
static_assert(sizeof(Ipv4Segment) == 40, "IPv4 and TCP headers");

struct Ipv6Segment {
  uint32_t version;
  uint16_t length;
  uint8_t next;
  uint8_t hop_limit;
  uint8_t from[16];
  uint8_t to[16];
  tcphdr tcp;
} __attribute__((packed));
static_assert(sizeof(Ipv6Segment) == 60, "IPv6 and TCP headers");

Status SendFrame(int fd, unsigned index, const void* frame, size_t length) noexcept {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(index);
  to.sll_halen = ETH_ALEN;
  const ssize_t sent = ::sendto(fd, frame, length, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  return sent < 0 ? Failed("announce the address on interface") : Status{};
}

Status AnnounceIpv4(int fd, unsigned index, const uint8_t* mac, const IpAddress& address) noexcept {
  ArpFrame frame{};
  std::memset(frame.ethernet.h_dest, 0xff, ETH_ALEN);
  std::memcpy(frame.ethernet.h_source, mac, ETH_ALEN);
  frame.ethernet.h_proto = htons(ETH_P_ARP);
  frame.head.ar_hrd = htons(ARPHRD_ETHER);
  frame.head.ar_pro = htons(ETH_P_IP);
  frame.head.ar_hln = ETH_ALEN;
  frame.head.ar_pln = 4;
  std::memcpy(frame.sender_mac, mac, ETH_ALEN);
  std::memcpy(frame.sender_ip, address.bytes.data(), 4);
  std::memcpy(frame.target_ip, address.bytes.data(), 4);
  // some neighbours heed only the one, some only the other
  frame.head.ar_op = htons(ARPOP_REQUEST);
  const Status asked = SendFrame(fd, index, &frame, sizeof(frame));
  if (!asked.ok()) return asked;
  frame.head.ar_op = htons(ARPOP_REPLY);
  std::memcpy(frame.target_mac, mac, ETH_ALEN);
  return SendFrame(fd, index, &frame, sizeof(frame));
}

Status AnnounceIpv6(int fd, unsigned index, const uint8_t* mac, const IpAddress& address) noexcept {
  constexpr uint8_t kAdvertisement = 136;
  constexpr uint32_t kOverride = 0x2000'0000;
  constexpr uint8_t kTargetLinkAddress = 2;
  constexpr uint8_t kAllNodesMac[ETH_ALEN] = {0x33, 0x33, 0, 0, 0, 1};
  IpAddress all_nodes;
  all_nodes.length = kIpv6Bytes;
  all_nodes.bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  AdvertisementFrame frame{};
  std::memcpy(frame.ethernet.h_dest, kAllNodesMac, ETH_ALEN);
  std::memcpy(frame.ethernet.h_source, mac, ETH_ALEN);
  frame.ethernet.h_proto = htons(ETH_P_IPV6);
  frame.version = htonl(0x6000'0000);
  frame.length = htons(kAdvertisementBytes);
  frame.next = IPPROTO_ICMPV6;
  frame.hop_limit = 255;
  std::memcpy(frame.from, address.bytes.data(), kIpv6Bytes);
  std::memcpy(frame.to, all_nodes.bytes.data(), kIpv6Bytes);
  frame.type = kAdvertisement;
  frame.flags = htonl(kOverride);
  std::memcpy(frame.target, address.bytes.data(), kIpv6Bytes);
  frame.option_type = kTargetLinkAddress;
  frame.option_length = 1;
  std::memcpy(frame.mac, mac, ETH_ALEN);
  Checksum sum;
  AddPseudoHeader(&sum, address, all_nodes, IPPROTO_ICMPV6, kAdvertisementBytes);
  sum.Add(&frame.type, kAdvertisementBytes);
  frame.checksum = sum.Get();
  return SendFrame(fd, index, &frame, sizeof(frame));
}

// Sequence and acknowledgement 0 are outside of every window that is likely: the client answers with what it waits for.
tcphdr TickleHeader(const TcpConnection& connection) noexcept {
  tcphdr tcp{};
  tcp.source = htons(connection.server_port);
  tcp.dest = htons(connection.client_port);
  tcp.doff = sizeof(tcphdr) / 4;
  tcp.ack = 1;
  tcp.window = htons(kTickleWindow);
  Checksum sum;
  AddPseudoHeader(&sum, connection.server, connection.client, IPPROTO_TCP, sizeof(tcp));
  sum.Add(&tcp, sizeof(tcp));
  tcp.check = sum.Get();
  return tcp;
}

// The kernel fills in IPv4's id and checksum.
bool TickleIpv4(int fd, const TcpConnection& connection) noexcept {
  Ipv4Segment segment{};
  segment.version_and_words = 0x45;
  segment.length = htons(sizeof(segment));
  segment.ttl = kIpv4Ttl;
  segment.protocol = IPPROTO_TCP;
  std::memcpy(segment.from, connection.server.bytes.data(), 4);
  std::memcpy(segment.to, connection.client.bytes.data(), 4);
  segment.tcp = TickleHeader(connection);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  std::memcpy(&to.sin_addr, connection.client.bytes.data(), 4);
  return ::sendto(fd, &segment, sizeof(segment), 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) >= 0;
}

bool TickleIpv6(int fd, unsigned index, const TcpConnection& connection) noexcept {
  Ipv6Segment segment{};
  segment.version = htonl(0x6000'0000);
  segment.length = htons(sizeof(tcphdr));
  segment.next = IPPROTO_TCP;
  segment.hop_limit = kIpv4Ttl;
  std::memcpy(segment.from, connection.server.bytes.data(), kIpv6Bytes);
  std::memcpy(segment.to, connection.client.bytes.data(), kIpv6Bytes);
  segment.tcp = TickleHeader(connection);
  sockaddr_in6 to{};
  to.sin6_family = AF_INET6;
  std::memcpy(&to.sin6_addr, connection.client.bytes.data(), kIpv6Bytes);
  if (IN6_IS_ADDR_LINKLOCAL(&to.sin6_addr)) to.sin6_scope_id = index;
  return ::sendto(fd, &segment, sizeof(segment), 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) >= 0;
}

bool IsOwnEnd(const inet_diag_msg& socket, const IpAddress& address) noexcept {
  const auto* own = reinterpret_cast<const uint8_t*>(socket.id.idiag_src);
  if (socket.idiag_family == FamilyOf(address)) return std::memcmp(own, address.bytes.data(), address.length) == 0;
  // an IPv4 connection that an IPv6 socket took
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return !IsIpv6(address) && socket.idiag_family == AF_INET6 && std::memcmp(own, kMapped, sizeof(kMapped)) == 0 &&
         std::memcmp(own + sizeof(kMapped), address.bytes.data(), 4) == 0;
}

}  // namespace

bool ParseIpAddress(const std::string& text, IpAddress* out) noexcept {
  const bool ipv6 = text.find(':') != std::string::npos;
  out->length = ipv6 ? kIpv6Bytes : 4;
  return ::inet_pton(ipv6 ? AF_INET6 : AF_INET, text.c_str(), out->bytes.data()) == 1;
}

Status AddAddress(const char* interface, const IpAddress& address, uint8_t prefix_length, uint32_t lifetime) noexcept {
  uint32_t flags = 0;
  if (IsIpv6(address)) {
    flags = HasNetwork(interface, address, prefix_length) ? IFA_F_NODAD | IFA_F_NOPREFIXROUTE : IFA_F_NODAD;
  }
  return ChangeAddress(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, interface, address, prefix_length, flags, lifetime);
}

Status AwaitAddress(const IpAddress& address) noexcept {
  // of IPv4 it is there with the answer
  if (!IsIpv6(address)) return {};
  Netlink routes;
  const Status opened = routes.Open(NETLINK_ROUTE, RTMGRP_IPV6_ROUTE);
  if (!opened.ok()) return opened;
  const int64_t until = NowMillis() + kUsableMillis;
  while (!IsLocal(address)) {
    const int64_t left = until - NowMillis();
    if (left <= 0 || !routes.WaitUntilTold(static_cast<int>(left))) {
      return Failed("wait until the address is usable on interface", ETIMEDOUT);
    }
  }
  return {};
}

Status DeleteAddress(const char* interface, const IpAddress& address, bool* was_there) noexcept {
  *was_there = false;
  std::vector<Configured> all;
  Status status = ListAddresses(interface, FamilyOf(address), &all);
  for (const Configured& one : all) {
    if (!IsSame(one.address, address)) continue;
    const Status removed = ChangeAddress(RTM_DELADDR, 0, interface, address, one.prefix_length, 0, 0);
    *was_there = *was_there || removed.ok();
    // its lifetime ended, or the interface went, meanwhile
    const bool is_gone = removed.ok() || removed.code == EADDRNOTAVAIL || removed.code == ENODEV;
    if (!is_gone && status.ok()) status = removed;
  }
  return status;
}

Status AnnounceAddress(const char* interface, const IpAddress& address, UniqueFd* used) noexcept {
  *used = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  const int fd = used->get();
  if (!used->valid()) return Failed("open packet socket");
  const unsigned index = ::if_nametoindex(interface);
  ifreq request{};
  if (index == 0 || std::strlen(interface) >= sizeof(request.ifr_name)) return Failed("find interface", ENODEV);
  std::strcpy(request.ifr_name, interface);
  if (::ioctl(fd, SIOCGIFHWADDR, &request) != 0) return Failed("read address of interface");
  // the loopback has no neighbours
  if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) return {};
  uint8_t mac[ETH_ALEN];
  std::memcpy(mac, request.ifr_hwaddr.sa_data, sizeof(mac));
  return IsIpv6(address) ? AnnounceIpv6(fd, index, mac, address) : AnnounceIpv4(fd, index, mac, address);
}

Status TickleClients(const char* interface, const std::vector<TcpConnection>& connections) noexcept {
  const unsigned index = ::if_nametoindex(interface);
  UniqueFd ipv4;
  UniqueFd ipv6;
  Status status;
  for (const TcpConnection& connection : connections) {
    if (connection.server.length != connection.client.length) continue;
    UniqueFd* fd = IsIpv6(connection.server) ? &ipv6 : &ipv4;
    // IPPROTO_RAW: the header is ours
    if (!fd->valid()) *fd = UniqueFd(::socket(FamilyOf(connection.server), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (!fd->valid()) return Failed("open raw socket");
    const bool sent = IsIpv6(connection.server) ? TickleIpv6(fd->get(), index, connection)
                                                : TickleIpv4(fd->get(), connection);
    // one that cannot be reached must not keep the others from being told
    if (!sent && status.ok()) status = Failed("tickle a client");
  }
  return status;
}

Status EndConnections(const IpAddress& address, size_t* ended) noexcept {
  *ended = 0;
  Netlink netlink;
  Status status = netlink.Open(NETLINK_SOCK_DIAG);
  if (!status.ok()) return status;
  std::vector<inet_diag_msg> found;
  for (const uint8_t family : {uint8_t{AF_INET}, uint8_t{AF_INET6}}) {
    auto* body = netlink.Begin<inet_diag_req_v2>(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
    body->sdiag_family = family;
    body->sdiag_protocol = IPPROTO_TCP;
    body->idiag_states = kConnectedStates;
    status = netlink.Ask("list connections", [&](const nlmsghdr* message) {
      const auto* socket = static_cast<const inet_diag_msg*>(NLMSG_DATA(message));
      if (IsOwnEnd(*socket, address)) found.push_back(*socket);
    });
    // a kernel without IPv6 has none of its connections
    if (!status.ok() && !(family == AF_INET6 && status.code == ENOENT)) return status;
  }
  for (const inet_diag_msg& socket : found) {
    auto* body = netlink.Begin<inet_diag_req_v2>(SOCK_DESTROY, NLM_F_ACK);
    body->sdiag_family = socket.idiag_family;
    body->sdiag_protocol = IPPROTO_TCP;
    body->idiag_states = 1u << socket.idiag_state;
    body->id = socket.id;
    status = netlink.Ask("end a connection");
    if (status.ok()) *ended += 1;
    // it ended by itself meanwhile
    else if (status.code != ENOENT) return status;
  }
  return {};
}

}  // namespace smbpool
