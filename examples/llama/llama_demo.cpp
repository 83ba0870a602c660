// Trains the same small language model with several optimizers and puts them side by side.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <map>

#include "demo_page.hpp"
#include "demo_report.hpp"
#include "training_run.hpp"

namespace {

/// Bytes of cache-line aligned memory alive: all the library owns, and nothing else in this program.
std::atomic<lowrank::index_t> alive{0};

}  // namespace

void* operator new(std::size_t bytes, std::align_val_t alignment) {
  auto const step = static_cast<std::size_t>(alignment);
  if (void* const p = std::aligned_alloc(step, (bytes + step - 1) / step * step)) {
    alive += static_cast<lowrank::index_t>(bytes);
    return p;
  }
  throw std::bad_alloc{};
}
void operator delete(void* p, std::size_t bytes, std::align_val_t) noexcept {
  if (p != nullptr) alive -= static_cast<lowrank::index_t>(bytes);
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }

namespace llama {

index_t allocated_bytes() noexcept { return alive; }

namespace {

template <class T>
using choices = std::map<std::string, T>;

/// What may be lists: each combination is a run of GaLore.
void describe_bases(CLI::App& app, demo_settings& s) {
  auto const list = [&](char const* name, auto& values, char const* help, CLI::Validator const& check) {
    app.add_option(name, values, help)->delimiter(',')->check(check)->capture_default_str();
  };
  list("--finder", s.finders, "how GaLore finds bases: randomized, svd, warm, tracked, stiefel; lists are compared",
       CLI::IsMember({"randomized", "svd", "warm", "tracked", "stiefel"}));
  list("--refresh", s.refreshes,
       "when: every, staggered, lazy, energy, budget; usual is lazy for q_galore_adamw_8bit, else every; lists are "
       "compared",
       CLI::IsMember({"usual", "every", "staggered", "lazy", "energy", "budget"}));
  list("--gap", s.gaps, "steps between bases for every and staggered, at first for lazy; lists are compared",
       CLI::Range(1, 1 << 30));
  list("--transport", s.transports, "what becomes of the moments then: keep, reset, rotate; lists are compared",
       CLI::IsMember({"keep", "reset", "rotate"}));
  list("--rounding", s.roundings, "of q_galore_adamw_8bit's int8 weights: stochastic, nearest; lists are compared",
       CLI::IsMember({"stochastic", "nearest"}));
}

void describe(CLI::App& app, demo_settings& s) {
  app.add_option("--text", s.text, "text to train on; the last tenth validates")->required()->check(CLI::ExistingFile);
  app.add_option(
         "--optimizer", s.optimizers,
         "adamw, adafactor, lion, sgd, galore_adamw, galore_adafactor, galore_sgd, galore_lion; galore is "
         "short for galore_adamw; adamw_8bit, galore_adamw_8bit, q_galore_adamw_8bit and others that by_name knows")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--steps", s.steps)->check(CLI::Range(1, 1 << 30))->capture_default_str();
  app.add_option("--batch", s.batch, "sequences a micro-batch")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--micro-batches", s.micro_batches, "micro-batches a step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--adamw-lr", s.adamw_rate, "learning rate of full-rank runs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--galore-lr", s.galore_rate,
                 "learning rate of GaLore runs; embedding, head and norms get scale times it")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option_function<double>(
         "--lr", [&](double rate) { s.adamw_rate = s.galore_rate = rate; }, "learning rate of all runs")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--warmup", s.warmup, "steps of linear warm-up, at most a tenth of the steps")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--floor", s.floor, "learning rate at the end, as a share")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--clip", s.clip, "global gradient norm to clip to; 0: off")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--weight-decay", s.weight_decay)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--seed", s.seed)->capture_default_str();
  app.add_option("--threads", s.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--backend", s.products, "eigen (same bits for any number of threads) or blas")
      ->transform(CLI::CheckedTransformer(choices<backend>{{"eigen", backend::eigen}, {"blas", backend::blas}}));
  app.add_option("--gradient", s.gradient, "dense, factored or auto")
      ->transform(CLI::CheckedTransformer(choices<gradient_choice>{{"dense", gradient_choice::dense},
                                                                   {"factored", gradient_choice::factored},
                                                                   {"auto", gradient_choice::automatic}}));
  app.add_flag_callback(
      "--per-layer", [&] { s.update = update_mode::per_layer; }, "update each weight as soon as its gradient is there");
  app.add_option("--rank", s.rank)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--scale", s.scale, "GaLore's alpha")->capture_default_str();
  describe_bases(app, s);
  app.add_option("--galore-options", s.galore_options, "more options, as in \"power_iterations=2, basis_format=bf16\"");
  app.add_option("--width", s.model.width)->capture_default_str();
  app.add_option("--layers", s.model.layers)->capture_default_str();
  app.add_option("--heads", s.model.heads)->capture_default_str();
  app.add_option("--kv-heads", s.model.kv_heads)->capture_default_str();
  app.add_option("--ffn", s.model.ffn)->capture_default_str();
  app.add_option("--sequence", s.model.sequence)->capture_default_str();
  app.add_flag_callback(
      "--tied", [&] { s.model.head = output_head::tied; }, "logits from the embedding matrix");
  app.add_option("--validate-every", s.validate_every)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--validation-batches", s.validation_batches)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--checkpoint", s.checkpoint, "where checkpoints go: NAME-run.safetensors")->capture_default_str();
  app.add_option("--checkpoint-every", s.checkpoint_every, "0: only on Ctrl-C")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--resume", s.resume, "go on from the checkpoints of the same run");
  app.add_option("--sample", s.sample, "bytes of text to generate at the end")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--report", s.report, "write the numbers as JSON");
  app.add_option("--html", s.html, "write a page with plots; \"\" for none")->capture_default_str();
}

int run(demo_settings s) {
  s.warmup = std::min(s.warmup, s.steps / 10);
  validate(s.model);
  std::signal(SIGINT, [](int) { interrupted = 1; });
  auto const choices = planned_runs(s);
  auto const results = s.products == backend::blas ? run_on_blas(s, choices) : run_on_eigen(s, choices);
  if (auto const& last = results.back(); !last.finished) {
    std::cerr << "stopped; the same command with --resume goes on from " << checkpoint_path(s, last.choice) << "\n";
    return 130;
  }
  print_table(results);
  std::printf("\ntext from %s:\n%s\n", results.back().choice.name.c_str(), printable(results.back().sample).c_str());
  if (!s.report.empty()) {
    std::ofstream out{s.report};
    out << to_json(s, results).dump(1) << "\n";
    lowrank::require<lowrank::io_error>(out.good(), "llama_demo", "cannot write ", s.report);
  }
  if (!s.html.empty()) {
    write_page(s.html, s, results);
    std::printf("\nplots: %s\n", s.html.c_str());
  }
  return 0;
}

}  // namespace
}  // namespace llama

int main(int argc, char** argv) {
  CLI::App app{"Trains a small language model on a text with several optimizers and puts them side by side."};
  llama::demo_settings settings;
#if defined(LLAMA_WITH_BLAS)
  settings.products = llama::backend::blas;
#endif
  llama::describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    return llama::run(std::move(settings));
  } catch (std::exception const& e) {
    std::cerr << "llama_demo: " << e.what() << "\n";
    return 1;
  }
}
