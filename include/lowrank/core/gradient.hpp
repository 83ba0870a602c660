/// @file
/// A gradient is whatever can be multiplied with: a dense matrix in fp32 or 16 bits, or the two factors a linear layer has
/// anyway.
#pragma once

#include <concepts>
#include <limits>
#include <type_traits>

#include "lowrank/core/scalar.hpp"
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

/// Number formats of gradients that mixed-precision backward passes leave.
template <class T>
concept narrow_float = std::same_as<T, bf16> || std::same_as<T, fp16>;

/// A dense gradient in 16 bits: every element has half the bytes, and it is never widened as a whole.
template <class G>
inline constexpr bool is_narrow_gradient = false;
template <class T, memory_space Space>
inline constexpr bool is_narrow_gradient<matrix_view<T, Space>> = narrow_float<std::remove_const_t<T>>;

/// Where scratch is asked for by the tokens of a gradient (0: dense in fp32): one in 16 bits. No arithmetic on tokens ends here.
inline constexpr index_t narrow_gradient = std::numeric_limits<index_t>::min();

namespace detail {
template <class G>
inline constexpr bool is_writable_gradient = false;
template <class T, memory_space Space>
inline constexpr bool is_writable_gradient<matrix_view<T, Space>> = !std::is_const_v<T>;
}  // namespace detail

/// What optimizers accept as a gradient: something with a shape that can be flipped and multiplied with
/// (linalg/gradient_products.hpp). Only what needs single elements of G asks for `is_dense_gradient`.
template <class G>
concept gradient = memory_space<typename G::space> && !detail::is_writable_gradient<G> && requires(G const g) {
  { g.shape() } -> std::same_as<extents>;
  { g.t() } -> std::same_as<G>;
};
static_assert(gradient<matrix_view<float const>> && gradient<matrix_view<bf16 const>> &&
              gradient<outer_product<device_space>>);

/// What callers may pass: a gradient, or a dense one that they happen to hold as a writable view.
template <class G>
concept gradient_argument = gradient<G> || std::same_as<G, matrix_view<float, typename G::space>> ||
    (detail::is_writable_gradient<G>&& is_narrow_gradient<G>);

/// The argument as a gradient.
template <gradient G>
[[nodiscard]] constexpr G as_gradient(G const& g) noexcept {
  return g;
}
template <memory_space Space>
[[nodiscard]] constexpr matrix_view<float const, Space> as_gradient(matrix_view<float, Space> g) noexcept {
  return g;
}

template <narrow_float T, memory_space Space>
[[nodiscard]] constexpr matrix_view<T const, Space> as_gradient(matrix_view<T, Space> g) noexcept {
  return g;
}

/// Rows that the factors of a gradient share; 0 for a dense one, `narrow_gradient` for one in 16 bits. Scratch of products
/// goes by it.
template <gradient G>
[[nodiscard]] constexpr index_t tokens_of(G const& g) noexcept {
  if constexpr (is_dense_gradient<G>) return 0;
  else if constexpr (is_narrow_gradient<G>) return narrow_gradient;
  else return g.tokens();
}

}  // namespace lowrank
