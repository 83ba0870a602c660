/// @file
/// The basis from a randomized range finder: products only, for dense and factored gradients.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/linalg/range_finder.hpp"
#include "lowrank/linalg/route.hpp"

namespace lowrank::basis {

/// Leading left singular vectors, approximately: sketch, power iterations, Rayleigh-Ritz.
/// Cost: 2 (2 q + 1) + 2 products of 2 m n (r + p) flops, or 2 T (r + p) (m + n) each for a factored gradient.
/// Reference: Halko, Martinsson & Tropp, arXiv 0909.4061, Algorithms 4.4 and 5.1.
struct randomized : one_sided {
  range_options range{};

  void check() const {
    require(range.oversampling >= 0 && range.power_iterations >= 0, "basis::randomized",
            "oversampling and power_iterations must not be negative, got ", range.oversampling, " and ",
            range.power_iterations);
  }
  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t tokens) const {
    return find_range_bytes(g, r, range, tokens) + scratch_bytes<range_report>(1);
  }
  [[nodiscard]] double flops(extents g, index_t r, index_t tokens) const {
    return find_range_flops({.g = g,
                             .r = r,
                             .oversampling = range.oversampling,
                             .passes = range.power_iterations,
                             .tokens = tokens,
                             .start = range_start::cold})
        .cost();
  }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const& in, view_of<E> p, std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const report = exec.arena().template take<range_report>(1);
    find_range(exec, in.gradient, p, range, in.key, report);
    exec.single([=] LOWRANK_DEVICE { *failed = report->failed; });
  }
};

}  // namespace lowrank::basis
