/// @file
/// The demo's language model in training, and dense gradients of some of its matrices at some of its steps.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "basis/engine.hpp"
#include "llama/data.hpp"
#include "llama/demo_settings.hpp"
#include "llama/progress.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/schedule.hpp"
#include "lowrank/rule/adam.hpp"

namespace lowrank::bench {

/// One of each kind of matrix and a second `down`, from all depths of the model.
struct watched_matrix {
  char const* name;
  llama::role what;
  index_t layer;
};
inline constexpr std::array watched_matrices{
    watched_matrix{"q0", llama::role::query, 0},   watched_matrix{"k1", llama::role::key, 1},
    watched_matrix{"v3", llama::role::value, 3},   watched_matrix{"o4", llama::role::attention_output, 4},
    watched_matrix{"gate0", llama::role::gate, 0}, watched_matrix{"up2", llama::role::up, 2},
    watched_matrix{"down3", llama::role::down, 3}, watched_matrix{"down5", llama::role::down, 5}};

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

/// AdamW on everything, as `llama_demo --optimizer adamw` does it, step by step.
class recorded_training {
 public:
  recorded_training(engine& exec, llama::demo_settings const& settings)
      : exec_{exec},
        settings_{settings},
        text_{llama::read_bytes(settings.text)},
        model_{settings.model},
        memory_{settings.model, settings.batch, settings.model.sequence, llama::pass::training},
        one_memory_{settings.model, 1, settings.model.sequence, llama::pass::training},
        batch_{settings.batch, settings.model.sequence},
        one_batch_{1, settings.model.sequence},
        gradients_{model_},
        one_gradients_{model_, watched_only(model_)},
        schedule_{.warmup = settings.warmup, .total = settings.steps, .floor = settings.floor},
        set_{{{every_parameter,
               [](engine& e, extents shape, std::uint32_t id) {
                 return make_optimizer(e, full_rank<rule::adam>{}, shape, id);
               }}}},
        bar_{"adamw", settings.steps} {
    schedule_.check();
    initialise(exec_, model_, {.seed = settings.seed});
    for (index_t i = 0; i < model_.count(); ++i) {
      set_.add(exec_, model_[i].name, fp32_weight<>{model_.weight(i)});
      all_.emplace_back(matrix_view<float const>(gradients_.dense(i)));
    }
    exec_.reserve(set_.workspace_bytes());
  }

  [[nodiscard]] index_t step() const noexcept { return step_; }
  [[nodiscard]] index_t tokens(batch_kind kind) const noexcept {
    return kind == batch_kind::whole ? memory_.tokens() : one_memory_.tokens();
  }
  [[nodiscard]] std::vector<double> const& losses() const noexcept { return losses_; }

  /// The next step. With a `recording`, the gradients it has before the weights change go there.
  void advance(gradient_recording* recording = nullptr) {
    double const began = llama::now();
    auto const number = static_cast<std::uint32_t>(step_);
    text_.training_windows(settings_.seed, number, batch_);
    losses_.push_back(loss_and_gradients(exec_, model_, batch_.view(), memory_, gradients_));
    if (recording != nullptr) {
      keep(gradients_, (*recording)[{step_, batch_kind::whole}]);
      text_.training_windows(settings_.seed, number, one_batch_, 1);
      loss_and_gradients(exec_, model_, one_batch_.view(), one_memory_, one_gradients_);
      keep(one_gradients_, (*recording)[{step_, batch_kind::one_sequence}]);
    }
    set_.step(exec_, all_,
              {.learning_rate = static_cast<float>(settings_.adamw_rate * schedule_.factor(step_)),
               .clip_norm = settings_.clip});
    ++step_;
    double const rate = static_cast<double>(memory_.tokens()) / (llama::now() - began);
    bar_.show(step_, losses_.back(), rate, static_cast<double>((settings_.steps - step_) * memory_.tokens()) / rate);
  }

 private:
  [[nodiscard]] static index_t index_of(llama::parameters<float> const& model, watched_matrix const& watched) {
    return llama::index_of(model.config(), watched.what, watched.layer % model.config().layers);
  }
  [[nodiscard]] static std::vector<llama::gradient_form> watched_only(llama::parameters<float> const& model) {
    std::vector<llama::gradient_form> forms(static_cast<std::size_t>(model.count()), llama::gradient_form::none);
    for (auto const& watched : watched_matrices)
      forms[static_cast<std::size_t>(index_of(model, watched))] = llama::gradient_form::dense;
    return forms;
  }
  void keep(llama::gradients<float>& from, std::vector<gradient_sample>& to) {
    for (auto const& watched : watched_matrices) {
      auto const g = from.dense(index_of(model_, watched));
      auto& sample = to.emplace_back();
      sample.stored = matrix<float>{g.shape()};
      copy(exec_, g, sample.stored.view());
      squared_norm(exec_, g, &sample.energy);
    }
  }

  engine& exec_;
  llama::demo_settings const& settings_;
  llama::corpus text_;
  llama::parameters<float> model_;
  llama::activations<float> memory_, one_memory_;
  llama::windows batch_, one_batch_;
  llama::gradients<float> gradients_, one_gradients_;
  schedule::warmup_cosine schedule_;
  parameter_set<engine> set_;
  std::vector<any_gradient<engine>> all_;
  std::vector<double> losses_;
  llama::progress bar_;
  index_t step_{};
};

}  // namespace lowrank::bench
