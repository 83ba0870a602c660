/// @file
/// Learning rates over time: functions of the step number, nothing to save.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lowrank/core/config.hpp"
#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank::schedule {

/// The same factor always.
struct constant {
  [[nodiscard]] constexpr double factor(index_t) const noexcept { return 1; }
};

/// Linear from 1 / warmup to 1 over the first `warmup` steps, then half a cosine down to `floor` at step `total`, and
/// `floor` from there on. Step numbers count from 0.
struct warmup_cosine {
  index_t warmup{0}, total{1};
  double floor{0.1};

  void check() const {
    require(warmup >= 0 && total >= 1 && warmup <= total, "schedule::warmup_cosine",
            "needs 0 <= warmup <= total and total >= 1, got warmup ", warmup, ", total ", total);
    require(is_finite(floor) && floor >= 0 && floor <= 1, "schedule::warmup_cosine", "floor must be in [0, 1], got ",
            floor);
  }
  [[nodiscard]] double factor(index_t step) const noexcept {
    if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
    double const span = static_cast<double>(std::max<index_t>(total - warmup, 1));
    double const done = std::min(1.0, static_cast<double>(step - warmup) / span);
    return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
};

}  // namespace lowrank::schedule
