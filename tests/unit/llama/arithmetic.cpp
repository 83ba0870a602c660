#include <doctest/doctest.h>

#include <bit>
#include <limits>
#include <tuple>

#include "../../../examples/llama/exponential.hpp"
#include "fixture.hpp"

namespace arithmetic_test {

using namespace llama_test;

namespace {

template <class T>
std::vector<T> noise(index_t count, std::uint32_t step) {
  std::vector<T> out;
  for (index_t i = 0; i < count; ++i)
    out.push_back(static_cast<T>(lowrank::gaussian({.seed = 9, .step = step}, static_cast<std::uint64_t>(i))));
  return out;
}

template <class T>
void check_small_product(index_t m, index_t k, index_t n) {
  CAPTURE(m);
  CAPTURE(k);
  CAPTURE(n);
  auto const a = noise<T>(m * k, 1), b = noise<T>(k * n, 2), c = noise<T>(m * n, 3);
  auto const right = lowrank::row_major(b.data(), {k, n});
  for (auto const left : {lowrank::row_major(a.data(), {m, k}), lowrank::row_major(a.data(), {k, m}).t()})
    for (auto const how : {llama::writing::overwrite, llama::writing::add}) {
      auto out = c;
      llama::small_product<T>(left, right, lowrank::row_major(out.data(), {m, n}), how);
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) {
          double expected =
              how == llama::writing::add ? static_cast<double>(c[static_cast<std::size_t>(i * n + j)]) : 0.0;
          for (index_t d = 0; d < k; ++d)
            expected += static_cast<double>(left(i, d)) * static_cast<double>(right(d, j));
          CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(i * n + j)]) - expected) < 2e-5);
        }
    }
}

float exponential_of(float x) {
  std::ignore = llama::exponentials<float>(&x, 1, 0.0F, 1.0F);
  return x;
}
float sigmoid_of(float x) {
  auto all = llama::lanes_t<float>{} + x;
  llama::sigmoid(all);
  return all[0];
}

}  // namespace

TEST_SUITE("llama arithmetic") {
  TEST_CASE("exponential is within two units in the last place") {
    double worst = 0;
    for (int i = -870000; i <= 880000; i += 7) {
      float const x = static_cast<float>(i) * 1e-4F;
      double const exact = std::exp(static_cast<double>(x));
      double const unit = std::ldexp(1.0, std::ilogb(exact) - 23);
      worst = std::max(worst, std::abs(static_cast<double>(exponential_of(x)) - exact) / unit);
    }
    MESSAGE("largest error in units in the last place: ", worst);
    CHECK(worst < 2);
    CHECK(exponential_of(0.0F) == 1.0F);
    CHECK(exponential_of(-1e30F) < 1e-37F);
    CHECK(exponential_of(1e30F) > 1e38F);
    CHECK(sigmoid_of(0.0F) == 0.5F);
    CHECK(sigmoid_of(200.0F) == 1.0F);
    CHECK(sigmoid_of(-200.0F) < 1e-37F);
  }

  TEST_CASE("sums and maxima see every element") {
    for (index_t count = 1; count < 70; ++count) {
      CAPTURE(count);
      std::vector<double> ones(static_cast<std::size_t>(count), 1.0);
      CHECK(llama::dot(ones.data(), ones.data(), count) == static_cast<double>(count));
      for (std::size_t at = 0; at < ones.size(); ++at) {
        ones[at] = 2;
        CHECK(llama::largest(ones.data(), count) == 2);
        CHECK(llama::dot(ones.data(), ones.data(), count) == static_cast<double>(count) + 3);
        ones[at] = 1;
      }
    }
  }

  TEST_CASE("exponentials are summed to the last element") {
    for (index_t count = 1; count < 40; ++count) {
      std::vector<float> x(static_cast<std::size_t>(count), 3.0F);
      CHECK(llama::exponentials(x.data(), count, 3.0F, 0.7F) == static_cast<float>(count));
      CHECK(x.back() == 1.0F);
      std::vector<double> y(static_cast<std::size_t>(count), 4.0);
      CHECK(llama::exponentials(y.data(), count, 3.0, 2.0) ==
            doctest::Approx(static_cast<double>(count) * std::exp(2.0)));
    }
  }

  TEST_CASE("small products agree with the definition on every path") {
    for (index_t const m : {1, 4, 7})
      for (index_t const n : {1, 16, 32, 37, 64}) {
        check_small_product<float>(m, 5, n);
        check_small_product<double>(m, 33, n);
      }
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("the exponential of NaN is NaN") {
    // Looks at bits: comparisons with NaN do not survive every flag.
    auto const bits = std::bit_cast<std::uint32_t>(exponential_of(std::numeric_limits<float>::quiet_NaN()));
    CHECK((bits & 0x7FFFFFFFU) > 0x7F800000U);
  }
}

}  // namespace arithmetic_test
