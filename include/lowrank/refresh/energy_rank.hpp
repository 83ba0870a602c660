/// @file
/// As many columns as the gradient needs.
#pragma once

#include <algorithm>

#include "lowrank/refresh/every.hpp"

namespace lowrank::refresh {

/// Any policy, with a rank that follows the gradient: at the next refresh the basis gets as many columns as reached
/// `share` of ‖G‖² at the last one, a multiple of `multiple` from `least` up to the rank of the settings. Where even all
/// columns did not reach it, half as many more. The count is taken from the energies of the rows of R, which is never too
/// few. Memory is that of the largest rank; smaller ones save time, not bytes.
template <refresh_policy Inner = every>
struct energy_rank {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{.needs_overlap = Inner::traits.needs_overlap,
                                         .needs_captured = Inner::traits.needs_captured,
                                         .changes_rank = true};
  struct state {
    typename Inner::state inner;
    index_t capacity{}, rank{};
    friend void visit_state(state& s, auto&& f) {
      visit_state(s.inner, f);
      f("wanted_rank", s.rank);
    }
  };

  Inner when{};
  double energy{0.9};  ///< the share
  index_t least{8}, multiple{8};

  void check() const {
    when.check();
    require(energy > 0 && energy <= 1, "refresh::energy_rank", "energy must be in (0, 1], got ", energy);
    require(least >= 1 && multiple >= 1, "refresh::energy_rank", "least and multiple must be at least 1, got ", least,
            " and ", multiple);
  }
  [[nodiscard]] state init(refresh_context const& context) const {
    return {when.init(context), context.capacity, context.capacity};
  }
  [[nodiscard]] bool due(state const& s, index_t call) const { return when.due(s.inner, call); }
  [[nodiscard]] index_t rank(state const& s) const { return s.rank; }
  [[nodiscard]] double share() const { return energy; }
  void observe(state& s, refresh_report const& report) const {
    when.observe(s.inner, report);
    if (report.needed_rank < 0) return;
    index_t const wanted =
        report.needed_rank > 0 ? report.needed_rank : report.rank + std::max(multiple, report.rank / 2);
    index_t const rounded = (std::max(wanted, least) + multiple - 1) / multiple * multiple;
    s.rank = std::min(rounded, s.capacity);
  }
};
static_assert(refresh_policy<energy_rank<>>);

}  // namespace lowrank::refresh
