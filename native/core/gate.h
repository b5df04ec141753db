// The unix socket on which local processes (smbd and its helpers) speak CTDB's client protocol. Cuts the byte streams
// into packets by their length word and looks at nothing but length, magic and version, and whether a packet is a
// request or an answer: until it is answered, or its turn ended when it wants none, a request is kept where a successor
// finds it (kept_streams.h). A client that breaks the rules, does not read or dies costs only itself. Never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "batch.h"
#include "counters.h"
#include "kept_streams.h"
#include "standby_link.h"
#include "status.h"
#include "unique_fd.h"

namespace smbpool {

// Length, magic, version, generation, operation, destnode, srcnode, reqid.
constexpr size_t kPacketBytesMin = 32;

// A connection that another process had.
struct KeptConnection {
  uint32_t id = 0;
  int slot = -1;
  UniqueFd fd;
};

// What is kept of it, for JavaScript.
struct KeptDescription {
  uint32_t id = 0;
  uint32_t pid = 0;
  std::vector<uint8_t> state;
};

// What a process leaves to its successor: the streams' memory, the listening socket, the connections.
struct GateHeirloom {
  UniqueFd streams;
  UniqueFd listener;
  std::vector<KeptConnection> connections;
};

struct GateOptions {
  std::string path;
  // Of the process that this one succeeds; without a listener: nobody's.
  GateHeirloom heirloom;
  // A server of a thousand clients has some three connections for each.
  size_t clients_max = 8192;
  // Above every record and commit that Samba makes; a longer length word is damage.
  size_t packet_bytes_max = size_t{64} << 20;
  // Unfinished packets of all clients together.
  size_t input_bytes_max = size_t{256} << 20;
  // The control (REQ_CONTROL of CTDB's protocol) that may wait for company when it asks for no answer; 0: none.
  uint32_t patient_control = 0;
  // What one client may leave unread: a traversal of 100,000 records is some 30 MiB.
  size_t output_bytes_max = size_t{64} << 20;
};

class Gate {
 public:
  // Registers its descriptors with `epoll_fd`: data is kListenTag, or kClientTag plus the client's id.
  static constexpr uint64_t kListenTag = uint64_t{1} << 32;
  static constexpr uint64_t kClientTag = uint64_t{2} << 32;

  // `code` EADDRINUSE: somebody listens on the path. A socket file that nobody listens on is replaced.
  static Status Open(GateOptions options, int epoll_fd, Counters* counters, std::unique_ptr<Gate>* out) noexcept;
  // Closes all and removes the socket file if it is still ours; after Abandon only closes the descriptors.
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void Accept(BatchWriter* writer) noexcept;
  void OnClientEvent(uint32_t id, uint32_t events, BatchWriter* writer) noexcept;
  // What did not fit the last batch. Call before each batch.
  void DrainPending(BatchWriter* writer) noexcept;
  bool pending() const noexcept { return !pending_.empty(); }
  size_t clients() const noexcept { return clients_.size(); }

  // The packet announced by kClientPacketLarge; empty when there is none.
  std::vector<uint8_t> TakeLarge(uint32_t id) noexcept;

  // Queues a packet; it leaves at Flush.
  void Send(uint32_t id, const uint8_t* packet, size_t length) noexcept;
  // Ends the connection after what was queued was offered once; kClientClosed follows.
  void CloseClient(uint32_t id) noexcept;
  void Flush() noexcept;
  // The batches so far were handed on and what they caused was performed: what wants no answer is settled.
  void EndTurn() noexcept;

  // After a take-over nothing is read, and nobody accepted, until this.
  Status Resume() noexcept;
  // Of the connections taken over that are there still, in the order of their numbers.
  std::vector<KeptDescription> Kept() noexcept;
  // What a successor must know of this client; false: there is no such client, or it is too long.
  bool KeepState(uint32_t id, const uint8_t* state, size_t length) noexcept;
  KeptStreams& streams() noexcept { return *streams_; }
  int listener_fd() const noexcept { return listen_.get(); }
  // A standby is there: it is told of all connections, now and from now on. An invalid one: there is none any more.
  void SetStandby(UniqueFd link) noexcept;
  StandbyLink& standby() noexcept { return standby_; }
  // A successor goes on with everything: only the descriptors are closed.
  void Abandon() noexcept { abandoned_ = true; }

 private:
  // A packet that was handed on and is not settled, by its place in the input's area.
  struct Unsettled {
    size_t at;
    uint32_t length;
    uint32_t request;
    // an answer; otherwise the end of the turn settles it
    bool awaits;
  };
  struct Client {
    uint32_t id = 0;
    int slot = -1;
    UniqueFd fd;
    // in the input's area: what is before was handed on
    size_t parsed = 0;
    // before it, packets of a former process may be settled already
    size_t replay_end = 0;
    // beyond it, the input is moved to the start of an area when little of it is still needed
    size_t move_at = 0;
    // oldest first, from `open_from`
    std::vector<Unsettled> open;
    size_t open_from = 0;
    // of `open`, at its end, those that await nothing
    size_t quiet = 0;
    // counted in input_bytes_
    size_t unfinished = 0;
    std::vector<uint8_t> large;
    // its input waits for the next batch
    bool pending = false;
    bool ended = false;
    bool dirty = false;
    bool touched = false;
    bool adopted = false;
    bool wants_write = false;
    bool output_broken = false;
  };
  enum class ParseEnd { kNeedMore, kBatchFull, kBroken };

  Gate(GateOptions options, int epoll_fd, Counters* counters) noexcept;
  Status Listen() noexcept;
  Status TakeOver() noexcept;
  Status WatchListener() noexcept;
  Status RemoveStale() noexcept;
  bool AcceptOne(BatchWriter* writer) noexcept;
  void Read(Client* client, BatchWriter* writer) noexcept;
  void TakeInput(Client* client, BatchWriter* writer) noexcept;
  bool CanWait(const uint8_t* packet, size_t length) const noexcept;
  ParseEnd Parse(Client* client, BatchWriter* writer) noexcept;
  void AddOpen(Client* client, size_t at, const uint8_t* packet, size_t length) noexcept;
  void Settle(Client* client, size_t index) noexcept;
  void Forget(Client* client) noexcept;
  bool PrepareRead(Client* client) noexcept;
  bool MoveInput(Client* client) noexcept;
  void MoveOutput(Client* client) noexcept;
  // Bytes of the input's area that are there.
  size_t Received(const Client* client) noexcept;
  void CountUnfinished(Client* client, size_t bytes) noexcept;
  uint8_t* Input(const Client* client) noexcept;
  void Remove(uint32_t id) noexcept;
  void TellOpened(const Client& client) noexcept;
  void SetPending(Client* client) noexcept;
  // No more input from this client; kClientClosed is sent when a batch has room.
  void End(Client* client, Counter reason) noexcept;
  void Write(Client* client) noexcept;
  void Watch(Client* client, bool write) noexcept;
  Client* Find(uint32_t id) noexcept;

  GateOptions options_;
  int epoll_fd_;
  Counters* counters_;
  UniqueFd listen_;
  // given up for a moment to refuse a connection when the process has no descriptor left
  UniqueFd spare_;
  uint64_t socket_device_ = 0;
  uint64_t socket_inode_ = 0;
  std::unordered_map<uint32_t, std::unique_ptr<Client>> clients_;
  uint32_t last_id_ = 0;
  size_t input_bytes_ = 0;
  std::vector<uint32_t> pending_;
  std::vector<uint32_t> dirty_;
  // clients with packets that the end of the turn settles
  std::vector<uint32_t> touched_;
  std::unique_ptr<KeptStreams> streams_;
  StandbyLink standby_;
  bool abandoned_ = false;
};

}  // namespace smbpool
