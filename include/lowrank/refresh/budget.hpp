/// @file
/// As often as a share of the training step pays for.
#pragma once

#include <cmath>

#include "lowrank/refresh/staggered.hpp"

namespace lowrank::refresh {

/// Refreshes cost at most `share` of the flops of training: each matrix gets the shortest period for which that holds,
/// and a phase. Counted in flops, not in seconds, because a clock would make two runs differ.
/// A step of a matrix is 6 T m n flops with a dense gradient (forward, and both gradients), 4 T m n with a factored one.
struct budget {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{};
  struct state {
    index_t period{1}, phase{};
    friend void visit_state(state& s, auto&& f) {
      f("period", identity(s.period));
      f("phase", identity(s.phase));
    }
  };
  enum class gradient_form : std::uint8_t { dense, factored };

  double share{0.05};
  index_t tokens{1024};  ///< a step; micro-batches together
  gradient_form gradient{gradient_form::dense};

  void check() const {
    require(share > 0 && share <= 1, "refresh::budget", "share must be in (0, 1], got ", share);
    require(tokens >= 1, "refresh::budget", "tokens must be at least 1, got ", tokens);
  }
  [[nodiscard]] state init(refresh_context const& context) const {
    require(static_cast<bool>(context.refresh_flops), "refresh::budget", "needs a finder with `flops`");
    bool const factored = gradient == gradient_form::factored;
    double const step =
        (factored ? 4.0 : 6.0) * static_cast<double>(tokens) * static_cast<double>(context.facing.size());
    double const calls = context.refresh_flops(factored ? tokens : 0) / (share * std::max(step, 1.0));
    auto const period = static_cast<index_t>(std::ceil(std::clamp(calls, 1.0, 1e9)));
    return {period, phase_of(context.tensor, period)};
  }
  [[nodiscard]] bool due(state const& s, index_t call) const { return (call + s.phase) % s.period == 0; }
  void observe(state&, refresh_report const&) const {}
};
static_assert(refresh_policy<budget>);

}  // namespace lowrank::refresh
