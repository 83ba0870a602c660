/// @file
/// A gradient is whatever can be multiplied with: a dense matrix, or the two factors a linear layer has anyway.
#pragma once

#include <concepts>

#include "lowrank/core/view.hpp"

namespace lowrank {

/// The weight gradient of a linear layer y = x Wᵀ over T tokens, G = dYᵀ X, never formed. Products with it cost
/// 2 T r (m + n) flops against 2 T m n + 2 m n r with the dense matrix: fewer while r < m n / (m + n), and no m x n
/// buffer.
/// Shapes: output_gradient (dY) T x m, input (X) T x n, G m x n. Micro-batches of a layer are rows one after the other.
template <memory_space Space = host_space>
struct outer_product {
  using space = Space;

  matrix_view<float const, Space> output_gradient, input;

  [[nodiscard]] LOWRANK_HD constexpr extents shape() const noexcept { return {output_gradient.cols, input.cols}; }
  [[nodiscard]] LOWRANK_HD constexpr index_t tokens() const noexcept { return input.rows; }
  [[nodiscard]] LOWRANK_HD constexpr outer_product t() const noexcept { return {input, output_gradient}; }
};

template <memory_space Space>
[[nodiscard]] constexpr outer_product<Space> facing(side s, outer_product<Space> g) noexcept {
  return s == side::left ? g : g.t();
}

template <class G>
inline constexpr bool is_dense_gradient = false;
template <memory_space Space>
inline constexpr bool is_dense_gradient<matrix_view<float const, Space>> = true;
template <memory_space Space>
inline constexpr bool is_dense_gradient<matrix_view<float, Space>> = true;

/// What optimizers accept as a gradient: something with a shape that can be flipped and multiplied with
/// (linalg/gradient_products.hpp). Only what needs single elements of G asks for `is_dense_gradient`.
template <class G>
concept gradient =
    memory_space<typename G::space> && !std::same_as<G, matrix_view<float, typename G::space>> && requires(G const g) {
  { g.shape() } -> std::same_as<extents>;
  { g.t() } -> std::same_as<G>;
};
static_assert(gradient<matrix_view<float const>> && gradient<outer_product<device_space>>);

/// What callers may pass: a gradient, or a dense one that they happen to hold as a writable view.
template <class G>
concept gradient_argument = gradient<G> || std::same_as<G, matrix_view<float, typename G::space>>;

/// The argument as a gradient.
template <gradient G>
[[nodiscard]] constexpr G as_gradient(G const& g) noexcept {
  return g;
}
template <memory_space Space>
[[nodiscard]] constexpr matrix_view<float const, Space> as_gradient(matrix_view<float, Space> g) noexcept {
  return g;
}

/// Rows that the factors of a gradient share; 0 for a dense one. Scratch of products grows with it.
template <gradient G>
[[nodiscard]] constexpr index_t tokens_of(G const& g) noexcept {
  if constexpr (is_dense_gradient<G>) return 0;
  else return g.tokens();
}

}  // namespace lowrank
