// See gate.h.
#include "gate.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <utility>

namespace smbpool {

namespace {

constexpr uint32_t kPacketMagic = 0x43544442;  // CTDB
constexpr uint32_t kPacketVersion = 1;
// A packet's operation, and of a control the opcode and the flags.
constexpr size_t kOperationAt = 16;
constexpr size_t kOpcodeAt = 32;
constexpr size_t kFlagsAt = 52;
constexpr uint32_t kRequestControl = 7;
constexpr uint32_t kFlagNoReply = 1;
// One read of one client: many small packets, and a large one soon.
constexpr size_t kReadBytes = 65536;
// New connections taken in one batch, so that a flood of them does not hold up the others.
constexpr int kAcceptsPerBatch = 64;
constexpr int kListenBacklog = 1024;
// A buffer that grew beyond is given back when it is empty.
constexpr size_t kBufferBytesKept = size_t{1} << 20;
constexpr size_t kCredentialBytes = 16;

uint32_t Word(const uint8_t* at) noexcept {
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

void GiveBack(std::vector<uint8_t>* buffer) noexcept {
  buffer->clear();
  if (buffer->capacity() > kBufferBytesKept) std::vector<uint8_t>().swap(*buffer);
}

}  // namespace

Gate::Gate(GateOptions options, int epoll_fd, Counters* counters) noexcept
    : options_(std::move(options)), epoll_fd_(epoll_fd), counters_(counters), scratch_(kReadBytes) {}

Status Gate::Open(GateOptions options, int epoll_fd, Counters* counters, std::unique_ptr<Gate>* out) noexcept {
  std::unique_ptr<Gate> gate(new Gate(std::move(options), epoll_fd, counters));
  const Status status = gate->Listen();
  if (status.ok()) *out = std::move(gate);
  return status;
}

Gate::~Gate() {
  struct stat now;
  if (socket_inode_ != 0 && ::lstat(options_.path.c_str(), &now) == 0 && now.st_dev == socket_device_ &&
      now.st_ino == socket_inode_) {
    ::unlink(options_.path.c_str());
  }
}

// A socket file is stale when nobody answers a connection to it.
Status Gate::RemoveStale() noexcept {
  struct stat found;
  if (::lstat(options_.path.c_str(), &found) != 0) return errno == ENOENT ? Status{} : Failed("look at socket path");
  if (!S_ISSOCK(found.st_mode)) return Failed("use socket path, which is another kind of file", EEXIST);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, options_.path.data(), options_.path.size());
  UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return Failed("open socket");
  if (::connect(probe.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
    return Failed("listen on socket path", EADDRINUSE);
  }
  if (errno != ECONNREFUSED) return Failed("try socket path");
  if (::unlink(options_.path.c_str()) != 0 && errno != ENOENT) return Failed("remove stale socket");
  return {};
}

Status Gate::Listen() noexcept {
  sockaddr_un address{};
  if (options_.path.empty() || options_.path.size() >= sizeof(address.sun_path)) {
    return Failed("use socket path of this length", ENAMETOOLONG);
  }
  Status status = RemoveStale();
  if (!status.ok()) return status;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, options_.path.data(), options_.path.size());
  listen_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listen_.valid()) return Failed("open socket");
  // the mode of an unbound socket is what its file gets: nobody else can connect, not even for a moment
  if (::fchmod(listen_.get(), 0600) != 0) return Failed("set mode of socket");
  if (::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return Failed("bind socket");
  struct stat made;
  if (::lstat(options_.path.c_str(), &made) == 0) {
    socket_device_ = made.st_dev;
    socket_inode_ = made.st_ino;
  }
  if (::chmod(options_.path.c_str(), 0600) != 0) return Failed("set mode of socket");
  if (::listen(listen_.get(), kListenBacklog) != 0) return Failed("listen on socket");
  spare_ = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenTag;
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, listen_.get(), &event) != 0) return Failed("watch socket");
  return {};
}

Gate::Client* Gate::Find(uint32_t id) noexcept {
  const auto found = clients_.find(id);
  return found == clients_.end() ? nullptr : found->second.get();
}

void Gate::Accept(BatchWriter* writer) noexcept {
  for (int i = 0; i < kAcceptsPerBatch; i++) {
    if (!writer->Fits(kCredentialBytes) || !AcceptOne(writer)) return;
  }
}

bool Gate::AcceptOne(BatchWriter* writer) noexcept {
  UniqueFd fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) {
    if (errno != EMFILE && errno != ENFILE) return errno == ECONNABORTED || errno == EINTR;
    // the waiting connection would wake us for ever: take it with the spare descriptor and hang up
    counters_->Add(Counter::kClientRefusedNoDescriptor);
    spare_.Close();
    UniqueFd refused(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    refused.Close();
    spare_ = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    return false;
  }
  if (clients_.size() >= options_.clients_max) {
    counters_->Add(Counter::kClientRefusedTooMany);
    return true;
  }
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    counters_->Add(Counter::kClientClosedError);
    return true;
  }
  auto client = std::make_unique<Client>();
  client->id = ++last_id_;
  client->fd = std::move(fd);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kClientTag | client->id;
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, client->fd.get(), &event) != 0) {
    counters_->Add(Counter::kClientClosedError);
    return true;
  }
  const uint32_t payload[4] = {static_cast<uint32_t>(credentials.pid), credentials.uid, credentials.gid, 0};
  static_assert(sizeof(payload) == kCredentialBytes);
  writer->Put(InKind::kClientOpened, client->id, reinterpret_cast<const uint8_t*>(payload), sizeof(payload));
  counters_->Add(Counter::kClientAccepted);
  clients_.emplace(client->id, std::move(client));
  return true;
}

void Gate::OnClientEvent(uint32_t id, uint32_t events, BatchWriter* writer) noexcept {
  Client* client = Find(id);
  if (client == nullptr) return;
  if ((events & EPOLLOUT) != 0) Write(client);
  // with input still waiting for a batch, or the end decided, reading more would only pile up
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !client->pending && !client->ended) Read(client, writer);
}

void Gate::Read(Client* client, BatchWriter* writer) noexcept {
  const ssize_t count = ::recv(client->fd.get(), scratch_.data(), scratch_.size(), MSG_DONTWAIT);
  if (count > 0) {
    TakeBytes(client, scratch_.data(), static_cast<size_t>(count), writer);
    return;
  }
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // a process that was killed shows as end or as reset
  End(client, Counter::kClientClosedByPeer);
}

void Gate::TakeBytes(Client* client, const uint8_t* bytes, size_t length, BatchWriter* writer) noexcept {
  if (!client->input.empty()) {
    Keep(client, bytes, length);
    if (!client->ended) TakeBuffered(client, writer);
    return;
  }
  ParseEnd end = ParseEnd::kNeedMore;
  const size_t used = Parse(client, bytes, length, writer, &end);
  if (end != ParseEnd::kBroken) Keep(client, bytes + used, length - used);
  AfterParse(client, end);
}

void Gate::TakeBuffered(Client* client, BatchWriter* writer) noexcept {
  ParseEnd end = ParseEnd::kNeedMore;
  const size_t used = Parse(client, client->input.data(), client->input.size(), writer, &end);
  DropInput(client, used);
  AfterParse(client, end);
}

void Gate::AfterParse(Client* client, ParseEnd end) noexcept {
  if (end == ParseEnd::kBatchFull) SetPending(client);
  if (end == ParseEnd::kBroken) End(client, Counter::kClientClosedLength);
}

bool Gate::CanWait(const uint8_t* packet, size_t length) const noexcept {
  return options_.patient_control != 0 && length >= kFlagsAt + sizeof(uint32_t) &&
         Word(packet + kOperationAt) == kRequestControl && Word(packet + kOpcodeAt) == options_.patient_control &&
         (Word(packet + kFlagsAt) & kFlagNoReply) != 0;
}

size_t Gate::Parse(Client* client, const uint8_t* bytes, size_t length, BatchWriter* writer, ParseEnd* end) noexcept {
  size_t at = 0;
  while (length - at >= sizeof(uint32_t)) {
    const size_t packet = Word(bytes + at);
    if (packet < kPacketBytesMin || packet > options_.packet_bytes_max) {
      *end = ParseEnd::kBroken;
      return at;
    }
    if (length - at < packet) break;
    const bool magic = Word(bytes + at + 4) == kPacketMagic;
    if (!magic || Word(bytes + at + 8) != kPacketVersion) {
      counters_->Add(magic ? Counter::kPacketRefusedVersion : Counter::kPacketRefusedMagic);
      at += packet;
      continue;
    }
    const bool large = packet > writer->PayloadMax();
    if (!writer->Fits(large ? 0 : packet) || !client->large.empty()) {
      *end = ParseEnd::kBatchFull;
      return at;
    }
    if (large) {
      client->large.assign(bytes + at, bytes + at + packet);
      writer->Put(InKind::kClientPacketLarge, client->id, nullptr, 0);
    } else if (CanWait(bytes + at, packet)) {
      writer->PutPatient(InKind::kClientPacket, client->id, bytes + at, packet);
    } else {
      writer->Put(InKind::kClientPacket, client->id, bytes + at, packet);
    }
    counters_->Add(Counter::kPacketIn);
    at += packet;
    if (large) {
      // its memory is to be fetched before the next batch, where anything behind it goes
      *end = ParseEnd::kBatchFull;
      return at;
    }
  }
  *end = ParseEnd::kNeedMore;
  return at;
}

void Gate::Keep(Client* client, const uint8_t* bytes, size_t length) noexcept {
  if (length == 0) return;
  if (input_bytes_ + length > options_.input_bytes_max) {
    End(client, Counter::kClientClosedInputMemory);
    return;
  }
  client->input.insert(client->input.end(), bytes, bytes + length);
  input_bytes_ += length;
}

void Gate::DropInput(Client* client, size_t count) noexcept {
  input_bytes_ -= count;
  if (count == client->input.size()) {
    GiveBack(&client->input);
  } else if (count != 0) {
    client->input.erase(client->input.begin(), client->input.begin() + static_cast<std::ptrdiff_t>(count));
  }
}

void Gate::SetPending(Client* client) noexcept {
  if (client->pending) return;
  client->pending = true;
  pending_.push_back(client->id);
}

void Gate::End(Client* client, Counter reason) noexcept {
  if (client->ended) return;
  counters_->Add(reason);
  client->ended = true;
  DropInput(client, client->input.size());
  // the descriptor stays until kClientClosed is delivered, but must not wake us any more
  (void)::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, client->fd.get(), nullptr);
  SetPending(client);
}

void Gate::DrainPending(BatchWriter* writer) noexcept {
  std::vector<uint32_t> waiting;
  waiting.swap(pending_);
  for (uint32_t id : waiting) {
    Client* client = Find(id);
    if (client == nullptr) continue;
    client->pending = false;
    GiveBack(&client->large);
    if (!client->ended) {
      TakeBuffered(client, writer);
    } else if (writer->Fits(0)) {
      writer->Put(InKind::kClientClosed, id, nullptr, 0);
      clients_.erase(id);
    } else {
      SetPending(client);
    }
  }
}

std::vector<uint8_t> Gate::TakeLarge(uint32_t id) noexcept {
  Client* client = Find(id);
  return client == nullptr ? std::vector<uint8_t>() : std::exchange(client->large, {});
}

void Gate::Send(uint32_t id, const uint8_t* packet, size_t length) noexcept {
  Client* client = Find(id);
  if (client == nullptr || client->ended || client->output_broken) {
    counters_->Add(Counter::kPacketOutNobody);
    return;
  }
  if (client->output.size() - client->output_at + length > options_.output_bytes_max) {
    End(client, Counter::kClientClosedOutputOverflow);
    return;
  }
  client->output.insert(client->output.end(), packet, packet + length);
  counters_->Add(Counter::kPacketOut);
  if (!client->dirty) {
    client->dirty = true;
    dirty_.push_back(id);
  }
}

void Gate::CloseClient(uint32_t id) noexcept {
  Client* client = Find(id);
  if (client == nullptr || client->ended) return;
  Write(client);
  End(client, Counter::kClientClosedByUs);
}

void Gate::Flush() noexcept {
  for (uint32_t id : dirty_) {
    Client* client = Find(id);
    if (client == nullptr) continue;
    client->dirty = false;
    if (!client->ended) Write(client);
  }
  dirty_.clear();
}

void Gate::Write(Client* client) noexcept {
  while (client->output_at < client->output.size()) {
    const ssize_t count = ::send(client->fd.get(), client->output.data() + client->output_at,
                                 client->output.size() - client->output_at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) {
      client->output_at += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      Watch(client, true);
      return;
    }
    // the peer is gone: what it sent before is still read, and its end is told by the reading side
    client->output_broken = true;
    break;
  }
  client->output_at = 0;
  GiveBack(&client->output);
  Watch(client, false);
}

void Gate::Watch(Client* client, bool write) noexcept {
  if (write && client->output_at > kBufferBytesKept) {
    client->output.erase(client->output.begin(),
                         client->output.begin() + static_cast<std::ptrdiff_t>(client->output_at));
    client->output_at = 0;
  }
  if (client->wants_write == write) return;
  client->wants_write = write;
  epoll_event event{};
  event.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = kClientTag | client->id;
  (void)::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, client->fd.get(), &event);
}

}  // namespace smbpool
