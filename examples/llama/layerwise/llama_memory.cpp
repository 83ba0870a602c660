// One step of training a LLaMA of 6.7 billion parameters in 12 GiB: weights in INT8, bases in INT4, states in 8 bits.
#include <CLI/CLI.hpp>
#include <iostream>

#include "memory_run.hpp"

#if defined(LLAMA_WITH_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#else
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#endif

namespace llama {
namespace {

#if defined(LLAMA_WITH_BLAS)
using executor = lowrank::blas_executor;
#else
using executor = lowrank::host_executor;
#endif

void describe(CLI::App& app, memory_settings& s) {
  app.add_option("--shape", s.shape, "7b, 1b or tiny")
      ->check(CLI::IsMember({"7b", "1b", "tiny"}))
      ->capture_default_str();
  app.add_option("--layers", s.layers, "0: as many as the shape has")->check(CLI::NonNegativeNumber);
  app.add_option("--rank", s.rank, "of the bases; 0: a quarter of the width")->check(CLI::NonNegativeNumber);
  app.add_option("--sequence", s.sequence, "tokens of the one sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--steps", s.steps, "from the second on one layer finds its bases anew")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--gradient", s.gradient, "factored, or dense: one matrix gradient at a time")
      ->check(CLI::IsMember({"factored", "dense"}))
      ->capture_default_str();
  app.add_option("--state-bits", s.state_bits, "of the moments: 8 (bitsandbytes) or 4 (torchao)")
      ->check(CLI::IsMember({8, 4}))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--lr", s.learning_rate)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--limit", s.limit_gib, "GiB that VmHWM may reach; 0: 12 for 7b, 10 with 4-bit states")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", s.seed)->capture_default_str();
  app.add_option("--json", s.json, "write the numbers");
}

template <class Kind>
int run(memory_settings const& s) {
  memory_run<executor, Kind> all{s};
  bool const good = all.run();
  if (!s.json.empty()) {
    std::ofstream out{s.json};
    out << all.report().dump(1) << "\n";
    lowrank::require<lowrank::io_error>(out.good(), "llama_memory", "cannot write ", s.json);
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace llama

int main(int argc, char** argv) {
  CLI::App app{"Trains a large Llama with random weights for a few steps in as little memory as it takes."};
  llama::memory_settings settings;
  llama::describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    return settings.state_bits == 8 ? llama::run<lowrank::rule::moments::bitsandbytes>(settings)
                                    : llama::run<lowrank::rule::moments::torchao_4bit>(settings);
  } catch (std::exception const& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
