// A work bench for single instructions: PTX text made around them, run over tables of operands, bits compared.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace softgpu_test {

/// One operand of an instruction: how wide its register is, and one value for each thread, as bits.
struct column {
  int bits = 32;  ///< 16, 32 or 64; 1 is a predicate
  std::vector<std::uint64_t> values;
};

/// Runs `text` once for each row of the columns, which it finds in registers %a, %b, %c, %e; its result is %d, as wide
/// as said. Several statements are fine, and so are the scratch registers %r<9> (.b32), %rd<9> (.b64), %p<9>.
[[nodiscard]] std::vector<std::uint64_t> evaluate(std::string const& text, int result_bits,
                                                  std::vector<column> const& operands);

/// The complaint of the decoder about one statement, empty if it is accepted. The registers of `evaluate` exist, and
/// %h (.b16).
[[nodiscard]] std::string refusal_of(std::string const& text);

/// Half precision and bfloat16 by their bits; the tests compute with double.
struct half_bits {
  std::uint16_t bits;
};
struct bf16_bits {
  std::uint16_t bits;
};

template <class T>
std::uint64_t to_bits(T x) {
  if constexpr (std::is_same_v<T, float>) return std::bit_cast<std::uint32_t>(x);
  else if constexpr (std::is_same_v<T, double>) return std::bit_cast<std::uint64_t>(x);
  else if constexpr (std::is_same_v<T, half_bits> || std::is_same_v<T, bf16_bits>) return x.bits;
  else return static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<T>>(x));
}
template <class T>
T from_bits(std::uint64_t x) {
  if constexpr (std::is_same_v<T, float>) return std::bit_cast<float>(static_cast<std::uint32_t>(x));
  else if constexpr (std::is_same_v<T, double>) return std::bit_cast<double>(x);
  else if constexpr (std::is_same_v<T, half_bits> || std::is_same_v<T, bf16_bits>)
    return {static_cast<std::uint16_t>(x)};
  else return static_cast<T>(x);
}
template <class T>
constexpr int register_bits = sizeof(T) == 8   ? 64
                              : sizeof(T) == 4 ? 32
                                               : 16;

/// Zeros, ones, extremes, what overflows, what is lost, and for floating point all that is special.
template <class T>
std::vector<T> edges() {
  using limits = std::numeric_limits<T>;
  if constexpr (std::is_same_v<T, half_bits> || std::is_same_v<T, bf16_bits>) {
    bool const half = std::is_same_v<T, half_bits>;
    std::vector<T> all;
    for (unsigned magnitude : half ? std::vector<unsigned>{0x0000, 0x0001, 0x03ff, 0x0400, 0x1400, 0x3555, 0x3bff,
                                                           0x3c00, 0x3c01, 0x4248, 0x6400, 0x7bff, 0x7c00, 0x7e01}
                                   : std::vector<unsigned>{0x0000, 0x0001, 0x007f, 0x0080, 0x3a83, 0x3eab, 0x3f7f,
                                                           0x3f80, 0x3f81, 0x4049, 0x4b80, 0x7f7f, 0x7f80, 0x7fc1})
      for (unsigned sign : {0x0000U, 0x8000U}) all.push_back({static_cast<std::uint16_t>(magnitude | sign)});
    return all;
  } else if constexpr (std::is_floating_point_v<T>) {
    std::vector<T> all;
    for (T x : {T{0},
                T{1},
                T{0.5},
                T{1.5},
                T{2.5},
                T{3},
                T(1) / T(3),
                T(0.1),
                limits::epsilon(),
                1 + limits::epsilon(),
                T{127.5},
                T{255},
                T{65535.4},
                T(2147483647.0),
                T(4294967296.0),
                T(9.3e18),
                limits::min(),
                limits::min() * T{0.75},
                limits::denorm_min(),
                limits::max(),
                limits::infinity(),
                limits::quiet_NaN()}) {
      all.push_back(x);
      all.push_back(-x);
    }
    return all;
  } else {
    std::vector<T> all{T{0},
                       T{1},
                       T{2},
                       T{3},
                       T{7},
                       T{31},
                       T{32},
                       T{33},
                       T{63},
                       T{64},
                       T{100},
                       limits::max(),
                       T(limits::max() - 1),
                       T(limits::max() / 2),
                       T(limits::max() / 2 + 1),
                       T(limits::max() / 3),
                       limits::min(),
                       T(limits::min() + 1),
                       T(-1),
                       T(-2),
                       T(-7),
                       T(0x12345678abcdefULL),
                       T(0xdeadbeefcafebabeULL),
                       T(0x5555555555555555ULL)};
    return all;
  }
}

inline bool same_bits(std::uint64_t got, std::uint64_t wanted, bool any_nan, int bits) {
  if (got == wanted) return true;
  if (!any_nan) return false;
  if (bits == 64) return std::isnan(std::bit_cast<double>(got)) && std::isnan(std::bit_cast<double>(wanted));
  return std::isnan(std::bit_cast<float>(static_cast<std::uint32_t>(got))) &&
         std::isnan(std::bit_cast<float>(static_cast<std::uint32_t>(wanted)));
}

/// Every combination of edge values against `expected`, which gives a value, or bits as std::uint64_t. If a result is
/// NaN, float must have the canonical one, and double any.
template <class D, class... S, class F>
void check_values(std::string const& instruction, F expected, std::vector<S>... tables) {
  constexpr std::size_t n = sizeof...(S);
  std::size_t const sizes[] = {tables.size()...};
  std::size_t rows = 1;
  for (auto const size : sizes) rows *= size;
  std::vector<column> columns{column{register_bits<S>, {}}...};
  std::vector<std::uint64_t> wanted;
  for (std::size_t row = 0; row < rows; ++row) {
    std::size_t at[n], rest = row;
    for (std::size_t k = 0; k < n; ++k) {
      at[k] = rest % sizes[k];
      rest /= sizes[k];
    }
    std::size_t k = 0;
    auto const pick = [&](auto const& table) { return table[at[k++]]; };
    std::tuple<S...> const values{pick(tables)...};
    std::size_t c = 0;
    std::apply([&](auto... x) { ((columns[c++].values.push_back(to_bits(x))), ...); }, values);
    wanted.push_back(to_bits(static_cast<D>(std::apply(expected, values))));
  }
  auto const got = evaluate(instruction, register_bits<D>, columns);
  int shown = 0;
  for (std::size_t row = 0; row < rows && shown < 5; ++row) {
    std::uint64_t w = wanted[row];
    if constexpr (std::is_same_v<D, float>)
      if (std::isnan(from_bits<float>(w))) w = 0x7fffffff;
    std::uint64_t const mask = sizeof(D) == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * sizeof(D))) - 1;
    bool const equal = same_bits(got[row] & mask, w & mask, std::is_same_v<D, double>, static_cast<int>(8 * sizeof(D)));
    if (!equal) {
      ++shown;
      std::string operands;
      for (auto const& c : columns) operands += " " + std::to_string(c.values[row]);
      CAPTURE(instruction);
      CAPTURE(operands);
      CHECK((got[row] & mask) == (w & mask));
    }
  }
  CHECK(shown == 0);
}
template <class D, class A, class F>
void check1(std::string const& instruction, F expected) {
  check_values<D, A>(instruction, expected, edges<A>());
}
template <class D, class A, class B, class F>
void check2(std::string const& instruction, F expected) {
  check_values<D, A, B>(instruction, expected, edges<A>(), edges<B>());
}
template <class D, class A, class B, class C, class F>
void check3(std::string const& instruction, F expected) {
  check_values<D, A, B, C>(instruction, expected, edges<A>(), edges<B>(), edges<C>());
}

}  // namespace softgpu_test
