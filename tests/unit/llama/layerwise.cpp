#include <doctest/doctest.h>

#include <cstring>

#include "../../../examples/llama/layerwise/memory_lines.hpp"
#include "fixture.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/allocation_counter.hpp"

namespace layerwise_test {

using namespace llama_test;
using llama::role;
using lowrank::host_executor;

namespace {

/// No width a multiple of a block of codes, so that blocks run over the ends of rows.
llama::config small() {
  return {.vocabulary = 60, .width = 96, .layers = 3, .heads = 4, .kv_heads = 2, .ffn = 136, .sequence = 24};
}
auto const untimed = [](llama::pass_part, index_t, auto const& work) { work(); };

/// The same weights in fp32.
llama::parameters<float> decoded(host_executor& exec, llama::coded_model& model) {
  llama::parameters<float> out{model.config()};
  for (index_t i = 0; i < model.count(); ++i) {
    auto const to = out.weight(i);
    if (model[i].is_norm()) copy(exec, model.gain(i), to);
    else if (llama::is_coded(model[i])) dequantize(exec, model.matrix(i).codes, to.data);
    else convert(exec, model.narrow(model[i].what).values, to);
  }
  return out;
}

/// Keeps every gradient, and spoils the weight it belongs to: nobody may read that again.
struct collector {
  host_executor& exec;
  llama::coded_model& model;
  std::vector<lowrank::matrix<float>> gradients{static_cast<std::size_t>(model.count())};

  lowrank::matrix<float>& of(index_t index) {
    auto& g = gradients[static_cast<std::size_t>(index)];
    CHECK(g.shape().size() == 0);
    g = lowrank::matrix<float>{model[index].shape};
    return g;
  }
  void matrix(index_t index, lowrank::outer_product<> g) {
    multiply(exec, 1.0F, g.output_gradient.t(), g.input, 0.0F, of(index).view());
    auto const codes = model.matrix(index).codes;
    std::memset(codes.codes, 255, static_cast<std::size_t>(model[index].shape.size()));
  }
  void gain(index_t index, lowrank::matrix_view<float> g) {
    copy(exec, g, of(index).view());
    fill(exec, model.gain(index), 1e3F);
  }
  void head(lowrank::outer_product<> g) {
    multiply(exec, 1.0F, g.output_gradient.t(), g.input, 0.0F, of(model.index_of(role::head)).view());
    fill(exec, model.narrow(role::head).values, lowrank::to_bf16(1e3F));
  }
  void embedding(lowrank::matrix_view<float const> d, llama::token_view const& batch) {
    auto& g = of(model.index_of(role::embedding));
    for (index_t t = 0; t < d.rows; ++t)
      for (index_t i = 0; i < d.cols; ++i) g(batch.tokens[static_cast<std::size_t>(t)], i) += d(t, i);
  }
};
static_assert(llama::weight_updates<collector>);

using trained = llama::layer_optimizer<host_executor, lowrank::rule::moments::bitsandbytes>;
llama::optimizer_settings settings_for(index_t rank) {
  return {.rank = rank, .learning_rate = 1e-2, .eager_layer = 1, .block_rows = 25};
}

/// A model, its passes and its optimizer in an arena of the planned size.
struct training {
  llama::config c{small()};
  llama::optimizer_settings settings;
  batch data{c, 1, 24};
  host_executor exec;
  llama::coded_model model{c};
  trained optimizer;
  llama::layer_passes<host_executor> passes;

  training(int threads, llama::optimizer_settings const& s)
      : settings{s},
        exec{{.threads = threads, .scratch_bytes = llama::arena_bytes<trained>(c, s, 24)}},
        optimizer{(draw(exec, model, 1, 0.1), exec), model, s},
        passes{exec, model, 1, 24} {}

  double step() {
    auto const view = data.view();
    double const loss = passes.forward(view.inputs, view.targets, untimed);
    passes.backward(view.inputs, optimizer, untimed);
    return loss;
  }
  /// All bytes of all weights.
  std::vector<std::uint8_t> bits() {
    std::vector<std::uint8_t> out;
    auto const add = [&](void const* p, index_t bytes) {
      auto const* const from = static_cast<std::uint8_t const*>(p);
      out.insert(out.end(), from, from + bytes);
    };
    for (index_t i = 0; i < model.count(); ++i) {
      if (model[i].is_norm()) add(model.gain(i).data, model.gain(i).size() * 4);
      else if (llama::is_coded(model[i])) add(model.codes(i).view().codes, model[i].shape.size());
      else add(model.narrow(model[i].what).values.data, model[i].shape.size() * 2);
    }
    return out;
  }
};

}  // namespace

TEST_SUITE("llama layer by layer") {
  TEST_CASE("loss and gradients are those of the ordinary passes over the decoded weights, in any order of updates") {
    auto const c = small();
    host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
    llama::coded_model model{c};
    draw(exec, model, 7, 0.1);
    for (index_t i = 0; i < model.count(); ++i)
      if (model[i].is_norm())
        for (index_t j = 0; j < c.width; ++j) model.gain(i)(0, j) += static_cast<float>(j % 7 - 3) / 10;
    auto const plain = decoded(exec, model);
    for (auto const& [sequences, length] : {std::pair<index_t, index_t>{2, 24}, {1, 9}}) {
      CAPTURE(sequences);
      llama::coded_model spoiled{c};
      draw(exec, spoiled, 7, 0.1);
      for (index_t i = 0; i < model.count(); ++i)
        if (model[i].is_norm()) copy(exec, model.gain(i), spoiled.gain(i));
      batch data{c, sequences, length};
      data.targets[3] = llama::no_target;
      auto const view = data.view();
      llama::activations<float> memory{c, sequences, length, llama::pass::training};
      llama::gradients<float> expected{plain};
      double const loss = llama::loss_and_gradients(exec, plain, view, memory, expected);
      llama::layer_passes<host_executor> passes{exec, spoiled, sequences, length};
      CHECK(passes.forward(view.inputs, view.targets, untimed) == doctest::Approx(loss).epsilon(1e-6));
      collector found{exec, spoiled};
      passes.backward(view.inputs, found, untimed);
      for (index_t i = 0; i < model.count(); ++i) {
        CAPTURE(model[i].name);
        auto const& g = found.gradients[static_cast<std::size_t>(i)];
        CHECK(g.shape() == model[i].shape);
        CHECK(relative_distance(g.view(), expected.dense(i)) < 2e-5);
      }
    }
  }

  TEST_CASE("weights are drawn with their deviation, the same for any number of threads") {
    auto const c = small();
    host_executor one{{.threads = 1}}, three{{.threads = 3}};
    llama::coded_model a{c}, b{c};
    draw(one, a, 5, 0.02);
    draw(three, b, 5, 0.02);
    auto const x = decoded(one, a), y = decoded(one, b);
    CHECK(std::memcmp(x.flat().data(), y.flat().data(), x.flat().size_bytes()) == 0);
    for (auto const& p : x.list()) {
      if (p.is_norm()) continue;
      CAPTURE(p.name);
      auto const w = x.weight(llama::index_of(c, p.what, p.layer));
      double sum = 0, squares = 0;
      for (index_t e = 0; e < w.size(); ++e) {
        double const value = static_cast<double>(w.data[e]);
        sum += value;
        squares += value * value;
      }
      auto const n = static_cast<double>(w.size());
      CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
      CHECK(squares / n == doctest::Approx(0.02 * 0.02).epsilon(5 / std::sqrt(n)));
    }
  }

  TEST_CASE("a step takes the planned memory, allocates nothing and changes every parameter") {
    for (auto const form : {llama::matrix_gradient::factored, llama::matrix_gradient::dense}) {
      auto settings = settings_for(40);
      settings.gradient = form;
      training run{2, settings};
      auto const plan =
          llama::plan_memory<trained>(run.c, settings, 24, run.exec.bytes() - run.exec.arena().reserved());
      run.exec.arena().reset_peak();
      auto before = run.bits();
      std::vector<double> losses;
      losses.reserve(4);
      for (int k = 0; k < 4; ++k) {
        lowrank_test::allocation_counter const allocations;
        losses.push_back(run.step());
        CHECK(allocations.count() == 0);
      }
      CHECK(losses.back() < losses.front() - 0.1);
      CHECK(run.exec.arena().peak() == plan.bytes(lowrank::memory_kind::workspace, "arena"));
      auto const counted = llama::count_memory(run.exec, run.model, run.passes, run.optimizer);
      for (auto const& line : plan.lines()) {
        CAPTURE(line.what);
        double const off = static_cast<double>(counted.bytes(line.kind, line.what) - line.bytes);
        CHECK(std::abs(off) <= 0.02 * static_cast<double>(line.bytes));
      }
      auto const after = run.bits();
      std::size_t at = 0;
      for (auto const& p : run.model.list()) {
        CAPTURE(p.name);
        auto const bytes = static_cast<std::size_t>(p.shape.size() * (p.is_norm() ? 4 : llama::is_coded(p) ? 1 : 2));
        CHECK(std::memcmp(before.data() + at, after.data() + at, bytes) != 0);
        at += bytes;
      }
      CHECK(at == after.size());
      CHECK(run.optimizer.refused() == 0);
      CHECK(run.optimizer.watch().cold == 21);
      CHECK(run.optimizer.watch().warm == 21);  // the seven matrices of one layer, three times
      CHECK(run.optimizer.watch().worst_departure < 1e-5);
      // 24 tokens leave at least 16 of 40 columns open, which come from the old basis.
      CHECK(run.optimizer.least_overlap() > 0.35);
    }
  }

  TEST_CASE("factored and dense gradients make nearly the same step") {
    auto settings = settings_for(16);
    training factored{2, settings};
    settings.gradient = llama::matrix_gradient::dense;
    training dense{2, settings};
    factored.step();
    dense.step();
    // The first bases differ: 16 columns of a sketch of 24 tokens see the same sketch either way.
    CHECK(factored.step() == doctest::Approx(dense.step()).epsilon(0.02));
  }
}

TEST_SUITE("threads") {
  TEST_CASE("a model in codes takes the same steps with any number of threads") {
    training one{1, settings_for(40)}, three{3, settings_for(40)};
    for (int k = 0; k < 2; ++k) CHECK(one.step() == three.step());
    CHECK(one.bits() == three.bits());
  }
}

}  // namespace layerwise_test
