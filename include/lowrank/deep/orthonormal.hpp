/// @file
/// Orthonormal columns in fp32 and in fp64, and the scaled orthogonal matrices deep factorizations begin from.
#pragma once

#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank::deep {

namespace detail {

inline constexpr index_t block_columns = 32;

/// Column c of Y, of length 1 or shorter, loses its part in columns [first, c), twice, and gets length 1. Says false, and leaves
/// it, where nothing but rounding is left.
inline bool settle_column(matrix_view<double> y, index_t first, index_t c) {
  for (int twice = 0; twice < 2; ++twice)
    for (index_t b = first; b < c; ++b) {
      double sum = 0;
      for (index_t i = 0; i < y.rows; ++i) sum += y(i, b) * y(i, c);
      for (index_t i = 0; i < y.rows; ++i) y(i, c) -= sum * y(i, b);
    }
  double squares = 0;
  for (index_t i = 0; i < y.rows; ++i) squares += y(i, c) * y(i, c);
  if (squares < 1e-24) return false;
  double const scale = 1 / std::sqrt(squares);
  for (index_t i = 0; i < y.rows; ++i) y(i, c) *= scale;
  return true;
}
/// Each column gets length 1, whatever its scale; zeros stay zeros.
inline void unit_columns(matrix_view<double> y) {
  for (index_t c = 0; c < y.cols; ++c) {
    double most = 0, squares = 0;
    for (index_t i = 0; i < y.rows; ++i) most = std::max(most, std::abs(y(i, c)));
    if (most == 0) continue;
    for (index_t i = 0; i < y.rows; ++i) y(i, c) /= most, squares += y(i, c) * y(i, c);
    for (index_t i = 0; i < y.rows; ++i) y(i, c) /= std::sqrt(squares);
  }
}

}  // namespace detail

/// Scratch of `orthonormal_columns`.
template <class T>
[[nodiscard]] constexpr index_t orthonormal_columns_bytes(extents y) noexcept {
  if constexpr (std::same_as<T, float>) return orthonormalize_bytes(y) + scratch_bytes<orthonormal_report>(1);
  else return scratch_bytes<double>(y.cols * detail::block_columns);
}

/// Replaces the columns of Y by orthonormal ones that span them; column k is a combination of columns 0 ... k. Dependent
/// columns become random directions orthogonal to the rest.
/// Shapes: Y m x l, l <= m.  Requires: Y finite.
/// Cost: fp32 as `orthonormalize`; fp64 4 m l² flops by blocks of columns; workspace orthonormal_columns_bytes.
/// Throws: shape_error.
/// Reference: Stewart, "Block Gram-Schmidt orthogonalization" (2008).
template <class E, class T>
void orthonormal_columns(E& exec, rng_key key, matrix_view<T> y) {
  require<shape_error>(y.cols <= y.rows, "deep::orthonormal_columns", "needs at most as many columns as rows, got ",
                       y.shape());
  if (y.empty()) return;
  if constexpr (std::same_as<T, float>) {
    orthonormalize(exec, y, key);
  } else {
    scratch_scope const scope{exec};
    auto* const memory = exec.arena().template take<double>(y.cols * detail::block_columns);
    key.purpose = rng_purpose::completion;
    auto const leave = [&](index_t begin, matrix_view<double> columns) {
      if (begin == 0) return;
      matrix_view<double const> const done = y.col_range(0, begin);
      auto const inside = row_major(memory, {begin, columns.cols});
      multiply(exec, 1.0, done.t(), matrix_view<double const>(columns), 0.0, inside);
      multiply(exec, -1.0, done, matrix_view<double const>(inside), 1.0, columns);
    };
    for (index_t begin = 0; begin < y.cols; begin += detail::block_columns) {
      auto const part = y.col_range(begin, std::min(y.cols, begin + detail::block_columns));
      detail::unit_columns(part);
      for (int twice = 0; twice < 2; ++twice) {
        leave(begin, part);
        for (index_t c = 0; c < part.cols; ++c)
          while (!detail::settle_column(part, 0, c)) {
            auto const fresh = part.col_range(c, c + 1);
            fill_gaussian(exec, key, fresh);
            ++key.step;
            detail::unit_columns(fresh);
            leave(begin, fresh);
          }
      }
    }
  }
}

/// W = scale times an orthogonal matrix; where W is not square, its leading rows or columns.
/// Cost: of orthonormal columns of W's shape.
/// Reference: Yaras, Wang, Balzano, Qu, "Compressible dynamics in deep overparameterized low-rank learning" (ICML 2024), 2.
template <class E, class T>
void fill_orthogonal(E& exec, rng_key key, T scale, matrix_view<T> w) {
  auto const tall = w.rows >= w.cols ? w : w.t();
  key.purpose = rng_purpose::initialisation;
  fill_gaussian(exec, key, tall);
  orthonormal_columns(exec, key, tall);
  for (index_t i = 0; i < w.rows; ++i)
    for (index_t j = 0; j < w.cols; ++j) w(i, j) *= scale;
}

}  // namespace lowrank::deep
