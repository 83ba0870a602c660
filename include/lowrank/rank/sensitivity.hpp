/// @file
/// Ranks from what a model's loss was measured to do when groups of its matrices are compressed.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"
#include "lowrank/rank/uniform.hpp"

namespace lowrank {

/// Increase of the loss when one group alone loses a share of what it has.
struct sensitivity_table {
  std::vector<double> levels{};                 ///< shares removed, rising, in (0, 1)
  std::vector<std::vector<double>> increase{};  ///< of each group at each level

  void check() const {
    double before = 0;
    for (double const level : levels) {
      require(level > before && level < 1, "sensitivity_table", "levels must rise within (0, 1), got ", level,
              " after ", before);
      before = level;
    }
    require(!levels.empty() || increase.empty(), "sensitivity_table", "needs at least one level");
    for (std::size_t g = 0; g < increase.size(); ++g) {
      require<shape_error>(increase[g].size() == levels.size(), "sensitivity_table", "group ", g, " must have ",
                           levels.size(), " increases, got ", increase[g].size());
      for (double const x : increase[g])
        require(is_finite(x), "sensitivity_table", "group ", g, " has an increase of ", x);
    }
  }
};

/// Evaluates the model once for each group and level: `loss(group, level)` compresses that group alone, `dense_loss` is the
/// loss of the model as it is.
/// Throws: argument_error for a loss that is not finite; what `loss` throws.
template <std::invocable<index_t, double> Loss>
[[nodiscard]] sensitivity_table measure_sensitivity(index_t groups, std::vector<double> levels, double dense_loss,
                                                    Loss&& loss) {
  sensitivity_table out{.levels = std::move(levels)};
  out.check();
  for (index_t group = 0; group < groups; ++group) {
    auto& row = out.increase.emplace_back();
    for (double const level : out.levels) {
      double const value = loss(group, level);
      require(is_finite(value), "measure_sensitivity", "the loss of group ", group, " at ", level, " is ", value);
      row.push_back(value - dense_loss);
    }
  }
  return out;
}

namespace ranks {

/// Steps of one percent, each taken by the group whose loss rises least for each parameter, until the budget is met. Between
/// levels the logarithm of the increase is linear, below the first the increase is quadratic. The matrices of a group share
/// its removal as `Within` says.
/// Throws: argument_error, also for a budget beyond the cap of all groups.
template <rank_allocator Within = uniform>
struct sensitivity {
  sensitivity_table table{};
  std::vector<index_t> groups{};  ///< of every matrix: a row of the table
  double step{0.01};              ///< share of a group that one step removes
  double cap{0.6};                ///< no group loses more; beyond the last level the last slope goes on
  double least_increase{1e-5};    ///< what smaller and negative measurements, which are noise, are taken for
  Within within{};

  void check() const {
    table.check();
    require(step > 0 && step <= cap && cap < 1, "ranks::sensitivity", "needs 0 < step <= cap < 1, got ", step, " and ",
            cap);
    require(least_increase > 0, "ranks::sensitivity", "least_increase must be positive, got ", least_increase);
    for (index_t const group : groups)
      require(group >= 0 && group < static_cast<index_t>(table.increase.size()), "ranks::sensitivity",
              "groups must be rows of the table of ", table.increase.size(), ", got ", group);
    within.check();
  }
  /// The increase when a group loses `share`.
  [[nodiscard]] double increase(std::size_t group, double share) const {
    auto const& levels = table.levels;
    auto const at = [&](std::size_t k) { return std::max(table.increase[group][k], least_increase); };
    if (share <= levels.front()) return at(0) * (share / levels.front()) * (share / levels.front());
    if (levels.size() == 1) return at(0) * share / levels.front();
    std::size_t k = 1;
    while (k + 1 < levels.size() && share > levels[k] + 1e-12) ++k;
    double const t = (share - levels[k - 1]) / (levels[k] - levels[k - 1]);
    return std::exp(std::log(at(k - 1)) * (1 - t) + std::log(at(k)) * t);
  }
  /// The share that each group loses.
  [[nodiscard]] std::vector<double> removals(std::span<double const> sizes, double removal) const {
    std::vector<index_t> steps(sizes.size());
    double all = 0;
    for (double const size : sizes) all += size;
    auto const most = static_cast<index_t>(std::floor(cap / step + 1e-9));
    auto const share = [&](index_t count) { return static_cast<double>(count) * step; };
    detail::require_reachable("ranks::sensitivity", {.removal = removal}, share(most));
    auto const removed = [&] {
      double sum = 0;
      for (std::size_t g = 0; g < sizes.size(); ++g) sum += share(steps[g]) * sizes[g];
      return sum;
    };
    while (removed() < removal * all * (1 - 1e-12)) {
      std::size_t best = sizes.size();
      double least = 0;
      for (std::size_t g = 0; g < sizes.size(); ++g) {
        if (steps[g] >= most || sizes[g] <= 0) continue;
        double const rise = (increase(g, share(steps[g] + 1)) - increase(g, share(steps[g]))) / sizes[g];
        if (best == sizes.size() || rise < least) best = g, least = rise;
      }
      if (best == sizes.size()) break;
      ++steps[best];
    }
    std::vector<double> out;
    for (index_t const count : steps) out.push_back(share(count));
    return out;
  }
  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const {
    check();
    detail::check_allocation("ranks::sensitivity", spectra, budget, options);
    require<shape_error>(groups.size() == spectra.size(), "ranks::sensitivity", "needs a group for each of ",
                         spectra.size(), " matrices, got ", groups.size());
    std::vector<double> sizes(table.increase.size());
    for (std::size_t i = 0; i < spectra.size(); ++i)
      sizes[static_cast<std::size_t>(groups[i])] +=
          static_cast<double>(budget.unit == budget_unit::rank ? spectra[i].length() : spectra[i].shape.size());
    auto const shares = removals(sizes, budget.removal);
    std::vector<index_t> out(spectra.size());
    for (std::size_t g = 0; g < sizes.size(); ++g) {
      std::vector<spectrum> members;
      for (std::size_t i = 0; i < spectra.size(); ++i)
        if (groups[i] == static_cast<index_t>(g)) members.push_back(spectra[i]);
      auto const part = within.allocate(members, {shares[g], budget.unit}, options);
      std::size_t next = 0;
      for (std::size_t i = 0; i < spectra.size(); ++i)
        if (groups[i] == static_cast<index_t>(g)) out[i] = part.ranks[next++];
    }
    return summarize(spectra, std::move(out), budget, options);
  }
};

}  // namespace ranks
}  // namespace lowrank
