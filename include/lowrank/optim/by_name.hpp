/// @file
/// Optimizers from the names and option strings that users of other trainers know.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "lowrank/basis/two_sided.hpp"
#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/detail/named_finder.hpp"
#include "lowrank/optim/detail/named_format.hpp"
#include "lowrank/optim/detail/named_policies.hpp"
#include "lowrank/optim/matrix_optimizer.hpp"
#include "lowrank/optim/options.hpp"
#include "lowrank/rule/adafactor.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/low_bit_adam.hpp"
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

template <class Rule = rule::adam>
[[nodiscard]] Rule named_adam(option_list& o, rule::adam_formula convention) {
  Rule out{convention};
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
/// Reads an option that has one meaning here, and refuses others, saying why.
inline void take_fixed(option_list& o, std::string_view name, std::initializer_list<std::string_view> meant,
                       std::string_view because) {
  auto const text = o.take(name, std::string_view{});
  require(text.empty() || std::find(meant.begin(), meant.end(), text) != meant.end(), "by_name", name, "=", text,
          " is not available: ", because);
}
/// What bitsandbytes' optimizers are asked beside Adam's numbers. True: as its CUDA kernels have it.
[[nodiscard]] inline bool take_bitsandbytes(option_list& o) {
  take_fixed(o, "min_8bit_size", {"4096"}, "moments of fewer than 4096 elements stay in fp32, others do not");
  take_fixed(o, "percentile_clipping", {"100"}, "clip with parameter_set's clip_norm");
  take_fixed(o, "block_wise", {"True", "true", "1"}, "moments are in blocks");
  take_fixed(o, "is_paged", {"False", "false", "0"}, "memory is the caller's");
  take_fixed(o, "optim_bits", {"8", "32"}, "the name says 8 bits, as AdamW8bit does whatever optim_bits is");
  return o.take_choice<bool>("kernels", {{"torch", false}, {"cuda", true}}, false);
}
/// What torchao's are.
inline void take_torchao(option_list& o, std::string_view block) {
  take_fixed(o, "block_size", {block}, "blocks of this format are of another size");
  take_fixed(o, "bf16_stochastic_round", {"False", "false", "0"}, "it comes with the weight: step a bf16_weight");
}
/// What Q-GaLore's scripts say about weights, which are not the optimizer's here.
inline void refuse_weight_options(option_list& o) {
  for (auto const* name : {"weight_quant", "weight_bits", "weight_group_size", "stochastic_round", "simulation"})
    take_fixed(o, name, {}, "it comes with the weight: step a quantized_weight");
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
/// | adamw_8bit, adamw_8bit_bnb, adamw_bnb_8bit | bitsandbytes' AdamW8bit; kernels=torch (decay before) or cuda (after) |
/// | adamw_8bit_torchao, adamw_torch_8bit | torchao's AdamW8bit |
/// | adamw_4bit_torchao, adamw_torch_4bit; adamw_fp8_torchao | torchao's AdamW4bit; AdamWFp8 |
/// | galore_adamw_8bit | galore_torch's GaLoreAdamW8bit: 8-bit moments, torch's epsilon, decay after |
/// | q_galore_adamw_8bit, q_galore_adamw8bit | Q-GaLore: the same with basis_format=int4, refresh=lazy and finder=warm, as `q_galore_settings` has them |
/// GaLore's own options: rank (128), update_proj_gap (200), scale (0.25), proj_type (std | reverse_std | left | right | full);
/// Q-GaLore's: proj_bits (quant_n_bit), proj_quant (quant), proj_group_size (quant_group_size), and those of refresh=lazy;
/// ours: basis_format (fp32 | bf16 | int8 | int4), accumulate (none | projected), measure (never | at_refresh | every_step),
/// seed, and
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
  return {"adamw",
          "adamw_torch",
          "adam",
          "sgd",
          "adafactor",
          "lion",
          "adamw_8bit",
          "adamw_8bit_bnb",
          "adamw_bnb_8bit",
          "adamw_8bit_torchao",
          "adamw_torch_8bit",
          "adamw_4bit_torchao",
          "adamw_torch_4bit",
          "adamw_fp8_torchao",
          "galore_adamw",
          "galore_adafactor",
          "galore_sgd",
          "galore_lion",
          "galore_adamw_8bit",
          "q_galore_adamw_8bit",
          "q_galore_adamw8bit"};
}

}  // namespace lowrank

#include "lowrank/optim/detail/by_name.hpp"
