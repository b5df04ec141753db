// Hostile and dying clients against the ring server: random bytes in every word of the shared memory, wrong hellos,
// descriptors kept and sockets closed in any order, processes killed anywhere; beside them one honest client whose
// requests must be answered all the time. At the end nothing may be left: no attachment, descriptor or mapping.
// Built with the sanitizers by scripts/test-module.sh.   ring_fuzz [SECONDS]   SEED=n repeats the children's choices.
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <random>
#include <set>
#include <string>

#include <dirent.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../core/ring_server.h"

extern "C" {
#include "../../samba-module/client/ring_client.h"
}

namespace {

using smbpool::RingEnd;
using smbpool::RingServer;

constexpr size_t kChildrenMax = 6;
constexpr int kChildSteps = 400;
// The honest client shares two cores with children that spin; seconds would mean that it was forgotten.
constexpr uint64_t kAnswerUsMax = 1000000;

uint64_t NowUs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

void Require(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "ring_fuzz: FAILED: %s\n", what);
  abort();
}

size_t OpenDescriptors() {
  size_t count = 0;
  DIR* directory = opendir("/proc/self/fd");
  while (readdir(directory) != nullptr) count++;
  closedir(directory);
  return count;
}

size_t RingMappings() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  size_t count = 0;
  while (fgets(line, sizeof(line), maps) != nullptr) count += strstr(line, "smbpool-ring") != nullptr ? 1 : 0;
  fclose(maps);
  return count;
}

class Sink : public smbpool::RingSink {
 public:
  RingServer* server = nullptr;
  std::set<uint32_t> attached;
  uint64_t messages = 0;
  uint64_t bad = 0;
  std::mt19937 random{7};

  // Now and then there is no room: the server must keep everything.
  bool Room(size_t) override { return random() % 16 != 0; }
  void Attached(uint32_t attachment, pid_t, uid_t) override {
    Require(attached.insert(attachment).second, "an attachment was announced twice");
  }
  void Message(uint32_t attachment, uint32_t op, const uint8_t* payload, size_t length) override {
    Require(attached.count(attachment) == 1, "a message of an attachment that was not announced");
    Require(length <= SMBPOOL_MESSAGE_BYTES_MAX, "a message beyond the bound");
    messages++;
    // Every byte is looked at, so that the sanitizer sees what was not written.
    for (size_t i = 0; i < length; i++) checksum_ = static_cast<uint8_t>(checksum_ + payload[i]);
    if (op == SMBPOOL_OP_OPEN_BEGIN && length >= 8) {
      smbpool_msg_open_ready ready{};
      memcpy(&ready.operation, payload, 8);
      server->Reply(attachment, SMBPOOL_OP_OPEN_READY, &ready, sizeof(ready));
    }
    if (random() % 512 == 0) server->Reply(attachment, SMBPOOL_OP_RESYNC, nullptr, 0);
  }
  void Detached(uint32_t attachment, RingEnd reason) override {
    Require(attached.erase(attachment) == 1, "an attachment ended twice");
    bad += reason == RingEnd::kBadRing ? 1 : 0;
  }

 private:
  uint8_t checksum_ = 0;
};

// One hostile step on a link that is up.
void Scribble(smbpool_link* link, std::mt19937* random) {
  auto* words = reinterpret_cast<uint32_t*>(link->ring);
  uint32_t value = (*random)();
  if ((*random)() % 2 == 0) value %= 200;
  switch ((*random)() % 9) {
    case 0:
      words[(*random)() % (sizeof(*link->ring) / 4)] = value;
      break;
    case 1:
      for (uint32_t i = 0; i < 6; i++) words[32 * i + 32] = (*random)();
      break;
    case 2:
      __atomic_store_n(&link->ring->request_head, link->requests.position + value % 70, __ATOMIC_RELEASE);
      break;
    case 3:
      for (size_t i = 0; i < sizeof(link->ring->request_slots) / 4; i++) {
        reinterpret_cast<uint32_t*>(link->ring->request_slots)[i] = (*random)() % 300;
      }
      break;
    case 4:
      link->ready->bits[(*random)() % 64] = (uint64_t{(*random)()} << 32) | (*random)();
      break;
    case 5:
      link->ring->client_state = value;
      break;
    case 6:
      link->ring->reply_tail = value;
      break;
    default: {
      uint8_t payload[600];
      for (uint8_t& byte : payload) byte = static_cast<uint8_t>((*random)());
      smbpool_link_send(link, (*random)() % 40, payload, value % 500, payload, value % 90);
      break;
    }
  }
  const uint64_t one = 1;
  if ((*random)() % 3 == 0) static_cast<void>(!write(link->bell_fd, &one, sizeof(one)));
}

void WrongHello(const std::string& path, std::mt19937* random) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    uint8_t bytes[200];
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((*random)());
    smbpool_hello hello{};
    hello.magic = SMBPOOL_HELLO_MAGIC;
    hello.layout_version = SMBPOOL_LAYOUT_VERSION + (*random)() % 2;
    if ((*random)() % 2 == 0) memcpy(bytes, &hello, sizeof(hello));
    size_t length = (*random)() % 2 == 0 ? sizeof(hello) : (*random)() % sizeof(bytes);
    static_cast<void>(!send(fd, bytes, length, MSG_NOSIGNAL));
    if ((*random)() % 2 == 0) usleep((*random)() % 2000);
  }
  close(fd);
}

[[noreturn]] void Child(const std::string& path, uint32_t seed) {
  std::mt19937 random(seed);
  smbpool_link link;
  smbpool_link_init(&link);
  for (int turn = 0; turn < 4; turn++) {
    if (random() % 4 == 0) WrongHello(path, &random);
    if (smbpool_link_start(&link, path.c_str(), "fuzz") != 0) continue;
    pollfd look{link.socket_fd, POLLIN, 0};
    if (poll(&look, 1, 2000) != 1 || smbpool_link_readable(&link) != 0 || link.state != SMBPOOL_LINK_UP) continue;
    // Reading only: the page must not be writable, whatever the client tries.
    Require(mprotect(const_cast<smbpool_node_page*>(link.page), 4096, PROT_READ | PROT_WRITE) == -1,
            "a client can write the node page");
    for (int step = 0; step < kChildSteps; step++) {
      link.broken = false;
      Scribble(&link, &random);
      if (random() % 1000 == 0) kill(getpid(), SIGKILL);
      if (random() % 400 == 0) {
        static_cast<void>(!send(link.socket_fd, "more", 4, MSG_NOSIGNAL));
      }
      if (random() % 50 == 0) usleep(random() % 500);
    }
    smbpool_link_close(&link);
  }
  _exit(0);
}

struct Honest {
  smbpool_link link;
  uint64_t operation = 0;
  uint64_t asked_us = 0;
  uint64_t answers = 0;
  uint64_t slowest_us = 0;
};

void OnHonestReply(void* data, uint32_t op, const uint8_t* payload, uint32_t length) {
  auto* honest = static_cast<Honest*>(data);
  if (op != SMBPOOL_OP_OPEN_READY) return;
  smbpool_msg_open_ready ready{};
  Require(length == sizeof(ready), "the answer of the honest client has another length");
  memcpy(&ready, payload, sizeof(ready));
  Require(ready.operation == honest->operation, "the honest client got the answer to another question");
  honest->answers++;
  honest->slowest_us = std::max(honest->slowest_us, NowUs() - honest->asked_us);
  honest->asked_us = 0;
}

void HonestStep(Honest* honest) {
  smbpool_link* link = &honest->link;
  if (link->state == SMBPOOL_LINK_GREETING) {
    Require(smbpool_link_readable(link) == 0, "the honest client was refused");
    return;
  }
  Require(smbpool_link_drain(link, OnHonestReply, honest), "the honest client's ring broke");
  smbpool_link_idle(link);
  if (honest->asked_us == 0) {
    uint8_t payload[sizeof(smbpool_msg_open_begin)] = {};
    honest->operation++;
    memcpy(payload, &honest->operation, 8);
    if (smbpool_link_send(link, SMBPOOL_OP_OPEN_BEGIN, payload, sizeof(payload), nullptr, 0) == SMBPOOL_RING_OK) {
      honest->asked_us = NowUs();
    }
  } else {
    Require(NowUs() - honest->asked_us < kAnswerUsMax, "the honest client was not answered in time");
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seconds = argc > 1 ? strtoull(argv[1], nullptr, 10) : 10;
  uint32_t seed = getenv("SEED") != nullptr ? static_cast<uint32_t>(strtoul(getenv("SEED"), nullptr, 10))
                                            : static_cast<uint32_t>(NowUs());
  printf("seed %u\n", seed);
  fflush(stdout);
  signal(SIGPIPE, SIG_IGN);

  smbpool::RingServerOptions options;
  options.socket_path = "/tmp/ring_fuzz." + std::to_string(getpid());
  options.generation = 5;
  std::unique_ptr<RingServer> server;
  Require(RingServer::Open(options, &server).ok(), "cannot open the ring server");
  size_t descriptors = OpenDescriptors();
  Sink sink;
  sink.server = server.get();
  Honest honest;
  smbpool_link_init(&honest.link);
  Require(smbpool_link_start(&honest.link, options.socket_path.c_str(), "honest") == 0, "cannot attach");

  uint64_t end_us = NowUs() + seconds * 1000000;
  std::map<pid_t, uint64_t> children;
  std::mt19937 random(seed);
  uint64_t born = 0, killed = 0;
  while (NowUs() < end_us || !children.empty()) {
    if (children.size() < kChildrenMax && NowUs() < end_us) {
      uint32_t child_seed = random();
      pid_t pid = fork();
      if (pid == 0) Child(options.socket_path, child_seed);
      children[pid] = NowUs() + random() % 40000;
      born++;
    }
    bool more = server->Turn(&sink, 256);
    HonestStep(&honest);
    for (auto& child : children) {
      if (child.second != 0 && NowUs() > child.second && random() % 2 == 0) {
        kill(child.first, SIGKILL);
        killed++;
        child.second = 0;
      }
    }
    int status = 0;
    for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
      Require(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL, "a child crashed by itself");
      children.erase(pid);
    }
    pollfd look{server->epoll_fd(), POLLIN, 0};
    poll(&look, 1, more ? 0 : 1);
  }
  smbpool_link_close(&honest.link);
  for (int turn = 0; turn < 400 && server->attachments() > 0; turn++) {
    server->Turn(&sink, 256);
    usleep(1000);
  }
  Require(server->attachments() == 0 && sink.attached.empty(), "attachments are left");
  Require(RingMappings() == 0, "rings are left mapped");
  Require(OpenDescriptors() == descriptors, "descriptors are left open");
  printf("ok: %" PRIu64 " clients, %" PRIu64 " killed, %" PRIu64 " bad rings, %" PRIu64 " messages, honest client: "
         "%" PRIu64 " answers, slowest %" PRIu64 " us\n",
         born, killed, sink.bad, sink.messages, honest.answers, honest.slowest_us);
  return 0;
}
