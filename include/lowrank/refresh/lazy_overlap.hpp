/// @file
/// Ever longer gaps for matrices whose subspace stands still.
#pragma once

#include <algorithm>
#include <array>

#include "lowrank/refresh/policy.hpp"

namespace lowrank::refresh {

/// What says that a subspace stands still.
enum class likeness : std::uint8_t {
  subspace,       ///< ‖P_oldᵀ P‖² / r: neither signs nor rotations of the basis matter
  first_vectors,  ///< the cosine of the first columns, sign and all, as in Q-GaLore's code
};

/// Gap starts at `gap`; when the mean likeness of the last `history` refreshes is at least `threshold`, the gap grows by
/// `factor`, up to `longest`. Due when call mod gap = 0, as in the published code, where the likenesses are kept after a
/// gap has grown.
/// Reference: Zhang et al. (Q-GaLore), arXiv 2407.08296, section 3.2 and Algorithm 1.
struct lazy_overlap {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{.needs_overlap = true};
  static constexpr index_t longest_history = 16;

  struct state {
    index_t gap{}, seen{};
    std::array<double, longest_history> likeness{};
    friend void visit_state(state& s, auto&& f) {
      f("gap", s.gap);
      f("seen", s.seen);
      f("likeness", s.likeness);
    }
  };

  index_t gap{200};
  double threshold{0.4}, factor{2};
  index_t history{5}, longest{1'000'000};
  likeness of{likeness::subspace};

  void check() const {
    require(gap >= 1 && longest >= gap, "refresh::lazy_overlap", "needs 1 <= gap <= longest, got ", gap, " and ",
            longest);
    require(history >= 1 && history <= longest_history, "refresh::lazy_overlap", "history must be in [1, ",
            longest_history, "], got ", history);
    require(factor >= 1 && factor <= 1e6, "refresh::lazy_overlap", "factor must be in [1, 1e6], got ", factor);
    require(threshold >= -1 && threshold <= 1, "refresh::lazy_overlap", "threshold must be in [-1, 1], got ",
            threshold);
  }
  [[nodiscard]] state init(refresh_context const&) const { return {.gap = gap}; }
  [[nodiscard]] bool due(state const& s, index_t call) const { return call % std::max<index_t>(s.gap, 1) == 0; }
  void observe(state& s, refresh_report const& report) const {
    if (report.accepted == 0 || report.overlap < 0) return;
    s.likeness[static_cast<std::size_t>(s.seen % history)] =
        of == likeness::subspace ? report.overlap : report.first_cosine;
    ++s.seen;
    if (s.seen < history) return;
    double sum = 0;
    for (index_t k = 0; k < history; ++k) sum += s.likeness[static_cast<std::size_t>(k)];
    if (sum / static_cast<double>(history) < threshold) return;
    double const longer = static_cast<double>(s.gap) * factor;
    s.gap = longer < static_cast<double>(longest) ? static_cast<index_t>(longer) : longest;
  }
};
static_assert(refresh_policy<lazy_overlap>);

}  // namespace lowrank::refresh
