// Tokens a second of forward and backward passes through a real model, all gradients dense.
//
//   model_pass --model FILE.gguf --text FILE [--sequences 2] [--length 128] [--threads 2] [--rounds 5] [--print-tokens]
//
// Prints one line of JSON.
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "llama/data.hpp"
#include "llama/load_gguf.hpp"
#include "llama/progress.hpp"
#include "llama/tokenizer.hpp"
#include "smollm2/executor.hpp"
#include "smollm2/windows.hpp"

namespace {

struct settings {
  std::string model, text;
  lowrank::index_t sequences{2}, length{128};
  int threads{2}, rounds{5};
  enum { passes, tokens } prints{passes};
};

void run(settings const& s) {
  smollm2::executor_type exec{{.threads = s.threads, .worker_bytes = lowrank::index_t{8} << 20}};
  lowrank::gguf_reader const file{s.model};
  auto const c = llama::config_of(file, s.length);
  auto const model = llama::load(file, c);
  auto const tokens = llama::tokenizer{file}.encode(llama::read_bytes(s.text));
  smollm2::windows const text{s.text, tokens, {s.sequences, s.length, 2048, s.length}};
  if (s.prints == settings::tokens) {
    std::cout << nlohmann::json{{"tokens", text.batch(0, s.sequences).inputs.tokens}} << '\n';
    return;
  }
  llama::activations<float> memory{c, s.sequences, s.length, llama::pass::training};
  llama::gradients<float> gradients{model};
  std::vector<double> forward, both;
  double loss = 0;
  for (int round = 0; round <= s.rounds; ++round) {
    auto const batch = text.batch(0, s.sequences);
    double const began = llama::now();
    llama::forward(exec, model, batch.inputs, memory);
    loss = llama::cross_entropy(exec, memory, batch.targets, {});
    double const half = llama::now();
    llama::backward(exec, model, batch.inputs, memory, gradients);
    if (round == 0) continue;
    forward.push_back(half - began);
    both.push_back(llama::now() - began);
  }
  double const tokens_a_pass = static_cast<double>(text.tokens());
  std::cout << nlohmann::json{{"threads", exec.threads()},
                              {"loss", loss},
                              {"tokens_per_second", tokens_a_pass / std::ranges::min(both)},
                              {"forward_tokens_per_second", tokens_a_pass / std::ranges::min(forward)}}
            << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Times passes through a real model."};
  app.add_option("--model", s.model)->required();
  app.add_option("--text", s.text)->required();
  app.add_option("--sequences", s.sequences);
  app.add_option("--length", s.length);
  app.add_option("--threads", s.threads);
  app.add_option("--rounds", s.rounds)->check(CLI::PositiveNumber);
  app.add_flag_callback("--print-tokens", [&] { s.prints = settings::tokens; });
  CLI11_PARSE(app, argc, argv);
  try {
    run(s);
    return 0;
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
