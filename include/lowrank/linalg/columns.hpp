/// @file
/// Work on whole columns: what orthonormalisation does between its products. An executor with memory of its own brings
/// its own overloads of these, next to its products.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cmath>

#include "lowrank/linalg/elementwise.hpp"

namespace lowrank {

namespace detail {

inline constexpr index_t column_group = 64;

/// body(columns, first) for groups of neighbouring columns of y.
template <class Body>
void for_column_groups(host_executor& exec, matrix_view<float> y, Body const& body) {
  exec.parallel((y.cols + column_group - 1) / column_group, [&](index_t number) {
    index_t const begin = number * column_group;
    body(y.col_range(begin, std::min(y.cols, begin + column_group)), begin);
  });
}

/// |x| as an integer that sorts as |x| does, infinity and NaN above everything.
[[nodiscard]] LOWRANK_HD constexpr std::uint32_t magnitude_bits(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU;
}

/// e with |x| in [2^e, 2^(e + 1)), from the magnitude bits of x. A subnormal is its bits times 2^-149.
[[nodiscard]] LOWRANK_HD constexpr int binary_exponent(std::uint32_t magnitude) noexcept {
  return magnitude >= 0x00800000U ? static_cast<int>(magnitude >> 23) - 127
                                  : static_cast<int>(std::bit_width(magnitude)) - 150;
}

/// f(i, j) over a view, neighbours in memory after each other.
template <class F>
void in_memory_order(matrix_view<float> v, F const& f) {
  if (v.col_stride <= v.row_stride)
    for (index_t i = 0; i < v.rows; ++i)
      for (index_t j = 0; j < v.cols; ++j) f(i, j);
  else
    for (index_t j = 0; j < v.cols; ++j)
      for (index_t i = 0; i < v.rows; ++i) f(i, j);
}

}  // namespace detail

/// Each column times the power of two that brings its largest magnitude into [1, 2): exact, and no square of an element
/// overflows or vanishes afterwards. *nonfinite becomes 1 when there is a NaN or an infinity, 0 otherwise.
inline void balance_columns(host_executor& exec, matrix_view<float> y, std::int32_t* nonfinite) {
  *nonfinite = 0;
  detail::for_column_groups(exec, y, [&](matrix_view<float> part, index_t) {
    std::array<std::uint32_t, detail::column_group> largest{};
    detail::in_memory_order(part, [&](index_t i, index_t j) {
      auto& most = largest[static_cast<std::size_t>(j)];
      most = std::max(most, detail::magnitude_bits(part(i, j)));
    });
    std::array<double, detail::column_group> factor{};
    std::array<float, detail::column_group> narrow{};
    bool every = true;  // factor is an fp32 number: then so is the product, to the same bits
    for (std::size_t j = 0; j < static_cast<std::size_t>(part.cols); ++j) {
      if (largest[j] >= 0x7F800000U) std::atomic_ref<std::int32_t>{*nonfinite}.store(1, std::memory_order_relaxed);
      int const exponent = detail::binary_exponent(largest[j]);
      factor[j] = std::bit_cast<double>(static_cast<std::uint64_t>(1023 - exponent) << 52);
      narrow[j] = static_cast<float>(factor[j]);
      every &= exponent > -127 && exponent < 127;
    }
    if (every)
      return detail::in_memory_order(part,
                                     [&](index_t i, index_t j) { part(i, j) *= narrow[static_cast<std::size_t>(j)]; });
    detail::in_memory_order(part, [&](index_t i, index_t j) {
      part(i, j) = static_cast<float>(static_cast<double>(part(i, j)) * factor[static_cast<std::size_t>(j)]);
    });
  });
}

/// What `scale_gram` and `drop_dependent` saw.
struct gram_condition {
  double departure{};      ///< Frobenius norm of (scaled Gram - I)
  std::int32_t dead{};     ///< columns with scale 0
  std::int32_t dropped{};  ///< columns the last `drop_dependent` made dead
  double weakest{};        ///< smallest squared pivot that `drop_dependent` left alive
};

/// scales[j] = C(j, j)^(-1/2), or 0 where C(j, j) <= floor: such a column is dead.
inline void unit_scales(host_executor&, matrix_view<double const> c, double* scales, double floor) {
  for (index_t j = 0; j < c.cols; ++j) scales[j] = c(j, j) > floor ? 1.0 / std::sqrt(c(j, j)) : 0.0;
}

/// Lower triangle of C = D C D with D = diag(scales), its diagonal 1 + shift. Dead columns become those of the identity,
/// which keeps the others clear of them.
inline void scale_gram(host_executor&, matrix_view<double> c, double const* scales, double shift,
                       gram_condition* condition) {
  std::int32_t dead = 0;
  double sum = 0;
  for (index_t i = 0; i < c.rows; ++i) {
    dead += scales[i] == 0 ? 1 : 0;
    for (index_t j = 0; j < i; ++j) {
      double const scaled = c(i, j) * scales[i] * scales[j];
      c(i, j) = scaled;
      sum += scaled * scaled;
    }
    c(i, i) = 1.0 + shift;
  }
  *condition = {.departure = std::sqrt(2 * sum), .dead = dead, .dropped = 0, .weakest = 0};
}

/// scales[j] = 0 where the Cholesky factor of a scaled Gram has a pivot of at most `tolerance`: what that column has beyond
/// the ones before it is rounding.
inline void drop_dependent(host_executor&, matrix_view<double const> factor, double tolerance, double* scales,
                           gram_condition* condition) {
  condition->dropped = 0;
  condition->weakest = 1;
  for (index_t j = 0; j < factor.cols; ++j) {
    if (scales[j] == 0) continue;
    double const pivot = factor(j, j) * factor(j, j);
    if (pivot > tolerance) {
      condition->weakest = std::min(condition->weakest, pivot);
    } else {
      scales[j] = 0;
      ++condition->dropped;
    }
  }
}

/// W(i, j) = scales[i] L(j, i) for j >= i, 0 below: the upper triangular factor that makes columns orthonormal, from the
/// inverse Cholesky factor of their scaled Gram.
inline void narrow_inverse(host_executor& exec, matrix_view<double const> inverse, double const* scales,
                           matrix_view<float> w) {
  auto const wt = w.t();
  detail::for_row_groups(exec, wt.shape(), [&](index_t begin, index_t end) {
    for (index_t j = begin; j < end; ++j) {
      for (index_t i = 0; i <= j; ++i) wt(j, i) = static_cast<float>(scales[i] * inverse(j, i));
      for (index_t i = j + 1; i < wt.cols; ++i) wt(j, i) = 0.0F;
    }
  });
}

/// W(i, j) = -L(j, i) / scales[j], 0 for dead columns: what X D L⁻ᵀ has along columns before these, in units of X.
inline void narrow_above(host_executor& exec, matrix_view<double const> l, double const* scales, matrix_view<float> w) {
  auto const wt = w.t();
  detail::for_row_groups(exec, wt.shape(), [&](index_t begin, index_t end) {
    for (index_t j = begin; j < end; ++j) {
      double const length = scales[j] != 0 ? -1.0 / scales[j] : 0.0;
      for (index_t i = 0; i < wt.cols; ++i) wt(j, i) = static_cast<float>(length * l(j, i));
    }
  });
}

/// W = D (I - U) - I, D = diag(scales): Y + Y W is Y times the inverse Cholesky factor of its Gram to first order, for a scaled
/// Gram D YᵀY D = I + U + Uᵀ, its strict lower triangle in C.
inline void first_order_inverse(host_executor& exec, matrix_view<double const> c, double const* scales,
                                matrix_view<float> w) {
  auto const wt = w.t();
  detail::for_row_groups(exec, wt.shape(), [&](index_t begin, index_t end) {
    for (index_t j = begin; j < end; ++j) {
      for (index_t i = 0; i < j; ++i) wt(j, i) = static_cast<float>(-scales[i] * c(j, i));
      wt(j, j) = static_cast<float>(scales[j] - 1.0);
      for (index_t i = j + 1; i < wt.cols; ++i) wt(j, i) = 0.0F;
    }
  });
}

/// Fresh columns of about unit length where scales[j] = 0: element (i, j) is uniform in (-1, 1) sqrt(3 / m) from word
/// `first + i l + j` of `key`. Uniform and not signs, because in low dimensions sign vectors are often parallel.
inline void replace_columns(host_executor& exec, rng_key const& key, std::uint64_t first, double const* scales,
                            matrix_view<float> y) {
  auto const length = static_cast<float>(std::sqrt(3.0 / static_cast<double>(y.rows)));
  exec.parallel(y.cols, [&](index_t j) {
    if (scales[j] != 0) return;
    for (index_t i = 0; i < y.rows; ++i) {
      auto const word = random_word(key, first + static_cast<std::uint64_t>(i * y.cols + j));
      y(i, j) = static_cast<float>(static_cast<std::int32_t>(word) >> 7) * 0x1p-24F * length;
    }
  });
}

/// Column k times factor(k); `factor` runs where Y lives.
template <class Factor>
void scale_columns(host_executor& exec, matrix_view<float> y, Factor const& factor) {
  detail::for_column_groups(exec, y, [&](matrix_view<float> part, index_t first) {
    detail::in_memory_order(part, [&](index_t i, index_t j) { part(i, j) *= factor(first + j); });
  });
}

/// Each column times +-1 so that its entry of largest magnitude (the first of several) is positive.
inline void orient_columns(host_executor& exec, matrix_view<float> y) {
  detail::for_column_groups(exec, y, [&](matrix_view<float> part, index_t) {
    std::array<std::uint32_t, detail::column_group> largest{};
    std::array<float, detail::column_group> sign{};
    sign.fill(1.0F);
    detail::in_memory_order(part, [&](index_t i, index_t j) {
      auto const at = static_cast<std::size_t>(j);
      auto const bits = std::bit_cast<std::uint32_t>(part(i, j));
      if ((bits & 0x7FFFFFFFU) <= largest[at]) return;
      largest[at] = bits & 0x7FFFFFFFU;
      sign[at] = (bits & 0x80000000U) != 0 ? -1.0F : 1.0F;
    });
    detail::in_memory_order(part, [&](index_t i, index_t j) { part(i, j) *= sign[static_cast<std::size_t>(j)]; });
  });
}

}  // namespace lowrank
