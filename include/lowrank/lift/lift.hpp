/// @file
/// How the direction found in the subspace acts on the weight.
#pragma once

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/slots.hpp"

namespace lowrank {

template <class L>
concept lift_policy = std::same_as<typename L::fills, slots::lift> && requires(L const lift) {
  { L::lifts } -> std::convertible_to<bool>;
  { lift.coefficient() } -> std::same_as<float>;
  lift.check();
};

namespace lift {

/// W <- W - rate * scale * P N.  Reference: Zhao et al., arXiv 2403.03507, Algorithm 2 (alpha).
struct back_project {
  using fills = slots::lift;
  static constexpr bool lifts = true;

  float scale{1};

  [[nodiscard]] float coefficient() const noexcept { return scale; }
  void check() const {
    require(is_finite(scale) && scale >= 0, "lift::back_project", "scale must be finite and >= 0, got ", scale);
  }
};

/// Nothing comes back through the basis: moments are followed, the weight only decays. For residuals that act on the
/// weight themselves.
struct nothing {
  using fills = slots::lift;
  static constexpr bool lifts = false;

  [[nodiscard]] float coefficient() const noexcept { return 0; }
  void check() const {}
};
static_assert(lift_policy<back_project> && lift_policy<nothing>);

}  // namespace lift
}  // namespace lowrank
