#include "lowrank/deep/training.hpp"

#include <doctest/doctest.h>

#include "lowrank/rule/adam.hpp"
#include "problems.hpp"
#include "support/allocation_counter.hpp"

namespace training_test {

namespace {

using namespace lowrank_test;
using lowrank::host_executor;
namespace rule = lowrank::rule;

TEST_CASE_TEMPLATE("orthonormal columns, whatever they were", T, float, double) {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  double const eps = std::same_as<T, float> ? 1e-5 : 1e-13;
  for (extents const shape : {extents{90, 90}, extents{70, 5}, extents{40, 39}}) {
    matrix<T> y{shape};
    deep::fill_orthogonal(exec, {.seed = 1}, T{1}, y.view());
    CHECK(departure_from_orthonormal(y.view()) < eps);
    for (index_t i = 0; i < shape.rows; ++i) {
      y(i, 2) = T{3} * y(i, 0) - T{5} * y(i, 1);  // dependent
      y(i, 3) = T{};
      y(i, 4) *= static_cast<T>(1e-20);
    }
    matrix<T> const before{shape};
    deep::orthonormal_columns(exec, {.seed = 2}, y.view());
    CHECK(departure_from_orthonormal(y.view()) < eps);
  }
  matrix<T> wide{5, 9};
  deep::fill_orthogonal(exec, {.seed = 1}, T{0.5}, wide.view());
  for (index_t e = 0; e < 45; ++e) wide.data()[e] *= T{2};
  CHECK(departure_from_orthonormal(wide.view().t()) < eps);
}

/// Two steps of Adam by hand, on the gradients that the trainer shows.
TEST_CASE("in fp64 a rule computes in fp64") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  auto const phi = low_rank_target({8, 9}, 2, 3);
  deep::dense_target<double> const target{phi.view()};
  auto w = deep::full_width<double>(exec, {8, 9}, {.depth = 2, .scale = 0.5}, {.seed = 1});
  w.factor(1).rate = 0.25F;
  std::vector<matrix<double>> gradient;
  std::vector<matrix_view<double>> views;
  for (std::size_t l = 0; l < 2; ++l) gradient.push_back(matrix<double>{w.at(l).values.shape()});
  for (auto& g : gradient) views.push_back(g.view());
  deep::trainer<double, rule::adam> by{exec, w};
  double const b1 = static_cast<double>(0.9F), c1 = static_cast<double>(static_cast<float>(1 - 0.9));
  double const b2 = static_cast<double>(0.999F), c2 = static_cast<double>(static_cast<float>(1 - 0.999));
  double m = 0, v = 0;
  for (int t = 1; t <= 3; ++t) {
    std::ignore = deep::gradients(exec, w, target, std::span<matrix_view<double> const>(views));
    double const before = w.factor(1).values(2, 3), g = gradient[1](2, 3);
    std::ignore = by.step(exec, w, target, 1e-3);
    m = b1 * m + c1 * g;
    v = b2 * v + c2 * g * g;
    double const expected =
        0.25 * 1e-3 * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.999, t))) + 1e-8);
    CHECK(before - w.factor(1).values(2, 3) == doctest::Approx(expected).epsilon(1e-6));
  }
}

TEST_CASE_TEMPLATE("gradient descent, momentum and Adam all complete a matrix", T, float, double) {
  host_executor exec{{.threads = 1, .scratch_bytes = 4 << 20}};
  auto const phi = low_rank_target({30, 40}, 2, 10);
  deep::observations<T> const target{{30, 40}, observed<T>(phi, 0.6)};
  auto const error_by = [&](auto rule, double rate, int steps) {
    auto w = deep::full_width<T>(exec, {30, 40}, {.depth = 3, .scale = 0.05}, {.seed = 2});
    train<T>(exec, w, target, rate, steps, 0, rule);
    return relative_error(product_of(w), phi);
  };
  CHECK(error_by(rule::plain_sgd{}, 0.02, 1200) < 1e-2);
  CHECK(error_by(rule::sgd{{.momentum = 0.9}}, 0.002, 1200) < 1e-2);
  CHECK(error_by(rule::adam{}, 0.003, 1200) < 0.1);
}

TEST_CASE("decay and frozen layers") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  matrix<double> const phi{6, 6};
  deep::dense_target<double> const target{phi.view()};
  auto w = deep::full_width<double>(exec, {6, 6}, {.depth = 2, .scale = 0.5}, {.seed = 1});
  w.factor(0).rate = 0;
  auto const frozen = w.factor(0).values(1, 1), moving = w.factor(1).values(1, 1);
  deep::trainer<double> by{exec, w};
  CHECK(by.gradient()[0].empty());
  CHECK(deep::trainer<double>::bytes(w) < 8 * (36 + 8));
  // At W = X_2 X_1 and Φ = 0 the gradient is X_2 X_1 X_1ᵀ = X_2 / 4.
  std::ignore = by.step(exec, w, target, 0.1, 0.5);
  CHECK(w.factor(0).values(1, 1) == frozen);
  CHECK(w.factor(1).values(1, 1) == doctest::Approx(moving * (1 - 0.1 * (0.25 + 0.5))));
  CHECK_THROWS_AS(std::ignore = by.step(exec, w, target, -1), lowrank::argument_error);
  CHECK_THROWS_AS(std::ignore = by.step(exec, w, target, 0.1, -1), lowrank::argument_error);
}

TEST_CASE_TEMPLATE("a step allocates nothing and takes the scratch it said, at every depth", T, float, double) {
  for (index_t const depth : {2, 3, 5})
    for (extents const shape : {extents{20, 31}, extents{31, 20}, extents{17, 17}}) {
      CAPTURE(depth);
      CAPTURE(shape);
      host_executor exec{{.threads = 2}};
      auto const phi = low_rank_target(shape, 2, 5);
      auto const whole = cast<T>(phi);
      deep::observations<T> const some{shape, observed<T>(phi, 0.4)};
      deep::dense_target<T> const all{whole.view()};
      exec.reserve(deep::full_width_bytes<T>(shape));
      auto w = deep::full_width<T>(exec, shape, {.depth = depth, .scale = 0.1}, {.seed = 1});
      w.add_offsets(some.mean());
      deep::trainer<T, rule::adam> by{exec, w};
      auto const step_on = [&](auto const& target) {
        index_t const promised = deep::trainer<T, rule::adam>::workspace_bytes(w, target);
        exec.reserve(promised);
        exec.arena().reset_peak();
        allocation_counter const during;
        std::ignore = by.step(exec, w, target, 1e-3);
        CHECK(during.count() == 0);
        CHECK(exec.arena().peak() == promised);
      };
      step_on(some);
      step_on(all);
    }
}

TEST_CASE("offsets are learnt with the rest") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  matrix<double> phi = low_rank_target({20, 25}, 1, 6);
  for (index_t i = 0; i < 20; ++i)
    for (index_t j = 0; j < 25; ++j) phi(i, j) += 2 + 0.1 * static_cast<double>(i) - 0.05 * static_cast<double>(j);
  deep::observations<double> const target{{20, 25}, observed<double>(phi, 0.6)};
  auto w = deep::full_width<double>(exec, {20, 25}, {.depth = 2, .scale = 0.1}, {.seed = 1});
  w.add_offsets(target.mean());
  train(exec, w, target, 0.02, 3000);
  CHECK(relative_error(product_of(w), phi) < 1e-2);
}

}  // namespace

}  // namespace training_test
