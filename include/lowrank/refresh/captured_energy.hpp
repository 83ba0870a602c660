/// @file
/// A new basis when the old one has lost its grip on the gradient.
#pragma once

#include <algorithm>

#include "lowrank/refresh/policy.hpp"

namespace lowrank::refresh {

/// Watches rho = ‖PᵀG‖² / ‖G‖². Due when its running mean falls below (1 - tolerance) of what it was right after the
/// refresh, or after `longest` calls. The yardstick is the mean over the first `settle` gradients *after* the one the
/// basis came from: that one is fitted, noise included, and every later gradient would look like a loss.
/// Under accumulation the first micro-batch of a step is what is looked at.
/// Cost: a norm of the gradient at every call (free of flops for a dense gradient; 2 T² (m + n) or 2 T m n for a factored).
struct captured_energy {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{.needs_captured = true};

  struct state {
    index_t last{-1}, seen{};
    double yardstick{}, level{};
    friend void visit_state(state& s, auto&& f) {
      f("last", s.last);
      f("seen", s.seen);
      f("yardstick", s.yardstick);
      f("level", s.level);
    }
  };

  double tolerance{0.2};
  index_t settle{5};      ///< calls that make the yardstick
  double smoothing{0.8};  ///< weight of the past in the running mean
  index_t longest{1000};  ///< calls after which a basis is replaced whatever it captures

  void check() const {
    require(tolerance > 0 && tolerance < 1, "refresh::captured_energy", "tolerance must be in (0, 1), got ", tolerance);
    require(smoothing >= 0 && smoothing < 1, "refresh::captured_energy", "smoothing must be in [0, 1), got ",
            smoothing);
    require(settle >= 1 && longest > settle, "refresh::captured_energy", "needs 1 <= settle < longest, got ", settle,
            " and ", longest);
  }
  [[nodiscard]] state init(refresh_context const&) const { return {}; }
  [[nodiscard]] bool due(state const& s, index_t call) const {
    if (call - s.last >= longest) return true;
    return s.seen > settle && s.level < (1 - tolerance) * s.yardstick;
  }
  void observe(state& s, refresh_report const& report) const {
    if (report.attempted != 0) {
      // Also after a refusal: the next attempt waits until there is a yardstick again.
      s = {.last = report.call};
      return;
    }
    if (report.captured < 0) return;
    ++s.seen;
    if (s.seen <= settle) {
      s.yardstick += (report.captured - s.yardstick) / static_cast<double>(s.seen);
      s.level = s.yardstick;
    } else {
      s.level = smoothing * s.level + (1 - smoothing) * report.captured;
    }
  }
};
static_assert(refresh_policy<captured_energy>);

}  // namespace lowrank::refresh
