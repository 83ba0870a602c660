/// @file
/// Numbers as stored: bf16 and fp16. Storage only: arithmetic is done in fp32.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>

#include "lowrank/core/config.hpp"

namespace lowrank {

/// Whether `x` is neither NaN nor infinite, by its bits: true comparisons are optimised away under -ffinite-math-only.
[[nodiscard]] LOWRANK_HD constexpr bool is_finite(float x) noexcept {
  return (std::bit_cast<std::uint32_t>(x) & 0x7F800000U) != 0x7F800000U;
}
[[nodiscard]] LOWRANK_HD constexpr bool is_finite(double x) noexcept {
  return (std::bit_cast<std::uint64_t>(x) & 0x7FF0000000000000U) != 0x7FF0000000000000U;
}

/// Whether a sum of squares can be carried on in fp32. Stronger than finite: 3e19 is finite, its square is not.
[[nodiscard]] LOWRANK_HD constexpr bool representable(double sum_of_squares) noexcept {
  return is_finite(sum_of_squares) && sum_of_squares <= static_cast<double>(std::numeric_limits<float>::max());
}

/// bfloat16: the upper half of an fp32.
struct bf16 {
  std::uint16_t bits{};

  [[nodiscard]] LOWRANK_HD constexpr float value() const noexcept {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  }
  friend constexpr bool operator==(bf16 const&, bf16 const&) = default;
};

/// Nearest bf16, ties to even. NaN stays NaN, overflow becomes infinity.
[[nodiscard]] LOWRANK_HD constexpr bf16 to_bf16(float x) noexcept {
  auto const u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return {static_cast<std::uint16_t>(u >> 16 | 0x40U)};
  return {static_cast<std::uint16_t>((u + 0x7FFFU + (u >> 16 & 1U)) >> 16)};
}

/// Stochastic bf16: away from zero with probability (lower half of the bits) / 65536, so its mean is x.
/// `random` holds 16 uniform bits. NaN and infinity pass; a finite x never becomes infinite.
[[nodiscard]] LOWRANK_HD constexpr bf16 to_bf16_stochastic(float x, std::uint32_t random) noexcept {
  auto const u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7F800000U) == 0x7F800000U) return to_bf16(x);
  auto const rounded = u + (random & 0xFFFFU);
  return {static_cast<std::uint16_t>(((rounded & 0x7F800000U) == 0x7F800000U ? u : rounded) >> 16)};
}

/// IEEE binary16.
struct fp16 {
  std::uint16_t bits{};

  [[nodiscard]] LOWRANK_HD constexpr float value() const noexcept {
    std::uint32_t const sign = std::uint32_t{bits & 0x8000U} << 16;
    std::uint32_t const magnitude = bits & 0x7FFFU;
    if (magnitude >= 0x7C00U) return std::bit_cast<float>(sign | 0x7F800000U | (magnitude & 0x3FFU) << 13);
    if (magnitude >= 0x0400U) return std::bit_cast<float>(sign | ((magnitude << 13) + (112U << 23)));
    float const subnormal = static_cast<float>(magnitude) * 0x1p-24F;
    return sign != 0 ? -subnormal : subnormal;
  }
  friend constexpr bool operator==(fp16 const&, fp16 const&) = default;
};

/// Nearest fp16, ties to even. NaN stays NaN, overflow becomes infinity, small values become subnormal.
[[nodiscard]] LOWRANK_HD constexpr fp16 to_fp16(float x) noexcept {
  auto const u = std::bit_cast<std::uint32_t>(x);
  auto const sign = static_cast<std::uint16_t>(u >> 16 & 0x8000U);
  std::uint32_t const magnitude = u & 0x7FFFFFFFU;
  auto const with_sign = [sign](std::uint32_t bits) { return fp16{static_cast<std::uint16_t>(sign | bits)}; };
  if (magnitude > 0x7F800000U) return with_sign(0x7E00U);
  if (magnitude >= 0x47800000U) return with_sign(0x7C00U);  // 65536 and above
  auto const round = [](std::uint32_t value, std::uint32_t shift) {
    std::uint32_t const half = 1U << (shift - 1), rest = value & ((1U << shift) - 1), kept = value >> shift;
    return kept + (rest > half || (rest == half && (kept & 1U) != 0) ? 1U : 0U);
  };
  if (magnitude >= 0x38800000U) return with_sign(round(magnitude - (112U << 23), 13));
  std::uint32_t const exponent = magnitude >> 23;
  if (exponent < 102U) return with_sign(0);  // below half of the smallest subnormal
  return with_sign(round((magnitude & 0x7FFFFFU) | 0x800000U, 126U - exponent));
}

/// Stored number -> fp32, for any storage type.
[[nodiscard]] LOWRANK_HD constexpr float to_float(float x) noexcept { return x; }
[[nodiscard]] LOWRANK_HD constexpr float to_float(bf16 x) noexcept { return x.value(); }
[[nodiscard]] LOWRANK_HD constexpr float to_float(fp16 x) noexcept { return x.value(); }

/// fp32 -> stored number, nearest even.
template <class T>
[[nodiscard]] LOWRANK_HD constexpr T from_float(float x) noexcept {
  if constexpr (std::same_as<T, bf16>) return to_bf16(x);
  else if constexpr (std::same_as<T, fp16>) return to_fp16(x);
  else return x;
}

}  // namespace lowrank
