/// @file
/// Ranks that lose least energy in all: every next parameter goes where it saves most.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"
#include "lowrank/rank/detail/curve_filling.hpp"

namespace lowrank {

/// In what the energies of different matrices are compared.
enum class tail_scale : std::uint8_t {
  relative,  ///< shares of each matrix's own energy
  absolute,  ///< as they are: output errors, where spectra are whitened
};

namespace ranks {

/// Minimises Σ weight tail(r) under the budget, tail(r) = Σ_{i > r} s_i². A matrix ends up in factors or dense, whichever the
/// budget is better spent on; in pivoted storage, where later ranks are cheaper, steps follow the convex hull.
/// Ensures: optimal up to the last step that did not fit. Cost: O(N log L) for N singular values of L matrices.
/// Throws: argument_error, also where the least ranks exceed the budget.
struct water_filling {
  tail_scale scale{tail_scale::relative};
  std::vector<double> weights{};  ///< one a matrix, e.g. mean squared output gradients; none: all 1

  void check() const {
    for (double const weight : weights)
      require(is_finite(weight) && weight >= 0, "ranks::water_filling", "weights must be finite and >= 0, got ",
              weight);
  }
  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const {
    check();
    detail::check_allocation("ranks::water_filling", spectra, budget, options);
    require<shape_error>(weights.empty() || weights.size() == spectra.size(), "ranks::water_filling",
                         "needs a weight for each of ", spectra.size(), " matrices or none, got ", weights.size());
    std::vector<detail::loss_curve> curves;
    index_t least = 0, all = 0;
    for (std::size_t i = 0; i < spectra.size(); ++i) {
      auto tails = spectra[i].tails();
      double const weight = weights.empty() ? 1.0 : weights[i], energy = tails.front();
      double const factor = scale == tail_scale::absolute || energy <= 0 ? weight : weight / energy;
      for (double& x : tails) x *= factor;
      auto points = detail::curve_points(spectra[i].shape, tails, budget.unit, options);
      least += points.front().cost;
      all += points.back().cost;
      curves.emplace_back(std::move(points));
    }
    index_t const kept = detail::units_kept(budget, all);
    detail::require_reachable("ranks::water_filling", budget,
                              kept >= least ? 1.0 : 1 - static_cast<double>(least) / static_cast<double>(all));
    detail::fill_curves(curves, kept);
    std::vector<index_t> out;
    out.reserve(curves.size());
    for (auto const& curve : curves) out.push_back(curve.now().rank);
    return summarize(spectra, std::move(out), budget, options);
  }
};

}  // namespace ranks
}  // namespace lowrank
