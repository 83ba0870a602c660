/// @file
/// The basis from an exact SVD, as GaLore's reference has it.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/svd_output.hpp"

namespace lowrank {

namespace basis {

/// The `exact_svd` that lookup finds for the executor.
struct svd_by_lookup {
  template <executor E>
  svd_status operator()(E& exec, const_view_of<E> a, svd_output<typename E::space> const& out) const {
    static_assert(
        requires { exact_svd(exec, a, out); },
        "lowrank: include linalg/host/eigen_decompositions.hpp (or lapack_decompositions.hpp) for the exact SVD");
    return exact_svd(exec, a, out);
  }
};

/// Leading left singular vectors of the current gradient, exactly. Slow: 6 n m² + 20 m³ flops, mostly memory bound.
/// Needs the dense gradient, and a header with the factorization (linalg/host/eigen_decompositions.hpp or
/// linalg/host/lapack_decompositions.hpp), which may allocate: this is the reference path, `randomized` the fast one.
/// Reference: Zhao et al., arXiv 2403.03507, Algorithm 2.
template <class Call = svd_by_lookup>
struct basic_svd : one_sided {
  static constexpr finder_traits traits{.takes_factored = false};

  Call call{};

  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t) const {
    return std::max(scratch_bytes<float>(g.rows * std::min(g.rows, g.cols)),
                    orthonormalize_bytes({g.rows, r}) + scratch_bytes<orthonormal_report>(1));
  }
  [[nodiscard]] double flops(extents g, index_t, index_t) const {
    auto const m = static_cast<double>(g.rows), n = static_cast<double>(g.cols);
    return 6 * n * m * m + 20 * m * m * m;
  }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> p, std::int32_t* failed) const {
    static_assert(is_dense_gradient<G>,
                  "lowrank: the exact SVD needs the dense gradient; pass a matrix view, or use basis::randomized");
    svd_status status{};
    {
      scratch_scope const factor{exec};
      auto const u = take_matrix(exec, {p.rows, std::min(in.gradient.shape().rows, in.gradient.shape().cols)});
      status = call(exec, in.gradient, svd_output<typename E::space>{.u = u});
      if (status == svd_status::converged) copy(exec, u.col_range(0, p.cols), p);
    }
    if (status != svd_status::converged) return exec.single([=] LOWRANK_DEVICE { *failed = 1; });
    // Libraries return vectors of zero singular values that are far from orthogonal.
    scratch_scope const scope{exec};
    auto* const report = exec.arena().template take<orthonormal_report>(1);
    orthonormalize(exec, p, in.key, report);
    exec.single([=] LOWRANK_DEVICE { *failed = report->failed; });
  }
};
using svd = basic_svd<>;

}  // namespace basis
}  // namespace lowrank
