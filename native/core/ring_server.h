// The daemon's end of the shared memory: accepts smbds on a unix socket, gives each a sealed ring, copies what they
// publish out after checking every bound, publishes replies and wakes them; and owns the node page. Used by
// native/napi and by the tests. No decision about locks is made here. A client that breaks the rules, stops or dies
// costs only itself. Never waits. Layout and rules: native/shared, docs/shared-memory.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/types.h>

#include "../shared/smbpool_ring.h"
#include "status.h"
#include "unique_fd.h"

namespace smbpool {

struct RingServerOptions {
  // Where smbds attach.
  std::string socket_path;
  // Where the node page is to be seen by the CLI; empty: only in memory.
  std::string page_path;
  // The page's file is of a process that this one succeeds: the same file goes on, with the lease that it tells.
  bool adopts_page = false;
  uint32_t node = 0;
  // Of this daemon: not 0, another one at each start.
  uint32_t generation = 1;
  // Besides root.
  uid_t allowed_uid = 0;
  size_t clients_max = SMBPOOL_CLIENTS_MAX;
};

enum class RingEnd : uint32_t {
  kGone = 1,     // its socket ended: closed or died
  kBadRing = 2,  // it wrote what no honest client writes
  kDropped = 3,  // Drop was called
};

enum class ReplyResult { kSent, kFull, kGone };

// Who is told. Payloads are private copies, valid until the call returns.
class RingSink {
 public:
  virtual ~RingSink() = default;
  // Whether a message of so many payload bytes can be taken now; false stops the drain, nothing is lost.
  virtual bool Room(size_t payload) = 0;
  virtual void Attached(uint32_t attachment, pid_t pid, uid_t uid) = 0;
  virtual void Message(uint32_t attachment, uint32_t op, const uint8_t* payload, size_t length) = 0;
  virtual void Detached(uint32_t attachment, RingEnd reason) = 0;
};

class RingServer {
 public:
  // `code` EADDRINUSE: somebody listens on the path. A socket file that nobody listens on is replaced.
  static Status Open(RingServerOptions options, std::unique_ptr<RingServer>* out) noexcept;
  ~RingServer();
  RingServer(const RingServer&) = delete;
  RingServer& operator=(const RingServer&) = delete;

  // A successor goes on with the page, and takes the socket's name: both stay as they are.
  void Abandon() noexcept { abandoned_ = true; }

  // Readable when there is something to do: to be watched, edge or level, by the caller's loop.
  int epoll_fd() const noexcept { return epoll_.get(); }
  // Accepts, drains up to `messages_max` messages, notices deaths; from here on clients need not ring. `readable` is
  // whether epoll_fd may be: false saves looking. Before the caller sleeps it calls Sleep.
  void Drain(RingSink* sink, size_t messages_max, bool readable) noexcept;
  // Clients ring again. False: something is waiting already, drain again without sleeping.
  bool Sleep() noexcept;
  // Something waits that epoll_fd does not show: messages left over, or ends to be told.
  bool pending() const noexcept { return !queue_.empty() || !ending_.empty(); }
  // Drain, then Sleep. True: more is waiting, call again without sleeping.
  bool Turn(RingSink* sink, size_t messages_max) noexcept;

  // kFull: keep it and try again within milliseconds; a client reads as soon as it is back in its event loop.
  ReplyResult Reply(uint32_t attachment, uint32_t op, const void* payload, size_t length) noexcept;
  // Ends an attachment; Detached follows in the next Turn.
  void Drop(uint32_t attachment) noexcept;
  // What the client counts for people (enum smbpool_client_counter): SMBPOOL_CLIENT_COUNTERS numbers, to be believed by
  // nobody. False: it is gone.
  bool ClientCounters(uint32_t attachment, uint64_t* out) noexcept;
  size_t attachments() const noexcept { return clients_.size(); }

  // The node page. Keys as in enum smbpool_home_kind.
  void HomeAdd(smbpool_home_kind kind, const void* key, size_t length) noexcept;
  void HomeRemove(smbpool_home_kind kind, const void* key, size_t length) noexcept;
  bool HomeHas(smbpool_home_kind kind, const void* key, size_t length) const noexcept;
  void HomeClear() noexcept;
  void SetLeaseDeadline(uint64_t deadline_us) noexcept;
  // One of SMBPOOL_NODE_SERVING and so on.
  void SetFlag(uint32_t flag, bool is_set) noexcept;
  void Count(uint32_t counter, uint64_t by = 1) noexcept;
  // The daemon's loop runs: the time, and the core's counters from SMBPOOL_NODE_FREE on.
  void Beat(const double* values, size_t count) noexcept;
  void RecordLatency(uint32_t histogram, uint64_t took_us) noexcept;
  // Errors with the same code and text share an entry; when all are taken the oldest is replaced.
  void RecordError(uint32_t code, const char* text, uint64_t realtime_us) noexcept;
  const smbpool_node_page* page() const noexcept { return page_; }

 private:
  struct Client {
    uint32_t attachment = 0;
    uint32_t slot = 0;  // bit in the ready map
    pid_t pid = 0;
    uid_t uid = 0;
    UniqueFd socket;
    UniqueFd wake;
    smbpool_ring* ring = nullptr;  // null until its hello was accepted
    smbpool_channel requests{};
    smbpool_channel replies{};
    uint64_t accepted_ms = 0;
    bool announced = false;  // the sink knows of it
    bool queued = false;
    bool ended = false;
    RingEnd reason = RingEnd::kGone;
    uint64_t fence_waits = 0;  // as summed up so far
    uint64_t fence_refused = 0;
    ~Client();
  };
  enum class DrainEnd { kEmpty, kMore, kBad };

  explicit RingServer(RingServerOptions options) noexcept : options_(std::move(options)) {}
  Status Setup() noexcept;
  Status MakePage() noexcept;
  bool AdoptPage() noexcept;
  Status StartPage(UniqueFd writable) noexcept;
  Status Listen() noexcept;
  void Accept() noexcept;
  void OnSocket(Client* client) noexcept;
  bool Welcome(Client* client) noexcept;
  void Refuse(Client* client, uint32_t refusal) noexcept;
  void CollectReady(bool all) noexcept;
  DrainEnd DrainClient(Client* client, RingSink* sink, size_t* budget) noexcept;
  void SumUp(Client* client) noexcept;
  void Queue(Client* client) noexcept;
  void End(Client* client, RingEnd reason) noexcept;
  void Bury(RingSink* sink) noexcept;
  void PollEvents() noexcept;
  void ArmScan() noexcept;
  Client* Find(uint32_t attachment) noexcept;

  RingServerOptions options_;
  UniqueFd epoll_;
  UniqueFd listen_;
  UniqueFd bell_;
  UniqueFd scan_timer_;
  UniqueFd page_fd_;
  UniqueFd ready_fd_;
  smbpool_node_page* page_ = nullptr;
  smbpool_ready_map* ready_ = nullptr;
  std::unordered_map<uint32_t, std::unique_ptr<Client>> clients_;
  std::vector<Client*> by_slot_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> queue_;   // attachments to drain, in order
  std::vector<uint32_t> ending_;  // attachments to bury
  uint32_t last_attachment_ = 0;
  bool scanning_ = false;
  bool scan_armed_ = false;
  bool owns_socket_ = false;
  bool owns_page_ = false;
  bool abandoned_ = false;
  uint64_t evictions_ = 0;
  uint8_t payload_[SMBPOOL_MESSAGE_BYTES_MAX];
};

}  // namespace smbpool
