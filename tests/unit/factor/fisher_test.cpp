#include "lowrank/factor/fisher.hpp"

#include <doctest/doctest.h>

#include "lowrank/factor/whitened.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/statistics.hpp"

namespace fisher_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

matrix<double> damped_moment(activation_statistics const& s, double share) {
  index_t const n = s.features();
  matrix<double> out{n, n};
  s.second_moment(out.view());
  double trace = 0;
  for (index_t i = 0; i < n; ++i) trace += out(i, i);
  for (index_t i = 0; i < n; ++i) out(i, i) += share * trace / static_cast<double>(n);
  return out;
}

/// tr(D (W - U V) C (W - U V)ᵀ).
double weighted_loss(matrix<float> const& w, factor_pair const& pair, matrix<double> const& c,
                     matrix<double> const& d) {
  auto const product = plain_product(pair.u.view(), pair.v.view());
  matrix<double> difference{w.shape()};
  for (index_t e = 0; e < w.shape().size(); ++e)
    difference.data()[e] = static_cast<double>(w.data()[e]) - product.data()[e];
  auto const left = plain_product(d.view(), difference.view()), right = plain_product(difference.view(), c.view());
  double sum = 0;
  for (index_t e = 0; e < w.shape().size(); ++e) sum += left.data()[e] * right.data()[e];
  return sum;
}

}  // namespace

TEST_SUITE("factors that know output gradients") {
  TEST_CASE_TEMPLATE("the weighted loss is the sum of the trailing eigenvalues, and no other method's is less", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape : {extents{24, 30}, extents{30, 24}, extents{20, 20}})
      for (index_t const rows : {10, 300}) {
        CAPTURE(shape);
        CAPTURE(rows);
        auto const w = random_matrix(shape, 3);
        auto const inputs = statistics_of(exec, shape.cols, rows, 5);
        auto const gradients = statistics_of(exec, shape.rows, rows, 6);
        factor::fisher const method{};
        auto const c = damped_moment(inputs, method.input_damping);
        auto const d = damped_moment(gradients, method.output_damping);
        auto const view = matrix_view<float const>(w.view());
        auto const basis = method.decompose(exec, view, inputs, gradients);
        auto const unity = plain_product(basis.duals.view().t(), basis.directions.view());
        for (index_t i = 0; i < unity.shape().rows; ++i)
          for (index_t j = 0; j < unity.shape().cols; ++j) CHECK(std::abs(unity(i, j) - (i == j ? 1 : 0)) <= 1e-11);
        for (index_t const r : {index_t{1}, index_t{5}, index_t{12}, basis.most()}) {
          CAPTURE(r);
          auto const pair = factors(exec, method, basis, view, inputs, r);
          double const found = weighted_loss(w, pair, c, d);
          CHECK(std::abs(found - basis.loss(r)) <= 1e-6 * basis.loss(r) + 1e-12 * basis.loss(0));
          if (r < basis.most())
            CHECK(found < weighted_loss(w, factorize(exec, factor::whitened{}, view, inputs, r), c, d));
        }
      }
  }
  TEST_CASE("where all outputs matter alike it is the whitened form") {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({16, 20}, 3);
    auto const inputs = statistics_of(exec, 20, 200, 5);
    // Rows ±2 e_i: their second moment is a multiple of I.
    matrix<float> rows{32, 16};
    for (index_t i = 0; i < 16; ++i) rows(i, i) = 2, rows(16 + i, i) = -2;
    activation_statistics gradients{16};
    gradients.add(exec, rows.view());
    auto const view = matrix_view<float const>(w.view());
    factor::fisher const method{.input_damping = 0};
    auto const basis = method.decompose(exec, view, inputs, gradients);
    auto const pair = factors(exec, method, basis, view, inputs, 6);
    auto const plain = factorize(exec, factor::whitened{}, view, inputs, 6);
    CHECK(largest_difference(plain_product(pair.u.view(), pair.v.view()).view(),
                             plain_product(plain.u.view(), plain.v.view()).view()) <= 1e-5);
  }
  TEST_CASE("what cannot be meant is refused") {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({8, 6}, 1);
    auto const view = matrix_view<float const>(w.view());
    auto const inputs = statistics_of(exec, 6, 20, 1), gradients = statistics_of(exec, 8, 20, 2);
    factor::fisher const method{};
    CHECK_THROWS_AS(std::ignore = method.decompose(exec, view, gradients, inputs), shape_error);
    CHECK_THROWS_AS(std::ignore = method.decompose(exec, view, inputs, activation_statistics{8}), state_error);
    CHECK_THROWS_AS(std::ignore = factor::fisher{.output_damping = 0}.decompose(exec, view, inputs, gradients),
                    argument_error);
    activation_statistics silent{8};
    silent.add(exec, matrix<float>{5, 8}.view());
    CHECK_THROWS_AS(std::ignore = method.decompose(exec, view, inputs, silent), argument_error);
    auto const basis = method.decompose(exec, view, inputs, gradients);
    factor::fisher const split{.balance = factor_balance::spectral};
    CHECK_THROWS_AS(std::ignore = factors(exec, split, basis, view, inputs, 2), argument_error);
  }
}

}  // namespace fisher_test
