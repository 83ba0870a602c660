/// @file
/// Randomized range finder: the r directions that carry most of a gradient, from a handful of products with it.
#pragma once

#include <limits>

#include "lowrank/linalg/detail/eigen_workspace.hpp"
#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank {

enum class sketch_kind : std::uint8_t {
  rademacher,  ///< signs: exact in every float format, the same bits everywhere
  gaussian,    ///< what the theorems are about; equal to signs in practice
};

struct range_options {
  index_t oversampling{8};      ///< extra columns while searching
  index_t power_iterations{1};  ///< each is two more products; 2 for flat spectra
  sketch_kind sketch{sketch_kind::rademacher};
};

/// What became of `find_range`, in the executor's memory space.
struct range_report {
  double captured{};        ///< ‖QᵀG‖_F²
  std::int32_t passes{};    ///< orthonormalisation passes of the basis handed out
  std::int32_t replaced{};  ///< columns of it that G did not provide: r exceeded its rank
  std::int32_t failed{};    ///< 1: G had NaN or Inf (or overflowed); q is unusable
};

namespace detail {

[[nodiscard]] constexpr index_t sketch_width(extents g, index_t r, range_options const& options) noexcept {
  return std::min({r + options.oversampling, g.rows, g.cols});
}

/// Y = G Omega with a fresh sketch, kept in `omega`. As wide as G, signs might miss a direction and buy nothing: then it
/// is the identity.
template <class E, class G>
void multiply_sketch(E& exec, G const& g, view_of<E> y, view_of<E> omega, sketch_kind kind, rng_key key) {
  key.purpose = rng_purpose::sketch;
  if (omega.rows == omega.cols) fill_identity(exec, omega);
  else if (kind == sketch_kind::rademacher) fill_rademacher(exec, key, omega);
  else fill_gaussian(exec, key, omega);
  multiply(exec, 1.0F, g, omega, 0.0F, y);
}

}  // namespace detail

/// Scratch that `find_range` takes for a gradient over `tokens` rows (0: dense).
[[nodiscard]] constexpr index_t find_range_bytes(extents g, index_t r, range_options const& options = {},
                                                 index_t tokens = 0) noexcept {
  index_t const l = detail::sketch_width(g, r, options);
  if (l <= 0) return 0;
  index_t const product = tokens > 0 ? gradient_product_bytes(tokens, l) : 0;
  index_t const right = options.power_iterations > 0 ? orthonormalize_bytes({g.cols, l}) : 0;
  index_t const rotation = scratch_bytes<double>(l * l) + scratch_bytes<double>(l) + scratch_bytes<std::int32_t>(1) +
                           std::max(symmetric_eigen_bytes(l), scratch_bytes<float>(l * std::min(l, r)));
  return scratch_bytes<float>(g.rows * l) + scratch_bytes<float>(g.cols * l) + scratch_bytes<range_report>(1) +
         scratch_bytes<orthonormal_report>(2) +
         std::max({product, right, orthonormalize_bytes({g.rows, l}), rotation, orthonormalize_bytes({g.rows, r})});
}

/// Q: orthonormal columns, column k along the direction of largest captured energy not yet taken (Rayleigh-Ritz), its entry
/// of largest magnitude positive. `energies`, if given, receives ‖q_kᵀ G‖² for every k. Where G has no more directions to
/// offer (rank below r), random ones complete the basis; their energy is 0.
/// Shapes: G m x n dense or factored, q m x r, r <= m; energies r, in the executor's memory.
/// Requires: q does not overlap G. NaN or Inf in G: `failed` is set and q holds nothing useful.
/// Ensures: E‖G - QQᵀG‖_F within sqrt(1 + r / (p - 1)) of the best rank-r error for Gaussian sketches without power steps;
/// exact to rounding for rank(G) <= r.
/// Cost: 2 q + 2 products with l = r + p columns, of 2 m n l flops each, for q power steps (the sketch, two a step, one for
/// the rotation); orthonormalisations; 9 l³ fp64; workspace find_range_bytes.
/// Throws: shape_error, argument_error.
/// Reference: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and 5.1, theorem 10.5.
template <class E, gradient_argument G>
void find_range(E& exec, G const& given, view_of<E> q, range_options const& options, rng_key const& key,
                range_report* report = nullptr, double* energies = nullptr) {
  auto const g = as_gradient(given);
  index_t const m = g.shape().rows, n = g.shape().cols, r = q.cols;
  require<shape_error>(q.rows == m && r <= m, "find_range", "needs an m x r basis with r <= m, got ", q.shape(),
                       " for ", g.shape());
  require(options.oversampling >= 0 && options.power_iterations >= 0, "find_range",
          "oversampling and power_iterations must not be negative, got ", options.oversampling, " and ",
          options.power_iterations);
  index_t const l = detail::sketch_width(g.shape(), r, options);
  index_t const kept = std::min(l, r);
  if (report != nullptr) exec.single([=] { *report = {}; });
  if (l == 0) {
    if (r > 0) fill(exec, q, 0.0F), orthonormalize(exec, q, key);
    return;
  }
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const y = take_matrix(exec, {m, l});
  auto const z = take_matrix(exec, {n, l});
  auto* const spare = arena.template take<range_report>(1);
  auto* const steps = arena.template take<orthonormal_report>(2);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] { *seen = {}; });

  // Between power steps a single pass keeps the columns apart; only the last basis has to be orthonormal.
  detail::multiply_sketch(exec, g, y, z, options.sketch, key);
  for (index_t step = 0; step < options.power_iterations; ++step) {
    orthonormalize(exec, y, key, steps, roughly);
    if (auto const failed = exec.peek(&steps->failed); failed && *failed != 0) break;
    multiply(exec, 1.0F, g.t(), y, 0.0F, z);
    orthonormalize(exec, z, key, steps + 1, roughly);
    multiply(exec, 1.0F, g, z, 0.0F, y);
  }
  orthonormalize(exec, y, key, steps);
  exec.single([=] { seen->failed = steps->failed; });
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;

  // Rayleigh-Ritz: the eigenvectors of (YᵀG)(YᵀG)ᵀ turn Y to the directions of largest energy.
  multiply(exec, 1.0F, g.t(), y, 0.0F, z);
  {
    scratch_scope const rotation{exec};
    auto const c = row_major<typename E::space>(arena.template take<double>(l * l), {l, l});
    auto* const values = arena.template take<double>(l);
    auto* const failed = arena.template take<std::int32_t>(1);
    gram(exec, z, c);
    symmetric_eigen(exec, c, values, failed);
    auto const turn = take_matrix(exec, {l, kept});
    convert(exec, c.col_range(0, kept), turn);
    multiply(exec, 1.0F, y, turn, 0.0F, q.col_range(0, kept));
    if (kept < r) fill(exec, q.col_range(kept, r), 0.0F);
    exec.single([=] {
      seen->failed |= *failed;
      for (index_t k = 0; k < r; ++k) {
        double const energy = k < kept && values[k] > 0 ? values[k] : 0.0;
        seen->captured += energy;
        if (energies != nullptr) energies[k] = energy;
      }
    });
  }
  orthonormalize(exec, q, key, steps + 1);
  orient_columns(exec, q);
  exec.single([=] {
    seen->passes = steps->passes + steps[1].passes;
    seen->replaced = steps[1].replaced;
    seen->failed |= steps[1].failed;
  });
}

}  // namespace lowrank
