#include <doctest/doctest.h>

#include "fixture.hpp"

namespace factored_test {

using namespace llama_test;
using llama::gradient_form;

namespace {

struct factored_case {
  llama::config c = wide();
  llama::linear_plan plan = mixed_plan(c);
  lowrank::host_executor exec{{.threads = 2}};
  llama::parameters<double> model = weights<double>(c, 0.25, plan);
  batch data{c, 2, 40};
  llama::activations<double> memory{c, 2, 40, llama::pass::training, plan};

  factored_case() { shuffle_orders(model); }
};

}  // namespace

TEST_SUITE("llama factors") {
  TEST_CASE("a model in factors computes what the merged one does") {
    factored_case f;
    auto const whole = merged(f.model);
    llama::activations<double> other{f.c, 2, 40, llama::pass::inference, whole.plan()};
    llama::activations<double> shared{f.c, 2, 40, llama::pass::inference, f.plan};
    double const expected = llama::mean_loss(f.exec, whole, f.data.view(), other);
    CHECK(llama::mean_loss(f.exec, f.model, f.data.view(), f.memory) == doctest::Approx(expected).epsilon(1e-12));
    CHECK(llama::mean_loss(f.exec, f.model, f.data.view(), shared) == doctest::Approx(expected).epsilon(1e-12));
    // Not by chance: another rank-5 query gives another loss.
    f.model.weight(llama::index_of(f.c, llama::role::query, 0))(0, 0) += 1;
    CHECK(std::abs(llama::mean_loss(f.exec, f.model, f.data.view(), f.memory) - expected) > 1e-6);
  }

  TEST_CASE("names, shapes and counts of the tensors") {
    factored_case f;
    auto const shape_of = [&](std::string_view name) {
      for (auto const& p : f.model.list())
        if (p.name == name) return p.shape;
      return lowrank::extents{};
    };
    CHECK(shape_of("model.layers.0.self_attn.q_proj.U.weight") == lowrank::extents{128, 5});
    CHECK(shape_of("model.layers.0.self_attn.q_proj.V.weight") == lowrank::extents{5, 128});
    CHECK(shape_of("model.layers.0.self_attn.v_proj.coefficients.weight") == lowrank::extents{60, 4});
    CHECK(shape_of("model.layers.0.self_attn.v_proj.pivot_rows.weight") == lowrank::extents{4, 128});
    CHECK(shape_of("model.layers.0.self_attn.v_proj.bias") == lowrank::extents{1, 64});
    CHECK(shape_of("model.layers.1.self_attn.k_proj.weight") == lowrank::extents{64, 128});
    for (index_t i = 0; i < f.model.count(); ++i) {
      auto const& p = f.model[i];
      if (p.part == llama::linear_part::whole || p.part == llama::linear_part::left)
        CHECK(llama::index_of(f.c, p.what, std::max<index_t>(p.layer, 0)) == i);
    }
    index_t const bytes = llama::activations<double>::bytes_for(f.c, 2, 40, llama::pass::training, f.plan).total();
    CHECK(bytes == f.memory.bytes());
  }

  TEST_CASE("frozen parameters take no memory, are not reported, and change no other gradient") {
    factored_case f;
    llama::gradients<double> all{f.model};
    llama::loss_and_gradients(f.exec, f.model, f.data.view(), f.memory, all);
    std::vector<gradient_form> forms;
    index_t trained = 0;
    for (auto const& p : f.model.list()) {
      bool const trains = p.part == llama::linear_part::left || p.part == llama::linear_part::right || p.is_norm();
      forms.push_back(trains ? gradient_form::dense : gradient_form::none);
      if (trains) trained += (p.shape.size() + 15) / 16 * 16;
    }
    llama::gradients<double> some{f.model, forms};
    CHECK(some.bytes() == trained * index_t{sizeof(double)});
    std::vector<index_t> reported;
    llama::loss_and_gradients(f.exec, f.model, f.data.view(), f.memory, some, {},
                              [&](index_t index) { reported.push_back(index); });
    for (index_t i = 0; i < f.model.count(); ++i) {
      CAPTURE(f.model[i].name);
      bool const trains = some.form(i) == gradient_form::dense;
      CHECK(std::ranges::count(reported, i) == (trains ? 1 : 0));
      if (!trains) continue;
      auto const a = some.dense(i), b = all.dense(i);
      CHECK(std::equal(a.data, a.data + a.size(), b.data));
    }
  }

  TEST_CASE("gradients of factors add up over micro-batches") {
    factored_case f;
    llama::gradients<double> once{f.model}, twice{f.model};
    llama::loss_and_gradients(f.exec, f.model, f.data.view(), f.memory, once);
    for (auto const how : {llama::accumulation::overwrite, llama::accumulation::add})
      llama::loss_and_gradients(f.exec, f.model, f.data.view(), f.memory, twice, {.how = how, .scale = 0.5});
    for (index_t i = 0; i < f.model.count(); ++i) {
      if (f.model[i].shape.size() == 0) continue;
      CAPTURE(f.model[i].name);
      CHECK(relative_distance(twice.dense(i), once.dense(i)) < 1e-12);
    }
  }

  TEST_CASE("impossible plans are refused") {
    auto const c = tiny();
    llama::linear_plan plan;
    CHECK_THROWS_AS(plan.set(llama::role::embedding, 0, {llama::linear_form::factors, 1}), lowrank::argument_error);
    auto const with = [&](index_t layer, index_t rank) {
      llama::linear_plan out;
      out.set(llama::role::key, layer, {llama::linear_form::factors, rank});
      return out;
    };
    CHECK_THROWS_WITH_AS(llama::parameter_list(c, with(0, 13)), doctest::Contains("in [1, 12], got 13"),
                         lowrank::argument_error);
    CHECK_THROWS_AS(llama::parameter_list(c, with(0, 0)), lowrank::argument_error);
    CHECK_THROWS_AS(llama::parameter_list(c, with(2, 4)), lowrank::argument_error);
    CHECK_THROWS_AS((llama::gradients<double>{llama::parameters<double>{c, with(0, 4)},
                                              std::vector<gradient_form>(llama::parameter_list(c, with(0, 4)).size(),
                                                                         gradient_form::factored)}),
                    lowrank::argument_error);
  }
}

}  // namespace factored_test
