/// @file
/// A new basis every so many steps.
#pragma once

#include "lowrank/refresh/policy.hpp"

namespace lowrank::refresh {

/// Due when call mod period = 0.  Reference: Zhao et al., arXiv 2403.03507, Algorithm 2 (T).
struct every {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{};
  struct state {
    friend void visit_state(state&, auto&&) {}
  };

  index_t period{200};

  void check() const { require(period >= 1, "refresh::every", "period must be at least 1, got ", period); }
  [[nodiscard]] state init(refresh_context const&) const { return {}; }
  [[nodiscard]] bool due(state const&, index_t call) const { return call % period == 0; }
  void observe(state&, refresh_report const&) const {}
};
static_assert(refresh_policy<every>);

}  // namespace lowrank::refresh
