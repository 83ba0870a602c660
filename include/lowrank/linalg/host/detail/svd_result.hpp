#pragma once

#include <algorithm>
#include <cmath>

#include "lowrank/core/scalar.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank::detail {

[[nodiscard]] inline bool all_finite(matrix_view<float const> a) noexcept {
  if (a.row_stride < a.col_stride) a = a.t();
  std::uint32_t bad = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) bad |= is_finite(a(i, j)) ? 0U : 1U;
  return bad == 0;
}

/// The power of two that brings the largest magnitude of a finite matrix into [1/2, 1): libraries square what they are
/// given, and not all of them scale first.
struct svd_scale {
  float down{1.0F};
  double up{1.0};

  explicit svd_scale(matrix_view<float const> a) noexcept {
    float largest = 0;
    for (index_t i = 0; i < a.rows; ++i)
      for (index_t j = 0; j < a.cols; ++j) largest = std::max(largest, std::abs(a(i, j)));
    if (largest == 0) return;
    int exponent = 0;
    static_cast<void>(std::frexp(largest, &exponent));
    exponent = std::clamp(exponent, -126, 126);
    down = std::ldexp(1.0F, -exponent);
    up = std::ldexp(1.0, exponent);
  }
};

/// Columns of U and V times the sign that makes the largest entry of U's column (the first of several) positive. V may be
/// empty.
inline void orient_pair(matrix_view<float> u, matrix_view<float> v) noexcept {
  for (index_t k = 0; k < u.cols; ++k) {
    index_t most = 0;
    for (index_t i = 1; i < u.rows; ++i)
      if (std::abs(u(i, k)) > std::abs(u(most, k))) most = i;
    if (!(u(most, k) < 0)) continue;
    for (index_t i = 0; i < u.rows; ++i) u(i, k) = -u(i, k);
    if (k < v.cols)
      for (index_t i = 0; i < v.rows; ++i) v(i, k) = -v(i, k);
  }
}

}  // namespace lowrank::detail
