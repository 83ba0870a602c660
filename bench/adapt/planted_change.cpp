// When a deep chain beats LoRA: a layer whose true change has a known rank is learnt from noisy outputs, by adapters of that
// rank and of larger ones.
//
//   planted_change [--d 64] [--true-rank 2] [--samples 64,128,256] [--noise 0,0.05,0.2] [--ranks 2,8,32] [--seeds 3] [--steps 600]
//
// Prints one JSON object. Errors are ‖ΔW - ΔW*‖ / ‖ΔW*‖, each adapter's at the best of the rates: the least on the way, which is
// where somebody with held-out data would stop, and that after the last step.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/linalg/reductions.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/optim/schedule.hpp"
#include "smollm2/executor.hpp"

namespace {

using namespace lowrank;
using executor_type = smollm2::executor_type;

struct settings {
  index_t d{64}, true_rank{2};
  std::vector<index_t> samples{64, 128, 256}, ranks{2, 8, 32};
  std::vector<double> noises{0, 0.05, 0.2}, rates{1e-3, 3e-3, 1e-2};
  int seeds{3}, steps{600};
};

/// Y = X ΔW*ᵀ + noise, ΔW* = U V / d with normal U, V, X.
struct problem {
  matrix<float> change, x, y;

  problem(executor_type& exec, settings const& s, index_t samples, double noise, std::uint64_t seed)
      : change{s.d, s.d}, x{samples, s.d}, y{samples, s.d} {
    rng_key const key{.seed = seed, .purpose = rng_purpose::data};
    matrix<float> u{s.d, s.true_rank}, v{s.true_rank, s.d};
    fill_gaussian(exec, key.later(0), u.view());
    fill_gaussian(exec, key.later(1), v.view());
    fill_gaussian(exec, key.later(2), x.view());
    fill_gaussian(exec, key.later(3), y.view());
    multiply(exec, 1 / static_cast<float>(s.d), matrix_view<float const>(u.view()), matrix_view<float const>(v.view()),
             0.0F, change.view());
    multiply(exec, 1.0F, matrix_view<float const>(x.view()), matrix_view<float const>(change.view()).t(),
             static_cast<float>(noise), y.view());
  }
};

/// ‖ΔW - ΔW*‖ / ‖ΔW*‖.
template <class Adapter>
[[nodiscard]] double error_of(executor_type& exec, Adapter const& adapter, matrix<float> const& truth) {
  matrix<float> left{truth.shape()};
  copy(exec, truth.view(), left.view());
  double whole = 0, rest = 0;
  squared_norm(exec, truth.view(), &whole);
  adapter.add_to(exec, -1.0F, left.view());
  squared_norm(exec, std::as_const(left).view(), &rest);
  return std::sqrt(rest / whole);
}

struct errors {
  double least{}, last{};
};

/// Full-batch AdamW on the mean squared error of a sample.
template <class Settings>
[[nodiscard]] errors learn(executor_type& exec, Settings const& how, problem const& p, double rate, int steps,
                           std::uint64_t seed) {
  index_t const samples = p.x.shape().rows;
  matrix<float> base{p.change.shape()}, out{p.y.shape()};
  auto adapter = adapt::make_adapter<float>(exec, how, base.view(), {.seed = seed});
  auto tensors = adapter.tensors();
  adamw const rule;
  std::vector<matrix<float>> gradients;
  std::vector<matrix_view<float>> views;
  std::vector<decltype(rule.init(exec, base.shape(), 0))> states;
  index_t scratch = adapter.workspace_bytes(samples);
  for (auto const& t : tensors) {
    gradients.emplace_back(t.values.shape());
    states.push_back(rule.init(exec, t.values.shape(), 0));
    scratch = std::max(scratch, rule.workspace_bytes(fp32_weight<>{t.values}));
  }
  for (auto& g : gradients) views.push_back(g.view());
  exec.reserve(scratch);
  std::vector<float> kept(static_cast<std::size_t>(adapter.kept_size(samples)));
  schedule::warmup_cosine const course{.warmup = steps / 12, .total = steps, .floor = 1};
  errors found{.least = 1, .last = 1};
  for (int step = 0; step < steps; ++step) {
    fill(exec, out.view(), 0.0F);
    adapter.forward(exec, p.x.view(), kept, out.view());
    axpy(exec, -1.0F, p.y.view(), out.view());
    for (index_t e = 0; e < out.shape().size(); ++e) out.data()[e] /= static_cast<float>(samples);
    adapter.backward(exec, p.x.view(), kept, std::as_const(out).view(), views, {});
    for (std::size_t i = 0; i < states.size(); ++i)
      rule.step(exec, states[i], tensors[i].values, matrix_view<float const>(views[i]),
                {.learning_rate = static_cast<float>(rate * course.factor(step)) * tensors[i].rate});
    if (step % 10 != 9 && step + 1 != steps) continue;
    found.last = error_of(exec, adapter, p.change);
    found.least = std::min(found.least, found.last);
  }
  return found;
}

/// Mean over the seeds, at the rate where the least error is smallest.
template <class Settings>
[[nodiscard]] nlohmann::json compare(executor_type& exec, settings const& s, Settings const& how, index_t samples,
                                     double noise) {
  nlohmann::json best;
  for (double const rate : s.rates) {
    double least = 0, last = 0;
    for (int seed = 1; seed <= s.seeds; ++seed) {
      auto const number = static_cast<std::uint64_t>(seed);
      auto const one = learn(exec, how, problem{exec, s, samples, noise, number}, rate, s.steps, number);
      least += one.least / s.seeds;
      last += one.last / s.seeds;
    }
    if (best.is_null() || least < best["least"].get<double>())
      best = {{"least", least}, {"last", last}, {"rate", rate}};
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Adapters of several ranks learn a change of known rank from noisy outputs."};
  app.add_option("--d", s.d)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--true-rank", s.true_rank)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--samples", s.samples)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--noise", s.noises, "of each output; those of the change are about sqrt(true rank / d) in size")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--ranks", s.ranks)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--rates", s.rates)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seeds", s.seeds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", s.steps)->check(CLI::PositiveNumber)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    executor_type exec{{.threads = 1}};
    nlohmann::json out{{"d", s.d}, {"true_rank", s.true_rank}, {"seeds", s.seeds}, {"steps", s.steps}};
    for (double const noise : s.noises)
      for (auto const samples : s.samples) {
        nlohmann::json run{{"noise", noise}, {"samples", samples}};
        for (auto const rank : s.ranks) {
          auto const lora =
              compare(exec, s, adapt::lora{.rank = rank, .alpha = static_cast<float>(rank)}, samples, noise);
          auto const deep = compare(exec, s, adapt::deep_lora{.rank = rank, .init_scale = 1e-2F}, samples, noise);
          run["rank_" + std::to_string(rank)] = {{"lora", lora}, {"deep_lora", deep}};
          std::fprintf(stderr,
                       "noise %-5g samples %4ld rank %3ld   LoRA %.3f (last %.3f)   Deep LoRA %.3f (last %.3f)\n",
                       noise, static_cast<long>(samples), static_cast<long>(rank), lora["least"].get<double>(),
                       lora["last"].get<double>(), deep["least"].get<double>(), deep["last"].get<double>());
        }
        out["runs"].push_back(run);
      }
    std::cout << out << '\n';
    return 0;
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
