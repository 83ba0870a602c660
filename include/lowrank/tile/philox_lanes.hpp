/// @file
/// Philox on many counters at once, for tiles that need a random number for every element.
#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "lowrank/core/rng.hpp"
#include "lowrank/tile/pack.hpp"

namespace lowrank {

namespace detail {

#if LOWRANK_PACK_WIDTH == 16
struct wide_words {
  static constexpr std::size_t count = 8, together = 4;
  __m512i v;  ///< the lower halves count; what is in the upper ones is never looked at

  LOWRANK_INLINE static wide_words of(std::uint32_t x) noexcept { return {_mm512_set1_epi64(x)}; }
  /// first, first + 1 ...
  LOWRANK_INLINE static wide_words from(std::uint64_t first) noexcept {
    return {_mm512_add_epi64(_mm512_set1_epi64(static_cast<std::int64_t>(first)),
                             _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0))};
  }
  LOWRANK_INLINE friend wide_words operator*(wide_words a, wide_words b) noexcept {
    return {_mm512_maskz_mul_epu32(0xFF, a.v, b.v)};
  }
  LOWRANK_INLINE friend wide_words operator^(wide_words a, wide_words b) noexcept {
    return {_mm512_xor_si512(a.v, b.v)};
  }
  [[nodiscard]] LOWRANK_INLINE wide_words upper() const noexcept { return {_mm512_maskz_srli_epi64(0xFF, v, 32)}; }
  /// Lower half of a, of b: neighbours in memory.
  LOWRANK_INLINE friend wide_words pair_of(wide_words a, wide_words b) noexcept {
    return {_mm512_mask_blend_epi32(0xAAAA, a.v, _mm512_maskz_slli_epi64(0xFF, b.v, 32))};
  }
  /// a[0], b[0], a[1], b[1] ...
  LOWRANK_INLINE friend void store_in_turns(wide_words a, wide_words b, std::uint32_t* p) noexcept {
    __m512i const low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    _mm512_storeu_si512(p, _mm512_permutex2var_epi64(a.v, low, b.v));
    _mm512_storeu_si512(p + 16, _mm512_permutex2var_epi64(a.v, high, b.v));
  }
};
#elif LOWRANK_PACK_WIDTH == 8 && defined(__AVX2__)
struct wide_words {
  static constexpr std::size_t count = 4, together = 2;
  __m256i v;

  LOWRANK_INLINE static wide_words of(std::uint32_t x) noexcept { return {_mm256_set1_epi64x(x)}; }
  LOWRANK_INLINE static wide_words from(std::uint64_t first) noexcept {
    return {_mm256_add_epi64(_mm256_set1_epi64x(static_cast<std::int64_t>(first)), _mm256_set_epi64x(3, 2, 1, 0))};
  }
  LOWRANK_INLINE friend wide_words operator*(wide_words a, wide_words b) noexcept {
    return {_mm256_mul_epu32(a.v, b.v)};
  }
  LOWRANK_INLINE friend wide_words operator^(wide_words a, wide_words b) noexcept {
    return {_mm256_xor_si256(a.v, b.v)};
  }
  [[nodiscard]] LOWRANK_INLINE wide_words upper() const noexcept { return {_mm256_srli_epi64(v, 32)}; }
  LOWRANK_INLINE friend wide_words pair_of(wide_words a, wide_words b) noexcept {
    return {_mm256_blend_epi32(a.v, _mm256_slli_epi64(b.v, 32), 0xAA)};
  }
  LOWRANK_INLINE friend void store_in_turns(wide_words a, wide_words b, std::uint32_t* p) noexcept {
    __m256i const low = _mm256_unpacklo_epi64(a.v, b.v), high = _mm256_unpackhi_epi64(a.v, b.v);
    auto* const to = reinterpret_cast<__m256i*>(p);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
  }
};
#else
struct wide_words {
  static constexpr std::size_t count = 1, together = 1;
  std::uint64_t v;

  LOWRANK_INLINE static wide_words of(std::uint32_t x) noexcept { return {x}; }
  LOWRANK_INLINE static wide_words from(std::uint64_t first) noexcept { return {first}; }
  LOWRANK_INLINE friend wide_words operator*(wide_words a, wide_words b) noexcept {
    return {(a.v & 0xFFFFFFFFU) * (b.v & 0xFFFFFFFFU)};
  }
  LOWRANK_INLINE friend wide_words operator^(wide_words a, wide_words b) noexcept { return {a.v ^ b.v}; }
  [[nodiscard]] LOWRANK_INLINE wide_words upper() const noexcept { return {v >> 32}; }
  LOWRANK_INLINE friend wide_words pair_of(wide_words a, wide_words b) noexcept {
    return {std::bit_cast<std::uint64_t>(std::array{static_cast<std::uint32_t>(a.v), static_cast<std::uint32_t>(b.v)})};
  }
  LOWRANK_INLINE friend void store_in_turns(wide_words a, wide_words b, std::uint32_t* p) noexcept {
    __builtin_memcpy(p, &a.v, sizeof a.v);
    __builtin_memcpy(p + 2, &b.v, sizeof b.v);
  }
};
#endif

/// A round on each of the counters, and the keys of the next one.
template <std::size_t Groups>
LOWRANK_INLINE void philox_round(std::array<std::array<wide_words, 4>, Groups>& c,
                                 std::array<std::uint32_t, 2>& k) noexcept {
  auto const k0 = wide_words::of(k[0]), k1 = wide_words::of(k[1]);
  for (auto& v : c) {
    auto const x = wide_words::of(0xD2511F53U) * v[0], y = wide_words::of(0xCD9E8D57U) * v[2];
    v = {y.upper() ^ v[1] ^ k0, y, x.upper() ^ v[3] ^ k1, x};
  }
  k[0] += 0x9E3779B9U;
  k[1] += 0xBB67AE85U;
}

}  // namespace detail

/// Words 4 first ... 4 (first + Count) - 1 of the stream: `random_block(key, first)` and the Count - 1 after it.
template <std::size_t Count>
LOWRANK_HD inline void random_words(rng_key const& key, std::uint64_t first,
                                    std::array<std::uint32_t, 4 * Count>& words) noexcept {
  using detail::wide_words;
  constexpr std::size_t lanes = wide_words::count;
  // Several groups of lanes at once, because each round waits for the one before.
  constexpr std::size_t groups = Count % (lanes * wide_words::together) == 0 ? wide_words::together : 1;
  static_assert(Count % lanes == 0);
  auto const stream = key.subsequence();
  auto const low = wide_words::of(static_cast<std::uint32_t>(stream)),
             high = wide_words::of(static_cast<std::uint32_t>(stream >> 32));
  for (std::size_t b = 0; b < Count; b += lanes * groups) {
    std::array<std::array<wide_words, 4>, groups> c;
    for (std::size_t g = 0; g < groups; ++g) {
      auto const counter = wide_words::from(first + b + g * lanes);
      c[g] = {counter, counter.upper(), low, high};
    }
    std::array<std::uint32_t, 2> k{static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)};
    // Five in a turn of the loop, at whose end compilers move as many registers as a round computes.
    for (int turn = 0; turn < 2; ++turn) {
      detail::philox_round(c, k);
      detail::philox_round(c, k);
      detail::philox_round(c, k);
      detail::philox_round(c, k);
      detail::philox_round(c, k);
    }
    for (std::size_t g = 0; g < groups; ++g)
      store_in_turns(pair_of(c[g][0], c[g][1]), pair_of(c[g][2], c[g][3]), words.data() + 4 * (b + g * lanes));
  }
}

}  // namespace lowrank
