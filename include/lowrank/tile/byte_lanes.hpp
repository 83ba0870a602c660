/// @file
/// Tables of 256 numbers that stay in registers, looked up 64 bytes at a time: for the code books of eight bits, on
/// processors that permute bytes. Everybody else reads those tables from memory, one number at a time.
#pragma once

#include "lowrank/tile/int_pack.hpp"

#if LOWRANK_PACK_WIDTH == 16 && defined(__AVX512VBMI__)
#define LOWRANK_HAS_BYTE_LANES 1
#endif

#if defined(LOWRANK_HAS_BYTE_LANES)

namespace lowrank {

/// 256 numbers of 32 bits as four tables, of their lowest to their highest bytes.
struct byte_planes {
  std::array<std::array<std::uint8_t, 256>, 4> plane{};

  explicit constexpr byte_planes(std::array<float, 256> const& numbers) noexcept {
    for (std::size_t i = 0; i < 256; ++i)
      for (std::size_t b = 0; b < 4; ++b)
        plane[b][i] = static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(numbers[i]) >> (8 * b));
  }
};

/// 64 bytes in a register, in an order of their own: four packs of 16 are narrowed to it, and widened from it, within
/// the quarters of registers. Byte 16 l + 4 r + j belongs to lane 4 l + j of pack r.
struct byte_lanes {
  using packs = std::array<pack, 4>;
  using integers = std::array<int_pack, 4>;
  __m512i v;

  /// From 64 bytes as they are stored.
  LOWRANK_INLINE static byte_lanes load(std::uint8_t const* p) noexcept { return {turned(_mm512_loadu_si512(p))}; }
  /// Of numbers of 0 ... 255.
  LOWRANK_INLINE static byte_lanes of(integers const& x) noexcept {
    auto const wide = [&](std::size_t r) { return reinterpret_cast<__m512i const&>(x[r].v); };
    return {_mm512_packus_epi16(_mm512_packus_epi32(wide(0), wide(1)), _mm512_packus_epi32(wide(2), wide(3)))};
  }
  /// Each plus one where `up` is set, which are in the order of memory, as are the bytes that are written.
  LOWRANK_INLINE void store_stepped(std::uint8_t* p, __mmask64 up) const noexcept {
    auto const in_order = turned(v);
    _mm512_storeu_si512(p, _mm512_mask_add_epi8(in_order, up, in_order, _mm512_set1_epi8(1)));
  }
  /// table[byte] for each, in the order of memory.
  [[nodiscard]] LOWRANK_INLINE packs lookup(byte_planes const& table) const noexcept {
    auto const upper_half = _mm512_movepi8_mask(v);
    auto const found = [&](std::size_t b) {
      auto const* const p = table.plane[b].data();
      auto const part = [&](int q) { return _mm512_loadu_si512(p + 64 * q); };
      return _mm512_mask_blend_epi8(upper_half, _mm512_permutex2var_epi8(part(0), v, part(1)),
                                    _mm512_permutex2var_epi8(part(2), v, part(3)));
    };
    auto const a = found(0), b = found(1), c = found(2), d = found(3);
    auto const low = _mm512_unpacklo_epi8(a, b), low_of_high = _mm512_unpackhi_epi8(a, b);
    auto const high = _mm512_unpacklo_epi8(c, d), high_of_high = _mm512_unpackhi_epi8(c, d);
    return {as_pack(_mm512_unpacklo_epi16(low, high)), as_pack(_mm512_unpackhi_epi16(low, high)),
            as_pack(_mm512_unpacklo_epi16(low_of_high, high_of_high)),
            as_pack(_mm512_unpackhi_epi16(low_of_high, high_of_high))};
  }

 private:
  /// Between the two orders, either way.
  LOWRANK_INLINE static __m512i turned(__m512i x) noexcept {
    return _mm512_maskz_permutexvar_epi32(0xFFFF,
                                          _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), x);
  }
  LOWRANK_INLINE static pack as_pack(__m512i x) noexcept { return {_mm512_castsi512_ps(x)}; }
};

/// to[i] = factor * table[p[i]] for `count` bytes, a multiple of 64. Not part of its callers: it is long.
__attribute__((noinline)) inline void scaled_lookup(byte_planes const& table, std::uint8_t const* p, index_t count,
                                                    float factor, pack* to) noexcept {
  for (index_t i = 0; i < count; i += 64) {
    auto const found = byte_lanes::load(p + i).lookup(table);
    for (auto const& x : found) *to++ = pack{factor} * x;
  }
}
/// Where a >= b, of four packs each.
[[nodiscard]] LOWRANK_INLINE __mmask64 not_less(byte_lanes::packs const& a, byte_lanes::packs const& b) noexcept {
  auto const one = [&](std::size_t r) { return __mmask64{_mm512_cmp_ps_mask(a[r].v, b[r].v, _CMP_GE_OQ)}; };
  return one(3) << 48 | one(2) << 32 | one(1) << 16 | one(0);
}

}  // namespace lowrank

#endif
