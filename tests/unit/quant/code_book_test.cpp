// Code books against their definitions, and the numbers at which one code becomes the next.
#include <doctest/doctest.h>

#include <vector>

#include "support/codecs.hpp"

namespace code_book_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("code books");

/// Positive entries of a dynamic map: in decade 10^(i + 1 - decades), the midpoints of n 2^i equal intervals of [0.1, 1].
std::vector<double> dynamic_entries(int decades, int n) {
  std::vector<double> out;
  for (int i = 0; i < decades; ++i)
    for (int k = 0; k < n << i; ++k)
      out.push_back((0.1 + 0.9 * (k + 0.5) / (n << i)) * std::pow(10.0, i + 1 - decades));
  out.push_back(1);
  return out;
}
template <int Size>
void check_dynamic(magnitude_book<Size> const& book, int decades, int n) {
  auto const expected = dynamic_entries(decades, n);
  REQUIRE(expected.size() + 1 == book.size);
  CHECK(book.value[0] == 0);
  for (std::size_t k = 0; k < expected.size(); ++k) {
    CHECK(static_cast<double>(book.value[k + 1]) == doctest::Approx(expected[k]).epsilon(3e-7));
    CHECK(book.value[k + 1] > book.value[k]);
  }
}

TEST_CASE("dynamic maps are midpoints of decades") {
  check_dynamic(dynamic8_signed_book, 7, 1);
  check_dynamic(dynamic8_unsigned_book, 7, 2);
  check_dynamic(dynamic4_signed_book, 3, 1);
  CHECK(dynamic8_signed_book.value[127] == 0.99296875F);
  CHECK(dynamic8_signed_book.value[1] == doctest::Approx(5.5e-7F));
  CHECK(dynamic8_unsigned_book.value[254] == 0.996484375F);
  CHECK(dynamic8_unsigned_book.value[1] == doctest::Approx(3.25e-7F));
}

TEST_CASE("the 256 signed entries: negatives of all but the largest, zero, positives") {
  auto const* const all = lowrank::detail::dynamic8_values(lowrank::signedness::with_sign);
  CHECK(all[127] == 0);
  CHECK(all[255] == 1);
  CHECK(all[0] == -0.99296875F);
  for (std::size_t k = 1; k <= 127; ++k) CHECK(all[127 - k] == -all[127 + k]);
}

TEST_CASE("sixteen entries: torchao's, and NormalFloat from the normal distribution") {
  std::vector<float> const dynamic{-0.8875F, -0.6625F, -0.4375F, -0.2125F, -0.0775F, -0.0325F, -0.0055F, 0,
                                   0.0055F,  0.0325F,  0.0775F,  0.2125F,  0.4375F,  0.6625F,  0.8875F,  1};
  for (std::size_t k = 0; k < 16; ++k) {
    CHECK(dynamic4_book.value[k] == doctest::Approx(dynamic[k]).epsilon(1e-6));
    CHECK(linear4_unsigned_book.value[k] == static_cast<float>(k + 1) / 16);
  }
  auto const quantile = [](double p) {
    double low = -10, high = 10;
    for (int i = 0; i < 100; ++i) {
      double const middle = (low + high) / 2;
      (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
    }
    return low;
  };
  // Seven negative entries, zero, eight positive ones: evenly spaced in probability on either side, ends at +-1.
  double const offset = 0.9677083, end = quantile(offset);
  for (int k = 0; k < 16; ++k) {
    double const p = k < 7 ? offset + (0.5 - offset) * k / 7 : offset + (0.5 - offset) * (15 - k) / 8;
    double const expected = (k < 7 ? -1 : 1) * quantile(p) / end;
    CHECK(std::abs(static_cast<double>(nf4_book.value[static_cast<std::size_t>(k)]) - expected) < 1e-6);
  }
  CHECK(nf4_book.value[7] == 0);
}

/// The threshold is the smallest fp32 number above the middle, or not below it.
void check_threshold(float below, float above, float above_tie, float from_tie) {
  double const middle = (static_cast<double>(below) + static_cast<double>(above)) / 2;
  CHECK(static_cast<double>(above_tie) > middle);
  CHECK(static_cast<double>(next_below(above_tie)) <= middle);
  CHECK(static_cast<double>(from_tie) >= middle);
  CHECK(static_cast<double>(next_below(from_tie)) < middle);
}

TEST_CASE("thresholds are the fp32 numbers next to the middle, for ties down and for ties up") {
  auto const halves = [](auto const& book) {
    for (std::size_t k = 0; k + 1 < book.size; ++k)
      check_threshold(book.value[k], book.value[k + 1], book.above_tie[k], book.from_tie[k]);
    CHECK(book.above_tie[book.size - 1] == std::numeric_limits<float>::infinity());
    CHECK(book.from_tie[book.size - 1] == std::numeric_limits<float>::infinity());
  };
  halves(dynamic8_signed_book);
  halves(dynamic8_unsigned_book);
  halves(dynamic4_signed_book);
  for (auto const* const book : {&nf4_book, &dynamic4_book, &linear4_unsigned_book})
    for (std::size_t k = 1; k < 16; ++k)
      check_threshold(book->value[k - 1], book->value[k], book->above_tie[k], book->from_tie[k]);
}

TEST_CASE("a threshold at zero, and one below it") {
  float const smallest = std::numeric_limits<float>::denorm_min();
  std::array<float, 16> values{};
  for (std::size_t k = 0; k < 16; ++k) values[k] = static_cast<float>(k) - 7.5F;
  book16 const even{values};
  CHECK(even.above_tie[8] == smallest);
  CHECK(even.from_tie[8] == 0);
  CHECK(even.above_tie[1] == next_above(-7.0F));
  CHECK(even.from_tie[1] == -7.0F);
}

template <class Cells, class Book>
void check_cells(Book const& book) {
  for (auto const* const thresholds : {&book.above_tie, &book.from_tie})
    for (std::size_t k = 0; k + 1 < book.size; ++k) {
      auto const cell = [&](std::size_t at) {
        return std::bit_cast<std::int32_t>((*thresholds)[at]) >> Cells::dropped;
      };
      CHECK(cell(k) >= Cells::lowest);
      CHECK(cell(k) <= Cells::highest);
      CHECK((k == 0 || cell(k) > cell(k - 1)));
    }
}

TEST_CASE("no cell of the searches in the dynamic maps holds two thresholds, and none is below the lowest cell") {
  check_cells<lowrank::detail::dynamic8_cells<6>>(dynamic8_signed_book);
  check_cells<lowrank::detail::dynamic8_cells<7>>(dynamic8_unsigned_book);
}

#if defined(LOWRANK_HAS_BYTE_LANES)
template <tie_rule Ties>
void check_codes_together(signedness sign) {
  codec::dynamic8<Ties> const codec{sign};
  std::vector<float> x{0.0F, 1.0F, next_above(1.0F), next_below(1.0F), 1e-30F};
  auto const add_around = [&](auto const& book) {
    for (std::size_t k = 0; k + 1 < book.size; ++k)
      for (float const near : {book.above_tie[k], book.from_tie[k], book.value[k]})
        for (float const y : {next_below(near), near, next_above(near)}) x.push_back(std::abs(y));
  };
  add_around(dynamic8_signed_book);
  add_around(dynamic8_unsigned_book);
  for (float y = 1e-9F; y < 1; y *= 1.0007F) x.push_back(y);
  while (x.size() % 64 != 0) x.push_back(0.5F);
  for (std::size_t i = 0, half = x.size(); i < half; ++i) x.push_back(-x[i]);
  for (float const inverse : {1.0F, 0.3F, 0.0F}) {
    std::vector<pack> packs(x.size() / pack::width);
    for (std::size_t k = 0; k < packs.size(); ++k) packs[k] = pack::load(x.data() + k * pack::width);
    std::vector<std::uint8_t> together(x.size());
    block_scale const shared{.scale = 1, .inverse = inverse};
    codec.encode_many(together.data(), packs.data(), static_cast<index_t>(x.size()), shared);
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) wrong += together[i] != (codec.encode(x[i], shared) & 0xFF);
    CHECK(wrong == 0);
  }
}

TEST_CASE("64 numbers at once get the codes that each of them gets alone, on either side of every threshold") {
  for (auto const sign : {signedness::with_sign, signedness::nonnegative}) {
    check_codes_together<tie_rule::down>(sign);
    check_codes_together<tie_rule::up>(sign);
  }
}
TEST_CASE("a table in registers gives what it was made from") {
  alignas(64) std::array<std::uint8_t, 256> codes{};
  for (std::size_t i = 0; i < 256; ++i) codes[i] = static_cast<std::uint8_t>(i * 37 + 11);
  for (auto const sign : {signedness::with_sign, signedness::nonnegative}) {
    std::array<pack, 256 / pack::width> found;
    scaled_lookup(lowrank::detail::dynamic8_planes(sign), codes.data(), 256, 0.7F, found.data());
    std::array<float, 256> values{};
    for (std::size_t k = 0; k < found.size(); ++k) found[k].store(values.data() + k * pack::width);
    auto const* const book = lowrank::detail::dynamic8_values(sign);
    int wrong = 0;
    for (std::size_t i = 0; i < 256; ++i) wrong += values[i] != 0.7F * book[codes[i]];
    CHECK(wrong == 0);
  }
}
#endif

TEST_SUITE_END();

}  // namespace

}  // namespace code_book_test
