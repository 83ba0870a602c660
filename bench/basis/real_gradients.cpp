// How well methods that find a subspace do on real gradients: the demo's language model is trained as the demo trains it,
// with AdamW, and at three stages its gradients are recorded, of whole batches and of one sequence. With --model it is a
// published model of SmolLM2's depth, which is fine-tuned, and its first fifty steps are what is looked at.
//
//     ./run bench basis/real_gradients [--json FILE] [--model FILE.gguf] [FLAGS]
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
  std::string model, json;
};

void describe(CLI::App& app, program_settings& s) {
  // Before the others are read, so that they overrule the stages it chooses.
  app.add_option_function<std::string>(
         "--model",
         [&](std::string const& file) {
           s.model = file;
           s.judged.stages = {0};
         },
         "GGUF file of a model to fine-tune instead of the demo's; of stages there is then one, step 0")
      ->check(CLI::ExistingFile)
      ->trigger_on_parse();
  app.add_option("--text", s.training.text, "text to train on")->check(CLI::ExistingFile)->capture_default_str();
  app.add_option("--json", s.json, "write every number there");
  app.add_option("--steps", s.training.steps, "what the demo's learning rate is planned for")
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

[[nodiscard]] bench::recordable_training chosen_training(bench::engine& exec, program_settings const& s) {
  index_t const steps = s.judged.steps();
  if (!s.model.empty())
    return bench::fine_tuning({.model = s.model, .text = s.training.text, .steps = steps, .seed = s.training.seed});
  require(steps <= s.training.steps, "real_gradients", "needs ", steps, " steps, got ", s.training.steps);
  auto planned = s.training;
  planned.warmup = std::min(planned.warmup, planned.steps / 10);
  return bench::demo_training(exec, planned);
}

/// The shorter side of a gradient, over all that are watched.
struct side_range {
  index_t least, most;

  explicit side_range(bench::recorded_training const& training) : least{training.model().config().vocabulary}, most{} {
    for (auto const& matrix : training.watched()) {
      auto const shape = training.shape(matrix);
      least = std::min({least, shape.rows, shape.cols});
      most = std::max(most, std::min(shape.rows, shape.cols));
    }
  }
};

void run(program_settings const& s) {
  require(s.judged.settle < s.judged.run - 1, "real_gradients", "needs settle < run - 1, got ", s.judged.settle,
          " and ", s.judged.run);
  bench::engine exec{{.threads = s.training.threads}};
  bench::recorded_training training{exec, chosen_training(exec, s)};
  side_range const side{training};
  for (index_t const r : s.judged.ranks)
    require(r <= side.least, "real_gradients", "needs ranks up to ", side.least, ", got ", r);
  bench::print_subject(training);
  bench::judgement judged{
      exec,
      s.judged,
      training.watched(),
      {training.tokens(bench::batch_kind::whole), training.tokens(bench::batch_kind::one_sequence)}};
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
  std::printf("\na random P of rank r captures r/m of all energy, m = %ld .. %ld\n", static_cast<long>(side.least),
              static_cast<long>(side.most));
  if (s.json.empty()) return;
  auto const folder = std::filesystem::path{s.json}.parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  auto numbers = bench::to_json(judged);
  numbers.update(bench::to_json(training));
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
    run(settings);
  } catch (std::exception const& e) {
    std::cerr << "real_gradients: " << e.what() << "\n";
    return 1;
  }
}
