/// @file
/// XXH64: a fast 64-bit checksum with a published definition. Finds accidents, not forgers.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace lowrank::detail {

/// XXH64 of everything given to `add`, however it was cut into pieces.
/// Reference: Collet, "xxHash fast digest algorithm", XXH64 algorithm description, steps 1 to 6.
class xxh64 {
 public:
  explicit xxh64(std::uint64_t seed = 0) noexcept
      : lanes_{seed + prime_1 + prime_2, seed + prime_2, seed, seed - prime_1}, seed_{seed} {}

  void add(std::span<std::byte const> bytes) noexcept {
    total_ += bytes.size();
    if (filled_ != 0) {
      std::size_t const part = std::min(bytes.size(), stripe - filled_);
      if (part != 0) std::memcpy(pending_.data() + filled_, bytes.data(), part);
      filled_ += part;
      bytes = bytes.subspan(part);
      if (filled_ < stripe) return;
      consume(pending_.data());
      filled_ = 0;
    }
    for (; bytes.size() >= stripe; bytes = bytes.subspan(stripe)) consume(bytes.data());
    if (!bytes.empty()) std::memcpy(pending_.data(), bytes.data(), bytes.size());
    filled_ = bytes.size();
  }

  [[nodiscard]] std::uint64_t value() const noexcept {
    std::uint64_t sum = seed_ + prime_5;
    if (total_ >= stripe) {
      sum = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
      for (auto const lane : lanes_) sum = (sum ^ mixed(0, lane)) * prime_1 + prime_4;
    }
    sum += total_;
    std::byte const* p = pending_.data();
    std::size_t left = filled_;
    for (; left >= 8; left -= 8, p += 8)
      sum = std::rotl(sum ^ mixed(0, word<std::uint64_t>(p)), 27) * prime_1 + prime_4;
    for (; left >= 4; left -= 4, p += 4)
      sum = std::rotl(sum ^ word<std::uint32_t>(p) * prime_1, 23) * prime_2 + prime_3;
    for (; left != 0; --left, ++p) sum = std::rotl(sum ^ std::to_integer<std::uint64_t>(*p) * prime_5, 11) * prime_1;
    sum = (sum ^ sum >> 33) * prime_2;
    sum = (sum ^ sum >> 29) * prime_3;
    return sum ^ sum >> 32;
  }

 private:
  static constexpr std::uint64_t prime_1 = 0x9E3779B185EBCA87U, prime_2 = 0xC2B2AE3D27D4EB4FU,
                                 prime_3 = 0x165667B19E3779F9U, prime_4 = 0x85EBCA77C2B2AE63U,
                                 prime_5 = 0x27D4EB2F165667C5U;
  static constexpr std::size_t stripe = 32;

  template <class Word>
  static std::uint64_t word(std::byte const* p) noexcept {
    Word w;
    std::memcpy(&w, p, sizeof w);
    return w;
  }
  static std::uint64_t mixed(std::uint64_t lane, std::uint64_t input) noexcept {
    return std::rotl(lane + input * prime_2, 31) * prime_1;
  }
  void consume(std::byte const* p) noexcept {
    for (std::size_t i = 0; i < 4; ++i) lanes_[i] = mixed(lanes_[i], word<std::uint64_t>(p + 8 * i));
  }

  std::array<std::uint64_t, 4> lanes_;
  std::uint64_t seed_, total_{};
  std::array<std::byte, stripe> pending_{};
  std::size_t filled_{};
};

}  // namespace lowrank::detail
