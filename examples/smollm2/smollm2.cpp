// Compresses SmolLM2-135M at low rank in several ways, measures each, and fine-tunes what compression left.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "executor.hpp"
#include "llama/data.hpp"
#include "llama/decode.hpp"
#include "llama/load_gguf.hpp"
#include "llama/tokenizer.hpp"
#include "lowrank/compress/welore.hpp"
#include "lowrank/factor/fisher.hpp"
#include "lowrank/rank/uniform.hpp"
#include "lowrank/rank/water_filling.hpp"
#include "lowrank/spectrum/model_spectra.hpp"
#include "page.hpp"

namespace smollm2 {
namespace {

using tokens = std::vector<std::int32_t>;

class run {
 public:
  explicit run(settings const& s)
      : settings_{s},
        exec_{{.threads = s.threads, .worker_bytes = index_t{8} << 20}},
        file_{s.model},
        config_{llama::config_of(file_, scored_length)},
        tokenizer_{file_} {}

  void all() {
    load();
    spectra();
    calibrate();
    by_rank();
    by_parameters();
    tune();
    print_rows("budget in ranks", found_.by_rank);
    print_rows("budget in parameters", found_.by_parameters);
    print_tuned("compressed, tuned", found_.tuned);
    print_tuned("in the same memory", found_.larger_batch);
    print_tuned("dense, tuned", found_.control);
    for (auto const& [heading, text] : found_.samples)
      std::printf("\n%s:\n%s\n", heading.c_str(), llama::printable(text).c_str());
    if (!settings_.html.empty()) {
      write_page(settings_.html, settings_, found_, *weights_);
      std::printf("\nplots: %s\n", settings_.html.c_str());
    }
    if (!settings_.report.empty()) {
      std::ofstream out{settings_.report};
      out << to_json(settings_, found_).dump(1) << "\n";
      lowrank::require<lowrank::io_error>(out.good(), "smollm2", "cannot write ", settings_.report);
    }
  }

 private:
  static constexpr index_t scored_length = 512, seen_length = 256;

  [[nodiscard]] tokens read(std::string const& name) const {
    return tokenizer_.encode(llama::read_bytes((std::filesystem::path{settings_.texts} / name).string()));
  }
  void say(char const* what) const { std::fprintf(stderr, "== %s\n", what); }

  void load() {
    say("loading");
    double const began = llama::now();
    model_.emplace(llama::load(file_, config_));
    found_.load_seconds = llama::now() - began;
    weights_.emplace(*model_);
    auto const play = read(settings_.scored);
    scored_.emplace(settings_.scored, play, window_places{settings_.scored_windows, scored_length, 2048, 4096});
    study_.emplace(exec_, *model_, *scored_);
    llama::activations<float> memory{config_, 1, scored_length, llama::pass::inference};
    double const scoring = llama::now();
    found_.dense_perplexity = perplexity(exec_, *model_, *scored_, memory);
    found_.evaluation_tokens_per_second = static_cast<double>(scored_->tokens()) / (llama::now() - scoring);
    std::printf("dense perplexity %.4f on %ld windows, %.0f tokens/s\n", found_.dense_perplexity,
                static_cast<long>(scored_->count()), found_.evaluation_tokens_per_second);
    add_sample("dense", *model_);
  }
  void spectra() {
    say("spectra of all linear weights");
    double const began = llama::now();
    std::vector<lowrank::matrix_source> sources;
    for (std::size_t i = 0; i < weights_->size(); ++i)
      sources.push_back({(*weights_)[i].name, [this, i] { return weights_->weight(i); }});
    spectra_ = lowrank::model_spectra(exec_, std::span<lowrank::matrix_source const>{sources});
    found_.spectra_seconds = llama::now() - began;
    for (std::size_t i = 0; i < spectra_.size(); ++i) {
      auto const& values = spectra_[i];
      auto const length = static_cast<double>(values.length());
      found_.spectra.push_back({(*weights_)[i].name, (*weights_)[i].what, (*weights_)[i].layer,
                                static_cast<double>(values.rank_for_energy(0.9)) / length,
                                static_cast<double>(values.rank_for_energy(0.99)) / length,
                                values.entropy_rank() / length});
    }
  }
  void calibrate() {
    say("calibration");
    double const began = llama::now();
    auto const play = read(settings_.seen);
    windows const text{settings_.seen, play, {settings_.calibration_windows, seen_length, 1024, 768}};
    seen_.emplace(config_, looking_at::inputs_and_output_gradients);
    seen_->add(exec_, *model_, text);
    found_.calibration_seconds = llama::now() - began;
    found_.calibration_bytes = seen_->bytes();
    found_.calibration_tokens = text.tokens();
  }

  /// WeLore's question: how many singular values may go, with plain truncation and with factors that know the inputs.
  void by_rank() {
    say("budgets in ranks");
    auto const plain = decompose(exec_, lowrank::factor::truncated_svd{}, *weights_, nullptr);
    auto const how = lowrank::welore_for(settings_.tuning_reduction);
    double const began = llama::now();
    auto const collection = weights_->collection();
    how.run(exec_, collection, how.plan(exec_, collection), [](lowrank::compressed_matrix const&) {});
    found_.pass_seconds = llama::now() - began;
    whitened_ = decompose(exec_, lowrank::factor::whitened{}, *weights_, &*seen_);
    for (double const share : settings_.reductions) {
      lowrank::compression_options options{.budget = {share, lowrank::budget_unit::rank}};
      options.larger = lowrank::cut_but_larger::merged;  // as published: quality is that of the ranks
      auto const add = [&](char const* name, auto const& allocator, auto const& method, decomposed const& from) {
        found_.by_rank.push_back(study_->measure(name, allocator, spectra_, method, from, &*seen_, options));
        print_rows(found_.by_rank.size() == 1 ? "as it goes" : "", {found_.by_rank.back()});
        std::fflush(stdout);
      };
      lowrank::factor::truncated_svd const svd{};
      add("plain SVD, uniform", lowrank::ranks::uniform{}, svd, plain);
      add("plain SVD, WeLore", lowrank::ranks::welore{}, svd, plain);
      add("plain SVD, WeLore, gate .4999", lowrank::ranks::welore{.gate = 0.4999}, svd, plain);
      add("whitened, WeLore, gate .4999", lowrank::ranks::welore{.gate = 0.4999}, lowrank::factor::whitened{},
          whitened_);
    }
  }
  /// The user's question: how small, at which loss.
  void by_parameters() {
    say("budgets in parameters");
    auto const weighted = decompose(exec_, lowrank::factor::fisher{}, *weights_, &*seen_);
    auto const weighted_spectra = weighted.spectra();
    for (double const share : settings_.removals) {
      lowrank::compression_options options{.budget = {share, lowrank::budget_unit::parameters}};
      auto const add = [&](char const* name, auto const& allocator, std::span<lowrank::spectrum const> spectra,
                           auto const& method, decomposed const& from) {
        found_.by_parameters.push_back(study_->measure(name, allocator, spectra, method, from, &*seen_, options));
        print_rows("", {found_.by_parameters.back()});
        std::fflush(stdout);
      };
      lowrank::factor::whitened const white{};
      add("whitened, uniform, U V", lowrank::ranks::uniform{}, spectra_, white, whitened_);
      options.ranks.storage = lowrank::factor_storage::pivoted;
      add("whitened, uniform, pivoted", lowrank::ranks::uniform{}, spectra_, white, whitened_);
      options.ranks.least = 16;
      lowrank::ranks::water_filling const filling{.scale = lowrank::tail_scale::absolute};
      add("Fisher, water filling, pivoted", filling, weighted_spectra, lowrank::factor::fisher{}, weighted);
      if (share == settings_.kept_form_removal) keep(weighted, found_.by_parameters.back(), options);
    }
  }
  /// The compressed model as a file, read back: the same logits to the bit, and text.
  void keep(decomposed const& weighted, compression_row const& row, lowrank::compression_options const& options) {
    if (settings_.compressed.empty()) return;
    std::filesystem::path const path{settings_.compressed};
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
    auto const matrices = cut(exec_, lowrank::factor::fisher{}, *weights_, weighted, &*seen_, row.ranks, options);
    llama::save_compressed(path, *model_, matrices);
    found_.file = path.string();
    found_.file_bytes = static_cast<index_t>(std::filesystem::file_size(path));
    auto const before = llama::with_matrices(*model_, matrices);
    auto const after = llama::load_compressed(lowrank::safetensors_reader{path}, config_);
    llama::activations<float> memory{config_, 1, scored_length, llama::pass::inference, after.plan()};
    auto const batch = scored_->batch(0, 1).inputs;
    llama::forward(exec_, before, batch, memory);
    std::vector<float> const logits{memory.logits().data, memory.logits().data + memory.logits().size()};
    llama::forward(exec_, after, batch, memory);
    lowrank::require<lowrank::state_error>(std::equal(logits.begin(), logits.end(), memory.logits().data), "smollm2",
                                           "the reloaded model must have the same logits");
    std::printf("%s: %.1f MB (dense fp32 %.1f MB), reloaded with equal logits\n", path.c_str(),
                static_cast<double>(found_.file_bytes) / 1e6, static_cast<double>(model_->bytes()) / 1e6);
    add_sample(llama::decimal(100 * row.budget.removal, 0) + " % of the linear parameters removed", after);
  }
  void add_sample(std::string const& heading, llama::parameters<float> const& model) {
    if (settings_.sample == 0) return;
    tokens text = tokenizer_.encode("HAMLET. To be, or not to be: that is the question.");
    llama::kv_cache<float> cache{config_, static_cast<index_t>(text.size()) + settings_.sample, model.plan()};
    llama::generate(exec_, model, cache, text,
                    llama::decoding{.draw = {.count = settings_.sample, .temperature = 0.7, .top_k = 40, .seed = 1}});
    found_.samples.emplace_back(heading, tokenizer_.decode(text));
  }

  /// The same compressed model, tuned whole and in its low-rank components alone, each at every rate and order.
  void tune() {
    if (settings_.tuning_steps == 0) return;
    say("fine-tuning");
    lowrank::compression_options options{.budget = {settings_.tuning_reduction, lowrank::budget_unit::rank}};
    auto const ranks = lowrank::ranks::welore{.gate = 0.4999}.allocate(spectra_, options.budget, options.ranks);
    auto const matrices = cut(exec_, lowrank::factor::whitened{}, *weights_, whitened_, &*seen_, ranks.ranks, options);
    std::vector<lowrank::matrix_plan> plans;
    for (auto const& m : matrices) plans.push_back(m.plan);
    auto const play = read(settings_.trained);
    tuning_settings how{.steps = settings_.tuning_steps,
                        .measure_every = std::max<index_t>(settings_.tuning_steps / 5, 1),
                        .shows = announcement::bar};
    auto const tuned = [&](llama::parameters<float> model) {
      return fine_tune(exec_, model, plans, play, *scored_, how);
    };
    for (auto const& optimizer : settings_.optimizers)
      for (double const rate : settings_.rates)
        for (auto const seed : settings_.seeds)
          for (auto const scope : {tuning_scope::low_rank_components, tuning_scope::everything}) {
            how.optimizer = optimizer;
            how.rate = rate;
            how.seed = seed;
            how.scope = scope;
            how.frozen = scope == tuning_scope::everything ? std::nullopt
                                                           : lowrank::adapt::frozen_format_named(settings_.frozen);
            found_.tuned.push_back(tuned(llama::with_matrices(*model_, matrices)));
            print_tuned(found_.tuned.size() == 1 ? "as it goes" : "", {found_.tuned.back()});
            std::fflush(stdout);
          }
    use_what_is_saved(matrices, plans, play);
    how.optimizer = settings_.optimizers.front();
    how.seed = settings_.seeds.front();
    how.scope = tuning_scope::everything;
    how.frozen = {};
    how.rate = settings_.rates.front();
    plans.clear();
    found_.control.push_back(tuned(llama::with_matrices(*model_, {})));
  }

  /// Low-rank components alone again, with as many sequences a step as fit into what training everything takes.
  void use_what_is_saved(std::span<lowrank::compressed_matrix const> matrices,
                         std::span<lowrank::matrix_plan const> plans, std::span<std::int32_t const> play) {
    for (std::size_t i = 0; i + 1 < found_.tuned.size(); i += 2) {
      auto const& alone = found_.tuned[i];
      auto model = llama::with_matrices(*model_, matrices);
      auto const how = with_largest_batch(config_, model.plan(), alone, found_.tuned[i + 1].held_bytes());
      if (how.batch == alone.settings.batch) continue;
      found_.larger_batch.push_back(fine_tune(exec_, model, plans, play, *scored_, how));
      print_tuned(found_.larger_batch.size() == 1 ? "in the same memory" : "", {found_.larger_batch.back()});
      std::fflush(stdout);
    }
  }

  settings settings_;
  executor_type exec_;
  lowrank::gguf_reader file_;
  llama::config config_;
  llama::tokenizer tokenizer_;
  std::optional<llama::parameters<float>> model_;
  std::optional<linear_weights> weights_;
  std::optional<windows> scored_;
  std::optional<study<executor_type>> study_;
  std::optional<calibrated> seen_;
  std::vector<lowrank::spectrum> spectra_;
  decomposed whitened_;
  findings found_;
};

void describe(CLI::App& app, settings& s) {
  // Before the others are read, so that they overrule it.
  app.add_flag_callback(
         "--quick", [&] { s.make_quick(); }, "five minutes: fewer windows, budgets, rates and steps")
      ->trigger_on_parse();
  app.add_option("--model", s.model, "GGUF file")->check(CLI::ExistingFile)->capture_default_str();
  app.add_option("--texts", s.texts, "folder of the plays")->check(CLI::ExistingDirectory)->capture_default_str();
  app.add_option("--scored", s.scored, "text that is only scored")->capture_default_str();
  app.add_option("--calibration", s.seen, "text for statistics and allocation")->capture_default_str();
  app.add_option("--train", s.trained, "text for fine-tuning")->capture_default_str();
  app.add_option("--scored-windows", s.scored_windows)->check(CLI::Range(1, 12))->capture_default_str();
  app.add_option("--calibration-windows", s.calibration_windows)->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--reductions", s.reductions, "shares of the singular values to cut")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 0.95))
      ->capture_default_str();
  app.add_option("--removals", s.removals, "shares of the linear parameters to remove")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 0.95))
      ->capture_default_str();
  app.add_option("--steps", s.tuning_steps, "of fine-tuning; 0: none")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--rates", s.rates, "learning rates to compare")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--orders", s.seeds, "orders of the training text; 0: as it is")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--optimizer", s.optimizers, "adamw, adamw_8bit, galore_adamw, galore_adamw_8bit; lists are compared")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--frozen", s.frozen, "how matrices that do not learn are kept when low-rank components alone do")
      ->check(CLI::IsMember({"fp32", "bf16", "int8", "nf4"}));
  app.add_option("--threads", s.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--sample", s.sample, "tokens to generate")->check(CLI::Range(0, 400))->capture_default_str();
  app.add_option("--compressed", s.compressed, "file of the compressed model; \"\" for none")->capture_default_str();
  app.add_option("--report", s.report, "write the numbers as JSON");
  app.add_option("--html", s.html, "write a page with plots; \"\" for none")->capture_default_str();
}

}  // namespace
}  // namespace smollm2

int main(int argc, char** argv) {
  CLI::App app{"Compresses SmolLM2-135M at low rank, measures it, and fine-tunes what compression left."};
  smollm2::settings settings;
  smollm2::describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    smollm2::run{settings}.all();
    return 0;
  } catch (std::exception const& e) {
    std::cerr << "smollm2: " << e.what() << "\n";
    return 1;
  }
}
