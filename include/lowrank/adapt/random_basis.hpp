/// @file
/// Random matrices that are never stored: any element of any of them, on any thread, on host and device.
#pragma once

#include <array>

#include "lowrank/core/rng.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank::adapt {

/// Uniform in (-1, 1), symmetric: an odd multiple of 2^-24. An fp32 number with nothing to round, so that no processor and
/// no contraction of products into sums can make another one of it.
[[nodiscard]] LOWRANK_HD constexpr float symmetric_uniform(std::uint32_t word) noexcept {
  return static_cast<float>(2 * (static_cast<std::int32_t>(word) >> 8) + 1) * 0x1p-24F;
}

/// `count` matrices of one shape with independent elements, uniform in (-1, 1). Every matrix starts on a Philox block of its
/// own, so tiles that begin at multiples of four never share one. What a basis is to be scaled by belongs to the
/// coefficients: the elements stay exact.
struct random_basis {
  rng_key key{};
  index_t count{};
  extents shape{};

  /// Philox blocks of a matrix: four elements each.
  [[nodiscard]] LOWRANK_HD constexpr index_t blocks() const noexcept { return (shape.size() + 3) / 4; }
  /// The block in which element `at` of matrix number `number` lies, counted row by row.
  [[nodiscard]] LOWRANK_HD constexpr std::uint64_t block_of(index_t number, index_t at) const noexcept {
    return static_cast<std::uint64_t>(number * blocks() + at / 4);
  }
  /// Elements at, ..., at + 3 of a matrix; `at` is a multiple of four.
  [[nodiscard]] LOWRANK_HD constexpr std::array<float, 4> four(index_t number, index_t at) const noexcept {
    auto const words = random_block(key, block_of(number, at));
    return {symmetric_uniform(words[0]), symmetric_uniform(words[1]), symmetric_uniform(words[2]),
            symmetric_uniform(words[3])};
  }
  [[nodiscard]] LOWRANK_HD constexpr float element(index_t number, index_t at) const noexcept {
    return symmetric_uniform(
        lowrank::detail::word_of(random_block(key, block_of(number, at)), static_cast<std::uint64_t>(at)));
  }
  /// Elements [first, first + length) of a matrix, one after the other; `first` is a multiple of four.
  LOWRANK_HD constexpr void tile(index_t number, index_t first, index_t length, float* to) const noexcept {
    for (index_t at = 0; at < length; at += 4) {
      auto const part = four(number, first + at);
      to[at] = part[0];
      if (at + 1 < length) to[at + 1] = part[1];
      if (at + 2 < length) to[at + 2] = part[2];
      if (at + 3 < length) to[at + 3] = part[3];
    }
  }
};

}  // namespace lowrank::adapt
