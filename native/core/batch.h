// The two fixed buffers that cross between native code and JavaScript once per loop turn: records of
//   {u32 kind, u32 id, u32 length, u32 detail, payload, padding to 8}
// in the byte order of the machine. Mirrored in src/host/batch.ts. Full is not an error: what does not fit waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace smbpool {

constexpr size_t kBatchHeaderBytes = 16;

// From native to JavaScript.
enum class InKind : uint32_t {
  kClientOpened = 1,  // payload: u32 pid, u32 uid, u32 gid, u32 zero
  kClientPacket = 2,
  kClientClosed = 3,
  // a packet larger than the buffer: fetched with Pump.takeLarge(id) while this record is handled
  kClientPacketLarge = 4,
  kFrame = 5,  // id: the peer; payload: u64 incarnation, body
  kRingAttached = 6,  // id: the attachment; detail: its pid
  kRingMessage = 7,   // detail: enum smbpool_op; payload: as in native/shared/smbpool_ops.h
  kRingDetached = 8,  // detail: RingEnd
};

// From JavaScript to native.
enum class OutKind : uint32_t {
  kClientPacket = 1,
  kClientClose = 2,
  kFrame = 3,  // id: the peer; payload: body
  kRingReply = 4,   // id: the attachment; detail: enum smbpool_op; payload: as in native/shared/smbpool_ops.h
  kHomeAdd = 5,     // detail: enum smbpool_home_kind; payload: the key
  kHomeRemove = 6,  // as kHomeAdd
  kLatency = 7,     // id: enum smbpool_histogram; detail: microseconds
  kRingEnd = 8,     // id: the attachment; kRingDetached follows
};

class BatchWriter {
 public:
  // `length`: what is in the buffer already and waits for company.
  BatchWriter(uint8_t* buffer, size_t capacity, size_t length = 0) noexcept
      : buffer_(buffer), capacity_(capacity), length_(length), patient_length_(length) {}

  size_t length() const noexcept { return length_; }
  size_t capacity() const noexcept { return capacity_; }
  // Whether all that was written can wait.
  bool Patient() const noexcept { return length_ == patient_length_; }
  bool Fits(size_t payload) const noexcept {
    return payload <= capacity_ && length_ + kBatchHeaderBytes + Padded(payload) <= capacity_;
  }
  // The largest payload that fits an empty buffer.
  size_t PayloadMax() const noexcept { return capacity_ - kBatchHeaderBytes - 8; }

  // Where to write the payload of the next record; only when it Fits.
  uint8_t* Payload() noexcept { return buffer_ + length_ + kBatchHeaderBytes; }
  // Finishes the record whose payload was written at Payload().
  void Commit(InKind kind, uint32_t id, size_t payload, uint32_t detail = 0) noexcept;
  void Put(InKind kind, uint32_t id, const uint8_t* payload, size_t length, uint32_t detail = 0) noexcept;
  // A record that can wait for company.
  void PutPatient(InKind kind, uint32_t id, const uint8_t* payload, size_t length) noexcept;

  static size_t Padded(size_t length) noexcept { return (length + 7) & ~size_t{7}; }

 private:
  uint8_t* buffer_;
  size_t capacity_;
  size_t length_;
  // where the records that can wait end, as long as there are no others
  size_t patient_length_;
};

struct OutRecord {
  uint32_t kind = 0;
  uint32_t id = 0;
  uint32_t detail = 0;
  const uint8_t* payload = nullptr;
  size_t length = 0;
};

class BatchReader {
 public:
  BatchReader(const uint8_t* buffer, size_t length) noexcept : buffer_(buffer), length_(length) {}
  // False at the end; `*damaged` when what remains is no whole record.
  bool Next(OutRecord* record, bool* damaged) noexcept;

 private:
  const uint8_t* buffer_;
  size_t length_;
  size_t at_ = 0;
};

}  // namespace smbpool
