// See ring_server.h.
#include "ring_server.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

namespace smbpool {

namespace {

// Events taken from epoll at once; more come with the next turn.
constexpr int kEventsMax = 64;
// Connections accepted in one turn.
constexpr int kAcceptsMax = 64;
// Messages of one client before the next client's turn: half a ring, so that one loud smbd does not starve the others.
constexpr size_t kClientBurst = SMBPOOL_SLOTS / 2;
// All rings are looked at so often even when no bell rang: bounds what a cleared ready bit can delay.
constexpr long kScanMs = 50;
// A hello comes right after the connect; who does not send it is not an smbd.
constexpr uint64_t kGreetingMsMax = 5000;

// What an epoll event belongs to: one of these, or kAttachment + attachment.
constexpr uint64_t kListenTag = 1;
constexpr uint64_t kBellTag = 2;
constexpr uint64_t kScanTag = 3;
constexpr uint64_t kAttachment = uint64_t{1} << 32;

uint64_t NowMs() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
}

int MakeMemfd(const char* name, size_t bytes) noexcept {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd == -1) return -1;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == -1 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

void* MapShared(int fd, size_t bytes) noexcept {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

bool Watch(int epoll_fd, int fd, uint64_t tag) noexcept {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

uint64_t Load(const uint64_t* word) noexcept { return __atomic_load_n(word, __ATOMIC_RELAXED); }

}  // namespace

RingServer::Client::~Client() {
  if (ring != nullptr) munmap(ring, sizeof(*ring));
}

Status RingServer::Open(RingServerOptions options, std::unique_ptr<RingServer>* out) noexcept {
  std::unique_ptr<RingServer> server(new RingServer(std::move(options)));
  Status status = server->Setup();
  if (status.ok()) *out = std::move(server);
  return status;
}

Status RingServer::Setup() noexcept {
  if (options_.generation == 0) return Failed("start the ring server with generation 0", EINVAL);
  options_.clients_max = std::min<size_t>(options_.clients_max, SMBPOOL_CLIENTS_MAX);
  by_slot_.assign(options_.clients_max, nullptr);
  for (size_t slot = options_.clients_max; slot > 0; slot--) free_slots_.push_back(static_cast<uint32_t>(slot - 1));

  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  bell_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  scan_timer_ = UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!epoll_.valid() || !bell_.valid() || !scan_timer_.valid()) return Failed("make the ring server's descriptors");
  ready_fd_ = UniqueFd(MakeMemfd("smbpool-ready", sizeof(smbpool_ready_map)));
  if (ready_fd_.valid()) ready_ = static_cast<smbpool_ready_map*>(MapShared(ready_fd_.get(), sizeof(*ready_)));
  if (ready_ == nullptr) return Failed("map the ready map");
  // The socket first: who does not get it must not touch another daemon's page.
  Status status = Listen();
  if (status.ok()) status = MakePage();
  if (!status.ok()) return status;
  if (!Watch(epoll_.get(), listen_.get(), kListenTag) || !Watch(epoll_.get(), bell_.get(), kBellTag) ||
      !Watch(epoll_.get(), scan_timer_.get(), kScanTag)) {
    return Failed("watch the ring server's descriptors");
  }
  return Status{};
}

// The page of the process before: its mappings in smbds, and the lease in it, stay good.
bool RingServer::AdoptPage() noexcept {
  UniqueFd writable(open(options_.page_path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat found {};
  if (!writable.valid() || fstat(writable.get(), &found) == -1 ||
      static_cast<size_t>(found.st_size) != sizeof(smbpool_node_page)) {
    return false;
  }
  page_ = static_cast<smbpool_node_page*>(MapShared(writable.get(), sizeof(*page_)));
  if (page_ == nullptr) return false;
  const bool same = page_->magic == SMBPOOL_PAGE_MAGIC && page_->layout_version == SMBPOOL_LAYOUT_VERSION &&
                    page_->total_bytes == sizeof(*page_) && page_->node == options_.node;
  if (!same || !StartPage(std::move(writable)).ok()) {
    munmap(page_, sizeof(*page_));
    page_ = nullptr;
    return false;
  }
  // what is home is said anew
  HomeClear();
  owns_page_ = true;
  return true;
}

// The page that clients get is opened for reading only; ours is the only writable mapping.
Status RingServer::MakePage() noexcept {
  if (options_.adopts_page && !options_.page_path.empty() && AdoptPage()) return Status{};
  UniqueFd writable;
  std::string fresh = options_.page_path + ".new";
  if (options_.page_path.empty()) {
    writable = UniqueFd(MakeMemfd("smbpool-page", sizeof(smbpool_node_page)));
  } else {
    unlink(fresh.c_str());
    writable = UniqueFd(open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (writable.valid() && ftruncate(writable.get(), static_cast<off_t>(sizeof(smbpool_node_page))) == -1) {
      return Failed("size the node page");
    }
  }
  if (!writable.valid()) return Failed("make the node page");
  page_ = static_cast<smbpool_node_page*>(MapShared(writable.get(), sizeof(*page_)));
  if (page_ == nullptr) return Failed("map the node page");
  page_->magic = SMBPOOL_PAGE_MAGIC;
  page_->layout_version = SMBPOOL_LAYOUT_VERSION;
  page_->total_bytes = sizeof(*page_);
  page_->node = options_.node;
  const Status status = StartPage(std::move(writable));
  if (!status.ok()) return status;
  if (!options_.page_path.empty()) {
    if (rename(fresh.c_str(), options_.page_path.c_str()) == -1) return Failed("publish the node page");
    owns_page_ = true;
  }
  return Status{};
}

// The mapped page is of this process from now on.
Status RingServer::StartPage(UniqueFd writable) noexcept {
  std::string self = "/proc/self/fd/" + std::to_string(writable.get());
  page_fd_ = UniqueFd(open(self.c_str(), O_RDONLY | O_CLOEXEC));
  if (!page_fd_.valid()) return Failed("open the node page for reading");
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  page_->started_us = static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
  page_->daemon_pid = static_cast<uint32_t>(getpid());
  __atomic_store_n(&page_->daemon_sleeps, 1, __ATOMIC_SEQ_CST);
  smbpool_store_release(&page_->generation, options_.generation);
  return Status{};
}

Status RingServer::Listen() noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options_.socket_path.size() >= sizeof(address.sun_path)) return Failed("name the ring socket", ENAMETOOLONG);
  memcpy(address.sun_path, options_.socket_path.c_str(), options_.socket_path.size() + 1);
  auto* plain = reinterpret_cast<sockaddr*>(&address);

  UniqueFd probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return Failed("make the ring socket");
  if (connect(probe.get(), plain, sizeof(address)) == 0 || errno == EAGAIN) {
    return Failed("listen on the ring socket", EADDRINUSE);
  }
  struct stat there{};
  if (lstat(options_.socket_path.c_str(), &there) == 0) {
    // Never remove what is not a socket: a wrong path in the configuration must not cost a file.
    if (!S_ISSOCK(there.st_mode)) return Failed("replace the ring socket", EEXIST);
    unlink(options_.socket_path.c_str());
  }
  listen_ = UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listen_.valid() || bind(listen_.get(), plain, sizeof(address)) == -1) return Failed("bind the ring socket");
  owns_socket_ = true;
  if (chmod(options_.socket_path.c_str(), 0600) == -1 || listen(listen_.get(), SOMAXCONN) == -1) {
    return Failed("listen on the ring socket");
  }
  return Status{};
}

RingServer::~RingServer() {
  if (page_ != nullptr) {
    if (!abandoned_) smbpool_store_release(&page_->generation, 0);
    munmap(page_, sizeof(*page_));
  }
  if (ready_ != nullptr) munmap(ready_, sizeof(*ready_));
  if (abandoned_) return;
  if (owns_page_) unlink(options_.page_path.c_str());
  if (owns_socket_) unlink(options_.socket_path.c_str());
}

RingServer::Client* RingServer::Find(uint32_t attachment) noexcept {
  auto found = clients_.find(attachment);
  return found == clients_.end() ? nullptr : found->second.get();
}

void RingServer::Accept() noexcept {
  for (int count = 0; count < kAcceptsMax; count++) {
    UniqueFd fd(accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    auto client = std::make_unique<Client>();
    ucred peer{};
    socklen_t length = sizeof(peer);
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == -1) continue;
    client->socket = std::move(fd);
    client->pid = peer.pid;
    client->uid = peer.uid;
    client->accepted_ms = NowMs();
    if (peer.uid != 0 && peer.uid != options_.allowed_uid) {
      Refuse(client.get(), SMBPOOL_REFUSED_USER);
      continue;
    }
    if (free_slots_.empty()) {
      Refuse(client.get(), SMBPOOL_REFUSED_FULL);
      continue;
    }
    // Numbers are not used again, so that a reply meant for one that died never reaches its successor.
    do {
      last_attachment_ += 1;
    } while (last_attachment_ == 0 || clients_.count(last_attachment_) != 0);
    client->attachment = last_attachment_;
    if (!Watch(epoll_.get(), client->socket.get(), kAttachment + client->attachment)) continue;
    client->slot = free_slots_.back();
    free_slots_.pop_back();
    by_slot_[client->slot] = client.get();
    clients_.emplace(client->attachment, std::move(client));
  }
  ArmScan();
}

void RingServer::Refuse(Client* client, uint32_t refusal) noexcept {
  smbpool_welcome welcome{};
  welcome.magic = SMBPOOL_HELLO_MAGIC;
  welcome.layout_version = SMBPOOL_LAYOUT_VERSION;
  welcome.result = refusal;
  Count(SMBPOOL_NODE_REFUSED);
  // An unread hello would turn our answer into a connection reset.
  smbpool_hello hello{};
  static_cast<void>(recv(client->socket.get(), &hello, sizeof(hello), MSG_DONTWAIT));
  // It is told if it listens; that it is refused does not depend on it.
  static_cast<void>(send(client->socket.get(), &welcome, sizeof(welcome), MSG_NOSIGNAL | MSG_DONTWAIT));
}

bool RingServer::Welcome(Client* client) noexcept {
  UniqueFd memory(MakeMemfd("smbpool-ring", sizeof(smbpool_ring)));
  client->wake = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!memory.valid() || !client->wake.valid()) return false;
  client->ring = static_cast<smbpool_ring*>(MapShared(memory.get(), sizeof(smbpool_ring)));
  if (client->ring == nullptr) return false;
  client->ring->magic = SMBPOOL_RING_MAGIC;
  client->ring->layout_version = SMBPOOL_LAYOUT_VERSION;
  client->ring->total_bytes = sizeof(smbpool_ring);
  client->ring->slots = SMBPOOL_SLOTS;
  client->ring->slot_bytes = SMBPOOL_SLOT_BYTES;
  client->ring->generation = options_.generation;
  client->ring->client = client->slot;
  client->requests = smbpool_request_channel(client->ring);
  client->replies = smbpool_reply_channel(client->ring);

  smbpool_welcome welcome{};
  welcome.magic = SMBPOOL_HELLO_MAGIC;
  welcome.layout_version = SMBPOOL_LAYOUT_VERSION;
  welcome.client = client->slot;
  welcome.generation = options_.generation;
  welcome.node = options_.node;
  const int fds[SMBPOOL_FDS] = {memory.get(), page_fd_.get(), ready_fd_.get(), bell_.get(), client->wake.get()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
  iovec part{&welcome, sizeof(welcome)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(fds));
  memcpy(CMSG_DATA(header), fds, sizeof(fds));
  return sendmsg(client->socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(welcome));
}

// Readable: the hello, or the end. Anything after the hello breaks the rules.
void RingServer::OnSocket(Client* client) noexcept {
  smbpool_hello hello{};
  ssize_t got = recv(client->socket.get(), &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
  if (got == -1 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    End(client, RingEnd::kGone);
    return;
  }
  if (client->ring != nullptr || got != static_cast<ssize_t>(sizeof(hello)) || hello.magic != SMBPOOL_HELLO_MAGIC) {
    End(client, RingEnd::kBadRing);
    return;
  }
  if (hello.layout_version != SMBPOOL_LAYOUT_VERSION) {
    Refuse(client, SMBPOOL_REFUSED_VERSION);
    End(client, RingEnd::kGone);
  } else if (!Welcome(client)) {
    Refuse(client, SMBPOOL_REFUSED_INTERNAL);
    End(client, RingEnd::kGone);
  } else {
    // Announced by the next drain, when the sink is at hand and has room.
    Count(SMBPOOL_NODE_ATTACHED);
    Queue(client);
  }
}

void RingServer::Queue(Client* client) noexcept {
  if (client->queued) return;
  client->queued = true;
  queue_.push_back(client->attachment);
}

void RingServer::End(Client* client, RingEnd reason) noexcept {
  if (client->ended) return;
  client->ended = true;
  client->reason = reason;
  // Its end must not be reported again and again while it waits to be buried.
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client->socket.get(), nullptr);
  ending_.push_back(client->attachment);
}

void RingServer::Drop(uint32_t attachment) noexcept {
  Client* client = Find(attachment);
  if (client != nullptr) End(client, RingEnd::kDropped);
}

void RingServer::PollEvents() noexcept {
  epoll_event events[kEventsMax];
  int count = epoll_wait(epoll_.get(), events, kEventsMax, 0);
  for (int i = 0; i < count; i++) {
    uint64_t tag = events[i].data.u64;
    uint64_t ignored = 0;
    if (tag == kListenTag) {
      Accept();
    } else if (tag == kBellTag) {
      static_cast<void>(!read(bell_.get(), &ignored, sizeof(ignored)));
    } else if (tag == kScanTag) {
      static_cast<void>(!read(scan_timer_.get(), &ignored, sizeof(ignored)));
      scanning_ = true;
    } else if (tag >= kAttachment) {
      Client* client = Find(static_cast<uint32_t>(tag - kAttachment));
      if (client != nullptr) OnSocket(client);
    }
  }
}

void RingServer::ArmScan() noexcept {
  bool wanted = !clients_.empty();
  if (wanted == scan_armed_) return;
  itimerspec every{};
  if (wanted) every.it_value.tv_nsec = every.it_interval.tv_nsec = kScanMs * 1000000;
  if (timerfd_settime(scan_timer_.get(), 0, &every, nullptr) == 0) scan_armed_ = wanted;
}

// Puts the clients whose bit is set, or all, into the queue. Bits of nobody are noise.
void RingServer::CollectReady(bool all) noexcept {
  for (size_t word = 0; word * 64 < by_slot_.size(); word++) {
    uint64_t bits = __atomic_load_n(&ready_->bits[word], __ATOMIC_RELAXED);
    if (bits == 0 && !all) continue;
    bits = __atomic_exchange_n(&ready_->bits[word], 0, __ATOMIC_SEQ_CST);
    if (!all && bits == 0) continue;
    for (size_t bit = 0; bit < 64 && word * 64 + bit < by_slot_.size(); bit++) {
      Client* client = by_slot_[word * 64 + bit];
      if (client == nullptr || client->ended || client->ring == nullptr) continue;
      bool marked = ((bits >> bit) & 1) != 0;
      if (!marked && all && smbpool_load_acquire(client->requests.head) != client->requests.position) {
        Count(SMBPOOL_NODE_SCAN_FOUND);
        marked = true;
      }
      if (marked) Queue(client);
    }
  }
  if (!all) return;
  Count(SMBPOOL_NODE_SCANS);
  uint64_t now_ms = NowMs();
  for (auto& entry : clients_) {
    Client* client = entry.second.get();
    if (client->ring == nullptr && now_ms - client->accepted_ms > kGreetingMsMax) End(client, RingEnd::kGone);
  }
}

RingServer::DrainEnd RingServer::DrainClient(Client* client, RingSink* sink, size_t* budget) noexcept {
  if (client->ring == nullptr) return DrainEnd::kEmpty;
  for (size_t count = 0; count < kClientBurst; count++) {
    if (*budget == 0 || !sink->Room(SMBPOOL_MESSAGE_BYTES_MAX)) return DrainEnd::kMore;
    if (!client->announced) {
      client->announced = true;
      sink->Attached(client->attachment, client->pid, client->uid);
      continue;
    }
    smbpool_slot_header header{};
    smbpool_ring_result result = smbpool_consume(&client->requests, &header, payload_);
    if (result == SMBPOOL_RING_EMPTY) return DrainEnd::kEmpty;
    if (result != SMBPOOL_RING_OK) return DrainEnd::kBad;
    *budget -= 1;
    if (header.generation != options_.generation) {
      Count(SMBPOOL_NODE_LATE_GENERATION);
      continue;
    }
    Count(SMBPOOL_NODE_MESSAGES);
    sink->Message(client->attachment, header.op, payload_, header.length_bytes);
  }
  return DrainEnd::kMore;
}

// Those that ended: what they had published before counts, then they are forgotten.
void RingServer::Bury(RingSink* sink) noexcept {
  std::vector<uint32_t> later;
  std::vector<uint32_t> now;
  now.swap(ending_);
  for (uint32_t attachment : now) {
    Client* client = Find(attachment);
    if (client == nullptr) continue;
    // One ring at most, however long a dying or hostile client goes on writing.
    size_t budget = SMBPOOL_SLOTS;
    DrainEnd end = DrainEnd::kEmpty;
    while (client->reason == RingEnd::kGone && budget > 0) {
      end = DrainClient(client, sink, &budget);
      if (end != DrainEnd::kMore || !sink->Room(SMBPOOL_MESSAGE_BYTES_MAX)) break;
    }
    if ((end == DrainEnd::kMore && budget > 0) || !sink->Room(0)) {
      later.push_back(attachment);
      continue;
    }
    if (client->reason == RingEnd::kBadRing || end == DrainEnd::kBad) {
      Count(SMBPOOL_NODE_BAD_RINGS);
      client->reason = RingEnd::kBadRing;
    }
    SumUp(client);
    if (client->ring != nullptr) Count(SMBPOOL_NODE_DETACHED);
    if (client->announced) sink->Detached(attachment, client->reason);
    by_slot_[client->slot] = nullptr;
    __atomic_fetch_and(&ready_->bits[client->slot / 64], ~(uint64_t{1} << (client->slot % 64)), __ATOMIC_SEQ_CST);
    free_slots_.push_back(client->slot);
    clients_.erase(attachment);
  }
  ending_.insert(ending_.end(), later.begin(), later.end());
}

void RingServer::Drain(RingSink* sink, size_t messages_max, bool readable) noexcept {
  size_t budget = messages_max;
  __atomic_store_n(&page_->daemon_sleeps, 0, __ATOMIC_SEQ_CST);
  if (readable) PollEvents();
  CollectReady(scanning_);
  scanning_ = false;

  std::vector<uint32_t> round;
  round.swap(queue_);
  for (uint32_t attachment : round) {
    Client* client = Find(attachment);
    if (client == nullptr) continue;
    client->queued = false;
    if (client->ended) continue;
    switch (DrainClient(client, sink, &budget)) {
      case DrainEnd::kMore:
        Queue(client);
        break;
      case DrainEnd::kBad:
        End(client, RingEnd::kBadRing);
        break;
      case DrainEnd::kEmpty:
        break;
    }
  }
  Bury(sink);
  ArmScan();
}

bool RingServer::Sleep() noexcept {
  // From here on a client that publishes rings; what was published just before is seen by the look that follows.
  __atomic_store_n(&page_->daemon_sleeps, 1, __ATOMIC_SEQ_CST);
  CollectReady(false);
  return !pending();
}

bool RingServer::Turn(RingSink* sink, size_t messages_max) noexcept {
  Drain(sink, messages_max, true);
  return !Sleep();
}

ReplyResult RingServer::Reply(uint32_t attachment, uint32_t op, const void* payload, size_t length) noexcept {
  Client* client = Find(attachment);
  if (client == nullptr || client->ended || client->ring == nullptr || length > SMBPOOL_MESSAGE_BYTES_MAX) {
    return ReplyResult::kGone;
  }
  smbpool_ring_result result = smbpool_publish(&client->replies, op, options_.generation, payload,
                                               static_cast<uint32_t>(length), nullptr, 0);
  if (result == SMBPOOL_RING_FULL) {
    Count(SMBPOOL_NODE_REPLIES_FULL);
    return ReplyResult::kFull;
  }
  if (result != SMBPOOL_RING_OK) {
    End(client, RingEnd::kBadRing);
    return ReplyResult::kGone;
  }
  Count(SMBPOOL_NODE_REPLIES);
  const uint64_t one = 1;
  switch (smbpool_client_state(client->ring)) {
    case SMBPOOL_CLIENT_IN_FUTEX:
      Count(SMBPOOL_NODE_WAKES_FUTEX);
      syscall(SYS_futex, &client->ring->reply_head, FUTEX_WAKE, 1, nullptr, nullptr, 0);
      break;
    case SMBPOOL_CLIENT_RUNNING:
      break;
    default:
      // Idle, or a word that no client writes: a surplus wake harms nobody. EAGAIN: it was woken 2^64 times already.
      Count(SMBPOOL_NODE_WAKES_EVENTFD);
      static_cast<void>(!write(client->wake.get(), &one, sizeof(one)));
      break;
  }
  return ReplyResult::kSent;
}

bool RingServer::ClientCounters(uint32_t attachment, uint64_t* out) noexcept {
  Client* client = Find(attachment);
  if (client == nullptr || client->ring == nullptr) return false;
  for (uint32_t i = 0; i < SMBPOOL_CLIENT_COUNTERS; i++) out[i] = Load(&client->ring->counters[i]);
  return true;
}

}  // namespace smbpool
