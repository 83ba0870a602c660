// Numbers of 16 bits in lanes: half and bfloat16, alone and in pairs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace softgpu {

struct f16 {
  static constexpr int digits = 11, min_exponent = -14;
  std::uint16_t bits;
};
struct bf16 {
  static constexpr int digits = 8, min_exponent = -126;
  std::uint16_t bits;
};
template <class Half>
struct pair {
  using half = Half;
  std::uint32_t bits;
  [[nodiscard]] Half low() const noexcept { return {static_cast<std::uint16_t>(bits)}; }
  [[nodiscard]] Half high() const noexcept { return {static_cast<std::uint16_t>(bits >> 16)}; }
  static pair of(Half low, Half high) noexcept { return {low.bits | std::uint32_t{high.bits} << 16}; }
};

template <class T>
constexpr bool is_half = std::is_same_v<T, f16> || std::is_same_v<T, bf16>;
template <class T>
constexpr bool is_pair = std::is_same_v<T, pair<f16>> || std::is_same_v<T, pair<bf16>>;

inline float value(bf16 x) noexcept { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline float value(f16 x) noexcept {
  std::uint32_t const magnitude = (x.bits & 0x7fffU) << 13;
  // Moves the exponent's bias, and is exact for subnormal numbers, too.
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F);
  bits |= (x.bits & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
  return std::bit_cast<float>(bits | (x.bits & 0x8000U) << 16);
}

enum class rounding : std::uint8_t { nearest_even, toward_zero, down, up };

/// The one rounding of an exact value (or of one rounded to odd with more digits). NaN becomes 0x7fff, as on devices.
template <class Half>
Half narrow(double v, rounding mode = rounding::nearest_even) noexcept {
  auto const bits = std::bit_cast<std::uint64_t>(v);
  auto const sign = static_cast<std::uint16_t>(bits >> 48 & 0x8000);
  constexpr std::uint32_t infinity = Half::digits == 11 ? 0x7c00 : 0x7f80;
  if (v != v) return {0x7fff};
  if (std::isinf(v)) return {static_cast<std::uint16_t>(sign | infinity)};
  if (v == 0) return {sign};
  int const stored = static_cast<int>(bits >> 52 & 0x7ff);
  int const actual = (stored == 0 ? 1 : stored) - 1023;
  std::uint64_t const mantissa = (bits & 0xfffffffffffff) | (stored == 0 ? 0 : std::uint64_t{1} << 52);
  int const exponent = actual < Half::min_exponent ? Half::min_exponent : actual;
  int const drop = 53 - Half::digits + exponent - actual;
  std::uint64_t const kept = drop > 63 ? 0 : mantissa >> drop;
  std::uint64_t const rest = drop > 63 ? mantissa : mantissa & ((std::uint64_t{1} << drop) - 1);
  std::uint64_t const half = drop > 63 ? ~std::uint64_t{0} : std::uint64_t{1} << (drop - 1);
  bool up = false;
  switch (mode) {
    case rounding::nearest_even:
      up = rest > half || (rest == half && (kept & 1) != 0);
      break;
    case rounding::toward_zero:
      break;
    case rounding::down:
      up = rest != 0 && sign != 0;
      break;
    case rounding::up:
      up = rest != 0 && sign == 0;
      break;
  }
  auto const base = static_cast<std::uint32_t>(exponent - Half::min_exponent) << (Half::digits - 1);
  std::uint64_t result = base + kept + (up ? 1 : 0);
  if (exponent > 127 || result >= infinity) {
    bool const to_infinity =
        mode == rounding::nearest_even || (mode == rounding::down && sign != 0) || (mode == rounding::up && sign == 0);
    result = to_infinity ? infinity : infinity - 1;
  }
  return {static_cast<std::uint16_t>(sign | result)};
}

/// The common case, without a branch.
inline bf16 nearest_bf16(float x) noexcept {
  auto const bits = std::bit_cast<std::uint32_t>(x);
  std::uint32_t const rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
  return {static_cast<std::uint16_t>(x != x ? 0x7fffU : rounded)};
}

/// x + y rounded to odd: rounding it once more to at most 51 digits gives the correctly rounded sum.
inline double add_to_odd(double x, double y) noexcept {
  double const sum = x + y;
  if (!std::isfinite(sum)) return sum;
  double const y_part = sum - x;
  double const error = (x - (sum - y_part)) + (y - y_part);
  auto bits = std::bit_cast<std::uint64_t>(sum);
  if (error != 0 && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
  return std::bit_cast<double>(bits);
}

}  // namespace softgpu
