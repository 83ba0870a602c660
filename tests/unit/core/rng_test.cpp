#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <utility>
#include <vector>

#include "lowrank/core/rng.hpp"

namespace rng_test {

namespace {

using namespace lowrank;
using key_pair = std::array<std::uint32_t, 2>;

TEST_SUITE_BEGIN("rng");

// The known answers of Random123 (file kat_vectors), and some of our own.
TEST_CASE("Philox4x32-10 gives the published words") {
  struct row {
    philox_block counter;
    key_pair key;
    philox_block words;
  };
  row const rows[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
      {{1, 0, 0, 0}, {0, 0}, {0xf8e4cca4, 0x5cb200db, 0xb1a574eb, 0x097eff67}},
      {{0, 0, 0, 0}, {42, 0}, {0x9ceaf053, 0x77f5493b, 0x12bf50ad, 0x5742b3d7}},
      {{1, 0, 0, 0}, {42, 0}, {0xfcdb2127, 0x53ba6cfd, 0x838f5a6e, 0x744e06fb}},
      {{0xffffffff, 0, 0, 0}, {0, 0}, {0xc5b20a9d, 0x4434ec4e, 0x11bbe4fb, 0x2a1ef7a5}},
      {{0, 1, 0, 0}, {0, 0}, {0x6ad0c5ec, 0xea236249, 0x73a459f5, 0x074944b3}},
      {{1, 0, 5, 0}, {1234, 0}, {0x5c5cf6f4, 0x3fc0ce58, 0x32773955, 0x72c26332}},
  };
  for (auto const& [counter, key, words] : rows) CHECK(philox4x32_10(counter, key) == words);
  static_assert(philox4x32_10({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5);
}

TEST_CASE("blocks lie as in cuRAND: seed 1234, subsequence 5, offset 6") {
  CHECK(random_block(1234, 5, 6 / 4)[6 % 4] == 0x32773955);
  // The block number carries from the first counter word to the second, the subsequence fills the third and fourth.
  CHECK(random_block(0, 0, 0xffffffff) == philox_block{0xc5b20a9d, 0x4434ec4e, 0x11bbe4fb, 0x2a1ef7a5});
  CHECK(random_block(0, 0, 0x100000000) == philox_block{0x6ad0c5ec, 0xea236249, 0x73a459f5, 0x074944b3});
  CHECK(random_block(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
        philox_block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a key is a cuRAND subsequence: purpose, tensor, step") {
  rng_key const key{.seed = 9, .step = 0x89abcdef, .tensor = 0x123456, .purpose = rng_purpose::sketch};
  CHECK(key.subsequence() == 0x0312345689abcdef);
  for (std::uint64_t element = 0; element < 9; ++element)
    CHECK(random_word(key, element) == random_block(9, 0x0312345689abcdef, element / 4)[element % 4]);
}

TEST_CASE("halves and signs are cut from words") {
  rng_key const key{.seed = 3, .step = 1, .tensor = 2, .purpose = rng_purpose::rounding};
  for (std::uint64_t element = 0; element < 64; ++element) {
    auto const word = random_word(key, element / 2);
    CHECK(random_16(key, element) == (element % 2 == 0 ? word & 0xFFFF : word >> 16));
  }
  for (std::uint64_t element = 0; element < 512; ++element)
    CHECK(rademacher(key, element) == ((random_word(key, element / 32) >> (element % 32) & 1) != 0 ? 1.0F : -1.0F));
}

TEST_CASE("Gaussians in cuRAND's order: radius, angle -> sin, cos") {
  auto const near = [](std::array<float, 4> const& got, std::array<double, 4> const& expected) {
    for (std::size_t i = 0; i < 4; ++i) CHECK(std::abs(got[i] - expected[i]) < 6e-8);
  };
  near(gaussian_block(philox4x32_10({0, 0, 0, 0}, {0, 0})), {-0.9246626, 0.9911377, -0.4820686, -0.6176090});
  near(gaussian_block(philox4x32_10({0, 0, 0, 0}, {42, 0})), {0.1940190, -0.9701898, 1.9239267, -1.2356207});
  rng_key const key{.seed = 42};
  for (std::uint64_t element = 0; element < 12; ++element)
    CHECK(gaussian(key, element) == gaussian_block(random_block(key, element / 4))[element % 4]);
}

TEST_CASE("uniform numbers are never 0 and at most 1") {
  CHECK(uniform_01(0) == 0x1p-33);
  CHECK(uniform_01(0xffffffff) == 1 - 0x1p-33);
  CHECK(std::isfinite(gaussian_block({0, 0, 0xffffffff, 0xffffffff})[0]));
  CHECK(std::abs(gaussian_block({0, 0, 0, 0})[1]) < 6.77);  // sqrt(66 ln 2)
}

TEST_CASE("streams of different seed, step, tensor or purpose do not meet") {
  std::vector<rng_key> keys;
  for (std::uint64_t const seed : {0ULL, 1ULL, 1ULL << 32})
    for (std::uint32_t const step : {0U, 1U, 0xffffffffU})
      for (std::uint32_t const tensor : {0U, 1U, 0xffffffU})
        for (auto const purpose : {rng_purpose::basis, rng_purpose::rounding, rng_purpose::sketch, rng_purpose::dropout,
                                   rng_purpose::initialisation, rng_purpose::completion, rng_purpose::data})
          keys.push_back({.seed = seed, .step = step, .tensor = tensor, .purpose = purpose});
  std::set<std::pair<std::uint64_t, std::uint64_t>> streams;
  std::set<philox_block> first, second;
  for (auto const& key : keys) {
    streams.insert({key.seed, key.subsequence()});
    first.insert(random_block(key, 0));
    second.insert(random_block(key, 1));
  }
  CHECK(streams.size() == keys.size());
  CHECK(first.size() == keys.size());
  CHECK(second.size() == keys.size());
}

// Significance: each bound is 5 standard deviations of its estimator, passed by chance with probability 1 - 6e-7. The
// streams are fixed, so a failure is a change of code and not bad luck.
TEST_CASE("moments") {
  rng_key const key{.seed = 20, .step = 7, .tensor = 3, .purpose = rng_purpose::sketch};
  int const count = 1 << 18;
  double const n = count;
  double signs = 0, neighbours = 0, mean = 0, square = 0, cube = 0, fourth = 0, u1 = 0, u2 = 0, lag = 0;
  int beyond = 0;
  float previous_sign = 0, previous = 0;
  for (int i = 0; i < count; ++i) {
    auto const element = static_cast<std::uint64_t>(i);
    float const sign = rademacher(key, element), z = gaussian(key, element);
    double const u = uniform(key, element), x = z;
    REQUIRE((sign == 1 || sign == -1));
    signs += sign;
    neighbours += sign * previous_sign;
    mean += x;
    square += x * x;
    cube += x * x * x;
    fourth += x * x * x * x;
    lag += x * previous;
    beyond += std::abs(z) > 1.959964F ? 1 : 0;
    u1 += u;
    u2 += (u - 0.5) * (u - 0.5);
    previous_sign = sign;
    previous = z;
  }
  CHECK(std::abs(signs / n) < 5 / std::sqrt(n));
  CHECK(std::abs(neighbours / n) < 5 / std::sqrt(n));
  CHECK(std::abs(mean / n) < 5 / std::sqrt(n));
  CHECK(std::abs(square / n - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::abs(cube / n) < 5 * std::sqrt(15 / n));
  CHECK(std::abs(fourth / n - 3) < 5 * std::sqrt(96 / n));
  CHECK(std::abs(lag / n) < 5 / std::sqrt(n));
  CHECK(std::abs(beyond / n - 0.05) < 5 * std::sqrt(0.05 * 0.95 / n));
  CHECK(std::abs(u1 / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(u2 / n - 1.0 / 12) < 5 * std::sqrt(1.0 / 180 / n));
}

// Chi-square over 64 cells has mean 63 and standard deviation sqrt(126) = 11.2; 63 + 5 * 11.2 = 119, p < 3e-5 (its
// right tail is heavier than a normal one).
TEST_CASE("words fill every cell alike, in each of the four places of a block") {
  for (std::size_t place = 0; place < 4; ++place) {
    std::array<double, 64> high{}, low{};
    int const count = 1 << 15;
    for (int i = 0; i < count; ++i) {
      auto const word = random_block(77, 1, static_cast<std::uint64_t>(i))[place];
      high[word >> 26] += 1;
      low[word & 63U] += 1;
    }
    for (auto const& cells : {high, low}) {
      double chi_square = 0, const_expected = count / 64.0;
      for (double const cell : cells) chi_square += (cell - const_expected) * (cell - const_expected) / const_expected;
      CHECK(chi_square < 119);
      CHECK(chi_square > 26);  // nor is it too even: p < 1e-5
    }
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace rng_test
