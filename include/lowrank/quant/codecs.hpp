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
#include "lowrank/quant/detail/dynamic_cells.hpp"
#include "lowrank/quant/detail/dynamic_lanes.hpp"
#include "lowrank/tile/int_pack.hpp"
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
/// every code stands for 0, so zeroed memory is a block of zeros. Both are templates over float and pack; codecs of a book
/// of 256 values have `values()`, the book, and decode one by one.
/// `stored`, `stored_per_block`: element type of what is kept of a block's scale, and how many of them.
/// `takes_magnitude`: of a range, `fit` asks for the largest magnitude only.
/// `dithers`: there is `encode(x, shared, u)`, whose mean over u uniform in [0, 1) is x.
template <class C>
concept block_codec = std::copyable<C> &&
    requires(C const c, value_range range, float x, block_scale s, std::int32_t q) {
  requires C::bits == 4 || C::bits == 8;
  requires C::stored_per_block == 1 || C::stored_per_block == 2;
  typename C::stored;
  { C::dithers } -> std::convertible_to<bool>;
  { C::takes_magnitude } -> std::convertible_to<bool>;
  { c.fit(range) } -> std::same_as<block_scale>;
  { c.encode(x, s) } -> std::same_as<std::int32_t>;
  { c.decode(q, s) } -> std::same_as<float>;
};

namespace codec {

/// Smallest scale of a block: bitsandbytes has none, torchao divides by at least 1e-12.
enum class scale_floor : std::uint8_t { none, at_1e_12 };

}  // namespace codec

namespace detail {

/// Nearest whole number, ties to even, for |x| <= 2^22. One addition and one subtraction, in any instruction set; the
/// subtraction on the bits, because -ffast-math would cancel the two.
template <class Real>
[[nodiscard]] LOWRANK_HD constexpr Real nearest_whole(Real x) noexcept {
  Real const big{12582912.0F};  // 1.5 * 2^23
  return as_real(bits_of(x + big) - bits_of(big));
}
/// The largest one that is not above x.
template <class Real>
[[nodiscard]] LOWRANK_HD constexpr Real whole_below(Real x) noexcept {
  Real const closest = nearest_whole(x);
#if defined(LOWRANK_DEVICE_PASS)
  return select(less(x, closest), closest - Real{1.0F}, closest);
#else
  // By the bits: whether it is above is a coin toss, and a branch on it costs more than all the rest.
  return closest - from_bits(bits_of(Real{1.0F}) & as_mask(less(x, closest)));
#endif
}
#if LOWRANK_PACK_WIDTH >= 8
[[nodiscard]] LOWRANK_INLINE pack nearest_whole(pack x) noexcept { return rounded_to_even(x); }
[[nodiscard]] LOWRANK_INLINE pack whole_below(pack x) noexcept { return rounded_down(x); }
#endif
template <class Real>
[[nodiscard]] LOWRANK_HD constexpr Real clamped(Real x, float low, float high) noexcept {
  return smaller(larger(x, Real{low}), Real{high});
}
/// x in the units of a scale, which is not subnormal; 0 where there is none.
template <class Real>
[[nodiscard]] LOWRANK_HD constexpr Real in_units_of(Real x, float scale) noexcept {
  return scale > 0 ? quotient(x, Real{scale}) : Real{0.0F};
}
/// The smallest number of a storage type that is not below x >= 0.
template <class T>
[[nodiscard]] LOWRANK_HD constexpr float stored_from_above(float x) noexcept {
  if constexpr (std::same_as<T, float>) return x;
  else {
    bf16 const closest = to_bf16(x);  // above or below by chance: not a branch
    return bf16{static_cast<std::uint16_t>(closest.bits + (closest.value() < x ? 1 : 0))}.value();
  }
}
[[nodiscard]] LOWRANK_HD constexpr float largest_magnitude(value_range r) noexcept {
  return r.high > -r.low ? r.high : -r.low;
}

[[nodiscard]] LOWRANK_HD constexpr block_scale largest_as_scale(value_range r, codec::scale_floor floor,
                                                                float over = 1) noexcept {
  float const most = largest_magnitude(r);
  float const scale = (floor == codec::scale_floor::at_1e_12 && most < 1e-12F ? 1e-12F : most) / over;
  // The reciprocal of a subnormal is infinite: such a block is taken for zeros.
  return {scale, 0, scale < std::numeric_limits<float>::min() ? 0.0F : reciprocal(scale)};
}

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
  static constexpr bool takes_magnitude = false, dithers = true;
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
      auto const with = [&](float scale) {
        float const inverse = reciprocal(scale);
        return block_scale{scale, -detail::whole_below(r.low * inverse), inverse};
      };
      auto const out = with(s);
      // Where the scale was rounded down, both ends may want one code more: the next larger scale then.
      constexpr float largest_u = 1 - 0x1p-16F;
      bool const fits = detail::whole_below(r.high * out.inverse + largest_u) + out.zero <= most;
      return fits ? out : with(detail::stored_from_above<Stored>(s * (1 + 0x1p-21F)));
    } else {
      constexpr float narrowest = 1e-5F;
      float const width = r.high - r.low;
      float const s = detail::stored_from_above<Stored>(
          is_finite(width) ? (width > narrowest ? width : narrowest) / most : r.high / most - r.low / most);
      return {s, detail::clamped(-detail::nearest_whole(detail::clamped(r.low / s, -off_range, off_range)), 0.0F, most),
              1 / s};
    }
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto encode(Real x, block_scale s) noexcept {
    auto y = detail::in_units_of(x, s.scale);
    if constexpr (Range == range_rule::as_measured) y = detail::clamped(y, -off_range, off_range);
    return settle(detail::nearest_whole(y), s);
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto encode(Real x, block_scale s, Real u) noexcept {
    return settle(detail::whole_below(x * Real{s.inverse} + u), s);
  }
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr auto decode(Int q, block_scale s) noexcept {
    auto const whole = as_real(q);
    using real = std::remove_const_t<decltype(whole)>;
    return (whole - real{s.zero}) * real{s.scale};
  }

 private:
  static constexpr float off_range = 0x1p22F;  ///< beyond any code

  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto settle(Real whole, block_scale s) noexcept {
    return truncated(detail::clamped(whole + Real{s.zero}, 0.0F, most));
  }
};

/// q = round(x / s) in -(2^(bits-1) - 1) ... 2^(bits-1) - 1 as a two's complement number of that many bits, s = max |x| over
/// the largest q. Needs no zero point; zero is exact.
template <int Bits, class Stored = float>
struct symmetric {
  static constexpr int bits = Bits, stored_per_block = 1;
  static constexpr bool takes_magnitude = true, dithers = true;
  using stored = Stored;
  static constexpr float most = static_cast<float>((1 << (Bits - 1)) - 1);

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    float const s = detail::stored_from_above<Stored>(detail::largest_magnitude(r) / most);
    if (s < std::numeric_limits<float>::min()) return {};
    return {s, 0, reciprocal(s)};
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto encode(Real x, block_scale s) noexcept {
    return settle(detail::nearest_whole(detail::in_units_of(x, s.scale)));
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto encode(Real x, block_scale s, Real u) noexcept {
    return settle(detail::whole_below(x * Real{s.inverse} + u));
  }
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr auto decode(Int q, block_scale s) noexcept {
    Int const sign{1 << (Bits - 1)};
    auto const whole = as_real((q ^ sign) - sign);
    return whole * std::remove_const_t<decltype(whole)>{s.scale};
  }

 private:
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto settle(Real whole) noexcept {
    return truncated(detail::clamped(whole, -most, most)) & integer_of<Real>{(1 << Bits) - 1};
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
  static constexpr bool takes_magnitude = true, dithers = false;
  using stored = float;

  signedness sign{signedness::with_sign};

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor);
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD auto encode(Real x, block_scale s) const noexcept {
    auto const scaled = bits_of(x * Real{s.inverse});
    constexpr std::int32_t least_negative = Tiny == tiny_negative::stays_negative ? 1 : 0;
    return sign == signedness::with_sign ? detail::dynamic8_signed_code<Ties, least_negative>(scaled)
                                         : detail::dynamic8_unsigned_code<Ties>(scaled);
  }
#if defined(LOWRANK_HAS_BYTE_LANES)
  /// Writes the codes of `count` numbers, a multiple of 64.
  void encode_many(std::uint8_t* codes, pack const* x, index_t count, block_scale s) const noexcept
      requires(Tiny == tiny_negative::rounds) {
    if (sign == signedness::with_sign) detail::store_dynamic8<Ties, signedness::with_sign>(codes, x, count, s.inverse);
    else detail::store_dynamic8<Ties, signedness::nonnegative>(codes, x, count, s.inverse);
  }
  /// `values`, as tiles look them up 64 at a time.
  [[nodiscard]] byte_planes const& planes() const noexcept { return detail::dynamic8_planes(sign); }
#endif
  [[nodiscard]] LOWRANK_HD float const* values() const noexcept { return detail::dynamic8_values(sign); }
  [[nodiscard]] LOWRANK_HD float decode(std::int32_t q, block_scale s) const noexcept { return values()[q] * s.scale; }
};

/// The sixteen-entry books.
enum class book4_name : std::uint8_t { nf4, dynamic, sixteenths };

/// Nearest of sixteen values, scaled to the block's largest magnitude.
/// Reference: NF4: Dettmers et al., arXiv 2305.14314; 4-bit states: Li, Chen, Zhu, arXiv 2309.01507, as torchao has them.
template <tie_rule Ties = tie_rule::down, scale_floor Floor = scale_floor::none>
struct book4 {
  static constexpr int bits = 4, stored_per_block = 1;
  static constexpr bool takes_magnitude = true, dithers = false;
  using stored = float;

  book4_name name{book4_name::nf4};

  [[nodiscard]] LOWRANK_HD book16 const& book() const noexcept {
    static constexpr auto nf4 = nf4_book, dynamic = dynamic4_book, sixteenths = linear4_unsigned_book;
    return name == book4_name::nf4 ? nf4 : name == book4_name::dynamic ? dynamic : sixteenths;
  }
  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor);
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD auto encode(Real x, block_scale s) const noexcept {
    Real const y = x * Real{s.inverse};
    auto const& thresholds = Ties == tie_rule::down ? book().above_tie : book().from_tie;
    using integer = integer_of<Real>;
    integer code{0};
    for (std::int32_t const half : {8, 4, 2, 1}) {
      auto const beyond = code + integer{half};
      code = select(less(y, lookup_16(thresholds.data(), beyond)), code, beyond);
    }
    return code;
  }
  template <class Int>
  [[nodiscard]] LOWRANK_HD auto decode(Int q, block_scale s) const noexcept {
    auto const value = lookup_16(book().value.data(), q);
    return value * std::remove_const_t<decltype(value)>{s.scale};
  }
};

enum class fp8_kind : std::uint8_t { e4m3, e5m2 };

/// 8-bit floats scaled so that the block's largest magnitude is the largest finite one (448, 57344); nearest even.
/// Reference: Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433; E4M3 is the variant without infinities.
template <fp8_kind Kind = fp8_kind::e4m3, scale_floor Floor = scale_floor::at_1e_12>
struct fp8 {
  static constexpr int bits = 8, stored_per_block = 1;
  static constexpr bool takes_magnitude = true, dithers = false;
  using stored = float;
  static constexpr int mantissa_bits = Kind == fp8_kind::e4m3 ? 3 : 2, bias = Kind == fp8_kind::e4m3 ? 7 : 15;
  static constexpr float most = Kind == fp8_kind::e4m3 ? 448.0F : 57344.0F;

  [[nodiscard]] LOWRANK_HD static constexpr block_scale fit(value_range r) noexcept {
    return detail::largest_as_scale(r, Floor, most);
  }
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto encode(Real x, block_scale s) noexcept {
    // Without a floor the scale may be a subnormal, which quotients do not take.
    if constexpr (Floor == scale_floor::none) return code_of(s.scale > 0 ? x / Real{s.scale} : Real{0.0F});
    else return code_of(detail::in_units_of(x, s.scale));
  }
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr auto decode(Int q, block_scale s) noexcept {
    auto const value = value_of(q);
    return value * std::remove_const_t<decltype(value)>{s.scale};
  }
  /// The 8-bit float nearest to y; what is beyond the largest becomes it. y is not NaN.
  template <class Real>
  [[nodiscard]] LOWRANK_HD static constexpr auto code_of(Real y) noexcept {
    using integer = integer_of<Real>;
    constexpr std::int32_t dropped = 23 - mantissa_bits, below_normal = (127 - bias) << 23;
    auto const all = bits_of(y);
    integer const magnitude = all & integer{0x7FFFFFFF};
    // Adding a number whose last place is the smallest subnormal rounds to it.
    integer const rounder{(127 - bias + 1 + dropped) << 23};
    integer const below = bits_of(from_bits(magnitude) + from_bits(rounder)) - rounder;
    integer const even = (magnitude >> dropped) & integer{1};
    integer const above = (magnitude + integer{(1 << (dropped - 1)) - 1 - below_normal} + even) >> dropped;
    integer const rounded = select(less(magnitude, integer{below_normal + (1 << 23)}), below, above);
    return ((all >> 24) & integer{0x80}) | smaller(rounded, integer{largest_code});
  }
  template <class Int>
  [[nodiscard]] LOWRANK_HD static constexpr auto value_of(Int q) noexcept {
    constexpr std::int32_t lift = (127 - bias) << 23, smallest_normal = lift + (1 << 23);
    Int const magnitude = q & Int{0x7F}, raised = magnitude << (23 - mantissa_bits);
    auto const normal = from_bits(raised + Int{lift});
    // Read with the exponent of the smallest normal number, which then is too much. Subnormals of fp32, which programs
    // built with -Ofast take for zero, do not occur.
    auto const subnormal = from_bits(raised + Int{smallest_normal}) - from_bits(Int{smallest_normal});
    auto const value = select(less(magnitude, Int{1 << mantissa_bits}), subnormal, normal);
    return from_bits(bits_of(value) | ((q & Int{0x80}) << 24));
  }

 private:
  static constexpr std::int32_t largest_code = Kind == fp8_kind::e4m3 ? 0x7E : 0x7B;
};

static_assert(block_codec<affine<8>> && block_codec<symmetric<4>> && block_codec<dynamic8<>> && block_codec<book4<>> &&
              block_codec<fp8<>>);

}  // namespace codec
}  // namespace lowrank
