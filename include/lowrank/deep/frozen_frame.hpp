/// @file
/// A compressed factorization whose outer factors are frozen, against a matrix known everywhere: its steps do not see m and n.
#pragma once

#include "lowrank/deep/gradient.hpp"

namespace lowrank::deep {

/// ½‖U C Vᵀ - Φ‖² = ½‖C - UᵀΦV‖² + outside, for orthonormal U and V: C alone is trained, against a 2r x 2r target.
template <class T>
struct frozen_frame {
  deep_matrix<T> inner{};
  matrix<T> target{};
  double outside{};  ///< ½ of the squares of Φ that the frame cannot reach

  [[nodiscard]] dense_target<T> known() const noexcept { return {target.view()}; }
};

/// Takes the inner factors out of a compressed deep matrix.
/// Requires: no offsets; orthonormal outer factors of rate 0.
/// Cost: 2 m n k flops once (k = 2r); allocates n k numbers. A step then takes 2 k³ (L + 2) flops.
/// Throws: shape_error, argument_error.
template <class E, class T>
[[nodiscard]] frozen_frame<T> freeze_outer(E& exec, deep_matrix<T> const& w, dense_target<T> const& target) {
  constexpr auto* caller = "deep::freeze_outer";
  std::size_t const last = w.factor_count() - 1;
  require<shape_error>(w.shape() == target.shape(), caller, "needs a matrix of the target's ", target.shape(), ", got ",
                       w.shape());
  require(w.factor_count() >= 4 && !w.factor(0).trained() && !w.factor(last).trained() && !w.has_offsets(), caller,
          "needs outer factors of rate 0, two inner ones, and no offsets");
  auto const right = w.factor(0).values.view(), left = w.factor(last).values.view();
  matrix<T> seen{right.rows, target.shape().rows};
  frozen_frame<T> out{.target = matrix<T>{left.cols, right.rows}};
  multiply(exec, T{1}, right, target.values.t(), T{0}, seen.view());
  multiply(exec, T{1}, left.t(), matrix_view<T const>(seen.view()).t(), T{0}, out.target.view());
  std::vector<layer<T>> inner;
  for (std::size_t l = 1; l < last; ++l) {
    auto const& from = w.factor(l);
    inner.push_back({from.name, matrix<T>{from.values.shape()}, from.rate, from.decay});
    copy(exec, from.values.view(), inner.back().values.view());
  }
  out.inner = deep_matrix<T>{std::move(inner)};
  // By panels of what is left, not as a difference of squares: the part outside may be 1e-12 of Φ.
  scratch_scope const scope{exec};
  auto const spread = detail::take<T>(exec.arena(), {left.rows, right.rows}),
             b = detail::take<T>(exec.arena(), right.shape().t());
  multiply(exec, T{1}, left, matrix_view<T const>(out.target.view()), T{0}, spread);
  copy(exec, right, b.t());
  out.outside = multiply_residual(exec, target, low_rank_view<T>{.a = spread, .b = b}, residual_products<T>{});
  return out;
}
/// Scratch of `freeze_outer`.
template <class T>
[[nodiscard]] index_t freeze_outer_bytes(deep_matrix<T> const& w, dense_target<T> const& target) noexcept {
  index_t const k = w.factor(0).values.shape().rows;
  return scratch_bytes<T>(w.shape().rows * k) + scratch_bytes<T>(w.shape().cols * k) + residual_bytes(target, k);
}
/// Inner factors, once trained, go back to where they were taken from.
template <class E, class T>
void thaw_outer(E& exec, frozen_frame<T> const& from, deep_matrix<T>& w) {
  require<shape_error>(w.factor_count() == from.inner.factor_count() + 2, "deep::thaw_outer", "needs ",
                       from.inner.factor_count(), " inner factors, got ", w.factor_count() - 2);
  for (std::size_t l = 0; l < from.inner.factor_count(); ++l)
    copy(exec, from.inner.factor(l).values.view(), w.factor(l + 1).values.view());
}

}  // namespace lowrank::deep
