/// @file
/// The orthonormal columns next to given ones: no column turns more than it must.
#pragma once

#include <limits>

#include "lowrank/linalg/frame.hpp"
#include "lowrank/linalg/orthonormalizer.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank {

/// W = (I - C) / 2 in fp32: X + X W is one Newton-Schulz step X (3 I - XᵀX) / 2 for columns X of Gram C. *departure becomes
/// ‖C - I‖_F. An executor with memory of its own brings its own overload.
/// Shapes: C and W l x l.
inline void newton_schulz_factor(host_executor&, matrix_view<double const> c, matrix_view<float> w, double* departure) {
  double sum = 0;
  for (index_t i = 0; i < c.rows; ++i)
    for (index_t j = 0; j < c.cols; ++j) {
      double const beyond = c(i, j) - (i == j ? 1.0 : 0.0);
      sum += beyond * beyond;
      w(i, j) = static_cast<float>(-0.5 * beyond);
    }
  *departure = std::sqrt(sum);
}

namespace orthonormal {

/// The orthonormal Q for which ‖Q - Y‖_F is least: the polar factor, Y (YᵀY)^(-1/2) where Y has full rank. It is continuous
/// in Y, turns with its columns, flips no sign and leaves orthonormal columns alone; `cholesky` keeps the first column and
/// moves the others away from it.
///
/// Nearly orthonormal columns take Newton-Schulz steps X (3 I - XᵀX) / 2, which keep the polar factor; far ones would need
/// tens of steps. These are orthonormalised by `orthonormalize`, which loses no direction of Y and replaces dead columns,
/// and turned within their span to the frame nearest to Y (`align_frame`); a step takes away the rounding of that. Where
/// singular values are below about 1e-7 of the largest, Q spans their directions, but which goes where is arbitrary.
/// Shapes: Y m x l, l <= m.  Requires: NaN or Inf: `failed` is set and Y holds nothing useful.
/// Ensures: ‖QᵀQ - I‖_F within sqrt(l) eps; QᵀY symmetric and positive semidefinite to rounding.
/// Cost: 3 m l² flops a step, at most 3 for nearly orthonormal Y; else `orthonormalize`, 4 m l² + 15 l³ flops and a step.
/// Workspace bytes(shape).  Throws: shape_error.
/// Reference: Higham, "Computing the polar decomposition - with applications" (1986); Björck, Bowie, "An iterative
/// algorithm for computing the best estimate of an orthogonal matrix" (1971).
struct polar {
  [[nodiscard]] static constexpr index_t bytes(extents y) noexcept {
    if (y.size() == 0) return 0;
    index_t const l = y.cols;
    return scratch_bytes<float>(y.size()) + scratch_bytes<double>(l * l) + scratch_bytes<float>(l * l) +
           scratch_bytes<orthonormal_report>(1) + scratch_bytes<unit_scale>(1) +
           std::max(orthonormalize_bytes(y), align_frame_bytes(y.rows, l, alignment::nearest_frame));
  }
  template <executor E>
  void operator()(E& exec, view_of<E> y, rng_key const& key, orthonormal_report* report = nullptr) const {
    require<shape_error>(y.cols <= y.rows, "orthonormal::polar", "needs at most as many columns as rows, got ",
                         y.shape());
    if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
    if (y.empty()) return;
    index_t const l = y.cols;
    scratch_scope const scope{exec};
    auto& arena = exec.arena();
    auto from = y, to = detail::take_like(exec, y);
    auto const c = row_major<typename E::space>(arena.template take<double>(l * l), {l, l});
    auto const w = take_matrix(exec, {l, l});
    auto* const spare = arena.template take<orthonormal_report>(1);
    auto* const scaled = arena.template take<unit_scale>(1);
    auto* const seen = report != nullptr ? report : spare;
    auto const look = [&] {
      gram(exec, from, c);
      newton_schulz_factor(exec, c, w, &seen->departure);
      return exec.peek(&seen->departure);
    };

    exec.single([=] LOWRANK_DEVICE { *seen = {}; });
    auto departure = look();
    if (!(departure && is_finite(*departure) && *departure <= 0.1)) {
      copy(exec, y, to);  // unscaled: one scale for all columns costs the smallest their digits
      scale_to_unit(exec, y, scaled);
      exec.single([=] LOWRANK_DEVICE { seen->failed = scaled->nonfinite; });
      if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;
      orthonormalize(exec, to, key, seen);
      align_frame(exec, y, to, alignment::nearest_frame, key);
      std::swap(from, to);
      departure = look();
    }
    constexpr std::int32_t most = 8, blind_steps = 2;
    double const rounding = std::sqrt(static_cast<double>(l)) * std::numeric_limits<float>::epsilon();
    for (std::int32_t step = 1; !(departure && *departure <= rounding); ++step) {
      // The correction is summed up before it is added: term by term most of it would be lost in the rounding of X.
      copy(exec, from, to);
      multiply(exec, 1.0F, from, w, 1.0F, to);
      std::swap(from, to);
      exec.single([=] LOWRANK_DEVICE { ++seen->passes; });
      // From 1e-4 a step leaves 1e-8, and the rounding of its product.
      if (departure ? *departure <= 1e-4 || step == most : step == blind_steps) break;
      departure = look();
    }
    exec.single([=] LOWRANK_DEVICE { seen->failed |= is_finite(seen->departure) && seen->departure <= 1e-4 ? 0 : 1; });
    if (from.data != y.data) copy(exec, from, y);
  }
};

}  // namespace orthonormal
}  // namespace lowrank
