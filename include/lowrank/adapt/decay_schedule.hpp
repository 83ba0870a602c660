/// @file
/// How the share of a frozen matrix in its layer falls from 1 to 0: a function of the number of updates, nothing to save.
#pragma once

#include <array>
#include <cmath>
#include <numbers>
#include <ostream>

#include "lowrank/core/config.hpp"
#include "lowrank/core/error.hpp"

namespace lowrank::adapt {

enum class decay_form : std::uint8_t {
  sine,    ///< 1 - sin(π t / 2q): fast at first, a smooth landing
  cosine,  ///< cos(π t / 2q): slow at first, and steepest where it ends
  linear,  ///< 1 - t / q
  step,    ///< 1, then nothing
};
inline std::ostream& operator<<(std::ostream& out, decay_form form) {
  constexpr std::array names{"sine", "cosine", "linear", "step"};
  auto const number = static_cast<std::size_t>(form);
  return out << (number < names.size() ? names[number] : "unknown");
}

/// The share after t updates of the optimizer (micro-batches do not count); from t = `updates` on exactly 0.
/// Reference: Hwang et al., "PC-LoRA", arXiv 2406.09117, the decay factor of section 3.
struct decay_schedule {
  index_t updates{1000};  ///< q
  decay_form form{decay_form::sine};
  index_t period{1};  ///< between two changes, in updates

  void check() const {
    require(updates >= 1 && period >= 1, "decay_schedule", "updates and period must be at least 1, got ", updates,
            " and ", period);
    require(form <= decay_form::step, "decay_schedule", "unknown form ", static_cast<int>(form));
  }
  [[nodiscard]] double share(index_t t) const noexcept {
    if (t >= updates) return 0;
    double const done = static_cast<double>(t < 0 ? 0 : t / period * period) / static_cast<double>(updates);
    double const angle = std::numbers::pi / 2 * done;
    switch (form) {
      case decay_form::sine:
        return 1 - std::sin(angle);
      case decay_form::cosine:
        return std::cos(angle);
      case decay_form::linear:
        return 1 - done;
      case decay_form::step:
        return 1;
    }
    return 1;
  }
};

}  // namespace lowrank::adapt
