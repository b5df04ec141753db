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
  // of each interface in the order of enum InterfaceCounter
  kInterface1Sent,
  kInterface1NotSent,
  kInterface1First,
  kInterface1Copies,
  kInterface2Sent,
  kInterface2NotSent,
  kInterface2First,
  kInterface2Copies,
  kRingReplyKept,
  kRingReplyNobody,
  kRingDroppedBacklog,
  kOutRecordRefused,
  kTurns,
  kWakes,
  kCount,
};

// Whose frames were the first of their number here and whose were copies of what another interface had brought.
enum class InterfaceCounter : size_t { kSent, kNotSent, kFirst, kCopies, kCount };

inline constexpr std::array<const char*, static_cast<size_t>(Counter::kCount)> kCounterNames = {
    "socket.client.accepted",
    "socket.client.refused.too-many",
    "socket.client.refused.no-descriptor",
    "socket.client.closed.by-peer",
    "socket.client.closed.by-us",
    "socket.client.closed.length",
    "socket.client.closed.input-memory",
    "socket.client.closed.output-overflow",
    "socket.client.closed.error",
    "socket.packet.in",
    "socket.packet.out",
    "socket.packet.out-nobody",
    "socket.packet.refused.magic",
    "socket.packet.refused.version",
    "interconnect.frames-in",
    "interconnect.frames-out",
    "interconnect.bytes-in",
    "interconnect.bytes-out",
    "interconnect.refused.truncated",
    "interconnect.refused.magic",
    "interconnect.refused.version",
    "interconnect.refused.flags",
    "interconnect.refused.length",
    "interconnect.refused.address",
    "interconnect.refused.sender",
    "interconnect.refused.number",
    "interconnect.refused.incarnation",
    "interconnect.refused.replay",
    "interconnect.refused.seal",
    "interconnect.send.busy",
    "interconnect.send.failed",
    "interconnect.send.too-long",
    "interconnect.send.nobody",
    "interconnect.receive.error",
    "interconnect.ring-dropped",
    "interconnect.peer-address-learnt",
    "interconnect.interface1.sent",
    "interconnect.interface1.not-sent",
    "interconnect.interface1.first",
    "interconnect.interface1.copies",
    "interconnect.interface2.sent",
    "interconnect.interface2.not-sent",
    "interconnect.interface2.first",
    "interconnect.interface2.copies",
    "ring.replies-kept",
    "ring.replies-nobody",
    "ring.dropped.backlog",
    "loop.out-record-refused",
    "loop.batches",
    "loop.wakes",
};

class Counters {
 public:
  void Add(Counter counter, uint64_t by = 1) noexcept { values_[static_cast<size_t>(counter)] += by; }
  void AddOf(size_t interface, InterfaceCounter counter, uint64_t by = 1) noexcept {
    const size_t first = static_cast<size_t>(Counter::kInterface1Sent);
    values_[first + interface * static_cast<size_t>(InterfaceCounter::kCount) + static_cast<size_t>(counter)] += by;
  }
  uint64_t Get(Counter counter) const noexcept { return values_[static_cast<size_t>(counter)]; }

 private:
  std::array<uint64_t, static_cast<size_t>(Counter::kCount)> values_{};
};

}  // namespace smbpool
