/// @file
/// The same share of every matrix.
#pragma once

#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"

namespace lowrank::ranks {

/// Every matrix loses the share that is asked for: of its singular values, rounded to the nearest number, ties up; or of its
/// parameters, r the largest rank whose factors take no more than what is left. Ranks of at least `least`.
/// Throws: argument_error, also where the least ranks keep too much.
struct uniform {
  void check() const noexcept {}

  /// Rank of one matrix that keeps 1 - removal.
  [[nodiscard]] static index_t rank_of(extents w, rank_budget const& budget, rank_options const& options) noexcept {
    index_t const length = std::min(w.rows, w.cols);
    if (budget.removal <= 0) return length;
    index_t r = 0;
    if (budget.unit == budget_unit::rank) {
      r = length - static_cast<index_t>(std::floor(budget.removal * static_cast<double>(length) + 0.5));
      return rounded_rank(w, r, options);
    }
    auto const kept = static_cast<index_t>(std::floor((1 - budget.removal) * static_cast<double>(w.size())));
    r = largest_rank(w, kept, options.storage);
    return r >= length ? length : detail::rank_within(w, r, options);
  }

  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const {
    for (auto const& one : spectra) one.check("ranks::uniform");
    budget.check("ranks::uniform");
    options.check("ranks::uniform");
    detail::require_reachable("ranks::uniform", budget, detail::most_removed(spectra, budget.unit, options));
    std::vector<index_t> out;
    for (auto const& one : spectra) out.push_back(rank_of(one.shape, budget, options));
    auto found = summarize(spectra, std::move(out), budget, options);
    // Matrices at their least rank cannot do their part, and here nobody does it for them.
    if (budget.unit == budget_unit::parameters) detail::require_reachable("ranks::uniform", budget, found.reached);
    return found;
  }
};

}  // namespace lowrank::ranks
