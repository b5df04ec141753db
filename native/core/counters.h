// What happened in the native part, by name: everything refused, dropped or lost is counted here and nowhere else. One
// object per Pump or FrameChannel; read by native/napi, which hands names and numbers to JavaScript.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace smbpool {

enum class Counter : size_t {
  kClientAccepted,
  kClientRefusedTooMany,
  kClientRefusedNoDescriptor,
  kClientClosedByPeer,
  kClientClosedByUs,
  kClientClosedLength,
  kClientClosedInputMemory,
  kClientClosedOutputOverflow,
  kClientClosedError,
  kPacketIn,
  kPacketOut,
  kPacketOutNobody,
  kPacketRefusedMagic,
  kPacketRefusedVersion,
  kFrameIn,
  kFrameOut,
  kFrameBytesIn,
  kFrameBytesOut,
  kFrameRefusedTruncated,
  kFrameRefusedMagic,
  kFrameRefusedVersion,
  kFrameRefusedFlags,
  kFrameRefusedLength,
  kFrameRefusedAddress,
  kFrameRefusedSender,
  kFrameRefusedNumber,
  kFrameRefusedIncarnation,
  kFrameRefusedReplay,
  kFrameRefusedSeal,
  kFrameSendBusy,
  kFrameSendFailed,
  kFrameSendTooLong,
  kFrameSendNobody,
  kFrameReceiveError,
  kFrameRingDropped,
  kPeerAddressLearnt,
  kOutRecordRefused,
  kTurns,
  kCount,
};

inline constexpr std::array<const char*, static_cast<size_t>(Counter::kCount)> kCounterNames = {
    "client.accepted",
    "client.refused.too-many",
    "client.refused.no-descriptor",
    "client.closed.by-peer",
    "client.closed.by-us",
    "client.closed.length",
    "client.closed.input-memory",
    "client.closed.output-overflow",
    "client.closed.error",
    "client.packet.in",
    "client.packet.out",
    "client.packet.out-nobody",
    "client.packet.refused.magic",
    "client.packet.refused.version",
    "frame.in",
    "frame.out",
    "frame.bytes-in",
    "frame.bytes-out",
    "frame.refused.truncated",
    "frame.refused.magic",
    "frame.refused.version",
    "frame.refused.flags",
    "frame.refused.length",
    "frame.refused.address",
    "frame.refused.sender",
    "frame.refused.number",
    "frame.refused.incarnation",
    "frame.refused.replay",
    "frame.refused.seal",
    "frame.send.busy",
    "frame.send.failed",
    "frame.send.too-long",
    "frame.send.nobody",
    "frame.receive.error",
    "frame.ring-dropped",
    "frame.peer-address-learnt",
    "turn.out-record-refused",
    "turn.count",
};

class Counters {
 public:
  void Add(Counter counter, uint64_t by = 1) noexcept { values_[static_cast<size_t>(counter)] += by; }
  uint64_t Get(Counter counter) const noexcept { return values_[static_cast<size_t>(counter)]; }

 private:
  std::array<uint64_t, static_cast<size_t>(Counter::kCount)> values_{};
};

}  // namespace smbpool
