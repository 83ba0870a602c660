/// @file
/// Language models in training, and dense gradients of some of their matrices at some of their steps.
#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "basis/engine.hpp"
#include "llama/data.hpp"
#include "llama/demo_settings.hpp"
#include "llama/load_gguf.hpp"
#include "llama/progress.hpp"
#include "llama/tokenizer.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/schedule.hpp"
#include "lowrank/rule/adam.hpp"
#include "smollm2/shuffled.hpp"

namespace lowrank::bench {

struct watched_matrix {
  char const* name;
  llama::role what;
  index_t layer;
};

/// Whose gradient: of the whole batch, or of one sequence more, seen by nobody else.
enum class batch_kind : std::uint8_t { whole, one_sequence };
inline constexpr std::array batch_kinds{batch_kind::whole, batch_kind::one_sequence};

/// A gradient with its exact subspaces, facing: m <= n, and bases are m x r.
struct gradient_sample {
  matrix<float> stored;
  exact_basis exact;
  double energy{};  ///< ‖G‖_F²

  [[nodiscard]] matrix_view<float const> view() const noexcept {
    auto const v = stored.view();
    return v.rows <= v.cols ? v : v.t();
  }
};

/// Samples of every watched matrix, in that order, by step and batch.
using gradient_recording = std::map<std::pair<index_t, batch_kind>, std::vector<gradient_sample>>;

/// A model as it is before its first step, and all that tells its training from that of another. A further model is a
/// further function that returns this.
struct recordable_training {
  std::string title;  ///< which model, and what is done to it
  llama::parameters<float> model;
  std::span<watched_matrix const> watched;  ///< of static storage
  index_t sequences{}, length{};            ///< of a whole batch
  index_t steps{};
  std::function<void(index_t step, batch_kind, llama::windows&)> read;
  std::function<double(index_t step)> learning_rate;
  double clip_norm{};  ///< 0: none
};

/// One of each kind of matrix and a second `down`, from all depths of the model.
inline constexpr std::array watched_in_demo{
    watched_matrix{"q0", llama::role::query, 0},   watched_matrix{"k1", llama::role::key, 1},
    watched_matrix{"v3", llama::role::value, 3},   watched_matrix{"o4", llama::role::attention_output, 4},
    watched_matrix{"gate0", llama::role::gate, 0}, watched_matrix{"up2", llama::role::up, 2},
    watched_matrix{"down3", llama::role::down, 3}, watched_matrix{"down5", llama::role::down, 5}};

/// The demo's model from its first step on, as `llama_demo --optimizer adamw` trains it.
[[nodiscard]] inline recordable_training demo_training(engine& exec, llama::demo_settings const& s) {
  schedule::warmup_cosine const schedule{.warmup = s.warmup, .total = s.steps, .floor = s.floor};
  schedule.check();
  recordable_training out{
      .title = "the demo's language model, from its first step on",
      .model = llama::parameters<float>{s.model},
      .watched = watched_in_demo,
      .sequences = s.batch,
      .length = s.model.sequence,
      .steps = s.steps,
      .read =
          [text = llama::corpus{llama::read_bytes(s.text)}, seed = s.seed](index_t step, batch_kind kind,
                                                                           llama::windows& batch) {
            text.training_windows(seed, static_cast<std::uint32_t>(step), batch, static_cast<std::uint32_t>(kind));
          },
      .learning_rate = [schedule, rate = s.adamw_rate](index_t step) { return rate * schedule.factor(step); },
      .clip_norm = s.clip};
  initialise(exec, out.model, {.seed = s.seed});
  return out;
}

/// The same kinds, of a model of thirty layers.
inline constexpr std::array watched_in_smollm2{
    watched_matrix{"q0", llama::role::query, 0},     watched_matrix{"k5", llama::role::key, 5},
    watched_matrix{"v14", llama::role::value, 14},   watched_matrix{"o20", llama::role::attention_output, 20},
    watched_matrix{"gate3", llama::role::gate, 3},   watched_matrix{"up10", llama::role::up, 10},
    watched_matrix{"down29", llama::role::down, 29}, watched_matrix{"down15", llama::role::down, 15}};

struct fine_tuning_settings {
  std::string model, text;
  index_t steps{}, sequences{8}, length{128};
  double rate{5e-5};
  std::uint64_t seed{1};  ///< of the order of the text's pieces
};

/// A published model of SmolLM2's depth, out of a GGUF file, at one learning rate. No place of the
/// text is read twice.
[[nodiscard]] inline recordable_training fine_tuning(fine_tuning_settings const& s) {
  gguf_reader const file{s.model};
  auto const shape = llama::config_of(file, s.length);
  auto text = llama::tokenizer{file}.encode(llama::read_bytes(s.text));
  index_t const pieces = (static_cast<index_t>(text.size()) - 1) / s.length, in_a_step = s.sequences + 1;
  require(s.steps * in_a_step <= pieces, "bench::fine_tuning", "needs ", s.steps * in_a_step, " pieces of ", s.length,
          " tokens, ", s.text, " has ", pieces);
  std::ostringstream title;
  title << std::filesystem::path{s.model}.filename().string() << ", fine-tuned at a learning rate of " << s.rate;
  return {.title = title.str(),
          .model = llama::load(file, shape),
          .watched = watched_in_smollm2,
          .sequences = s.sequences,
          .length = s.length,
          .steps = s.steps,
          .read =
              [text = std::move(text), in_a_step,
               order = smollm2::shuffled(pieces, {.seed = s.seed, .purpose = rng_purpose::data})](
                  index_t step, batch_kind kind, llama::windows& batch) {
                index_t const first = step * in_a_step + (kind == batch_kind::whole ? 0 : in_a_step - 1);
                for (index_t k = 0; k < batch.sequences; ++k) {
                  auto const from = text.begin() + order[static_cast<std::size_t>(first + k)] * batch.length;
                  std::copy_n(from, batch.length, batch.inputs.begin() + k * batch.length);
                  std::copy_n(from + 1, batch.length, batch.targets.begin() + k * batch.length);
                }
              },
          .learning_rate = [rate = s.rate](index_t) { return rate; }};
}

/// AdamW on every parameter, step by step.
class recorded_training {
 public:
  recorded_training(engine& exec, recordable_training what)
      : exec_{exec},
        what_{std::move(what)},
        memory_{model().config(), what_.sequences, what_.length, llama::pass::training},
        one_memory_{model().config(), 1, what_.length, llama::pass::training},
        batch_{what_.sequences, what_.length},
        one_batch_{1, what_.length},
        gradients_{model()},
        one_gradients_{model(), watched_only()},
        set_{{{every_parameter,
               [](engine& e, extents shape, std::uint32_t id) {
                 return make_optimizer(e, full_rank<rule::adam>{}, shape, id);
               }}}},
        bar_{"adamw", what_.steps} {
    for (index_t i = 0; i < model().count(); ++i) {
      set_.add(exec_, model()[i].name, fp32_weight<>{what_.model.weight(i)});
      all_.emplace_back(matrix_view<float const>(gradients_.dense(i)));
    }
    exec_.reserve(set_.workspace_bytes());
  }

  [[nodiscard]] std::string const& title() const noexcept { return what_.title; }
  [[nodiscard]] llama::parameters<float> const& model() const noexcept { return what_.model; }
  [[nodiscard]] std::span<watched_matrix const> watched() const noexcept { return what_.watched; }
  [[nodiscard]] extents shape(watched_matrix const& watched) const { return model()[index_of(watched)].shape; }
  [[nodiscard]] index_t step() const noexcept { return step_; }
  [[nodiscard]] index_t tokens(batch_kind kind) const noexcept {
    return kind == batch_kind::whole ? memory_.tokens() : one_memory_.tokens();
  }
  [[nodiscard]] std::vector<double> const& losses() const noexcept { return losses_; }

  /// The next step. With a `recording`, the gradients it has before the weights change go there.
  void advance(gradient_recording* recording = nullptr) {
    double const began = llama::now();
    what_.read(step_, batch_kind::whole, batch_);
    losses_.push_back(loss_and_gradients(exec_, model(), batch_.view(), memory_, gradients_));
    if (recording != nullptr) {
      keep(gradients_, (*recording)[{step_, batch_kind::whole}]);
      what_.read(step_, batch_kind::one_sequence, one_batch_);
      loss_and_gradients(exec_, model(), one_batch_.view(), one_memory_, one_gradients_);
      keep(one_gradients_, (*recording)[{step_, batch_kind::one_sequence}]);
    }
    set_.step(exec_, all_,
              {.learning_rate = static_cast<float>(what_.learning_rate(step_)), .clip_norm = what_.clip_norm});
    ++step_;
    double const rate = static_cast<double>(memory_.tokens()) / (llama::now() - began);
    bar_.show(step_, losses_.back(), rate, static_cast<double>((what_.steps - step_) * memory_.tokens()) / rate);
  }

 private:
  [[nodiscard]] index_t index_of(watched_matrix const& watched) const {
    require(watched.layer < model().config().layers, "bench::recorded_training", "watches ", watched.name,
            ", but the model has ", model().config().layers, " layers");
    return llama::index_of(model().config(), watched.what, watched.layer);
  }
  [[nodiscard]] std::vector<llama::gradient_form> watched_only() const {
    std::vector<llama::gradient_form> forms(static_cast<std::size_t>(model().count()), llama::gradient_form::none);
    for (auto const& matrix : watched())
      forms[static_cast<std::size_t>(index_of(matrix))] = llama::gradient_form::dense;
    return forms;
  }
  void keep(llama::gradients<float>& from, std::vector<gradient_sample>& to) {
    for (auto const& matrix : watched()) {
      auto const g = from.dense(index_of(matrix));
      auto& sample = to.emplace_back();
      sample.stored = lowrank::matrix<float>{g.shape()};
      copy(exec_, g, sample.stored.view());
      squared_norm(exec_, g, &sample.energy);
    }
  }

  engine& exec_;
  recordable_training what_;
  llama::activations<float> memory_, one_memory_;
  llama::windows batch_, one_batch_;
  llama::gradients<float> gradients_, one_gradients_;
  parameter_set<engine> set_;
  std::vector<any_gradient<engine>> all_;
  std::vector<double> losses_;
  llama::progress bar_;
  index_t step_{};
};

}  // namespace lowrank::bench
