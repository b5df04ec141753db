// See frame_channel.h.
#include "frame_channel.h"

#include <openssl/crypto.h>

#include <utility>

namespace smbpool {

struct FrameChannel::Peer {
  uint16_t id = 0;
  FrameSealer sealer;
  uint64_t number_sent = 0;
  FrameSealer opener;
  uint64_t incarnation = 0;
  // of what was opened
  ReplayWindow window;
  // of what came by each interface, opened or not: a number counts once on each
  std::array<ReplayWindow, kInterfacesMax> arrived;
};

bool FrameChannel::Valid(const ChannelOptions& options) noexcept {
  if (options.self >= kNodesMax || options.secret.key.empty()) return false;
  if (options.incarnation == 0 || options.incarnation > kNumberMax) return false;
  for (uint16_t member : options.members) {
    if (member >= kNodesMax) return false;
  }
  return true;
}

FrameChannel::FrameChannel(ChannelOptions options, Counters* counters) noexcept
    : options_(std::move(options)), counters_(counters) {
  for (uint16_t member : options_.members) {
    if (member == options_.self) continue;
    auto peer = std::make_unique<Peer>();
    peer->id = member;
    peers_[member] = std::move(peer);
  }
}

FrameChannel::~FrameChannel() { OPENSSL_cleanse(options_.secret.key.data(), options_.secret.key.size()); }

size_t FrameChannel::Seal(uint16_t peer_id, const uint8_t* body, size_t body_length, uint8_t* out) noexcept {
  Peer* peer = Find(peer_id);
  if (peer == nullptr) {
    counters_->Add(Counter::kFrameSendNobody);
    return 0;
  }
  const size_t length = body_length + kFrameOverheadBytes;
  if (body_length == 0 || length > kFrameBytesMax) {
    counters_->Add(Counter::kFrameSendTooLong);
    return 0;
  }
  if (!peer->sealer.ready() && !peer->sealer.Prepare(options_.secret, options_.self, peer_id, options_.incarnation,
                                                     FrameSealer::Direction::kSeal)) {
    counters_->Add(Counter::kFrameSendFailed);
    return 0;
  }
  FrameHeader header;
  header.from = options_.self;
  header.to = peer_id;
  header.length = static_cast<uint16_t>(length);
  header.incarnation = options_.incarnation;
  header.number = ++peer->number_sent;
  EncodeFrameHeader(header, out);
  if (!peer->sealer.Seal(header.number, out, body, body_length, out + kFrameHeaderBytes)) {
    counters_->Add(Counter::kFrameSendFailed);
    return 0;
  }
  return length;
}

FrameResult FrameChannel::Open(const uint8_t* frame, size_t length, size_t interface, uint8_t* out,
                               OpenedFrame* opened) noexcept {
  if (length < kFrameOverheadBytes) return Refuse(Counter::kFrameRefusedTruncated);
  const FrameHeader header = DecodeFrameHeader(frame);
  if (header.magic != kFrameMagic) return Refuse(Counter::kFrameRefusedMagic);
  if (header.version != kFrameVersion) return Refuse(Counter::kFrameRefusedVersion);
  if (header.flags != 0) return Refuse(Counter::kFrameRefusedFlags);
  // not below the overhead: an empty body is never sent either
  if (header.length <= kFrameOverheadBytes || header.length > length) return Refuse(Counter::kFrameRefusedLength);
  if (header.to != options_.self) return Refuse(Counter::kFrameRefusedAddress);
  Peer* peer = Find(header.from);
  if (peer == nullptr) return Refuse(Counter::kFrameRefusedSender);
  if (header.incarnation == 0 || header.incarnation > kNumberMax || header.number == 0 || header.number > kNumberMax) {
    return Refuse(Counter::kFrameRefusedNumber);
  }
  if (header.incarnation < peer->incarnation) return Refuse(Counter::kFrameRefusedIncarnation);

  opened->is_new_run = header.incarnation != peer->incarnation;
  const uint8_t* sealed = frame + kFrameHeaderBytes;
  const size_t sealed_length = header.length - kFrameHeaderBytes;
  if (!opened->is_new_run) {
    ReplayWindow& arrived = peer->arrived[interface];
    if (!arrived.Fresh(header.number)) return Refuse(Counter::kFrameRefusedReplay);
    if (!peer->window.Fresh(header.number)) {
      // whoever forges such a header spoils the proof that this interface works, and nothing else
      arrived.Mark(header.number);
      opened->from = header.from;
      return FrameResult::kCopy;
    }
    if (!peer->opener.Open(header.number, frame, sealed, sealed_length, out)) return Refuse(Counter::kFrameRefusedSeal);
  } else {
    // a new run of the peer, or somebody who claims to be one: nothing changes before a frame opened under the new key
    FrameSealer opener;
    if (!opener.Prepare(options_.secret, header.from, options_.self, header.incarnation,
                        FrameSealer::Direction::kOpen) ||
        !opener.Open(header.number, frame, sealed, sealed_length, out)) {
      return Refuse(Counter::kFrameRefusedSeal);
    }
    peer->opener = std::move(opener);
    peer->incarnation = header.incarnation;
    peer->window.Reset();
    for (ReplayWindow& arrived : peer->arrived) arrived.Reset();
  }
  peer->window.Mark(header.number);
  peer->arrived[interface].Mark(header.number);
  opened->from = header.from;
  opened->incarnation = header.incarnation;
  opened->body_length = sealed_length - kFrameSealBytes;
  return FrameResult::kFirst;
}

bool FrameChannel::Verify(const uint8_t* frame, uint8_t* out) noexcept {
  const FrameHeader header = DecodeFrameHeader(frame);
  Peer* peer = Find(header.from);
  if (peer != nullptr && peer->opener.Open(header.number, frame, frame + kFrameHeaderBytes,
                                           header.length - kFrameHeaderBytes, out)) {
    return true;
  }
  counters_->Add(Counter::kFrameRefusedSeal);
  return false;
}

uint64_t FrameChannel::PeerIncarnation(uint16_t id) const noexcept {
  return id < peers_.size() && peers_[id] != nullptr ? peers_[id]->incarnation : 0;
}

}  // namespace smbpool
