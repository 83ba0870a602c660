/// @file
/// What a run does: which trials it makes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "llama/config.hpp"

namespace adapting {

using llama::index_t;

/// Bases whose codes are chosen by what the matrices take in: see `frozen_bases`.
inline constexpr std::array<std::string_view, 2> calibrated_bases{"nf4_gptq", "nf4_mixed"};
[[nodiscard]] inline bool is_calibrated(std::string_view base) noexcept {
  return std::ranges::find(calibrated_bases, base) != calibrated_bases.end();
}

/// Whether matrices of this base have lost something that matters.
[[nodiscard]] inline bool is_rounded(std::string_view base) noexcept { return base != "fp32" && base != "bf16"; }

/// One fine-tuning.
struct trial {
  std::string method{"lora"};
  std::string base{"fp32"};  ///< format of the frozen matrices, or one of `calibrated_bases`
  std::string embedding{"fp32"};
  std::string calibration;  ///< of calibrated bases: how many windows of which texts
  std::string rule{"adamw"}, rule_options;
  index_t rank{8}, samples{64}, steps{100}, batch{2}, length{128};
  double rate{1e-3};
  double base_bytes{0.35};  ///< of nf4_mixed: at most this share of the bytes of the model in bf16
  float alpha{16}, dropout{0};
  std::uint64_t seed{1};  ///< of the samples, their order and the adapters
};

/// The base in tables and plots: "nf4_mixed 0.350" where its bytes are asked for.
[[nodiscard]] inline std::string base_label(trial const& t) {
  if (t.base != "nf4_mixed") return t.base;
  char share[16];
  std::snprintf(share, sizeof share, " %.3f", t.base_bytes);
  return t.base + share;
}

/// What a trial is called in files: all that tells trials apart.
[[nodiscard]] inline std::string name(trial const& t) {
  char numbers[160];
  std::snprintf(numbers, sizeof numbers, "-r%ld-%s-n%ld-%s-%g-%ldx%ldx%ld-a%g-s%lu", static_cast<long>(t.rank),
                t.base.c_str(), static_cast<long>(t.samples), t.rule.c_str(), t.rate, static_cast<long>(t.steps),
                static_cast<long>(t.batch), static_cast<long>(t.length), static_cast<double>(t.alpha),
                static_cast<unsigned long>(t.seed));
  std::string out = t.method + numbers;
  if (t.base == "nf4_mixed") std::snprintf(numbers, sizeof numbers, "-b%g", t.base_bytes), out += numbers;
  if (is_calibrated(t.base)) out += "-c" + t.calibration;
  if (t.embedding != t.base) out += "-e" + t.embedding;
  if (t.dropout > 0) out += "-d" + std::to_string(t.dropout);
  for (char const c : t.rule_options) out += c == ' ' || c == '/' || c == ',' ? '-' : c;
  return out;
}

struct settings {
  std::string model{"build/data/SmolLM2-135M-Instruct.Q4_1.gguf"}, texts{"build/data"};
  std::string scored{"hamlet_gut.txt"}, trained{"othello_gut.txt"};
  std::vector<std::string> also_scored;  ///< texts that are scored when a trial has ended
  std::string html{"build/adapt/report.html"}, report, adapters{"build/adapt/adapters"};
  std::string results;  ///< JSON of finished trials, which are not made again
  int threads{0};
  index_t scored_windows{8}, scored_length{256}, measurements{4};
  index_t scored_stride{4096};  ///< tokens from one scored window to the next

  // Every combination is a trial.
  std::vector<std::string> methods{"lora"}, bases{"fp32"}, rules{"adamw"};
  std::vector<index_t> ranks{8}, samples{64};
  std::vector<std::uint64_t> seeds{1};
  std::vector<double> rates;             ///< empty: each method's own
  std::vector<double> base_bytes{0.35};  ///< of nf4_mixed
  std::string embedding;                 ///< format; empty: that of the base, INT8 beside NF4
  std::string rule_options;
  index_t steps{100}, batch{2}, length{128};
  float alpha{16}, dropout{0};
  std::vector<std::string> calibration_texts;  ///< empty: the text to train on
  index_t calibration_windows{96};             ///< of 256 tokens, spread over those texts

  // PC-LoRA, which replaces the model's matrices instead of adding to them.
  std::string pc_model{"smollm2"};  ///< or "demo": the demo's, on bytes
  std::string pc_demo;              ///< folder of that model, which is trained where it is missing
  index_t pc_demo_steps{400}, pc_layers{0};
  double pc_share{0.2};  ///< of the task in the loss

  [[nodiscard]] std::string calibration() const {
    std::string out = std::to_string(calibration_windows);
    for (auto const& text : calibration_texts) out += "+" + text;
    return calibration_texts.empty() ? out + "+" + trained : out;
  }
  /// A model trained for another number of steps is another model.
  [[nodiscard]] std::string pc_demo_folder() const {
    return pc_demo.empty() ? "build/adapt/demo-" + std::to_string(pc_demo_steps) : pc_demo;
  }

  /// Five minutes.
  void make_quick() {
    scored_windows = 4;
    methods = std::vector<std::string>{"lora", "lora_xs", "nola", "deep_lora"};
    ranks = std::vector<index_t>{4, 16};
    samples = std::vector<index_t>{16};
    steps = 20;
    length = 64;
    measurements = 2;
  }
  /// The grid of ranks, methods and seeds where there is little to learn from.
  void make_study() {
    methods = std::vector<std::string>{"lora", "rslora",    "lora_plus",           "olora", "lora_xs", "mora",
                                       "nola", "deep_lora", "deep_lora_compressed"};
    ranks = std::vector<index_t>{4, 16, 64};
    samples = std::vector<index_t>{16};
    seeds = std::vector<std::uint64_t>{1, 2, 3};
    steps = 40;
    scored_windows = 4;
    measurements = 2;
    results = "build/adapt/study.json";
  }
};

/// The learning rate with AdamW that a method is tried with unless another is asked for. Few samples are soon known by heart:
/// they want a lower one.
[[nodiscard]] inline double usual_rate(std::string_view method, index_t samples) {
  auto const of_many = [&] {
    if (method == "lora_plus" || method == "olora") return 3e-4;
    if (method == "rslora") return 5e-4;
    if (method == "lora_xs") return 3e-3;
    if (method == "nola") return 5e-3;
    if (method == "deep_lora_compressed") return 1e-2;
    return 1e-3;
  };
  if (samples > 16) return of_many();
  return (method.starts_with("deep_lora") ? 0.5 : 0.3) * of_many();
}

/// Every combination, once. LoftQ over a base that has lost nothing is LoRA.
[[nodiscard]] inline std::vector<trial> planned_trials(settings const& s) {
  std::vector<trial> out;
  for (auto const samples : s.samples)
    for (auto const rank : s.ranks)
      for (auto const& base : s.bases)
        for (double const share : s.base_bytes)
          for (auto const& rule : s.rules)
            for (auto const seed : s.seeds)
              for (auto const& method : s.methods)
                for (double const rate : s.rates.empty() ? std::vector{usual_rate(method, samples)} : s.rates) {
                  trial t;
                  t.method = method == "loftq" && !is_rounded(base) ? "lora" : method;
                  t.base = base;
                  t.embedding = !s.embedding.empty() ? s.embedding : base.starts_with("nf4") ? "int8" : base;
                  t.calibration = s.calibration();
                  t.rule = rule;
                  t.rule_options = s.rule_options;
                  t.rank = rank;
                  t.samples = samples;
                  t.steps = s.steps;
                  t.batch = s.batch;
                  t.length = s.length;
                  t.rate = rate;
                  t.base_bytes = share;
                  t.alpha = s.alpha;
                  t.dropout = s.dropout;
                  t.seed = seed;
                  if (std::ranges::none_of(out, [&](trial const& other) { return name(other) == name(t); }))
                    out.push_back(std::move(t));
                }
  return out;
}

}  // namespace adapting
