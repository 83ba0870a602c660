/// @file
/// Code books: the values that codes stand for, ascending, in [-1, 1].
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "lowrank/core/config.hpp"

namespace lowrank {

/// Which way a number goes that lies exactly between two entries of a code book.
enum class tie_rule : std::uint8_t { down, up };

/// Whether a format has negative numbers.
enum class signedness : std::uint8_t { with_sign, nonnegative };

namespace detail {

/// Midpoint k of n equal intervals of [0.1, 1] as torch computes it in fp32 (linspace from both ends, one rounding each).
[[nodiscard]] constexpr float torch_midpoint(int k, int n) noexcept {
  constexpr float low = 0.1F;
  float const step = (1.0F - low) / static_cast<float>(n);
  auto const edge = [&](int i) {
    double const wide = static_cast<double>(step);
    return static_cast<float>(i < (n + 1) / 2 ? static_cast<double>(low) + wide * i : 1.0 - wide * (n - i));
  };
  return (edge(k) + edge(k + 1)) / 2.0F;
}

/// Number of entries above zero: `decades` decades of doubling resolution, and 1.
[[nodiscard]] constexpr int positive_entries(int decades, signedness s) noexcept {
  return (s == signedness::with_sign ? 1 : 2) * ((1 << decades) - 1) + 1;
}

}  // namespace detail

/// The positive half of a code book, and what a search in it needs. Entry 0 is zero; entry k is reached from `first_of[k - 1]`
/// on: thresholds are the smallest fp32 numbers that round to k, for both tie rules.
template <int Size>
struct magnitude_book {
  static constexpr auto size = static_cast<std::size_t>(Size);
  std::array<float, size> value{};
  std::array<float, size> above_tie{}, from_tie{};  ///< [k]: threshold between k and k + 1; the last one is infinite

  constexpr void find_thresholds() noexcept {
    for (std::size_t k = 0; k + 1 < size; ++k) {
      double const middle = (static_cast<double>(value[k]) + static_cast<double>(value[k + 1])) / 2;
      auto const closest = static_cast<float>(middle);
      float const next = std::bit_cast<float>(std::bit_cast<std::uint32_t>(closest) + 1);
      above_tie[k] = static_cast<double>(closest) > middle ? closest : next;
      from_tie[k] = static_cast<double>(closest) >= middle ? closest : next;
    }
    above_tie[size - 1] = from_tie[size - 1] = std::bit_cast<float>(0x7F800000U);
  }
};

namespace detail {

template <int Decades, signedness Sign>
[[nodiscard]] constexpr auto make_dynamic_book() noexcept {
  magnitude_book<positive_entries(Decades, Sign) + 1> out;
  std::size_t at = 1;
  constexpr std::array<float, 8> powers{1e-7F, 1e-6F, 1e-5F, 1e-4F, 1e-3F, 1e-2F, 1e-1F, 1e0F};
  for (int i = 0; i < Decades; ++i) {
    int const n = 1 << (Sign == signedness::with_sign ? i : i + 1);
    float const power = powers.data()[8 - Decades + i];
    for (int k = 0; k < n; ++k) out.value[at++] = torch_midpoint(k, n) * power;
  }
  out.value[at] = 1.0F;
  std::ranges::sort(out.value);
  out.find_thresholds();
  return out;
}

}  // namespace detail

/// Dynamic 8-bit map: 7 decades, the resolution doubles from each to the next. Signed: code 127 is 0, 255 is 1, and the
/// smallest value -0.9929688, so that a negative block maximum shrinks a little at every encoding. Unsigned: code 0 is 0.
/// Reference: Dettmers, "8-bit approximations for parallelism in deep learning", arXiv 1511.04561; the map of bitsandbytes.
inline constexpr auto dynamic8_signed_book = detail::make_dynamic_book<7, signedness::with_sign>();
inline constexpr auto dynamic8_unsigned_book = detail::make_dynamic_book<7, signedness::nonnegative>();

/// The positive halves of the 16-entry books of torchao: dynamic with sign (code 7 is 0), and k / 16 without (no zero at all).
inline constexpr auto dynamic4_signed_book = detail::make_dynamic_book<3, signedness::with_sign>();

/// Sixteen values and the thresholds between them.
struct book16 {
  std::array<float, 16> value{};
  std::array<float, 16> above_tie{}, from_tie{};  ///< [k]: smallest fp32 number that goes to k, for k > 0

  explicit constexpr book16(std::array<float, 16> const& values) noexcept : value{values} {
    for (std::size_t k = 1; k < 16; ++k) {
      double const middle = (static_cast<double>(value[k - 1]) + static_cast<double>(value[k])) / 2;
      auto const closest = static_cast<float>(middle);
      // The next number above: away from zero for positive numbers, towards it for negative ones.
      auto const bits = std::bit_cast<std::uint32_t>(closest);
      float const next = closest > 0    ? std::bit_cast<float>(bits + 1)
                         : closest == 0 ? std::bit_cast<float>(1U)
                                        : std::bit_cast<float>(bits - 1);
      above_tie[k] = static_cast<double>(closest) > middle ? closest : next;
      from_tie[k] = static_cast<double>(closest) >= middle ? closest : next;
    }
  }
};

namespace detail {

[[nodiscard]] constexpr std::array<float, 16> mirrored(magnitude_book<9> const& half) noexcept {
  std::array<float, 16> out{};
  for (std::size_t k = 0; k < 16; ++k) out[k] = k < 7 ? -half.value[7 - k] : half.value[k - 7];
  return out;
}
[[nodiscard]] constexpr std::array<float, 16> sixteenths() noexcept {
  std::array<float, 16> out{};
  for (std::size_t k = 0; k < 16; ++k) out[k] = static_cast<float>(k + 1) / 16.0F;
  return out;
}

}  // namespace detail

inline constexpr book16 dynamic4_book{detail::mirrored(dynamic4_signed_book)};
inline constexpr book16 linear4_unsigned_book{detail::sixteenths()};

/// NormalFloat: quantiles of a normal distribution, so that each code is about equally frequent; zero is exact.
/// Reference: Dettmers et al., "QLoRA", arXiv 2305.14314, section 3 and appendix E.
inline constexpr book16 nf4_book{
    {-1.0F, -0.6961928009986877F, -0.5250730514526367F, -0.39491748809814453F, -0.28444138169288635F,
     -0.18477343022823334F, -0.09105003625154495F, 0.0F, 0.07958029955625534F, 0.16093020141124725F,
     0.24611230194568634F, 0.33791524171829224F, 0.44070982933044434F, 0.5626170039176941F, 0.7229568362236023F, 1.0F}};

}  // namespace lowrank
