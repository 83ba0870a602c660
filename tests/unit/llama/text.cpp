#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>

#include "../../../examples/llama/data.hpp"
#include "../../../examples/llama/generate.hpp"
#include "fixture.hpp"

namespace text_test {

using namespace llama_test;

namespace {

/// Byte i is i mod 251, so that a window tells where it came from.
std::string numbered(index_t size) {
  std::string out;
  for (index_t i = 0; i < size; ++i) out.push_back(static_cast<char>(i % 251));
  return out;
}

}  // namespace

TEST_SUITE("llama text") {
  TEST_CASE("windows lie inside their part, and targets are one byte ahead") {
    llama::corpus const text{numbered(1000)};
    CHECK(text.training().size() == 900);
    CHECK(text.validation().size() == 100);
    llama::windows batch{4, 20};
    for (std::uint32_t step = 0; step < 2000; ++step) {
      text.training_windows(1, step, batch);
      for (std::size_t i = 0; i < batch.inputs.size(); ++i) REQUIRE(batch.targets[i] == (batch.inputs[i] + 1) % 251);
    }
    for (index_t number = 0; number < 3; ++number) text.validation_windows(number, 3, batch);
    CHECK(batch.targets.back() == 999 % 251);
    text.validation_windows(0, 3, batch);
    CHECK(batch.inputs.front() == 900 % 251);
  }

  TEST_CASE("training windows are those of their seed, step and micro-batch") {
    llama::corpus const text{numbered(5000)};
    llama::windows a{2, 16}, b{2, 16};
    text.training_windows(1, 4, a);
    text.training_windows(1, 4, b);
    CHECK(a.inputs == b.inputs);
    text.training_windows(1, 5, b);
    CHECK(a.inputs != b.inputs);
    text.training_windows(2, 4, b);
    CHECK(a.inputs != b.inputs);
    text.training_windows(1, 4, b, 1);
    CHECK(a.inputs != b.inputs);
  }

  TEST_CASE("too little text is refused") {
    llama::windows batch{1, 20};
    llama::corpus const text{numbered(100)};
    CHECK_THROWS_AS(text.validation_windows(0, 1, batch), lowrank::argument_error);
    CHECK_THROWS_AS((llama::corpus{"abc", 1.5}), lowrank::argument_error);
    CHECK_THROWS_AS(std::ignore = llama::read_bytes("no such file"), lowrank::io_error);
  }

  TEST_CASE("sampling follows temperature and top-k") {
    std::vector<float> const logits{0, 3, 1, 2};
    std::vector<std::int32_t> order(4);
    auto const draw = [&](llama::sampling const& options, double uniform) {
      return llama::sample_token<float>(logits, options, uniform, order);
    };
    CHECK(draw({.temperature = 0}, 0.999) == 1);
    CHECK(draw({.temperature = 1}, 1e-9) == 1);
    CHECK(draw({.temperature = 1}, 1.0) == 0);
    CHECK(draw({.temperature = 1, .top_k = 2}, 1.0) == 3);
    CHECK(draw({.temperature = 1e-3}, 0.999) == 1);
    std::array<int, 4> seen{};
    for (int i = 0; i < 10000; ++i) ++seen[static_cast<std::size_t>(draw({.temperature = 2}, (i + 0.5) / 10000))];
    double total = 0;
    for (float const x : logits) total += std::exp(static_cast<double>(x) / 2);
    for (std::size_t v = 0; v < 4; ++v)
      CHECK(seen[v] == doctest::Approx(10000 * std::exp(static_cast<double>(logits[v]) / 2) / total).epsilon(0.01));
  }

  TEST_CASE("generation is reproducible and goes on past the longest context") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    llama::activations<float> memory{c, 1, c.sequence, llama::pass::inference};
    auto const text = [&](std::uint64_t seed) {
      std::vector<std::int32_t> out{1, 2, 3};
      llama::generate(exec, model, memory, out, {.count = 30, .temperature = 1, .seed = seed});
      return out;
    };
    CHECK(text(1) == text(1));
    CHECK(text(1) != text(2));
    CHECK(text(1).size() == 33);
    std::vector<std::int32_t> empty;
    CHECK_THROWS_AS(llama::generate(exec, model, memory, empty, {}), lowrank::argument_error);
  }

  TEST_CASE("a model learns a text that repeats itself") {
    auto c = tiny();
    c.vocabulary = 256;
    lowrank::host_executor exec{{.threads = 1}};
    llama::parameters<float> model{c};
    llama::initialise(exec, model, {.seed = 2, .deviation = 0.1});
    std::string repeated;
    for (int i = 0; i < 40; ++i) repeated += "abcabd";
    llama::corpus const text{repeated};
    llama::windows batch{4, 9};
    llama::activations<float> memory{c, 4, 9, llama::pass::training};
    llama::gradients<float> g{model};
    double loss = 0;
    for (std::uint32_t step = 0; step < 300; ++step) {
      text.training_windows(3, step, batch);
      loss = llama::loss_and_gradients(exec, model, batch.view(), memory, g);
      for (index_t i = 0; i < model.count(); ++i)
        for (index_t e = 0; e < model.weight(i).size(); ++e) model.weight(i).data[e] -= 0.3F * g.dense(i).data[e];
    }
    CHECK(loss < 0.5);
    std::vector<std::int32_t> out{'a', 'b', 'c', 'a', 'b', 'd'};
    llama::generate(exec, model, memory, out, {.count = 6, .temperature = 0});
    CHECK(std::string(out.begin() + 6, out.end()) == "abcabd");
  }
}

}  // namespace text_test
