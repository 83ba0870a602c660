// Prints what training a published shape takes, line by line. Allocates none of it.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "plan.hpp"

namespace llama {
namespace {

template <class T>
using choices = std::map<std::string, T>;

void describe(CLI::App& app, plan_settings& s) {
  auto const listed = [](auto const& names) { return std::vector<std::string>(names.begin(), names.end()); };
  std::vector<std::string> models;
  for (auto const& one : published_shapes()) models.emplace_back(one.name);
  app.add_option("--model", s.model)->check(CLI::IsMember(models))->capture_default_str();
  app.add_option("--optimizer", s.optimizer)
      ->check(CLI::IsMember(listed(plannable_optimizers())))
      ->capture_default_str();
  app.add_option("--rank", s.rank, "0: the one published for the model")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--batch", s.batch, "sequences")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--sequence", s.sequence, "tokens of each")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--checkpointing", s.layers_kept, "off: all layers keep what the backward pass reads; on: one does")
      ->transform(
          CLI::CheckedTransformer(choices<checkpointing>{{"off", checkpointing::off}, {"on", checkpointing::on}}))
      ->default_str("on");
  app.add_option("--gradients", s.gradients, "all at once, or per-layer: those of matrices one at a time")
      ->transform(CLI::CheckedTransformer(
          choices<gradient_storage>{{"all", gradient_storage::kept}, {"per-layer", gradient_storage::one_at_a_time}}))
      ->default_str("per-layer");
  app.add_option("--gradient", s.form, "dense or factored, for the matrices of GaLore")
      ->transform(CLI::CheckedTransformer(
          choices<gradient_form>{{"dense", gradient_form::dense}, {"factored", gradient_form::factored}}))
      ->default_str("factored");
  app.add_option("--weights", s.weights, "of the matrices of layers; customary: as the optimizer is used")
      ->transform(CLI::CheckedTransformer(choices<weight_format>{{"customary", weight_format::customary},
                                                                 {"fp32", weight_format::fp32},
                                                                 {"bf16", weight_format::bf16},
                                                                 {"int8", weight_format::int8}}))
      ->default_str("customary");
  app.add_option("--vocabulary-rows", s.vocabulary_rows,
                 "train embedding and head in blocks of that many rows; 0: each whole; -1: as the optimizer is used")
      ->check(CLI::Range(-1, 1 << 30))
      ->capture_default_str();
}

[[nodiscard]] nlohmann::json to_json(plan_settings const& s, lowrank::memory_plan const& plan) {
  nlohmann::json lines = nlohmann::json::array();
  for (auto const& l : plan.lines())
    lines.push_back({{"kind", lowrank::name_of(l.kind)}, {"what", l.what}, {"bytes", l.bytes}, {"overlay", l.overlay}});
  return {{"model", s.model}, {"optimizer", s.optimizer},    {"rank", rank_of(s)},
          {"batch", s.batch}, {"sequence", s.sequence},      {"parameters", parameter_count(shape_of(s))},
          {"lines", lines},   {"resident", plan.resident()}, {"peak", plan.peak()}};
}

int run(plan_settings const& s, std::string const& json, double available) {
  auto const plan = plan_of(s);
  std::cout << s.model << " (" << parameter_count(shape_of(s)) << " parameters), " << s.optimizer;
  if (s.optimizer.find("galore") != std::string::npos) std::cout << " at rank " << rank_of(s);
  std::cout << ", " << s.batch << " x " << s.sequence << " tokens\n" << plan;
  if (!json.empty()) {
    std::ofstream out{json};
    out << to_json(s, plan).dump(1) << "\n";
    out.close();
    lowrank::require<lowrank::io_error>(out.good(), "llama_plan", "cannot write ", json);
  }
  if (available > 0) {
    lowrank::require(available < 8e9, "llama_plan", "available must be below 8e9 GiB, got ", available);
    lowrank::require_fits(plan, static_cast<index_t>(available * 1073741824.0), "llama_plan");
  }
  return 0;
}

}  // namespace
}  // namespace llama

int main(int argc, char** argv) {
  CLI::App app{"Says how much memory training a LLaMA takes, without taking it."};
  llama::plan_settings settings;
  llama::describe(app, settings);
  std::string json;
  double available = 0;
  app.add_option("--json", json, "write the lines as JSON");
  app.add_option("--available", available, "GiB; exit 1 and say how much is missing where the peak is above")
      ->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    return llama::run(settings, json, available);
  } catch (std::exception const& e) {
    std::cerr << "llama_plan: " << e.what() << "\n";
    return 1;
  }
}
