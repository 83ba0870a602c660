#include <doctest/doctest.h>

#include <cstring>
#include <tuple>

#include "fixture.hpp"
#include "support/allocation_counter.hpp"

namespace backward_test {

using namespace llama_test;
using llama::gradient_form;
using llama::gradient_storage;
using llama::role;

namespace {

template <class T>
std::vector<gradient_form> forms(llama::parameters<T> const& model, gradient_form linear, gradient_form rest) {
  std::vector<gradient_form> out;
  for (auto const& p : model.list()) out.push_back(p.is_linear() ? linear : rest);
  return out;
}

template <class T>
void check_factored(llama::config const& c, double tolerance) {
  lowrank::host_executor exec{{.threads = 2}};
  auto const model = weights<T>(c, 0.1);
  batch const data{c, 3, c.sequence};
  llama::activations<T> memory{c, 3, c.sequence, llama::pass::training};
  llama::gradients<T> dense{model};
  llama::gradients<T> factored{model, forms(model, gradient_form::factored, gradient_form::dense)};
  llama::loss_and_gradients(exec, model, data.view(), memory, dense);
  llama::loss_and_gradients(exec, model, data.view(), memory, factored);
  CHECK(factored.bytes() < dense.bytes());
  lowrank::matrix<T> product;
  for (index_t i = 0; i < model.count(); ++i) {
    CAPTURE(model[i].name);
    if (!model[i].is_linear()) {
      CHECK(relative_distance(factored.dense(i), dense.dense(i)) == 0);
      continue;
    }
    auto const f = llama::factors_of(memory, model[i]);
    CHECK(lowrank::extents{f.output_gradient.cols, f.input.cols} == model[i].shape);
    product = lowrank::matrix<T>{model[i].shape};
    multiply(exec, T{1}, f.output_gradient.t(), f.input, T{0}, product.view());
    CHECK(relative_distance(product.view(), dense.dense(i)) < tolerance);
  }
}

}  // namespace

TEST_SUITE("llama backward") {
  TEST_CASE("factored and dense gradients agree") {
    for (auto const head : {llama::output_head::own, llama::output_head::tied}) {
      check_factored<float>(wide(head), 1e-6);
      check_factored<double>(tiny(head), 1e-14);
    }
  }

  TEST_CASE("the library's outer product is the same pair of views") {
    auto const c = tiny();
    auto const model = weights<float>(c);
    llama::activations<float> memory{c, 2, 5, llama::pass::training};
    auto const& key = model[llama::index_of(c, role::key, 1)];
    auto const g = llama::factored_gradient(memory, key);
    CHECK(g.shape() == key.shape);
    CHECK(g.tokens() == 10);
    CHECK_THROWS_AS(std::ignore = llama::factored_gradient(memory, model[0]), lowrank::argument_error);
  }

  TEST_CASE("fp32 gradients are those of fp64 to rounding") {
    auto const c = wide();
    lowrank::host_executor exec{{.threads = 1}};
    auto const narrow = weights<float>(c, 0.1);
    llama::parameters<double> broad{c};
    std::copy(narrow.flat().begin(), narrow.flat().end(), broad.flat().begin());
    batch const data{c, 2, 45};
    llama::activations<float> memory{c, 2, 45, llama::pass::training};
    llama::activations<double> exact{c, 2, 45, llama::pass::training};
    llama::gradients<float> g{narrow};
    llama::gradients<double> g_exact{broad};
    double const loss = llama::loss_and_gradients(exec, narrow, data.view(), memory, g);
    double const exact_loss = llama::loss_and_gradients(exec, broad, data.view(), exact, g_exact);
    CHECK(std::abs(loss - exact_loss) < 1e-5);
    for (index_t i = 0; i < narrow.count(); ++i) {
      CAPTURE(narrow[i].name);
      CHECK(relative_distance(g.dense(i), g_exact.dense(i)) < 2e-5);
    }
  }

  TEST_CASE("two accumulated micro-batches are one batch of both") {
    for (auto const head : {llama::output_head::own, llama::output_head::tied}) {
      auto const c = tiny(head);
      lowrank::host_executor exec{{.threads = 1}};
      auto const model = weights<double>(c);
      batch const both{c, 4, 9};
      llama::activations<double> memory{c, 4, 9, llama::pass::training};
      llama::gradients<double> whole{model}, parts{model};
      double const loss = llama::loss_and_gradients(exec, model, both.view(), memory, whole);
      double mean = 0;
      for (std::size_t half = 0; half < 2; ++half) {
        llama::batch_view const part{{std::span{both.inputs}.subspan(half * 18, 18), 2, 9},
                                     std::span{both.targets}.subspan(half * 18, 18)};
        mean += llama::loss_and_gradients(
                    exec, model, part, memory, parts,
                    {.how = half == 0 ? llama::accumulation::overwrite : llama::accumulation::add, .scale = 0.5}) /
                2;
      }
      CHECK(mean == doctest::Approx(loss).epsilon(1e-14));
      for (index_t i = 0; i < model.count(); ++i) CHECK(relative_distance(parts.dense(i), whole.dense(i)) < 1e-13);
    }
  }

  TEST_CASE("parameters are reported once each, from the last layer to the first") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    batch const data{c, 1, 4};
    llama::activations<float> memory{c, 1, 4, llama::pass::training};
    llama::gradients<float> g{model};
    std::vector<index_t> order;
    llama::loss_and_gradients(exec, model, data.view(), memory, g, {}, [&](index_t i) { order.push_back(i); });
    std::vector<index_t> expected{llama::index_of(c, role::head), llama::index_of(c, role::final_norm)};
    for (index_t l = c.layers; l-- > 0;)
      for (auto const what : {role::down, role::up, role::gate, role::mlp_norm, role::attention_output, role::value,
                              role::key, role::query, role::attention_norm})
        expected.push_back(llama::index_of(c, what, l));
    expected.push_back(llama::index_of(c, role::embedding));
    CHECK(order == expected);
    CHECK(order.size() == model.list().size());
  }

  TEST_CASE("a weight may change as soon as it is reported, and one buffer serves all dense linear gradients") {
    for (auto const head : {llama::output_head::own, llama::output_head::tied}) {
      auto const c = tiny(head);
      lowrank::host_executor exec{{.threads = 1}};
      auto const model = weights<float>(c);
      auto updated = weights<float>(c), expected = weights<float>(c);
      batch const data{c, 2, 9};
      llama::activations<float> memory{c, 2, 9, llama::pass::training};
      llama::gradients<float> kept{model}, one{model, gradient_storage::one_at_a_time};
      CHECK(one.bytes() < kept.bytes() / 3);
      auto const descend = [](llama::parameters<float>& to, llama::gradients<float>& g, index_t i) {
        auto const w = to.weight(i), slope = g.dense(i);
        for (index_t e = 0; e < w.size(); ++e) w.data[e] -= 10.0F * slope.data[e];
      };
      llama::loss_and_gradients(exec, model, data.view(), memory, kept);
      for (index_t i = 0; i < model.count(); ++i) descend(expected, kept, i);
      llama::loss_and_gradients(exec, updated, data.view(), memory, one, {},
                                [&](index_t i) { descend(updated, one, i); });
      CHECK(std::memcmp(updated.flat().data(), expected.flat().data(), updated.flat().size_bytes()) == 0);
      CHECK_THROWS_AS(
          llama::loss_and_gradients(exec, model, data.view(), memory, one, {.how = llama::accumulation::add}),
          lowrank::argument_error);
    }
  }

  TEST_CASE("frozen parameters are neither computed nor reported") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    batch const data{c, 2, 9};
    llama::activations<float> memory{c, 2, 9, llama::pass::training};
    llama::gradients<float> all{model}, some{model, forms(model, gradient_form::none, gradient_form::dense)};
    std::vector<index_t> reported;
    llama::loss_and_gradients(exec, model, data.view(), memory, all);
    llama::loss_and_gradients(exec, model, data.view(), memory, some, {}, [&](index_t i) { reported.push_back(i); });
    CHECK(reported.size() == 2 * static_cast<std::size_t>(c.layers) + 2);
    for (index_t const i : reported) {
      CHECK(!model[i].is_linear());
      CHECK(relative_distance(some.dense(i), all.dense(i)) == 0);
    }
  }

  TEST_CASE("nothing is allocated in forward, loss and backward") {
    auto const c = wide();
    lowrank::host_executor exec{{.threads = 2}};
    auto const model = weights<float>(c);
    batch const data{c, 2, 45};
    llama::activations<float> memory{c, 2, 45, llama::pass::training};
    llama::gradients<float> g{model};
    index_t reported = 0;
    lowrank_test::allocation_counter const allocations;
    llama::loss_and_gradients(exec, model, data.view(), memory, g, {}, [&](index_t) { ++reported; });
    CHECK(allocations.count() == 0);
    CHECK(reported == model.count());
  }

  TEST_CASE("misuse is refused") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    batch const data{c, 2, 9};
    llama::activations<float> inference{c, 2, 9, llama::pass::inference}, memory{c, 2, 9, llama::pass::training};
    llama::gradients<float> g{model};
    CHECK_THROWS_AS(llama::loss_and_gradients(exec, model, data.view(), inference, g), lowrank::state_error);
    CHECK_THROWS_AS(llama::gradients<float>(model, forms(model, gradient_form::dense, gradient_form::factored)),
                    lowrank::argument_error);
    CHECK_THROWS_AS(llama::gradients<float>(model, std::vector<gradient_form>(3)), lowrank::argument_error);
    llama::forward(exec, model, data.view().inputs, memory);
    batch const other{c, 1, 9};
    CHECK_THROWS_AS(llama::backward(exec, model, other.view().inputs, memory, g), lowrank::shape_error);
    lowrank::host_executor cramped{{.threads = 1, .worker_bytes = 64}};
    CHECK_THROWS_AS(llama::forward(cramped, model, data.view().inputs, memory), lowrank::state_error);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("loss and gradients of the model have the same bits for any number of threads") {
    auto const c = wide();
    auto const model = weights<float>(c, 0.1);
    batch const data{c, 5, 45};
    std::vector<std::vector<float>> seen;
    std::vector<double> losses;
    for (int const threads : {1, 2, 3}) {
      lowrank::host_executor exec{{.threads = threads}};
      llama::activations<float> memory{c, 5, 45, llama::pass::training};
      llama::gradients<float> g{model};
      losses.push_back(llama::loss_and_gradients(exec, model, data.view(), memory, g));
      auto& bits = seen.emplace_back();
      for (index_t i = 0; i < model.count(); ++i)
        bits.insert(bits.end(), g.dense(i).data, g.dense(i).data + g.dense(i).size());
    }
    for (std::size_t i = 1; i < seen.size(); ++i) {
      CHECK(losses[i] == losses[0]);
      CHECK(std::memcmp(seen[i].data(), seen[0].data(), seen[0].size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace backward_test
