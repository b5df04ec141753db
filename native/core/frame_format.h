// The clear header of a frame between two servers; see docs/protocol.md. It is authenticated but not hidden; the sealed
// body and the seal follow it. Little endian, read and written byte by byte: frames have no alignment.
//
//    0 u32 magic   4 u8 version   5 u8 flags (0)   6 u16 from   8 u16 to   10 u16 length of the whole frame
//   12 u64 incarnation of the sender   20 u64 number, from 1 per receiver and incarnation: the nonce
#pragma once

#include <cstddef>
#include <cstdint>

namespace smbpool {

constexpr uint32_t kFrameMagic = 0x4c504d53;  // "SMPL"
constexpr uint8_t kFrameVersion = 1;
constexpr size_t kFrameHeaderBytes = 28;
constexpr size_t kFrameSealBytes = 16;
constexpr size_t kFrameOverheadBytes = kFrameHeaderBytes + kFrameSealBytes;
// The length field has 16 bits.
constexpr size_t kFrameBytesMax = 65535;
// Numbers and incarnations stay exact in a double of JavaScript.
constexpr uint64_t kNumberMax = (uint64_t{1} << 53) - 1;
// Node ids fit the pool's tables (NODE_COUNT_MAX in src/base/ids.ts).
constexpr size_t kNodesMax = 64;
// A frame is sent on each interface of its sender that leads to the receiver.
constexpr size_t kInterfacesMax = 2;

struct FrameHeader {
  uint32_t magic = kFrameMagic;
  uint8_t version = kFrameVersion;
  uint8_t flags = 0;
  uint16_t from = 0;
  uint16_t to = 0;
  uint16_t length = 0;
  uint64_t incarnation = 0;
  uint64_t number = 0;
};

template <typename T>
inline void PutLittle(uint8_t* at, T value) noexcept {
  for (size_t i = 0; i < sizeof(T); i++) at[i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
}

template <typename T>
inline T GetLittle(const uint8_t* at) noexcept {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); i++) value |= static_cast<uint64_t>(at[i]) << (8 * i);
  return static_cast<T>(value);
}

inline void EncodeFrameHeader(const FrameHeader& header, uint8_t* out) noexcept {
  PutLittle(out, header.magic);
  out[4] = header.version;
  out[5] = header.flags;
  PutLittle(out + 6, header.from);
  PutLittle(out + 8, header.to);
  PutLittle(out + 10, header.length);
  PutLittle(out + 12, header.incarnation);
  PutLittle(out + 20, header.number);
}

inline FrameHeader DecodeFrameHeader(const uint8_t* in) noexcept {
  FrameHeader header;
  header.magic = GetLittle<uint32_t>(in);
  header.version = in[4];
  header.flags = in[5];
  header.from = GetLittle<uint16_t>(in + 6);
  header.to = GetLittle<uint16_t>(in + 8);
  header.length = GetLittle<uint16_t>(in + 10);
  header.incarnation = GetLittle<uint64_t>(in + 12);
  header.number = GetLittle<uint64_t>(in + 20);
  return header;
}

}  // namespace smbpool
