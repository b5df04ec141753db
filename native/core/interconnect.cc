// See interconnect.h.
#include "interconnect.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace smbpool {

namespace {

// Frames of one interface taken into one batch, so that clients get their turn under a flood of frames.
constexpr int kFramesPerBatch = 256;
// Copies are dropped unopened while an authentic frame of the same peer and interface is no older than this, so some
// twenty a second are opened; those who watch interfaces count in seconds.
constexpr double kProofMicros = 50'000;

}  // namespace

Status Interconnect::Open(const InterconnectOptions& options, Counters* counters,
                          std::unique_ptr<Interconnect>* out) noexcept {
  if (!FrameChannel::Valid(options.channel)) return Failed("use these node ids, incarnation and key", EINVAL);
  const size_t count = options.ethernet.size() + options.udp.size();
  if (count == 0 || count > kInterfacesMax) return Failed("use so many interfaces", EINVAL);
  std::unique_ptr<Interconnect> interconnect(new Interconnect(options.channel, counters));
  const auto add = [&interconnect](std::unique_ptr<FrameSocket> socket) {
    interconnect->ways_.emplace_back();
    interconnect->ways_.back().socket = std::move(socket);
  };
  for (const EthernetOptions& one : options.ethernet) {
    std::unique_ptr<FrameSocket> socket;
    const Status status = OpenEthernetSocket(one, counters, &socket);
    if (!status.ok()) return status;
    add(std::move(socket));
  }
  for (const UdpOptions& one : options.udp) {
    std::unique_ptr<FrameSocket> socket;
    const Status status = OpenUdpSocket(one, counters, &socket);
    if (!status.ok()) return status;
    add(std::move(socket));
  }
  *out = std::move(interconnect);
  return {};
}

void Interconnect::OnEvent(size_t interface, uint32_t events) noexcept {
  if (interface >= ways_.size()) return;
  ways_[interface].readable = true;
  if ((events & EPOLLERR) != 0) ways_[interface].socket->ClearError();
}

void Interconnect::Collect(BatchWriter* writer, double now) noexcept {
  // a flood on one interface must not keep the other's frames out of every batch
  for (size_t i = 0; i < ways_.size(); i++) CollectFrom((first_ + i) % ways_.size(), writer, now);
  first_ = (first_ + 1) % ways_.size();
}

void Interconnect::CollectFrom(size_t interface, BatchWriter* writer, double now) noexcept {
  Way& way = ways_[interface];
  if (!std::exchange(way.readable, false) && !way.socket->Arrived()) return;
  const size_t bytes_max = way.socket->FrameBytesMax();
  const uint8_t* frame;
  size_t length;
  for (int i = 0; i < kFramesPerBatch && writer->Fits(sizeof(uint64_t) + bytes_max) &&
                  way.socket->Next(&frame, &length);
       i++) {
    // a longer one than anybody of ours sends would be opened beyond the room that was made sure of
    Take(interface, frame, std::min(length, bytes_max), writer, now);
    way.socket->Release();
  }
}

void Interconnect::Take(size_t interface, const uint8_t* frame, size_t length, BatchWriter* writer,
                        double now) noexcept {
  Way& way = ways_[interface];
  OpenedFrame opened;
  uint8_t* payload = writer->Payload();
  uint8_t* body = payload + sizeof(uint64_t);
  switch (channel_.Open(frame, length, interface, body, &opened)) {
    case FrameResult::kRefused: return;
    case FrameResult::kCopy: return TakeCopy(interface, opened.from, frame, body, now);
    case FrameResult::kFirst: break;
  }
  std::memcpy(payload, &opened.incarnation, sizeof(opened.incarnation));
  writer->Commit(InKind::kFrame, opened.from, sizeof(uint64_t) + opened.body_length);
  way.socket->Learn(opened.from);
  if (opened.is_new_run) {
    for (Way& other : ways_) other.heard[opened.from] = 0;
  }
  way.heard[opened.from] = now;
  counters_->Add(Counter::kFrameIn);
  counters_->Add(Counter::kFrameBytesIn, length);
  counters_->AddOf(interface, InterfaceCounter::kFirst);
}

void Interconnect::TakeCopy(size_t interface, uint16_t from, const uint8_t* frame, uint8_t* scratch,
                            double now) noexcept {
  Way& way = ways_[interface];
  counters_->AddOf(interface, InterfaceCounter::kCopies);
  if (way.socket->Knows(from) && now - way.heard[from] < kProofMicros) return;
  if (!channel_.Verify(frame, scratch)) return;
  way.socket->Learn(from);
  way.heard[from] = now;
}

bool Interconnect::Buffered() const noexcept {
  return std::any_of(ways_.begin(), ways_.end(), [](const Way& way) { return way.socket->Buffered(); });
}

bool Interconnect::Arrived() const noexcept {
  return std::any_of(ways_.begin(), ways_.end(), [](const Way& way) { return way.socket->Arrived(); });
}

Status Interconnect::SetPeer(size_t interface, uint16_t peer, const std::string& address, uint16_t port) noexcept {
  if (interface >= ways_.size()) return Failed("use such an interface", EINVAL);
  return ways_[interface].socket->SetPeer(peer, address, port);
}

void Interconnect::Send(uint32_t peer, const uint8_t* body, size_t length) noexcept {
  if (length > BodyBytesMax()) {
    counters_->Add(Counter::kFrameSendTooLong);
    return;
  }
  const auto id = static_cast<uint16_t>(peer < kNodesMax ? peer : kNodesMax);
  const uint8_t* sealed = nullptr;
  size_t sealed_length = 0;
  for (Way& way : ways_) {
    uint8_t* out = way.socket->SendBuffer(id);
    if (out == nullptr) continue;
    if (sealed == nullptr) {
      sealed_length = channel_.Seal(id, body, length, out);
      if (sealed_length == 0) return;
      sealed = out;
      counters_->Add(Counter::kFrameBytesOut, sealed_length);
    } else {
      std::memcpy(out, sealed, sealed_length);
    }
    way.socket->Queue(id, sealed_length);
  }
  if (sealed == nullptr) counters_->Add(Counter::kFrameSendNobody);
}

void Interconnect::Flush() noexcept {
  for (size_t i = 0; i < ways_.size(); i++) {
    const FlushResult result = ways_[i].socket->Flush();
    counters_->Add(Counter::kFrameOut, result.sent);
    counters_->AddOf(i, InterfaceCounter::kSent, result.sent);
    counters_->AddOf(i, InterfaceCounter::kNotSent, result.dropped);
  }
}

size_t Interconnect::BodyBytesMax() const noexcept {
  size_t least = kFrameBytesMax;
  for (const Way& way : ways_) least = std::min(least, way.socket->FrameBytesMax());
  return least - kFrameOverheadBytes;
}

size_t Interconnect::ReceiveFramesMax() const noexcept {
  size_t least = ways_[0].socket->ReceiveFramesMax();
  for (const Way& way : ways_) least = std::min(least, way.socket->ReceiveFramesMax());
  return least;
}

void Interconnect::CountDrops() noexcept {
  for (Way& way : ways_) way.socket->CountDrops();
}

}  // namespace smbpool
