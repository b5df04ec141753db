// See pump.h.
#include "pump.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <utility>

#include "ethernet_socket.h"

namespace smbpool {

namespace {

constexpr uint64_t kFrameTag = uint64_t{3} << 32;
constexpr uint64_t kTimerTag = uint64_t{4} << 32;
constexpr uint64_t kKickTag = uint64_t{5} << 32;
constexpr uint64_t kRingTag = uint64_t{6} << 32;
constexpr uint64_t kTagMask = uint64_t{0xffffffff} << 32;
// Descriptors looked at in one batch; the others keep their event for the next.
constexpr int kEventsPerBatch = 256;
// Frames taken into one batch, so that clients get their turn under a flood of frames.
constexpr int kFramesPerBatch = 256;
// What waits for company takes no more of a batch than this.
constexpr size_t kPatientBytesMax = 65536;
constexpr double kMicrosPerSecond = 1e6;

void ReadCounter(int fd) noexcept {
  uint64_t value;
  // empty is fine: another batch read it
  if (::read(fd, &value, sizeof(value)) < 0) return;
}

}  // namespace

Status Pump::Open(PumpOptions options, std::unique_ptr<Pump>* out) noexcept {
  std::unique_ptr<Pump> pump(new Pump());
  pump->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!pump->epoll_.valid()) return Failed("make epoll");
  Status status = pump->OpenTimer();
  if (!status.ok()) return status;
  if (options.udp || !options.interface.empty()) {
    status = pump->OpenFrames(options);
    if (!status.ok()) return status;
  }
  if (!options.ring.socket_path.empty()) {
    status = RingPort::Open(std::move(options.ring), &pump->counters_, &pump->ring_);
    if (status.ok()) status = pump->Watch(pump->ring_->epoll_fd(), kRingTag);
    if (!status.ok()) return status;
  }
  // the gate last: no client comes before everything else is in order
  if (!options.gate.path.empty()) {
    status = Gate::Open(std::move(options.gate), pump->epoll_.get(), &pump->counters_, &pump->gate_);
    if (!status.ok()) return status;
  }
  *out = std::move(pump);
  return {};
}

Status Pump::OpenTimer() noexcept {
  timer_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!timer_.valid()) return Failed("make timer");
  kick_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!kick_.valid()) return Failed("make eventfd");
  const Status status = Watch(timer_.get(), kTimerTag);
  return status.ok() ? Watch(kick_.get(), kKickTag) : status;
}

Status Pump::OpenFrames(const PumpOptions& options) noexcept {
  if (!FrameChannel::Valid(options.channel)) return Failed("use these node ids, incarnation and key", EINVAL);
  const Status status = options.udp ? OpenUdpSocket(options.udp_options, &counters_, &socket_)
                                    : OpenEthernetSocket(options.interface.c_str(), &counters_, &socket_);
  if (!status.ok()) return status;
  channel_ = std::make_unique<FrameChannel>(options.channel, &counters_);
  return Watch(socket_->fd(), kFrameTag);
}

Status Pump::Watch(int fd, uint64_t tag) noexcept {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0 ? Status{} : Failed("watch descriptor");
}

double Pump::Now() noexcept {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  // whole microseconds: times are integers in the core
  return static_cast<double>(now.tv_sec) * kMicrosPerSecond + static_cast<double>(now.tv_nsec / 1000);
}

bool Pump::Collect(BatchWriter* writer) noexcept {
  urgent_ = false;
  std::array<epoll_event, kEventsPerBatch> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsPerBatch, 0);
  CollectRings(writer, events.data(), count);
  // then frames: heartbeats must not wait behind clients
  bool frames = socket_ != nullptr && socket_->Buffered();
  for (int i = 0; i < count; i++) {
    if (events[static_cast<size_t>(i)].data.u64 != kFrameTag) continue;
    frames = true;
    if ((events[static_cast<size_t>(i)].events & EPOLLERR) != 0) socket_->ClearError();
  }
  if (frames) CollectFrames(writer);
  if (gate_ != nullptr) gate_->DrainPending(writer);
  for (int i = 0; i < count; i++) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    const uint64_t tag = event.data.u64 & kTagMask;
    if (tag == Gate::kClientTag) {
      gate_->OnClientEvent(static_cast<uint32_t>(event.data.u64 & ~kTagMask), event.events, writer);
    } else if (tag == Gate::kListenTag) {
      gate_->Accept(writer);
    } else if (tag == kTimerTag) {
      ReadCounter(timer_.get());
      armed_ = -1;
      urgent_ = true;
    } else if (tag == kKickTag) {
      ReadCounter(kick_.get());
    }
  }
  return count > 0 || writer->length() > 0;
}

bool Pump::CanWait(const BatchWriter& writer, double patience) noexcept {
  const bool patient = !urgent_ && writer.length() > 0 && writer.Patient() && writer.length() < kPatientBytesMax &&
                       !Waiting();
  if (patient) {
    const double now = Now();
    if (!std::isfinite(waits_until_)) waits_until_ = now + patience;
    if (now < waits_until_) {
      ArmTimer(deadline_);
      return true;
    }
  }
  waits_until_ = std::numeric_limits<double>::infinity();
  counters_.Add(Counter::kTurns);
  return false;
}

// Rings before all else: an operation that began must be known before a frame asks for its records.
void Pump::CollectRings(BatchWriter* writer, const epoll_event* events, int count) noexcept {
  if (ring_ == nullptr) return;
  const auto is_ring = [](const epoll_event& event) { return event.data.u64 == kRingTag; };
  const bool readable = std::any_of(events, events + count, is_ring);
  ring_->Collect(writer, readable, Now());
}

void Pump::Sleep() noexcept {
  if (ring_ != nullptr) ring_->Sleep();
}

void Pump::CollectFrames(BatchWriter* writer) noexcept {
  const uint8_t* frame;
  size_t length;
  for (int i = 0; i < kFramesPerBatch && writer->Fits(FrameRecordBytes()) && socket_->Next(&frame, &length); i++) {
    // a longer one than anybody of ours sends would be opened beyond the room that was made sure of
    length = std::min(length, socket_->FrameBytesMax());
    OpenedFrame opened;
    uint8_t* payload = writer->Payload();
    if (channel_->Open(frame, length, payload + sizeof(uint64_t), &opened)) {
      std::memcpy(payload, &opened.incarnation, sizeof(opened.incarnation));
      writer->Commit(InKind::kFrame, opened.from, sizeof(uint64_t) + opened.body_length);
      socket_->Learn(opened.from);
      counters_.Add(Counter::kFrameIn);
      counters_.Add(Counter::kFrameBytesIn, length);
    }
    socket_->Release();
  }
}

bool Pump::Waiting() const noexcept {
  return (gate_ != nullptr && gate_->pending()) || (socket_ != nullptr && socket_->Buffered()) ||
         (ring_ != nullptr && ring_->Waiting());
}

void Pump::Route(const uint8_t* records, size_t length) noexcept {
  BatchReader reader(records, length);
  OutRecord record;
  bool damaged;
  while (reader.Next(&record, &damaged)) {
    switch (static_cast<OutKind>(record.kind)) {
      case OutKind::kClientPacket: SendPacket(record.id, record.payload, record.length); break;
      case OutKind::kClientClose:
        if (gate_ != nullptr) gate_->CloseClient(record.id);
        break;
      case OutKind::kFrame: SendFrame(record.id, record.payload, record.length); break;
      default:
        if (ring_ == nullptr || !ring_->Perform(record, Now())) counters_.Add(Counter::kOutRecordRefused);
        break;
    }
  }
  if (damaged) counters_.Add(Counter::kOutRecordRefused);
}

void Pump::SendFrame(uint32_t peer, const uint8_t* body, size_t length) noexcept {
  uint8_t* out = socket_ == nullptr || peer >= kNodesMax ? nullptr : socket_->SendBuffer(static_cast<uint16_t>(peer));
  if (out == nullptr) {
    counters_.Add(Counter::kFrameSendNobody);
    return;
  }
  if (length > BodyBytesMax()) {
    counters_.Add(Counter::kFrameSendTooLong);
    return;
  }
  const size_t sealed = channel_->Seal(static_cast<uint16_t>(peer), body, length, out);
  if (sealed == 0) return;
  socket_->Queue(static_cast<uint16_t>(peer), sealed);
  counters_.Add(Counter::kFrameBytesOut, sealed);
}

void Pump::Flush() noexcept {
  if (socket_ != nullptr) socket_->Flush();
  if (gate_ != nullptr) gate_->Flush();
}

void Pump::ArmTimer(double deadline) noexcept {
  deadline_ = deadline;
  deadline = std::min(deadline, waits_until_);
  if (ring_ != nullptr) deadline = std::min(deadline, ring_->RetryAt());
  if (deadline == armed_) return;
  armed_ = deadline;
  itimerspec when{};
  if (std::isfinite(deadline)) {
    // zero would disarm it
    const double micros = deadline < 1 ? 1 : deadline;
    const double seconds = std::floor(micros / kMicrosPerSecond);
    when.it_value.tv_sec = static_cast<time_t>(seconds);
    when.it_value.tv_nsec = static_cast<long>((micros - seconds * kMicrosPerSecond) * 1000);
  }
  (void)::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void Pump::Kick() noexcept {
  if (!Waiting()) return;
  const uint64_t one = 1;
  // full is fine: then it is readable
  if (::write(kick_.get(), &one, sizeof(one)) < 0) return;
}

void Pump::SendPacket(uint32_t client, const uint8_t* packet, size_t length) noexcept {
  if (gate_ != nullptr) gate_->Send(client, packet, length);
}

std::vector<uint8_t> Pump::TakeLarge(uint32_t client) noexcept {
  return gate_ == nullptr ? std::vector<uint8_t>() : gate_->TakeLarge(client);
}

size_t Pump::BodyBytesMax() const noexcept {
  return socket_ == nullptr ? 0 : socket_->FrameBytesMax() - kFrameOverheadBytes;
}

size_t Pump::ReceiveFramesMax() const noexcept { return socket_ == nullptr ? 0 : socket_->ReceiveFramesMax(); }

std::string Pump::Address() const { return socket_ == nullptr ? std::string() : socket_->Address(); }

std::string Pump::PeerAddress(uint16_t peer) const {
  return socket_ == nullptr ? std::string() : socket_->PeerAddress(peer);
}

uint64_t Pump::PeerIncarnation(uint16_t peer) const noexcept {
  return channel_ == nullptr ? 0 : channel_->PeerIncarnation(peer);
}

Counters& Pump::counters() noexcept {
  if (socket_ != nullptr) socket_->CountDrops();
  return counters_;
}

}  // namespace smbpool
