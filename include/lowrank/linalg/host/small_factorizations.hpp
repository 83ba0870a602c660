/// @file
/// Cholesky factor, triangular inverse and symmetric eigenvectors of small fp64 matrices on the host, allocation-free.
/// Blocked over the executor's own products, so include those first or after; bits do not depend on the thread count.
#pragma once

#include <array>
#include <cmath>
#include <concepts>

#include "lowrank/core/scalar.hpp"
#include "lowrank/linalg/host/detail/dot.hpp"
#include "lowrank/linalg/host/detail/partition.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"
#include "lowrank/linalg/host/symmetric_eigenvalues.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

namespace detail {

inline constexpr index_t factor_width = 64;

/// Taken for a bad pivot.
inline constexpr double replacement_pivot = 1e-300;

/// Cholesky factor of one diagonal block in place; inverse_pivots[j] = 0 where the pivot is bad, so that the column is 0.
[[nodiscard]] inline bool factor_diagonal_block(matrix_view<double> c,
                                                std::array<double, factor_width>& inverse_pivots) {
  bool bad = false;
  for (index_t j = 0; j < c.cols; ++j) {
    double const pivot = c(j, j) - dot(&c(j, 0), &c(j, 0), j);
    bool const usable = is_finite(pivot) && pivot > 0;
    double const root = std::sqrt(usable ? pivot : replacement_pivot);
    double const inverse = usable ? 1.0 / root : 0.0;
    inverse_pivots[static_cast<std::size_t>(j)] = inverse;
    bad |= !usable;
    c(j, j) = root;
    for (index_t i = j + 1; i < c.rows; ++i) c(i, j) = (c(i, j) - dot(&c(i, 0), &c(j, 0), j)) * inverse;
  }
  return bad;
}

inline constexpr index_t solve_group = 32;

/// X with X Lᵀ = the rows given, at most solve_group of them, in their place. L is a factored diagonal block.
inline void solve_rows(matrix_view<double const> l, std::array<double, factor_width> const& inverse_pivots,
                       matrix_view<double> rows) {
  // Turned, so that one instruction works on several rows.
  std::array<std::array<double, solve_group>, factor_width> turned{};
  for (index_t i = 0; i < rows.rows; ++i)
    for (index_t j = 0; j < rows.cols; ++j)
      turned[static_cast<std::size_t>(j)][static_cast<std::size_t>(i)] = rows(i, j);
  for (std::size_t j = 0; j < static_cast<std::size_t>(rows.cols); ++j) {
    auto& now = turned[j];
    for (std::size_t k = 0; k < j; ++k) {
      double const by = l(static_cast<index_t>(j), static_cast<index_t>(k));
      for (std::size_t i = 0; i < now.size(); ++i) now[i] -= by * turned[k][i];
    }
    for (auto& x : now) x *= inverse_pivots[j];
  }
  for (index_t i = 0; i < rows.rows; ++i)
    for (index_t j = 0; j < rows.cols; ++j)
      rows(i, j) = turned[static_cast<std::size_t>(j)][static_cast<std::size_t>(i)];
}

/// Lower triangle of one diagonal block becomes that of its inverse, the rest zero.
inline void invert_diagonal_block(matrix_view<double> l) {
  for (index_t i = 0; i < l.rows; ++i) {
    std::array<double, factor_width> sum{};
    for (index_t k = 0; k < i; ++k) {
      double const by = l(i, k);
      for (index_t j = 0; j <= k; ++j) sum[static_cast<std::size_t>(j)] += by * l(k, j);
    }
    double const inverse = 1.0 / l(i, i);
    for (index_t j = 0; j < i; ++j) l(i, j) = -sum[static_cast<std::size_t>(j)] * inverse;
    l(i, i) = inverse;
    for (index_t j = i + 1; j < l.cols; ++j) l(i, j) = 0;
  }
}

template <class E>
void check_square(char const* caller, matrix_view<double> c) {
  require<shape_error>(c.rows == c.cols, caller, "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, caller, "needs neighbouring columns, got stride ",
                       c.col_stride);
}

}  // namespace detail

/// Lower triangle of C becomes L with L Lᵀ = C; the upper one is not read and holds nothing afterwards. *failed = 1 if a pivot was not
/// positive and finite, 0 otherwise. Such a pivot is taken for 1e-300 and the column below it for 0: L stays invertible, and
/// the other columns are factored as if that one were not there.
/// Shapes: C n x n, neighbouring columns.  Cost: n³ / 3 flops; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E>
void factor_cholesky(E& exec, matrix_view<double> c, std::int32_t* failed) {
  detail::check_square<E>("factor_cholesky", c);
  *failed = 0;
  index_t const n = c.rows, width = detail::factor_width;
  for (index_t begin = 0; begin < n; begin += width) {
    index_t const end = std::min(n, begin + width);
    auto const panel = c.sub({begin, n, begin, end});
    if (begin > 0) multiply(exec, -1.0, c.sub({begin, n, 0, begin}), c.sub({begin, end, 0, begin}).t(), 1.0, panel);
    auto const corner = panel.row_range(0, end - begin);
    std::array<double, detail::factor_width> inverse_pivots{};
    if (detail::factor_diagonal_block(corner, inverse_pivots)) *failed = 1;
    index_t const below = n - end, group = detail::solve_group;
    exec.parallel((below + group - 1) / group, [&](index_t number) {
      index_t const first = end - begin + number * group;
      detail::solve_rows(corner, inverse_pivots, panel.row_range(first, std::min(panel.rows, first + group)));
    });
  }
}

/// Lower triangle of L becomes that of L⁻¹, the rest zero. A zero on the diagonal gives infinities, never a trap.
/// Shapes: L n x n, neighbouring columns.  Cost: 2 n³ / 3 flops; workspace 0 (the upper triangle serves).  Throws: shape_error.
template <std::derived_from<host_executor> E>
void invert_lower(E& exec, matrix_view<double> l) {
  detail::check_square<E>("invert_lower", l);
  index_t const n = l.rows, width = detail::factor_width;
  exec.parallel((n + width - 1) / width, [&](index_t number) {
    index_t const begin = number * width, end = std::min(n, begin + width);
    detail::invert_diagonal_block(l.sub({begin, end, begin, end}));
  });
  // Of [A 0; B C] with both corners inverted already it is -C⁻¹ (B A⁻¹) that is missing; the product is parked above.
  for (index_t half = width; half < n; half *= 2)
    for (index_t begin = 0; begin + half < n; begin += 2 * half) {
      index_t const middle = begin + half, end = std::min(n, middle + half);
      auto const below = l.sub({middle, end, begin, middle}), parked = l.sub({begin, middle, middle, end});
      multiply(exec, 1.0, l.sub({begin, middle, begin, middle}).t(), below.t(), 0.0, parked);
      multiply(exec, -1.0, l.sub({middle, end, middle, end}), parked.t(), 0.0, below);
      detail::scale_tile(0.0, parked);
    }
}

}  // namespace lowrank
