/// @file
/// One progressive compression of a model, from its published weights to a model of narrow pairs.
#pragma once

#include "llama/fading_adapters.hpp"
#include "llama/model.hpp"
#include "llama/progress.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/optim/schedule.hpp"
#include "samples.hpp"
#include "smollm2/windows.hpp"

namespace adapting {

namespace adapt = lowrank::adapt;

/// How the matrices go.
enum class pc_way : std::uint8_t {
  fading,       ///< PC-LoRA: pairs as LoRA begins, the base fades
  fading_rest,  ///< pairs from the SVD, what they lack fades
  cut,          ///< pairs from the SVD, the rest goes at once; trained like the others
};
[[nodiscard]] constexpr char const* name(pc_way way) noexcept {
  return way == pc_way::fading ? "PC-LoRA" : way == pc_way::fading_rest ? "PC-LoRA from the SVD" : "cut, fine-tuned";
}

struct pc_trial {
  pc_way way{pc_way::fading};
  index_t rank{64}, steps{150}, batch{2}, length{128}, samples{256};
  index_t layers{};  ///< how many of the last ones; 0: all
  double rate{1e-3}, decay_share{0.8}, task_share{0.2};
  std::uint64_t seed{1};
};

struct pc_result {
  pc_trial settings;
  double dense{}, before{},
      after{};        ///< perplexity: of the teacher, of the pairs without base before training, and after
  double features{};  ///< relative squared difference of the states behind the layers in the last step
  double seconds{};
  index_t dense_parameters{}, parameters{};               ///< of the matrices that go, and of their pairs
  index_t model_parameters{}, finished_parameters{};      ///< of the whole model
  double dense_tokens_per_second{}, tokens_per_second{};  ///< forward
  std::vector<std::pair<double, double>> curve;  ///< step, perplexity of the pairs and what is left of the base
};

/// The matrices as pairs: a model that has no bases any more.
template <class Executor>
[[nodiscard]] llama::parameters<float> finished(Executor& exec, llama::parameters<float> const& model,
                                                llama::fading_adapters<float>& set, index_t rank) {
  auto plan = model.plan();
  set.each([&](llama::role what, index_t l, auto const&) { plan.set(what, l, {llama::linear_form::factors, rank}); });
  llama::parameters<float> out{model.config(), plan};
  for (index_t i = 0; i < out.count(); ++i) {
    auto const& p = out[i];
    if (p.part != llama::linear_part::whole) continue;
    auto const from = model.weight(p.what, std::max<index_t>(p.layer, 0));
    std::copy(from.data, from.data + from.size(), out.weight(i).data);
  }
  set.each([&](llama::role what, index_t l, auto const& adapter) {
    auto const pair = adapter.factors(exec);
    copy(exec, pair.left.view(), out.weight(llama::index_of(model.config(), what, l)));
    copy(exec, pair.right.view(), out.weight(out.right_of(what, l)));
  });
  return out;
}

/// `text` trains, `scored` measures.
template <class Executor>
[[nodiscard]] pc_result run_pc_trial(Executor& exec, pc_trial const& t, llama::parameters<float> const& teacher,
                                     std::span<std::int32_t const> text, smollm2::windows const& scored) {
  auto const& c = teacher.config();
  pc_result out;
  out.settings = t;
  llama::parameters<float> model{c};
  std::ranges::copy(teacher.flat(), model.flat().begin());
  adapt::pc_lora const settings{
      .rank = t.rank,
      .alpha = static_cast<float>(t.rank),
      .start = t.way == pc_way::fading ? adapt::pc_lora_start::lora : adapt::pc_lora_start::truncated_svd,
      .decay = {.updates = std::max<index_t>(static_cast<index_t>(t.decay_share * static_cast<double>(t.steps)), 1)}};
  llama::fading_adapters<float> set{c};
  index_t const first = t.layers == 0 ? 0 : std::max<index_t>(c.layers - t.layers, 0);
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    if (!p.is_linear() || p.what == llama::role::head || p.layer < first) continue;
    set.set(p.what, p.layer,
            adapt::make_adapter<float>(exec, settings, model.weight(i),
                                       {.seed = t.seed, .tensor = static_cast<std::uint32_t>(i)}));
    out.dense_parameters += p.shape.size();
  }
  out.parameters = set.parameter_count();
  out.model_parameters = static_cast<index_t>(teacher.flat().size());

  samples chosen{"the training text", text, t.samples, t.length, t.seed};
  index_t const tokens = t.batch * t.length;
  set.reserve(tokens, scored.length());
  lowrank::parameter_set<Executor> optimizer{
      {{lowrank::every_parameter, [](Executor& e, lowrank::extents shape, std::uint32_t tensor) {
          return lowrank::make_optimizer(e, lowrank::adamw{}, shape, tensor);
        }}}};
  std::vector<lowrank::any_gradient<Executor>> gradients;
  for (auto const& tensor : set.tensors()) {
    optimizer.add(exec, tensor.name, lowrank::fp32_weight<>{tensor.values});
    gradients.push_back(lowrank::matrix_view<float const>(tensor.gradient));
  }
  exec.reserve(std::max(optimizer.workspace_bytes(), set.workspace_bytes(std::max(tokens, scored.length()))));
  llama::activations<float> memory{c, t.batch, t.length, llama::pass::training};
  llama::activations<float> reading{c, 1, scored.length(), llama::pass::inference};
  llama::gradients<float> none{model, std::vector(static_cast<std::size_t>(model.count()), llama::gradient_form::none)};

  auto const measure = [&](double share) {
    double const kept = set.share();
    set.begin({.mode = adapt::pass::evaluation});
    set.set_share(share);
    double sum = 0;
    for (index_t w = 0; w < scored.count(); ++w)
      sum += llama::mean_loss(exec, model, scored.batch(w, w + 1), reading, set);
    set.set_share(kept);
    return std::exp(sum / static_cast<double>(scored.count()));
  };
  double began = llama::now();
  out.dense = smollm2::perplexity(exec, teacher, scored, reading);
  out.dense_tokens_per_second = static_cast<double>(scored.tokens()) / (llama::now() - began);
  out.before = measure(0);
  out.curve.emplace_back(0.0, t.way == pc_way::cut ? out.before : out.dense);  // a whole base hides its pair
  adapt::distillation const how{.task_share = static_cast<float>(t.task_share)};
  lowrank::schedule::warmup_cosine const rate{.warmup = t.steps / 10, .total = t.steps, .floor = 0.05};
  llama::progress bar{name(t.way), t.steps};
  began = llama::now();
  for (index_t step = 0; step < t.steps; ++step) {
    auto const batch = chosen.batch(step, t.batch);
    set.set_share(t.way == pc_way::cut ? 0 : settings.decay.share(step));
    llama::forward(exec, teacher, batch.inputs, memory);
    set.remember_teacher(exec, memory);
    set.begin({.mode = adapt::pass::training, .step = static_cast<std::uint32_t>(step)});
    llama::forward(exec, model, batch.inputs, memory, set);
    out.features = set.distil(exec, memory, how) / (1 - t.task_share);
    double const loss = llama::cross_entropy(exec, memory, batch.targets, {.scale = how.task_weight()});
    llama::backward(exec, model, batch.inputs, memory, none, llama::accumulation::overwrite, llama::ignore_gradients{},
                    set);
    optimizer.step(exec, gradients, {.learning_rate = static_cast<float>(t.rate * rate.factor(step))});
    double const seconds = llama::now() - began;
    bar.show(step + 1, loss, static_cast<double>((step + 1) * tokens) / seconds,
             seconds / static_cast<double>(step + 1) * static_cast<double>(t.steps - step - 1));
    if ((step + 1) % std::max<index_t>(t.steps / 5, 1) == 0)
      out.curve.emplace_back(static_cast<double>(step + 1), measure(set.share()));
  }
  out.seconds = llama::now() - began;
  set.set_share(0);
  auto const pairs = finished(exec, model, set, t.rank);
  llama::activations<float> narrow{c, 1, scored.length(), llama::pass::inference, pairs.plan()};
  began = llama::now();
  out.after = smollm2::perplexity(exec, pairs, scored, narrow);
  out.tokens_per_second = static_cast<double>(scored.tokens()) / (llama::now() - began);
  out.finished_parameters = static_cast<index_t>(pairs.flat().size());
  double const expected = measure(0);
  lowrank::require<lowrank::state_error>(std::abs(out.after - expected) < 1e-3 * expected, "adapting::run_pc_trial",
                                         "the finished model must compute what the adapters did: perplexity ", expected,
                                         ", got ", out.after);
  return out;
}

}  // namespace adapting
