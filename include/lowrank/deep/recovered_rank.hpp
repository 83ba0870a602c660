/// @file
/// Which rank a deep matrix has come to.
#pragma once

#include "lowrank/deep/gradient.hpp"
#include "lowrank/deep/leading_directions.hpp"

namespace lowrank::deep {

/// The leading singular values of X_K ... X_1, without offsets.
struct recovered_rank {
  std::vector<double> values;  ///< descending

  /// How many are at least `relative` of the largest.
  [[nodiscard]] index_t rank(double relative = 1e-3) const noexcept {
    index_t count = 0;
    for (double const value : values) count += value > 0 && value >= relative * values.front() ? 1 : 0;
    return count;
  }
};

/// Scratch of `recovered`.
template <class T>
[[nodiscard]] index_t recovered_bytes(deep_matrix<T> const& w, index_t most) noexcept {
  auto const cut = detail::cut_of(w);
  index_t const k = w.factor(cut).values.shape().cols, m = w.shape().rows, n = w.shape().cols;
  index_t const b = detail::search_columns(w.shape(), most, {});
  return detail::running_bytes(w, {0, cut}) + detail::running_bytes(w, {cut, w.factor_count()}) +
         scratch_bytes<T>(n * k) + scratch_bytes<T>(k * b) + scratch_bytes<T>(m * most) + scratch_bytes<T>(n * most) +
         leading_directions_bytes<T>(w.shape(), most);
}

/// The `most` leading values by a subspace iteration; those below the square root of the precision times the largest are noise.
/// Cost: 28 (m + n) k (most + 8) flops for inner sides of k; workspace recovered_bytes.  Throws: shape_error.
template <class E, class T>
[[nodiscard]] recovered_rank recovered(E& exec, deep_matrix<T> const& w, index_t most, rng_key key = {}) {
  require<shape_error>(most >= 1 && most <= std::min(w.shape().rows, w.shape().cols), "deep::recovered",
                       "needs between 1 and min(m, n) values of ", w.shape(), ", got ", most);
  scratch_scope const scope{exec};
  auto const parts = detail::cut_in_two(exec, w);
  auto const& a = parts.view.a;
  auto const& b = parts.view.b;
  auto const between = detail::take<T>(exec.arena(), {a.cols, detail::search_columns(w.shape(), most, {})});
  auto const u = detail::take<T>(exec.arena(), {a.rows, most}), v = detail::take<T>(exec.arena(), {b.rows, most});
  recovered_rank out{.values = std::vector<double>(static_cast<std::size_t>(most))};
  auto const product = [&](matrix_view<T const> left, matrix_view<T const> right, matrix_view<T const> x,
                           matrix_view<T> y) {
    multiply(exec, T{1}, right.t(), x, T{0}, between);
    multiply(exec, T{1}, left, matrix_view<T const>(between), T{0}, y);
  };
  leading_directions<T>(
      exec, w.shape(), [&](matrix_view<T const> x, matrix_view<T> y) { product(a, b, x, y); },
      [&](matrix_view<T const> y, matrix_view<T> x) { product(b, a, y, x); }, u, v, out.values.data(), key);
  return out;
}

}  // namespace lowrank::deep
