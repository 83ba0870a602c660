#include <doctest/doctest.h>

#include <complex>

#include "fixture.hpp"

namespace definition_test {

using namespace llama_test;
using llama::role;

namespace {

using row = std::vector<double>;

row linear(lowrank::matrix_view<double const> w, row const& x) {
  row y(static_cast<std::size_t>(w.rows));
  for (index_t i = 0; i < w.rows; ++i)
    for (index_t j = 0; j < w.cols; ++j) y[static_cast<std::size_t>(i)] += w(i, j) * x[static_cast<std::size_t>(j)];
  return y;
}

row normed(row const& x, lowrank::matrix_view<double const> gain, double epsilon) {
  double mean = epsilon;
  for (double const v : x) mean += v * v / static_cast<double>(x.size());
  row y = x;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] *= gain.data[i] / std::sqrt(mean);
  return y;
}

/// Pairs (i, i + half) as complex numbers, turned by position * base^(-2 i / width).
void turn(double* head, std::size_t width, double position, double base) {
  for (std::size_t i = 0; i < width / 2; ++i) {
    double const angle = position * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width));
    auto const z = std::complex<double>{head[i], head[i + width / 2]} * std::polar(1.0, angle);
    head[i] = z.real();
    head[i + width / 2] = z.imag();
  }
}

void add(row& to, row const& what) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
}

/// Logits of one sequence, straight from the formulas, one token and one head at a time.
std::vector<row> logits_by_definition(llama::parameters<double> const& model, std::span<std::int32_t const> tokens) {
  auto const& c = model.config();
  auto const width = static_cast<std::size_t>(c.head_width());
  std::vector<row> stream;
  for (auto const token : tokens) {
    auto const embedding = model.weight(role::embedding);
    stream.emplace_back(&embedding(token, 0), &embedding(token, 0) + c.width);
  }
  for (index_t l = 0; l < c.layers; ++l) {
    std::vector<row> queries, keys, values;
    for (std::size_t t = 0; t < stream.size(); ++t) {
      auto const x = normed(stream[t], model.weight(role::attention_norm, l), c.epsilon);
      queries.push_back(linear(model.weight(role::query, l), x));
      keys.push_back(linear(model.weight(role::key, l), x));
      values.push_back(linear(model.weight(role::value, l), x));
      for (auto* rows : {&queries.back(), &keys.back()})
        for (std::size_t at = 0; at < rows->size(); at += width)
          turn(rows->data() + at, width, static_cast<double>(t), c.rope_base);
    }
    for (std::size_t t = 0; t < stream.size(); ++t) {
      row mixed(static_cast<std::size_t>(c.width));
      for (std::size_t head = 0; head < static_cast<std::size_t>(c.heads); ++head) {
        auto const q = head * width, kv = head / static_cast<std::size_t>(c.group()) * width;
        row weight(t + 1);
        double total = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (std::size_t i = 0; i < width; ++i) score += queries[t][q + i] * keys[s][kv + i];
          total += weight[s] = std::exp(score / std::sqrt(static_cast<double>(width)));
        }
        for (std::size_t s = 0; s <= t; ++s)
          for (std::size_t i = 0; i < width; ++i) mixed[q + i] += weight[s] / total * values[s][kv + i];
      }
      add(stream[t], linear(model.weight(role::attention_output, l), mixed));
      auto const x = normed(stream[t], model.weight(role::mlp_norm, l), c.epsilon);
      auto gate = linear(model.weight(role::gate, l), x);
      auto const up = linear(model.weight(role::up, l), x);
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      add(stream[t], linear(model.weight(role::down, l), gate));
    }
  }
  for (auto& x : stream) x = linear(model.weight(role::head), normed(x, model.weight(role::final_norm), c.epsilon));
  return stream;
}

}  // namespace

TEST_SUITE("llama forward") {
  TEST_CASE("logits and loss are those of the definition") {
    lowrank::host_executor exec{{.threads = 1}};
    for (auto const head : {llama::output_head::own, llama::output_head::tied})
      for (auto const& c : {tiny(head), wide(head)}) {
        auto const model = weights<double>(c);
        batch const data{c, 3, c.sequence};
        llama::activations<double> memory{c, 3, c.sequence, llama::pass::inference};
        llama::forward(exec, model, data.view().inputs, memory);
        double loss = 0;
        for (index_t s = 0; s < 3; ++s) {
          auto const first = static_cast<std::size_t>(s * c.sequence), length = static_cast<std::size_t>(c.sequence);
          auto const expected = logits_by_definition(model, std::span{data.inputs}.subspan(first, length));
          for (std::size_t t = 0; t < length; ++t) {
            double total = 0;
            for (index_t v = 0; v < c.vocabulary; ++v) {
              double const logit = expected[t][static_cast<std::size_t>(v)];
              CHECK(std::abs(memory.logits()(s * c.sequence + static_cast<index_t>(t), v) - logit) < 1e-10);
              total += std::exp(logit);
            }
            loss += std::log(total) - expected[t][static_cast<std::size_t>(data.targets[first + t])];
          }
        }
        CHECK(llama::cross_entropy(exec, memory, data.targets, {}) ==
              doctest::Approx(loss / static_cast<double>(data.targets.size())).epsilon(1e-12));
      }
  }
}

}  // namespace definition_test
