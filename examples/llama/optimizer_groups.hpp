/// @file
/// Which optimizer each parameter of a run gets.
#pragma once

#include "gradients.hpp"
#include "lowrank/optim/by_name.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "run_choice.hpp"
#include "timed_optimizer.hpp"

namespace llama {

/// GaLore's options in one run, as by_name reads them, for matrices whose gradient has that form.
[[nodiscard]] inline std::string galore_options(demo_settings const& s, run_choice const& choice, gradient_form form) {
  std::string text = "rank=" + std::to_string(s.rank) + ", scale=" + std::to_string(s.scale) +
                     ", finder=" + choice.finder + ", refresh=" + choice.refresh + ", transport=" + choice.transport +
                     ", measure=at_refresh, seed=" + std::to_string(s.seed);
  if (choice.gap > 0) text += ", update_proj_gap=" + std::to_string(choice.gap);
  if (choice.refresh == "budget")
    text += ", tokens=" + std::to_string(s.batch * s.model.sequence * s.micro_batches) +
            ", budget_gradient=" + (form == gradient_form::factored ? "factored" : "dense");
  // All in torch's conventions, so that runs differ in what their names say.
  if (choice.optimizer == "galore_adamw") text += ", epsilon=corrected_root, eps=1e-8";
  if (choice.optimizer.find("adamw") != std::string::npos) text += ", decay=before";
  if (choice.refresh == "lazy") text += ", likeness=subspace";
  if (s.micro_batches > 1) text += ", accumulate=projected";
  if (!s.galore_options.empty()) text += ", " + s.galore_options;
  return text;
}

/// The same run with its first basis for good.
[[nodiscard]] inline lowrank::option_list never_again(std::string const& options) {
  lowrank::option_list out{options};
  for (auto const* name : {"refresh", "update_proj_gap", "cos_threshold", "gamma_proj", "queue_size", "longest_gap",
                           "likeness", "tolerance", "settle", "smoothing", "share", "tokens", "budget_gradient"})
    (void)out.take(name, std::string_view{});
  out.set("refresh", "every");
  out.set("update_proj_gap", "1000000000");
  return out;
}

/// Whether steps take less time with dY and X than with dYᵀ X, which has to be computed first: multiply-adds of a step, its
/// share of a refresh every `choice.gap` steps included. Products with a basis count twice, because narrow ones run at half of the
/// rate. The energy of the whole gradient is wanted at every refresh, by a policy that watches it in every step.
[[nodiscard]] inline bool saves_time(demo_settings const& s, run_choice const& choice, lowrank::extents shape) {
  auto const of = [](index_t x) { return static_cast<double>(x); };
  double const t = of(s.batch * s.model.sequence), r = of(std::min({s.rank, shape.rows, shape.cols}));
  double const sides = of(shape.rows + shape.cols), size = of(shape.size());
  double const with_factors = 2 * t * r * sides, with_matrix = 2 * r * size;
  double const norm = std::min(t * t * sides, t * size);
  double const refreshes = choice.gap > 0 ? 1 / of(choice.gap) : 1.0 / 200,
               products = choice.finder == "randomized" ? 6 : 2;
  double const factored =
      with_factors + refreshes * products * with_factors + (choice.refresh == "energy" ? 1 : refreshes) * norm;
  double const dense = t * size + with_matrix + refreshes * products * with_matrix;
  return factored < dense;
}
/// The form of the gradient of a linear weight that GaLore trains.
[[nodiscard]] inline gradient_form form_in_subspace(demo_settings const& s, run_choice const& choice,
                                                    lowrank::extents shape) {
  bool const can = choice.is_low_rank() && choice.finder != "svd" && s.gradient != gradient_choice::dense;
  bool const worth = s.gradient == gradient_choice::factored || (s.clip == 0 && saves_time(s, choice, shape));
  return can && worth ? gradient_form::factored : gradient_form::dense;
}

/// Makes GaLore's optimizer of a matrix, for the form that its gradient has.
template <class Executor>
[[nodiscard]] lowrank::optimizer_factory<Executor> subspace_factory(demo_settings const& s, run_choice const& choice,
                                                                    lowrank::by_name_context<Executor> const& context) {
  auto const of = [&](gradient_form form) {
    return lowrank::by_name<Executor>(choice.optimizer, lowrank::option_list{galore_options(s, choice, form)}, context)
        .make;
  };
  return [=, dense = of(gradient_form::dense), factored = of(gradient_form::factored)](
             Executor& exec, lowrank::extents shape, std::uint32_t tensor) {
    return (form_in_subspace(s, choice, shape) == gradient_form::factored ? factored : dense)(exec, shape, tensor);
  };
}

/// Names of the matrices that live in a subspace.
[[nodiscard]] inline auto in_subspace() { return lowrank::matrices_named({"_proj."}); }

/// GaLore on attention and feed-forward matrices, AdamW on the rest (embedding, head, norms), with 8-bit moments where
/// GaLore has them, at scale times the learning rate, so that one number is tuned for both kinds of run. `times_of(tensor)` is where a matrix in a subspace leaves
/// its step_times.
/// Throws: argument_error for options that by_name refuses.
template <class Executor, class Times>
[[nodiscard]] std::vector<lowrank::parameter_group<Executor>> optimizer_groups(
    demo_settings const& s, run_choice const& choice, lowrank::by_name_context<Executor> const& context,
    Times times_of) {
  std::vector<lowrank::parameter_group<Executor>> out;
  lowrank::parameter_options options{.weight_decay = static_cast<float>(s.weight_decay)};
  if (choice.is_low_rank()) {
    out.push_back({in_subspace(),
                   [make = subspace_factory(s, choice, context), times_of](
                       Executor& exec, lowrank::extents shape,
                       std::uint32_t tensor) -> std::unique_ptr<lowrank::matrix_optimizer<Executor>> {
                     return std::make_unique<timed_optimizer<Executor>>(make(exec, shape, tensor), times_of(tensor));
                   },
                   options});
    options.learning_rate_scale = s.scale;
  }
  bool const in_8_bits = choice.optimizer.ends_with("8bit");
  std::string const rest = !choice.is_low_rank() ? choice.optimizer : in_8_bits ? "adamw_8bit" : "adamw";
  out.push_back({lowrank::every_parameter, lowrank::by_name<Executor>(rest, lowrank::option_list{}).make, options});
  return out;
}

}  // namespace llama
