/// @file
/// Optimizers from the names and option strings that users of other trainers know.
#pragma once

#include "lowrank/basis/two_sided.hpp"
#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/detail/named_finder.hpp"
#include "lowrank/optim/detail/named_policies.hpp"
#include "lowrank/optim/matrix_optimizer.hpp"
#include "lowrank/optim/options.hpp"
#include "lowrank/rule/adafactor.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/sgd.hpp"

namespace lowrank {

/// Makes the optimizer of one parameter; `tensor` tells parameters apart in everything random.
template <executor E>
using optimizer_factory = std::function<std::unique_ptr<matrix_optimizer<E>>(E&, extents weight, std::uint32_t tensor)>;

/// What a name and its options stand for.
template <executor E>
struct named_optimizer {
  optimizer_factory<E> make;
  float weight_decay{};  ///< as the options said; pass it to the steps
  bool low_rank{};
};

namespace detail {

[[nodiscard]] inline rule::adam named_adam(option_list& o, rule::adam_formula convention) {
  rule::adam out{convention};
  o.take_pair("betas", out.beta1, out.beta2);
  out.beta1 = o.take("beta1", out.beta1);
  out.beta2 = o.take("beta2", out.beta2);
  out.epsilon = o.take("eps", out.epsilon);
  for (auto const* variant : {"amsgrad", "maximize"})
    require(!o.take_switch(variant), "by_name", "adam's ", variant, " is not available");
  out.correction = o.take_switch("correct_bias", "true") ? rule::bias_correction::on : rule::bias_correction::off;
  out.epsilon_added_to = o.take_choice<rule::epsilon_form>(
      "epsilon", {{"corrected_root", rule::epsilon_form::corrected_root}, {"raw_root", rule::epsilon_form::raw_root}},
      out.epsilon_added_to);
  return out;
}
[[nodiscard]] inline rule::adafactor named_adafactor(option_list& o) {
  rule::adafactor out;
  o.take_pair("eps", out.epsilon1, out.epsilon2);
  out.clip_threshold = o.take("clip_threshold", out.clip_threshold);
  out.decay_rate = o.take("decay_rate", out.decay_rate);
  if (auto const beta1 = o.take("beta1", std::string_view{"null"}); beta1 != "null" && beta1 != "None") {
    option_list one;
    one.set("beta1", beta1);
    out.beta1 = one.take("beta1", 0.0);
  }
  out.scaling = o.take_switch("scale_parameter") ? rule::parameter_scaling::on : rule::parameter_scaling::off;
  require(!o.take_switch("relative_step") && !o.take_switch("warmup_init"), "by_name",
          "adafactor's relative_step and warmup_init are schedules; give learning rates instead");
  return out;
}
[[nodiscard]] inline rule::sgd named_sgd(option_list& o, decay_order decay) {
  rule::sgd out;
  require(!o.take_switch("maximize"), "by_name", "sgd's maximize is not available");
  out.momentum = o.take("momentum", 0.0);
  out.dampening = o.take("dampening", 0.0);
  out.form = o.take_switch("nesterov") ? rule::momentum_form::nesterov : rule::momentum_form::heavy_ball;
  out.decay = decay;
  return out;
}
[[nodiscard]] inline rule::lion named_lion(option_list& o) {
  rule::lion out;
  o.take_pair("betas", out.beta1, out.beta2);
  return out;
}

/// Overrides where decay acts, if the options do.
template <class Rule>
[[nodiscard]] Rule with_named_decay(option_list& o, Rule rule) {
  rule.decay = o.take_choice<decay_order>(
      "decay", {{"before", decay_order::before}, {"after", decay_order::after}, {"coupled", decay_order::coupled}},
      rule.decay);
  return rule;
}

}  // namespace detail

/// The optimizer called `name` with `options`.
/// | name | is |
/// | --- | --- |
/// | adamw, adamw_torch | torch.optim.AdamW: betas, eps, weight_decay |
/// | adam | torch.optim.Adam, decay coupled |
/// | sgd | torch.optim.SGD: momentum, dampening, nesterov, weight_decay (coupled) |
/// | adafactor, lion | eps, clip_threshold, decay_rate, beta1, scale_parameter; betas |
/// | galore_adamw | galore_torch's GaLoreAdamW; epsilon=corrected_root, decay=before for torch's form |
/// | galore_adafactor, galore_sgd, galore_lion | the same over the other rules, decay before |
/// GaLore's own options: rank (128), update_proj_gap (200), scale (0.25), proj_type (std | reverse_std | left | right | full);
/// ours: basis_format (fp32 | bf16), accumulate (none | projected), measure (never | at_refresh | every_step), seed, and
/// | option | values | options of their own |
/// | --- | --- | --- |
/// | finder | randomized, svd, stiefel, given | oversampling, power_iterations, sketch (rademacher, gaussian) |
/// |  | warm | passes, fresh, restart_every, order (as_iterated, by_energy), align (none, signs, nearest), cheap (never, momentum), hold |
/// |  | tracked | forgetting, fresh, align |
/// | refresh | every, staggered | update_proj_gap |
/// |  | lazy (Q-GaLore) | update_proj_gap, cos_threshold, gamma_proj, queue_size, longest_gap, likeness (subspace, first_vectors) |
/// |  | energy | tolerance, settle, smoothing, longest_gap |
/// |  | budget | share, tokens, budget_gradient (dense, factored) |
/// | transport | keep, reset, rotate | unknown_variance (column_mean, zero) |
/// | energy_rank | a share of the energy; not over Adafactor | least_rank, rank_multiple |
/// Throws: argument_error for unknown names, unknown or misspelt options, and values outside their domain.
template <executor E>
[[nodiscard]] named_optimizer<E> by_name(std::string_view name, option_list options,
                                         by_name_context<E> const& context = {});

/// Names that `by_name` knows.
[[nodiscard]] inline std::vector<std::string_view> known_optimizers() {
  return {"adamw",        "adamw_torch",      "adam",       "sgd",        "adafactor", "lion",
          "galore_adamw", "galore_adafactor", "galore_sgd", "galore_lion"};
}

}  // namespace lowrank

#include "lowrank/optim/detail/by_name.hpp"
