/// @file
/// Products with, and norms of, a gradient in any form. P ᵀ G is `multiply(exec, 1, g.t(), P, 0, R.t())`.
#pragma once

#include "lowrank/core/gradient.hpp"
#include "lowrank/linalg/primitives.hpp"
#include "lowrank/linalg/reductions.hpp"

namespace lowrank {

namespace detail {

/// Numbers in fp32 that products with a gradient in 16 bits hold at a time.
inline constexpr index_t narrow_panel = index_t{1} << 20;

}  // namespace detail

/// Scratch that `multiply` of a gradient over `tokens` rows (0: dense; `narrow_gradient`) with k columns takes.
[[nodiscard]] constexpr index_t gradient_product_bytes(index_t tokens, index_t k) noexcept {
  return scratch_bytes<float>(tokens == narrow_gradient ? detail::narrow_panel : tokens * k);
}

/// C = alpha G B + beta C for G = dYᵀ X, as dYᵀ (X B).
/// Shapes: G m x n over T tokens, B n x k, C m x k.  Cost: 2 T k (m + n) flops; workspace gradient_product_bytes(T, k).
template <class E>
void multiply(E& exec, float alpha, outer_product<typename E::space> g, const_view_of<E> b, float beta, view_of<E> c) {
  require<shape_error>(g.input.rows == g.output_gradient.rows, "multiply",
                       "factors of a gradient need as many rows, got ", g.output_gradient.shape(), " and ",
                       g.input.shape());
  scratch_scope const scope{exec};
  auto const inner = take_matrix(exec, {g.tokens(), b.cols});
  multiply(exec, 1.0F, g.input, b, 0.0F, inner);
  multiply(exec, alpha, g.output_gradient.t(), inner, beta, c);
}

/// C = alpha G B + beta C for G in 16 bits, widened panel by panel. A device with products of such operands brings its own.
/// Shapes: G m x n, B n x k, C m x k.  Cost: 2 m n k flops, one pass over G; workspace gradient_product_bytes.
template <class E, narrow_float T>
void multiply(E& exec, float alpha, matrix_view<T const, typename E::space> g, const_view_of<E> b, float beta,
              view_of<E> c) {
  require<shape_error>(g.rows == c.rows && b.cols == c.cols && g.cols == b.rows, "multiply",
                       "needs m x k times k x n into m x n, got ", g.shape(), " times ", b.shape(), " into ",
                       c.shape());
  bool const down = g.row_stride < g.col_stride && g.cols > 1;
  index_t const line = std::clamp<index_t>(down ? g.rows : g.cols, 1, detail::narrow_panel);
  index_t const lines = detail::narrow_panel / line, height = down ? line : lines, width = down ? lines : line;
  scratch_scope const scope{exec};
  auto* const memory = exec.arena().template take<float>(detail::narrow_panel);
  for (index_t i = 0; i < g.rows; i += height)
    for (index_t j = 0; j < std::max<index_t>(g.cols, 1); j += width) {  // also where there is nothing to add
      block const part{i, std::min(g.rows, i + height), j, std::min(g.cols, j + width)};
      extents const shape{part.row_end - i, part.col_end - j};
      auto const wide = natural<typename E::space>(down ? side::right : side::left, memory, shape);
      convert(exec, g.sub(part), wide);
      multiply(exec, alpha, const_view_of<E>(wide), b.row_range(j, part.col_end), j == 0 ? beta : 1.0F,
               c.row_range(i, part.row_end));
    }
}

/// *out >= ‖G‖_F², from one pass over what is there: exact for a dense gradient, ‖dY‖² ‖X‖² for a factored one. NaN and
/// Inf anywhere come through. This is the guard of a step: cheap, and never too small.
template <class E>
void energy_bound(E& exec, const_view_of<E> g, double* out) {
  squared_norm(exec, g, out);
}
template <class E>
void energy_bound(E& exec, outer_product<typename E::space> g, double* out) {
  scratch_scope const scope{exec};
  auto* const parts = exec.arena().template take<double>(2);
  squared_norm(exec, g.output_gradient, parts);
  squared_norm(exec, g.input, parts + 1);
  exec.single([=] LOWRANK_DEVICE { *out = parts[0] * parts[1]; });
}

template <class E, narrow_float T>
void energy_bound(E& exec, matrix_view<T const, typename E::space> g, double* out) {
  squared_norm(exec, g, out);
}

namespace detail {

/// Rows of the panel in which the norm of a factored gradient is summed up.
inline constexpr index_t norm_panel = 64;
/// Whether ‖G‖² is cheaper as the sum of (dY dYᵀ) ∘ (X Xᵀ), T x T, than over panels of G itself.
[[nodiscard]] constexpr bool norm_by_tokens(extents g, index_t tokens) noexcept {
  return tokens * (g.rows + g.cols) < g.size();
}

}  // namespace detail

/// Scratch of `squared_norm` of a gradient of that shape over `tokens` rows (0: dense; `narrow_gradient`).
[[nodiscard]] constexpr index_t gradient_norm_bytes(extents g, index_t tokens) noexcept {
  if (tokens <= 0) return 0;
  index_t const widest = detail::norm_by_tokens(g, tokens)
                             ? 2 * scratch_bytes<float>(std::min(detail::norm_panel, tokens) * tokens)
                             : scratch_bytes<float>(std::min(detail::norm_panel, g.rows) * g.cols);
  return widest + scratch_bytes<double>(2);
}

/// *out = ‖G‖_F², exactly, without G: over token pairs or over row panels of G, whichever takes fewer flops.
/// Cost: min(2 T² (m + n), 2 T m n) flops; workspace gradient_norm_bytes(shape, T).
template <class E>
void squared_norm(E& exec, outer_product<typename E::space> g, double* out) {
  if (g.tokens() == 0) return exec.single([=] LOWRANK_DEVICE { *out = 0; });  // no scratch is counted for it
  bool const by_tokens = detail::norm_by_tokens(g.shape(), g.tokens());
  scratch_scope const scope{exec};
  auto* const sum = exec.arena().template take<double>(2);
  exec.single([=] LOWRANK_DEVICE { *out = 0; });
  index_t const rows = by_tokens ? g.tokens() : g.shape().rows;
  index_t const cols = by_tokens ? g.tokens() : g.shape().cols;
  for (index_t begin = 0; begin < rows; begin += detail::norm_panel) {
    scratch_scope const panel{exec};
    index_t const end = std::min(rows, begin + detail::norm_panel);
    auto const a = take_matrix(exec, {end - begin, cols});
    if (by_tokens) {
      auto const b = take_matrix(exec, {end - begin, cols});
      multiply(exec, 1.0F, g.output_gradient.row_range(begin, end), g.output_gradient.t(), 0.0F, a);
      multiply(exec, 1.0F, g.input.row_range(begin, end), g.input.t(), 0.0F, b);
      inner_product(exec, a, b, sum);
    } else {
      multiply(exec, 1.0F, g.output_gradient.col_range(begin, end).t(), g.input, 0.0F, a);
      squared_norm(exec, a, sum);
    }
    exec.single([=] LOWRANK_DEVICE { *out += *sum; });
  }
}

}  // namespace lowrank
