// See standby_link.h.
#include "standby_link.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace smbpool {

namespace {

// A standby on a busy machine may not be scheduled for a while; beyond it messages wait here.
constexpr int kBufferBytes = 1 << 20;

}  // namespace

bool MakeStandbyPair(UniqueFd* one, UniqueFd* other) noexcept {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return false;
  *one = UniqueFd(fds[0]);
  *other = UniqueFd(fds[1]);
  for (int fd : fds) {
    // less is fine
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kBufferBytes, sizeof(kBufferBytes)) != 0) {
      (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBufferBytes, sizeof(kBufferBytes));
    }
  }
  return true;
}

void StandbyLink::Set(UniqueFd link) noexcept {
  link_ = std::move(link);
  kept_.clear();
}

StandbyLink::Sent StandbyLink::Send(const StandbyHeader& header, const uint8_t* payload, int fd) noexcept {
  iovec parts[2] = {{const_cast<StandbyHeader*>(&header), sizeof(header)},
                    {const_cast<uint8_t*>(payload), header.length}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = header.length == 0 ? 1 : 2;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  }
  for (;;) {
    if (::sendmsg(link_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::kDone;
    if (errno == EINTR) continue;
    // too many descriptors on their way is a matter of time, too
    return errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS ? Sent::kLater : Sent::kGone;
  }
}

void StandbyLink::Tell(const StandbyHeader& header, const uint8_t* payload, int fd) noexcept {
  if (!link_.valid()) return;
  Retry();
  if (!link_.valid()) return;
  const Sent sent = kept_.empty() ? Send(header, payload, fd) : Sent::kLater;
  if (sent == Sent::kGone) Set(UniqueFd());
  if (sent != Sent::kLater) return;
  UniqueFd duplicate(fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  kept_.push_back({header, std::vector<uint8_t>(payload, payload + header.length), std::move(duplicate)});
}

void StandbyLink::Retry() noexcept {
  while (!kept_.empty()) {
    const Kept& next = kept_.front();
    const Sent sent = Send(next.header, next.payload.data(), next.fd.get());
    if (sent == Sent::kLater) return;
    if (sent == Sent::kGone) return Set(UniqueFd());
    kept_.pop_front();
  }
}

bool ReceiveFromActive(int link, StandbyHeader* header, std::vector<uint8_t>* payload, UniqueFd* fd,
                       bool* gone) noexcept {
  *gone = false;
  payload->resize(kStandbySayBytesMax);
  iovec parts[2] = {{header, sizeof(*header)}, {payload->data(), payload->size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t count = ::recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); count > 0 && part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int got;
    std::memcpy(&got, CMSG_DATA(part), sizeof(got));
    *fd = UniqueFd(got);
  }
  if (count < static_cast<ssize_t>(sizeof(*header)) ||
      header->length != static_cast<size_t>(count) - sizeof(*header)) {
    *gone = true;
    return false;
  }
  payload->resize(header->length);
  return true;
}

}  // namespace smbpool
