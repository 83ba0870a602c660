/// @file
/// Lion: the sign of an interpolated momentum.
#pragma once

#include "lowrank/rule/elementwise.hpp"

namespace lowrank::rule {

/// N = sign(b1 M + (1 - b1) g), then M <- b2 M + (1 - b2) g.
/// Reference: Chen et al., arXiv 2302.06675, Algorithm 2.
struct lion_formula {
  double beta1{0.9}, beta2{0.99};
  decay_order decay{decay_order::before};

  static constexpr int moment_count = 1;
  static constexpr std::array moment_orders{moment_order::first};
  [[nodiscard]] LOWRANK_HD double moment_beta(std::size_t) const noexcept { return beta2; }

  struct scalars {
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
  };
  void check() const {
    require(detail::is_average_weight(beta1) && detail::is_average_weight(beta2), "rule::lion",
            "betas must be in [0, 1), got ", beta1, " and ", beta2);
  }
  [[nodiscard]] LOWRANK_HD scalars at(std::int64_t, float) const noexcept {
    return {static_cast<float>(beta1), static_cast<float>(1 - beta1), static_cast<float>(beta2),
            static_cast<float>(1 - beta2)};
  }
  [[nodiscard]] LOWRANK_HD float rate(std::int64_t, float learning_rate) const noexcept { return learning_rate; }
  [[nodiscard]] static LOWRANK_INLINE auto direction(auto g, auto& m, scalars const& s) noexcept {
    using real = decltype(g);
    auto const n = sign(fused_multiply_add(real{s.beta1}, m[0], real{s.one_minus_beta1} * g));
    m[0] = fused_multiply_add(real{s.beta2}, m[0], real{s.one_minus_beta2} * g);
    return n;
  }
};

using lion = elementwise<lion_formula>;
static_assert(update_rule<lion, host_executor>);

}  // namespace lowrank::rule
