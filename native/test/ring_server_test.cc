// The ring server and the module's client together, in one process: attaching, refusals, both kinds of wake, full
// rings, deaths on either side, the node page. Run by scripts/test-module.sh under the sanitizers.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../core/ring_server.h"

extern "C" {
#include "../../samba-module/client/ring_client.h"
}

namespace {

using smbpool::ReplyResult;
using smbpool::RingEnd;
using smbpool::RingServer;

#define CHECK(what)                                                       \
  do {                                                                    \
    if (!(what)) {                                                        \
      fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, __LINE__, #what);  \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

struct Sink : smbpool::RingSink {
  bool room = true;
  std::vector<std::string> events;
  std::vector<uint32_t> attachments;
  bool Room(size_t) override { return room; }
  void Attached(uint32_t attachment, pid_t pid, uid_t) override {
    CHECK(pid == getpid());
    attachments.push_back(attachment);
    events.push_back("attached");
  }
  void Message(uint32_t, uint32_t op, const uint8_t* payload, size_t length) override {
    std::string text(reinterpret_cast<const char*>(payload), length);
    events.push_back("op " + std::to_string(op) + " [" + text + "]");
  }
  void Detached(uint32_t, RingEnd reason) override {
    events.push_back("detached " + std::to_string(static_cast<unsigned>(reason)));
  }
  std::vector<std::string> Take() {
    std::vector<std::string> taken;
    taken.swap(events);
    return taken;
  }
};

using Events = std::vector<std::string>;

std::string SocketPath() { return "/tmp/ring_server_test." + std::to_string(getpid()); }

bool Readable(int fd) {
  pollfd look{fd, POLLIN, 0};
  return poll(&look, 1, 0) == 1;
}

struct Fixture {
  std::unique_ptr<RingServer> server;
  Sink sink;
  smbpool_link link{};
  explicit Fixture(size_t clients_max = 16) {
    smbpool::RingServerOptions options;
    options.socket_path = SocketPath();
    options.page_path = SocketPath() + ".page";
    options.generation = 77;
    options.node = 3;
    options.clients_max = clients_max;
    CHECK(RingServer::Open(options, &server).ok());
    smbpool_link_init(&link);
  }
  ~Fixture() { smbpool_link_end(&link); }
  void Turn() {
    // Also what became readable by the turn itself: a hello right behind its connect.
    do {
    } while ((server->Turn(&sink, 16) && sink.room) || Readable(server->epoll_fd()));
  }
  void Attach() {
    CHECK(smbpool_link_start(&link, SocketPath().c_str(), "test") == 0);
    Turn();
    Turn();
    CHECK(smbpool_link_readable(&link) == 0);
    CHECK(link.state == SMBPOOL_LINK_UP);
  }
  void Send(uint32_t op, const char* text) {
    CHECK(smbpool_link_send(&link, op, text, static_cast<uint32_t>(strlen(text)), nullptr, 0) == SMBPOOL_RING_OK);
  }
};

void Collect(void* data, uint32_t op, const uint8_t* payload, uint32_t length) {
  static_cast<std::vector<std::string>*>(data)->push_back(
      std::to_string(op) + ":" + std::string(reinterpret_cast<const char*>(payload), length));
}

void MessagesArriveInOrderAndRing() {
  Fixture f;
  f.Attach();
  CHECK(f.sink.Take() == Events{"attached"});
  CHECK(f.link.generation == 77);
  CHECK(!Readable(f.server->epoll_fd()));
  f.Send(4, "one");
  CHECK(Readable(f.server->epoll_fd()));  // it slept, so it was rung
  f.Send(6, "two");
  f.Turn();
  CHECK((f.sink.Take() == Events{"op 4 [one]", "op 6 [two]"}));
  CHECK(!Readable(f.server->epoll_fd()));
}

void NoRoomKeepsEverything() {
  Fixture f;
  f.Attach();
  f.sink.Take();
  f.sink.room = false;
  f.Send(4, "kept");
  CHECK(f.server->Turn(&f.sink, 16));
  CHECK(f.sink.Take().empty());
  f.sink.room = true;
  f.Turn();
  CHECK(f.sink.Take() == Events{"op 4 [kept]"});
}

void RepliesWakeAnIdleClient() {
  Fixture f;
  f.Attach();
  std::vector<std::string> got;
  CHECK(!smbpool_link_idle(&f.link));
  CHECK(!Readable(f.link.wake_fd));
  CHECK(f.server->Reply(f.sink.attachments[0], 33, "ab", 2) == ReplyResult::kSent);
  CHECK(Readable(f.link.wake_fd));
  CHECK(smbpool_link_drain(&f.link, Collect, &got));
  CHECK(got == Events{"33:ab"});
  CHECK(!Readable(f.link.wake_fd));
  // Between the drain and going idle one may come: idle says so.
  CHECK(f.server->Reply(f.sink.attachments[0], 34, "", 0) == ReplyResult::kSent);
  CHECK(!Readable(f.link.wake_fd));
  CHECK(smbpool_link_idle(&f.link));
}

void RepliesWakeAClientInTheFutex() {
  Fixture f;
  f.Attach();
  std::thread later([&f] {
    usleep(30000);
    CHECK(f.server->Reply(f.sink.attachments[0], 34, "x", 1) == ReplyResult::kSent);
  });
  timespec before{}, after{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  CHECK(smbpool_link_wait(&f.link, 5000));
  clock_gettime(CLOCK_MONOTONIC, &after);
  CHECK(after.tv_sec - before.tv_sec <= 1);
  later.join();
  CHECK(f.server->page()->counters[SMBPOOL_NODE_WAKES_FUTEX] == 1);
  std::vector<std::string> got;
  CHECK(smbpool_link_drain(&f.link, Collect, &got));
  CHECK(!smbpool_link_wait(&f.link, 20));  // and it gives up in time
}

void FullRingsLoseNothing() {
  Fixture f;
  f.Attach();
  f.sink.Take();
  size_t sent = 0;
  while (smbpool_link_send(&f.link, 4, "m", 1, nullptr, 0) == SMBPOOL_RING_OK) sent++;
  CHECK(sent == SMBPOOL_SLOTS);
  f.Turn();
  CHECK(f.sink.Take().size() == SMBPOOL_SLOTS);
  f.Send(4, "again");
  size_t replied = 0;
  while (f.server->Reply(f.sink.attachments[0], 33, &replied, sizeof(replied)) == ReplyResult::kSent) replied++;
  CHECK(replied == SMBPOOL_SLOTS);
  std::vector<std::string> got;
  CHECK(smbpool_link_drain(&f.link, Collect, &got));
  CHECK(got.size() == SMBPOOL_SLOTS);
  CHECK(f.server->Reply(f.sink.attachments[0], 33, "", 0) == ReplyResult::kSent);
}

void DeathOfAClientDrainsFirst() {
  Fixture f;
  f.Attach();
  f.sink.Take();
  uint32_t attachment = f.sink.attachments[0];
  f.Send(6, "last words");
  smbpool_link_close(&f.link);
  f.Turn();
  f.Turn();
  CHECK((f.sink.Take() == Events{"op 6 [last words]", "detached 1"}));
  CHECK(f.server->attachments() == 0);
  CHECK(f.server->Reply(attachment, 33, "", 0) == ReplyResult::kGone);
  f.Attach();  // its successor has another number
  CHECK(f.sink.attachments[1] != attachment);
}

void ABadRingEndsOnlyItself() {
  Fixture f;
  f.Attach();
  smbpool_link other;
  smbpool_link_init(&other);
  CHECK(smbpool_link_start(&other, SocketPath().c_str(), "other") == 0);
  f.Turn();
  CHECK(smbpool_link_readable(&other) == 0 && other.state == SMBPOOL_LINK_UP);
  f.Turn();
  f.sink.Take();
  other.ring->request_head = 5000;
  __atomic_fetch_or(&other.ready->bits[0], ~uint64_t{0}, __ATOMIC_SEQ_CST);
  f.Turn();
  CHECK(f.sink.Take() == Events{"detached 2"});
  CHECK(smbpool_link_readable(&other) == ECONNRESET);
  smbpool_link_close(&other);
  f.Send(4, "unharmed");
  f.Turn();
  CHECK(f.sink.Take() == Events{"op 4 [unharmed]"});
  smbpool_link_close(&other);
}

void AClearedBitOnlyDelays() {
  Fixture f;
  f.Attach();
  f.sink.Take();
  f.Send(4, "late");
  uint64_t count = 0;
  // As a hostile neighbour could: take the bit away and eat the bell.
  __atomic_store_n(&f.link.ready->bits[0], 0, __ATOMIC_SEQ_CST);
  CHECK(read(f.link.bell_fd, &count, sizeof(count)) == sizeof(count));
  f.Turn();
  pollfd look{f.server->epoll_fd(), POLLIN, 0};
  for (int i = 0; i < 10 && f.sink.events.empty(); i++) {
    CHECK(poll(&look, 1, 500) == 1);
    f.Turn();
  }
  CHECK(f.sink.Take() == Events{"op 4 [late]"});
  CHECK(f.server->page()->counters[SMBPOOL_NODE_SCAN_FOUND] == 1);
}

void HellosAreRefusedWithAReason() {
  Fixture f(1);
  f.Attach();
  smbpool_link second;
  smbpool_link_init(&second);
  CHECK(smbpool_link_start(&second, SocketPath().c_str(), "second") == 0);
  f.Turn();
  CHECK(smbpool_link_readable(&second) == EPERM);
  CHECK(second.state == SMBPOOL_LINK_DOWN);
  smbpool_link_close(&second);
  smbpool_link_close(&f.link);
  f.Turn();
  f.Attach();  // its place is free again
}

void DeathOfTheDaemonIsSeen() {
  Fixture f;
  f.Attach();
  const char key[24] = {1};
  f.server->HomeAdd(SMBPOOL_HOME_FILE, key, sizeof(key));
  CHECK(smbpool_link_is_home(&f.link, SMBPOOL_HOME_FILE, key, sizeof(key)));
  f.server.reset();
  CHECK(!smbpool_link_is_home(&f.link, SMBPOOL_HOME_FILE, key, sizeof(key)));
  CHECK(!smbpool_link_wait(&f.link, 5000));  // at once, not after 5 s
  CHECK(smbpool_link_readable(&f.link) == ECONNRESET);
  CHECK(f.link.state == SMBPOOL_LINK_DOWN);
  CHECK(access(SocketPath().c_str(), F_OK) == -1 && access((SocketPath() + ".page").c_str(), F_OK) == -1);
  CHECK(smbpool_link_start(&f.link, SocketPath().c_str(), "test") == ENOENT);
}

// What the page says of the lease holds when the daemon is gone, until there is a page of its next run.
void TheLeaseOutlivesTheDaemon() {
  Fixture f;
  CHECK(smbpool_link_lease_deadline(&f.link) == 0);
  f.Attach();
  CHECK(smbpool_link_lease_deadline(&f.link) == 0);
  f.server->SetLeaseDeadline(12345);
  CHECK(smbpool_link_lease_deadline(&f.link) == 12345 && !smbpool_link_ended(&f.link));
  f.server.reset();
  CHECK(smbpool_link_lease_deadline(&f.link) == 12345 && smbpool_link_ended(&f.link));
  CHECK(smbpool_link_readable(&f.link) == ECONNRESET);
  smbpool_link_close(&f.link);
  CHECK(smbpool_link_lease_deadline(&f.link) == 12345);
  CHECK(smbpool_link_start(&f.link, SocketPath().c_str(), "test") == ENOENT);
  CHECK(smbpool_link_lease_deadline(&f.link) == 12345);
  Fixture next;
  next.server->SetLeaseDeadline(67890);
  CHECK(smbpool_link_start(&f.link, SocketPath().c_str(), "test") == 0);
  CHECK(smbpool_link_lease_deadline(&f.link) == 12345);
  next.Turn();
  next.Turn();
  CHECK(smbpool_link_readable(&f.link) == 0);
  CHECK(f.link.state == SMBPOOL_LINK_UP && smbpool_link_lease_deadline(&f.link) == 67890);
  smbpool_link_end(&f.link);
  CHECK(smbpool_link_lease_deadline(&f.link) == 0);
}

void WhatClientsCountOfFencingIsSummedUp() {
  Fixture f;
  f.Attach();
  smbpool_link_count(&f.link, SMBPOOL_CLIENT_FENCE_WAITS);
  smbpool_link_count_by(&f.link, SMBPOOL_CLIENT_FENCE_REFUSED, 2);
  f.server->Beat(nullptr, 0);
  f.server->Beat(nullptr, 0);
  const uint64_t* counters = f.server->page()->counters;
  CHECK(counters[SMBPOOL_NODE_FENCE_WAITS] == 1 && counters[SMBPOOL_NODE_FENCE_REFUSED] == 2);
  smbpool_link_count(&f.link, SMBPOOL_CLIENT_FENCE_REFUSED);
  smbpool_link_close(&f.link);
  f.Turn();
  f.Turn();
  CHECK(counters[SMBPOOL_NODE_DETACHED] == 1);
  CHECK(counters[SMBPOOL_NODE_FENCE_WAITS] == 1 && counters[SMBPOOL_NODE_FENCE_REFUSED] == 3);
}

void TheHomeTableForgetsButNeverInvents() {
  Fixture f;
  uint32_t present = 0;
  constexpr uint32_t kKeys = 2 * SMBPOOL_HOME_ENTRIES;
  for (uint32_t i = 0; i < kKeys; i++) f.server->HomeAdd(SMBPOOL_HOME_FILE, &i, sizeof(i));
  for (uint32_t i = 0; i < kKeys; i++) present += f.server->HomeHas(SMBPOOL_HOME_FILE, &i, sizeof(i)) ? 1 : 0;
  CHECK(present > SMBPOOL_HOME_ENTRIES * 9 / 10 && present <= SMBPOOL_HOME_ENTRIES);
  for (uint32_t i = 0; i < kKeys; i++) f.server->HomeRemove(SMBPOOL_HOME_FILE, &i, sizeof(i));
  for (uint64_t entry : f.server->page()->home) CHECK(entry == 0);
}

void ThePageCanBeReadFromItsFile() {
  Fixture f;
  f.server->RecordLatency(SMBPOOL_HISTOGRAM_OPEN_WAIT, 0);
  f.server->RecordLatency(SMBPOOL_HISTOGRAM_OPEN_WAIT, 1024);
  f.server->RecordLatency(SMBPOOL_HISTOGRAM_OPEN_WAIT, UINT64_MAX);
  for (uint64_t i = 1; i <= 3; i++) f.server->RecordError(7, "no memory", 100 * i);
  f.server->RecordError(8, "no memory", 50);
  f.server->SetLeaseDeadline(12345);
  int fd = open((SocketPath() + ".page").c_str(), O_RDONLY);
  CHECK(fd != -1);
  void* at = mmap(nullptr, sizeof(smbpool_node_page), PROT_READ, MAP_SHARED, fd, 0);
  CHECK(at != MAP_FAILED);
  auto* page = static_cast<const smbpool_node_page*>(at);
  CHECK(page->magic == SMBPOOL_PAGE_MAGIC && page->generation == 77 && page->node == 3);
  CHECK(page->lease_deadline_us == 12345);
  f.server->SetFlag(SMBPOOL_NODE_SERVING, true);
  f.server->SetFlag(SMBPOOL_NODE_DRAINING, true);
  CHECK(page->flags == (SMBPOOL_NODE_SERVING | SMBPOOL_NODE_DRAINING));
  f.server->SetFlag(SMBPOOL_NODE_SERVING, false);
  CHECK(page->flags == SMBPOOL_NODE_DRAINING);
  f.server->SetFlag(SMBPOOL_NODE_DRAINING, false);
  CHECK(page->flags == 0);
  CHECK(page->histograms[0][0] == 1 && page->histograms[0][10] == 1 && page->histograms[0][31] == 1);
  CHECK(page->errors[0].count == 3 && page->errors[0].first_us == 100 && page->errors[0].last_us == 300);
  CHECK(page->errors[1].code == 8 && page->errors[1].count == 1 && page->errors[1].sequence == 2);
  munmap(at, sizeof(smbpool_node_page));
  close(fd);
}

void AnotherDaemonOnThePathIsRefused() {
  Fixture f;
  smbpool::RingServerOptions options;
  options.socket_path = SocketPath();
  options.page_path = SocketPath() + ".page";
  std::unique_ptr<RingServer> second;
  CHECK(RingServer::Open(options, &second).code == EADDRINUSE);
  f.Attach();  // and the first is unharmed, its page too
  CHECK(access(options.page_path.c_str(), F_OK) == 0);
}

}  // namespace

int main() {
  MessagesArriveInOrderAndRing();
  NoRoomKeepsEverything();
  RepliesWakeAnIdleClient();
  RepliesWakeAClientInTheFutex();
  FullRingsLoseNothing();
  DeathOfAClientDrainsFirst();
  ABadRingEndsOnlyItself();
  AClearedBitOnlyDelays();
  HellosAreRefusedWithAReason();
  DeathOfTheDaemonIsSeen();
  TheLeaseOutlivesTheDaemon();
  WhatClientsCountOfFencingIsSummedUp();
  TheHomeTableForgetsButNeverInvents();
  ThePageCanBeReadFromItsFile();
  AnotherDaemonOnThePathIsRefused();
  printf("ring_server_test: ok\n");
  return 0;
}
