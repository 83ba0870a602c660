#include <doctest/doctest.h>

#include "../../../examples/llama/decode.hpp"
#include "../../../examples/llama/frozen_model.hpp"
#include "fixture.hpp"

namespace frozen_test {

using namespace llama_test;
using llama::linear_part;
using llama::role;
using lowrank::adapt::frozen_format;

namespace {

auto const formats = {frozen_format::fp32, frozen_format::bf16, frozen_format::int8, frozen_format::nf4};

/// The same numbers in a model without codes.
llama::parameters<float> decoded(lowrank::host_executor& exec, llama::parameters<float> const& model) {
  llama::parameters<float> out{model.config()};
  for (index_t i = 0; i < out.count(); ++i) {
    auto const& p = model[i];
    if (p.part == linear_part::frozen) model.frozen(p.what, std::max<index_t>(p.layer, 0)).dense(exec, out.weight(i));
    else std::copy_n(model.weight(i).data, p.shape.size(), out.weight(i).data);
  }
  return out;
}

}  // namespace

TEST_SUITE("llama frozen") {
  TEST_CASE("a model in codes computes what its numbers do, and gives the gradients of what is not frozen") {
    auto const c = wide(llama::output_head::tied);
    lowrank::host_executor exec{{.threads = 2}};
    auto const model = weights<float>(c);
    batch const data{c, 2, 40};
    for (auto const format : formats) {
      CAPTURE(name(format));
      auto const codes =
          llama::frozen_in(exec, model, [&](llama::parameter const&) { return llama::frozen_choice{format}; });
      exec.reserve(codes.workspace_bytes());
      auto const plain = decoded(exec, codes);
      if (format == frozen_format::fp32) CHECK(std::ranges::equal(plain.flat(), model.flat()));
      llama::activations<float> memory{c, 2, 40, llama::pass::training, codes.plan()};
      llama::gradients<float> of_codes{codes}, of_plain{plain};
      double const loss = llama::loss_and_gradients(exec, plain, data.view(), memory, of_plain);
      CHECK(llama::loss_and_gradients(exec, codes, data.view(), memory, of_codes) ==
            doctest::Approx(loss).epsilon(1e-6));
      for (index_t i = 0; i < codes.count(); ++i) {
        bool const frozen = !codes[i].is_norm();
        CHECK((codes[i].part == linear_part::frozen) == frozen);
        CHECK((of_codes.form(i) == llama::gradient_form::none) == frozen);
        if (!frozen) CHECK(relative_distance(of_codes.dense(i), of_plain.dense(i)) < 1e-4);
      }
      // Token by token, too.
      llama::kv_cache<float> cache{c, 20, codes.plan()};
      llama::activations<float> reading{c, 1, 20, llama::pass::inference, codes.plan()};
      std::span<std::int32_t const> const text{data.inputs.data(), 20};
      llama::forward(exec, codes, {text, 1, 20}, reading);
      for (std::size_t t = 0; t < 20; ++t) {
        auto const logits = llama::advance(exec, codes, cache, text.subspan(t, 1));
        auto const expected = reading.logits().row_range(static_cast<index_t>(t), static_cast<index_t>(t) + 1);
        CHECK(relative_distance(lowrank::row_major(logits.data(), {1, c.vocabulary}),
                                lowrank::matrix_view<float const>(expected)) < 1e-5);
      }
    }
  }

  TEST_CASE("bytes are those of the codes, and what is not chosen stays") {
    auto const c = wide();
    lowrank::host_executor exec{{.threads = 2}};
    auto const model = weights<float>(c);
    auto const codes = llama::frozen_in(exec, model, [](llama::parameter const& p) {
      return p.what == role::down || p.what == role::query ? llama::frozen_choice{frozen_format::nf4} : std::nullopt;
    });
    index_t fewer = 0;
    for (auto const what : {role::query, role::down}) {
      auto const shape = llama::linear_shape(c, what);
      fewer +=
          2 * (shape.size() * index_t{sizeof(float)} - lowrank::adapt::frozen_matrix::bytes(shape, frozen_format::nf4));
    }
    CHECK(codes.bytes() == model.bytes() - fewer);
    for (index_t i = 0; i < model.count(); ++i) {
      auto const a = model.weight(i), b = codes.weight(i);
      if (codes[i].part == linear_part::frozen) CHECK(b.empty());
      else CHECK(std::equal(a.data, a.data + a.size(), b.data));
    }
  }

  TEST_CASE("what cannot be is refused") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    llama::linear_plan plan;
    plan.set(role::key, 0, {.form = llama::linear_form::frozen, .format = frozen_format::int8});
    llama::parameters<float> model{c, plan};
    lowrank::matrix<float> const w{llama::linear_shape(c, role::key)}, other{3, 5};
    using lowrank::adapt::frozen_matrix;
    CHECK_NOTHROW(model.freeze(role::key, 0, frozen_matrix{exec, w.view(), frozen_format::int8}));
    CHECK_THROWS_AS(model.freeze(role::key, 0, frozen_matrix{exec, w.view(), frozen_format::nf4}),
                    lowrank::argument_error);
    CHECK_THROWS_AS(model.freeze(role::key, 1, frozen_matrix{exec, w.view(), frozen_format::int8}),
                    lowrank::argument_error);
    CHECK_THROWS_WITH_AS(model.freeze(role::key, 0, frozen_matrix{exec, other.view(), frozen_format::int8}),
                         doctest::Contains("layers.0.self_attn.k_proj"), lowrank::shape_error);
    CHECK_THROWS_WITH_AS((llama::gradients<float>{
                             model, std::vector(static_cast<std::size_t>(model.count()), llama::gradient_form::dense)}),
                         doctest::Contains("k_proj"), lowrank::argument_error);
    CHECK_THROWS_AS(plan.set(role::final_norm, 0, {.form = llama::linear_form::frozen}), lowrank::argument_error);
  }
}

}  // namespace frozen_test
