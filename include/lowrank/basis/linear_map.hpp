/// @file
/// What a basis does: project a gradient, lift a direction. How it is kept is the store's business.
#pragma once

#include "lowrank/linalg/gradient_products.hpp"

namespace lowrank {

/// From the coordinates of an old basis to those of a new one: M' = left M rightᵀ; without a right side, left M.
template <class E>
struct change_of_basis {
  const_view_of<E> left{}, right{};
};

namespace detail {

/// C = newᵀ old, r x r_old, in scratch.
template <executor E>
[[nodiscard]] const_view_of<E> overlap_of(E& exec, const_view_of<E> now, const_view_of<E> old) {
  auto const c = take_matrix(exec, {now.cols, old.cols});
  multiply(exec, 1.0F, now.t(), old, 0.0F, c);
  return c;
}

}  // namespace detail

/// A basis in use. Facing coordinates: G m x n, P m x r, R = Pᵀ G.
/// `inner(g, r)` is the shape of R; `change_from(exec, old)` what takes coordinates of an older map to this one's.
/// `project`: R = Pᵀ G + beta R. `lift`: out = keep out + alpha (P N)[part], any part; alpha and keep are numbers, or
/// pointers to them where the executor keeps them.
template <class M, class E>
concept linear_map = executor<E> && requires(M const map, E& exec, const_view_of<E> in, view_of<E> out, block part) {
  { M::two_sided } -> std::convertible_to<bool>;
  { map.rank() } -> std::same_as<index_t>;
  { M::inner(extents{}, index_t{}) } -> std::same_as<extents>;
  { M::project_bytes(extents{}, index_t{}, index_t{}) } -> std::same_as<index_t>;
  { M::lift_bytes(index_t{}, index_t{}) } -> std::same_as<index_t>;
  { M::change_bytes(index_t{}) } -> std::same_as<index_t>;
  { map.change_from(exec, map) } -> std::same_as<change_of_basis<E>>;
  map.project(exec, in, 0.0F, out);
  map.lift(exec, 1.0F, in, part, 1.0F, out);
};

/// One matrix with orthonormal columns, on the side that is short.
template <memory_space Space>
struct dense_map {
  static constexpr bool two_sided = false;

  matrix_view<float const, Space> p;  ///< m x r

  [[nodiscard]] index_t rank() const noexcept { return p.cols; }
  [[nodiscard]] static constexpr extents inner(extents g, index_t r) noexcept { return {r, g.cols}; }
  [[nodiscard]] static constexpr index_t project_bytes(extents, index_t r, index_t tokens) noexcept {
    return gradient_product_bytes(tokens, r);
  }
  [[nodiscard]] static constexpr index_t lift_bytes(index_t, index_t) noexcept { return 0; }
  [[nodiscard]] static constexpr index_t change_bytes(index_t r) noexcept { return scratch_bytes<float>(r * r); }

  /// Cost: 2 m r² flops; the result is in scratch of the caller's scope.
  template <executor E>
  [[nodiscard]] change_of_basis<E> change_from(E& exec, dense_map const& old) const {
    return {detail::overlap_of(exec, p, old.p), {}};
  }

  /// Cost: 2 m n r flops, or 2 T r (m + n) for a factored gradient.
  template <executor E, gradient G>
  void project(E& exec, G const& g, float beta, view_of<E> r) const {
    multiply(exec, 1.0F, g.t(), p, beta, r.t());
  }
  /// Cost: 2 r flops for each element of `out`.
  template <executor E, class Factor>
  void lift(E& exec, Factor alpha, const_view_of<E> n, block part, Factor keep, view_of<E> out) const {
    multiply(exec, alpha, p.row_range(part.row_begin, part.row_end), n.col_range(part.col_begin, part.col_end), keep,
             out);
  }
};

/// A basis on both sides: R = Uᵀ G V is r x r.
template <memory_space Space>
struct pair_map {
  static constexpr bool two_sided = true;

  matrix_view<float const, Space> u, v;  ///< m x r, n x r

  [[nodiscard]] index_t rank() const noexcept { return u.cols; }
  [[nodiscard]] static constexpr extents inner(extents, index_t r) noexcept { return {r, r}; }
  [[nodiscard]] static constexpr index_t project_bytes(extents g, index_t r, index_t tokens) noexcept {
    return scratch_bytes<float>(g.cols * r) + gradient_product_bytes(tokens, r);
  }
  /// Of a part with that many columns.
  [[nodiscard]] static constexpr index_t lift_bytes(index_t r, index_t columns) noexcept {
    return scratch_bytes<float>(r * columns);
  }

  [[nodiscard]] static constexpr index_t change_bytes(index_t r) noexcept { return 2 * scratch_bytes<float>(r * r); }

  template <executor E>
  [[nodiscard]] change_of_basis<E> change_from(E& exec, pair_map const& old) const {
    return {detail::overlap_of(exec, u, old.u), detail::overlap_of(exec, v, old.v)};
  }
  template <executor E, gradient G>
  void project(E& exec, G const& g, float beta, view_of<E> r) const {
    scratch_scope const scope{exec};
    auto const t = take_matrix(exec, {g.shape().cols, rank()});
    multiply(exec, 1.0F, g.t(), u, 0.0F, t);
    multiply(exec, 1.0F, const_view_of<E>(t.t()), v, beta, r);
  }
  template <executor E, class Factor>
  void lift(E& exec, Factor alpha, const_view_of<E> n, block part, Factor keep, view_of<E> out) const {
    scratch_scope const scope{exec};
    auto const t = take_matrix(exec, {rank(), part.col_end - part.col_begin});
    multiply(exec, 1.0F, n, v.row_range(part.col_begin, part.col_end).t(), 0.0F, t);
    multiply(exec, alpha, u.row_range(part.row_begin, part.row_end), const_view_of<E>(t), keep, out);
  }
};

}  // namespace lowrank
