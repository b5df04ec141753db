// See batch.h.
#include "batch.h"

namespace smbpool {

void BatchWriter::Commit(InKind kind, uint32_t id, size_t payload, uint32_t detail) noexcept {
  const uint32_t header[4] = {static_cast<uint32_t>(kind), id, static_cast<uint32_t>(payload), detail};
  static_assert(sizeof(header) == kBatchHeaderBytes);
  std::memcpy(buffer_ + length_, header, sizeof(header));
  length_ += kBatchHeaderBytes + Padded(payload);
}

void BatchWriter::Put(InKind kind, uint32_t id, const uint8_t* payload, size_t length,
                      uint32_t detail) noexcept {
  if (length != 0) std::memcpy(Payload(), payload, length);
  Commit(kind, id, length, detail);
}

void BatchWriter::PutPatient(InKind kind, uint32_t id, const uint8_t* payload, size_t length) noexcept {
  const bool patient = Patient();
  Put(kind, id, payload, length);
  if (patient) patient_length_ = length_;
}

bool BatchReader::Next(OutRecord* record, bool* damaged) noexcept {
  *damaged = false;
  if (at_ >= length_) return false;
  *damaged = true;
  if (length_ - at_ < kBatchHeaderBytes) return false;
  uint32_t header[4];
  std::memcpy(header, buffer_ + at_, sizeof(header));
  const size_t payload = header[2];
  if (payload > length_ - at_ - kBatchHeaderBytes) return false;
  *damaged = false;
  record->kind = header[0];
  record->id = header[1];
  record->detail = header[3];
  record->payload = buffer_ + at_ + kBatchHeaderBytes;
  record->length = payload;
  at_ += kBatchHeaderBytes + BatchWriter::Padded(payload);
  return true;
}

}  // namespace smbpool
