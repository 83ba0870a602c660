/// @file
/// A random basis.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank::basis {

/// Uniform on the Stiefel manifold: an orthonormalized Gaussian matrix. Looks at no gradient.
/// Reference: He et al. (GoLore), arXiv 2410.11289, section 4.
struct stiefel : one_sided {
  [[nodiscard]] static constexpr bool needs_gradient() noexcept { return false; }

  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t) const {
    return orthonormalize_bytes({g.rows, r}) + scratch_bytes<orthonormal_report>(1);
  }
  [[nodiscard]] double flops(extents g, index_t r, index_t) const {
    return 5.0 * static_cast<double>(g.rows) * static_cast<double>(r) * static_cast<double>(r);
  }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> p, std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const report = exec.arena().template take<orthonormal_report>(1);
    fill_gaussian(exec, in.key, p);
    auto fresh = in.key;
    fresh.purpose = rng_purpose::completion;
    orthonormalize(exec, p, fresh, report);
    exec.single([=] LOWRANK_DEVICE { *failed = report->failed; });
  }
};

}  // namespace lowrank::basis
