/// @file
/// WeLore's ranks: one threshold on the normalised singular values of all matrices.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"

namespace lowrank {

/// Which thresholds WeLore considers.
enum class threshold_search : std::uint8_t {
  exact,      ///< every pooled value
  published,  ///< 0, 0.005, ..., 1
};

namespace ranks {

/// Singular values are normalised to [0, 1] in each matrix and pooled; those below one threshold k go. A matrix counts, and is
/// cut, only when more than `gate` of its values go; others stay whole. Constant spectra and vectors stay whole too.
/// Ensures: without a gate and with exact search, k is the element round(ERR Σ min(m, n)) of the sorted pool, so that just
/// as many values lie below it where none are equal. Else k is the least threshold that reaches the budget.
/// Cost: O(N log N) for N singular values in all.  Throws: argument_error, also for a budget that no threshold reaches.
/// Reference: Jaiswal et al., "From GaLore to WeLore" (2024), section 3, which searches in steps of 0.005.
struct welore {
  double gate{0.0};  ///< 0.4999 for what is going to be fine-tuned: only matrices below break-even
  threshold_search search{threshold_search::exact};

  void check() const { require(gate >= 0 && gate < 1, "ranks::welore", "gate must be in [0, 1), got ", gate); }
  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const;
  /// The ranks of a threshold that is known.
  [[nodiscard]] allocation at_threshold(std::span<spectrum const> spectra, double threshold,
                                        rank_options const& options = {}) const;
};

}  // namespace ranks

namespace detail {

/// Normalised spectra of all matrices. A constant one is all ones, which no threshold cuts.
class normalised_pool {
 public:
  explicit normalised_pool(std::span<spectrum const> spectra) : spectra_{spectra} {
    for (auto const& one : spectra) {
      auto& values = normalised_.emplace_back(one.normalised());
      if (one.is_constant()) std::ranges::fill(values, 1.0);
      sorted_.insert(sorted_.end(), values.begin(), values.end());
    }
    std::ranges::sort(sorted_);
  }
  [[nodiscard]] std::vector<double> const& sorted() const noexcept { return sorted_; }

  [[nodiscard]] allocation cut_below(double threshold, double gate, rank_budget const& budget,
                                     rank_options const& options) const {
    std::vector<index_t> ranks;
    ranks.reserve(spectra_.size());
    for (std::size_t i = 0; i < spectra_.size(); ++i) {
      auto const& values = normalised_[i];
      auto const kept = std::partition_point(values.begin(), values.end(), [=](double x) { return x >= threshold; });
      index_t const rank = kept - values.begin();
      extents const shape = spectra_[i].shape;
      ranks.push_back(is_low_rank_component(shape, rank, gate) ? rounded_rank(shape, rank, options)
                                                               : spectra_[i].length());
    }
    auto out = summarize(spectra_, std::move(ranks), budget, options);
    out.threshold = threshold;
    return out;
  }

 private:
  std::span<spectrum const> spectra_;
  std::vector<std::vector<double>> normalised_;
  std::vector<double> sorted_;
};

}  // namespace detail

inline allocation ranks::welore::at_threshold(std::span<spectrum const> spectra, double threshold,
                                              rank_options const& options) const {
  check();
  detail::check_allocation("ranks::welore", spectra, {}, options);
  require(threshold >= 0 && threshold <= 1, "ranks::welore", "threshold must be in [0, 1], got ", threshold);
  return detail::normalised_pool{spectra}.cut_below(threshold, gate, {}, options);
}

inline allocation ranks::welore::allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                          rank_options const& options) const {
  check();
  detail::check_allocation("ranks::welore", spectra, budget, options);
  detail::normalised_pool const pool{spectra};
  auto const at = [&](double threshold) { return pool.cut_below(threshold, gate, budget, options); };
  detail::require_reachable("ranks::welore", budget, at(1.0).reached);
  auto const& values = pool.sorted();
  if (values.empty()) return at(0.0);
  auto const all = static_cast<double>(values.size());
  if (search == threshold_search::exact && gate == 0 && budget.unit == budget_unit::rank && options.multiple == 1 &&
      options.least == 1) {
    auto const below = static_cast<std::size_t>(std::floor(budget.removal * all + 0.5));
    if (below < values.size()) return at(values[below]);
  }
  // What is removed rises with the threshold.
  constexpr std::size_t steps = 200;
  auto const candidate = [&](std::size_t i) {
    if (search == threshold_search::published) return static_cast<double>(i) / static_cast<double>(steps);
    return i < values.size() ? values[i] : 1.0;
  };
  std::size_t low = 0, high = search == threshold_search::published ? steps : values.size();
  while (low < high) {
    std::size_t const middle = (low + high) / 2;
    if (at(candidate(middle)).reached >= budget.removal - 1e-12) high = middle;
    else low = middle + 1;
  }
  return at(candidate(low));
}

}  // namespace lowrank
