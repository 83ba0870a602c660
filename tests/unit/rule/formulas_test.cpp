// Rules against fp64 loops written from the papers' formulas, alone and inside a subspace.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>

#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace formulas_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("rule formulas");

using numbers = std::vector<double>;

/// What a rule does in one step: from a gradient (rows x cols, row after row) to what is subtracted from the weight.
/// `keep` is what decay leaves of the weight.
struct step_inputs {
  extents shape;
  double learning_rate, weight_rms;
};
using reference = std::function<numbers(numbers const& g, step_inputs const& in, double& effective_rate)>;

struct adam_numbers {
  double beta1{0.9}, beta2{0.999}, epsilon{1e-8};
  bool corrected{true}, raw_root{false};
};
reference adam_reference(adam_numbers const a) {
  return [a, m = numbers{}, v = numbers{}, t = 0](numbers const& g, step_inputs const& in, double& rate) mutable {
    m.resize(g.size());
    v.resize(g.size());
    ++t;
    rate = in.learning_rate;
    double const c1 = a.corrected ? 1 - std::pow(a.beta1, t) : 1, c2 = a.corrected ? 1 - std::pow(a.beta2, t) : 1;
    numbers out(g.size());
    for (std::size_t e = 0; e < g.size(); ++e) {
      m[e] = a.beta1 * m[e] + (1 - a.beta1) * g[e];
      v[e] = a.beta2 * v[e] + (1 - a.beta2) * g[e] * g[e];
      out[e] = a.raw_root ? in.learning_rate * std::sqrt(c2) / c1 * m[e] / (std::sqrt(v[e]) + a.epsilon)
                          : in.learning_rate * (m[e] / c1) / (std::sqrt(v[e] / c2) + a.epsilon);
    }
    return out;
  };
}
reference sgd_reference(double momentum, double dampening, bool nesterov) {
  return [=, b = numbers{}](numbers const& g, step_inputs const& in, double& rate) mutable {
    rate = in.learning_rate;
    bool const first = b.empty();
    numbers out(g.size());
    if (first) b = g;
    for (std::size_t e = 0; e < g.size(); ++e) {
      if (!first) b[e] = momentum * b[e] + (1 - dampening) * g[e];
      out[e] = in.learning_rate * (momentum == 0 ? g[e] : nesterov ? g[e] + momentum * b[e] : b[e]);
    }
    return out;
  };
}
reference lion_reference(double beta1, double beta2) {
  return [=, m = numbers{}](numbers const& g, step_inputs const& in, double& rate) mutable {
    m.resize(g.size());
    rate = in.learning_rate;
    numbers out(g.size());
    for (std::size_t e = 0; e < g.size(); ++e) {
      double const c = beta1 * m[e] + (1 - beta1) * g[e];
      out[e] = in.learning_rate * (c > 0 ? 1 : c < 0 ? -1 : 0);
      m[e] = beta2 * m[e] + (1 - beta2) * g[e];
    }
    return out;
  };
}
struct adafactor_numbers {
  double epsilon1{1e-30}, epsilon2{1e-3}, clip{1}, decay_rate{-0.8};
  std::optional<double> beta1{};
  bool scales{false};
};
reference adafactor_reference(adafactor_numbers const a) {
  return [a, row = numbers{}, col = numbers{}, m = numbers{}, t = 0](numbers const& g, step_inputs const& in,
                                                                     double& rate) mutable {
    auto const rows = static_cast<std::size_t>(in.shape.rows), cols = static_cast<std::size_t>(in.shape.cols);
    row.resize(rows);
    col.resize(cols);
    m.resize(g.size());
    ++t;
    rate = in.learning_rate * (a.scales ? std::max(a.epsilon2, in.weight_rms) : 1);
    double const b = 1 - std::pow(t, a.decay_rate);
    for (std::size_t i = 0; i < rows; ++i) {
      double mean = 0;
      for (std::size_t j = 0; j < cols; ++j)
        mean += (g[i * cols + j] * g[i * cols + j] + a.epsilon1) / static_cast<double>(cols);
      row[i] = b * row[i] + (1 - b) * mean;
    }
    double row_mean = 0;
    for (double const x : row) row_mean += x / static_cast<double>(rows);
    for (std::size_t j = 0; j < cols; ++j) {
      double mean = 0;
      for (std::size_t i = 0; i < rows; ++i)
        mean += (g[i * cols + j] * g[i * cols + j] + a.epsilon1) / static_cast<double>(rows);
      col[j] = b * col[j] + (1 - b) * mean;
    }
    numbers out(g.size());
    double squares = 0;
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < cols; ++j) {
        double& x = out[i * cols + j];
        x = g[i * cols + j] / std::sqrt(row[i] / row_mean * col[j]);
        squares += x * x;
      }
    double const clip = std::max(1.0, std::sqrt(squares / static_cast<double>(g.size())) / a.clip);
    for (std::size_t e = 0; e < out.size(); ++e) {
      out[e] = out[e] / clip * rate;
      if (a.beta1) out[e] = m[e] = *a.beta1 * m[e] + (1 - *a.beta1) * out[e];
    }
    return out;
  };
}

enum class decays { before, after, coupled };

struct rule_case {
  std::string name, options;
  std::function<reference()> formula;
  decays decay{decays::before};
};

std::vector<rule_case> every_rule() {
  std::vector<rule_case> all;
  auto const add = [&](std::string name, std::string options, auto make, decays decay) {
    all.push_back({std::move(name), std::move(options), make, decay});
  };
  std::string const adam_options = "betas=(0.85, 0.97), eps=1e-3";
  for (bool const raw : {false, true})
    for (bool const corrected : {true, false})
      for (bool const after : {false, true})
        add(
            "adamw",
            adam_options + ", epsilon=" + (raw ? "raw_root" : "corrected_root") +
                ", correct_bias=" + (corrected ? "true" : "false") + ", decay=" + (after ? "after" : "before"),
            [=] {
              return adam_reference({0.85, 0.97, 1e-3, corrected, raw});
            },
            after ? decays::after : decays::before);
  add(
      "sgd", "decay=before", [] { return sgd_reference(0, 0, false); }, decays::before);
  add(
      "sgd", "dampening=0.4, decay=before", [] { return sgd_reference(0, 0.4, false); }, decays::before);
  add(
      "sgd", "momentum=0.9, decay=before", [] { return sgd_reference(0.9, 0, false); }, decays::before);
  add(
      "sgd", "momentum=0.9, dampening=0.4, decay=after", [] { return sgd_reference(0.9, 0.4, false); }, decays::after);
  add(
      "sgd", "momentum=0.8, nesterov=true, decay=before", [] { return sgd_reference(0.8, 0, true); }, decays::before);
  add(
      "lion", "betas=(0.9, 0.98)", [] { return lion_reference(0.9, 0.98); }, decays::before);
  for (bool const scales : {false, true}) {
    std::string const on = scales ? ", scale_parameter=true" : "";
    add(
        "adafactor", "beta1=None" + on, [=] { return adafactor_reference({.scales = scales}); }, decays::before);
    add(
        "adafactor", "beta1=0.9, clip_threshold=0.5, decay_rate=-0.6" + on,
        [=] { return adafactor_reference({.clip = 0.5, .decay_rate = -0.6, .beta1 = 0.9, .scales = scales}); },
        decays::before);
  }
  return all;
}
std::vector<rule_case> with_coupled_rules() {
  auto all = every_rule();
  all.push_back({"adam", "eps=1e-3", [] { return adam_reference({.epsilon = 1e-3}); }, decays::coupled});
  all.push_back({"sgd", "momentum=0.9, dampening=0.2", [] { return sgd_reference(0.9, 0.2, false); }, decays::coupled});
  all.push_back({"sgd", "momentum=0.9, nesterov=true", [] { return sgd_reference(0.9, 0, true); }, decays::coupled});
  return all;
}

double rms(numbers const& x) {
  double sum = 0;
  for (double const e : x) sum += e * e;
  return std::sqrt(sum / static_cast<double>(x.size()));
}
numbers numbers_of(matrix<float> const& a) { return numbers(a.data(), a.data() + a.shape().size()); }
double largest_difference(matrix<float> const& a, numbers const& b) {
  double worst = 0;
  for (std::size_t e = 0; e < b.size(); ++e) worst = std::max(worst, std::abs(static_cast<double>(a.data()[e]) - b[e]));
  return worst;
}
void decay(numbers& w, decays when, decays now, double keep) {
  if (when == now)
    for (double& x : w) x *= keep;
}

constexpr float scale_of_gradient = 0.6F, decay_of_weight = 0.3F;
float rate_of_step(index_t k) { return k == 3 ? 0.0F : 0.02F / static_cast<float>(k + 1); }

TEST_CASE("on whole parameters") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  for (auto const& rule : with_coupled_rules())
    for (extents const shape : {extents{19, 33}, extents{1, 700}, extents{300, 1}, extents{1, 1}, extents{40, 40}}) {
      CAPTURE(rule.name);
      CAPTURE(rule.options);
      CAPTURE(shape);
      auto optimizer = make_named(exec, rule.name, rule.options, shape);
      auto formula = rule.formula();
      auto w = random_matrix(shape, 5);
      auto const start = copy_of(read(w));
      auto expected = numbers_of(w);
      for (index_t k = 0; k < 8; ++k) {
        auto const gradient = gradient_of_step(shape, k);
        auto g = numbers_of(gradient);
        for (std::size_t e = 0; e < g.size(); ++e) {
          g[e] *= static_cast<double>(scale_of_gradient);
          if (rule.decay == decays::coupled) g[e] += static_cast<double>(decay_of_weight) * expected[e];
        }
        double rate = 0;
        auto const down = formula(g, {shape, static_cast<double>(rate_of_step(k)), rms(expected)}, rate);
        double const keep = 1 - rate * static_cast<double>(decay_of_weight);
        decay(expected, rule.decay, decays::before, keep);
        for (std::size_t e = 0; e < expected.size(); ++e) expected[e] -= down[e];
        decay(expected, rule.decay, decays::after, keep);
        optimizer->step(
            exec, fp32_weight<>{w.view()}, read(gradient),
            {.learning_rate = rate_of_step(k), .weight_decay = decay_of_weight, .grad_scale = scale_of_gradient});
      }
      double const moved = lowrank_test::largest_difference(read(w), read(start));
      CHECK(moved > 1e-3);
      CHECK(largest_difference(w, expected) < 3e-5 * moved);
    }
}

TEST_CASE("inside a subspace, on every side, with the scale on the way back and decay on the whole weight") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  constexpr index_t r = 6;
  constexpr double alpha = 0.25;
  for (auto const& rule : every_rule())
    for (std::string const side : {"left", "right", "full"}) {
      CAPTURE(rule.name);
      CAPTURE(rule.options);
      CAPTURE(side);
      extents const shape{20, 28};
      matrix<float> u{shape.rows, r}, v{shape.cols, r};
      auto const columns_u = orthonormal_columns(shape.rows, r, 7), columns_v = orthonormal_columns(shape.cols, r, 8);
      for (index_t c = 0; c < r; ++c) {
        for (index_t i = 0; i < shape.rows; ++i) u(i, c) = static_cast<float>(columns_u(c, i));
        for (index_t j = 0; j < shape.cols; ++j) v(j, c) = static_cast<float>(columns_v(c, j));
      }
      basis::given const bases{
          {}, [&](index_t, lowrank::side facing_side) { return facing_side == side::left ? read(u) : read(v); }};
      auto optimizer =
          make_named(exec, "galore_" + rule.name,
                     rule.options + ", rank=6, scale=0.25, finder=given, proj_type=" + side, shape, 1, {{}, bases});
      auto formula = rule.formula();
      auto w = random_matrix(shape, 5);
      auto const start = copy_of(read(w));
      auto expected = numbers_of(w);
      for (index_t k = 0; k < 8; ++k) {
        auto const gradient = gradient_of_step(shape, k);
        // R as the weight lies: UᵀG, GV or UᵀGV.
        auto projected =
            side == "right" ? plain_product(read(gradient), read(v)) : plain_product(read(u).t(), read(gradient));
        if (side == "full") projected = plain_product(projected.view(), read(v));
        numbers g(projected.data(), projected.data() + projected.shape().size());
        for (double& x : g) x *= static_cast<double>(scale_of_gradient);
        double rate = 0;
        auto const n = formula(g, {projected.shape(), static_cast<double>(rate_of_step(k)), rms(expected)}, rate);
        matrix<double> direction{projected.shape()};
        std::copy(n.begin(), n.end(), direction.data());
        auto lifted =
            side == "right" ? plain_product(direction.view(), read(v).t()) : plain_product(read(u), direction.view());
        if (side == "full") lifted = plain_product(lifted.view(), read(v).t());
        double const keep = 1 - rate * static_cast<double>(decay_of_weight);
        decay(expected, rule.decay, decays::before, keep);
        for (std::size_t e = 0; e < expected.size(); ++e) expected[e] -= alpha * lifted.data()[e];
        decay(expected, rule.decay, decays::after, keep);
        optimizer->step(
            exec, fp32_weight<>{w.view()}, read(gradient),
            {.learning_rate = rate_of_step(k), .weight_decay = decay_of_weight, .grad_scale = scale_of_gradient});
      }
      double const moved = lowrank_test::largest_difference(read(w), read(start));
      CHECK(moved > 1e-3);
      CHECK(largest_difference(w, expected) < 3e-5 * moved);
    }
}

TEST_CASE("SGD starts its momentum from the first gradient, not from a dampened one") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  auto optimizer = make_named(exec, "sgd", "momentum=0.5, dampening=0.75", {1, 1});
  matrix<float> w{1, 1}, g{1, 1};
  g(0, 0) = 1;
  optimizer->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 1});
  CHECK(w(0, 0) == -1.0F);  // B = g
  optimizer->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 1});
  CHECK(w(0, 0) == -1.75F);  // B = 0.5 + 0.25
}

TEST_CASE("Adam's first step is the learning rate, whatever the gradient's size") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  for (float const size : {1e-3F, 1.0F, 1e15F}) {
    auto optimizer = make_named(exec, "adamw", "eps=1e-12", {1, 2});
    matrix<float> w{1, 2}, g{1, 2};
    g(0, 0) = size;
    g(0, 1) = -size;
    optimizer->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 0.01F});
    CHECK(w(0, 0) == doctest::Approx(-0.01).epsilon(1e-5));
    CHECK(w(0, 1) == doctest::Approx(0.01).epsilon(1e-5));
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace formulas_test
