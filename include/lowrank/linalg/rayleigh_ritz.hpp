/// @file
/// Rayleigh-Ritz: turns an orthonormal block to the directions in which a gradient has most energy.
#pragma once

#include "lowrank/linalg/detail/eigen_workspace.hpp"
#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank {

/// Scratch that `rayleigh_ritz` takes, products with the gradient excluded.
[[nodiscard]] constexpr index_t rayleigh_ritz_bytes(index_t l, index_t r) noexcept {
  return scratch_bytes<double>(l * l) + scratch_bytes<double>(l) + scratch_bytes<std::int32_t>(1) +
         std::max(symmetric_eigen_bytes(l), scratch_bytes<float>(l * std::min(l, r)));
}

/// q = the first r columns of Y W, W the eigenvectors of (YᵀG)(YᵀG)ᵀ = ZᵀZ in order of falling eigenvalues. Columns that
/// Y cannot provide (r > l) are zero. The products lose some orthonormality: orthonormalize q afterwards.
/// `captured` gets the sum of the r eigenvalues, `energies` (may be null) each of them; *failed becomes 1 where there are
/// no eigenvectors, and stays what it is elsewhere.
/// Shapes: Y m x l orthonormal, Z n x l = Gᵀ Y, q m x r.  Requires: q does not overlap Y.
/// Cost: n l² + 2 m l r flops and 9 l³ fp64; workspace rayleigh_ritz_bytes.
template <class E>
void rayleigh_ritz(E& exec, const_view_of<E> y, const_view_of<E> z, view_of<E> q, double* captured, double* energies,
                   std::int32_t* failed) {
  index_t const l = y.cols, r = q.cols, kept = std::min(l, r);
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const c = row_major<typename E::space>(arena.template take<double>(l * l), {l, l});
  auto* const values = arena.template take<double>(l);
  auto* const bad = arena.template take<std::int32_t>(1);
  gram(exec, z, c);
  symmetric_eigen(exec, c, values, bad);
  auto const turn = take_matrix(exec, {l, kept});
  convert(exec, c.col_range(0, kept), turn);
  multiply(exec, 1.0F, y, turn, 0.0F, q.col_range(0, kept));
  if (kept < r) fill(exec, q.col_range(kept, r), 0.0F);
  exec.single([=] LOWRANK_DEVICE {
    *failed |= *bad;
    *captured = 0;
    for (index_t k = 0; k < r; ++k) {
      double const energy = k < kept && values[k] > 0 ? values[k] : 0.0;
      *captured += energy;
      if (energies != nullptr) energies[k] = energy;
    }
  });
}

}  // namespace lowrank
