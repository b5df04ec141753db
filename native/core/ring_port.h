// The ring server as a part of the pump: what smbds say becomes records of the batch, records from JavaScript become
// replies. A reply that finds its ring full is kept and tried again; a client that leaves too many unread loses its
// attachment. Used by pump. Never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "batch.h"
#include "counters.h"
#include "ring_server.h"

namespace smbpool {

class RingPort : private RingSink {
 public:
  static Status Open(RingServerOptions options, Counters* counters, std::unique_ptr<RingPort>* out) noexcept;

  int epoll_fd() const noexcept { return server_->epoll_fd(); }
  // To be called first in each batch. `readable`: epoll_fd showed something; `now` in microseconds, as of Pump::Now.
  void Collect(BatchWriter* writer, bool readable, double now) noexcept;
  bool Waiting() const noexcept { return server_->pending(); }
  // Before the loop may block.
  void Sleep() noexcept { (void)server_->Sleep(); }
  // When Collect is to be called again at the latest, for the replies kept; infinite when there are none.
  double RetryAt() const noexcept;

  // One record from JavaScript. False: it is none of the ring's, or makes no sense.
  bool Perform(const OutRecord& record, double now) noexcept;
  size_t attachments() const noexcept { return server_->attachments(); }
  RingServer& server() noexcept { return *server_; }

 private:
  struct Kept {
    uint32_t op;
    std::vector<uint8_t> payload;
  };
  struct Backlog {
    std::deque<Kept> replies;
    size_t bytes = 0;
  };

  explicit RingPort(Counters* counters) noexcept : counters_(counters) {}
  bool Room(size_t payload) override;
  void Attached(uint32_t attachment, pid_t pid, uid_t uid) override;
  void Message(uint32_t attachment, uint32_t op, const uint8_t* payload, size_t length) override;
  void Detached(uint32_t attachment, RingEnd reason) override;
  void Reply(const OutRecord& record, double now) noexcept;
  void Keep(const OutRecord& record, double now) noexcept;
  void RetryKept(double now) noexcept;

  Counters* counters_;
  std::unique_ptr<RingServer> server_;
  std::unordered_map<uint32_t, Backlog> backlogs_;
  // when to try again, and how long after that when nothing went out
  double retry_at_ = 0;
  double pause_ = 0;
  BatchWriter* writer_ = nullptr;
};

}  // namespace smbpool
