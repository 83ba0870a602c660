// How well methods that find a subspace do on real gradients: the demo's language model is trained as the demo trains it,
// with AdamW, and at three stages its gradients are recorded, of whole batches and of one sequence.
//
//     ./run bench basis/real_gradients [--json FILE] [FLAGS]
//
// Part one refreshes P on one gradient, from nothing but that gradient and a P that was exact some steps before; part two
// updates P on every step and asks what it captures of the next gradient, which it has not seen. Energies depend neither
// on the machine's speed nor on who else uses it.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "basis/judgement_report.hpp"

namespace {

using namespace lowrank;

struct program_settings {
  llama::demo_settings training;
  bench::judged_settings judged;
  std::string json;
};

void describe(CLI::App& app, program_settings& s) {
  app.add_option("--text", s.training.text, "text to train on")->check(CLI::ExistingFile)->capture_default_str();
  app.add_option("--json", s.json, "write every number there");
  app.add_option("--steps", s.training.steps, "what the learning rate is planned for")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--stages", s.judged.stages, "steps to record from, rising, so far apart that they do not meet")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--lags", s.judged.lags, "steps from the old P to the new")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--ranks", s.judged.ranks)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--run", s.judged.run, "consecutive steps of part two")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  app.add_option("--settle", s.judged.settle, "updates of them that do not count")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seed", s.training.seed)->capture_default_str();
  app.add_option("--threads", s.training.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
}

void check(program_settings const& s) {
  index_t free = 0;
  for (index_t const stage : s.judged.stages) {
    require(stage >= free, "real_gradients", "needs stages ", s.judged.last() + 1, " steps apart, got ", stage);
    free = stage + s.judged.last() + 1;
  }
  require(free <= s.training.steps, "real_gradients", "needs ", free, " steps, got ", s.training.steps);
  for (index_t const r : s.judged.ranks)
    require(r <= s.training.model.width, "real_gradients", "needs ranks up to ", s.training.model.width, ", got ", r);
  require(s.judged.settle < s.judged.run - 1, "real_gradients", "needs settle < run - 1, got ", s.judged.settle,
          " and ", s.judged.run);
}

void run(program_settings s) {
  s.training.warmup = std::min(s.training.warmup, s.training.steps / 10);
  check(s);
  bench::engine exec{{.threads = s.training.threads}};
  bench::recorded_training training{exec, s.training};
  bench::judgement judged{
      exec, s.judged, {training.tokens(bench::batch_kind::whole), training.tokens(bench::batch_kind::one_sequence)}};
  for (index_t const stage : s.judged.stages) {
    while (training.step() < stage) training.advance();
    bench::gradient_recording recorded;
    for (index_t ahead = 0; ahead <= s.judged.last(); ++ahead)
      training.advance(s.judged.wants(ahead) ? &recorded : nullptr);
    judged.add(stage, recorded);
  }
  bench::print_spectra(judged);
  bench::print_refreshes(judged);
  bench::print_every_step(judged);
  std::printf("\na random P of rank r captures r/%ld of all energy\n", static_cast<long>(s.training.model.width));
  if (s.json.empty()) return;
  auto const folder = std::filesystem::path{s.json}.parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  auto numbers = bench::to_json(judged);
  numbers["loss"] = training.losses();
  std::ofstream out{s.json};
  out << numbers.dump(1) << "\n";
  require<io_error>(out.good(), "real_gradients", "cannot write ", s.json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Judges methods that find a subspace on gradients of a language model in training."};
  program_settings settings;
  settings.training.text = "build/data/shakespeare.txt";
  describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    run(std::move(settings));
  } catch (std::exception const& e) {
    std::cerr << "real_gradients: " << e.what() << "\n";
    return 1;
  }
}
