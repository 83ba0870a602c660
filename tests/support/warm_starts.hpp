// What tests of warm-started bases share: bases, options in every combination, and how alike two bases are.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lowrank/linalg/warm_range.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

/// The first k left singular vectors of `with_spectrum` of the same seed, or any orthonormal columns.
[[nodiscard]] inline matrix<float> orthonormal_basis(index_t m, index_t k, std::uint64_t seed) {
  auto const q = orthonormal_columns(m, k, seed);
  matrix<float> out{m, k};
  for (index_t i = 0; i < m; ++i)
    for (index_t c = 0; c < k; ++c) out(i, c) = static_cast<float>(q(c, i));
  return out;
}

/// ‖AᵀB‖² / r: 1 where two bases of r columns span the same.
[[nodiscard]] inline double shared_part(matrix<float> const& a, matrix<float> const& b) {
  return squared_norm_of(plain_product(a.view().t(), b.view()).view()) / static_cast<double>(b.shape().cols);
}

/// PᵀQ is symmetric and positive semidefinite: no other frame of span(Q) is nearer to P.
inline void check_nearest_frame(matrix<float> const& p, matrix<float> const& q) {
  auto c = plain_product(p.view().t(), q.view());
  index_t const r = c.shape().cols;
  double const rounding = 10 * std::sqrt(static_cast<double>(r)) * eps;
  CHECK(largest_difference(c.view(), c.view().t()) <= rounding);
  // It has a Cholesky factor, give or take rounding.
  bool positive = true;
  for (index_t j = 0; j < r; ++j) {
    double pivot = c(j, j) + 10 * rounding;
    for (index_t k = 0; k < j; ++k) pivot -= c(j, k) * c(j, k);
    positive = positive && pivot > 0;
    double const root = std::sqrt(std::max(pivot, 1e-30));
    for (index_t i = j + 1; i < r; ++i) {
      double sum = c(i, j);
      for (index_t k = 0; k < j; ++k) sum -= c(i, k) * c(j, k);
      c(i, j) = sum / root;
    }
    c(j, j) = root;
  }
  CHECK(positive);
}

/// Bound of ‖QᵀQ - I‖_F, in units of sqrt(r) eps. Rounding averages out over many columns, not over three.
struct orthonormal_units {
  double units{1.25};  // mixed Grams: up to 0.38 of it is what a first-order step may leave
  [[nodiscard]] double of(index_t r) const {
    return (r < 16 ? 2 : 1) * units * std::sqrt(static_cast<double>(r)) * eps;
  }
};

struct warm_case {
  extents g;
  index_t old, r;
};
/// Wide, tall, square, one row, one column, as many columns as rows, more than columns of G, and ranks that change.
inline constexpr warm_case warm_cases[] = {
    {{1, 1}, 1, 1},    {{1, 9}, 1, 1},     {{9, 1}, 1, 1},     {{9, 1}, 4, 4},     {{9, 1}, 1, 4},
    {{20, 8}, 20, 20}, {{8, 20}, 8, 8},    {{8, 20}, 0, 3},    {{40, 40}, 40, 40}, {{40, 100}, 5, 5},
    {{40, 100}, 2, 7}, {{40, 100}, 14, 4}, {{70, 30}, 12, 12}, {{70, 30}, 50, 35}, {{70, 30}, 10, 35}};

[[nodiscard]] inline std::vector<lowrank::warm_options> every_warm_options() {
  using namespace lowrank;
  std::vector<warm_options> out;
  for (index_t const fresh : {0, 8})
    for (index_t const passes : {1, 2, 3})
      for (auto const between : {between_products::orthonormalize, between_products::nothing})
        for (auto const order : {column_order::as_iterated, column_order::by_energy})
          for (auto const align : {alignment::none, alignment::signs, alignment::nearest_frame})
            out.push_back({fresh, passes, between, order, align});
  // What happens to a block before it is made orthonormal and after it does not ask how it is ordered and aligned.
  for (index_t const fresh : {0, 8})
    for (index_t const passes : {1, 2})
      for (index_t const again : {0, 3})
        out.push_back({.fresh = fresh, .passes = passes, .between = between_products::shift, .again = again});
  for (auto const between : {between_products::orthonormalize, between_products::nothing})
    out.push_back({.between = between, .order = column_order::by_energy, .again = 3});
  return out;
}
[[nodiscard]] inline std::string named(lowrank::warm_options const& o) {
  return "fresh " + std::to_string(o.fresh) + ", passes " + std::to_string(o.passes) + ", between " +
         std::to_string(static_cast<int>(o.between)) + ", order " + std::to_string(static_cast<int>(o.order)) +
         ", align " + std::to_string(static_cast<int>(o.align)) + ", again " + std::to_string(o.again);
}

}  // namespace lowrank_test
