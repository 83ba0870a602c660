/// @file
/// A basis on each side of the gradient, both found by the same means.
#pragma once

#include "lowrank/basis/finder.hpp"

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
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> u, view_of<E> v, std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const also = exec.arena().template take<std::int32_t>(1);
    finder.find(exec, in, u, failed);
    auto flipped = in;
    flipped.gradient = in.gradient.t();
    flipped.facing_side = side::right;
    flipped.key.step ^= 0x80000000U;  // another stream than the left basis had
    finder.find(exec, flipped, v, also);
    exec.single([=] { *failed |= *also; });
  }
};

}  // namespace lowrank::basis
