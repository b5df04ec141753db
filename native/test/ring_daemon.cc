// A stand-in for smbpoold at the ring: answers every open after a given time and prints what it hears, one line each.
// For trying the module against a stock smbd, and for the tests in scripts/test-module.sh. Not installed.
//   ring_daemon SOCKET [--delay-ms N] [--never] [--home] [--watch] [--refuse-tree] [--page FILE] [--quiet]
#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <string>

#include <poll.h>

#include "../core/ring_server.h"

namespace {

using smbpool::ReplyResult;
using smbpool::RingEnd;
using smbpool::RingServer;

constexpr size_t kTurnMessages = 1024;

volatile sig_atomic_t stopped = 0;

void OnSignal(int) { stopped = 1; }

uint64_t NowUs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

const char* OpName(uint32_t op) {
  static const char* const names[] = {"?", "hello", "tree", "tree-end", "begin", "cancel", "end", "close", "lock",
                                      "unlock", "lease", "claim", "resync", "replay-open", "replay-lock", "resync-end"};
  return op < sizeof(names) / sizeof(names[0]) ? names[op] : "?";
}

template <typename T>
bool Read(const uint8_t* payload, size_t length, T* out) {
  if (length < sizeof(T)) return false;
  memcpy(out, payload, sizeof(T));
  return true;
}

class Daemon : public smbpool::RingSink {
 public:
  uint64_t delay_us = 0;
  bool never = false;
  bool home = false;
  bool watch = false;
  bool refuse_tree = false;
  bool quiet = false;
  RingServer* server = nullptr;

  bool Room(size_t) override { return true; }

  void Attached(uint32_t attachment, pid_t pid, uid_t uid) override {
    printf("%u attached pid %d uid %u\n", attachment, static_cast<int>(pid), uid);
  }

  void Detached(uint32_t attachment, RingEnd reason) override {
    printf("%u detached reason %u begun %zu open %zu\n", attachment, static_cast<unsigned>(reason),
           begun_[attachment].size(), opens_[attachment].size());
    uint64_t counters[SMBPOOL_CLIENT_COUNTERS];
    if (server->ClientCounters(attachment, counters)) {
      printf("%u home %" PRIu64 " waited %" PRIu64 " ready %" PRIu64 " expired %" PRIu64 " cancelled %" PRIu64
             " slow %" PRIu64 " lost %" PRIu64 " resyncs %" PRIu64 " bells %" PRIu64 " ns per home open %" PRIu64 "\n",
             attachment, counters[SMBPOOL_CLIENT_OPENS_HOME], counters[SMBPOOL_CLIENT_OPENS_WAITED],
             counters[SMBPOOL_CLIENT_WAITS_READY], counters[SMBPOOL_CLIENT_WAITS_EXPIRED],
             counters[SMBPOOL_CLIENT_WAITS_CANCELLED], counters[SMBPOOL_CLIENT_OPENS_SLOW],
             counters[SMBPOOL_CLIENT_REPORTS_LOST], counters[SMBPOOL_CLIENT_RESYNCS],
             counters[SMBPOOL_CLIENT_DOORBELLS],
             counters[SMBPOOL_CLIENT_HOME_NS] / (counters[SMBPOOL_CLIENT_OPENS_HOME] | 1));
    }
    begun_.erase(attachment);
    opens_.erase(attachment);
  }

  void Message(uint32_t attachment, uint32_t op, const uint8_t* payload, size_t length) override {
    if (!quiet) printf("%u %s", attachment, OpName(op));
    switch (op) {
      case SMBPOOL_OP_TREE_CONNECT:
        Tree(attachment, payload, length);
        break;
      case SMBPOOL_OP_OPEN_BEGIN:
        Begin(attachment, payload, length);
        break;
      case SMBPOOL_OP_OPEN_CANCEL: {
        smbpool_msg_open_cancel message{};
        if (Read(payload, length, &message)) begun_[attachment].erase(message.operation);
        break;
      }
      case SMBPOOL_OP_OPEN_END:
      case SMBPOOL_OP_REPLAY_OPEN:
        Opened(attachment, payload, length);
        break;
      case SMBPOOL_OP_CLOSE:
        Closed(attachment, payload, length);
        break;
      case SMBPOOL_OP_RESYNC_BEGIN:
        opens_[attachment].clear();
        Forget(attachment, payload, length);
        break;
      default:
        Details(op, payload, length);
        break;
    }
    if (!quiet) printf("\n");
  }

  // Answers what is due; returns milliseconds until the next one, -1 for none.
  int Answer() {
    uint64_t now = NowUs();
    while (!answers_.empty() && answers_.front().due_us <= now) {
      const Pending& next = answers_.front();
      smbpool_msg_open_ready ready{};
      ready.operation = next.operation;
      ready.pin_us = 10000;
      if (server->Reply(next.attachment, SMBPOOL_OP_OPEN_READY, &ready, sizeof(ready)) == ReplyResult::kFull) return 1;
      answers_.pop_front();
    }
    return answers_.empty() ? -1 : static_cast<int>((answers_.front().due_us - now) / 1000 + 1);
  }

 private:
  struct Pending {
    uint64_t due_us;
    uint32_t attachment;
    uint64_t operation;
  };

  void Tree(uint32_t attachment, const uint8_t* payload, size_t length) {
    smbpool_msg_tree message{};
    if (!Read(payload, length, &message)) return;
    if (!quiet) {
      printf(" %" PRIu64 " volume %" PRIu64 " root %" PRIu64 " [%.*s]", message.tree, message.volume,
             message.root_inode,
             static_cast<int>(length - sizeof(message)), reinterpret_cast<const char*>(payload + sizeof(message)));
    }
    const char text[] = "inode of the root differs from the one at server 2";
    uint8_t reply[sizeof(smbpool_msg_tree_ready) + sizeof(text)] = {};
    smbpool_msg_tree_ready ready{};
    ready.tree = message.tree;
    ready.result = refuse_tree ? SMBPOOL_TREE_REFUSED : SMBPOOL_TREE_OK;
    ready.text_bytes = refuse_tree ? sizeof(text) - 1 : 0;
    memcpy(reply, &ready, sizeof(ready));
    memcpy(reply + sizeof(ready), text, ready.text_bytes);
    server->Reply(attachment, SMBPOOL_OP_TREE_READY, reply, sizeof(ready) + ready.text_bytes);
  }

  void Begin(uint32_t attachment, const uint8_t* payload, size_t length) {
    smbpool_msg_open_begin message{};
    if (!Read(payload, length, &message)) return;
    begun_[attachment][message.operation] = message.flags;
    if (!quiet) {
      printf(" %" PRIu64 " flags %x inode %" PRIu64 " access %x [%.*s]", message.operation, message.flags,
             message.file.inode, message.access_mask, static_cast<int>(length - sizeof(message)),
             reinterpret_cast<const char*>(payload + sizeof(message)));
    }
    if ((message.flags & SMBPOOL_OPEN_WANTS_REPLY) == 0 || never) return;
    if (home) server->HomeAdd(SMBPOOL_HOME_FILE, &message.file, sizeof(message.file));
    answers_.push_back({NowUs() + delay_us, attachment, message.operation});
  }

  void Opened(uint32_t attachment, const uint8_t* payload, size_t length) {
    smbpool_msg_open message{};
    if (!Read(payload, length, &message)) return;
    begun_[attachment].erase(message.operation);
    if (message.status == 0) opens_[attachment][message.share_file_id] = message.file.inode;
    if (home && message.status == 0) server->HomeAdd(SMBPOOL_HOME_FILE, &message.file, sizeof(message.file));
    if (!quiet) {
      printf(" %" PRIu64 " status %08x flags %x inode %" PRIu64 " open %" PRIu64 " persistent %" PRIx64
             " access %x share %x oplock %x lease %x took %u us [%.*s]",
             message.operation, message.status, message.flags, message.file.inode, message.share_file_id,
             message.persistent_id, message.access_mask, message.share_access, message.oplock, message.lease_state,
             message.took_us, static_cast<int>(length - sizeof(message)),
             reinterpret_cast<const char*>(payload + sizeof(message)));
    }
    if (!watch || (message.flags & SMBPOOL_OPEN_DEFERRED) == 0) return;
    smbpool_msg_watch request{};
    request.file = message.file;
    request.watch_ms = 2000;
    for (const auto& other : opens_) server->Reply(other.first, SMBPOOL_OP_WATCH_FILE, &request, sizeof(request));
  }

  void Forget(uint32_t attachment, const uint8_t* payload, size_t length) {
    smbpool_msg_resync message{};
    if (!Read(payload, length, &message)) return;
    auto& begun = begun_[attachment];
    begun.erase(begun.begin(), begun.lower_bound(message.operations_from));
  }

  void Closed(uint32_t attachment, const uint8_t* payload, size_t length) {
    smbpool_msg_close message{};
    if (!Read(payload, length, &message)) return;
    size_t known = opens_[attachment].erase(message.share_file_id);
    if (!quiet) {
      printf(" inode %" PRIu64 " open %" PRIu64 " persistent %" PRIx64 " flags %x%s", message.file.inode,
             message.share_file_id, message.persistent_id, message.flags, known == 0 ? " UNKNOWN" : "");
    }
  }

  void Details(uint32_t op, const uint8_t* payload, size_t length) {
    if (quiet) return;
    smbpool_msg_lock lock{};
    smbpool_msg_lease_change change{};
    smbpool_msg_claim claim{};
    smbpool_msg_hello hello{};
    if ((op == SMBPOOL_OP_LOCK || op == SMBPOOL_OP_UNLOCK || op == SMBPOOL_OP_REPLAY_LOCK) &&
        Read(payload, length, &lock)) {
      printf(" open %" PRIu64 " type %u range %" PRIu64 "+%" PRIu64 " status %08x blocker %" PRIx64, lock.share_file_id,
             lock.type, lock.start, lock.size, lock.status, lock.blocker);
    } else if (op == SMBPOOL_OP_LEASE_CHANGE && Read(payload, length, &change)) {
      printf(" open %" PRIu64 " kind %u oplock %x->%x lease %x->%x", change.share_file_id, change.kind,
             change.oplock_before, change.oplock_after, change.lease_before, change.lease_after);
    } else if (op == SMBPOOL_OP_CLAIM && Read(payload, length, &claim)) {
      printf(" %" PRIu64 " inode %" PRIu64, claim.operation, claim.file.inode);
    } else if (op == SMBPOOL_OP_HELLO && Read(payload, length, &hello)) {
      printf(" server %" PRIu64 " dialect %x [%.*s]", hello.server.pid, hello.dialect,
             static_cast<int>(length - sizeof(hello)), reinterpret_cast<const char*>(payload + sizeof(hello)));
    }
  }

  std::deque<Pending> answers_;
  std::map<uint32_t, std::map<uint64_t, uint32_t>> begun_;
  std::map<uint32_t, std::map<uint64_t, uint64_t>> opens_;
};

}  // namespace

int main(int argc, char** argv) {
  smbpool::RingServerOptions options;
  Daemon daemon;
  if (argc < 2) return 2;
  options.socket_path = argv[1];
  options.generation = static_cast<uint32_t>(NowUs()) | 1;
  for (int i = 2; i < argc; i++) {
    std::string option = argv[i];
    if (option == "--delay-ms" && i + 1 < argc) daemon.delay_us = strtoull(argv[++i], nullptr, 10) * 1000;
    else if (option == "--page" && i + 1 < argc) options.page_path = argv[++i];
    else if (option == "--never") daemon.never = true;
    else if (option == "--home") daemon.home = true;
    else if (option == "--watch") daemon.watch = true;
    else if (option == "--refuse-tree") daemon.refuse_tree = true;
    else if (option == "--quiet") daemon.quiet = true;
    else return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  signal(SIGTERM, OnSignal);
  signal(SIGINT, OnSignal);
  std::unique_ptr<RingServer> server;
  smbpool::Status status = RingServer::Open(options, &server);
  if (!status.ok()) {
    fprintf(stderr, "ring_daemon: %s: %s\n", status.what, strerror(status.code));
    return 1;
  }
  daemon.server = server.get();
  while (stopped == 0) {
    bool more = server->Turn(&daemon, kTurnMessages);
    int wait_ms = daemon.Answer();
    pollfd look{server->epoll_fd(), POLLIN, 0};
    poll(&look, 1, more ? 0 : (wait_ms < 0 ? 1000 : wait_ms));
  }
  const uint64_t* counters = server->page()->counters;
  printf("counters attached %" PRIu64 " detached %" PRIu64 " bad %" PRIu64 " refused %" PRIu64 " messages %" PRIu64
         " replies %" PRIu64 " full %" PRIu64 " futex %" PRIu64 " eventfd %" PRIu64
         " scans %" PRIu64 " found %" PRIu64 "\n",
         counters[SMBPOOL_NODE_ATTACHED], counters[SMBPOOL_NODE_DETACHED], counters[SMBPOOL_NODE_BAD_RINGS],
         counters[SMBPOOL_NODE_REFUSED], counters[SMBPOOL_NODE_MESSAGES], counters[SMBPOOL_NODE_REPLIES],
         counters[SMBPOOL_NODE_REPLIES_FULL], counters[SMBPOOL_NODE_WAKES_FUTEX], counters[SMBPOOL_NODE_WAKES_EVENTFD],
         counters[SMBPOOL_NODE_SCANS], counters[SMBPOOL_NODE_SCAN_FOUND]);
  return 0;
}
