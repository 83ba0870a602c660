/// @file
/// Ranks as in SVD-LLM V2: within a group of like matrices, more is removed where less is lost.
#pragma once

#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"
#include "lowrank/rank/uniform.hpp"

namespace lowrank {

/// What a matrix's share of the removal is proportional to; L is its loss at the uniform rank.
enum class loss_weighting : std::uint8_t {
  published,  ///< 1 / ln L: needs L > 1, and depends on the unit of L
  shifted,    ///< 1 / ln(1 + L): for any L > 0
};

namespace ranks {

/// With L = sqrt(tail of the uniform rank), matrix i of a group of N loses N R w_i / Σ w of its parameters, w = 1 / ln L; what
/// would exceed the least rank goes to the others of the group. Meant for whitened spectra, whose tails are output errors.
/// Throws: argument_error, also for L that the weighting does not take.
/// Reference: Wang et al., "SVD-LLM V2" (2025), section 3.1 and algorithm 2.
struct svd_llm_v2 {
  std::vector<index_t> groups{};  ///< the kind of every matrix; none: one group
  loss_weighting weighting{loss_weighting::published};

  void check() const noexcept {}
  [[nodiscard]] allocation allocate(std::span<spectrum const> spectra, rank_budget const& budget,
                                    rank_options const& options = {}) const {
    detail::check_allocation("ranks::svd_llm_v2", spectra, budget, options);
    require<shape_error>(groups.empty() || groups.size() == spectra.size(), "ranks::svd_llm_v2",
                         "needs a group for each of ", spectra.size(), " matrices or none, got ", groups.size());
    std::vector<index_t> out(spectra.size());
    for (std::size_t i = 0; i < spectra.size(); ++i) out[i] = spectra[i].length();
    std::vector<bool> done(spectra.size());
    for (std::size_t first = 0; budget.removal > 0 && first < spectra.size(); ++first) {
      if (done[first]) continue;
      std::vector<std::size_t> members;
      for (std::size_t i = first; i < spectra.size(); ++i)
        if (groups.empty() || groups[i] == groups[first]) members.push_back(i), done[i] = true;
      share_out(spectra, members, budget, options, out);
    }
    return summarize(spectra, std::move(out), budget, options);
  }

 private:
  [[nodiscard]] double weight(spectrum const& one, rank_budget const& budget, rank_options const& options) const {
    // Of the rank before rounding, and of a cut at least: a matrix that the uniform budget leaves whole has no loss to go by.
    index_t const r = uniform::rank_of(one.shape, budget, {.storage = options.storage});
    double const loss = std::sqrt(one.tail(std::min(r, one.length() - 1)));
    double const logarithm = weighting == loss_weighting::published ? std::log(loss) : std::log1p(loss);
    require(logarithm > 0 && is_finite(logarithm), "ranks::svd_llm_v2", "the loss of a ", one.shape, " matrix must be ",
            weighting == loss_weighting::published ? "above 1" : "positive", ", got ", loss);
    return 1 / logarithm;
  }
  void share_out(std::span<spectrum const> spectra, std::span<std::size_t const> members, rank_budget const& budget,
                 rank_options const& options, std::vector<index_t>& out) const {
    std::vector<double> weights, most;
    for (std::size_t const i : members) {
      weights.push_back(weight(spectra[i], budget, options));
      // Removed where the least rank remains.
      extents const w = spectra[i].shape;
      index_t const least = detail::rank_within(w, 0, options);
      most.push_back(budget.unit == budget_unit::rank
                         ? 1 - static_cast<double>(least) / static_cast<double>(spectra[i].length())
                         : 1 - static_cast<double>(kept_parameters(w, least, options.storage)) /
                                   static_cast<double>(w.size()));
    }
    auto const removals = shares(weights, most, budget.removal * static_cast<double>(members.size()));
    for (std::size_t k = 0; k < members.size(); ++k)
      out[members[k]] = uniform::rank_of(spectra[members[k]].shape, {removals[k], budget.unit}, options);
  }
  /// Numbers proportional to `weights` that sum to `sum`, none above its `most`.
  [[nodiscard]] static std::vector<double> shares(std::span<double const> weights, std::span<double const> most,
                                                  double sum) {
    std::vector<double> out(weights.size());
    std::vector<bool> at_most(weights.size());
    double best = 0;
    for (double const x : most) best += x;
    require(sum <= best + 1e-12, "ranks::svd_llm_v2", "a mean removal of ", sum / static_cast<double>(weights.size()),
            " cannot be met, the most is ", best / static_cast<double>(weights.size()));
    for (bool again = true; again;) {
      again = false;
      double left = sum, total = 0;
      for (std::size_t i = 0; i < out.size(); ++i) at_most[i] ? left -= most[i] : total += weights[i];
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (at_most[i]) continue;
        out[i] = left * weights[i] / total;
        if (out[i] <= most[i]) continue;
        out[i] = most[i];
        at_most[i] = again = true;
      }
    }
    return out;
  }
};

}  // namespace ranks
}  // namespace lowrank
