// Deep matrix factorization and completion, full width beside compressed, in one process: errors, how far the trajectories part,
// and the time of a step. The target is the best rank-r approximation of a Gaussian d x d matrix, as in the paper.
//
//   trajectories [--d 200] [--rank 5] [--depth 3] [--share 1] [--scale 1e-3] [--rate R] [--steps N] [--outer-rate G]
//
// Prints one JSON object. Turns are taken leg by leg, so that a busy machine slows all of them.
#include <chrono>
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "lowrank/deep/compression.hpp"
#include "lowrank/deep/frozen_frame.hpp"
#include "lowrank/deep/recovered_rank.hpp"
#include "lowrank/deep/training.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"

namespace {

using namespace lowrank;
using model = deep::deep_matrix<double>;

struct settings {
  index_t d{200}, rank{5}, depth{3};
  double share{1}, scale{1e-3}, rate{0.004}, outer_rate{0.01};
  int steps{12000}, legs{12}, threads{1};
};

[[nodiscard]] double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The rank-r part of a Gaussian matrix.
matrix<double> target_of(host_executor& exec, settings const& s) {
  extents const shape{s.d, s.d};
  matrix<double> gaussian{shape}, u{s.d, s.rank}, v{s.d, s.rank}, out{shape};
  std::vector<double> values(static_cast<std::size_t>(s.rank));
  fill_gaussian(exec, {.seed = 5, .purpose = rng_purpose::data}, gaussian.view());
  matrix_view<double const> const g = gaussian.view();
  deep::leading_directions<double>(
      exec, shape, [&](auto x, auto y) { multiply(exec, 1.0, g, x, 0.0, y); },
      [&](auto y, auto x) { multiply(exec, 1.0, g.t(), y, 0.0, x); }, u.view(), v.view(), values.data(), {.seed = 1},
      {.power_steps = 30});
  for (index_t i = 0; i < s.d; ++i)
    for (index_t k = 0; k < s.rank; ++k) u(i, k) *= values[static_cast<std::size_t>(k)];
  multiply(exec, 1.0, matrix_view<double const>(u.view()), matrix_view<double const>(v.view()).t(), 0.0, out.view());
  return out;
}

/// One trained model, and what became of it.
struct runner {
  std::string name;
  model w;
  deep::trainer<double> by;
  double seconds{}, loss{};

  runner(host_executor& exec, std::string named, model made)
      : name{std::move(named)}, w{std::move(made)}, by{exec, w} {}
};

template <class Target>
nlohmann::json run(host_executor& exec, settings const& s, deep::dense_target<double> const& phi,
                   Target const& target) {
  double squares = 0;
  for (index_t i = 0; i < s.d; ++i)
    for (index_t j = 0; j < s.d; ++j) squares += phi.values(i, j) * phi.values(i, j);
  double const norm = std::sqrt(squares);
  deep::deep_settings const how{.depth = s.depth, .scale = s.scale};
  bool const complete = s.share >= 1;
  auto const gamma = complete ? 0.0F : static_cast<float>(s.outer_rate);
  exec.reserve(index_t{s.d} * s.d * 8 * 16);
  auto full = deep::full_width<double>(exec, {s.d, s.d}, how, {.seed = 3});
  double const began = now();
  auto narrow = deep::compress(exec, full, target, {.rank = s.rank, .outer_rate = gamma}, {.seed = 4});
  double const compression_seconds = now() - began;
  deep::residual_operator<double, Target> const beginning{exec, target};
  std::vector<runner> runs;
  runs.reserve(5);
  runs.emplace_back(exec, "compressed", std::move(narrow));
  runs.emplace_back(exec, "streamed",
                    deep::compressed_start(exec, beginning, how, {.rank = s.rank, .outer_rate = gamma}, {.seed = 4}));
  runs.emplace_back(exec, "twice_the_rank",
                    deep::compress(exec, full, target, {.rank = 2 * s.rank, .outer_rate = gamma}, {.seed = 4}));
  if (!complete)
    runs.emplace_back(exec, "frozen_outer",
                      deep::compress(exec, full, target, {.rank = s.rank, .outer_rate = 0}, {.seed = 4}));
  runs.emplace_back(exec, "full", std::move(full));

  double apart = 0;
  nlohmann::json curves = nlohmann::json::array();
  matrix<double> product{s.d, s.d};
  for (int leg = 0; leg < s.legs; ++leg) {
    nlohmann::json point{{"step", (leg + 1) * (s.steps / s.legs)}};
    for (auto& one : runs) {
      double const from = now();
      for (int t = 0; t < s.steps / s.legs; ++t) one.loss = one.by.step(exec, one.w, target, s.rate);
      one.seconds += now() - from;
      point[one.name] = std::sqrt(2 * deep::loss(exec, one.w, phi)) / norm;
    }
    {
      scratch_scope const scope{exec};
      auto const parts = deep::detail::cut_in_two(exec, runs.front().w);
      multiply(exec, 1.0, parts.view.a, parts.view.b.t(), 0.0, product.view());
    }
    double const difference =
        std::sqrt(2 * deep::loss(exec, runs.back().w, deep::dense_target<double>{product.view()})) / norm;
    point["apart"] = difference;
    apart = std::max(apart, difference);
    curves.push_back(point);
    std::cerr << point.dump() << '\n';
  }
  double const floor =
      std::pow(s.scale, static_cast<double>(s.depth)) * std::sqrt(static_cast<double>(s.d - 2 * s.rank)) / norm;
  int const steps = s.steps / s.legs * s.legs;
  nlohmann::json out{{"d", s.d},
                     {"rank", s.rank},
                     {"depth", s.depth},
                     {"share", s.share},
                     {"scale", s.scale},
                     {"rate", s.rate},
                     {"outer_rate", gamma},
                     {"steps", steps},
                     {"threads", exec.threads()},
                     {"floor", floor},
                     {"apart", apart},
                     {"apart_over_floor", apart / floor},
                     {"compression_seconds", compression_seconds},
                     {"curves", curves}};
  for (auto const& one : runs)
    out[one.name] = {{"error", curves.back()[one.name]},
                     {"seconds", one.seconds},
                     {"step_ms", 1e3 * one.seconds / steps},
                     {"parameters", one.w.parameter_count()},
                     {"recovered_rank", deep::recovered(exec, one.w, std::min<index_t>(2 * s.rank, s.d)).rank()}};
  double const full_error = out["full"]["error"], narrow_error = out["compressed"]["error"];
  out["full_error_over_floor"] = full_error / floor;
  out["error_ratio"] = narrow_error / full_error;
  out["time_ratio"] = runs.back().seconds / (runs.front().seconds + compression_seconds);
  out["parameter_ratio"] =
      static_cast<double>(runs.back().w.parameter_count()) / static_cast<double>(runs.front().w.parameter_count());
  if (complete) {
    auto start = deep::compressed_start(exec, beginning, how, {.rank = s.rank, .outer_rate = 0}, {.seed = 4});
    double const from = now();
    auto frame = deep::freeze_outer(exec, start, phi);
    deep::trainer<double> by{exec, frame.inner};
    auto const known = frame.known();
    for (int t = 0; t < steps; ++t) std::ignore = by.step(exec, frame.inner, known, s.rate);
    double const seconds = now() - from;
    out["frozen_frame"] = {{"error", std::sqrt(2 * (deep::loss(exec, frame.inner, known) + frame.outside)) / norm},
                           {"seconds", seconds},
                           {"time_ratio", runs.back().seconds / seconds}};
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Deep factorization and completion, full width beside compressed."};
  app.add_option("--d", s.d)->check(CLI::PositiveNumber);
  app.add_option("--rank", s.rank)->check(CLI::PositiveNumber);
  app.add_option("--depth", s.depth);
  app.add_option("--share", s.share, "of the elements observed; 1 is factorization")->check(CLI::Range(0.001, 1.0));
  app.add_option("--scale", s.scale);
  app.add_option("--rate", s.rate);
  app.add_option("--outer-rate", s.outer_rate);
  app.add_option("--steps", s.steps)->check(CLI::PositiveNumber);
  app.add_option("--legs", s.legs)->check(CLI::PositiveNumber);
  app.add_option("--threads", s.threads)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    host_executor exec{{.threads = s.threads, .scratch_bytes = index_t{s.d} * s.d * 8 * 4 + (1 << 24)}};
    auto const phi = target_of(exec, s);
    deep::dense_target<double> const known{phi.view()};
    if (s.share >= 1) {
      std::cout << run(exec, s, known, known) << '\n';
      return 0;
    }
    std::vector<deep::observation<double>> list;
    for (index_t i = 0; i < s.d; ++i)
      for (index_t j = 0; j < s.d; ++j)
        if (uniform({.seed = 9, .purpose = rng_purpose::data}, static_cast<std::uint64_t>(i * s.d + j)) <= s.share)
          list.push_back({i, j, phi(i, j)});
    std::cout << run(exec, s, known, deep::observations<double>{{s.d, s.d}, list}) << '\n';
    return 0;
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
