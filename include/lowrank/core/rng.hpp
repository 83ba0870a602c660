/// @file
/// Randomness is a value: a key and an element number give a random word, on any thread, host or device.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "lowrank/core/config.hpp"

namespace lowrank {

using philox_block = std::array<std::uint32_t, 4>;

namespace detail {

/// a b. On a device in one instruction, which its compilers do not find by themselves.
[[nodiscard]] LOWRANK_HD constexpr std::uint64_t wide_product(std::uint32_t a, std::uint32_t b) noexcept {
#if defined(LOWRANK_DEVICE_PASS)
  if (!std::is_constant_evaluated()) {
    std::uint64_t out;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(out) : "r"(a), "r"(b));
    return out;
  }
#endif
  return std::uint64_t{a} * b;
}

}  // namespace detail

/// Philox4x32 with 10 rounds.
/// Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11), section 3.3.
[[nodiscard]] LOWRANK_HD constexpr philox_block philox4x32_10(philox_block counter,
                                                              std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = detail::wide_product(0xD2511F53U, counter[0]);
    std::uint64_t const b = detail::wide_product(0xCD9E8D57U, counter[2]);
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// What a stream of random numbers is for. Streams of one (seed, step, tensor) never meet.
enum class rng_purpose : std::uint8_t {
  basis = 1,
  rounding = 2,
  sketch = 3,
  dropout = 4,
  initialisation = 5,
  completion = 6,
  data = 7,
  probe = 8
};

/// Names one stream. Equal to cuRAND's generator `curand_init(seed, subsequence, 0)`, so 2^66 words a stream.
struct rng_key {
  std::uint64_t seed{};
  std::uint32_t step{}, tensor{};  ///< tensor < 2^24
  rng_purpose purpose{rng_purpose::basis};

  [[nodiscard]] LOWRANK_HD constexpr std::uint64_t subsequence() const noexcept {
    return std::uint64_t{static_cast<std::uint8_t>(purpose)} << 56 | std::uint64_t{tensor & 0xFFFFFFU} << 32 | step;
  }
  /// The stream of a later step.
  [[nodiscard]] LOWRANK_HD constexpr rng_key later(std::uint32_t steps) const noexcept {
    return {seed, step + steps, tensor, purpose};
  }
  friend constexpr bool operator==(rng_key const&, rng_key const&) = default;
};

/// Words 4 block ... 4 block + 3 of cuRAND's Philox stream (seed, subsequence).
[[nodiscard]] LOWRANK_HD constexpr philox_block random_block(std::uint64_t seed, std::uint64_t subsequence,
                                                             std::uint64_t block) noexcept {
  return philox4x32_10({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                        static_cast<std::uint32_t>(subsequence), static_cast<std::uint32_t>(subsequence >> 32)},
                       {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}
[[nodiscard]] LOWRANK_HD constexpr philox_block random_block(rng_key const& key, std::uint64_t block) noexcept {
  return random_block(key.seed, key.subsequence(), block);
}

namespace detail {

/// Word `index % 4` of a block. Not by address: on a device a block that is indexed would have to lie in memory.
[[nodiscard]] LOWRANK_HD constexpr std::uint32_t word_of(philox_block const& words, std::uint64_t index) noexcept {
  std::uint32_t const low = index % 2 == 0 ? words[0] : words[1], high = index % 2 == 0 ? words[2] : words[3];
  return index % 4 < 2 ? low : high;
}

}  // namespace detail

/// Word number `element` of the stream.
[[nodiscard]] LOWRANK_HD constexpr std::uint32_t random_word(rng_key const& key, std::uint64_t element) noexcept {
  return detail::word_of(random_block(key, element / 4), element);
}

/// 16 random bits for element `element`: eight elements share a block.
[[nodiscard]] LOWRANK_HD constexpr std::uint32_t random_16(rng_key const& key, std::uint64_t element) noexcept {
  return detail::word_of(random_block(key, element / 8), element / 2) >> (element % 2 * 16) & 0xFFFFU;
}

/// Uniform in (0, 1], as cuRAND maps a word; never 0, so its logarithm exists.
[[nodiscard]] LOWRANK_HD constexpr double uniform_01(std::uint32_t word) noexcept {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}
/// Uniform in (0, 1] for element `element`.
[[nodiscard]] LOWRANK_HD constexpr double uniform(rng_key const& key, std::uint64_t element) noexcept {
  return uniform_01(random_word(key, element));
}

/// +1 or -1 for element `element`: 128 elements share a block. Exact in every float format.
[[nodiscard]] LOWRANK_HD constexpr float rademacher(rng_key const& key, std::uint64_t element) noexcept {
  auto const word = detail::word_of(random_block(key, element / 128), element / 32);
  return (word >> (element % 32) & 1U) != 0 ? 1.0F : -1.0F;
}

/// Four standard normal numbers from one block, in cuRAND's order: (radius word, angle word) -> sin, cos, twice.
[[nodiscard]] inline std::array<float, 4> gaussian_block(philox_block const& words) noexcept {
  std::array<float, 4> out{};
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    double const radius = std::sqrt(-2.0 * std::log(uniform_01(words[pair])));
    double const angle = 6.283185307179586476925 * uniform_01(words[pair + 1]);
    out[pair] = static_cast<float>(radius * std::sin(angle));
    out[pair + 1] = static_cast<float>(radius * std::cos(angle));
  }
  return out;
}
/// Standard normal for element `element`. Same bits for any thread count; across C libraries equal to rounding.
[[nodiscard]] inline float gaussian(rng_key const& key, std::uint64_t element) noexcept {
  return gaussian_block(random_block(key, element / 4))[element % 4];
}

}  // namespace lowrank
