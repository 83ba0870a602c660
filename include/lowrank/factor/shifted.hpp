/// @file
/// Layers whose inputs have changed, because what lies below them is compressed: what they should compute now, and one
/// factor fitted to the other.
#pragma once

#include "lowrank/factor/factor_pair.hpp"
#include "lowrank/factor/output_basis.hpp"

namespace lowrank {

struct shift_options {
  /// How much W itself is trusted, against the samples: a share of each channel's own E[x'²], so that a few massive channels do
  /// not decide for the rest.
  double ridge{1e-3};
  /// 1: the outputs that the original inputs give are the target; 0: those that W gives on the changed ones; between: a mixture.
  double correction{1};

  void check() const {
    require(ridge >= 1e-9 && is_finite(ridge), "shift_options", "ridge must be finite and >= 1e-9, got ", ridge);
    require(correction >= 0 && correction <= 1, "shift_options", "correction must be in [0, 1], got ", correction);
  }
};

namespace detail {

/// B A⁻¹ for a positive definite A, which is overwritten.
template <class E>
[[nodiscard]] matrix<double> divide(E& exec, char const* caller, matrix_view<double const> b, matrix<double>& a) {
  std::int32_t failed = 0;
  factor_cholesky(exec, a.view(), &failed);
  require(failed == 0, caller, "needs finite moments that belong together");
  invert_lower(exec, a.view());
  auto const left = product(exec, b, read(a).t());
  return product(exec, read(left), read(a));
}

/// The diagonal of A times 1 + share, plus what keeps channels that never spoke invertible.
inline void load_diagonal(double share, matrix_view<double> a) noexcept {
  double trace = 0;
  for (index_t i = 0; i < a.rows; ++i) trace += a(i, i);
  double const floor = trace > 0 ? 1e-6 * trace / static_cast<double>(a.rows) : 1.0;
  for (index_t i = 0; i < a.rows; ++i) a(i, i) += share * (a(i, i) + floor);
}

}  // namespace detail

/// The matrix that does on changed inputs x' what W did on x: M minimises E‖W x - M x'‖² + ‖(W - M) Λ^1/2‖², so M = W (K + Λ)(C' + Λ)⁻¹
/// with K = c E[x x'ᵀ] + (1 - c) C', C' = E[x' x'ᵀ], Λ = ridge · diag(C'). It is not of low rank: factorise it in place of W, with
/// statistics of x'; `whitened` then gives the best U and V together, and nothing is left to alternate.
/// Shapes: W m x n; cross = E[x x'ᵀ] and moment = C', n x n.
/// Cost: n³ + 6 m n² flops in fp64; allocates. C' may be singular.
/// Throws: shape_error; argument_error for NaN or infinity.
/// Reference: the target of "Pivoting factorization" (ICML 2025), with 1 - c its mixture.
template <class E>
[[nodiscard]] matrix<float> shifted_target(E& exec, const_view_of<E> w, matrix_view<double const> cross,
                                           matrix_view<double const> moment, shift_options const& options = {}) {
  constexpr auto* caller = "shifted_target";
  options.check();
  extents const square{w.cols, w.cols};
  detail::check_shape(caller, "a cross moment", cross, square);
  detail::check_shape(caller, "a second moment", moment, square);
  detail::check_finite(exec, caller, "weights", w);
  auto metric = detail::widened(exec, moment);
  detail::load_diagonal(options.ridge, metric.view());
  matrix<double> aim{square};  // K + Λ
  for (index_t i = 0; i < w.cols; ++i)
    for (index_t j = 0; j < w.cols; ++j) aim(i, j) = options.correction * (cross(i, j) - moment(i, j)) + metric(i, j);
  auto const right = detail::product(exec, detail::read(detail::widened(exec, w)), detail::read(aim));
  auto const solved = detail::divide(exec, caller, detail::read(right), metric);
  matrix<float> out{w.shape()};
  convert(exec, detail::read(solved), out.view());
  return out;
}

/// V = (UᵀU)⁻¹ UᵀM: the V that fits U best, in every metric of the inputs.
/// Shapes: M m x n.  Cost: 2 m n r + r² (m + n) flops in fp64; allocates.  Throws: shape_error; argument_error for NaN.
template <class E>
void refit_v(E& exec, const_view_of<E> target, factor_view<float> const& pair) {
  pair.check("refit_v");
  detail::check_shape("refit_v", "a matrix", target, pair.shape());
  detail::check_finite(exec, "refit_v", "weights", target);
  auto const u = detail::widened(exec, pair.u);
  auto gram_of_u = detail::product(exec, detail::read(u).t(), detail::read(u));
  detail::load_diagonal(1e-12, gram_of_u.view());
  auto const right = detail::product(exec, detail::read(detail::widened(exec, target)).t(), detail::read(u));
  auto const solved = detail::divide(exec, "refit_v", detail::read(right), gram_of_u);
  convert(exec, detail::read(solved).t(), pair.v);
}

/// U = M C Vᵀ (V C Vᵀ)⁻¹: the U that fits V best for inputs with second moment C.
/// Shapes: M m x n, C n x n.  Cost: 2 n² r + 2 m n r + r² (m + n) flops in fp64; allocates.
/// Throws: shape_error; argument_error for NaN.
/// Reference: Wang et al., "SVD-LLM" (arXiv 2403.07378), its closed-form update.
template <class E>
void refit_u(E& exec, const_view_of<E> target, matrix_view<double const> moment, factor_view<float> const& pair) {
  pair.check("refit_u");
  detail::check_shape("refit_u", "a matrix", target, pair.shape());
  detail::check_shape("refit_u", "a second moment", moment, {target.cols, target.cols});
  detail::check_finite(exec, "refit_u", "weights", target);
  auto const v = detail::widened(exec, pair.v);
  auto const cv = detail::product(exec, moment, detail::read(v).t());
  auto metric = detail::product(exec, detail::read(v), detail::read(cv));
  detail::load_diagonal(1e-9, metric.view());
  auto const right = detail::product(exec, detail::read(detail::widened(exec, target)), detail::read(cv));
  auto const solved = detail::divide(exec, "refit_u", detail::read(right), metric);
  convert(exec, detail::read(solved), pair.u);
}

}  // namespace lowrank
