/// @file
/// Which of the many orthonormal bases of one space: optimizers keep a moment for every column, so columns that turn or
/// flip from refresh to refresh cost them their memory.
#pragma once

#include "lowrank/linalg/detail/eigen_workspace.hpp"
#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank {

enum class alignment : std::uint8_t {
  none,
  signs,          ///< column k times +-1 so that its product with the old column k is not negative
  nearest_frame,  ///< Q O with the orthogonal O that makes ‖Q O - P‖_F least (Procrustes)
};

/// Scratch that `align_frame` takes.
[[nodiscard]] constexpr index_t align_frame_bytes(index_t m, index_t r, alignment how) noexcept {
  if (how == alignment::none || r == 0) return 0;
  if (how == alignment::signs) return scratch_bytes<float>(r * r);
  return 4 * scratch_bytes<float>(r * r) + scratch_bytes<double>(r * r) + scratch_bytes<double>(r) +
         scratch_bytes<std::int32_t>(1) +
         std::max({symmetric_eigen_bytes(r), orthonormalize_bytes({r, r}) + scratch_bytes<orthonormal_report>(1),
                   scratch_bytes<float>(m * r)});
}

/// Turns Q towards P without leaving its span.
/// Shapes: P, Q m x r with orthonormal columns.
/// Ensures: `nearest_frame`: PᵀQ is symmetric and positive semidefinite; Q stays orthonormal to rounding.
/// Cost: 2 m r² flops (signs), 4 m r² + 9 r³ (nearest_frame); workspace align_frame_bytes.  Throws: shape_error.
/// Reference: Schönemann, "A generalized solution of the orthogonal Procrustes problem" (1966).
template <class E>
void align_frame(E& exec, const_view_of<E> p, view_of<E> q, alignment how, rng_key const& fresh) {
  require<shape_error>(p.shape() == q.shape(), "align_frame", "needs equal shapes, got ", p.shape(), " and ",
                       q.shape());
  index_t const r = q.cols;
  if (how == alignment::none || q.empty()) return;
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const c = take_matrix(exec, {r, r});
  multiply(exec, 1.0F, q.t(), p, 0.0F, c);
  if (how == alignment::signs) {
    // One launch for all columns: sign(c_kk) times column k.
    scale_columns(exec, q, [c] LOWRANK_DEVICE(index_t k) { return c(k, k) < 0.0F ? -1.0F : 1.0F; });
    return;
  }
  // QᵀP = U S Vᵀ; O = U Vᵀ. The columns of (QᵀP) V are s_k u_k: orthonormalising finds U also where s_k is 0.
  auto const u = take_matrix(exec, {r, r}), v = take_matrix(exec, {r, r}), turn = take_matrix(exec, {r, r});
  auto const square = row_major<typename E::space>(arena.template take<double>(r * r), {r, r});
  auto* const values = arena.template take<double>(r);
  auto* const failed = arena.template take<std::int32_t>(1);
  gram(exec, c, square);
  symmetric_eigen(exec, square, values, failed);
  convert(exec, square, v);
  multiply(exec, 1.0F, c, v, 0.0F, u);
  {
    scratch_scope const fit{exec};
    orthonormalize(exec, u, fresh, arena.template take<orthonormal_report>(1));
  }
  multiply(exec, 1.0F, u, v.t(), 0.0F, turn);
  auto const turned = take_matrix(exec, q.shape());
  multiply(exec, 1.0F, q, turn, 0.0F, turned);
  copy(exec, turned, q);
}

}  // namespace lowrank
