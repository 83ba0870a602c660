#include "lowrank/factor/truncated_svd.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace truncated_svd_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("truncated SVD") {
  TEST_CASE_TEMPLATE("it loses the tail of the spectrum, and splits the root of each value", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape : {extents{60, 25}, extents{25, 60}, extents{30, 30}, extents{1, 7}, extents{7, 1}}) {
      index_t const k = std::min(shape.rows, shape.cols);
      auto const s = geometric(k, 1e4);
      auto const a = with_spectrum(shape, s, 4);
      auto const basis = factor::truncated_svd{}.decompose(exec, a.view());
      auto const found = basis.values();
      CHECK(found.shape == shape);
      CHECK(basis.most() == k);
      for (std::size_t i = 0; i < s.size(); ++i) CHECK(std::abs(found.values[i] - s[i]) <= 1e-7);
      for (index_t const r : {index_t{1}, (k + 1) / 2, k}) {
        CAPTURE(shape);
        CAPTURE(r);
        auto const pair = truncated_svd(exec, a.view(), r);
        auto const product = plain_product(pair.u.view(), pair.v.view());
        double lost = 0;
        for (index_t e = 0; e < shape.size(); ++e)
          lost += std::pow(static_cast<double>(a.data()[e]) - product.data()[e], 2);
        CHECK(std::abs(lost - energy(s, r, k)) <= 1e-6 * energy(s, r, k) + 1e-12);
        for (index_t c = 0; c < r; ++c) {
          double const value = s[static_cast<std::size_t>(c)];
          CHECK(squared_norm_of(pair.u.view().col_range(c, c + 1)) == doctest::Approx(value).epsilon(1e-3));
          CHECK(squared_norm_of(pair.v.view().row_range(c, c + 1)) == doctest::Approx(value).epsilon(1e-3));
        }
      }
    }
  }
  TEST_CASE_TEMPLATE("the values are those of an exact SVD", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    auto const a = random_matrix({90, 40}, 3);
    std::vector<double> exact(40);
    REQUIRE(exact_svd(exec, matrix_view<float const>(a.view()), {.values = exact.data()}) == svd_status::converged);
    auto const values = factor::truncated_svd{}.decompose(exec, a.view()).values().values;
    auto const turned = factor::truncated_svd{}.decompose(exec, a.view().t()).values().values;
    for (std::size_t i = 0; i < 40; ++i) {
      CHECK(values[i] == doctest::Approx(exact[i]).epsilon(1e-5));
      CHECK(values[i] == doctest::Approx(turned[i]).epsilon(1e-12));
    }
  }
  TEST_CASE_TEMPLATE("leading directions are orthonormal to fp64 and the same as among all, however steep the spectrum",
                     E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    for (extents const shape : {extents{90, 30}, extents{30, 90}, extents{40, 40}})
      for (double const condition : {3.0, 900.0, 1100.0, 1e4, 1e6}) {
        CAPTURE(shape);
        CAPTURE(condition);
        auto const a = with_spectrum(shape, geometric(30, condition), 2);
        auto const all = find_output_basis(exec, a.view());
        CHECK(departure_from_orthonormal(all.directions.view()) <= 1e-12);
        for (index_t const r : {index_t{1}, index_t{9}, index_t{30}}) {
          auto const some = find_output_basis(exec, a.view(), {}, r);
          CHECK(some.most() == r);
          CHECK(some.energies.size() == all.energies.size());
          CHECK(departure_from_orthonormal(some.directions.view()) <= 1e-12);
          auto const shared = plain_product(all.directions.view().col_range(0, r).t(), some.directions.view());
          for (index_t k = 0; k < r; ++k) {
            double const value = std::sqrt(all.energies[static_cast<std::size_t>(k)] / all.energies.front());
            if (value > 1e-3) CHECK(std::abs(shared(k, k)) == doctest::Approx(1).epsilon(1e-6));
          }
        }
      }
    auto const w = random_matrix({20, 12}, 1);
    CHECK_THROWS_AS(std::ignore = find_output_basis(exec, w.view(), {}, 0), argument_error);
    CHECK_THROWS_AS(std::ignore = truncated_svd(exec, w.view(), 0), shape_error);
    CHECK_THROWS_AS(std::ignore = truncated_svd(exec, w.view(), 13), shape_error);
  }
  TEST_CASE("zero and rank-deficient matrices have ordinary factors") {
    host_executor exec{{.threads = 1}};
    for (extents const shape : {extents{12, 30}, extents{30, 12}}) {
      auto const zero = truncated_svd(exec, matrix<float>{shape}.view(), 5);
      CHECK(squared_norm_of(zero.v.view()) == 0);
      CHECK(departure_from_orthonormal(zero.u.view()) <= 1e-5);
      auto const a = with_spectrum(shape, power_law(4, 1.0), 9);
      auto const pair = truncated_svd(exec, a.view(), 12);
      CHECK(largest_difference(plain_product(pair.u.view(), pair.v.view()).view(), a.view()) <= 1e-6);
    }
  }
  TEST_CASE("a spectral split of any factors is that of an SVD of their product") {
    host_executor exec{{.threads = 1}};
    auto const a = random_matrix({20, 33}, 6);
    matrix<double> metric{33, 33};
    for (index_t j = 0; j < 33; ++j) metric(j, j) = 1 + static_cast<double>(j);
    auto const basis = find_output_basis(exec, a.view(), metric.view());
    auto const pair = factors(exec, factor::truncated_svd{.balance = factor_balance::spectral}, basis, a.view(), {}, 7);
    auto const left = plain_product(pair.u.view().t(), pair.u.view());
    auto const right = plain_product(pair.v.view(), pair.v.view().t());
    for (index_t i = 0; i < 7; ++i)
      for (index_t j = 0; j < 7; ++j) {
        CHECK(std::abs(left(i, j) - right(i, j)) <= 1e-5);
        if (i != j) CHECK(std::abs(left(i, j)) <= 1e-5);
        else if (i > 0) CHECK(left(i, i) <= left(i - 1, i - 1));
      }
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("NaN and infinity are refused") {
    host_executor exec{{.threads = 1}};
    for (extents const shape : {extents{12, 20}, extents{20, 12}})
      for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
        auto a = random_matrix(shape, 1);
        a.data()[77] = std::bit_cast<float>(bits);
        CHECK_THROWS_AS(std::ignore = truncated_svd(exec, a.view(), 3), argument_error);
      }
  }
}

}  // namespace truncated_svd_test
