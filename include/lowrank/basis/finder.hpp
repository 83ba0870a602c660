/// @file
/// How a basis is found. A finder fills a candidate; the composition decides what becomes of it.
#pragma once

#include "lowrank/basis/linear_map.hpp"
#include "lowrank/core/rng.hpp"

namespace lowrank {

/// Everything a finder may look at, in facing coordinates.
template <class E, gradient G>
struct finder_inputs {
  G gradient;                   ///< m x n
  index_t call;                 ///< number of this call of `step`, skipped ones counted
  side facing_side;             ///< which side of the weight this is, for finders that keep matrices in its orientation
  rng_key key;                  ///< purpose basis; a stream of this tensor and call alone
  const_view_of<E> previous{};  ///< m x k, the basis as stored, if there is one (two-sided: the left one)
  const_view_of<E> previous_right{};  ///< n x k, of two-sided bases
  const_view_of<E> momentum{};  ///< k x n, the rule's first moment, where the traits ask for it and the rule has it
};

struct finder_traits {
  bool takes_factored{true};   ///< works from products with the gradient alone
  bool keeps_state{false};     ///< has `state<S>`, `init`, `bytes`, `observe`, and `find` takes the state
  bool reads_previous{false};  ///< looks at the old basis
  bool reads_momentum{false};
};

/// A finder whose settings decide may have `wants()`: the traits it needs after all, so that nothing is decoded for it in vain.
/// A finder writes an orthonormal candidate, or sets *failed (not converged, input it cannot use); the old basis is then
/// kept. The candidate's shape says the rank. It may touch nothing else but its own state, and that only when it succeeds.
template <class F, class E, class G>
concept basis_finder = executor<E> && gradient<G> &&
    requires(F const finder, E& exec, typename F::template map<typename E::space> map, finder_inputs<E, G> in,
             extents g) {
  requires linear_map<typename F::template map<typename E::space>, E>;
  { F::traits } -> std::convertible_to<finder_traits>;
  finder.check();
  { finder.needs_gradient() } -> std::same_as<bool>;  // if not, a zero gradient is no reason to keep the old basis
  { finder.takes(in.gradient) } -> std::same_as<bool>;
  { finder.workspace_bytes(g, index_t{}, index_t{}) } -> std::same_as<index_t>;
};

namespace detail {

struct stateless {
  friend void visit_state(stateless&, auto&&) {}
};
template <class F, memory_space S>
struct finder_state {
  using type = stateless;
};
template <class F, memory_space S>
  requires(F::traits.keeps_state)
struct finder_state<F, S> {
  using type = typename F::template state<S>;
};
/// What a finder remembers; nothing for most.
template <class F, memory_space S>
using finder_state_t = typename finder_state<F, S>::type;

/// The calls that only finders with a state have.
template <executor E, class F>
[[nodiscard]] finder_state_t<F, typename E::space> init_finder(E& exec, F const& finder, extents g, index_t r) {
  if constexpr (F::traits.keeps_state) return finder.init(exec, g, r);
  else return {};
}
template <class F>
[[nodiscard]] index_t finder_bytes(F const& finder, extents g, index_t r) {
  if constexpr (F::traits.keeps_state) return finder.bytes(g, r);
  else return 0;
}
/// Scratch of a refresh from any rank up to r to any other: of finders that a change of rank costs more than none.
template <class F>
[[nodiscard]] index_t resize_bytes(F const& finder, extents g, index_t r, index_t tokens) {
  if constexpr (requires { finder.resize_bytes(g, r, tokens); }) return finder.resize_bytes(g, r, tokens);
  else return 0;
}
template <executor E, class F, class State, class Inputs, class... Out>
void find_basis(E& exec, F const& finder, State& state, Inputs const& in, Out... out) {
  if constexpr (F::traits.keeps_state) finder.find(exec, state, in, out...);
  else finder.find(exec, in, out...);
}

/// The candidate a finder fills: the map over writable matrices, and where it is kept until accepted.
template <class Map>
struct candidate;

template <memory_space Space>
struct candidate<dense_map<Space>> {
  matrix_view<float, Space> p;

  [[nodiscard]] static constexpr index_t bytes(extents g, index_t r) noexcept {
    return scratch_bytes<float>(g.rows * r);
  }
  template <executor E>
  [[nodiscard]] static candidate take(E& exec, side where, extents g, index_t r) {
    return {take_matrix(exec, {g.rows, r}, where)};
  }
  [[nodiscard]] dense_map<Space> map() const noexcept { return {p}; }
  template <class F>
  void each(F const& f) const {
    f(p);
  }
};
template <memory_space Space>
struct candidate<pair_map<Space>> {
  matrix_view<float, Space> u, v;

  [[nodiscard]] static constexpr index_t bytes(extents g, index_t r) noexcept {
    return scratch_bytes<float>(g.rows * r) + scratch_bytes<float>(g.cols * r);
  }
  template <executor E>
  [[nodiscard]] static candidate take(E& exec, side, extents g, index_t r) {
    return {take_matrix(exec, {g.rows, r}, side::left), take_matrix(exec, {g.cols, r}, side::right)};
  }
  [[nodiscard]] pair_map<Space> map() const noexcept { return {u, v}; }
  template <class F>
  void each(F const& f) const {
    f(u);
    f(v);
  }
};

}  // namespace detail

namespace basis {

/// Defaults of finders of one dense matrix: `find(exec, in, p, failed)` is left to write.
struct one_sided {
  template <memory_space S>
  using map = dense_map<S>;
  static constexpr finder_traits traits{};
  void check() const {}
  [[nodiscard]] static constexpr bool needs_gradient() noexcept { return true; }
  [[nodiscard]] static constexpr bool takes(gradient auto const&) noexcept { return true; }
};

}  // namespace basis
}  // namespace lowrank
