// Seconds for the singular values of all linear layers of a model, and the values.
//
//   model_spectra --model FILE.gguf [--threads 2] [--rounds 3] [--route automatic] [--accuracy 1e-8]
//                 [--executor blas|eigen] [--gram-bytes N] [--write FILE]
//                 [--write-matrices FILE.safetensors]
//
// Prints one line of JSON. --write leaves the values behind, fp64, in the order of the file's blocks and kinds;
// --write-matrices the matrices.
#include <chrono>
#include <CLI/CLI.hpp>
#include <ctime>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "spectrum/linear_matrices.hpp"

namespace lowrank::bench {
namespace {

struct settings {
  std::string model, write, matrices, executor{"blas"};
  spectrum_route route{spectrum_route::automatic};
  double accuracy{1e-8};
  int threads{2}, rounds{3};
  index_t gram_bytes{model_spectra_options{}.gram_bytes};
};

template <class E>
int run(settings const& s) {
  E exec{{.threads = s.threads}};
  linear_matrices matrices{s.model};
  auto const sources = matrices.loaded();
  if (!s.matrices.empty()) matrices.write(s.matrices);
  model_spectra_options const options{.spectrum = {.accuracy = s.accuracy, .route = s.route},
                                      .gram_bytes = s.gram_bytes};
  std::vector<spectrum> spectra;
  std::vector<double> seconds, cpu_seconds;
  for (int round = 0; round < s.rounds; ++round) {
    auto const start = std::chrono::steady_clock::now();
    auto const cpu_start = std::clock();
    spectra = model_spectra(exec, sources, options);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    cpu_seconds.push_back(static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC);
  }
  if (!s.write.empty()) {
    std::ofstream file{s.write, std::ios::binary};
    for (auto const& one : spectra)
      file.write(reinterpret_cast<char const*>(one.values.data()),
                 static_cast<std::streamsize>(one.values.size() * sizeof(double)));
  }
  std::cout << nlohmann::json{{"matrices", spectra.size()},
                              {"values", total_length(spectra)},
                              {"threads", exec.threads()},
                              {"seconds", std::ranges::min(seconds)},
                              {"cpu_seconds", std::ranges::min(cpu_seconds)},
                              {"all_seconds", seconds}}
            << '\n';
  return 0;
}

}  // namespace
}  // namespace lowrank::bench

int main(int argc, char** argv) {
  using namespace lowrank;
  bench::settings s;
  std::map<std::string, spectrum_route> const routes{{"automatic", spectrum_route::automatic},
                                                     {"gram", spectrum_route::gram},
                                                     {"exact", spectrum_route::exact},
                                                     {"randomized", spectrum_route::randomized}};
  CLI::App app{"Singular values of all linear layers of a model."};
  app.add_option("--model", s.model)->required();
  app.add_option("--threads", s.threads);
  app.add_option("--rounds", s.rounds)->check(CLI::PositiveNumber);
  app.add_option("--gram-bytes", s.gram_bytes);
  app.add_option("--accuracy", s.accuracy);
  app.add_option("--route", s.route)->transform(CLI::CheckedTransformer(routes));
  app.add_option("--executor", s.executor)->check(CLI::IsMember({"blas", "eigen"}));
  app.add_option("--write", s.write);
  app.add_option("--write-matrices", s.matrices);
  CLI11_PARSE(app, argc, argv);
  try {
#if defined(LOWRANK_HAS_BLAS)
    if (s.executor == "blas") return bench::run<blas_executor>(s);
#endif
    return bench::run<host_executor>(s);
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
