// WeLore's ranks of a real model against recorded ones: thresholds, ranks (by their hash), counts of low-rank components and of
// parameters, for every row of the reference. Exits with 1 where one differs.
//
//   smollm2_ranks --model FILE.safetensors --reference JSON [--threads 2]
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/rank/sensitivity.hpp"
#include "lowrank/rank/uniform.hpp"
#include "lowrank/rank/welore.hpp"
#include "spectrum/linear_matrices.hpp"
#include "spectrum/sha256.hpp"

namespace lowrank::bench {
namespace {

using nlohmann::json;
#if defined(LOWRANK_HAS_BLAS)
using engine = blas_executor;
#else
using engine = host_executor;
#endif

/// What is compared, said once.
class comparison {
 public:
  template <class T>
  void equal(std::string const& what, T const& ours, T const& theirs) {
    ++compared_;
    if (ours == theirs) return;
    ++different_;
    std::cout << what << ": " << ours << ", recorded " << theirs << '\n';
  }
  void close(std::string const& what, double ours, double theirs, double tolerance) {
    ++compared_;
    if (std::abs(ours - theirs) <= tolerance) return;
    ++different_;
    std::cout << what << ": " << ours << ", recorded " << theirs << '\n';
  }
  [[nodiscard]] int report() const {
    std::cout << compared_ - different_ << " of " << compared_ << " numbers are as recorded\n";
    return different_ == 0 && compared_ > 0 ? 0 : 1;
  }

 private:
  int compared_{}, different_{};
};

void compare_spectra(comparison& seen, json const& recorded, linear_matrices const& matrices,
                     std::vector<spectrum> const& spectra) {
  for (auto const& [name, expected] : recorded.items()) {
    auto const place = std::ranges::find(matrices.names(), name);
    if (place == matrices.names().end()) continue;
    auto const& one = spectra[static_cast<std::size_t>(place - matrices.names().begin())];
    double const allowed = 1e-5 * one.largest();
    auto const top = expected["top5"].get<std::vector<double>>();
    for (std::size_t i = 0; i < top.size(); ++i)
      seen.close(name + " value " + std::to_string(i), one.values[i], top[i], allowed);
    seen.close(name + " smallest", one.values.back(), expected["smallest"].get<double>(), allowed);
    seen.close(name + " norm", std::sqrt(one.energy()), expected["frobenius"].get<double>(), allowed);
    seen.equal(name + " rank90", one.rank_for_energy(0.9), expected["rank90"].get<index_t>());
    seen.equal(name + " rank99", one.rank_for_energy(0.99), expected["rank99"].get<index_t>());
  }
}

allocation allocate(json const& row, std::vector<spectrum> const& spectra) {
  auto const rule = row["rule"].get<std::string>();
  rank_budget const budget{.removal = row["err_requested"].get<double>()};
  if (rule == "uniform") return ranks::uniform{}.allocate(spectra, budget);
  return ranks::welore{.gate = rule == "welore_g0" ? 0.0 : 0.4999}.allocate(spectra, budget);
}

void compare_row(comparison& seen, json const& row, std::vector<spectrum> const& spectra) {
  auto const found = allocate(row, spectra);
  auto const label = row["rule"].get<std::string>() + " " + std::to_string(row["err_requested"].get<double>()) + " ";
  seen.equal(label + "ranks", sha256_of_words(found.ranks), row["ranks_sha256"].get<std::string>());
  seen.close(label + "reached", found.reached, row["err_reached"].get<double>(), 1e-12);
  if (!row["threshold"].is_null())
    seen.close(label + "threshold", found.threshold, row["threshold"].get<double>(), 1e-9);
  seen.equal(label + "parameters", found.parameters, row["linear_params_kept"].get<index_t>());
  index_t factored = 0;
  std::array<index_t, linear_kinds.size()> components{}, cut{}, below{};
  for (std::size_t i = 0; i < spectra.size(); ++i) {
    auto const kind = i % linear_kinds.size();
    extents const shape = spectra[i].shape;
    bool const smaller = found.ranks[i] < break_even_rank(shape, factor_storage::factors);
    components[kind] += is_low_rank_component(shape, found.ranks[i]) ? 1 : 0;
    cut[kind] += found.ranks[i] < spectra[i].length() ? 1 : 0;
    below[kind] += smaller ? 1 : 0;
    factored += smaller ? 1 : 0;
  }
  seen.equal(label + "factored", factored, row["factored"].get<index_t>());
  for (std::size_t kind = 0; kind < linear_kinds.size(); ++kind) {
    std::string const name = linear_kinds[kind];
    seen.equal(label + "LRC " + name, components[kind], row["lrc_per_kind"][name].get<index_t>());
    seen.equal(label + "cut " + name, cut[kind], row["cut_per_kind"][name].get<index_t>());
    seen.equal(label + "below " + name, below[kind], row["below_breakeven_per_kind"][name].get<index_t>());
  }
}

/// Rows whose ranks do not depend on activations.
void compare_parameter_budgets(comparison& seen, json const& recorded, std::vector<spectrum> const& spectra) {
  ranks::sensitivity<> by_kind;
  by_kind.table.levels = recorded["kind_sensitivity"]["removal_levels"].get<std::vector<double>>();
  for (auto const* kind : linear_kinds)
    by_kind.table.increase.push_back(recorded["kind_sensitivity"]["delta_nll"][kind].get<std::vector<double>>());
  for (std::size_t i = 0; i < spectra.size(); ++i)
    by_kind.groups.push_back(static_cast<index_t>(i % linear_kinds.size()));
  for (auto const& row : recorded["rows"]) {
    auto const method = row["method"].get<std::string>();
    if ((method != "b" && method != "e_kind") || !row.contains("ranks_sha256")) continue;
    rank_budget const budget{.removal = row["removal"].get<double>(), .unit = budget_unit::parameters};
    auto const found = method == "b" ? ranks::uniform{}.allocate(spectra, budget) : by_kind.allocate(spectra, budget);
    auto const label = method + " " + std::to_string(budget.removal) + " ";
    seen.equal(label + "ranks", sha256_of_words(found.ranks), row["ranks_sha256"].get<std::string>());
    seen.close(label + "kept", 1 - found.reached, row["linear_params_kept_fraction"].get<double>(), 1e-12);
  }
}

int run(std::string const& model, std::string const& reference, int threads) {
  std::ifstream file{reference};
  auto const recorded = json::parse(file);
  engine exec{{.threads = threads}};
  linear_matrices matrices{model};
  auto const spectra = model_spectra(exec, matrices.sources());
  comparison seen;
  compare_spectra(seen, recorded["spectra"], matrices, spectra);
  for (auto const& row : recorded["welore"]["rows"]) compare_row(seen, row, spectra);
  compare_parameter_budgets(seen, recorded["activation_aware"], spectra);
  return seen.report();
}

}  // namespace
}  // namespace lowrank::bench

int main(int argc, char** argv) {
  std::string model, reference;
  int threads = 2;
  CLI::App app{"Ranks of a real model against recorded ones."};
  app.add_option("--model", model)->required();
  app.add_option("--reference", reference)->required();
  app.add_option("--threads", threads);
  CLI11_PARSE(app, argc, argv);
  try {
    return lowrank::bench::run(model, reference, threads);
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
