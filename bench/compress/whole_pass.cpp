// Seconds for compressing all linear layers of a model by WeLore: spectra, ranks, factors. Nothing is read or written
// meanwhile.
//
//   whole_pass --model FILE.gguf [--reduction 0.5] [--threads 2] [--rounds 3] [--write FILE.safetensors]
//
// Prints one line of JSON. --write leaves the matrices behind as they were, for other programs to compress.
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "llama/load_gguf.hpp"
#include "lowrank/compress/welore.hpp"
#include "smollm2/executor.hpp"
#include "smollm2/study.hpp"

namespace {

struct settings {
  std::string model, write;
  double reduction{0.5};
  int threads{2}, rounds{3};
};

void run(settings const& s) {
  smollm2::executor_type exec{{.threads = s.threads}};
  lowrank::gguf_reader const file{s.model};
  auto const model = llama::load(file, llama::config_of(file, 512));
  smollm2::linear_weights const weights{model};
  if (!s.write.empty()) {
    std::vector<lowrank::tensor_source> sources;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      auto const w = weights.weight(i);
      sources.push_back({{weights[i].name, lowrank::dtype::f32, {w.rows, w.cols}},
                         std::as_bytes(std::span{w.data, static_cast<std::size_t>(w.size())})});
    }
    lowrank::write_safetensors(s.write, sources);
  }
  auto const how = lowrank::welore_for(s.reduction);
  auto const collection = weights.collection();
  std::vector<double> seconds;
  lowrank::index_t low_rank = 0, kept = 0;
  for (int round = 0; round < s.rounds; ++round) {
    double const began = llama::now();
    auto const plan = how.plan(exec, collection);
    low_rank = 0;
    how.run(exec, collection, plan, [&](lowrank::compressed_matrix const& made) {
      low_rank += made.plan.kind == lowrank::component_kind::lrc ? 1 : 0;
    });
    kept = plan.parameters();
    seconds.push_back(llama::now() - began);
  }
  std::cout << nlohmann::json{{"matrices", weights.size()},
                              {"low_rank", low_rank},
                              {"parameters", kept},
                              {"threads", exec.threads()},
                              {"seconds", std::ranges::min(seconds)},
                              {"all_seconds", seconds}}
            << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Compresses all linear layers of a model by WeLore."};
  app.add_option("--model", s.model)->required();
  app.add_option("--write", s.write);
  app.add_option("--reduction", s.reduction);
  app.add_option("--threads", s.threads);
  app.add_option("--rounds", s.rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    run(s);
    return 0;
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
