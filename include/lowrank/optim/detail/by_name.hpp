#pragma once

#include "lowrank/optim/by_name.hpp"

namespace lowrank {
namespace detail {

template <executor E, class Optimizer>
[[nodiscard]] optimizer_factory<E> factory_of(Optimizer settings) {
  settings.check();
  return [settings = std::move(settings)](E& exec, extents weight, std::uint32_t tensor) {
    return make_optimizer(exec, settings, weight, tensor);
  };
}

/// GaLore over `rule`. The options shared by all of GaLore are read here, those of the rule have been.
template <executor E, class Finder, class Rule>
[[nodiscard]] optimizer_factory<E> galore_factory(option_list& o, Rule rule, Finder finder, side_choice where,
                                                  usual_choices usual) {
  low_rank<Rule, Finder, named_refresh<lists_moments<Rule>>, named_transport, residual::drop, lift::back_project,
           named_format>
      out;
  out.rank = o.take("rank", index_t{128});
  out.refresh = take_refresh<lists_moments<Rule>>(o, usual);
  out.lift.scale = static_cast<float>(o.take("scale", 0.25));
  out.keep_side = where;
  out.seed = static_cast<std::uint64_t>(o.take("seed", index_t{0}));
  out.transport = take_transport<Rule>(o);
  out.accumulate_in = o.take_choice<accumulation>(
      "accumulate", {{"none", accumulation::none}, {"projected", accumulation::projected}}, accumulation::none);
  out.measure = o.take_choice<certificate>(
      "measure",
      {{"never", certificate::never}, {"at_refresh", certificate::at_refresh}, {"every_step", certificate::every_step}},
      certificate::never);
  out.rule = rule;
  out.finder = std::move(finder);
  out.format = take_format(o, usual == usual_choices::q_galore ? named_format{format::int4{}} : named_format{});
  return factory_of<E>(std::move(out));
}

template <executor E, class Rule>
[[nodiscard]] optimizer_factory<E> galore_by_options(option_list& o, Rule rule, by_name_context<E> const& context,
                                                     usual_choices usual = usual_choices::galore) {
  enum class projection : std::uint8_t { std, reverse_std, left, right, full };
  auto const type = o.take_choice<projection>("proj_type",
                                              {{"std", projection::std},
                                               {"reverse_std", projection::reverse_std},
                                               {"left", projection::left},
                                               {"right", projection::right},
                                               {"full", projection::full}},
                                              projection::std);
  auto finder = take_finder(o, context, usual);
  if (type == projection::full) {
    basis::two_sided<named_finder<E>> both{.finder = std::move(finder)};
    return galore_factory<E>(o, rule, std::move(both), side_choice::left, usual);
  }
  side_choice const where = type == projection::reverse_std ? side_choice::keep_small
                            : type == projection::left      ? side_choice::left
                            : type == projection::right     ? side_choice::right
                                                            : side_choice::keep_large;
  return galore_factory<E>(o, rule, std::move(finder), where, usual);
}

template <executor E, class Rule>
[[nodiscard]] optimizer_factory<E> full_rank_by_options(option_list& o, Rule rule) {
  return factory_of<E>(full_rank<Rule>{.rule = rule, .seed = static_cast<std::uint64_t>(o.take("seed", index_t{0}))});
}

/// Adam of whole parameters with moments in codes; null for names of others.
template <executor E>
[[nodiscard]] optimizer_factory<E> low_bit_by_name(std::string_view name, option_list& o) {
  using adam = rule::adam_formula;
  auto const whole = [&]<class Rule>(std::type_identity<Rule>, decay_order decay) {
    adam convention = adam::torch_adamw();
    convention.decay = decay;
    return full_rank_by_options<E>(o, with_named_decay(o, named_adam<Rule>(o, convention)));
  };
  auto const torchao = [&]<class Rule>(std::type_identity<Rule> rule, std::string_view block) {
    take_torchao(o, block);
    return whole(rule, decay_order::before);
  };
  if (name == "adamw_8bit" || name == "adamw_8bit_bnb" || name == "adamw_bnb_8bit") {
    if (take_bitsandbytes(o)) return whole(std::type_identity<rule::adam_8bit_cuda>{}, decay_order::after);
    return whole(std::type_identity<rule::adam_8bit>{}, decay_order::before);
  }
  if (name == "adamw_8bit_torchao" || name == "adamw_torch_8bit")
    return torchao(std::type_identity<rule::adam_8bit_torchao>{}, "256");
  if (name == "adamw_4bit_torchao" || name == "adamw_torch_4bit")
    return torchao(std::type_identity<rule::adam_4bit>{}, "128");
  if (name == "adamw_fp8_torchao") return torchao(std::type_identity<rule::adam_fp8>{}, "256");
  return nullptr;
}
/// GaLore and Q-GaLore over bitsandbytes' moments.
template <executor E>
[[nodiscard]] optimizer_factory<E> galore_8bit(option_list& o, by_name_context<E> const& context, usual_choices usual) {
  auto convention = rule::adam_formula::torch_adamw();
  convention.decay = decay_order::after;
  require(!take_bitsandbytes(o), "by_name", "kernels=cuda is not available with a subspace; leave it out");
  refuse_weight_options(o);
  return galore_by_options<E>(o, with_named_decay(o, named_adam<rule::adam_8bit>(o, convention)), context, usual);
}

/// Throws where `known_optimizers` does not have the name.
template <executor E>
[[nodiscard]] optimizer_factory<E> factory_by_name(std::string_view name, option_list& o,
                                                   by_name_context<E> const& context) {
  using adam = rule::adam_formula;
  auto const named = [&](adam convention) { return with_named_decay(o, named_adam(o, convention)); };
  auto const whole = [&](auto rule) { return full_rank_by_options<E>(o, rule); };
  auto const galore = [&](auto rule) { return galore_by_options<E>(o, rule, context); };
  if (name == "adamw" || name == "adamw_torch") return whole(named(adam::torch_adamw()));
  if (name == "adam") return whole(named(adam::torch_adam()));
  if (name == "galore_adamw") return galore(named(adam::galore()));
  if (name == "adafactor") return whole(with_named_decay(o, named_adafactor(o)));
  if (name == "galore_adafactor") return galore(with_named_decay(o, named_adafactor(o)));
  if (name == "lion") return whole(with_named_decay(o, named_lion(o)));
  if (name == "galore_lion") return galore(with_named_decay(o, named_lion(o)));
  if (name == "sgd") return whole(with_named_decay(o, named_sgd(o, decay_order::coupled)));
  if (name == "galore_sgd") return galore(with_named_decay(o, named_sgd(o, decay_order::before)));
  if (name == "galore_adamw_8bit") return galore_8bit<E>(o, context, usual_choices::galore);
  if (name == "q_galore_adamw_8bit" || name == "q_galore_adamw8bit")
    return galore_8bit<E>(o, context, usual_choices::q_galore);
  if (auto made = low_bit_by_name<E>(name, o)) return made;
  std::string known;
  for (auto const one : known_optimizers()) known += (known.empty() ? "" : ", ") + std::string{one};
  throw argument_error{join("lowrank::by_name: unknown optimizer \"", name, "\"; known are ", known)};
}

}  // namespace detail

template <executor E>
named_optimizer<E> by_name(std::string_view name, option_list options, by_name_context<E> const& context) {
  double const decay = options.take("weight_decay", 0.0);
  require(is_finite(static_cast<float>(decay)) && decay >= 0, "by_name", "weight_decay must be finite and >= 0, got ",
          decay);
  named_optimizer<E> out{.make = detail::factory_by_name<E>(name, options, context),
                         .weight_decay = static_cast<float>(decay),
                         .low_rank = name.starts_with("galore_") || name.starts_with("q_galore_")};
  options.require_empty(name);
  return out;
}

}  // namespace lowrank
