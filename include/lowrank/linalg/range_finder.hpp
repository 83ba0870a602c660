/// @file
/// Randomized range finder: the r directions that carry most of a gradient, from a handful of products with it.
#pragma once

#include <limits>

#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/rayleigh_ritz.hpp"

namespace lowrank {

enum class sketch_kind : std::uint8_t {
  rademacher,  ///< signs: exact in every float format, the same bits everywhere
  gaussian,    ///< what the theorems are about; equal to signs in practice
};

/// Where the leading directions are looked for after the last power step. Keeping every block takes the same products, but
/// q + 1 times the columns to make orthonormal and to rotate; one step then loses about half, two a tenth or less.
enum class search_space : std::uint8_t {
  last_block,   ///< in what the last step left
  every_block,  ///< in what all steps left, side by side: block Krylov
};

struct range_options {
  index_t oversampling{8};      ///< extra columns while searching
  index_t power_iterations{1};  ///< each is two more products; 2 for flat spectra
  sketch_kind sketch{sketch_kind::rademacher};
  search_space space{search_space::last_block};
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
/// Columns that are rotated in the end.
[[nodiscard]] constexpr index_t search_width(extents g, index_t r, range_options const& options) noexcept {
  index_t const l = sketch_width(g, r, options);
  if (options.space == search_space::last_block) return l;
  return std::min({l * (options.power_iterations + 1), g.rows, g.cols});
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

/// Y = orthonormal basis of the last block of the power iteration, Z = Gᵀ Y.
template <class E, class G>
void search_last_block(E& exec, G const& g, view_of<E> y, view_of<E> z, range_options const& options,
                       rng_key const& key, orthonormal_report* steps) {
  // Between power steps a single pass keeps the columns apart; only the last basis has to be orthonormal.
  multiply_sketch(exec, g, y, z, options.sketch, key);
  for (index_t step = 0; step < options.power_iterations; ++step) {
    orthonormalize(exec, y, key, steps, roughly);
    if (auto const failed = exec.peek(&steps->failed); failed && *failed != 0) break;
    multiply(exec, 1.0F, g.t(), y, 0.0F, z);
    orthonormalize(exec, z, key, steps + 1, roughly);
    multiply(exec, 1.0F, g, z, 0.0F, y);
  }
  orthonormalize(exec, y, key, steps);
  if (auto const failed = exec.peek(&steps->failed); failed && *failed != 0) return;
  multiply(exec, 1.0F, g.t(), y, 0.0F, z);
}

/// The same for all blocks of the power iteration, l columns each and the last one what fits in.
template <class E, class G>
void search_every_block(E& exec, G const& g, view_of<E> y, view_of<E> z, index_t l, range_options const& options,
                        rng_key const& key, orthonormal_report* steps) {
  multiply_sketch(exec, g, y.col_range(0, l), z.col_range(0, l), options.sketch, key);
  for (index_t begin = 0, end = l;; begin = end, end = std::min(begin + l, y.cols)) {
    // Columns that are orthonormal already stay what they are, and so does their part of Z.
    orthonormalize(exec, y.col_range(0, end), key, steps);
    if (auto const failed = exec.peek(&steps->failed); failed && *failed != 0) return;
    multiply(exec, 1.0F, g.t(), y.col_range(begin, end), 0.0F, z.col_range(begin, end));
    if (end == y.cols) return;
    auto const next = z.col_range(end, std::min(end + l, y.cols));
    copy(exec, z.col_range(begin, begin + next.cols), next);
    orthonormalize(exec, next, key, steps + 1, roughly);
    multiply(exec, 1.0F, g, next, 0.0F, y.col_range(end, end + next.cols));
  }
}

}  // namespace detail

/// Scratch that `find_range` takes for a gradient over `tokens` rows (0: dense).
[[nodiscard]] constexpr index_t find_range_bytes(extents g, index_t r, range_options const& options = {},
                                                 index_t tokens = 0) noexcept {
  index_t const l = detail::sketch_width(g, r, options), w = detail::search_width(g, r, options);
  if (l <= 0) return 0;
  index_t const product = gradient_product_bytes(tokens, l);
  index_t const between = options.space == search_space::every_block ? std::min(l, w - l)
                          : options.power_iterations > 0             ? l
                                                                     : 0;
  return scratch_bytes<float>(g.rows * w) + scratch_bytes<float>(g.cols * w) + scratch_bytes<range_report>(1) +
         scratch_bytes<orthonormal_report>(2) +
         std::max({product, orthonormalize_bytes({g.cols, between}), orthonormalize_bytes({g.rows, w}),
                   rayleigh_ritz_bytes(w, r), orthonormalize_bytes({g.rows, r})});
}

/// Q: orthonormal columns, column k along the direction of largest captured energy not yet taken (Rayleigh-Ritz), its entry
/// of largest magnitude positive. `energies`, if given, receives ‖q_kᵀ G‖² for every k. Where G has no more directions to
/// offer (rank below r), random ones complete the basis; their energy is 0.
/// Shapes: G m x n dense or factored, q m x r, r <= m; energies r, in the executor's memory.
/// Requires: q does not overlap G. NaN or Inf in G: `failed` is set and q holds nothing useful.
/// Ensures: E‖G - QQᵀG‖_F within sqrt(1 + r / (p - 1)) of the best rank-r error for Gaussian sketches without power steps;
/// exact to rounding for rank(G) <= r.
/// Cost: 2 q + 2 products with l = r + p columns, of 2 m n l flops each, for q power steps (the sketch, two a step, one for
/// the rotation); orthonormalisations; 9 l³ fp64, or 9 (q + 1)³ l³ in the space of every block; workspace find_range_bytes.
/// Throws: shape_error, argument_error.
/// Reference: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and 5.1, theorem 10.5;
/// Musco & Musco, "Randomized block Krylov methods" (2015), algorithm 2.
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
  index_t const l = detail::sketch_width(g.shape(), r, options), w = detail::search_width(g.shape(), r, options);
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
  if (l == 0) {
    if (r > 0) fill(exec, q, 0.0F), orthonormalize(exec, q, key);
    return;
  }
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const y = take_matrix(exec, {m, w});
  auto const z = take_matrix(exec, {n, w});
  auto* const spare = arena.template take<range_report>(1);
  auto* const steps = arena.template take<orthonormal_report>(2);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] LOWRANK_DEVICE { *seen = {}; });

  if (options.space == search_space::every_block) detail::search_every_block(exec, g, y, z, l, options, key, steps);
  else detail::search_last_block(exec, g, y, z, options, key, steps);
  exec.single([=] LOWRANK_DEVICE { seen->failed = steps->failed; });
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;
  rayleigh_ritz(exec, const_view_of<E>(y), const_view_of<E>(z), q, &seen->captured, energies, &seen->failed);
  orthonormalize(exec, q, key, steps + 1);
  orient_columns(exec, q);
  exec.single([=] LOWRANK_DEVICE {
    seen->passes = steps->passes + steps[1].passes;
    seen->replaced = steps[1].replaced;
    seen->failed |= steps[1].failed;
  });
}

}  // namespace lowrank
