/// @file
/// Gradient descent, with and without momentum, as torch.optim.SGD does it.
#pragma once

#include "lowrank/rule/elementwise.hpp"

namespace lowrank::rule {

enum class momentum_form : std::uint8_t { heavy_ball, nesterov };

/// B <- mu B + (1 - dampening) g, but B = g on the first step;  N = B, or g + mu B (Nesterov). Without momentum N = g.
/// Reference: Sutskever et al., ICML 2013, in torch.optim.SGD's form.
struct sgd_formula {
  double momentum{0.9}, dampening{0};
  momentum_form form{momentum_form::heavy_ball};
  decay_order decay{decay_order::before};

  static constexpr int moment_count = 1;
  static constexpr std::array moment_orders{moment_order::first};
  [[nodiscard]] LOWRANK_HD double moment_beta(std::size_t) const noexcept { return momentum; }

  struct scalars {
    float momentum, gain, of_gradient, of_buffer;
  };
  void check() const {
    require(detail::is_average_weight(momentum), "rule::sgd", "momentum must be in [0, 1), got ", momentum);
    require(is_finite(dampening) && dampening >= 0 && dampening <= 1, "rule::sgd", "dampening must be in [0, 1], got ",
            dampening);
    require(form == momentum_form::heavy_ball || (momentum > 0 && dampening == 0), "rule::sgd",
            "Nesterov needs momentum > 0 and dampening 0, got momentum ", momentum, ", dampening ", dampening);
  }
  [[nodiscard]] LOWRANK_HD scalars at(std::int64_t t, float /*learning_rate*/) const noexcept {
    bool const nesterov = form == momentum_form::nesterov;
    return {static_cast<float>(momentum), t <= 1 || momentum == 0 ? 1.0F : static_cast<float>(1 - dampening),
            nesterov ? 1.0F : 0.0F, nesterov ? static_cast<float>(momentum) : 1.0F};
  }
  [[nodiscard]] LOWRANK_HD float rate(std::int64_t, float learning_rate) const noexcept { return learning_rate; }
  [[nodiscard]] static LOWRANK_INLINE auto direction(auto g, auto& m, scalars const& s) noexcept {
    using real = decltype(g);
    m[0] = fused_multiply_add(real{s.momentum}, m[0], real{s.gain} * g);
    return fused_multiply_add(real{s.of_buffer}, m[0], real{s.of_gradient} * g);
  }
};

/// N = g. No state but the step count.
struct plain_sgd_formula {
  decay_order decay{decay_order::before};

  static constexpr int moment_count = 0;
  struct scalars {};
  void check() const {}
  [[nodiscard]] LOWRANK_HD scalars at(std::int64_t, float) const noexcept { return {}; }
  [[nodiscard]] LOWRANK_HD float rate(std::int64_t, float learning_rate) const noexcept { return learning_rate; }
  [[nodiscard]] static LOWRANK_INLINE auto direction(auto g, auto&, scalars const&) noexcept { return g; }
};

using sgd = elementwise<sgd_formula>;
using plain_sgd = elementwise<plain_sgd_formula>;
static_assert(update_rule<sgd, host_executor> && update_rule<plain_sgd, host_executor>);

}  // namespace lowrank::rule
