/// @file
/// Adam and AdamW, in the conventions of the codes people compare with.
#pragma once

#include "lowrank/rule/elementwise.hpp"

namespace lowrank::rule {

/// Where epsilon is added: to the bias-corrected root (torch, the papers) or to the raw one (transformers, galore_torch,
/// which makes it 1 / sqrt(1 - beta2^t) times larger early on).
enum class epsilon_form : std::uint8_t { corrected_root, raw_root };
enum class bias_correction : std::uint8_t { on, off };

namespace detail {

/// What an exponential average of ones has reached after t steps.
[[nodiscard]] LOWRANK_HD inline double moment_weight(double beta, std::int64_t t) noexcept {
  return 1 - std::pow(beta, static_cast<double>(t));
}

}  // namespace detail

/// Adam on one element. M <- b1 M + (1 - b1) g,  V <- b2 V + (1 - b2) g²,
/// N = M̂ / (sqrt(V̂) + eps) with M̂ = M / (1 - b1^t), V̂ = V / (1 - b2^t)          (corrected_root), or
/// N = M / (sqrt(V) + eps), rate = lr sqrt(1 - b2^t) / (1 - b1^t)                 (raw_root).
/// Reference: Kingma & Ba, arXiv 1412.6980, Algorithm 1; decoupled decay: Loshchilov & Hutter, arXiv 1711.05101, Alg. 2.
struct adam_formula {
  double beta1{0.9}, beta2{0.999}, epsilon{1e-8};
  epsilon_form epsilon_added_to{epsilon_form::corrected_root};
  bias_correction correction{bias_correction::on};
  decay_order decay{decay_order::before};

  static constexpr int moment_count = 2;
  static constexpr std::array moment_orders{moment_order::first, moment_order::second};
  [[nodiscard]] LOWRANK_HD double moment_beta(std::size_t k) const noexcept { return k == 0 ? beta1 : beta2; }

  /// torch.optim.AdamW.
  [[nodiscard]] static constexpr adam_formula torch_adamw() noexcept { return {}; }
  /// torch.optim.Adam: weight decay is L2, added to the gradient.
  [[nodiscard]] static constexpr adam_formula torch_adam() noexcept { return {.decay = decay_order::coupled}; }
  /// galore_torch.GaLoreAdamW, after the former AdamW of transformers.
  [[nodiscard]] static constexpr adam_formula galore() noexcept {
    return {.epsilon = 1e-6, .epsilon_added_to = epsilon_form::raw_root, .decay = decay_order::after};
  }

  struct scalars {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon, m_correction, root_correction;
  };
  void check() const {
    require(detail::is_average_weight(beta1) && detail::is_average_weight(beta2), "rule::adam",
            "betas must be in [0, 1), got ", beta1, " and ", beta2);
    require(detail::is_positive_float(epsilon), "rule::adam", "epsilon must be positive in fp32, got ", epsilon);
  }
  [[nodiscard]] LOWRANK_HD scalars at(std::int64_t t, float /*learning_rate*/) const noexcept {
    bool const here = epsilon_added_to == epsilon_form::corrected_root && correction == bias_correction::on && t > 0;
    return {static_cast<float>(beta1),
            static_cast<float>(1 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta2),
            static_cast<float>(epsilon),
            here ? static_cast<float>(1 / detail::moment_weight(beta1, t)) : 1.0F,
            here ? static_cast<float>(1 / std::sqrt(detail::moment_weight(beta2, t))) : 1.0F};
  }
  [[nodiscard]] LOWRANK_HD float rate(std::int64_t t, float learning_rate) const noexcept {
    if (epsilon_added_to == epsilon_form::corrected_root || correction == bias_correction::off || t == 0)
      return learning_rate;
    return static_cast<float>(learning_rate * std::sqrt(detail::moment_weight(beta2, t)) /
                              detail::moment_weight(beta1, t));
  }
  [[nodiscard]] static LOWRANK_INLINE auto direction(auto g, auto& m, scalars const& s) noexcept {
    using real = decltype(g);
    m[0] = fused_multiply_add(real{s.beta1}, m[0], real{s.one_minus_beta1} * g);
    m[1] = fused_multiply_add(real{s.beta2}, m[1], real{s.one_minus_beta2} * (g * g));
    return quotient(real{s.m_correction} * m[0],
                    fused_multiply_add(real{s.root_correction}, square_root(m[1]), real{s.epsilon}));
  }
};

using adam = elementwise<adam_formula>;
static_assert(update_rule<adam, host_executor>);

}  // namespace lowrank::rule
