// The polar factor is the orthonormal frame nearest to given columns, and nothing else is.
#include <doctest/doctest.h>

#include "support/matrices.hpp"
#include "support/orthonormalizers.hpp"

namespace linalg_polar_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

template <class E = host_executor, class O = orthonormal::polar>
matrix<float> made_orthonormal(matrix<float> const& y, O const& o = {}, orthonormal_report* report = nullptr) {
  E exec{{.threads = 2, .scratch_bytes = o.bytes(y.shape())}};
  auto q = copy_of(y.view());
  o(exec, q.view(), rng_key{.seed = 1}, report);
  return q;
}

double trace(matrix<double> const& a) {
  double sum = 0;
  for (index_t i = 0; i < a.shape().rows; ++i) sum += a(i, i);
  return sum;
}

/// A B, rounded to fp32.
template <class A, class B>
matrix<float> rounded_product(matrix<A> const& a, matrix<B> const& b) {
  auto const wide = plain_product(a.view(), b.view());
  matrix<float> out{wide.shape()};
  for (index_t e = 0; e < wide.shape().size(); ++e) out.data()[e] = static_cast<float>(wide.data()[e]);
  return out;
}

double distance(matrix<float> const& a, matrix<float> const& b) {
  double sum = 0;
  for (index_t e = 0; e < a.shape().size(); ++e)
    sum += std::pow(static_cast<double>(a.data()[e]) - static_cast<double>(b.data()[e]), 2);
  return std::sqrt(sum);
}

}  // namespace

TEST_SUITE("polar") {
  TEST_CASE_TEMPLATE("QᵀY is symmetric and its trace the sum of singular values, which no other frame reaches", E,
                     LOWRANK_TEST_EXECUTORS, blind_executor) {
    for (extents const shape : {extents{50, 1}, extents{90, 12}, extents{40, 40}, extents{300, 70}})
      for (double const condition : {1.05, 10.0, 1e3, 1e5}) {
        CAPTURE(shape);
        CAPTURE(condition);
        auto const s = geometric(shape.cols, condition);
        auto const y = with_spectrum(shape, s, 21);
        double sum = 0;
        for (double const value : s) sum += value;
        auto const q = made_orthonormal<E>(y);
        auto const inner = plain_product(q.view().t(), y.view());
        CHECK(trace(inner) == doctest::Approx(sum).epsilon(1e-6));
        CHECK(largest_difference(inner.view(), inner.view().t()) <= 4 * eps);
        auto const other = made_orthonormal<E>(y, orthonormal::cholesky{});
        double const beside = trace(plain_product(other.view().t(), y.view()));
        CHECK(beside <= trace(inner) + 1e-6);
        if (condition > 2 && shape.cols > 1) CHECK(beside < 0.999 * trace(inner));
      }
  }
  TEST_CASE("rank deficient columns: the trace is still the sum of singular values") {
    auto const y = with_spectrum({80, 10}, {3, 2, 1}, 5);
    orthonormal_report report;
    auto const q = made_orthonormal(y, orthonormal::polar{}, &report);
    CHECK(report.failed == 0);
    CHECK(trace(plain_product(q.view().t(), y.view())) == doctest::Approx(6).epsilon(1e-6));
  }
  TEST_CASE("orthonormal columns stay: their own bits on the host, to rounding elsewhere") {
    for (extents const shape : {extents{60, 20}, extents{256, 128}}) {
      auto const wide = orthonormal_columns(shape.rows, shape.cols, 3);
      matrix<float> y{shape};
      for (index_t i = 0; i < shape.rows; ++i)
        for (index_t j = 0; j < shape.cols; ++j) y(i, j) = static_cast<float>(wide(j, i));
      orthonormal_report report{.passes = 3};
      CHECK(same_bits(made_orthonormal(y, orthonormal::polar{}, &report), y));
      CHECK(report.passes == 0);
      CHECK(report.failed == 0);
      CHECK(largest_difference(made_orthonormal<blind_executor>(y).view(), y.view()) <= 4 * eps);
    }
  }
  TEST_CASE("both ways lead to the same frame") {
    // 0.09 is inside the region of Newton-Schulz steps alone, 0.11 outside; both are scaled copies of one frame.
    auto const q = made_orthonormal(random_matrix({70, 9}, 2));
    for (double const departure : {0.0, 1e-6, 1e-3, 0.09, 0.11, 0.5, 10.0, 1e12}) {
      CAPTURE(departure);
      auto y = copy_of(q.view());
      auto const factor = static_cast<float>(std::sqrt(1 + departure / 3));
      for (index_t e = 0; e < y.shape().size(); ++e) y.data()[e] *= factor;
      orthonormal_report report;
      CHECK(largest_difference(made_orthonormal(y, orthonormal::polar{}, &report).view(), q.view()) <= 4 * eps);
      CHECK(report.failed == 0);
    }
  }
  TEST_CASE("a change of Y changes Q in proportion") {
    // ‖Q' - Q‖_F <= 2 / (s_min + s'_min) ‖Y' - Y‖_F: Li, Sun, "Perturbation bounds for unitary polar factors" (2003).
    extents const shape{100, 16};
    auto const noise = random_matrix(shape, 9);
    for (double const condition : {1.0, 20.0})
      for (double const size : {1e-2, 1e-4}) {
        auto const y = with_spectrum(shape, geometric(16, condition), 31);
        auto moved = copy_of(y.view());
        double const factor = size / condition / std::sqrt(squared_norm_of(noise.view()));
        for (index_t e = 0; e < y.shape().size(); ++e) moved.data()[e] += static_cast<float>(factor) * noise.data()[e];
        CHECK(distance(made_orthonormal(moved), made_orthonormal(y)) <= 1.02 * size + 40 * eps);
      }
  }
  TEST_CASE("turning and flipping the columns of Y turns and flips those of Q") {
    auto const y = with_spectrum({120, 24}, geometric(24, 30), 7);
    auto const turn = orthonormal_columns(24, 24, 8);
    auto const q = made_orthonormal(y);
    CHECK(largest_difference(made_orthonormal(rounded_product(y, turn)).view(), rounded_product(q, turn).view()) <=
          100 * eps);
    auto flipped = copy_of(y.view()), expected = copy_of(q.view());
    for (index_t i = 0; i < 120; ++i) flipped(i, 5) = -flipped(i, 5), expected(i, 5) = -expected(i, 5);
    CHECK(largest_difference(made_orthonormal(flipped).view(), expected.view()) <= 30 * eps);
  }
}

}  // namespace linalg_polar_test
