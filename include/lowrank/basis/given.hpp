/// @file
/// A basis that the caller brings: recorded, precomputed, or shared between workers.
#pragma once

#include <functional>

#include "lowrank/basis/finder.hpp"
#include "lowrank/linalg/elementwise.hpp"

namespace lowrank::basis {

/// Asks `source(call, facing_side)` at every refresh for an m x r matrix in facing coordinates (for side::right, the
/// transpose of an r x n matrix of rows), in the memory of the executor. An empty view means that there is none: the old basis
/// stays.
template <memory_space Space>
struct basic_given : one_sided {
  std::function<matrix_view<float const, Space>(index_t call, side facing_side)> source{};

  [[nodiscard]] static constexpr bool needs_gradient() noexcept { return false; }
  void check() const { require(static_cast<bool>(source), "basis::given", "needs a source"); }
  [[nodiscard]] index_t workspace_bytes(extents, index_t, index_t) const { return 0; }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> p, std::int32_t* failed) const {
    auto const from = source(in.call, in.facing_side);
    bool const none = from.empty();
    require<shape_error>(none || from.shape() == p.shape(), "basis::given", "needs a basis of shape ", p.shape(),
                         ", got ", from.shape());
    if constexpr (requires { exec.check_memory(from.data, "basis::given", "the basis"); })
      if (!none) exec.check_memory(from.data, "basis::given", "the basis");
    if (!none) copy(exec, from, p);
    exec.single([=] LOWRANK_DEVICE { *failed = none ? 1 : 0; });
  }
};
using given = basic_given<host_space>;

}  // namespace lowrank::basis
