// See udp_socket.h.
#include "udp_socket.h"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "unique_fd.h"

namespace smbpool {

namespace {

// Datagrams read by one recvmmsg.
constexpr size_t kReceiveDatagrams = 32;
// Some 1800 full datagrams, counted as the kernel counts them (kDatagramMemory each).
constexpr int kReceiveBufferBytes = 4 << 20;
constexpr int kSendBufferBytes = 4 << 20;
// What the kernel charges for one datagram of up to 1500 bytes (its truesize).
constexpr size_t kDatagramMemory = 2304;
constexpr size_t kReceiveFramesMin = 64;
constexpr size_t kReceiveFramesLimit = 1024;

bool ParseEndpoint(const UdpEndpoint& endpoint, sockaddr_storage* out, socklen_t* length) noexcept {
  std::memset(out, 0, sizeof(*out));
  auto* v4 = reinterpret_cast<sockaddr_in*>(out);
  if (::inet_pton(AF_INET, endpoint.address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(endpoint.port);
    *length = sizeof(*v4);
    return true;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
  if (::inet_pton(AF_INET6, endpoint.address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(endpoint.port);
    *length = sizeof(*v6);
    return true;
  }
  return false;
}

struct Peer {
  sockaddr_storage address{};
  socklen_t length = 0;
  std::string text;
};

class UdpSocket final : public FrameSocket {
 public:
  explicit UdpSocket(Counters* counters) noexcept : counters_(counters) {}

  Status Open(const UdpOptions& options) noexcept;

  int fd() const noexcept override { return fd_.get(); }
  size_t FrameBytesMax() const noexcept override { return bytes_max_; }
  size_t ReceiveFramesMax() const noexcept override { return receive_frames_max_; }
  Status SetPeer(uint16_t peer, const std::string& address, uint16_t port) noexcept override;
  uint8_t* SendBuffer(uint16_t peer) noexcept override;
  void Queue(uint16_t peer, size_t length) noexcept override;
  FlushResult Flush() noexcept override;
  bool Next(const uint8_t** frame, size_t* length) noexcept override;
  void Release() noexcept override { received_at_++; }
  bool Buffered() const noexcept override { return received_at_ < received_; }
  bool Arrived() const noexcept override { return Buffered(); }
  bool Knows(uint16_t) const noexcept override { return true; }
  void Learn(uint16_t) noexcept override {}
  void ClearError() noexcept override;
  void CountDrops() noexcept override;
  std::string Address() const override { return text_; }
  std::string PeerAddress(uint16_t peer) const override {
    return peer < peers_.size() ? peers_[peer].text : std::string();
  }

 private:
  Status SetBuffers() noexcept;
  void PrepareMessages() noexcept;
  void SendQueued() noexcept;

  Counters* counters_;
  UniqueFd fd_;
  std::string text_;
  sa_family_t family_ = AF_UNSPEC;
  size_t bytes_max_ = 0;
  size_t receive_frames_max_ = 0;
  std::array<Peer, kNodesMax> peers_;
  std::vector<uint8_t> send_;
  std::array<mmsghdr, kSendFramesMax> messages_{};
  std::array<iovec, kSendFramesMax> vectors_{};
  size_t queued_ = 0;
  FlushResult flushed_;
  std::vector<uint8_t> receive_;
  std::array<mmsghdr, kReceiveDatagrams> received_messages_{};
  std::array<iovec, kReceiveDatagrams> received_vectors_{};
  size_t received_ = 0;
  size_t received_at_ = 0;
  uint32_t drops_seen_ = 0;
};

Status UdpSocket::SetBuffers() noexcept {
  // beyond net.core.rmem_max only with CAP_NET_ADMIN; without it take what is given
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(kReceiveBufferBytes)) != 0) {
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBufferBytes, sizeof(kReceiveBufferBytes));
  }
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof(kSendBufferBytes)) != 0) {
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof(kSendBufferBytes));
  }
  int given = 0;
  socklen_t length = sizeof(given);
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &given, &length) != 0) return Failed("read receive buffer size");
  receive_frames_max_ =
      std::clamp(static_cast<size_t>(given) / kDatagramMemory, kReceiveFramesMin, kReceiveFramesLimit);
  return {};
}

void UdpSocket::PrepareMessages() noexcept {
  send_.resize(kSendFramesMax * bytes_max_);
  for (size_t i = 0; i < kSendFramesMax; i++) {
    vectors_[i].iov_base = send_.data() + i * bytes_max_;
    messages_[i].msg_hdr.msg_iov = &vectors_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
  }
  receive_.resize(kReceiveDatagrams * bytes_max_);
  for (size_t i = 0; i < kReceiveDatagrams; i++) {
    received_vectors_[i] = {receive_.data() + i * bytes_max_, bytes_max_};
    received_messages_[i].msg_hdr.msg_iov = &received_vectors_[i];
    received_messages_[i].msg_hdr.msg_iovlen = 1;
  }
}

Status UdpSocket::Open(const UdpOptions& options) noexcept {
  if (options.datagram_bytes_max < 2 * kFrameOverheadBytes || options.datagram_bytes_max > kFrameBytesMax) {
    return Failed("use such a datagram size", EINVAL);
  }
  bytes_max_ = options.datagram_bytes_max;
  sockaddr_storage own;
  socklen_t own_length = 0;
  if (!ParseEndpoint(options.own, &own, &own_length)) return Failed("read own address", EINVAL);
  text_ = options.own.address + ":" + std::to_string(options.own.port);
  family_ = own.ss_family;
  for (const UdpEndpoint& endpoint : options.peers) {
    const Status status = SetPeer(endpoint.id, endpoint.address, endpoint.port);
    if (!status.ok()) return status;
  }
  fd_ = UniqueFd(::socket(own.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_.valid()) return Failed("open UDP socket");
  const Status status = SetBuffers();
  if (!status.ok()) return status;
  if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&own), own_length) != 0) return Failed("bind UDP socket");
  PrepareMessages();
  return {};
}

Status UdpSocket::SetPeer(uint16_t id, const std::string& address, uint16_t port) noexcept {
  if (id >= peers_.size()) return Failed("use such a node id", EINVAL);
  Peer peer;
  UdpEndpoint endpoint;
  endpoint.address = address;
  endpoint.port = port;
  if (!ParseEndpoint(endpoint, &peer.address, &peer.length)) return Failed("read address of peer", EINVAL);
  if (peer.address.ss_family != family_) return Failed("mix IPv4 and IPv6 peers", EINVAL);
  peer.text = address + ":" + std::to_string(port);
  // what is queued points to the address that it replaces
  SendQueued();
  peers_[id] = peer;
  return {};
}

uint8_t* UdpSocket::SendBuffer(uint16_t peer) noexcept {
  if (peer >= peers_.size() || peers_[peer].length == 0) return nullptr;
  if (queued_ == kSendFramesMax) SendQueued();
  return static_cast<uint8_t*>(vectors_[queued_].iov_base);
}

void UdpSocket::Queue(uint16_t peer, size_t length) noexcept {
  messages_[queued_].msg_hdr.msg_name = &peers_[peer].address;
  messages_[queued_].msg_hdr.msg_namelen = peers_[peer].length;
  vectors_[queued_].iov_len = length;
  queued_++;
}

FlushResult UdpSocket::Flush() noexcept {
  SendQueued();
  return std::exchange(flushed_, {});
}

void UdpSocket::SendQueued() noexcept {
  size_t at = 0;
  size_t sent = 0;
  while (at < queued_) {
    const int count = ::sendmmsg(fd_.get(), messages_.data() + at, static_cast<unsigned>(queued_ - at), MSG_DONTWAIT);
    if (count > 0) {
      at += static_cast<size_t>(count);
      sent += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == ENOBUFS) {
      counters_->Add(Counter::kFrameSendBusy, queued_ - at);
      break;
    }
    // an error of this peer alone (unreachable, refused earlier): the others' frames still go
    counters_->Add(Counter::kFrameSendFailed);
    at++;
  }
  flushed_.sent += sent;
  flushed_.dropped += queued_ - sent;
  queued_ = 0;
}

bool UdpSocket::Next(const uint8_t** frame, size_t* length) noexcept {
  if (received_at_ >= received_) {
    received_at_ = 0;
    received_ = 0;
    const int count = ::recvmmsg(fd_.get(), received_messages_.data(), kReceiveDatagrams, MSG_DONTWAIT, nullptr);
    if (count <= 0) {
      if (count < 0 && errno != EAGAIN && errno != EINTR) counters_->Add(Counter::kFrameReceiveError);
      return false;
    }
    received_ = static_cast<size_t>(count);
  }
  *frame = static_cast<const uint8_t*>(received_vectors_[received_at_].iov_base);
  *length = received_messages_[received_at_].msg_len;
  return true;
}

void UdpSocket::ClearError() noexcept {
  int error = 0;
  socklen_t length = sizeof(error);
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) counters_->Add(Counter::kFrameReceiveError);
}

void UdpSocket::CountDrops() noexcept {
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof(memory);
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_MEMINFO, memory, &length) != 0) return;
  const uint32_t drops = memory[SK_MEMINFO_DROPS];
  counters_->Add(Counter::kFrameRingDropped, drops - drops_seen_);
  drops_seen_ = drops;
}

}  // namespace

Status OpenUdpSocket(const UdpOptions& options, Counters* counters, std::unique_ptr<FrameSocket>* out) noexcept {
  auto socket = std::make_unique<UdpSocket>(counters);
  const Status status = socket->Open(options);
  if (status.ok()) *out = std::move(socket);
  return status;
}

}  // namespace smbpool
