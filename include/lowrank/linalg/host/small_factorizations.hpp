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
    index_t const below = n - end, group = 32;
    exec.parallel((below + group - 1) / group, [&](index_t number) {
      for (index_t i = end - begin + number * group; i < std::min(panel.rows, end - begin + (number + 1) * group); ++i)
        for (index_t j = 0; j < panel.cols; ++j)
          panel(i, j) =
              (panel(i, j) - detail::dot(&panel(i, 0), &corner(j, 0), j)) * inverse_pivots[static_cast<std::size_t>(j)];
    });
  }
}

/// Lower triangle of L becomes that of L⁻¹, the rest zero. A zero on the diagonal gives infinities, never a trap.
/// Shapes: L n x n, neighbouring columns.  Cost: n³ / 3 flops; workspace 0 (the upper triangle serves).  Throws: shape_error.
template <std::derived_from<host_executor> E>
void invert_lower(E& exec, matrix_view<double> l) {
  detail::check_square<E>("invert_lower", l);
  index_t const n = l.rows, width = detail::factor_width;
  for (index_t begin = 0; begin < n; begin += width) {
    index_t const end = std::min(n, begin + width);
    auto const corner = l.sub({begin, end, begin, end});
    for (index_t j = 0; j < corner.cols; ++j) {
      corner(j, j) = 1.0 / corner(j, j);
      for (index_t i = j + 1; i < corner.rows; ++i) {
        double sum = 0;
        for (index_t k = j; k < i; ++k) sum += corner(i, k) * corner(k, j);
        corner(i, j) = -sum / corner(i, i);
      }
      for (index_t i = 0; i < j; ++i) corner(i, j) = 0;
    }
    if (begin == 0) continue;
    // X[I, :] = -X[I, I] (L[I, :] X[:, :]), the product parked above the diagonal.
    auto const parked = l.sub({0, begin, begin, end});
    auto const row = l.sub({begin, end, 0, begin});
    multiply(exec, 1.0, l.sub({0, begin, 0, begin}).t(), row.t(), 0.0, parked);
    multiply(exec, -1.0, corner, parked.t(), 0.0, row);
    detail::scale_tile(0.0, parked);
  }
}

}  // namespace lowrank
