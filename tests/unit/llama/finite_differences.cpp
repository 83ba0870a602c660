#include <doctest/doctest.h>

#include "fixture.hpp"

namespace finite_differences_test {

using namespace llama_test;

namespace {

/// Holds the gradient along random directions within each parameter against a fourth-order central difference of the
/// loss. Directions, because they touch every element of a parameter.
void check_gradients(llama::config const& c, index_t sequences, index_t length, llama::linear_plan const& plan = {}) {
  lowrank::host_executor exec{{.threads = 1}};
  auto model = weights<double>(c, 0.25, plan);
  shuffle_orders(model);
  batch data{c, sequences, length};
  data.targets[1] = llama::no_target;
  llama::activations<double> memory{c, sequences, length, llama::pass::training, plan};
  llama::gradients<double> gradients{model};
  llama::loss_and_gradients(exec, model, data.view(), memory, gradients);
  for (index_t index = 0; index < model.count(); ++index) {
    CAPTURE(model[index].name);
    auto const w = model.weight(index), g = gradients.dense(index);
    double norm = 0;
    for (index_t e = 0; e < g.size(); ++e) norm += g.data[e] * g.data[e];
    if (w.empty()) continue;  // coefficients of a weight whose rows are all pivots
    CHECK(norm > 1e-12);
    for (std::uint32_t direction = 0; direction < 3; ++direction) {
      lowrank::rng_key const key{.seed = 17, .step = direction, .tensor = static_cast<std::uint32_t>(index)};
      auto const along = [&](index_t e) {
        return static_cast<double>(lowrank::gaussian(key, static_cast<std::uint64_t>(e)));
      };
      double slope = 0;
      for (index_t e = 0; e < g.size(); ++e) slope += g.data[e] * along(e);
      auto const loss_at = [&](double step) {
        for (index_t e = 0; e < w.size(); ++e) w.data[e] += step * along(e);
        double const loss = llama::mean_loss(exec, model, data.view(), memory);
        for (index_t e = 0; e < w.size(); ++e) w.data[e] -= step * along(e);
        return loss;
      };
      double const h = 2e-3 / std::sqrt(static_cast<double>(w.size()));  // a step of length 2e-3, whatever the size
      double const numeric = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
      CHECK(std::abs(numeric - slope) <= 1e-7 * std::sqrt(norm));
    }
  }
}

}  // namespace

TEST_SUITE("llama gradients") {
  TEST_CASE("agree with finite differences for every parameter, own head") { check_gradients(tiny(), 3, 9); }
  TEST_CASE("agree with finite differences for every parameter, tied head") {
    check_gradients(tiny(llama::output_head::tied), 2, 7);
  }
  TEST_CASE("agree with finite differences for factors, pivot rows and biases") {
    check_gradients(tiny(), 2, 8, mixed_plan(tiny()));
  }
  TEST_CASE("agree with finite differences on the paths that fill registers") { check_gradients(wide(), 1, 45); }
  TEST_CASE("agree with finite differences with one key head a query head") {
    auto c = tiny();
    c.kv_heads = 4;
    check_gradients(c, 2, 8);
  }
  TEST_CASE("agree with finite differences with interleaved rotary pairs") {
    auto c = tiny();
    c.rotary = llama::rotary_pairs::interleaved;
    check_gradients(c, 1, 9);
  }
}

}  // namespace finite_differences_test
