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

namespace smbpool {

namespace {

// with the number of the interface
constexpr uint64_t kFrameTag = uint64_t{3} << 32;
constexpr uint64_t kTimerTag = uint64_t{4} << 32;
constexpr uint64_t kKickTag = uint64_t{5} << 32;
constexpr uint64_t kRingTag = uint64_t{6} << 32;
constexpr uint64_t kTagMask = uint64_t{0xffffffff} << 32;
// Descriptors looked at in one batch; the others keep their event for the next.
constexpr int kEventsPerBatch = 256;
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
  if (!options.interconnect.ethernet.empty() || !options.interconnect.udp.empty()) {
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
  Status status = Interconnect::Open(options.interconnect, &counters_, &interconnect_);
  for (size_t i = 0; status.ok() && i < interconnect_->interfaces(); i++) {
    status = Watch(interconnect_->fd(i), kFrameTag | i);
  }
  return status;
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
  counters_.Add(Counter::kWakes);
  std::array<epoll_event, kEventsPerBatch> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsPerBatch, 0);
  CollectRings(writer, events.data(), count);
  // then frames: heartbeats must not wait behind clients
  const bool others = CollectFrames(writer, events.data(), count);
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
  return others || writer->length() > 0;
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

bool Pump::CollectFrames(BatchWriter* writer, const epoll_event* events, int count) noexcept {
  bool others = false;
  for (int i = 0; i < count; i++) {
    if ((events[i].data.u64 & kTagMask) != kFrameTag) others = true;
    else interconnect_->OnEvent(static_cast<size_t>(events[i].data.u64 & ~kTagMask), events[i].events);
  }
  if (interconnect_ != nullptr) interconnect_->Collect(writer, Now());
  return others;
}

bool Pump::Waiting() const noexcept {
  return (gate_ != nullptr && gate_->pending()) || (interconnect_ != nullptr && interconnect_->Buffered()) ||
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
      case OutKind::kFrame:
        if (interconnect_ == nullptr) counters_.Add(Counter::kFrameSendNobody);
        else interconnect_->Send(record.id, record.payload, record.length);
        break;
      default:
        if (ring_ == nullptr || !ring_->Perform(record, Now())) counters_.Add(Counter::kOutRecordRefused);
        break;
    }
  }
  if (damaged) counters_.Add(Counter::kOutRecordRefused);
}

void Pump::Flush() noexcept {
  if (interconnect_ != nullptr) interconnect_->Flush();
  if (gate_ != nullptr) gate_->Flush();
}

void Pump::EndTurn() noexcept {
  if (gate_ != nullptr) gate_->EndTurn();
}

void Pump::Abandon() noexcept {
  if (gate_ != nullptr) gate_->Abandon();
  if (ring_ != nullptr) ring_->server().Abandon();
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

Counters& Pump::counters() noexcept {
  if (interconnect_ != nullptr) interconnect_->CountDrops();
  return counters_;
}

}  // namespace smbpool
