// See gate.h.
#include "gate.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace smbpool {

namespace {

constexpr uint32_t kPacketMagic = 0x43544442;  // CTDB
constexpr uint32_t kPacketVersion = 1;
// Instead of the magic: of a packet that is settled, which a successor does not hand on again.
constexpr uint32_t kSettledMagic = 0x454e4f44;
constexpr size_t kMagicAt = 4;
// A packet's operation, and of a control the opcode and the flags.
constexpr size_t kOperationAt = 16;
constexpr size_t kOpcodeAt = 32;
constexpr size_t kFlagsAt = 52;
constexpr size_t kRequestAt = 28;
constexpr uint32_t kRequestCall = 0;
constexpr uint32_t kReplyCall = 1;
constexpr uint32_t kReplyError = 4;
constexpr uint32_t kRequestControl = 7;
constexpr uint32_t kReplyControl = 8;
constexpr uint32_t kFlagNoReply = 1;
// One read of one client: many small packets, and a large one soon.
constexpr size_t kReadBytes = 65536;
// With less room the input goes to another area.
constexpr size_t kReadBytesMin = 4096;
// Of a large area that is never empty, so much is used before what is settled in it is left behind.
constexpr size_t kMoveBytesMin = 262144;
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

bool IsAnswer(const uint8_t* packet, size_t length) noexcept {
  if (length < kPacketBytesMin) return false;
  const uint32_t operation = Word(packet + kOperationAt);
  return operation == kReplyCall || operation == kReplyError || operation == kReplyControl;
}

bool WantsAnswer(const uint8_t* packet, size_t length) noexcept {
  const uint32_t operation = Word(packet + kOperationAt);
  if (operation == kRequestCall) return true;
  if (operation != kRequestControl || length < kFlagsAt + sizeof(uint32_t)) return false;
  return (Word(packet + kFlagsAt) & kFlagNoReply) == 0;
}

size_t Sent(const KeptTurn& turn) noexcept { return turn.at + turn.message.msg_len; }

}  // namespace

Gate::Gate(GateOptions options, int epoll_fd, Counters* counters) noexcept
    : options_(std::move(options)), epoll_fd_(epoll_fd), counters_(counters) {
  // both halves of an area, so that there is always room for one more
  options_.packet_bytes_max = std::min(options_.packet_bytes_max, kKeptLargeBytes / 2);
  options_.output_bytes_max = std::min(options_.output_bytes_max, kKeptLargeBytes / 2);
  options_.clients_max = std::min(options_.clients_max, kKeptClientsMax);
}

Status Gate::Open(GateOptions options, int epoll_fd, Counters* counters, std::unique_ptr<Gate>* out) noexcept {
  std::unique_ptr<Gate> gate(new Gate(std::move(options), epoll_fd, counters));
  const bool inherits = gate->options_.heirloom.listener.valid();
  const Status status = inherits ? gate->TakeOver() : gate->Listen();
  if (status.ok()) *out = std::move(gate);
  return status;
}

Gate::~Gate() {
  if (abandoned_) return;
  // a standby may have duplicates: the other side is to see the end now
  for (const auto& [id, client] : clients_) (void)::shutdown(client->fd.get(), SHUT_RDWR);
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
  status = KeptStreams::Make(&streams_);
  return status.ok() ? WatchListener() : status;
}

// Everything is as the former process left it: parsing starts at the first byte that is not settled.
Status Gate::TakeOver() noexcept {
  GateHeirloom& heirloom = options_.heirloom;
  const Status status = KeptStreams::Adopt(std::move(heirloom.streams), &streams_);
  if (!status.ok()) return status;
  listen_ = std::move(heirloom.listener);
  struct stat made;
  if (::lstat(options_.path.c_str(), &made) == 0) {
    socket_device_ = made.st_dev;
    socket_inode_ = made.st_ino;
  }
  last_id_ = streams_->last_id();
  for (KeptConnection& connection : heirloom.connections) {
    if (!streams_->Sane(connection.slot, connection.id)) continue;
    auto client = std::make_unique<Client>();
    client->id = connection.id;
    client->slot = connection.slot;
    client->fd = std::move(connection.fd);
    client->adopted = true;
    KeptClient& kept = streams_->client(client->slot);
    const KeptTurn& input = kept.input.now();
    if (kept.settles != 0 && kept.output.now().end >= kept.settles_at_end &&
        kept.settles - 1 + kPacketBytesMin <= Sent(input)) {
      std::memcpy(Input(client.get()) + kept.settles - 1 + kMagicAt, &kSettledMagic, sizeof(kSettledMagic));
    }
    kept.settles = 0;
    client->parsed = input.from;
    client->replay_end = Sent(input);
    client->move_at = kMoveBytesMin;
    clients_.emplace(client->id, std::move(client));
  }
  // a connection that is known only to the memory has no descriptor any more
  for (size_t slot = 0; slot < streams_->slots_used(); slot++) {
    const uint32_t id = streams_->client(static_cast<int>(slot)).id;
    if (id != 0 && clients_.count(id) == 0) streams_->Release(static_cast<int>(slot));
  }
  heirloom.connections.clear();
  return {};
}

Status Gate::Resume() noexcept {
  for (const auto& [id, client] : clients_) {
    if (!client->adopted) continue;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kClientTag | id;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, client->fd.get(), &event) != 0) return Failed("watch connection");
    if (!client->dirty) {
      client->dirty = true;
      dirty_.push_back(id);
    }
    SetPending(client.get());
  }
  return WatchListener();
}

Status Gate::WatchListener() noexcept {
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
  const int slot = streams_->Take(last_id_ + 1, static_cast<uint32_t>(credentials.pid));
  if (slot < 0) {
    counters_->Add(Counter::kClientRefusedTooMany);
    return true;
  }
  auto client = std::make_unique<Client>();
  client->id = ++last_id_;
  streams_->SetLastId(last_id_);
  client->slot = slot;
  client->move_at = kMoveBytesMin;
  client->fd = std::move(fd);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kClientTag | client->id;
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, client->fd.get(), &event) != 0) {
    counters_->Add(Counter::kClientClosedError);
    streams_->Release(slot);
    return true;
  }
  TellOpened(*client);
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
  if (!PrepareRead(client)) {
    End(client, Counter::kClientClosedInputMemory);
    return;
  }
  KeptTurn& turn = streams_->client(client->slot).input.now();
  const size_t room = std::min(kReadBytes, KeptStreams::Capacity(turn.area) - turn.at);
  const ssize_t count = KeptStreams::Receive(client->fd.get(), &turn, Input(client), room);
  if (count > 0) {
    TakeInput(client, writer);
    return;
  }
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // a process that was killed shows as end or as reset
  End(client, Counter::kClientClosedByPeer);
}

uint8_t* Gate::Input(const Client* client) noexcept {
  return streams_->Area(client->slot, KeptWay::kInput, streams_->client(client->slot).input.now().area);
}

size_t Gate::Received(const Client* client) noexcept { return Sent(streams_->client(client->slot).input.now()); }

// A new turn of the input, with room. False: too much is kept.
bool Gate::PrepareRead(Client* client) noexcept {
  KeptDirection& input = streams_->client(client->slot).input;
  const size_t used = Sent(input.now());
  if (client->open.empty() && client->parsed == used) {
    const KeptTurn old = input.now();
    KeptStreams::Turn(&input, 0, 0, 0, 0);
    streams_->Forget(client->slot, KeptWay::kInput, old.area, used);
    client->parsed = 0;
    client->replay_end = 0;
    client->move_at = kMoveBytesMin;
    return true;
  }
  const uint64_t area = input.now().area;
  const bool full = KeptStreams::Capacity(area) - used < (area == 0 ? kReadBytesMin : kReadBytes);
  if (full || used > client->move_at) {
    if (!MoveInput(client) && full) return false;
  }
  const KeptTurn& now = input.now();
  KeptStreams::Turn(&input, now.area, now.from, Sent(now), 0);
  return true;
}

// Copies what is not settled to the start of another area. False: too much, and nothing changed.
bool Gate::MoveInput(Client* client) noexcept {
  KeptDirection& input = streams_->client(client->slot).input;
  const KeptTurn old = input.now();
  const size_t used = Sent(old);
  size_t kept = used - client->parsed;
  for (size_t i = client->open_from; i < client->open.size(); i++) kept += client->open[i].length;
  if (kept > used / 2 && old.area != 0 && KeptStreams::Capacity(old.area) - used >= kReadBytes) {
    // not worth it yet
    client->move_at = used * 2;
    return false;
  }
  const bool small = old.area != 0 && kept <= kKeptSmallBytes / 2;
  const uint64_t area = small ? 0 : (old.area == 1 ? 2 : 1);
  if (kept + kReadBytes > KeptStreams::Capacity(area) && !small) return false;
  const uint8_t* from = streams_->Area(client->slot, KeptWay::kInput, old.area);
  uint8_t* to = streams_->Area(client->slot, KeptWay::kInput, area);
  size_t at = 0;
  for (size_t i = client->open_from; i < client->open.size(); i++) {
    Unsettled& open = client->open[i];
    std::memcpy(to + at, from + open.at, open.length);
    open.at = at;
    at += open.length;
  }
  std::memcpy(to + at, from + client->parsed, used - client->parsed);
  KeptStreams::Turn(&input, area, 0, at + used - client->parsed, 0);
  client->replay_end = client->replay_end > client->parsed ? at + client->replay_end - client->parsed : 0;
  client->parsed = at;
  client->move_at = std::max(kMoveBytesMin, 2 * kept);
  streams_->Forget(client->slot, KeptWay::kInput, old.area, used);
  return true;
}

void Gate::TakeInput(Client* client, BatchWriter* writer) noexcept {
  const ParseEnd end = Parse(client, writer);
  const size_t unfinished = end == ParseEnd::kBroken ? 0 : Received(client) - client->parsed;
  if (input_bytes_ - client->unfinished + unfinished > options_.input_bytes_max) {
    End(client, Counter::kClientClosedInputMemory);
    return;
  }
  CountUnfinished(client, unfinished);
  if (end == ParseEnd::kBatchFull) SetPending(client);
  if (end == ParseEnd::kBroken) End(client, Counter::kClientClosedLength);
}

void Gate::CountUnfinished(Client* client, size_t bytes) noexcept {
  input_bytes_ = input_bytes_ - client->unfinished + bytes;
  client->unfinished = bytes;
}

bool Gate::CanWait(const uint8_t* packet, size_t length) const noexcept {
  return options_.patient_control != 0 && length >= kFlagsAt + sizeof(uint32_t) &&
         Word(packet + kOperationAt) == kRequestControl && Word(packet + kOpcodeAt) == options_.patient_control &&
         (Word(packet + kFlagsAt) & kFlagNoReply) != 0;
}

Gate::ParseEnd Gate::Parse(Client* client, BatchWriter* writer) noexcept {
  uint8_t* const input = Input(client);
  const size_t received = Received(client);
  ParseEnd end = ParseEnd::kNeedMore;
  while (end == ParseEnd::kNeedMore && received - client->parsed >= sizeof(uint32_t)) {
    const size_t at = client->parsed;
    uint8_t* const bytes = input + at;
    const size_t packet = Word(bytes);
    if (packet < kPacketBytesMin || packet > options_.packet_bytes_max) {
      end = ParseEnd::kBroken;
      break;
    }
    if (received - at < packet) break;
    const uint32_t magic = Word(bytes + kMagicAt);
    if (magic != kPacketMagic || Word(bytes + 8) != kPacketVersion) {
      if (magic != kSettledMagic || at >= client->replay_end) {
        const bool version = magic == kPacketMagic;
        counters_->Add(version ? Counter::kPacketRefusedVersion : Counter::kPacketRefusedMagic);
      }
      std::memcpy(bytes + kMagicAt, &kSettledMagic, sizeof(kSettledMagic));
      client->parsed = at + packet;
      continue;
    }
    const bool large = packet > writer->PayloadMax();
    if (!writer->Fits(large ? 0 : packet) || !client->large.empty()) {
      end = ParseEnd::kBatchFull;
      break;
    }
    if (large) {
      client->large.assign(bytes, bytes + packet);
      writer->Put(InKind::kClientPacketLarge, client->id, nullptr, 0);
      // its memory is to be fetched before the next batch, where anything behind it goes
      end = ParseEnd::kBatchFull;
    } else if (CanWait(bytes, packet)) {
      writer->PutPatient(InKind::kClientPacket, client->id, bytes, packet);
    } else {
      writer->Put(InKind::kClientPacket, client->id, bytes, packet);
    }
    counters_->Add(Counter::kPacketIn);
    AddOpen(client, at, bytes, packet);
    client->parsed = at + packet;
  }
  Forget(client);
  return end;
}

void Gate::AddOpen(Client* client, size_t at, const uint8_t* packet, size_t length) noexcept {
  const bool awaits = WantsAnswer(packet, length);
  client->open.push_back({at, static_cast<uint32_t>(length), Word(packet + kRequestAt), awaits});
  if (awaits) return;
  client->quiet++;
  if (client->touched) return;
  client->touched = true;
  touched_.push_back(client->id);
}

// Marks it for a successor. The caller takes it out of `open`.
void Gate::Settle(Client* client, size_t index) noexcept {
  std::memcpy(Input(client) + client->open[index].at + kMagicAt, &kSettledMagic, sizeof(kSettledMagic));
}

// What is before the oldest packet that is not settled needs no second look.
void Gate::Forget(Client* client) noexcept {
  std::vector<Unsettled>& open = client->open;
  if (client->open_from == open.size()) {
    open.clear();
    client->open_from = 0;
  } else if (client->open_from > 1024 && client->open_from > open.size() / 2) {
    open.erase(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(client->open_from));
    client->open_from = 0;
  }
  KeptTurn& turn = streams_->client(client->slot).input.now();
  turn.from = open.empty() ? client->parsed : open[client->open_from].at;
}

void Gate::EndTurn() noexcept {
  for (uint32_t id : touched_) {
    Client* client = Find(id);
    if (client == nullptr) continue;
    client->touched = false;
    std::vector<Unsettled>& open = client->open;
    // they came last: nearly all of them are at the end
    size_t first = open.size();
    for (size_t left = client->quiet; left > 0 && first > client->open_from;) {
      first--;
      if (open[first].awaits) continue;
      Settle(client, first);
      left--;
    }
    const auto settled = [](const Unsettled& one) { return !one.awaits; };
    open.erase(std::remove_if(open.begin() + static_cast<std::ptrdiff_t>(first), open.end(), settled), open.end());
    client->quiet = 0;
    Forget(client);
  }
  touched_.clear();
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
  CountUnfinished(client, 0);
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
      TakeInput(client, writer);
    } else if (writer->Fits(0)) {
      writer->Put(InKind::kClientClosed, id, nullptr, 0);
      Remove(id);
    } else {
      SetPending(client);
    }
  }
}

std::vector<uint8_t> Gate::TakeLarge(uint32_t id) noexcept {
  Client* client = Find(id);
  return client == nullptr ? std::vector<uint8_t>() : std::exchange(client->large, {});
}

void Gate::Remove(uint32_t id) noexcept {
  Client* client = Find(id);
  // a standby has a duplicate: the other side is to see the end now
  (void)::shutdown(client->fd.get(), SHUT_RDWR);
  standby_.Tell({static_cast<uint32_t>(StandbyKind::kClosed), id, 0, 0}, nullptr, -1);
  streams_->Release(client->slot);
  clients_.erase(id);
}

void Gate::Send(uint32_t id, const uint8_t* packet, size_t length) noexcept {
  Client* client = Find(id);
  if (client == nullptr || client->ended || client->output_broken) {
    counters_->Add(Counter::kPacketOutNobody);
    return;
  }
  KeptClient& kept = streams_->client(client->slot);
  const KeptTurn& now = kept.output.now();
  if (now.end - Sent(now) + length > options_.output_bytes_max) {
    End(client, Counter::kClientClosedOutputOverflow);
    return;
  }
  if (KeptStreams::Capacity(now.area) - now.end < length) MoveOutput(client);
  KeptTurn& turn = kept.output.now();
  std::memcpy(streams_->Area(client->slot, KeptWay::kOutput, turn.area) + turn.end, packet, length);
  size_t answered = client->open.size();
  if (IsAnswer(packet, length)) {
    const uint32_t request = Word(packet + kRequestAt);
    answered = client->open_from;
    while (answered < client->open.size() &&
           !(client->open[answered].awaits && client->open[answered].request == request)) answered++;
  }
  const bool settles = answered < client->open.size();
  if (settles) {
    // killed between the answer and the mark, a successor makes the mark
    kept.settles_at_end = turn.end + length;
    KeptOrder();
    kept.settles = client->open[answered].at + 1;
  }
  KeptOrder();
  __atomic_store_n(&turn.end, turn.end + length, __ATOMIC_RELEASE);
  if (settles) {
    Settle(client, answered);
    KeptOrder();
    kept.settles = 0;
    if (answered == client->open_from) client->open_from++;
    else client->open.erase(client->open.begin() + static_cast<std::ptrdiff_t>(answered));
    Forget(client);
  }
  counters_->Add(Counter::kPacketOut);
  if (!client->dirty) {
    client->dirty = true;
    dirty_.push_back(id);
  }
}

// What is to be written goes to the start of another area.
void Gate::MoveOutput(Client* client) noexcept {
  KeptDirection& output = streams_->client(client->slot).output;
  const KeptTurn old = output.now();
  const size_t pending = old.end - Sent(old);
  const uint64_t area = old.area == 1 ? 2 : 1;
  const uint8_t* from = streams_->Area(client->slot, KeptWay::kOutput, old.area) + Sent(old);
  std::memcpy(streams_->Area(client->slot, KeptWay::kOutput, area), from, pending);
  KeptStreams::Turn(&output, area, 0, 0, pending);
  streams_->Forget(client->slot, KeptWay::kOutput, old.area, old.end);
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
  standby_.Retry();
}

void Gate::Write(Client* client) noexcept {
  KeptDirection& output = streams_->client(client->slot).output;
  while (Sent(output.now()) < output.now().end) {
    const KeptTurn& now = output.now();
    if (now.message.msg_len != 0) KeptStreams::Turn(&output, now.area, 0, Sent(now), now.end);
    KeptTurn& turn = output.now();
    uint8_t* const area = streams_->Area(client->slot, KeptWay::kOutput, turn.area);
    if (KeptStreams::Write(client->fd.get(), &turn, area, turn.end - turn.at) > 0) continue;
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      Watch(client, true);
      return;
    }
    // the peer is gone: what it sent before is still read, and its end is told by the reading side
    client->output_broken = true;
    break;
  }
  const KeptTurn old = output.now();
  if (old.end != 0) {
    KeptStreams::Turn(&output, 0, 0, 0, 0);
    streams_->Forget(client->slot, KeptWay::kOutput, old.area, old.end);
  }
  Watch(client, false);
}

void Gate::Watch(Client* client, bool write) noexcept {
  const KeptTurn& output = streams_->client(client->slot).output.now();
  if (write && Sent(output) > kBufferBytesKept && Sent(output) > output.end / 2) MoveOutput(client);
  if (client->wants_write == write) return;
  client->wants_write = write;
  epoll_event event{};
  event.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = kClientTag | client->id;
  (void)::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, client->fd.get(), &event);
}

std::vector<KeptDescription> Gate::Kept() noexcept {
  std::vector<KeptDescription> all;
  for (const auto& [id, client] : clients_) {
    if (client->adopted) all.push_back({id, streams_->client(client->slot).pid, streams_->State(client->slot)});
  }
  std::sort(all.begin(), all.end(), [](const auto& one, const auto& other) { return one.id < other.id; });
  return all;
}

bool Gate::KeepState(uint32_t id, const uint8_t* state, size_t length) noexcept {
  Client* client = Find(id);
  return client != nullptr && streams_->SetState(client->slot, state, length);
}

void Gate::TellOpened(const Client& client) noexcept {
  const StandbyHeader header{static_cast<uint32_t>(StandbyKind::kOpened), client.id,
                             static_cast<uint32_t>(client.slot), 0};
  standby_.Tell(header, nullptr, client.fd.get());
}

void Gate::SetStandby(UniqueFd link) noexcept {
  standby_.Set(std::move(link));
  if (!standby_.there()) return;
  for (const auto& [id, client] : clients_) TellOpened(*client);
}

}  // namespace smbpool
