// Remembers which frame numbers of one sender were accepted, so that none is accepted twice: a sliding bitmap as in
// IPsec.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace smbpool {

// Frames that overtake each other by more are refused; the two interfaces of a server never differ so far, and the link
// layer never has more than 64 frames to a peer under way.
constexpr uint64_t kReplayWindowFrames = 1024;

class ReplayWindow {
 public:
  void Reset() noexcept {
    newest_ = 0;
    seen_.fill(0);
  }

  // Whether `number` could be accepted: neither seen nor older than the window. 0 never is.
  bool Fresh(uint64_t number) const noexcept {
    if (number == 0) return false;
    if (number > newest_) return true;
    if (newest_ - number >= kReplayWindowFrames) return false;
    return (Word(number) & Bit(number)) == 0;
  }

  // Only for a number that is Fresh and whose frame is authentic.
  void Mark(uint64_t number) noexcept {
    if (number > newest_) {
      if (number - newest_ >= kReplayWindowFrames) {
        seen_.fill(0);
      } else {
        for (uint64_t passed = newest_ + 1; passed < number; passed++) Word(passed) &= ~Bit(passed);
      }
      newest_ = number;
    }
    Word(number) |= Bit(number);
  }

 private:
  static uint64_t Bit(uint64_t number) noexcept { return uint64_t{1} << (number % 64); }
  uint64_t& Word(uint64_t number) noexcept { return seen_[(number / 64) % seen_.size()]; }
  const uint64_t& Word(uint64_t number) const noexcept { return seen_[(number / 64) % seen_.size()]; }

  uint64_t newest_ = 0;
  std::array<uint64_t, kReplayWindowFrames / 64> seen_{};
};

}  // namespace smbpool
