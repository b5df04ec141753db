// AES-256-GCM under one derived key: seals or opens the bodies of frames from one sender to one receiver in one
// incarnation. Uses the OpenSSL inside the node binary. Never used for both directions: each has its own key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "frame_format.h"

struct evp_cipher_ctx_st;

namespace smbpool {

struct PoolSecret {
  std::vector<uint8_t> name;
  std::vector<uint8_t> key;
};

class FrameSealer {
 public:
  enum class Direction { kSeal, kOpen };

  FrameSealer() noexcept = default;
  FrameSealer(FrameSealer&& other) noexcept : context_(other.context_) { other.context_ = nullptr; }
  FrameSealer& operator=(FrameSealer&& other) noexcept;
  FrameSealer(const FrameSealer&) = delete;
  FrameSealer& operator=(const FrameSealer&) = delete;
  ~FrameSealer();

  // Derives the key for (from, to, incarnation of from). False when OpenSSL refuses.
  bool Prepare(const PoolSecret& secret, uint16_t from, uint16_t to, uint64_t incarnation,
               Direction direction) noexcept;
  bool ready() const noexcept { return context_ != nullptr; }

  // `header` is kFrameHeaderBytes and is authenticated. Writes body_length + kFrameSealBytes to `out`.
  bool Seal(uint64_t number, const uint8_t* header, const uint8_t* body, size_t body_length, uint8_t* out) noexcept;
  // `sealed` is body and seal; writes sealed_length - kFrameSealBytes to `out`, which holds nothing usable on failure.
  bool Open(uint64_t number, const uint8_t* header, const uint8_t* sealed, size_t sealed_length, uint8_t* out) noexcept;

 private:
  evp_cipher_ctx_st* context_ = nullptr;
};

}  // namespace smbpool
