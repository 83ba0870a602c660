// Exact decompositions against matrices built from known factors.
#include <doctest/doctest.h>

#include <bit>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace linalg_exact_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("exact decompositions") {
  TEST_CASE_TEMPLATE("A = U S Vᵀ with the values it was built from", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape :
         {extents{1, 1}, extents{1, 7}, extents{7, 1}, extents{30, 30}, extents{60, 25}, extents{25, 60}})
      for (auto const scale : {1.0, 1e18, 1e-25}) {
        CAPTURE(shape);
        CAPTURE(scale);
        index_t const k = std::min(shape.rows, shape.cols);
        auto s = geometric(k, 1e4);
        for (auto& value : s) value *= scale;
        auto const a = with_spectrum(shape, s, 2);
        auto const turned = copy_of(a.view().t());
        matrix<float> u{shape.rows, k}, v{shape.cols, k}, u2{shape.rows, k}, v2{shape.cols, k};
        std::vector<double> values(static_cast<std::size_t>(k));
        CHECK(exact_svd(exec, a.view(), {.u = u.view(), .values = values.data(), .v = v.view()}) ==
              svd_status::converged);
        double const bound = 25 * eps * static_cast<double>(std::max(shape.rows, shape.cols)) * s[0];
        for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::abs(values[i] - s[i]) <= bound);
        CHECK(std::is_sorted(values.rbegin(), values.rend()));
        CHECK(departure_from_orthonormal(u.view()) <= 20 * std::sqrt(static_cast<double>(k)) * eps);
        CHECK(departure_from_orthonormal(v.view()) <= 20 * std::sqrt(static_cast<double>(k)) * eps);
        matrix<double> us{shape.rows, k};
        for (index_t i = 0; i < shape.rows; ++i)
          for (index_t c = 0; c < k; ++c) us(i, c) = static_cast<double>(u(i, c)) * values[static_cast<std::size_t>(c)];
        CHECK(largest_difference(plain_product(us.view(), v.view().t()).view(), a.view()) <= bound);
        for (index_t c = 0; c < k; ++c) {
          index_t most = 0;
          for (index_t i = 1; i < shape.rows; ++i)
            if (std::abs(u(i, c)) > std::abs(u(most, c))) most = i;
          CHECK(u(most, c) > 0);
        }
        // One side alone, another layout, values alone: the same answer.
        CHECK(exact_svd(exec, turned.view().t(), {.u = u2.view()}) == svd_status::converged);
        CHECK(exact_svd(exec, a.view(), {.v = v2.view()}) == svd_status::converged);
        CHECK(same_bits(u, u2));
        CHECK(same_bits(v, v2));
        std::vector<double> alone(values.size());
        CHECK(exact_svd(exec, a.view(), {.values = alone.data()}) == svd_status::converged);
        for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::abs(values[i] - alone[i]) <= bound);
      }
  }
  TEST_CASE_TEMPLATE("zero, rank-deficient and empty matrices", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    for (index_t const rank : {0, 1, 6}) {
      auto const a = with_spectrum({20, 12}, power_law(rank, 1.0), 3);
      matrix<float> u{20, 12}, v{12, 12};
      double values[12];
      CHECK(exact_svd(exec, a.view(), {.u = u.view(), .values = values, .v = v.view()}) == svd_status::converged);
      CHECK(departure_from_orthonormal(u.view()) <= 20 * std::sqrt(12.0) * eps);
      CHECK(departure_from_orthonormal(v.view()) <= 20 * std::sqrt(12.0) * eps);
      for (index_t k = rank; k < 12; ++k) CHECK(values[k] <= 1e-6);
    }
    matrix<float> const none{4, 0};
    CHECK(exact_svd(exec, none.view(), {}) == svd_status::converged);
    matrix<float> wrong{20, 11};
    CHECK_THROWS_AS(exact_svd(exec, matrix<float>{20, 12}.view(), {.u = wrong.view()}), shape_error);
  }
  TEST_CASE_TEMPLATE("thin Q spans A, column by column", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape : {extents{1, 1}, extents{50, 12}, extents{12, 50}, extents{30, 30}}) {
      index_t const k = std::min(shape.rows, shape.cols);
      auto const a = random_matrix(shape, 4);
      matrix<float> q{shape.rows, k};
      householder_qr(exec, a.view(), q.view());
      CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(static_cast<double>(k)) * eps);
      auto const r = plain_product(q.view().t(), a.view());
      for (index_t i = 0; i < k; ++i)
        for (index_t j = 0; j <= i; ++j) {
          if (i == j) CHECK(r(i, j) >= 0);
          else CHECK(std::abs(r(i, j)) <= 1e-4);
        }
      CHECK(largest_difference(plain_product(q.view(), r.view()).view(), a.view()) <= 1e-4);
    }
    for (auto const& [name, y] : hard_cases(40, 12)) {
      CAPTURE(name);
      matrix<float> q{40, 12};
      if (name == "largest floats") continue;  // Householder squares what it is given
      householder_qr(exec, y.view(), q.view());
      CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(12.0) * eps);
    }
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("exact_svd of NaN or infinity says so and writes nothing", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
      auto a = random_matrix({12, 20}, 1);
      a.data()[77] = std::bit_cast<float>(bits);
      matrix<float> u{12, 12};
      CHECK(exact_svd(exec, a.view(), {.u = u.view()}) == svd_status::not_finite);
      CHECK(squared_norm_of(u.view()) == 0);
    }
  }
}

}  // namespace linalg_exact_test
