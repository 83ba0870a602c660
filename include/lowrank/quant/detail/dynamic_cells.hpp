/// @file
/// Which code of a dynamic map is nearest to a number.
#pragma once

#include "lowrank/quant/code_book.hpp"
#include "lowrank/tile/int_pack.hpp"

namespace lowrank::detail {

/// Search for the code of a number in a dynamic map with one look at memory. A cell is an exponent and `Bits` bits of the
/// mantissa, so few magnitudes that it holds at most one threshold. Its entry is made so that the lower bits of a magnitude,
/// added to it, carry into the code above them where they are beyond the threshold. A second half is for negative numbers,
/// whose codes fall with the magnitude: what is added there is what lacks from the end of the cell.
template <int Bits>
struct dynamic8_cells {
  static constexpr int dropped = 23 - Bits;
  static constexpr std::int32_t lowest = (127 - 23) << Bits, highest = 127 << Bits, rest = (1 << dropped) - 1,
                                count = highest - lowest + 1;
  std::array<std::int32_t, 2 * static_cast<std::size_t>(count)> entry{};

  enum class half : std::uint8_t { positive, negative };

  /// Entries `least` ... `most` of the book; code = zero + entry, or zero - entry for the negative half.
  template <int Size>
  constexpr void fill_half(magnitude_book<Size> const& book, tie_rule ties, half which, std::int32_t zero,
                           std::int32_t least, std::int32_t most) noexcept {
    auto const& thresholds = ties == tie_rule::up ? book.from_tie : book.above_tie;
    bool const negative = which == half::negative;
    auto* const to = entry.data() + (negative ? count : 0);
    std::int32_t k = 0;
    for (std::int32_t cell = lowest; cell <= highest; ++cell) {
      auto const threshold = bits_of(thresholds[static_cast<std::size_t>(k)]);
      bool const here = threshold >> dropped == cell;
      auto const kept = k < least ? least : k > most ? most : k;
      std::int32_t const last_before = here && k >= least && k < most ? (threshold & rest) - 1 : rest;
      to[cell - lowest] =
          negative ? (zero - kept - 1) * (rest + 1) + last_before + 1 : (zero + kept) * (rest + 1) + rest - last_before;
      k += here ? 1 : 0;
    }
  }
  /// The code of the number with these bits, at most 1 in magnitude but for rounding. `table` is `entry` of some cells.
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr Int code_of(Int bits, std::int32_t const* table) noexcept {
    Int const negative = bits >> 31, magnitude = at_least_lowest(bits & Int{0x7FFFFFFF});
    Int const found = lookup(table, (magnitude >> dropped) + (negative & Int{count}), lowest);
    return low_byte((found + ((magnitude ^ negative) & Int{rest})) >> dropped);
  }
  /// The same where negative numbers are for zero; looks at the first half only.
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr Int code_of_nonnegative(Int bits, std::int32_t const* table) noexcept {
    Int const magnitude = at_least_lowest(bits);
    return low_byte((lookup(table, magnitude >> dropped, lowest) + (magnitude & Int{rest})) >> dropped);
  }

 private:
  /// Below the lowest cell everything is zero, and so is the lower end of that cell. Nothing is much above 1.
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr Int at_least_lowest(Int bits) noexcept {
    return larger(bits, Int{lowest << dropped});
  }
};

template <tie_rule Ties, std::int32_t LeastNegative>
[[nodiscard]] constexpr auto make_signed_cells() noexcept {
  using cells = dynamic8_cells<6>;
  cells out;
  // A tie goes to the lower code, which is the larger magnitude of a negative number.
  out.fill_half(dynamic8_signed_book, Ties, cells::half::positive, 127, 0, 128);
  out.fill_half(dynamic8_signed_book, Ties == tie_rule::down ? tie_rule::up : tie_rule::down, cells::half::negative,
                127, LeastNegative, 127);
  return out;
}
template <tie_rule Ties>
[[nodiscard]] constexpr auto make_unsigned_cells() noexcept {
  using cells = dynamic8_cells<7>;
  cells out;
  out.fill_half(dynamic8_unsigned_book, Ties, cells::half::positive, 0, 0, 255);
  return out;
}
// Tables are static in functions, because only those are seen by kernels as well.
template <tie_rule Ties, std::int32_t LeastNegative, class Int>
[[nodiscard]] LOWRANK_INLINE Int dynamic8_signed_code(Int bits) noexcept {
  static constexpr auto cells = make_signed_cells<Ties, LeastNegative>();
  return cells.code_of(bits, cells.entry.data());
}
template <tie_rule Ties, class Int>
[[nodiscard]] LOWRANK_INLINE Int dynamic8_unsigned_code(Int bits) noexcept {
  static constexpr auto cells = make_unsigned_cells<Ties>();
  return cells.code_of_nonnegative(bits, cells.entry.data());
}

[[nodiscard]] constexpr std::array<float, 256> mirrored(magnitude_book<129> const& half) noexcept {
  std::array<float, 256> out{};
  for (std::size_t k = 0; k < 256; ++k) out[k] = k < 127 ? -half.value[127 - k] : half.value[k - 127];
  return out;
}
[[nodiscard]] LOWRANK_HD inline float const* dynamic8_values(signedness sign) noexcept {
  static constexpr auto with_sign = mirrored(dynamic8_signed_book);
  static constexpr auto nonnegative = dynamic8_unsigned_book.value;
  return sign == signedness::with_sign ? with_sign.data() : nonnegative.data();
}

}  // namespace lowrank::detail
