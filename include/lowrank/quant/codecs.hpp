/// @file
/// Codecs: how one number becomes a few bits, given what its block shares. Values, and pure functions of them.
///
/// | codec | bits | a block shares | after |
/// | --- | --- | --- | --- |
/// | `codec::affine` | 8, 4 | scale and zero point | Q-GaLore's quantizer, corrected |
/// | `codec::symmetric` | 8, 4 | scale | the usual int8 and int4 |
/// | `codec::dynamic8` | 8 | scale | bitsandbytes, torchao |
/// | `codec::book4` | 4 | scale | torchao's 4-bit states, NF4 |
/// | `codec::fp8` | 8 | scale | torchao's fp8 states; E4M3, E5M2 |
#pragma once

#include <cmath>
#include <concepts>
#include <limits>

#include "lowrank/core/scalar.hpp"
#include "lowrank/quant/code_book.hpp"
#include "lowrank/tile/tile.hpp"

namespace lowrank {

/// What a block shares, as arithmetic uses it.
struct block_scale {
  float scale{}, zero{};
  float inverse{};  ///< of the scale, or 0; only where codes are chosen
};

/// A codec is a small copyable value.
/// `fit(range)`: what a block of numbers in that range shares, already rounded to what is stored of it.
/// `encode(x, shared)`: the nearest code, in the lower `bits`. `decode(code, shared)`: what it stands for. With scale 0
/// every code stands for 0, so zeroed memory is a block of zeros.
/// `stored`, `stored_per_block`: element type of what is kept of a block's scale, and how many of them.
/// `dithers`: there is `encode(x, shared, u)`, whose mean over u uniform in [0, 1) is x.
template <class C>
concept block_codec = std::copyable<C> &&
    requires(C const c, value_range range, float x, block_scale s, std::uint8_t q) {
  requires C::bits == 4 || C::bits == 8;
  requires C::stored_per_block == 1 || C::stored_per_block == 2;
  typename C::stored;
  { C::dithers } -> std::convertible_to<bool>;
  { c.fit(range) } -> std::same_as<block_scale>;
  { c.encode(x, s) } -> std::same_as<std::uint8_t>;
  { c.decode(q, s) } -> std::same_as<float>;
};

namespace codec {

/// Smallest scale of a block: bitsandbytes has none, torchao divides by at least 1e-12.
enum class scale_floor : std::uint8_t { none, at_1e_12 };

}  // namespace codec

namespace detail {

/// Nearest whole number, ties to even, for |x| < 2^22; something as large beyond. One addition and one subtraction, in any
/// instruction set.
[[nodiscard]] LOWRANK_HD constexpr float nearest_whole(float x) noexcept {
  constexpr float big = 12582912.0F;  // 1.5 * 2^23
  return (x + big) - big;
}
[[nodiscard]] LOWRANK_HD constexpr float whole_below(float x) noexcept {
  float const near = nearest_whole(x);
  return near > x ? near - 1.0F : near;
}
[[nodiscard]] LOWRANK_HD constexpr float clamped(float x, float low, float high) noexcept {
  return x < low ? low : x > high ? high : x;
}
/// x in the units of a scale; 0 where there is none.
[[nodiscard]] LOWRANK_HD constexpr float in_units_of(float x, float scale) noexcept {
  return scale > 0 ? x / scale : 0.0F;
}
/// The smallest number of a storage type that is not below x >= 0.
template <class T>
[[nodiscard]] LOWRANK_HD constexpr float stored_from_above(float x) noexcept {
  if constexpr (std::same_as<T, float>) return x;
  else {
    bf16 const near = to_bf16(x);
    return near.value() >= x ? near.value() : bf16{static_cast<std::uint16_t>(near.bits + 1)}.value();
  }
}
[[nodiscard]] LOWRANK_HD constexpr float largest_magnitude(value_range r) noexcept {
  return r.high > -r.low ? r.high : -r.low;
}

[[nodiscard]] LOWRANK_HD constexpr block_scale largest_as_scale(value_range r, codec::scale_floor floor,
                                                                float over = 1) noexcept {
  float const most = largest_magnitude(r);
  return {(floor == codec::scale_floor::at_1e_12 && most < 1e-12F ? 1e-12F : most) / over, 0};
}

/// Where a search for a magnitude in a book begins: [cell] is the entry that the lowest number of that cell goes to, and no
/// cell holds more than one threshold. A cell is an exponent and seven bits of the mantissa.
template <int Size>
struct magnitude_cells {
  static constexpr std::uint32_t lowest = (127 - 23) << 7, highest = 127 << 7;
  std::array<std::int32_t, highest - lowest + 1> entry{};

  explicit constexpr magnitude_cells(magnitude_book<Size> const& book) noexcept {
    std::size_t k = 0;
    for (std::uint32_t cell = lowest; cell <= highest; ++cell) {
      float const edge = std::bit_cast<float>(cell << 16);
      while (k + 1 < book.size && edge >= book.above_tie[k]) ++k;
      entry[cell - lowest] = cell == lowest ? 0 : static_cast<std::int32_t>(k);
    }
  }
};
[[nodiscard]] constexpr std::array<float, 256> mirrored(magnitude_book<129> const& half) noexcept {
  std::array<float, 256> out{};
  for (std::size_t k = 0; k < 256; ++k) out[k] = k < 127 ? -half.value[127 - k] : half.value[k - 127];
  return out;
}
inline constexpr auto dynamic8_signed_values = mirrored(dynamic8_signed_book);
inline constexpr magnitude_cells dynamic8_signed_cells{dynamic8_signed_book};
inline constexpr magnitude_cells dynamic8_unsigned_cells{dynamic8_unsigned_book};

}  // namespace detail

namespace codec {

/// From what range an affine codec takes its scale.
enum class range_rule : std::uint8_t {
  /// Of the block, as Q-GaLore's published code has it: blocks of one sign far from zero collapse to nearly one value.
  as_measured,
  with_zero,  ///< made to contain zero: s = (high - low) / (2^bits - 1), z nearest
  /// with_zero and one code wider: s = (high - low) / (2^bits - 2), z rounded up. Stochastic rounding then never meets a
  /// clamp, so it has no bias, at the ends neither.
  headroom,
};

/// q = round(x / s) + z in 0 ... 2^bits - 1, x ~ (q - z) s.
/// Reference: Zhang et al., "Q-GaLore", arXiv 2407.08296, section 3.3, and its published quantizer.
template <int Bits, range_rule Range = range_rule::headroom, class Stored = bf16>
struct affine {
  static constexpr int bits = Bits, stored_per_block = 2;
  static constexpr bool dithers = true;
  using stored = Stored;
  static constexpr float most = static_cast<float>((1 << Bits) - 1);

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    if constexpr (Range != range_rule::as_measured) {
      r.low = r.low < 0 ? r.low : 0.0F;
      r.high = r.high > 0 ? r.high : 0.0F;
    }
    if constexpr (Range == range_rule::headroom) {
      // Divided first: the difference of two large numbers of different sign is infinite.
      float const s = detail::stored_from_above<Stored>(r.high / (most - 1) - r.low / (most - 1));
      if (s < std::numeric_limits<float>::min()) return {};
      return {s, -detail::whole_below(r.low / s), 1 / s};
    } else {
      constexpr float narrowest = 1e-5F;
      float const width = r.high - r.low;
      float const s = detail::stored_from_above<Stored>(
          is_finite(width) ? (width > narrowest ? width : narrowest) / most : r.high / most - r.low / most);
      return {s, detail::clamped(-detail::nearest_whole(r.low / s), 0.0F, most), 1 / s};
    }
  }
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t encode(float x, block_scale s) noexcept {
    return settle(detail::nearest_whole(detail::in_units_of(x, s.scale)), s);
  }
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t encode(float x, block_scale s, float u) noexcept {
    return settle(detail::whole_below(x * s.inverse + u), s);
  }
  [[nodiscard]] LOWRANK_HD static constexpr float decode(std::uint8_t q, block_scale s) noexcept {
    return (static_cast<float>(q) - s.zero) * s.scale;
  }

 private:
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t settle(float whole, block_scale s) noexcept {
    return static_cast<std::uint8_t>(static_cast<std::int32_t>(detail::clamped(whole + s.zero, 0.0F, most)));
  }
};

/// q = round(x / s) in -(2^(bits-1) - 1) ... 2^(bits-1) - 1 as a two's complement number of that many bits, s = max |x| over
/// the largest q. Needs no zero point; zero is exact.
template <int Bits, class Stored = float>
struct symmetric {
  static constexpr int bits = Bits, stored_per_block = 1;
  static constexpr bool dithers = true;
  using stored = Stored;
  static constexpr float most = static_cast<float>((1 << (Bits - 1)) - 1);

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    float const s = detail::stored_from_above<Stored>(detail::largest_magnitude(r) / most);
    if (s < std::numeric_limits<float>::min()) return {};
    return {s, 0, 1 / s};
  }
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t encode(float x, block_scale s) noexcept {
    return settle(detail::nearest_whole(detail::in_units_of(x, s.scale)));
  }
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t encode(float x, block_scale s, float u) noexcept {
    return settle(detail::whole_below(x * s.inverse + u));
  }
  [[nodiscard]] LOWRANK_HD static constexpr float decode(std::uint8_t q, block_scale s) noexcept {
    constexpr int sign = 1 << (Bits - 1);
    return static_cast<float>((static_cast<int>(q) ^ sign) - sign) * s.scale;
  }

 private:
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t settle(float whole) noexcept {
    return static_cast<std::uint8_t>(static_cast<std::int32_t>(detail::clamped(whole, -most, most)) &
                                     ((1 << Bits) - 1));
  }
};

/// Whether a negative number nearest to zero becomes zero, or, as in bitsandbytes's CUDA kernels, the code below it.
enum class tiny_negative : std::uint8_t { rounds, stays_negative };

/// Dynamic 8-bit map, with or without sign (`dynamic8_signed_book`, `dynamic8_unsigned_book`), scaled to the block's largest
/// magnitude. The code of a negative number is 127 - k, that of another one 127 + k (unsigned: k), k its magnitude's entry.
/// Reference: Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit optimizers via block-wise quantization", arXiv 2110.02861.
template <tie_rule Ties = tie_rule::down, scale_floor Floor = scale_floor::none,
          tiny_negative Tiny = tiny_negative::rounds>
struct dynamic8 {
  static constexpr int bits = 8, stored_per_block = 1;
  static constexpr bool dithers = false;
  using stored = float;

  signedness sign{signedness::with_sign};

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor);
  }
  [[nodiscard]] LOWRANK_HD constexpr std::uint8_t encode(float x, block_scale s) const noexcept {
    auto const scaled = std::bit_cast<std::uint32_t>(detail::in_units_of(x, s.scale));
    // A tie goes to the lower code: for a negative number that is the larger magnitude.
    if (sign == signedness::with_sign) {
      bool const negative = (scaled >> 31) != 0;
      auto const k = entry(scaled & 0x7FFFFFFFU, detail::dynamic8_signed_cells, dynamic8_signed_book,
                           negative == (Ties == tie_rule::down));
      constexpr std::int32_t least = Tiny == tiny_negative::stays_negative ? 1 : 0;
      return static_cast<std::uint8_t>(negative ? 127 - (k < least ? least : k < 127 ? k : 127) : 127 + k);
    }
    return static_cast<std::uint8_t>(entry((scaled >> 31) != 0 ? 0 : scaled, detail::dynamic8_unsigned_cells,
                                           dynamic8_unsigned_book, Ties == tie_rule::up));
  }
  [[nodiscard]] LOWRANK_HD constexpr std::uint8_t code_of_zero() const noexcept {
    return sign == signedness::with_sign ? 127 : 0;
  }
  [[nodiscard]] LOWRANK_HD constexpr float decode(std::uint8_t q, block_scale s) const noexcept {
    return (sign == signedness::with_sign ? detail::dynamic8_signed_values : dynamic8_unsigned_book.value)[q] * s.scale;
  }

 private:
  template <class Cells, class Book>
  [[nodiscard]] LOWRANK_HD static constexpr std::int32_t entry(std::uint32_t magnitude, Cells const& cells,
                                                               Book const& book, bool tie_goes_up) noexcept {
    std::uint32_t cell = magnitude >> 16;
    cell = cell < Cells::lowest ? Cells::lowest : cell > Cells::highest ? Cells::highest : cell;
    std::int32_t const k = cells.entry[cell - Cells::lowest];
    auto const at = static_cast<std::size_t>(k);
    float const threshold = tie_goes_up ? book.from_tie[at] : book.above_tie[at];
    return k + (std::bit_cast<float>(magnitude) >= threshold ? 1 : 0);
  }
};

/// The sixteen-entry books.
enum class book4_name : std::uint8_t { nf4, dynamic, sixteenths };

/// Nearest of sixteen values, scaled to the block's largest magnitude.
/// Reference: NF4: Dettmers et al., arXiv 2305.14314; 4-bit states: Li, Chen, Zhu, arXiv 2309.01507, as torchao has them.
template <tie_rule Ties = tie_rule::down, scale_floor Floor = scale_floor::none>
struct book4 {
  static constexpr int bits = 4, stored_per_block = 1;
  static constexpr bool dithers = false;
  using stored = float;

  book4_name name{book4_name::nf4};

  [[nodiscard]] LOWRANK_HD constexpr book16 const& book() const noexcept {
    return name == book4_name::nf4 ? nf4_book : name == book4_name::dynamic ? dynamic4_book : linear4_unsigned_book;
  }
  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor);
  }
  [[nodiscard]] LOWRANK_HD constexpr std::uint8_t encode(float x, block_scale s) const noexcept {
    float const y = detail::in_units_of(x, s.scale);
    auto const& thresholds = Ties == tie_rule::down ? book().above_tie : book().from_tie;
    std::uint32_t code = 0;
    for (float const threshold : thresholds) code += y >= threshold ? 1U : 0U;
    return static_cast<std::uint8_t>(code);
  }
  [[nodiscard]] LOWRANK_HD constexpr float decode(std::uint8_t q, block_scale s) const noexcept {
    return book().value[q] * s.scale;
  }
};

enum class fp8_kind : std::uint8_t { e4m3, e5m2 };

/// 8-bit floats scaled so that the block's largest magnitude is the largest finite one (448, 57344); nearest even.
/// Reference: Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433; E4M3 is the variant without infinities.
template <fp8_kind Kind = fp8_kind::e4m3, scale_floor Floor = scale_floor::at_1e_12>
struct fp8 {
  static constexpr int bits = 8, stored_per_block = 1;
  static constexpr bool dithers = false;
  using stored = float;
  static constexpr int mantissa_bits = Kind == fp8_kind::e4m3 ? 3 : 2, bias = Kind == fp8_kind::e4m3 ? 7 : 15;
  static constexpr float most = Kind == fp8_kind::e4m3 ? 448.0F : 57344.0F;

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor, most);
  }
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t encode(float x, block_scale s) noexcept {
    return bits_of(detail::in_units_of(x, s.scale));
  }
  [[nodiscard]] LOWRANK_HD static constexpr float decode(std::uint8_t q, block_scale s) noexcept {
    return value_of(q) * s.scale;
  }
  /// The 8-bit float nearest to y; what is beyond the largest becomes it. y is not NaN.
  [[nodiscard]] LOWRANK_HD static constexpr std::uint8_t bits_of(float y) noexcept {
    constexpr std::uint32_t dropped = 23 - mantissa_bits, smallest_normal = (127U - bias + 1) << 23;
    auto const all = std::bit_cast<std::uint32_t>(y);
    std::uint32_t const sign = all >> 24 & 0x80U, magnitude = all & 0x7FFFFFFFU;
    // Adding a number whose last place is the smallest subnormal rounds to it.
    constexpr float rounder = std::bit_cast<float>((127U - bias + 1 + dropped) << 23);
    auto const small =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + rounder) - std::bit_cast<std::uint32_t>(rounder);
    std::uint32_t const large =
        (magnitude + ((1U << (dropped - 1)) - 1) + (magnitude >> dropped & 1U) - smallest_normal + (1U << 23)) >>
        dropped;
    std::uint32_t const rounded = magnitude < smallest_normal ? small : large;
    std::uint32_t const code = std::bit_cast<float>(magnitude) >= most ? largest_code : rounded;
    return static_cast<std::uint8_t>(sign | code);
  }
  [[nodiscard]] LOWRANK_HD static constexpr float value_of(std::uint8_t q) noexcept {
    std::uint32_t const magnitude = q & 0x7FU;
    // Read as the low bits of an fp32 it is too small by a power of two; the product also turns subnormals right.
    float const raw = std::bit_cast<float>(magnitude << (23 - mantissa_bits));
    float const value = raw * std::bit_cast<float>(static_cast<std::uint32_t>(127 + 127 - bias) << 23);
    return (q & 0x80U) != 0 ? -value : value;
  }

 private:
  static constexpr std::uint32_t largest_code = Kind == fp8_kind::e4m3 ? 0x7EU : 0x7BU;
};

static_assert(block_codec<affine<8>> && block_codec<symmetric<4>> && block_codec<dynamic8<>> && block_codec<book4<>> &&
              block_codec<fp8<>>);

}  // namespace codec
}  // namespace lowrank
