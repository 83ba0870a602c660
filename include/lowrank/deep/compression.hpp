/// @file
/// A deep factorization learns in a tiny subspace, known at its beginning: the same dynamics with factors of 2r instead of d.
#pragma once

#include <optional>

#include "lowrank/deep/gradient.hpp"
#include "lowrank/deep/leading_directions.hpp"
#include "lowrank/deep/residual_operator.hpp"

namespace lowrank::deep {

/// How a deep factorization is compressed. Rank: what is looked for, or more; 2 rank columns are kept.
struct compression_settings {
  index_t rank{10};
  /// The discrepant rate γ: updates of the outer factors are multiplied by it. 0 is exact where all of Φ is known, and stalls
  /// where it is not: the first gradient on Ω does not span what is to be found.
  float outer_rate{0.01F};
  direction_options directions{};

  void check(extents shape) const {
    constexpr auto* caller = "deep::compression_settings";
    require(rank >= 1 && 2 * rank <= std::min(shape.rows, shape.cols), caller,
            "needs 1 <= 2 rank <= 2 min(m, n) / 2 of ", shape, ", got rank ", rank);
    require(is_finite(outer_rate) && outer_rate >= 0, caller, "outer_rate must be finite and not negative, got ",
            outer_rate);
  }
};

namespace detail {

/// The deep matrix with X_1 square first: itself, or where n > m its transpose.
template <class T>
struct square_first {
  deep_matrix<T> const& w;
  bool flipped;

  [[nodiscard]] matrix_view<T const> factor(std::size_t l) const noexcept {
    return flipped ? w.factor(w.factor_count() - 1 - l).values.view().t() : w.factor(l).values.view();
  }
  [[nodiscard]] extents shape() const noexcept { return flipped ? w.shape().t() : w.shape(); }
};

/// W X / scale^K by its factors, through scratch of the caller's scope; and Wᵀ Y / scale^K.
template <class E, class T>
matrix_view<T const> through(E& exec, square_first<T> const& w, matrix_view<T const> x, T scale) {
  for (std::size_t l = 0; l < w.w.factor_count(); ++l) {
    auto const next = take<T>(exec.arena(), {w.factor(l).rows, x.cols});
    multiply(exec, T{1} / scale, w.factor(l), x, T{0}, next);
    x = next;
  }
  return x;
}
template <class E, class T>
matrix_view<T const> back_through(E& exec, square_first<T> const& w, matrix_view<T const> y, T scale) {
  for (std::size_t l = w.w.factor_count(); l-- > 0;) {
    auto const next = take<T>(exec.arena(), {w.factor(l).cols, y.cols});
    multiply(exec, T{1} / scale, w.factor(l).t(), y, T{0}, next);
    y = next;
  }
  return y;
}

/// left (W̃_L ... W̃_1) rightᵀ with inner factors scale · I.
template <class T>
[[nodiscard]] deep_matrix<T> between(matrix_view<T const> left, matrix_view<T const> right, index_t depth, T scale,
                                     float outer_rate) {
  index_t const k = left.cols;
  std::vector<layer<T>> factors;
  auto const outer = [&](char const* name, matrix_view<T const> from) {
    factors.push_back({name, matrix<T>{from.shape()}, outer_rate, 0.0F});
    for (index_t i = 0; i < from.rows; ++i)
      for (index_t j = 0; j < from.cols; ++j) factors.back().values(i, j) = from(i, j);
  };
  outer("right", right.t());
  for (index_t l = 0; l < depth; ++l) {
    factors.push_back({"W" + std::to_string(l + 1), matrix<T>{k, k}});
    for (index_t i = 0; i < k; ++i) factors.back().values(i, i) = scale;
  }
  outer("left", left);
  return deep_matrix<T>{std::move(factors)};
}

}  // namespace detail

/// Scratch of `compress` and of `compressed_start`.
template <class T>
[[nodiscard]] index_t compression_bytes(extents shape, index_t depth, compression_settings const& settings) noexcept {
  index_t const longer = std::max(shape.rows, shape.cols), r = settings.rank;
  return (2 * depth + 8) * scratch_bytes<T>(longer * 2 * r) + scratch_bytes<double>(r) +
         leading_directions_bytes<T>(tall(shape), r, settings.directions) +
         orthonormal_columns_bytes<T>({longer, 2 * r});
}

/// W at its orthogonal beginning, compressed: left (W̃_L ... W̃_1) rightᵀ with L inner factors 2r x 2r which begin at ε I, and
/// trained like W it goes W's way, up to ε^L sqrt(d - 2r) that W itself cannot get below.
/// V = [V_R, Wᵀ U_R / ε^L] with the leading singular vectors of the residual, U = W V / ε^L. That is the paper's V from the
/// first factor's gradient, ε^(L-1) Qᵀ R with orthogonal Q. Where m and n differ, U = [W V_R / ε^L, U_R] made orthonormal, and
/// W's way is kept only roughly.
/// Requires: W of `full_width`, not trained yet, of scale ε; 2r <= min(m, n).
/// Cost: 2 power_steps + 2 products of the residual with r + oversampling columns, two of W's factors with 2r, one QR of 2r
/// columns; workspace compression_bytes and gradients_bytes.
/// Throws: shape_error, argument_error.
/// Reference: Yaras, Wang, Balzano, Qu (ICML 2024), theorem 2.1 and (5); one truncated SVD in place of three full ones.
template <class E, class T, target_of<T> Target>
[[nodiscard]] deep_matrix<T> compress(E& exec, deep_matrix<T> const& w, Target const& target,
                                      compression_settings const& settings, rng_key key) {
  constexpr auto* caller = "deep::compress";
  settings.check(w.shape());
  require<shape_error>(w.shape() == target.shape(), caller, "needs a matrix of the target's ", target.shape(), ", got ",
                       w.shape());
  detail::square_first<T> const from{w, w.shape().cols > w.shape().rows};
  auto const first = from.factor(0);
  require<shape_error>(first.rows == first.cols, caller, "the factor at the shorter side must be square, got ",
                       first.shape());
  double squares = 0;
  for (index_t i = 0; i < first.rows; ++i)
    for (index_t j = 0; j < first.cols; ++j)
      squares += static_cast<double>(first(i, j)) * static_cast<double>(first(i, j));
  auto const scale = static_cast<T>(std::sqrt(squares / static_cast<double>(first.rows)));
  require(is_finite(scale) && scale > T{}, caller, "needs finite factors that are not zero, got scale ", scale);

  scratch_scope const scope{exec};
  auto const residual = [&] {
    scratch_scope const inside{exec};
    return residual_operator<T, Target>{exec, target, detail::cut_in_two(exec, w).view};
  }();
  index_t const d = first.rows, r = settings.rank, longer = from.shape().rows;
  auto const u = detail::take<T>(exec.arena(), {longer, r}), right = detail::take<T>(exec.arena(), {d, r});
  auto const v = detail::take<T>(exec.arena(), {d, 2 * r});
  auto* const values = exec.arena().template take<double>(r);
  auto const forwards = [&](matrix_view<T const> x, matrix_view<T> y) {
    if (from.flipped) residual.apply_transposed(exec, x, y);
    else residual.apply(exec, x, y);
  };
  auto const backwards = [&](matrix_view<T const> y, matrix_view<T> x) {
    if (from.flipped) residual.apply(exec, y, x);
    else residual.apply_transposed(exec, y, x);
  };
  leading_directions<T>(exec, {longer, d}, forwards, backwards, u, right, values, key, settings.directions);
  copy(exec, matrix_view<T const>(right), v.col_range(0, r));
  copy(exec, detail::back_through(exec, from, matrix_view<T const>(u), scale), v.col_range(r, 2 * r));
  orthonormal_columns(exec, key, v);
  auto other = detail::through(exec, from, matrix_view<T const>(v), scale);
  if (longer > d) {
    // W reaches d of the longer side's directions only, and U_R is not among them: it comes itself.
    auto const reached = detail::take<T>(exec.arena(), {longer, 2 * r});
    copy(exec, other.col_range(0, r), reached.col_range(0, r));
    copy(exec, matrix_view<T const>(u), reached.col_range(r, 2 * r));
    orthonormal_columns(exec, key, reached);
    other = reached;
  }
  auto const depth = static_cast<index_t>(w.factor_count());
  matrix_view<T const> const own = v;
  auto out = from.flipped ? detail::between(own, other, depth, scale, settings.outer_rate)
                          : detail::between(other, own, depth, scale, settings.outer_rate);
  if (w.has_offsets()) out.add_offsets(w.mean(), w.at(w.factor_count()).rate, w.at(w.factor_count()).decay);
  return out;
}

/// A compressed beginning without the full one: right = [V_G, Z], left = [Y, U_G] with the leading singular vectors of R at
/// W = mean, and random Z ⟂ V_G, Y ⟂ U_G. It is what `compress` gives for some orthogonal beginning; no d x d factor is formed.
/// Cost: 2 power_steps + 2 products of the residual with r + oversampling columns; workspace compression_bytes.
/// Throws: shape_error, argument_error.
template <class E, class T, target_of<T> Target>
[[nodiscard]] deep_matrix<T> compressed_start(E& exec, residual_operator<T, Target> const& residual,
                                              deep_settings const& deep, compression_settings const& settings,
                                              rng_key key) {
  extents const shape = residual.shape();
  deep.check();
  settings.check(shape);
  index_t const r = settings.rank;
  scratch_scope const scope{exec};
  auto const u = detail::take<T>(exec.arena(), {shape.rows, 2 * r}),
             v = detail::take<T>(exec.arena(), {shape.cols, 2 * r});
  auto* const values = exec.arena().template take<double>(r);
  auto const forwards = [&](matrix_view<T const> x, matrix_view<T> y) { residual.apply(exec, x, y); };
  auto const backwards = [&](matrix_view<T const> y, matrix_view<T> x) { residual.apply_transposed(exec, y, x); };
  leading_directions<T>(exec, shape, forwards, backwards, u.col_range(0, r), v.col_range(0, r), values, key,
                        settings.directions);
  key.purpose = rng_purpose::basis;
  fill_gaussian(exec, key, v.col_range(r, 2 * r));
  ++key.step;
  fill_gaussian(exec, key, u.col_range(r, 2 * r));
  orthonormal_columns(exec, key, u);
  orthonormal_columns(exec, key, v);
  auto const crossed = detail::take<T>(exec.arena(), u.shape());
  copy(exec, matrix_view<T const>(u).col_range(r, 2 * r), crossed.col_range(0, r));
  copy(exec, matrix_view<T const>(u).col_range(0, r), crossed.col_range(r, 2 * r));
  return detail::between(matrix_view<T const>(crossed), matrix_view<T const>(v), deep.depth, static_cast<T>(deep.scale),
                         settings.outer_rate);
}

}  // namespace lowrank::deep
