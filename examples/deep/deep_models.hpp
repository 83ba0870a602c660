/// @file
/// A matrix completed by a deep factorization, full width and compressed, with what it took.
#pragma once

#include <chrono>
#include <cstdio>

#include "deep/ratings.hpp"
#include "llama/demo_plots.hpp"
#include "lowrank/deep/compression.hpp"
#include "lowrank/deep/recovered_rank.hpp"
#include "lowrank/deep/training.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"

namespace completion {

using lowrank::host_executor;
namespace deep = lowrank::deep;
using model = deep::deep_matrix<float>;
using known = deep::observations<float>;

[[nodiscard]] inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// How a deep model is trained: by gradient descent with momentum, which both widths follow alike.
struct recipe {
  deep::deep_settings deep{.depth = 3, .scale = 1};
  deep::compression_settings compression{.rank = 80, .outer_rate = 0.01F};
  double rate{2e-4}, decay{1}, momentum{0.9};
  int steps{100};
  int patience{0};  ///< looks without improvement after which training ends; 0: all steps are taken
};

/// What a look at a model in training sees: what its curve shows, and by what it is judged, less being better.
struct seen {
  double shown{}, judged{};
};

struct trained {
  std::string name;
  model w;
  double seconds{};  ///< beginning and steps, up to the best look
  int steps{};       ///< up to the best look
  seen best{};
  lowrank::index_t parameters{}, bytes{};  ///< bytes: weights, gradients, moments, scratch
  llama::curve curve{};
  std::vector<double> singular_values{};
};

/// `look(w)` is called after every step that is due; its time is not counted.
template <class Look>
trained train(host_executor& exec, std::string name, model w, double seconds, known const& target, recipe const& how,
              Look const& look) {
  using by_momentum = deep::trainer<float, lowrank::rule::sgd>;
  lowrank::rule::sgd rule;
  rule.momentum = how.momentum;
  trained out{.name = std::move(name), .w = std::move(w), .seconds = seconds};
  out.curve.title = out.name;
  out.parameters = out.w.parameter_count();
  out.bytes = out.w.bytes() + by_momentum::bytes(out.w, rule) + by_momentum::workspace_bytes(out.w, target, rule);
  exec.reserve(by_momentum::workspace_bytes(out.w, target, rule));
  double from = now(), passed = seconds;
  by_momentum by{exec, out.w, rule};
  int const every = std::max(1, how.steps / 50);
  for (int step = 1; step <= how.steps; ++step) {
    double const loss = by.step(exec, out.w, target, how.rate, how.decay);
    lowrank::require<lowrank::state_error>(lowrank::is_finite(loss), "train", out.name, " diverged in step ", step);
    if (step % every != 0 && step != how.steps) continue;
    passed += now() - from;
    seen const here = look(out.w);
    out.curve.points.emplace_back(step, here.shown);
    if (how.patience == 0 || out.steps == 0 || here.judged < out.best.judged)
      out.best = here, out.steps = step, out.seconds = passed;
    if (how.patience > 0 && step - out.steps >= how.patience * every) break;
    from = now();
  }
  return out;
}

/// Full width first, then compressed from the very same beginning, then compressed without it.
template <class Look>
std::vector<trained> train_all(host_executor& exec, known const& target, recipe const& how, std::uint64_t seed,
                               Look const& look) {
  auto const shape = target.shape();
  auto const index = std::min(shape.rows, shape.cols);
  std::vector<trained> out;
  double from = now();
  exec.reserve(deep::full_width_bytes<float>(shape));
  auto full = deep::full_width<float>(exec, shape, how.deep, {.seed = seed});
  double const full_seconds = now() - from;
  exec.reserve(deep::compression_bytes<float>(shape, how.deep.depth, how.compression) +
               deep::gradients_bytes(full, target));
  from = now();
  auto narrow = deep::compress(exec, full, target, how.compression, {.seed = seed + 1});
  double const compress_seconds = now() - from;
  from = now();
  deep::residual_operator<float, known> const beginning{exec, target};
  auto streamed = deep::compressed_start(exec, beginning, how.deep, how.compression, {.seed = seed + 1});
  double const start_seconds = now() - from;
  out.push_back(train(exec, "compressed, streamed", std::move(streamed), start_seconds, target, how, look));
  out.push_back(train(exec, "compressed", std::move(narrow), compress_seconds, target, how, look));
  out.push_back(train(exec, "full width", std::move(full), full_seconds, target, how, look));
  for (auto& one : out) {
    auto const most = std::min<lowrank::index_t>(20, index);
    exec.reserve(deep::recovered_bytes(one.w, most));
    one.singular_values = deep::recovered(exec, one.w, most).values;
  }
  return out;
}

/// Single elements of a model's product, from its two factors.
class looked_at {
 public:
  looked_at(host_executor& exec, model const& w) {
    exec.reserve(deep::recovered_bytes(w, 1));
    lowrank::scratch_scope const scope{exec};
    auto const view = deep::detail::cut_in_two(exec, w).view;
    a_ = lowrank::matrix<float>{view.a.shape()};
    b_ = lowrank::matrix<float>{view.b.shape()};
    copy(exec, view.a, a_.view());
    copy(exec, view.b, b_.view());
  }
  [[nodiscard]] double operator()(lowrank::index_t i, lowrank::index_t j) const {
    auto const k = a_.shape().cols;
    return static_cast<double>(deep::detail::dot(a_.data() + i * k, b_.data() + j * k, k));
  }

 private:
  lowrank::matrix<float> a_, b_;
};

}  // namespace completion
