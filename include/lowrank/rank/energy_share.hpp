/// @file
/// Ranks of a model's weights by the energy they capture, with `allocate_ranks`.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"
#include "lowrank/rank/detail/curve_filling.hpp"
#include "lowrank/rank/energy.hpp"

namespace lowrank::ranks {

/// The largest sum of captured shares of energy, or the largest share that every matrix captures (`rank_objective`). Ranks stay
/// below break-even while the budget is spent; what is left then makes whole matrices dense, those first that lose most for
/// each parameter.
/// Requires: storage in factors where parameters are counted, so that all columns of a matrix cost the same.
/// Cost: O(total steps x matrices).  Throws: argument_error, also where the least ranks exceed the budget.
struct energy_share {
  rank_objective objective{rank_objective::most_energy};

  void check() const noexcept {}
  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const {
    detail::check_allocation("ranks::energy_share", spectra, budget, options);
    bool const by_rank = budget.unit == budget_unit::rank;
    require(by_rank || options.storage == factor_storage::factors, "ranks::energy_share",
            "counts parameters of factors only, not of the pivoted form");
    std::vector<std::vector<double>> energies;
    std::vector<rank_request> requests;
    index_t all = 0, least = 0, dense = 0;
    for (auto const& one : spectra) {
      extents const w = one.shape;
      index_t const column = by_rank ? 1 : std::max<index_t>(w.rows + w.cols, 1),
                    whole = by_rank ? one.length() : w.size();
      index_t const most = by_rank ? one.length() : most_columns(w, options);
      auto& squares = energies.emplace_back(one.values.begin(), one.values.begin() + most);
      for (double& x : squares) x *= x;
      requests.push_back({.energies = squares, .whole = one.energy(), .bytes_per_column = column});
      all += whole;
      dense += most == 0 ? whole : 0;
      least += std::min(detail::rank_within(w, 0, options), most) * column;
    }
    index_t const kept = detail::units_kept(budget, all) - dense;
    detail::require_reachable("ranks::energy_share", budget,
                              kept >= least ? 1.0 : 1 - static_cast<double>(least + dense) / static_cast<double>(all));
    auto found = allocate_ranks(requests, kept, objective, {.least = options.least, .multiple = options.multiple});
    if (!by_rank) fill_up(spectra, requests, kept - found.bytes, found.ranks);
    return summarize(spectra, std::move(found.ranks), budget, options);
  }

 private:
  /// Columns of the largest factors that are smaller than the matrix; 0: no rank that is allowed makes any.
  [[nodiscard]] static index_t most_columns(extents w, rank_options const& options) noexcept {
    index_t const below = break_even_rank(w, options.storage) - 1, r = detail::rank_within(w, below, options);
    return r <= below ? r : 0;
  }
  /// Spends what is left on matrices whose ranks cannot grow any more.
  static void fill_up(std::span<spectrum const> spectra, std::span<rank_request const> requests, index_t left,
                      std::vector<index_t>& ranks) {
    auto const cost = [&](std::size_t i) { return spectra[i].shape.size() - ranks[i] * requests[i].bytes_per_column; };
    auto const gain = [&](std::size_t i) {
      double const energy = spectra[i].energy();
      return energy > 0 ? spectra[i].tail(ranks[i]) / energy / static_cast<double>(std::max<index_t>(cost(i), 1)) : 0.0;
    };
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < ranks.size(); ++i)
      if (requests[i].energies.empty()) ranks[i] = spectra[i].length();
      else if (ranks[i] == static_cast<index_t>(requests[i].energies.size())) order.push_back(i);
    std::ranges::stable_sort(order, std::greater<>{}, gain);
    for (std::size_t const i : order) {
      if (cost(i) > left) continue;
      left -= cost(i);
      ranks[i] = spectra[i].length();
    }
  }
};

}  // namespace lowrank::ranks
