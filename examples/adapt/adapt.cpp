// Fine-tunes SmolLM2-135M by adapters: any method, rank, rule and format of the frozen model, on a few samples of a text.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "llama/data.hpp"
#include "llama/load_gguf.hpp"
#include "llama/tokenizer.hpp"
#include "page.hpp"
#include "pc_lora.hpp"
#include "rules.hpp"
#include "smollm2/executor.hpp"

namespace adapting {
namespace {

using executor_type = smollm2::executor_type;

class run {
 public:
  explicit run(settings const& s)
      : settings_{s},
        exec_{{.threads = s.threads, .worker_bytes = index_t{8} << 20}},
        file_{s.model},
        config_{llama::config_of(file_, std::max(s.length, s.scored_length))},
        tokenizer_{file_} {}

  void all() {
    auto const trials = planned_trials(settings_);
    for (auto const& t : trials) with_settings(t, [](auto const&) {});
    results_ = known_results(settings_.results, settings_);
    std::fprintf(stderr, "== loading; %zu trials, %zu results known\n", trials.size(), results_.size());
    auto model = llama::load(file_, config_);
    auto const play = read(settings_.scored), text = read(settings_.trained);
    auto const windows_of = [&](std::string const& name, std::span<std::int32_t const> tokens) {
      return smollm2::windows{
          name, tokens, {settings_.scored_windows, settings_.scored_length, 2048, settings_.scored_stride}};
    };
    auto const scored = windows_of(settings_.scored, play);
    std::map<std::string, smollm2::windows> also;
    for (auto const& file : settings_.also_scored)
      also.emplace(std::filesystem::path{file}.stem().string(), windows_of(file, read(file)));
    llama::activations<float> memory{config_, 1, scored.length(), llama::pass::inference};
    trial_data const data{.name = settings_.trained,
                          .text = text,
                          .scored = scored,
                          .also_scored = also,
                          .base = smollm2::perplexity(exec_, model, scored, memory),
                          .measurements = settings_.measurements,
                          .adapters = settings_.adapters};
    std::vector<std::int32_t> seen;
    for (auto const& file : settings_.calibration_texts) {
      auto const more = read(file);
      seen.insert(seen.end(), more.begin(), more.end());
    }
    frozen_bases<executor_type> bases{seen.empty() ? text : seen, settings_.calibration_windows};
    std::printf("perplexity as published %.4f, on %ld windows of %s\n", data.base, static_cast<long>(scored.count()),
                settings_.scored.c_str());
    for (auto const& [name, windows] : also)
      std::printf("  on as many of %s %.4f\n", name.c_str(), smollm2::perplexity(exec_, model, windows, memory));
    print_heading();
    std::vector<trial_result> shown;
    for (auto const& t : trials) {
      auto known = std::ranges::find_if(results_, [&](auto const& r) { return name(r.settings) == name(t); });
      if (known == results_.end()) {
        results_.push_back(run_trial(exec_, t, model, data, bases));
        known = results_.end() - 1;
        write_results(settings_.results, settings_, results_);
      }
      print_row(*known);
      shown.push_back(*known);
    }
    write_results(settings_.report, settings_, shown);
    if (settings_.html.empty()) return;
    write_page(settings_.html, settings_, shown);
    std::printf("\nplots: %s\n", settings_.html.c_str());
  }

 private:
  [[nodiscard]] std::vector<std::int32_t> read(std::string const& file) const {
    return tokenizer_.encode(llama::read_bytes((std::filesystem::path{settings_.texts} / file).string()));
  }

  settings settings_;
  executor_type exec_;
  lowrank::gguf_reader file_;
  llama::config config_;
  llama::tokenizer tokenizer_;
  std::vector<trial_result> results_;
};

void describe(CLI::App& app, settings& s) {
  // Before the others are read, so that they overrule them.
  app.add_flag_callback(
         "--quick", [&] { s.make_quick(); }, "under five minutes: four methods, two ranks, few steps")
      ->trigger_on_parse();
  app.add_flag_callback(
         "--study", [&] { s.make_study(); }, "the grid of methods, ranks and seeds; goes on where it was stopped")
      ->trigger_on_parse();
  auto const formats = CLI::IsMember({"fp32", "bf16", "int8", "nf4"});
  auto const bases = CLI::IsMember({"fp32", "bf16", "int8", "nf4", "nf4_gptq", "nf4_mixed"});
  auto const list = [&](std::string const& option, auto& to, std::string const& what) {
    return app.add_option(option, to, what)->delimiter(',')->capture_default_str();
  };
  std::vector<std::string> with_pc_lora(method_names.begin(), method_names.end());
  with_pc_lora.emplace_back("pc_lora");
  list("--method", s.methods,
       "how; lists are compared. loftq over fp32 or bf16 is lora. pc_lora alone: matrices become narrow pairs")
      ->check(CLI::IsMember(with_pc_lora));
  list("--ranks", s.ranks, "of the adapters")->check(CLI::Range(1, 192));
  list("--base", s.bases,
       "format of the frozen matrices; nf4_gptq: NF4 with codes chosen by the inputs on text of the training, "
       "nf4_mixed: "
       "also INT8 where it gains most")
      ->check(bases);
  list("--base-bytes", s.base_bytes, "of nf4_mixed: share of the bytes of the whole model in bf16")
      ->check(CLI::Range(0.0, 1.0));
  list("--calibration-texts", s.calibration_texts, "for nf4_gptq and nf4_mixed; by default the one to train on");
  app.add_option("--calibration-windows", s.calibration_windows, "of 256 tokens, spread over those texts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--embedding", s.embedding, "format of the embedding; that of the base, INT8 beside NF4")
      ->check(formats);
  list("--samples", s.samples, "pieces of text to train on")->check(CLI::Range(1, 1 << 20));
  list("--seeds", s.seeds, "of samples, order and adapters")->check(CLI::Range(1, 1 << 30));
  list("--rule", s.rules, "adamw, lion, adafactor, sgd, adamw_8bit, galore_adamw, ... as by_name knows them");
  app.add_option("--options", s.rule_options, "of the rule: \"betas=(0.9, 0.99), weight_decay=0.01\"");
  list("--rates", s.rates, "learning rates; by default one that suits the method")->check(CLI::PositiveNumber);
  app.add_option("--steps", s.steps)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--batch", s.batch, "sequences of a step")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--length", s.length, "tokens of a sample")->check(CLI::Range(2, 2048))->capture_default_str();
  app.add_option("--alpha", s.alpha, "of methods that have it")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--dropout", s.dropout, "of LoRA")->check(CLI::Range(0.0, 0.9))->capture_default_str();
  app.add_option("--pc-model", s.pc_model, "of pc_lora: smollm2, or the demo's model of bytes")
      ->check(CLI::IsMember({"smollm2", "demo"}))
      ->capture_default_str();
  app.add_option(
      "--pc-demo", s.pc_demo,
      "folder of the demo's model, trained first where it is missing; by default one for each number of steps");
  app.add_option("--pc-demo-steps", s.pc_demo_steps)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--pc-layers", s.pc_layers, "of pc_lora: only so many of the last layers; 0: all")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--pc-task", s.pc_share, "of pc_lora: share of the task in the loss; the rest is the teacher's")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  app.add_option("--scored-windows", s.scored_windows)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--scored-stride", s.scored_stride, "tokens from one scored window to the next")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--scored-length", s.scored_length)->check(CLI::Range(2, 512))->capture_default_str();
  app.add_option("--measurements", s.measurements, "of held-out perplexity in a trial")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--model", s.model, "GGUF file")->check(CLI::ExistingFile)->capture_default_str();
  app.add_option("--texts", s.texts, "folder of the plays")->check(CLI::ExistingDirectory)->capture_default_str();
  app.add_option("--train", s.trained, "text to train on")->capture_default_str();
  app.add_option("--scored", s.scored, "text that is only scored")->capture_default_str();
  list("--also-scored", s.also_scored, "texts that are scored as well, when a trial has ended");
  app.add_option("--threads", s.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--results", s.results, "JSON of finished trials, which are not made again");
  app.add_option("--adapters", s.adapters, "folder for the adapters; \"\" for none")->capture_default_str();
  app.add_option("--report", s.report, "write the numbers as JSON");
  app.add_option("--html", s.html, "write a page with plots; \"\" for none")->capture_default_str();
}

}  // namespace
}  // namespace adapting

int main(int argc, char** argv) {
  CLI::App app{"Fine-tunes SmolLM2-135M by adapters and measures it on another text."};
  adapting::settings settings;
  adapting::describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    auto const is_scored = [&](std::string const& text) {
      return text == settings.scored || std::ranges::find(settings.also_scored, text) != settings.also_scored.end();
    };
    lowrank::require(!is_scored(settings.trained), "adapt", "must not score the text that it trains on, ",
                     settings.trained);
    for (auto const& text : settings.calibration_texts)
      lowrank::require(!is_scored(text), "adapt", "must not score a text that it calibrates on, ", text);
    bool const pc = std::ranges::find(settings.methods, "pc_lora") != settings.methods.end();
    lowrank::require(!pc || settings.methods.size() == 1, "adapt",
                     "pc_lora compares with itself, not with other methods");
    for (auto const* option :
         {"--base", "--base-bytes", "--calibration-texts", "--calibration-windows", "--embedding", "--rule",
          "--options", "--alpha", "--dropout", "--also-scored", "--measurements", "--results", "--adapters"})
      lowrank::require(!pc || app.count(option) == 0, "adapt", option, " has no meaning for pc_lora");
    lowrank::require(!pc || (settings.samples.size() == 1 && settings.rates.size() <= 1), "adapt",
                     "pc_lora takes one number of samples and one rate");
    if (pc) adapting::run_pc_lora(settings);
    else adapting::run{settings}.all();
    return 0;
  } catch (std::exception const& e) {
    std::cerr << "adapt: " << e.what() << "\n";
    return 1;
  }
}
