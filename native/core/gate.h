// The unix socket on which local processes (smbd and its helpers) speak CTDB's client protocol. Cuts the byte streams
// into packets by their length word and looks at nothing but length, magic and version. A client that breaks the rules,
// does not read or dies costs only itself. Never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "batch.h"
#include "counters.h"
#include "status.h"
#include "unique_fd.h"

namespace smbpool {

// Length, magic, version, generation, operation, destnode, srcnode, reqid.
constexpr size_t kPacketBytesMin = 32;

struct GateOptions {
  std::string path;
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
  // Closes all and removes the socket file if it is still ours.
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

 private:
  struct Client {
    uint32_t id = 0;
    UniqueFd fd;
    std::vector<uint8_t> input;
    std::vector<uint8_t> output;
    size_t output_at = 0;
    std::vector<uint8_t> large;
    // its input waits for the next batch
    bool pending = false;
    bool ended = false;
    bool dirty = false;
    bool wants_write = false;
    bool output_broken = false;
  };
  enum class ParseEnd { kNeedMore, kBatchFull, kBroken };

  Gate(GateOptions options, int epoll_fd, Counters* counters) noexcept;
  Status Listen() noexcept;
  Status RemoveStale() noexcept;
  bool AcceptOne(BatchWriter* writer) noexcept;
  void Read(Client* client, BatchWriter* writer) noexcept;
  void TakeBytes(Client* client, const uint8_t* bytes, size_t length, BatchWriter* writer) noexcept;
  void TakeBuffered(Client* client, BatchWriter* writer) noexcept;
  bool CanWait(const uint8_t* packet, size_t length) const noexcept;
  size_t Parse(Client* client, const uint8_t* bytes, size_t length, BatchWriter* writer, ParseEnd* end) noexcept;
  void AfterParse(Client* client, ParseEnd end) noexcept;
  void Keep(Client* client, const uint8_t* bytes, size_t length) noexcept;
  void DropInput(Client* client, size_t count) noexcept;
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
  std::vector<uint8_t> scratch_;
};

}  // namespace smbpool
