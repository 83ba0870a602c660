/// @file
/// A basis on each side of the gradient, both found by the same means.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/core/refresh_report.hpp"

namespace lowrank::basis {

/// R = Uᵀ G V (r x r): GaLore's `full` projection. `Finder` is asked for the left basis of G, then of Gᵀ.
template <class Finder>
struct two_sided {
  template <memory_space S>
  using map = pair_map<S>;
  static constexpr finder_traits traits = Finder::traits;

  Finder finder{};

  void check() const { finder.check(); }
  [[nodiscard]] bool needs_gradient() const noexcept { return finder.needs_gradient(); }
  [[nodiscard]] bool takes(gradient auto const& g) const noexcept { return finder.takes(g); }
  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t tokens) const {
    return std::max(finder.workspace_bytes(g, r, tokens), finder.workspace_bytes(g.t(), r, tokens)) +
           scratch_bytes<std::int32_t>(1);
  }
  [[nodiscard]] index_t resize_bytes(extents g, index_t r, index_t tokens) const {
    return std::max(detail::resize_bytes(finder, g, r, tokens), detail::resize_bytes(finder, g.t(), r, tokens)) +
           scratch_bytes<std::int32_t>(1);
  }
  [[nodiscard]] double flops(extents g, index_t r, index_t tokens) const requires requires {
    finder.flops(g, r, tokens);
  }
  { return finder.flops(g, r, tokens) + finder.flops(g.t(), r, tokens); }
  template <memory_space S>
  struct state {
    detail::finder_state_t<Finder, S> left, right;
    friend void visit_state(state& s, auto&& f) {
      visit_state(s.left, prefixed(f, "left."));
      visit_state(s.right, prefixed(f, "right."));
    }
  };
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E& exec, extents g, index_t r) const {
    return {detail::init_finder(exec, finder, g, r), detail::init_finder(exec, finder, g.t(), r)};
  }
  [[nodiscard]] index_t bytes(extents g, index_t r) const {
    return detail::finder_bytes(finder, g, r) + detail::finder_bytes(finder, g.t(), r);
  }
  void observe(auto& s, refresh_report const& report) const {
    finder.observe(s.left, report);
    finder.observe(s.right, report);
  }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> u, view_of<E> v, std::int32_t* failed) const {
    detail::stateless none;
    find_both(exec, none, none, in, u, v, failed);
  }
  template <executor E, gradient G>
  void find(E& exec, state<typename E::space>& s, finder_inputs<E, G> const& in, view_of<E> u, view_of<E> v,
            std::int32_t* failed) const {
    find_both(exec, s.left, s.right, in, u, v, failed);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  template <executor E, class State, gradient G>
  void find_both(E& exec, State& left, State& right, finder_inputs<E, G> const& in, view_of<E> u, view_of<E> v,
                 std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const also = exec.arena().template take<std::int32_t>(1);
    exec.single([=] LOWRANK_DEVICE { *also = 0; });
    auto one = in;
    one.momentum = {};  // r x r here: no sketch of either side
    detail::find_basis(exec, finder, left, one, u, failed);
    auto flipped = one;
    flipped.gradient = in.gradient.t();
    flipped.facing_side = side::right;
    flipped.key.step ^= 0x80000000U;  // another stream than the left basis had
    flipped.previous = in.previous_right;
    detail::find_basis(exec, finder, right, flipped, v, also);
    exec.single([=] LOWRANK_DEVICE { *failed |= *also; });
  }
};

}  // namespace lowrank::basis
