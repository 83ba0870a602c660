/// @file
/// As many 32-bit integers as a pack has floats, and what code tables need of both. Every function here exists for one lane
/// (float, std::int32_t, bool) and for a register of them, so that a formula is written once.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "lowrank/tile/pack.hpp"

namespace lowrank {

template <int Width>
struct integer_pack;

template <>
struct integer_pack<LOWRANK_PACK_WIDTH> {
  static constexpr int width = LOWRANK_PACK_WIDTH;
#if LOWRANK_PACK_WIDTH > 1
  typedef std::int32_t native __attribute__((vector_size(width * sizeof(std::int32_t)), may_alias));  // NOLINT
  typedef std::uint8_t bytes __attribute__((vector_size(width)));                                     // NOLINT
#else
  using native = std::int32_t;
#endif
  native v;

  integer_pack() = default;
  LOWRANK_INLINE integer_pack(native value) noexcept : v(value) {}  // NOLINT(google-explicit-constructor)
#if LOWRANK_PACK_WIDTH > 1
  LOWRANK_INLINE integer_pack(std::int32_t value) noexcept : v(native{} + value) {}  // NOLINT
#endif
  /// From `width` bytes, each a number of 0 ... 255.
  LOWRANK_INLINE static integer_pack load(std::uint8_t const* p) noexcept {
#if LOWRANK_PACK_WIDTH == 16
    auto const wide = _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
    integer_pack out;
    __builtin_memcpy(&out.v, &wide, sizeof out.v);
    return out;
#elif LOWRANK_PACK_WIDTH > 1
    bytes narrow;
    __builtin_memcpy(&narrow, p, sizeof narrow);
    return {__builtin_convertvector(narrow, native)};
#else
    return {*p};
#endif
  }
  /// The lowest byte of each.
  LOWRANK_INLINE void store(std::uint8_t* p) const noexcept {
#if LOWRANK_PACK_WIDTH == 16
    _mm512_mask_cvtepi32_storeu_epi8(p, 0xFFFF, reinterpret_cast<__m512i const&>(v));
#elif LOWRANK_PACK_WIDTH > 1
    auto const narrow = __builtin_convertvector(v, bytes);
    __builtin_memcpy(p, &narrow, sizeof narrow);
#else
    *p = static_cast<std::uint8_t>(v);
#endif
  }
  /// The lowest byte of each of two, one behind the other.
  LOWRANK_INLINE static void store_two(integer_pack a, integer_pack b, std::uint8_t* p) noexcept {
#if LOWRANK_PACK_WIDTH == 16 && defined(__AVX512VBMI__)
    // One instruction for both: the one for each takes as long as three others.
    auto const bytes = _mm512_permutex2var_epi8(
        reinterpret_cast<__m512i&>(a.v), _mm512_loadu_si512(lowest_bytes.data()), reinterpret_cast<__m512i&>(b.v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(bytes));
#else
    a.store(p);
    b.store(p + width);
#endif
  }

  LOWRANK_INLINE friend integer_pack operator+(integer_pack a, integer_pack b) noexcept { return {a.v + b.v}; }
  LOWRANK_INLINE friend integer_pack operator-(integer_pack a, integer_pack b) noexcept { return {a.v - b.v}; }
  LOWRANK_INLINE friend integer_pack operator&(integer_pack a, integer_pack b) noexcept { return {a.v & b.v}; }
  LOWRANK_INLINE friend integer_pack operator|(integer_pack a, integer_pack b) noexcept { return {a.v | b.v}; }
  LOWRANK_INLINE friend integer_pack operator^(integer_pack a, integer_pack b) noexcept { return {a.v ^ b.v}; }
  /// The sign is carried along.
  LOWRANK_INLINE friend integer_pack operator>>(integer_pack a, int bits) noexcept { return {a.v >> bits}; }
  LOWRANK_INLINE friend integer_pack operator<<(integer_pack a, int bits) noexcept { return {a.v << bits}; }

 private:
#if LOWRANK_PACK_WIDTH == 16 && defined(__AVX512VBMI__)
  /// Where in two registers the lowest byte of each lane is.
  static constexpr auto lowest_bytes = [] {
    std::array<std::uint8_t, 64> out{};
    for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<std::uint8_t>(4 * i);
    return out;
  }();
#endif
};

/// Integers beside packs. Plain `std::int32_t` beside floats.
using int_pack = integer_pack<LOWRANK_PACK_WIDTH>;

namespace detail {

template <class Real>
struct lane_of {
  using integer = std::int32_t;
};
template <>
struct lane_of<pack> {
  using integer = int_pack;
};

}  // namespace detail

/// The integers that go with floats or packs.
template <class Real>
using integer_of = typename detail::lane_of<Real>::integer;

// One lane.
[[nodiscard]] LOWRANK_HD constexpr std::int32_t bits_of(float x) noexcept { return std::bit_cast<std::int32_t>(x); }
[[nodiscard]] LOWRANK_HD constexpr float from_bits(std::int32_t x) noexcept { return std::bit_cast<float>(x); }
[[nodiscard]] LOWRANK_HD constexpr std::int32_t truncated(float x) noexcept { return static_cast<std::int32_t>(x); }
[[nodiscard]] LOWRANK_HD constexpr float as_real(std::int32_t x) noexcept { return static_cast<float>(x); }
template <class T>
[[nodiscard]] LOWRANK_HD constexpr T smaller(T a, T b) noexcept {
  return a < b ? a : b;
}
template <class T>
[[nodiscard]] LOWRANK_HD constexpr T larger(T a, T b) noexcept {
  return a > b ? a : b;
}
template <class T>
[[nodiscard]] LOWRANK_HD constexpr bool less(T a, T b) noexcept {
  return a < b;
}
template <class T>
[[nodiscard]] LOWRANK_HD constexpr T select(bool holds, T a, T b) noexcept {
  return holds ? a : b;
}
/// All ones where it holds, else 0.
[[nodiscard]] LOWRANK_HD constexpr std::int32_t as_mask(bool holds) noexcept { return holds ? -1 : 0; }
/// For a number of which only the lowest byte is wanted. A register of them drops the rest when it is stored.
[[nodiscard]] LOWRANK_HD constexpr std::int32_t low_byte(std::int32_t x) noexcept { return x & 0xFF; }
/// table[at - first]. Wide arithmetic, so that a device adds `first` once, to the address of the table.
[[nodiscard]] LOWRANK_HD constexpr std::int32_t lookup(std::int32_t const* table, std::int32_t at,
                                                       std::int32_t first) noexcept {
  return table[std::int64_t{at} - first];
}
[[nodiscard]] LOWRANK_HD constexpr float lookup_16(float const* table, std::int32_t at) noexcept { return table[at]; }

// A register of lanes. What holds is all ones there, what does not all zeros.
[[nodiscard]] LOWRANK_INLINE int_pack bits_of(pack x) noexcept {
  int_pack out;
  __builtin_memcpy(&out.v, &x.v, sizeof out.v);
  return out;
}
[[nodiscard]] LOWRANK_INLINE pack from_bits(int_pack x) noexcept {
  pack out;
  __builtin_memcpy(&out.v, &x.v, sizeof out.v);
  return out;
}
#if LOWRANK_PACK_WIDTH > 1
[[nodiscard]] LOWRANK_INLINE int_pack truncated(pack x) noexcept {
  return {__builtin_convertvector(x.v, int_pack::native)};
}
[[nodiscard]] LOWRANK_INLINE pack as_real(int_pack x) noexcept { return {__builtin_convertvector(x.v, pack::native)}; }
[[nodiscard]] LOWRANK_INLINE int_pack less(pack a, pack b) noexcept { return {a.v < b.v}; }
[[nodiscard]] LOWRANK_INLINE int_pack less(int_pack a, int_pack b) noexcept { return {a.v < b.v}; }
[[nodiscard]] LOWRANK_INLINE pack select(int_pack holds, pack a, pack b) noexcept { return {holds.v != 0 ? a.v : b.v}; }
[[nodiscard]] LOWRANK_INLINE int_pack select(int_pack holds, int_pack a, int_pack b) noexcept {
  return {holds.v != 0 ? a.v : b.v};
}
#else
[[nodiscard]] LOWRANK_INLINE int_pack truncated(pack x) noexcept { return {static_cast<std::int32_t>(x.v)}; }
[[nodiscard]] LOWRANK_INLINE pack as_real(int_pack x) noexcept { return {static_cast<float>(x.v)}; }
[[nodiscard]] LOWRANK_INLINE int_pack less(pack a, pack b) noexcept { return {-std::int32_t{a.v < b.v}}; }
[[nodiscard]] LOWRANK_INLINE int_pack less(int_pack a, int_pack b) noexcept { return {-std::int32_t{a.v < b.v}}; }
[[nodiscard]] LOWRANK_INLINE pack select(int_pack holds, pack a, pack b) noexcept { return holds.v != 0 ? a : b; }
[[nodiscard]] LOWRANK_INLINE int_pack select(int_pack holds, int_pack a, int_pack b) noexcept {
  return holds.v != 0 ? a : b;
}
#endif
[[nodiscard]] LOWRANK_INLINE int_pack smaller(int_pack a, int_pack b) noexcept { return select(less(a, b), a, b); }
[[nodiscard]] LOWRANK_INLINE int_pack larger(int_pack a, int_pack b) noexcept { return select(less(b, a), a, b); }
[[nodiscard]] LOWRANK_INLINE int_pack as_mask(int_pack holds) noexcept { return holds; }
[[nodiscard]] LOWRANK_INLINE int_pack low_byte(int_pack x) noexcept { return x; }
[[nodiscard]] LOWRANK_INLINE int_pack lookup(std::int32_t const* table, int_pack at, std::int32_t first) noexcept {
  at = at - int_pack{first};
  int_pack out;
#if LOWRANK_PACK_WIDTH == 16
  auto const found =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xFFFF, reinterpret_cast<__m512i&>(at.v), table, 4);
  __builtin_memcpy(&out.v, &found, sizeof out.v);
#elif LOWRANK_PACK_WIDTH == 8 && defined(__AVX2__)
  auto const found = _mm256_i32gather_epi32(table, reinterpret_cast<__m256i&>(at.v), 4);
  __builtin_memcpy(&out.v, &found, sizeof out.v);
#else
  std::array<std::int32_t, int_pack::width> index, found;
  __builtin_memcpy(index.data(), &at.v, sizeof index);
  for (std::size_t i = 0; i < index.size(); ++i) found[i] = table[index[i]];
  __builtin_memcpy(&out.v, found.data(), sizeof out.v);
#endif
  return out;
}
/// In a table of 16.
[[nodiscard]] LOWRANK_INLINE pack lookup_16(float const* table, int_pack at) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i&>(at.v), _mm512_loadu_ps(table))};
#elif LOWRANK_PACK_WIDTH == 8 && defined(__AVX2__)
  auto const index = reinterpret_cast<__m256i&>(at.v);
  auto const low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index),
             high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
  return {_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)))};
#else
  std::array<std::int32_t, int_pack::width> index;
  std::array<float, int_pack::width> found;
  __builtin_memcpy(index.data(), &at.v, sizeof index);
  for (std::size_t i = 0; i < index.size(); ++i) found[i] = table[index[i]];
  return pack::load(found.data());
#endif
}

}  // namespace lowrank
