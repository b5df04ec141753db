// A gate whose process is killed at random moments of many streams, again and again, while another one takes over:
// each request must be answered exactly once, no message lost, no stream torn. Clients are processes of their own. Run
// by scripts/test-module.sh under the sanitizers.   gate_kill_test [KILLS, default 100] [SEED]
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../core/gate.h"

namespace {

using smbpool::BatchWriter;
using smbpool::Counters;
using smbpool::Gate;
using smbpool::GateOptions;
using smbpool::UniqueFd;

#define CHECK(what)                                                                   \
  do {                                                                                \
    if (!(what)) {                                                                    \
      fprintf(stderr, "%s:%d: FAILED: %s (%d)\n", __FILE__, __LINE__, #what, errno);  \
      _exit(1);                                                                       \
    }                                                                                 \
  } while (0)

constexpr int kClients = 6;
constexpr uint32_t kMessagesMax = 1 << 20;
constexpr size_t kOutstandingMax = 8;
constexpr int kAnswerMillisMax = 20000;
constexpr uint32_t kRequestCall = 0;
constexpr uint32_t kReplyCall = 1;
constexpr uint32_t kMessage = 5;

// Between all processes.
struct Shared {
  volatile int over;
  // of how many daemons so far each came to its loop
  volatile int started;
  volatile uint64_t answered;
  volatile uint64_t again;
  uint32_t sent[kClients];
  uint8_t taken[kClients][kMessagesMax];
};
Shared* shared;

uint32_t Word(const uint8_t* bytes, size_t at) {
  uint32_t word;
  memcpy(&word, bytes + at, sizeof(word));
  return word;
}

// A packet of the client protocol; what follows its head tells whose it is, and is the same wherever it is made.
std::vector<uint8_t> Packet(uint32_t operation, uint32_t client, uint32_t request, size_t length) {
  std::vector<uint8_t> packet(length);
  const uint32_t head[8] = {static_cast<uint32_t>(length), 0x43544442, 1, 0, operation, 0, client, request};
  memcpy(packet.data(), head, sizeof(head));
  for (size_t i = sizeof(head); i < length; i++) {
    packet[i] = static_cast<uint8_t>(request * 31 + client * 7 + operation + i * 13 + (i >> 8));
  }
  return packet;
}

size_t AnswerLength(uint32_t request) { return 32 + request * 2654435761u % (request % 97 == 0 ? 300000 : 3000); }

// --- the daemon ---

struct Connection {
  uint32_t slot;
  int fd;
};

class Daemon {
 public:
  Daemon(std::string path, int streams, int listener, const std::map<uint32_t, Connection>& connections, int link,
         uint32_t seed)
      : epoll_(epoll_create1(EPOLL_CLOEXEC)), buffer_(65536), random_(seed) {
    GateOptions options;
    options.path = std::move(path);
    options.heirloom.streams = UniqueFd(dup(streams));
    options.heirloom.listener = UniqueFd(dup(listener));
    for (const auto& [id, one] : connections) {
      options.heirloom.connections.push_back({id, static_cast<int>(one.slot), UniqueFd(dup(one.fd))});
    }
    CHECK(Gate::Open(std::move(options), epoll_, &counters_, &gate_).ok());
    gate_->SetStandby(UniqueFd(link));
    CHECK(gate_->Resume().ok());
  }

  [[noreturn]] void Run() {
    shared->started = shared->started + 1;
    for (;;) {
      epoll_event events[64];
      const int count = epoll_wait(epoll_, events, 64, gate_->pending() || !owed_.empty() ? 0 : 5);
      BatchWriter writer(buffer_.data(), buffer_.size());
      gate_->DrainPending(&writer);
      for (int i = 0; i < count; i++) {
        const uint64_t tag = events[i].data.u64;
        if (tag == Gate::kListenTag) gate_->Accept(&writer);
        else gate_->OnClientEvent(static_cast<uint32_t>(tag), events[i].events, &writer);
      }
      Perform(writer.length());
      gate_->Flush();
      gate_->EndTurn();
    }
  }

 private:
  void Perform(size_t length) {
    for (size_t at = 0; at < length;) {
      const uint32_t kind = Word(buffer_.data(), at);
      const uint32_t id = Word(buffer_.data(), at + 4);
      const size_t bytes = Word(buffer_.data(), at + 8);
      if (kind == 2) Take(id, buffer_.data() + at + 16, bytes);
      if (kind == 4) {
        const std::vector<uint8_t> large = gate_->TakeLarge(id);
        Take(id, large.data(), large.size());
      }
      at += 16 + BatchWriter::Padded(bytes);
    }
    // in any order, some of them much later
    for (size_t i = 0; i < owed_.size();) {
      if (random_() % 3 == 0) {
        i++;
        continue;
      }
      const auto [id, client, request] = owed_[i];
      const std::vector<uint8_t> answer = Packet(kReplyCall, client, request, AnswerLength(request));
      gate_->Send(id, answer.data(), answer.size());
      owed_[i] = owed_.back();
      owed_.pop_back();
    }
  }

  void Take(uint32_t id, const uint8_t* packet, size_t length) {
    const uint32_t operation = Word(packet, 16);
    const uint32_t client = Word(packet, 24);
    const uint32_t request = Word(packet, 28);
    CHECK(client < kClients);
    const std::vector<uint8_t> wanted = Packet(operation, client, request, length);
    CHECK(memcmp(wanted.data(), packet, length) == 0);
    if (operation == kMessage) {
      CHECK(request < kMessagesMax);
      if (shared->taken[client][request] != 0) shared->again = shared->again + 1;
      shared->taken[client][request] = 1;
    } else {
      owed_.push_back({id, client, request});
    }
  }

  struct Owed {
    uint32_t id;
    uint32_t client;
    uint32_t request;
  };
  int epoll_;
  Counters counters_;
  std::unique_ptr<Gate> gate_;
  std::vector<uint8_t> buffer_;
  std::vector<Owed> owed_;
  std::mt19937 random_;
};

// --- a client ---

class Client {
 public:
  Client(const std::string& path, uint32_t number, uint32_t seed)
      : number_(number), fd_(socket(AF_UNIX, SOCK_STREAM, 0)), random_(seed) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.c_str(), path.size());
    CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  }

  [[noreturn]] void Run() {
    while (shared->over == 0) {
      if (random_() % 4 == 0) SendMessage();
      else SendRequest();
      while (open_.size() >= kOutstandingMax || (shared->over == 0 && Readable(0))) Read();
    }
    while (!open_.empty()) Read();
    _exit(0);
  }

 private:
  void SendRequest() {
    const uint32_t request = ++last_request_;
    open_.insert(request);
    const size_t length = 32 + random_() % (random_() % 50 == 0 ? 200000 : 2000);
    SendBytes(Packet(kRequestCall, number_, request, length));
  }

  void SendMessage() {
    const uint32_t message = shared->sent[number_];
    if (message + 1 >= kMessagesMax) return;
    SendBytes(Packet(kMessage, number_, message, 32 + random_() % 500));
    shared->sent[number_] = message + 1;
  }

  // In pieces, so that packets are cut anywhere when the daemon dies.
  void SendBytes(const std::vector<uint8_t>& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const size_t piece = std::min(bytes.size() - at, random_() % 3 == 0 ? 1 + random_() % 100 : bytes.size());
      const ssize_t count = send(fd_, bytes.data() + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) {
        at += static_cast<size_t>(count);
      } else {
        CHECK(errno == EAGAIN);
        pollfd look{fd_, POLLIN | POLLOUT, 0};
        CHECK(poll(&look, 1, kAnswerMillisMax) == 1);
        if ((look.revents & POLLIN) != 0) Read();
      }
    }
  }

  bool Readable(int millis) {
    pollfd look{fd_, POLLIN, 0};
    return poll(&look, 1, millis) == 1;
  }

  void Read() {
    CHECK(Readable(kAnswerMillisMax));
    uint8_t bytes[30000];
    const ssize_t count = recv(fd_, bytes, 1 + random_() % sizeof(bytes), MSG_DONTWAIT);
    CHECK(count > 0);
    input_.insert(input_.end(), bytes, bytes + count);
    size_t at = 0;
    while (input_.size() - at >= 32) {
      const size_t length = Word(input_.data(), at);
      CHECK(Word(input_.data(), at + 4) == 0x43544442);
      if (input_.size() - at < length) break;
      const uint32_t request = Word(input_.data(), at + 28);
      // exactly once, and whole
      CHECK(open_.erase(request) == 1);
      const std::vector<uint8_t> wanted = Packet(kReplyCall, number_, request, AnswerLength(request));
      CHECK(length == wanted.size() && memcmp(wanted.data(), input_.data() + at, length) == 0);
      at += length;
      __atomic_fetch_add(&shared->answered, 1, __ATOMIC_RELAXED);
    }
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  uint32_t number_;
  int fd_;
  std::mt19937 random_;
  std::vector<uint8_t> input_;
  std::set<uint32_t> open_;
  uint32_t last_request_ = 0;
};

// --- the standby ---

// What the daemon told until it died; waits for more when `millis` is not 0.
void Hear(int link, std::map<uint32_t, Connection>* connections, int millis) {
  pollfd look{link, POLLIN, 0};
  if (millis != 0) (void)poll(&look, 1, millis);
  for (;;) {
    smbpool::StandbyHeader header;
    std::vector<uint8_t> payload;
    UniqueFd fd;
    bool gone;
    if (!smbpool::ReceiveFromActive(link, &header, &payload, &fd, &gone)) return;
    const auto known = connections->find(header.id);
    if (known != connections->end()) {
      close(known->second.fd);
      connections->erase(known);
    }
    if (header.kind == static_cast<uint32_t>(smbpool::StandbyKind::kOpened)) {
      connections->emplace(header.id, Connection{header.slot, fd.Release()});
    }
  }
}

long NowMillis() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

}  // namespace

int main(int argc, char** argv) {
  const int kills = argc > 1 ? atoi(argv[1]) : 100;
  const auto seed = argc > 2 ? static_cast<uint32_t>(atol(argv[2])) : static_cast<uint32_t>(time(nullptr));
  printf("gate_kill_test: %d kills, seed %u\n", kills, seed);
  fflush(stdout);
  std::mt19937 random(seed);
  shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  char directory[] = "/tmp/gate-kill-XXXXXX";
  CHECK(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/socket";

  int streams = -1;
  int listener = -1;
  {
    // the first one only makes what the others inherit
    Counters counters;
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    GateOptions options;
    options.path = path;
    std::unique_ptr<Gate> gate;
    CHECK(Gate::Open(std::move(options), epoll.get(), &counters, &gate).ok());
    streams = dup(gate->streams().fd());
    listener = dup(gate->listener_fd());
    gate->Abandon();
  }
  std::vector<pid_t> clients;
  for (uint32_t i = 0; i < kClients; i++) {
    const pid_t pid = fork();
    if (pid == 0) {
      (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      Client(path, i, seed + i).Run();
    }
    clients.push_back(pid);
  }
  std::map<uint32_t, Connection> connections;
  for (int kill_number = 0; kill_number <= kills; kill_number++) {
    UniqueFd link;
    UniqueFd other;
    CHECK(smbpool::MakeStandbyPair(&link, &other));
    const pid_t pid = fork();
    if (pid == 0) {
      link.Close();
      (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      Daemon(path, streams, listener, connections, other.Release(), seed + 1000u + static_cast<uint32_t>(kill_number))
          .Run();
    }
    other.Close();
    long from = 0;
    const long lives = 10 + static_cast<long>(random() % 100);
    // who is killed between the accept and the word of it loses that connection: the one thing that is not kept
    const auto lives_on = [&] {
      if (from == 0 && shared->started > kill_number) from = NowMillis();
      if (from == 0) return true;
      return kill_number == 0 ? connections.size() < kClients : NowMillis() < from + lives;
    };
    if (kill_number == kills) shared->over = 1;
    size_t ended = 0;
    const long deadline = NowMillis() + 2 * kAnswerMillisMax;
    while (kill_number == kills ? ended < clients.size() : lives_on()) {
      Hear(link.get(), &connections, 1);
      int status;
      const pid_t gone = waitpid(-1, &status, WNOHANG);
      if (gone == pid) fprintf(stderr, "the daemon ended by itself\n");
      CHECK(gone != pid);
      if (gone > 0) {
        // a client says itself what was wrong
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        ended++;
      }
      CHECK(NowMillis() < deadline);
    }
    usleep(static_cast<useconds_t>(random() % 1000));
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, nullptr, 0) == pid);
    Hear(link.get(), &connections, 0);
  }
  uint64_t messages = 0;
  for (uint32_t i = 0; i < kClients; i++) {
    for (uint32_t message = 0; message < shared->sent[i]; message++) CHECK(shared->taken[i][message] == 1);
    messages += shared->sent[i];
  }
  unlink(path.c_str());
  rmdir(directory);
  printf("gate_kill_test: %llu requests answered once each, %llu messages, %llu of them told again\n",
         static_cast<unsigned long long>(shared->answered), static_cast<unsigned long long>(messages),
         static_cast<unsigned long long>(shared->again));
  CHECK(shared->answered > 0 && messages > 0);
  return 0;
}
