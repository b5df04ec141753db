// See ethernet_socket.h.
#include "ethernet_socket.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "unique_fd.h"

namespace smbpool {

namespace {

constexpr size_t kEthernetHeaderBytes = 14;
// The ring holds 4 MiB at an MTU of 1500 and 8 MiB at 9000; the link layer keeps half of the frames free.
constexpr size_t kRingFramesSmall = 2048;
constexpr size_t kRingFrameBytesSmall = 2048;
constexpr size_t kRingFramesLarge = 512;
constexpr size_t kRingFrameBytesLarge = 16384;
// Room in a ring frame for the kernel's header and address, and its alignment.
constexpr size_t kRingFrameReserve = 160;
constexpr size_t kRingBlockBytes = 65536;
// Enough for the frames of all peers' windows at once.
constexpr int kSendBufferBytes = 4 << 20;

using Mac = std::array<uint8_t, 6>;
constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

std::string MacText(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
  return text;
}

class EthernetSocket final : public FrameSocket {
 public:
  explicit EthernetSocket(Counters* counters) noexcept : counters_(counters) { peers_.fill(kBroadcast); }
  ~EthernetSocket() override {
    if (ring_ != nullptr) ::munmap(ring_, ring_bytes_);
  }

  Status Open(const EthernetOptions& options) noexcept;

  int fd() const noexcept override { return fd_.get(); }
  size_t FrameBytesMax() const noexcept override { return mtu_; }
  size_t ReceiveFramesMax() const noexcept override { return ring_frames_; }
  Status SetPeer(uint16_t peer, const std::string& address, uint16_t port) noexcept override;
  uint8_t* SendBuffer(uint16_t peer) noexcept override;
  void Queue(uint16_t peer, size_t length) noexcept override;
  FlushResult Flush() noexcept override;
  bool Next(const uint8_t** frame, size_t* length) noexcept override;
  void Release() noexcept override;
  bool Buffered() const noexcept override { return false; }
  bool Arrived() const noexcept override {
    return (__atomic_load_n(&Slot()->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) != 0;
  }
  bool Knows(uint16_t peer) const noexcept override;
  void Learn(uint16_t peer) noexcept override;
  void ClearError() noexcept override;
  void CountDrops() noexcept override;
  std::string Address() const override { return MacText(own_); }
  std::string PeerAddress(uint16_t peer) const override {
    return peer < peers_.size() && peers_[peer] != kBroadcast ? MacText(peers_[peer]) : std::string();
  }

 private:
  Status ReadInterface(const char* interface) noexcept;
  Status MapRing() noexcept;
  Status Bind() noexcept;
  void SendQueued() noexcept;
  tpacket2_hdr* Slot() const noexcept {
    return reinterpret_cast<tpacket2_hdr*>(static_cast<uint8_t*>(ring_) + ring_at_ * ring_frame_bytes_);
  }

  Counters* counters_;
  UniqueFd fd_;
  int index_ = 0;
  size_t mtu_ = 0;
  Mac own_{};
  void* ring_ = nullptr;
  size_t ring_bytes_ = 0;
  size_t ring_frames_ = 0;
  size_t ring_frame_bytes_ = 0;
  size_t ring_at_ = 0;
  const uint8_t* current_ = nullptr;
  std::array<Mac, kNodesMax> peers_;
  std::array<bool, kNodesMax> reachable_{};
  std::vector<uint8_t> send_;
  std::array<mmsghdr, kSendFramesMax> messages_{};
  std::array<iovec, kSendFramesMax> vectors_{};
  size_t queued_ = 0;
  FlushResult flushed_;
};

Status EthernetSocket::ReadInterface(const char* interface) noexcept {
  ifreq request{};
  if (std::strlen(interface) >= sizeof(request.ifr_name)) return Failed("find interface", ENODEV);
  std::strcpy(request.ifr_name, interface);
  if (::ioctl(fd_.get(), SIOCGIFINDEX, &request) != 0) return Failed("find interface");
  index_ = request.ifr_ifindex;
  if (::ioctl(fd_.get(), SIOCGIFMTU, &request) != 0) return Failed("read MTU of interface");
  const size_t ring_mtu = kRingFrameBytesLarge - kRingFrameReserve - kEthernetHeaderBytes;
  mtu_ = std::min(static_cast<size_t>(request.ifr_mtu), ring_mtu);
  if (mtu_ < 2 * kFrameOverheadBytes) return Failed("use interface with so small an MTU", EMSGSIZE);
  if (::ioctl(fd_.get(), SIOCGIFHWADDR, &request) != 0) return Failed("read address of interface");
  std::memcpy(own_.data(), request.ifr_hwaddr.sa_data, own_.size());
  return {};
}

Status EthernetSocket::MapRing() noexcept {
  const bool small = mtu_ + kEthernetHeaderBytes + kRingFrameReserve <= kRingFrameBytesSmall;
  ring_frames_ = small ? kRingFramesSmall : kRingFramesLarge;
  ring_frame_bytes_ = small ? kRingFrameBytesSmall : kRingFrameBytesLarge;
  ring_bytes_ = ring_frames_ * ring_frame_bytes_;
  tpacket_req request{};
  request.tp_block_size = kRingBlockBytes;
  request.tp_block_nr = static_cast<unsigned>(ring_bytes_ / kRingBlockBytes);
  request.tp_frame_size = static_cast<unsigned>(ring_frame_bytes_);
  request.tp_frame_nr = static_cast<unsigned>(ring_frames_);
  if (::setsockopt(fd_.get(), SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) != 0) {
    return Failed("make receive ring");
  }
  void* ring = ::mmap(nullptr, ring_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (ring == MAP_FAILED) return Failed("map receive ring");
  ring_ = ring;
  return {};
}

// Last of all: before it, with protocol 0, the socket receives nothing foreign.
Status EthernetSocket::Bind() noexcept {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(kEtherType);
  address.sll_ifindex = index_;
  const int bound = ::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  return bound == 0 ? Status{} : Failed("bind to interface");
}

Status EthernetSocket::Open(const EthernetOptions& options) noexcept {
  for (uint16_t peer : options.peers) {
    if (peer >= reachable_.size()) return Failed("use such a node id", EINVAL);
    reachable_[peer] = true;
  }
  fd_ = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_.valid()) return Failed("open packet socket");
  Status status = ReadInterface(options.interface.c_str());
  if (!status.ok()) return status;
  const int version = TPACKET_V2;
  if (::setsockopt(fd_.get(), SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0) {
    return Failed("choose ring version");
  }
  const int on = 1;
  if (::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0) {
    return Failed("ignore outgoing frames");
  }
  // a faster road, but the slower one works too
  (void)::setsockopt(fd_.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
  (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof(kSendBufferBytes));
  status = MapRing();
  if (!status.ok()) return status;
  send_.resize(kSendFramesMax * (mtu_ + kEthernetHeaderBytes));
  for (size_t i = 0; i < kSendFramesMax; i++) {
    vectors_[i].iov_base = send_.data() + i * (mtu_ + kEthernetHeaderBytes);
    messages_[i].msg_hdr.msg_iov = &vectors_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
  }
  return Bind();
}

Status EthernetSocket::SetPeer(uint16_t peer, const std::string&, uint16_t) noexcept {
  if (peer >= reachable_.size()) return Failed("use such a node id", EINVAL);
  // where it is its first frame tells
  reachable_[peer] = true;
  return {};
}

uint8_t* EthernetSocket::SendBuffer(uint16_t peer) noexcept {
  if (peer >= peers_.size() || !reachable_[peer]) return nullptr;
  if (queued_ == kSendFramesMax) SendQueued();
  return static_cast<uint8_t*>(vectors_[queued_].iov_base) + kEthernetHeaderBytes;
}

void EthernetSocket::Queue(uint16_t peer, size_t length) noexcept {
  auto* header = static_cast<uint8_t*>(vectors_[queued_].iov_base);
  std::memcpy(header, peers_[peer].data(), 6);
  std::memcpy(header + 6, own_.data(), 6);
  header[12] = kEtherType >> 8;
  header[13] = kEtherType & 0xff;
  vectors_[queued_].iov_len = kEthernetHeaderBytes + length;
  queued_++;
}

FlushResult EthernetSocket::Flush() noexcept {
  SendQueued();
  return std::exchange(flushed_, {});
}

void EthernetSocket::SendQueued() noexcept {
  size_t sent = 0;
  while (sent < queued_) {
    const auto left = static_cast<unsigned>(queued_ - sent);
    const int count = ::sendmmsg(fd_.get(), messages_.data() + sent, left, MSG_DONTWAIT);
    if (count > 0) {
      sent += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    const bool busy = errno == EAGAIN || errno == ENOBUFS;
    counters_->Add(busy ? Counter::kFrameSendBusy : Counter::kFrameSendFailed, queued_ - sent);
    break;
  }
  flushed_.sent += sent;
  flushed_.dropped += queued_ - sent;
  queued_ = 0;
}

bool EthernetSocket::Next(const uint8_t** frame, size_t* length) noexcept {
  if (!Arrived()) return false;
  const tpacket2_hdr* slot = Slot();
  const auto* bytes = reinterpret_cast<const uint8_t*>(slot);
  const size_t offset = slot->tp_mac;
  size_t captured = slot->tp_snaplen;
  // the kernel's own numbers; checked all the same, because they are indexes
  if (offset + captured > ring_frame_bytes_) captured = 0;
  current_ = bytes + offset;
  const size_t header = std::min(captured, kEthernetHeaderBytes);
  *frame = current_ + header;
  *length = captured - header;
  return true;
}

void EthernetSocket::Release() noexcept {
  __atomic_store_n(&Slot()->tp_status, static_cast<uint32_t>(TP_STATUS_KERNEL), __ATOMIC_RELEASE);
  current_ = nullptr;
  ring_at_ = ring_at_ + 1 == ring_frames_ ? 0 : ring_at_ + 1;
}

bool EthernetSocket::Knows(uint16_t peer) const noexcept {
  return peer >= peers_.size() || current_ == nullptr || std::memcmp(peers_[peer].data(), current_ + 6, 6) == 0;
}

void EthernetSocket::Learn(uint16_t peer) noexcept {
  if (Knows(peer)) return;
  std::memcpy(peers_[peer].data(), current_ + 6, 6);
  counters_->Add(Counter::kPeerAddressLearnt);
}

void EthernetSocket::ClearError() noexcept {
  int error = 0;
  socklen_t length = sizeof(error);
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) counters_->Add(Counter::kFrameReceiveError);
}

void EthernetSocket::CountDrops() noexcept {
  tpacket_stats statistics{};
  socklen_t length = sizeof(statistics);
  // reading sets the kernel's numbers back to zero
  if (::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0) {
    counters_->Add(Counter::kFrameRingDropped, statistics.tp_drops);
  }
}

}  // namespace

Status OpenEthernetSocket(const EthernetOptions& options, Counters* counters,
                          std::unique_ptr<FrameSocket>* out) noexcept {
  auto socket = std::make_unique<EthernetSocket>(counters);
  const Status status = socket->Open(options);
  if (status.ok()) *out = std::move(socket);
  return status;
}

}  // namespace smbpool
