/// @file
/// The leading singular triplets of a gradient, dense or factored, by products with it.
#pragma once

#include "lowrank/linalg/range_finder.hpp"
#include "lowrank/linalg/svd_output.hpp"

namespace lowrank {

/// Scratch that `randomized_svd` takes with all outputs asked for; less is enough without v.
[[nodiscard]] constexpr index_t randomized_svd_bytes(extents g, index_t r, range_options const& options = {},
                                                     index_t tokens = 0) noexcept {
  index_t const product = gradient_product_bytes(tokens, r);
  return scratch_bytes<float>(g.rows * r) + scratch_bytes<double>(r) + scratch_bytes<orthonormal_report>(1) +
         std::max({find_range_bytes(g, r, options, tokens), product, orthonormalize_bytes({g.cols, r})});
}

/// The r leading singular triplets, by `find_range` and one product more for V. U and V are orthonormal also where G has
/// no further directions; the values there are 0.
/// Shapes: G m x n, r <= min(m, n); see svd_output.
/// Requires: outputs do not overlap G. NaN or Inf in G: report->failed is set and the outputs hold nothing useful.
/// Ensures: values[k] <= sigma_k (1 + eps), and close to it as `find_range` promises; V only where asked for.
/// Cost: find_range, and 2 m n r + 2.3 n r² flops a pass for V; workspace randomized_svd_bytes.
/// Throws: shape_error, argument_error.
/// Reference: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), section 5.1.
template <class E, gradient_argument G>
void randomized_svd(E& exec, G const& given, index_t r, svd_output<typename E::space> const& out,
                    range_options const& options, rng_key const& key, range_report* report = nullptr) {
  auto const g = as_gradient(given);
  extents const shape = g.shape();
  require<shape_error>(r >= 0 && r <= std::min(shape.rows, shape.cols), "randomized_svd",
                       "needs a rank in [0, min(m, n)], got ", r, " for ", shape);
  detail::check_svd_output("randomized_svd", shape, r, out);
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const u = take_matrix(exec, {shape.rows, r});
  auto* const energies = arena.template take<double>(r);
  auto* const fit = arena.template take<orthonormal_report>(1);
  find_range(exec, g, u, options, key, report, energies);
  if (out.wants_u()) copy(exec, u, out.u);
  if (out.values != nullptr)
    exec.single([=, values = out.values] LOWRANK_DEVICE {
      for (index_t k = 0; k < r; ++k) values[k] = std::sqrt(energies[k]);
    });
  if (!out.wants_v()) return;
  // The columns of Gᵀ U are sigma_k v_k already; orthonormalising fixes the small ones and fills up the zero ones.
  multiply(exec, 1.0F, g.t(), u, 0.0F, out.v);
  orthonormalize(exec, out.v, key, fit);
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { report->failed |= fit->failed; });
}

}  // namespace lowrank
