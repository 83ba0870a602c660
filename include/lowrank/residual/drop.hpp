/// @file
/// What happens to the part of the gradient outside the subspace.
#pragma once

#include <concepts>

#include "lowrank/core/slots.hpp"

namespace lowrank {

struct residual_traits {
  bool reads_gradient{};  ///< needs G itself in every step: no accumulation in the subspace
};

template <class D>
concept residual_policy = std::same_as<typename D::fills, slots::residual> && requires {
  { D::traits } -> std::convertible_to<residual_traits>;
};

namespace residual {

/// It is not used (GaLore).
struct drop {
  using fills = slots::residual;
  static constexpr residual_traits traits{};
};
static_assert(residual_policy<drop>);

}  // namespace residual
}  // namespace lowrank
