/// @file
/// The cheapest basis from nothing: one product with a random sketch.
#pragma once

#include "lowrank/linalg/orthonormalizer.hpp"
#include "lowrank/linalg/range_finder.hpp"

namespace lowrank {

namespace detail {

/// Columns of a basis that a gradient over that many tokens (0: dense) can fill.
[[nodiscard]] constexpr index_t filled_columns(index_t r, index_t tokens) noexcept {
  return tokens > 0 ? std::min(r, tokens) : r;
}

}  // namespace detail

/// Scratch that `sketch_range` takes; `tokens` as for find_range_bytes.
template <class O = orthonormal::cholesky>
[[nodiscard]] constexpr index_t sketch_range_bytes(extents g, index_t r, index_t tokens = 0) noexcept {
  index_t const k = detail::filled_columns(r, tokens);
  index_t const sketch = scratch_bytes<float>(g.cols * k) + gradient_product_bytes(tokens, k);
  return scratch_bytes<orthonormal_report>(1) + std::max(sketch, O::bytes({g.rows, r}));
}

/// Q: r orthonormal columns, the first min(r, T) of them the range of G on as many random signs, the others random. All of G
/// where rank(G) <= r, as with fewer tokens than columns; else what a randomized range finder without power steps and without
/// oversampling finds.
/// Shapes: G m x n dense or factored over T tokens, q m x r, r <= m.
/// Requires: q does not overlap G. NaN or Inf in G: `failed` is set and q holds nothing useful.
/// Ensures: report->captured is -1: nobody has looked.
/// Cost: 2 m n r flops, or 2 T min(r, T) (m + n) for a factored gradient, and the orthonormalisation; workspace
/// sketch_range_bytes.
/// Throws: shape_error.
/// Reference: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithm 4.1.
template <class E, gradient_argument G, orthonormalizer<E> O = orthonormal::cholesky>
void sketch_range(E& exec, G const& given, view_of<E> q, rng_key const& key, range_report* report = nullptr,
                  O const& make_orthonormal = {}) {
  auto const g = as_gradient(given);
  index_t const m = g.shape().rows, n = g.shape().cols, r = q.cols;
  require<shape_error>(q.rows == m && r <= m, "sketch_range", "needs an m x r basis with r <= m, got ", q.shape(),
                       " for ", g.shape());
  scratch_scope const scope{exec};
  auto* const steps = exec.arena().template take<orthonormal_report>(1);
  index_t const k = detail::filled_columns(r, tokens_of(g));
  auto stream = key;
  stream.purpose = rng_purpose::sketch;
  {
    scratch_scope const product{exec};
    auto const omega = take_matrix(exec, {n, k});
    fill_rademacher(exec, stream, omega);
    multiply(exec, 1.0F, g, omega, 0.0F, q.col_range(0, k));
  }
  // Random from the start: found to be empty only when factored, they would cost another Gram and another pass.
  fill_rademacher(exec, stream, q.col_range(k, r), static_cast<std::uint64_t>(n * k));
  make_orthonormal(exec, q, key, steps);
  if (report != nullptr)
    exec.single([=] LOWRANK_DEVICE {
      *report = {.captured = -1, .passes = steps->passes, .replaced = steps->replaced, .failed = steps->failed};
    });
}

}  // namespace lowrank
