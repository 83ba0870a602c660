/// @file
/// One trial: adapters on a frozen model, trained on a few samples and measured on another text.
#pragma once

#include <map>

#include "adapter_files.hpp"
#include "frozen_base.hpp"
#include "learned_ranks.hpp"
#include "llama/progress.hpp"
#include "lowrank/optim/by_name.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/schedule.hpp"
#include "samples.hpp"
#include "smollm2/windows.hpp"

namespace adapting {

struct trial_result {
  trial settings;
  double base{}, before{}, after{},
      best{};     ///< perplexity: of the model as published, with new adapters, with trained ones
  double loss{};  ///< mean of the last quarter of the steps
  std::vector<std::pair<double, double>> curve;  ///< step, perplexity
  std::vector<double> window_losses;             ///< with trained adapters, in nats a token
  std::map<std::string, double> also;            ///< perplexity with trained adapters on further texts
  double passes_seconds{}, optimizer_seconds{};
  index_t parameters{}, trained_bytes{}, file_bytes{};
  index_t linear_bytes{}, base_bytes{};  ///< of the frozen linear weights, of the whole frozen model
  index_t adapter_bytes{}, gradient_bytes{}, optimizer_bytes{}, activation_bytes{};
  double int8_share{};  ///< of the linear weights of the layers
  rank_summary ranks;

  [[nodiscard]] double seconds() const noexcept { return passes_seconds + optimizer_seconds; }
  [[nodiscard]] double tokens_per_second() const noexcept {
    return static_cast<double>(settings.steps * settings.batch * settings.length) / seconds();
  }
};

/// What all trials of a run share.
struct trial_data {
  std::string name;                    ///< of the text to train on
  std::span<std::int32_t const> text;  ///< its tokens
  smollm2::windows const& scored;
  std::map<std::string, smollm2::windows> const& also_scored;
  double base{};  ///< perplexity of the model as it is
  index_t measurements{4};
  std::filesystem::path adapters;  ///< empty: no files
};

/// Mean negative log-likelihood of each window.
template <class Executor, class Adapters>
[[nodiscard]] std::vector<double> adapted_losses(Executor& exec, llama::parameters<float> const& model,
                                                 Adapters& adapters, smollm2::windows const& text,
                                                 llama::activations<float>& memory) {
  std::vector<double> out;
  for (index_t w = 0; w < text.count(); ++w)
    out.push_back(llama::mean_loss(exec, model, text.batch(w, w + 1), memory, adapters));
  return out;
}

/// The optimizer of each trained matrix: the rule by its name, the learning rate times the tensor's own factor.
template <class Executor>
[[nodiscard]] std::vector<lowrank::parameter_group<Executor>> groups_of(
    trial const& t, std::span<llama::trained_tensor<float> const> tensors) {
  auto const rule = lowrank::by_name<Executor>(t.rule, lowrank::option_list{t.rule_options});
  std::map<float, std::vector<std::string>> by_rate;
  for (auto const& tensor : tensors)
    if (tensor.rate != 0) by_rate[tensor.rate].push_back(tensor.name);
  std::vector<lowrank::parameter_group<Executor>> out;
  for (auto& [rate, names] : by_rate) {
    std::ranges::sort(names);
    out.push_back(
        {[names = names](std::string_view name, lowrank::extents) { return std::ranges::binary_search(names, name); },
         rule.make,
         {.learning_rate_scale = static_cast<double>(rate), .weight_decay = rule.weight_decay}});
  }
  return out;
}

/// Bytes of the linear weights of the layers.
[[nodiscard]] inline index_t linear_bytes_of(llama::parameters<float> const& model) {
  index_t sum = 0;
  for (auto const& p : model.list()) {
    if (p.part == llama::linear_part::frozen && p.what != llama::role::embedding)
      sum += model.frozen(p.what, p.layer).bytes();
    if (p.is_linear() && p.what != llama::role::head) sum += p.shape.size() * index_t{sizeof(float)};
  }
  return sum;
}

/// Share of the linear weights of the layers that are kept in INT8.
[[nodiscard]] inline double int8_share_of(llama::parameters<float> const& model) {
  index_t eight = 0, all = 0;
  for (auto const& p : model.list()) {
    bool const frozen = p.part == llama::linear_part::frozen && p.what != llama::role::embedding;
    if (!frozen && !(p.is_linear() && p.what != llama::role::head)) continue;
    all += p.shape.size();
    if (frozen && model.frozen(p.what, p.layer).format() == adapt::frozen_format::int8) eight += p.shape.size();
  }
  return static_cast<double>(eight) / static_cast<double>(all);
}

/// `published` is as it was afterwards, whatever the method does to a base.
template <class Executor>
[[nodiscard]] trial_result run_trial(Executor& exec, trial const& t, llama::parameters<float>& published,
                                     trial_data const& data, frozen_bases<Executor>& bases) {
  trial_result out;
  out.settings = t;
  out.base = data.base;
  if (!data.adapters.empty()) std::filesystem::create_directories(data.adapters / name(t));  // fails before, not after
  auto const& c = published.config();
  samples chosen{data.name, data.text, t.samples, t.length, t.seed};

  std::optional<llama::parameters<float>> own;
  if (changes_base(t)) {
    own.emplace(c);
    std::ranges::copy(published.flat(), own->flat().begin());
  }
  llama::parameters<float>& changed = own ? *own : published;
  std::shared_ptr<llama::parameters<float> const> frozen;
  auto const freeze = [&] {
    if (t.base != "fp32" || t.embedding != "fp32") frozen = bases.make(exec, t, published, changed);
  };
  auto set = [&] {
    if (t.method != "loftq") return make_adapters(exec, t, changed, chosen.batch(0, t.batch));
    freeze();
    return make_recovering_adapters(exec, t, published, frozen ? *frozen : published, bases.seen_for(t));
  }();
  if (t.method != "loftq") freeze();
  auto const starts = remember_start(exec, t, set);
  llama::parameters<float> const& model = frozen ? *frozen : changed;

  index_t const tokens = t.batch * t.length;
  set.reserve(tokens, data.scored.length());
  auto const tensors = set.tensors();
  lowrank::parameter_set<Executor> optimizer{groups_of<Executor>(t, tensors)};
  std::vector<lowrank::any_gradient<Executor>> gradients;
  for (auto const& tensor : tensors) {
    if (tensor.rate == 0) continue;
    optimizer.add(exec, tensor.name, lowrank::fp32_weight<>{tensor.values});
    gradients.push_back(lowrank::matrix_view<float const>(tensor.gradient));
  }
  exec.reserve(std::max({optimizer.workspace_bytes(), model.workspace_bytes(),
                         set.workspace_bytes(std::max(tokens, data.scored.length()))}));
  llama::activations<float> memory{c, t.batch, t.length, llama::pass::training};
  llama::activations<float> reading{c, 1, data.scored.length(), llama::pass::inference};
  llama::gradients<float> none{model, std::vector(static_cast<std::size_t>(model.count()), llama::gradient_form::none)};
  out.parameters = set.parameter_count();
  out.trained_bytes = out.parameters * index_t{sizeof(float)};
  out.adapter_bytes = set.bytes();
  out.linear_bytes = linear_bytes_of(model);
  out.int8_share = int8_share_of(model);
  out.base_bytes = model.bytes();
  out.gradient_bytes = set.gradient_bytes();
  out.optimizer_bytes = optimizer.bytes();
  out.activation_bytes = memory.bytes() + set.kept_bytes();

  auto const measure = [&] {
    set.begin({.mode = adapt::pass::evaluation});
    out.window_losses = adapted_losses(exec, model, set, data.scored, reading);
    return std::exp(smollm2::mean(out.window_losses));
  };
  out.before = out.best = measure();
  out.curve.emplace_back(0.0, out.before);
  lowrank::schedule::warmup_cosine const rate{.warmup = t.steps / 10, .total = t.steps, .floor = 0.1};
  llama::progress bar{t.method + " " + std::to_string(t.rank) + " " + t.base, t.steps};
  for (index_t step = 0; step < t.steps; ++step) {
    auto const batch = chosen.batch(step, t.batch);
    set.begin({.mode = adapt::pass::training, .step = static_cast<std::uint32_t>(step)});
    double const began = llama::now();
    double const loss = llama::loss_and_gradients(exec, model, batch, memory, none, {}, llama::ignore_gradients{}, set);
    double const passed = llama::now();
    optimizer.step(exec, gradients, {.learning_rate = static_cast<float>(t.rate * rate.factor(step))});
    double const done = llama::now();
    out.passes_seconds += passed - began;
    out.optimizer_seconds += done - passed;
    index_t const quarter = std::max<index_t>(t.steps / 4, 1);
    if (step >= t.steps - quarter) out.loss += loss / static_cast<double>(quarter);
    bar.show(step + 1, loss, static_cast<double>((step + 1) * tokens) / out.seconds(),
             out.seconds() / static_cast<double>(step + 1) * static_cast<double>(t.steps - step - 1));
    index_t const part = std::max<index_t>(t.steps / data.measurements, 1);
    if ((step + 1) % part == 0 || step + 1 == t.steps) {
      out.after = measure();
      out.best = std::min(out.best, out.after);
      out.curve.emplace_back(static_cast<double>(step + 1), out.after);
    }
  }
  set.begin({.mode = adapt::pass::evaluation});
  for (auto const& [text, windows] : data.also_scored)
    out.also.emplace(text, std::exp(smollm2::mean(adapted_losses(exec, model, set, windows, reading))));
  out.ranks = learned_ranks(exec, set, published, starts);
  if (!data.adapters.empty()) out.file_bytes = save_adapters(exec, data.adapters / name(t), t, published, set, starts);
  return out;
}

}  // namespace adapting
