/// @file
/// Fine-tuning a compressed model: all of it, or its low-rank components alone.
#pragma once

#include "llama/frozen_model.hpp"
#include "llama/model.hpp"
#include "llama/progress.hpp"
#include "lowrank/compress/lrc_finetune.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/optim/schedule.hpp"
#include "shuffled.hpp"
#include "windows.hpp"

namespace smollm2 {

enum class tuning_scope : std::uint8_t { low_rank_components, everything };
[[nodiscard]] constexpr char const* name(tuning_scope scope) noexcept {
  return scope == tuning_scope::everything ? "full" : "LRC";
}

/// What trains each tensor: AdamW with fp32 or 8-bit moments, on matrices in a subspace of a quarter of their shorter side
/// or as they are. `by_name` knows many more, and takes a minute to compile.
template <class Executor>
[[nodiscard]] auto tuning_optimizer(std::string const& name) {
  bool const in_subspace = name == "galore_adamw" || name == "galore_adamw_8bit";
  bool const in_8_bits = name.ends_with("_8bit");
  lowrank::require(in_subspace || name == "adamw" || name == "adamw_8bit", "smollm2::tuning_optimizer",
                   "knows adamw, adamw_8bit, galore_adamw and galore_adamw_8bit, got ", name);
  return [=](Executor& exec, lowrank::extents shape,
             std::uint32_t tensor) -> std::unique_ptr<lowrank::matrix_optimizer<Executor>> {
    index_t const rank = std::min(shape.rows, shape.cols) / 4;
    auto const in_rank = [&](auto optimizer) {
      optimizer.rank = rank;
      return lowrank::make_optimizer(exec, optimizer, shape, tensor);
    };
    if (in_subspace && rank > 0)
      return in_8_bits ? in_rank(lowrank::galore_adamw_8bit{}) : in_rank(lowrank::galore_adamw{});
    return in_8_bits ? lowrank::make_optimizer(exec, lowrank::adamw_8bit{}, shape, tensor)
                     : lowrank::make_optimizer(exec, lowrank::adamw{}, shape, tensor);
  };
}

/// Whether a line on the terminal says how far the training is.
enum class announcement : std::uint8_t { none, bar };

struct tuning_settings {
  tuning_scope scope{tuning_scope::low_rank_components};
  llama::frozen_choice frozen{};  ///< how matrices are kept that do not learn; as they are unless it is said
  std::string optimizer{"adamw"};
  double rate{1e-4};
  index_t steps{150}, batch{2}, length{128};
  std::uint64_t seed{0};  ///< of the order of the text's pieces
  index_t measure_every{0};
  announcement shows{announcement::none};
};

struct tuning_result {
  tuning_settings settings;
  double before{}, after{};  ///< perplexity
  std::vector<double> losses;
  std::vector<std::pair<double, double>> curve;  ///< seconds of training, perplexity
  double forward_seconds{}, backward_seconds{}, optimizer_seconds{};
  index_t trained{}, weight_bytes{}, gradient_bytes{}, optimizer_bytes{}, activation_bytes{};

  [[nodiscard]] double seconds() const noexcept { return forward_seconds + backward_seconds + optimizer_seconds; }
  [[nodiscard]] double tokens_per_second() const noexcept {
    return static_cast<double>(settings.steps * settings.batch * settings.length) / seconds();
  }
  /// Everything a step reads and writes.
  [[nodiscard]] index_t held_bytes() const noexcept {
    return weight_bytes + gradient_bytes + optimizer_bytes + activation_bytes;
  }
};

/// `small_batch`'s training of a model of that configuration and plan, with the most sequences a step that `bytes` hold,
/// for no more tokens in all. Its rate grows with the root of the batch, as Adam's does (Malladi et al., arXiv 2205.10287).
[[nodiscard]] inline tuning_settings with_largest_batch(llama::config const& config, llama::linear_plan const& plan,
                                                        tuning_result const& small_batch, index_t bytes) {
  auto out = small_batch.settings;
  index_t const fixed = small_batch.held_bytes() - small_batch.activation_bytes;
  auto const needs = [&](index_t batch) {
    return fixed + llama::activations<float>::bytes_for(config, batch, out.length, llama::pass::training, plan).total();
  };
  while (needs(out.batch + 1) <= bytes) ++out.batch;
  out.steps = std::max<index_t>(small_batch.settings.steps * small_batch.settings.batch / out.batch, 1);
  out.rate *= std::sqrt(static_cast<double>(out.batch) / static_cast<double>(small_batch.settings.batch));
  out.measure_every = std::max<index_t>(out.steps / 5, 1);
  return out;
}

/// `model` with those matrices in `format` that do not learn when only low-rank components do: N-LRC ones and the embedding.
template <class Executor>
[[nodiscard]] llama::parameters<float> with_frozen_rest(Executor& exec, llama::parameters<float> const& model,
                                                        std::span<lowrank::matrix_plan const> plans,
                                                        lowrank::adapt::frozen_format format) {
  lowrank::lrc_mask const mask{plans};
  return llama::frozen_in(exec, model, [&](llama::parameter const& p) {
    return mask.trains(p.name, p.shape) ? std::nullopt : llama::frozen_choice{format};
  });
}

/// Trains `model` on consecutive pieces of `text`, in an order that the seed gives, and measures it on `scored`. With
/// `settings.frozen`, what does not learn goes into that format first, for good.
template <class Executor>
[[nodiscard]] tuning_result fine_tune(Executor& exec, llama::parameters<float>& model,
                                      std::span<lowrank::matrix_plan const> plans, std::span<std::int32_t const> text,
                                      windows const& scored, tuning_settings const& settings) {
  if (settings.frozen) {
    lowrank::require(
        settings.scope == tuning_scope::low_rank_components, "smollm2::fine_tune",
        "cannot freeze what shall learn: with a format for frozen matrices, only low-rank components train");
    model = with_frozen_rest(exec, model, plans, *settings.frozen);
  }
  tuning_result out;
  out.settings = settings;
  index_t const piece = settings.batch * settings.length, pieces = (static_cast<index_t>(text.size()) - 1) / piece;
  lowrank::require(settings.steps > 0 && pieces > 0, "smollm2::fine_tune", "needs a text of more than ", piece,
                   " tokens, got ", text.size());
  auto const order = shuffled(pieces, {.seed = settings.seed, .purpose = lowrank::rng_purpose::data});

  lowrank::lrc_mask const mask{plans};
  std::vector<llama::gradient_form> forms;
  for (auto const& p : model.list()) {
    bool const trains = settings.scope == tuning_scope::everything || mask.trains(p.name, p.shape);
    forms.push_back(trains && p.shape.size() > 0 ? llama::gradient_form::dense : llama::gradient_form::none);
  }
  llama::gradients<float> gradients{model, forms};
  lowrank::parameter_set<Executor> set{{{lowrank::every_parameter, tuning_optimizer<Executor>(settings.optimizer)}}};
  std::vector<lowrank::any_gradient<Executor>> all;
  for (index_t i = 0; i < model.count(); ++i) {
    if (gradients.form(i) == llama::gradient_form::none) continue;
    set.add(exec, model[i].name, lowrank::fp32_weight<>{model.weight(i)});
    all.push_back(lowrank::matrix_view<float const>(gradients.dense(i)));
    out.trained += model[i].shape.size();
  }
  llama::activations<float> memory{model.config(), settings.batch, settings.length, llama::pass::training,
                                   model.plan()};
  llama::activations<float> reading{model.config(), 1, scored.length(), llama::pass::inference, model.plan()};
  exec.reserve(std::max(set.workspace_bytes(), model.workspace_bytes()));
  out.weight_bytes = model.bytes();
  out.gradient_bytes = gradients.bytes();
  out.optimizer_bytes = set.bytes();
  out.activation_bytes = memory.bytes();
  out.before = perplexity(exec, model, scored, reading);
  out.curve.emplace_back(0.0, out.before);

  lowrank::schedule::warmup_cosine const rate{
      .warmup = settings.steps * 15 / 100, .total = settings.steps, .floor = 0.1};
  llama::progress bar{std::string{name(settings.scope)} + " " + settings.optimizer, settings.steps};
  for (index_t step = 0; step < settings.steps; ++step) {
    auto const at = static_cast<std::size_t>(order[static_cast<std::size_t>(step % pieces)] * piece);
    llama::batch_view const batch{{text.subspan(at, static_cast<std::size_t>(piece)), settings.batch, settings.length},
                                  text.subspan(at + 1, static_cast<std::size_t>(piece))};
    double const began = llama::now();
    llama::forward(exec, model, batch.inputs, memory);
    double const forward_done = llama::now();
    out.losses.push_back(llama::cross_entropy(exec, memory, batch.targets, {}));
    llama::backward(exec, model, batch.inputs, memory, gradients);
    double const backward_done = llama::now();
    set.step(exec, all, {.learning_rate = static_cast<float>(settings.rate * rate.factor(step))});
    double const done = llama::now();
    out.forward_seconds += forward_done - began;
    out.backward_seconds += backward_done - forward_done;
    out.optimizer_seconds += done - backward_done;
    if (settings.measure_every > 0 && (step + 1) % settings.measure_every == 0 && step + 1 < settings.steps)
      out.curve.emplace_back(out.seconds(), perplexity(exec, model, scored, reading));
    if (settings.shows == announcement::none) continue;
    bar.show(step + 1, out.losses.back(), static_cast<double>((step + 1) * piece) / out.seconds(),
             out.seconds() / static_cast<double>(step + 1) * static_cast<double>(settings.steps - step - 1));
  }
  out.after = perplexity(exec, model, scored, reading);
  out.curve.emplace_back(out.seconds(), out.after);
  return out;
}

}  // namespace smollm2
