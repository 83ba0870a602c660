#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "lowrank/core/scalar.hpp"

namespace scalar_test {

namespace {

using namespace lowrank;

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
bool nan_bits(std::uint32_t bits) { return (bits & 0x7FFFFFFFU) > 0x7F800000U; }

// The value of a code by the definition of its format: sign, exponent, fraction.
double defined_value(std::uint32_t code, int exponent_bits, int fraction_bits) {
  int const bias = (1 << (exponent_bits - 1)) - 1;
  auto const exponent = static_cast<int>(code >> fraction_bits & ((1U << exponent_bits) - 1));
  double const fraction = code & ((1U << fraction_bits) - 1);
  double const magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                                         : std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
  return (code >> (exponent_bits + fraction_bits) & 1U) != 0 ? -magnitude : magnitude;
}

// Rounding of every value between two neighbours of a format: the lower one below the middle, the even one at it, the
// upper one above it. `infinity` is the code of infinity.
template <class Number, class Convert>
void check_rounding(std::uint32_t infinity, Convert convert) {
  int wrong = 0;
  for (std::uint32_t code = 0; code + 1 < infinity; ++code)
    for (std::uint32_t const sign : {0U, 0x8000U}) {
      float const low = Number{static_cast<std::uint16_t>(code | sign)}.value();
      float const high = Number{static_cast<std::uint16_t>((code + 1) | sign)}.value();
      auto const middle = static_cast<float>((static_cast<double>(low) + high) / 2);
      std::uint32_t const even = (code & 1U) == 0 ? code : code + 1;
      wrong += convert(low).bits != (code | sign);
      wrong += convert(high).bits != ((code + 1) | sign);
      wrong += convert(middle).bits != (even | sign);
      wrong += convert(float_of(bits_of(middle) - 1)).bits != (code | sign);
      wrong += convert(float_of(bits_of(middle) + 1)).bits != ((code + 1) | sign);
    }
  CHECK(wrong == 0);
}

TEST_SUITE_BEGIN("scalar");

TEST_CASE("bf16 and fp16: every finite code has the value its format defines") {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 65536; ++code) {
    auto const bits = static_cast<std::uint16_t>(code);
    if ((code & 0x7F80U) != 0x7F80U)
      wrong += bits_of(bf16{bits}.value()) != bits_of(static_cast<float>(defined_value(code, 8, 7)));
    if ((code & 0x7C00U) != 0x7C00U)
      wrong += bits_of(fp16{bits}.value()) != bits_of(static_cast<float>(defined_value(code, 5, 10)));
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16 rounds to nearest, ties to even, between all neighbours") {
  check_rounding<bf16>(0x7F80, [](float x) { return to_bf16(x); });
  static_assert(to_bf16(1.00390625F).bits == 0x3F80);  // 1 + 2^-8: a tie, down to even
}
TEST_CASE("fp16 rounds to nearest, ties to even, between all neighbours") {
  check_rounding<fp16>(0x7C00, [](float x) { return to_fp16(x); });
  CHECK(to_fp16(65519.996F).bits == 0x7BFF);
  CHECK(to_fp16(0x1p-25F).bits == 0);  // half of the smallest: a tie, down to zero
  CHECK(to_fp16(float_of(bits_of(0x1p-25F) + 1)).bits == 1);
  CHECK(to_fp16(-1e-30F).bits == 0x8000);
}

TEST_CASE("stochastic bf16 goes up for exactly as many of the 65536 draws as the lower half says") {
  for (float const x :
       {1.0F, 1.0F + 0x1p-23F, 3.14159274F, -2.71828175F, 1e-30F, 1e-40F, -1e-45F, 0.0F, 1.99999988F, 1e38F}) {
    CAPTURE(x);
    std::uint32_t const low = bits_of(x) & 0xFFFFU;
    auto const down = static_cast<std::uint16_t>(bits_of(x) >> 16);
    std::uint32_t ups = 0, others = 0;
    for (std::uint32_t draw = 0; draw < 65536; ++draw) {
      auto const rounded = to_bf16_stochastic(x, draw).bits;
      ups += rounded == down + 1;
      others += rounded != down && rounded != down + 1;
    }
    CHECK(ups == low);
    CHECK(others == 0);
  }
}
TEST_CASE("stochastic bf16 keeps what bf16 can hold, and looks at 16 bits of the draw only") {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 65536; ++code) {
    if ((code & 0x7F80U) == 0x7F80U) continue;
    float const x = bf16{static_cast<std::uint16_t>(code)}.value();
    for (std::uint32_t const draw : {0U, 0x8000U, 0xFFFFU}) wrong += to_bf16_stochastic(x, draw).bits != code;
  }
  CHECK(wrong == 0);
  CHECK(to_bf16_stochastic(1.5001F, 0xABCD1234U) == to_bf16_stochastic(1.5001F, 0x1234U));
}

TEST_CASE("storage types through one name") {
  static_assert(to_float(from_float<bf16>(1.5F)) == 1.5F && to_float(from_float<fp16>(-2.0F)) == -2.0F);
  static_assert(from_float<float>(0.1F) == 0.1F);
  static_assert(sizeof(bf16) == 2 && sizeof(fp16) == 2);
}

TEST_SUITE_END();

// Runs with -Ofast as well: everything is looked at through its bits.
TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("is_finite sees every NaN and infinity") {
  int wrong = 0;
  for (std::uint32_t high = 0; high < 65536; ++high)
    for (std::uint32_t const low : {0U, 1U, 0xFFFFU}) {
      std::uint32_t const bits = high << 16 | low;
      wrong += is_finite(float_of(bits)) != ((bits >> 23 & 0xFFU) != 0xFFU);
    }
  CHECK(wrong == 0);
  for (std::uint64_t const high : {0x7FFULL, 0xFFFULL})
    for (std::uint64_t const low : {0ULL, 1ULL, 1ULL << 51})
      CHECK_FALSE(is_finite(std::bit_cast<double>(high << 52 | low)));
  CHECK(is_finite(std::bit_cast<double>(0x7FEFFFFFFFFFFFFFULL)));
  CHECK(is_finite(std::bit_cast<double>(1ULL)));
}

TEST_CASE("representable: finite and no larger than the largest float") {
  double const largest = std::numeric_limits<float>::max();
  CHECK(representable(0));
  CHECK(representable(largest));
  CHECK_FALSE(representable(std::bit_cast<double>(std::bit_cast<std::uint64_t>(largest) + 1)));
  CHECK_FALSE(representable(3e19 * 3e19));
  CHECK_FALSE(representable(std::bit_cast<double>(0x7FF0000000000000ULL)));
  CHECK_FALSE(representable(std::bit_cast<double>(0xFFF0000000000000ULL)));
  CHECK_FALSE(representable(std::bit_cast<double>(0x7FF8000000000000ULL)));
}

TEST_CASE("bf16 and fp16 keep NaN and infinity, and overflow to infinity") {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 65536; ++code) {
    auto const bits = static_cast<std::uint16_t>(code);
    if ((code & 0x7FFFU) > 0x7F80U) {
      auto const wide = bits_of(bf16{bits}.value());
      wrong += !nan_bits(wide) || (to_bf16(float_of(wide)).bits & 0x7FFFU) <= 0x7F80U;
      wrong += (to_bf16_stochastic(float_of(wide), 0xFFFFU).bits & 0x7FFFU) <= 0x7F80U;
    }
    if ((code & 0x7FFFU) > 0x7C00U) {
      auto const wide = bits_of(fp16{bits}.value());
      wrong += !nan_bits(wide) || (to_fp16(float_of(wide)).bits & 0x7FFFU) <= 0x7C00U;
    }
  }
  CHECK(wrong == 0);
  // A NaN whose payload lies in the bits that are dropped must not become an infinity.
  CHECK((to_bf16(float_of(0x7F800001U)).bits & 0x7FFFU) > 0x7F80U);
  CHECK((to_fp16(float_of(0xFF800001U)).bits & 0x7FFFU) > 0x7C00U);
  for (std::uint32_t const sign : {0U, 0x8000U}) {
    CHECK(to_bf16(float_of(sign << 16 | 0x7F800000U)).bits == (sign | 0x7F80U));
    CHECK(to_bf16_stochastic(float_of(sign << 16 | 0x7F800000U), 0xFFFFU).bits == (sign | 0x7F80U));
    CHECK(to_fp16(float_of(sign << 16 | 0x7F800000U)).bits == (sign | 0x7C00U));
    CHECK(bits_of(bf16{static_cast<std::uint16_t>(sign | 0x7F80U)}.value()) == (sign << 16 | 0x7F800000U));
    CHECK(bits_of(fp16{static_cast<std::uint16_t>(sign | 0x7C00U)}.value()) == (sign << 16 | 0x7F800000U));
    CHECK(to_bf16(float_of(sign << 16 | 0x7F7FFFFFU)).bits == (sign | 0x7F80U));
    CHECK(to_fp16(float_of(sign << 16 | bits_of(65520.0F))).bits == (sign | 0x7C00U));
    // Stochastic rounding of a finite number stays finite, whatever the draw.
    for (std::uint32_t draw = 0; draw < 65536; draw += 255)
      CHECK(to_bf16_stochastic(float_of(sign << 16 | 0x7F7FFFFFU), draw).bits == (sign | 0x7F7FU));
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace scalar_test
