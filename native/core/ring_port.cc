// See ring_port.h.
#include "ring_port.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

namespace smbpool {

namespace {

// Messages taken into one batch, and the part of its buffer: clients and frames get their turn beside loud smbds.
constexpr size_t kMessagesPerBatch = 1024;
constexpr size_t kBufferPart = 2;
// Replies kept for one attachment: four rings full. Who leaves more unread attaches again and starts afresh.
constexpr size_t kBacklogRepliesMax = size_t{4} * SMBPOOL_SLOTS;
constexpr size_t kBacklogBytesMax = size_t{64} << 10;
// A running smbd reads within milliseconds. The pause doubles while nothing goes out: a stopped smbd must not keep the
// daemon awake.
constexpr double kRetryMicrosMin = 2000;
constexpr double kRetryMicrosMax = 64000;

}  // namespace

Status RingPort::Open(RingServerOptions options, Counters* counters, std::unique_ptr<RingPort>* out) noexcept {
  std::unique_ptr<RingPort> port(new RingPort(counters));
  const Status status = RingServer::Open(std::move(options), &port->server_);
  if (status.ok()) *out = std::move(port);
  return status;
}

void RingPort::Collect(BatchWriter* writer, bool readable, double now) noexcept {
  writer_ = writer;
  server_->Drain(this, kMessagesPerBatch, readable);
  writer_ = nullptr;
  if (!backlogs_.empty() && now >= retry_at_) RetryKept(now);
}

bool RingPort::Room(size_t payload) {
  const size_t record = kBatchHeaderBytes + BatchWriter::Padded(payload);
  return writer_->length() + record <= writer_->capacity() / kBufferPart;
}

void RingPort::Attached(uint32_t attachment, pid_t pid, uid_t) {
  writer_->Commit(InKind::kRingAttached, attachment, 0, static_cast<uint32_t>(pid));
}

void RingPort::Message(uint32_t attachment, uint32_t op, const uint8_t* payload, size_t length) {
  writer_->Put(InKind::kRingMessage, attachment, payload, length, op);
}

void RingPort::Detached(uint32_t attachment, RingEnd reason) {
  backlogs_.erase(attachment);
  writer_->Commit(InKind::kRingDetached, attachment, 0, static_cast<uint32_t>(reason));
}

double RingPort::RetryAt() const noexcept {
  return backlogs_.empty() ? std::numeric_limits<double>::infinity() : retry_at_;
}

bool RingPort::Perform(const OutRecord& record, double now) noexcept {
  switch (static_cast<OutKind>(record.kind)) {
    case OutKind::kRingReply: Reply(record, now); return true;
    case OutKind::kRingEnd: server_->Drop(record.id); return true;
    case OutKind::kLatency: server_->RecordLatency(record.id, record.detail); return true;
    case OutKind::kHomeAdd:
    case OutKind::kHomeRemove: break;
    default: return false;
  }
  const auto kind = static_cast<smbpool_home_kind>(record.detail);
  if (kind < SMBPOOL_HOME_FILE || kind > SMBPOOL_HOME_FOLDER) return false;
  if (static_cast<OutKind>(record.kind) == OutKind::kHomeAdd) {
    server_->HomeAdd(kind, record.payload, record.length);
  } else {
    server_->HomeRemove(kind, record.payload, record.length);
  }
  return true;
}

void RingPort::Reply(const OutRecord& record, double now) noexcept {
  // behind kept ones, never before them
  if (backlogs_.count(record.id) != 0) return Keep(record, now);
  switch (server_->Reply(record.id, record.detail, record.payload, record.length)) {
    case ReplyResult::kSent: return;
    case ReplyResult::kFull: return Keep(record, now);
    case ReplyResult::kGone: return counters_->Add(Counter::kRingReplyNobody);
  }
}

void RingPort::Keep(const OutRecord& record, double now) noexcept {
  if (backlogs_.empty()) {
    pause_ = kRetryMicrosMin;
    retry_at_ = now + pause_;
  }
  Backlog& backlog = backlogs_[record.id];
  if (backlog.replies.size() >= kBacklogRepliesMax || backlog.bytes + record.length > kBacklogBytesMax) {
    counters_->Add(Counter::kRingDroppedBacklog);
    backlogs_.erase(record.id);
    server_->Drop(record.id);
    return;
  }
  counters_->Add(Counter::kRingReplyKept);
  backlog.replies.push_back({record.detail, std::vector<uint8_t>(record.payload, record.payload + record.length)});
  backlog.bytes += record.length;
}

void RingPort::RetryKept(double now) noexcept {
  bool sent = false;
  for (auto at = backlogs_.begin(); at != backlogs_.end();) {
    Backlog& backlog = at->second;
    while (!backlog.replies.empty()) {
      const Kept& kept = backlog.replies.front();
      const ReplyResult result = server_->Reply(at->first, kept.op, kept.payload.data(), kept.payload.size());
      if (result == ReplyResult::kFull) break;
      if (result == ReplyResult::kGone) counters_->Add(Counter::kRingReplyNobody);
      sent = true;
      backlog.bytes -= kept.payload.size();
      backlog.replies.pop_front();
    }
    at = backlog.replies.empty() ? backlogs_.erase(at) : std::next(at);
  }
  pause_ = sent ? kRetryMicrosMin : std::min(2 * pause_, kRetryMicrosMax);
  retry_at_ = now + pause_;
}

}  // namespace smbpool
