/// @file
/// The dynamic 8-bit maps on 64 numbers at once: the same codes as `dynamic8_cells` finds, without a look at memory for each.
#pragma once

#include "lowrank/quant/detail/dynamic_cells.hpp"
#include "lowrank/tile/byte_lanes.hpp"

#if defined(LOWRANK_HAS_BYTE_LANES)

namespace lowrank::detail {

/// What a line says about the entries of a decade: which one a magnitude belongs to, a half of an entry too low.
struct decade_line {
  float slope, at_zero;
};
/// Decades of a dynamic map, the lowest first. Entries lie five times less dense from one to the next, so the line of a
/// decade is the lowest of all in it, and beyond its ends another one is.
template <signedness Sign>
[[nodiscard]] constexpr std::array<decade_line, 7> make_decade_lines() noexcept {
  std::array<decade_line, 7> out{};
  double top = 1;
  for (std::size_t d = 7; d-- > 0; top /= 10) {
    double const n = Sign == signedness::with_sign ? 1 << d : 2 << d;
    double const first = Sign == signedness::with_sign ? n : n - 1;  // the entry at a tenth of `top`
    double const slope = n / (0.9 * top);
    out[d] = {static_cast<float>(slope), static_cast<float>(first - slope * top / 10 - 0.5)};
  }
  return out;
}

/// Smallest numbers that go to the code above, for each code; the last one is infinite.
template <tie_rule Ties>
[[nodiscard]] constexpr std::array<float, 256> signed_thresholds() noexcept {
  std::array<float, 256> out{};
  auto const& above = Ties == tie_rule::up ? dynamic8_signed_book.from_tie : dynamic8_signed_book.above_tie;
  // A tie goes to the lower code, which is the larger magnitude of a negative number.
  auto const& below = Ties == tie_rule::up ? dynamic8_signed_book.above_tie : dynamic8_signed_book.from_tie;
  for (std::size_t c = 0; c < 127; ++c) out[c] = -from_bits(bits_of(below[126 - c]) - 1);
  for (std::size_t c = 127; c < 256; ++c) out[c] = above[c - 127];
  return out;
}
template <tie_rule Ties>
[[nodiscard]] constexpr std::array<float, 256> unsigned_thresholds() noexcept {
  return Ties == tie_rule::up ? dynamic8_unsigned_book.from_tie : dynamic8_unsigned_book.above_tie;
}

/// The entry of the lines for a magnitude of 0 ... 1, more or less, as a whole number and a fraction.
template <signedness Sign>
[[nodiscard]] LOWRANK_INLINE pack near_entry(pack magnitude) noexcept {
  static constexpr auto lines = make_decade_lines<Sign>();
  auto const on = [&](std::size_t d) {
    return fused_multiply_add(pack{lines[d].slope}, magnitude, pack{lines[d].at_zero});
  };
  return smaller(smaller(smaller(on(0), on(1)), smaller(on(2), on(3))), smaller(smaller(on(4), on(5)), on(6)));
}

/// Codes of `count` numbers, a multiple of 64, each times `inverse` at most 1 in magnitude but for rounding. The lines give
/// a code that is right or one too low, and the threshold above that code decides. Not part of its callers: it is long, and
/// compilers that inline it leave short loops there uninlined.
template <tie_rule Ties, signedness Sign>
__attribute__((noinline)) void store_dynamic8(std::uint8_t* p, pack const* x, index_t count, float inverse) noexcept {
  static constexpr byte_planes thresholds{Sign == signedness::with_sign ? signed_thresholds<Ties>()
                                                                        : unsigned_thresholds<Ties>()};
  for (index_t i = 0; i < count; i += 64, p += 64, x += 4) {
    byte_lanes::packs scaled;
    byte_lanes::integers low;
    for (std::size_t r = 0; r < 4; ++r) {
      auto const y = x[r] * pack{inverse};
      if constexpr (Sign == signedness::with_sign) {
        int_pack const minus{std::numeric_limits<std::int32_t>::min()};
        auto const bits = bits_of(y), sign = bits & minus;
        auto const entry = near_entry<Sign>(from_bits(bits ^ sign));
        scaled[r] = y;
        low[r] = truncated(larger(pack{127.0F} + from_bits(bits_of(entry) ^ sign), pack{0.0F}));
      } else {
        scaled[r] = larger(y, pack{0.0F});
        low[r] = truncated(near_entry<Sign>(scaled[r]));
      }
    }
    auto const code = byte_lanes::of(low);
    code.store_stepped(p, not_less(scaled, code.lookup(thresholds)));
  }
}

/// The values of a map for `byte_lanes::lookup`.
[[nodiscard]] inline byte_planes const& dynamic8_planes(signedness sign) noexcept {
  static constexpr byte_planes with_sign{mirrored(dynamic8_signed_book)}, nonnegative{dynamic8_unsigned_book.value};
  return sign == signedness::with_sign ? with_sign : nonnegative;
}

}  // namespace lowrank::detail

#endif
