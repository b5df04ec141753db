// Everything the daemon waits for in one place: rings, gate, frames and one timer, behind one epoll descriptor that
// the event loop watches. Collect fills a batch for JavaScript, Route performs what JavaScript answered. Knows no
// Node.js, no libuv.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <sys/epoll.h>

#include "batch.h"
#include "counters.h"
#include "gate.h"
#include "interconnect.h"
#include "ring_port.h"
#include "status.h"
#include "unique_fd.h"

namespace smbpool {

struct PumpOptions {
  // no gate when its path is empty
  GateOptions gate;
  // no ring when its socket_path is empty
  RingServerOptions ring;
  // no frames when it has no interface
  InterconnectOptions interconnect;
};

class Pump {
 public:
  static Status Open(PumpOptions options, std::unique_ptr<Pump>* out) noexcept;

  int epoll_fd() const noexcept { return epoll_.get(); }
  // One batch, behind what is in the writer already. False when there is nothing to tell: no record, no timer, and no
  // other event than of frames, which were refused or copies.
  bool Collect(BatchWriter* writer) noexcept;
  // Whether all that was collected can wait for company, for `patience` microseconds since the first of it came. Sets
  // the timer for their end; to be called until it answers false, when the batch is handed on.
  bool CanWait(const BatchWriter& writer, double patience) noexcept;
  // Whether there is more to collect, as far as that can be told without a system call.
  bool More() const noexcept { return Waiting() || (interconnect_ != nullptr && interconnect_->Arrived()); }
  // After the last batch, before the loop may block.
  void Sleep() noexcept;
  // Whether a further batch is waiting without any descriptor showing it.
  bool Waiting() const noexcept;
  void Route(const uint8_t* records, size_t length) noexcept;
  // Sends what Route queued.
  void Flush() noexcept;
  // All batches collected so far were handed on, and what they caused was routed.
  void EndTurn() noexcept;
  // A successor goes on: only descriptors are closed.
  void Abandon() noexcept;
  // Microseconds of CLOCK_MONOTONIC; infinite: no timer. Cheap when unchanged.
  void ArmTimer(double deadline) noexcept;
  // Makes the descriptor readable when Waiting.
  void Kick() noexcept;

  void SendPacket(uint32_t client, const uint8_t* packet, size_t length) noexcept;
  std::vector<uint8_t> TakeLarge(uint32_t client) noexcept;

  size_t Clients() const noexcept { return gate_ == nullptr ? 0 : gate_->clients(); }
  // Null without frames.
  Interconnect* interconnect() noexcept { return interconnect_.get(); }
  const Interconnect* interconnect() const noexcept { return interconnect_.get(); }
  // Null without a ring.
  RingPort* ring() noexcept { return ring_.get(); }
  // Null without a socket for local processes.
  Gate* gate() noexcept { return gate_.get(); }
  Counters& counters() noexcept;

  static double Now() noexcept;

 private:
  Pump() noexcept = default;
  Status OpenTimer() noexcept;
  Status OpenFrames(const PumpOptions& options) noexcept;
  Status Watch(int fd, uint64_t tag) noexcept;
  void CollectRings(BatchWriter* writer, const epoll_event* events, int count) noexcept;
  // Whether there was an event of anything else.
  bool CollectFrames(BatchWriter* writer, const epoll_event* events, int count) noexcept;

  Counters counters_;
  UniqueFd epoll_;
  UniqueFd timer_;
  UniqueFd kick_;
  double armed_ = -1;
  double deadline_ = std::numeric_limits<double>::infinity();
  // when what waits for company has waited long enough; infinite: nothing waits
  double waits_until_ = std::numeric_limits<double>::infinity();
  // the last Collect saw something that does not wait
  bool urgent_ = false;
  std::unique_ptr<Interconnect> interconnect_;
  std::unique_ptr<RingPort> ring_;
  // declared last, destroyed first: it takes its descriptors out of epoll_
  std::unique_ptr<Gate> gate_;
};

}  // namespace smbpool
