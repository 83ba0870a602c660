/// @file
/// Trains the model once with one optimizer: steps, validation, checkpoints, and what there is to report.
#pragma once

#include <csignal>
#include <filesystem>
#include <fstream>

#include "data.hpp"
#include "demo_settings.hpp"
#include "generate.hpp"
#include "int8_matrices.hpp"
#include "lowrank/io/checkpoint.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/optim/schedule.hpp"
#include "model.hpp"
#include "optimizer_groups.hpp"
#include "progress.hpp"
#include "run_result.hpp"

namespace llama {

/// Set by Ctrl-C: the step in progress ends, a checkpoint is written, the run stops.
inline volatile std::sig_atomic_t interrupted = 0;
/// Bytes of library memory alive, as counted by the program's own `operator new`.
[[nodiscard]] index_t allocated_bytes() noexcept;

/// Peak resident memory since `reset`, as the operating system counts it.
struct peak_memory {
  static void reset() { std::ofstream{"/proc/self/clear_refs"} << "5"; }
  [[nodiscard]] static index_t bytes() {
    std::ifstream status{"/proc/self/status"};
    for (std::string word; status >> word;)
      if (word == "VmHWM:") {
        index_t kib = 0;
        status >> kib;
        return kib * 1024;
      }
    return 0;
  }
};

template <class Executor>
class training_run {
 public:
  training_run(Executor& exec, demo_settings const& settings, run_choice choice,
               lowrank::by_name_context<Executor> context)
      : exec_{exec},
        settings_{settings},
        choice_{std::move(choice)},
        context_{std::move(context)},
        text_{read_bytes(settings.text)},
        model_{settings.model},
        memory_{settings.model, settings.batch, settings.model.sequence, pass::training},
        batch_{settings.batch, settings.model.sequence},
        schedule_{.warmup = settings.warmup, .total = settings.steps, .floor = settings.floor} {
    schedule_.check();
    result_.choice = choice_;
    result_.learning_rate = choice_.is_low_rank() ? settings.galore_rate : settings.adamw_rate;
    initialise(exec_, model_, {.seed = settings.seed});
    if (choice_.has_int8_weights()) int8_.emplace(exec_, model_, in_subspace(), rounding());
    auto& h = result_.history;
    for (auto* const each : {&h.refreshing_seconds, &h.refreshing_steps, &h.plain_seconds, &h.plain_steps})
      each->resize(static_cast<std::size_t>(model_.count()));
    h.last_captured.resize(static_cast<std::size_t>(model_.count()), -1.0F);
    index_t const before = allocated_bytes();
    set_.emplace(optimizer_groups<Executor>(settings, choice_, context_, [this](std::uint32_t i) { return times(i); }),
                 settings.micro_batches > 1 ? lowrank::micro_batches::many : lowrank::micro_batches::one);
    for (index_t i = 0; i < model_.count(); ++i) {
      if (in_int8(i)) set_->add(exec_, model_[i].name, int8_->weight(i));
      else set_->add(exec_, model_[i].name, lowrank::fp32_weight<>{model_.weight(i)});
    }
    result_.optimizer_bytes_counted = allocated_bytes() - before;
    choose_forms();
    exec_.reserve(set_->workspace_bytes(memory_.tokens()));
    describe();
  }

  run_result run() {
    index_t step = settings_.resume ? load() : 0;
    if (step < settings_.steps) {
      progress bar{choice_.name, settings_.steps};
      double const began = now();
      for (index_t const first = step; step < settings_.steps && interrupted == 0;) {
        train_step(step++);
        bool const last = step == settings_.steps;
        if (last || step % settings_.validate_every == 0) validate(step);
        if (settings_.checkpoint_every > 0 && (last || step % settings_.checkpoint_every == 0)) save(step);
        double const each = (now() - began) / static_cast<double>(step - first);
        bar.show(step, static_cast<double>(result_.history.loss.back()), result_.tokens_per_second(),
                 each * static_cast<double>(settings_.steps - step));
      }
    }
    result_.finished = step == settings_.steps;
    if (!result_.finished) {
      save(step);
      return result_;
    }
    result_.validation_loss = static_cast<double>(result_.history.validation_loss.back());
    result_.peak_rss = peak_memory::bytes();
    time_plain_steps();
    result_.sample = sample_text();
    return result_;
  }

 private:
  [[nodiscard]] step_times times(std::size_t i) {
    auto& h = result_.history;
    return {h.refreshing_seconds[i], h.refreshing_steps[i], h.plain_seconds[i], h.plain_steps[i]};
  }
  [[nodiscard]] bool in_int8(index_t i) const { return int8_ && int8_->has(i); }
  [[nodiscard]] lowrank::weight_rounding rounding() const {
    return choice_.rounding == "nearest" ? lowrank::weight_rounding::nearest : lowrank::weight_rounding::stochastic;
  }
  void choose_forms() {
    std::vector<gradient_form> forms(static_cast<std::size_t>(model_.count()), gradient_form::dense);
    for (index_t i = 0; i < model_.count(); ++i) {
      if (!model_[i].is_linear() || !set_->optimizer(i).takes_factored()) continue;
      auto const form = form_in_subspace(settings_, choice_, model_[i].shape);
      forms[static_cast<std::size_t>(i)] = form;
      if (form == gradient_form::factored) ++result_.factored;
    }
    gradients_.emplace(
        model_, forms,
        settings_.update == update_mode::per_layer ? gradient_storage::one_at_a_time : gradient_storage::kept);
  }
  [[nodiscard]] lowrank::any_gradient<Executor> gradient(index_t i) {
    if (gradients_->form(i) == gradient_form::factored) return factored_gradient(memory_, model_[i]);
    return lowrank::matrix_view<float const>(gradients_->dense(i));
  }

  void train_step(index_t step) {
    double const began = now();
    double optimizing = 0, loss = 0;
    auto const timed = [&](auto const& work) {
      double const start = now();
      work();
      optimizing += now() - start;
    };
    index_t const refreshes_before = refreshes();
    index_t const many = settings_.micro_batches;
    lowrank::set_options const options{
        .learning_rate = static_cast<float>(result_.learning_rate * schedule_.factor(step)),
        .grad_scale = 1.0F / static_cast<float>(many),
        .clip_norm = settings_.clip};
    for (index_t micro = 0; micro < many; ++micro) {
      text_.training_windows(settings_.seed, static_cast<std::uint32_t>(step), batch_,
                             static_cast<std::uint32_t>(micro));
      bool const layered = settings_.update == update_mode::per_layer, last = micro + 1 == many;
      auto const on_gradient = [&](index_t i) {
        if (!layered) return;
        timed([&] {
          if (many == 1) {
            set_->step_one(exec_, i, gradient(i), options);
          } else {
            set_->accumulate_one(exec_, i, gradient(i));
            if (last) set_->step_one_accumulated(exec_, i, options);
          }
          if (last && in_int8(i)) int8_->decode(exec_, model_, i);
        });
      };
      loss += loss_and_gradients(exec_, model_, batch_.view(), memory_, *gradients_, {}, on_gradient) /
              static_cast<double>(many);
      if (layered) continue;
      for (index_t i = 0; i < model_.count(); ++i) all_[static_cast<std::size_t>(i)] = gradient(i);
      timed([&] {
        if (many == 1) set_->step(exec_, all_, options);
        else set_->accumulate(exec_, all_);
        if (many > 1 && last) set_->step_accumulated(exec_, options);
        for (index_t i = 0; last && i < model_.count(); ++i)
          if (in_int8(i)) int8_->decode(exec_, model_, i);
      });
    }
    auto& h = result_.history;
    h.loss.push_back(static_cast<float>(loss));
    h.refreshes.push_back(static_cast<float>(refreshes() - refreshes_before));
    h.captured.push_back(mean_captured());
    h.optimizer_seconds.push_back(static_cast<float>(optimizing));
    h.step_seconds.push_back(static_cast<float>(now() - began));
  }
  [[nodiscard]] index_t refreshes() const {
    index_t sum = 0;
    for (index_t i = 0; i < set_->size(); ++i) sum += set_->optimizer(i).refreshes();
    return sum;
  }
  /// Not every matrix is measured in every step: the mean is over what each captured last.
  [[nodiscard]] float mean_captured() {
    bool is_new = false;
    float sum = 0, count = 0;
    for (index_t i = 0; i < set_->size(); ++i) {
      auto& last = result_.history.last_captured[static_cast<std::size_t>(i)];
      if (double const share = set_->optimizer(i).captured(); share >= 0)
        last = static_cast<float>(share), is_new = true;
      if (last >= 0) sum += last, ++count;
    }
    return is_new ? sum / count : -1.0F;
  }
  void validate(index_t step) {
    double sum = 0;
    for (index_t i = 0; i < settings_.validation_batches; ++i) {
      text_.validation_windows(i, settings_.validation_batches, batch_);
      sum += mean_loss(exec_, model_, batch_.view(), memory_);
    }
    auto& h = result_.history;
    h.validation_step.push_back(static_cast<float>(step));
    h.validation_loss.push_back(static_cast<float>(sum / static_cast<double>(settings_.validation_batches)));
    h.validation_seconds.push_back(static_cast<float>(result_.training_seconds()));
  }

  /// A matrix that finds a basis in every step has no plain steps to compare with: a twin of it, which keeps its first
  /// basis, takes some on what the last step left of the gradients.
  void time_plain_steps() {
    if (!choice_.is_low_rank()) return;
    for (index_t i = 0; i < set_->size(); ++i) {
      auto const mine = times(static_cast<std::size_t>(i));
      if (mine.refreshing_steps == 0 || mine.plain_steps > 0) continue;
      auto const shape = model_[i].shape;
      float unused = 0;
      auto const make =
          lowrank::by_name<Executor>(choice_.optimizer,
                                     never_again(galore_options(settings_, choice_, gradients_->form(i))), context_)
              .make;
      timed_optimizer<Executor> twin{make(exec_, shape, static_cast<std::uint32_t>(i)),
                                     {unused, unused, mine.plain_seconds, mine.plain_steps}};
      lowrank::buffer<float> weight{shape.size()};
      lowrank::fp32_weight<> const spare{lowrank::row_major(weight.data(), shape)};
      for (int step = 0; step < 5; ++step) {
        for (index_t micro = 0; twin.accumulates() && micro < settings_.micro_batches; ++micro)
          twin.accumulate(exec_, gradient(i));
        if (twin.accumulates()) twin.step_accumulated(exec_, spare, {});
        else twin.step(exec_, spare, gradient(i), {});
      }
    }
  }

  void describe() {
    auto& r = result_;
    r.tokens_per_step = memory_.tokens() * settings_.micro_batches;
    r.parameters = static_cast<index_t>(model_.flat().size());
    r.weight_bytes = int8_ ? int8_->stored_bytes(model_) : model_.bytes();
    r.gradient_bytes = gradients_->bytes();
    r.activation_bytes = memory_.bytes();
    r.workspace_bytes = exec_.bytes();
    r.optimizer_bytes = set_->bytes();
    for (index_t i = 0; i < set_->size(); ++i) {
      if (set_->optimizer(i).rank() == 0) continue;
      r.low_rank_bytes += set_->optimizer(i).bytes();
      r.low_rank_adamw_bytes += lowrank::adamw{}.bytes(model_[i].shape);
    }
    all_.resize(static_cast<std::size_t>(model_.count()));
  }
  [[nodiscard]] std::string sample_text() {
    std::string const prompt = "\n";
    std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
    activations<float> memory{settings_.model, 1, settings_.model.sequence, pass::inference};
    generate(exec_, model_, memory, tokens, {.count = settings_.sample, .temperature = 0.8, .seed = settings_.seed});
    std::string out;
    for (auto const token : tokens) out += static_cast<char>(token);
    return out;
  }

  /// Everything a run with these settings depends on: a checkpoint of another run is refused.
  [[nodiscard]] std::string identity() const {
    std::ostringstream out;
    auto const& m = settings_.model;
    out << choice_.name << " text " << std::filesystem::file_size(settings_.text) << " model " << m.width << " "
        << m.layers << " " << m.heads << " " << m.kv_heads << " " << m.ffn << " " << m.sequence << " "
        << static_cast<int>(m.head) << " steps " << settings_.steps << " batch " << settings_.batch << "x"
        << settings_.micro_batches << " seed " << settings_.seed << " rate " << result_.learning_rate << " warmup "
        << settings_.warmup << " floor " << settings_.floor << " clip " << settings_.clip << " decay "
        << settings_.weight_decay;
    if (choice_.is_low_rank()) out << " " << galore_options(settings_, choice_, gradient_form::dense);
    if (choice_.refresh == "budget") out << " gradient " << static_cast<int>(settings_.gradient);
    if (choice_.has_int8_weights()) out << " " << choice_.rounding;
    return out.str();
  }
  void save(index_t step) const {
    lowrank::checkpoint_writer out;
    out.add("optimizer", *set_);
    if (int8_) out.add("int8", *int8_);
    for (index_t i = 0; i < model_.count(); ++i)
      if (!in_int8(i)) out.add_tensor("model." + model_[i].name, lowrank::matrix_view<float const>(model_.weight(i)));
    run_history::visit(result_.history, [&](std::string const& name, std::vector<float> const& curve) {
      out.add_tensor("history." + name, std::span<float const>{curve});
    });
    out.add_scalar("step", step);
    out.add_metadata("run", identity());
    std::filesystem::path const file{checkpoint_path(settings_, choice_)};
    std::filesystem::create_directories(file.parent_path());
    out.write(file.string());
  }
  /// The step to go on with; 0 where there is no checkpoint.
  [[nodiscard]] index_t load() {
    auto const file = checkpoint_path(settings_, choice_);
    if (!std::filesystem::exists(file)) return 0;
    lowrank::checkpoint_reader in{file};
    auto const run = in.metadata().find("run");
    lowrank::require<lowrank::io_error>(run != in.metadata().end() && run->second == identity(), "llama::training_run",
                                        file, " belongs to another run: it is of \"",
                                        run == in.metadata().end() ? "?" : run->second, "\", this one is \"",
                                        identity(), "\"");
    in.load("optimizer", *set_);
    if (int8_) in.load("int8", *int8_);
    for (index_t i = 0; i < model_.count(); ++i) {
      if (in_int8(i)) int8_->decode(exec_, model_, i);
      else in.read("model." + model_[i].name, model_.weight(i));
    }
    run_history::visit(result_.history, [&](std::string const& name, std::vector<float>& curve) {
      for (auto const& tensor : in.tensors())
        // Those with an entry a parameter have their size, and stopwatches point into them.
        if (tensor.name == "history." + name && curve.empty())
          curve.resize(static_cast<std::size_t>(tensor.bytes()) / sizeof(float));
      in.read("history." + name, std::span<float>{curve});
    });
    auto const step = in.template read_scalar<index_t>("step");
    in.require_all_read();
    return step;
  }

  Executor& exec_;
  demo_settings const& settings_;
  run_choice choice_;
  lowrank::by_name_context<Executor> context_;
  corpus text_;
  parameters<float> model_;
  std::optional<int8_matrices<Executor>> int8_;
  activations<float> memory_;
  windows batch_;
  lowrank::schedule::warmup_cosine schedule_;
  std::optional<lowrank::parameter_set<Executor>> set_;
  std::optional<gradients<float>> gradients_;
  std::vector<lowrank::any_gradient<Executor>> all_;
  run_result result_;
};

/// The runs, one after the other, each on an executor of its own, up to one that is stopped. The exact SVD is the one that
/// lookup finds for it.
template <class Executor>
[[nodiscard]] std::vector<run_result> run_on(demo_settings const& settings, std::vector<run_choice> const& choices) {
  lowrank::by_name_context<Executor> context;
  context.exact_svd = [](Executor& e, lowrank::matrix_view<float const> a, lowrank::svd_output<> const& out) {
    return exact_svd(e, a, out);
  };
  // An option that the last run refuses should not wait for the end of the first.
  for (auto const& choice : choices)
    if (choice.is_low_rank()) (void)subspace_factory<Executor>(settings, choice, context);
    else (void)lowrank::by_name<Executor>(choice.optimizer, lowrank::option_list{});
  std::vector<run_result> results;
  for (auto const& choice : choices) {
    peak_memory::reset();
    Executor exec{{.threads = settings.threads}};
    results.push_back(training_run<Executor>{exec, settings, choice, context}.run());
    if (!results.back().finished) break;
  }
  return results;
}

/// Runs on one backend; each in a translation unit of its own, because decompositions take long to compile.
[[nodiscard]] std::vector<run_result> run_on_eigen(demo_settings const& settings,
                                                   std::vector<run_choice> const& choices);
[[nodiscard]] std::vector<run_result> run_on_blas(demo_settings const& settings,
                                                  std::vector<run_choice> const& choices);

}  // namespace llama
