#include <doctest/doctest.h>

#include <cstring>
#include <numeric>

#include "fixture.hpp"

namespace forward_test {

using namespace llama_test;
using llama::role;

TEST_SUITE("llama forward") {
  TEST_CASE("parameters have Hugging Face names, shapes and one flat memory") {
    llama::parameters<float> const model{llama::config{}};
    index_t next = 0;
    for (auto const& p : model.list()) {
      CHECK(p.offset == next);
      next += p.shape.size();
    }
    CHECK(next == static_cast<index_t>(model.flat().size()));
    CHECK(next == 4'877'568);
    CHECK(model.count() == 3 + 9 * 6);
    auto const named = [&](role what, index_t layer) { return model[llama::index_of(model.config(), what, layer)]; };
    CHECK(named(role::embedding, 0).name == "model.embed_tokens.weight");
    CHECK(named(role::query, 0).name == "model.layers.0.self_attn.q_proj.weight");
    CHECK(named(role::down, 5).name == "model.layers.5.mlp.down_proj.weight");
    CHECK(named(role::down, 5).shape == lowrank::extents{256, 688});
    CHECK(named(role::mlp_norm, 3).name == "model.layers.3.post_attention_layernorm.weight");
    CHECK(named(role::final_norm, 0).name == "model.norm.weight");
    CHECK(named(role::head, 0).name == "lm_head.weight");
    for (index_t i = 0; i < model.count(); ++i)
      CHECK(llama::index_of(model.config(), model[i].what, std::max<index_t>(model[i].layer, 0)) == i);
    auto tied = llama::config{};
    tied.head = llama::output_head::tied;
    CHECK(llama::parameter_list(tied).size() == model.list().size() - 1);
    CHECK(llama::index_of(tied, role::head) == llama::index_of(tied, role::embedding));
  }

  TEST_CASE("initial weights have the asked deviation and do not depend on the number of threads") {
    lowrank::host_executor one{{.threads = 1}}, three{{.threads = 3}};
    llama::config const c{.layers = 1};
    llama::parameters<float> a{c}, b{c};
    llama::initialise(one, a, {.seed = 7});
    llama::initialise(three, b, {.seed = 7});
    CHECK(std::memcmp(a.flat().data(), b.flat().data(), a.flat().size_bytes()) == 0);
    llama::initialise(one, b, {.seed = 8});
    CHECK(std::memcmp(a.flat().data(), b.flat().data(), a.flat().size_bytes()) != 0);
    for (index_t i = 0; i < a.count(); ++i) {
      auto const w = a.weight(i);
      double const mean = std::accumulate(w.data, w.data + w.size(), 0.0) / static_cast<double>(w.size());
      double squares = 0;
      for (index_t e = 0; e < w.size(); ++e) squares += static_cast<double>(w.data[e]) * static_cast<double>(w.data[e]);
      if (a[i].is_norm()) {
        CHECK(mean == 1);
        continue;
      }
      CHECK(std::abs(mean) < 5 * 0.02 / std::sqrt(static_cast<double>(w.size())));
      CHECK(std::sqrt(squares / static_cast<double>(w.size())) == doctest::Approx(0.02).epsilon(0.02));
    }
  }

  TEST_CASE("a model that knows nothing has loss log(vocabulary)") {
    lowrank::host_executor exec{{.threads = 1}};
    llama::config const c{.layers = 1};
    llama::parameters<float> const model{c};
    batch const data{c, 2, 16};
    llama::activations<float> memory{c, 2, 16, llama::pass::inference};
    CHECK(llama::mean_loss(exec, model, data.view(), memory) == doctest::Approx(std::log(256.0)).epsilon(1e-6));
  }

  TEST_CASE("the loss survives large logits and large attention scores") {
    lowrank::host_executor exec{{.threads = 1}};
    auto const c = tiny();
    batch const data{c, 2, 9};
    llama::activations<float> memory{c, 2, 9, llama::pass::training};
    auto model = weights<float>(c, 100);
    llama::gradients<float> g{model};
    double const loss = llama::loss_and_gradients(exec, model, data.view(), memory, g);
    CHECK(std::isfinite(loss));
    CHECK(loss > 100);
    for (index_t i = 0; i < model.count(); ++i)
      for (index_t e = 0; e < g.dense(i).size(); ++e) REQUIRE(std::isfinite(g.dense(i).data[e]));
    // Logits a, a + 1, ...: log-softmax does not see a.
    memory.shape_to(1, 1);
    for (float const a : {0.0F, 1e4F, -1e4F}) {
      for (index_t v = 0; v < c.vocabulary; ++v) memory.logits()(0, v) = a + static_cast<float>(v);
      std::vector<std::int32_t> const target{2};
      double total = 0;
      for (index_t v = 0; v < c.vocabulary; ++v) total += std::exp(static_cast<double>(v) - 2);
      CHECK(llama::cross_entropy(exec, memory, target, {}) == doctest::Approx(std::log(total)).epsilon(1e-5));
    }
  }

  TEST_CASE("a token sees itself and what came before, nothing else") {
    lowrank::host_executor exec{{.threads = 1}};
    for (auto const& c : {tiny(), wide()}) {
      auto const model = weights<double>(c);
      batch data{c, 2, c.sequence};
      llama::activations<double> memory{c, 2, c.sequence, llama::pass::inference};
      llama::forward(exec, model, data.view().inputs, memory);
      std::vector<double> const before(memory.logits().data, memory.logits().data + memory.logits().size());
      index_t const changed = 6;
      auto& token = data.inputs[changed];
      token = static_cast<std::int32_t>((token + 1) % c.vocabulary);
      llama::forward(exec, model, data.view().inputs, memory);
      for (index_t t = 0; t < memory.tokens(); ++t) {
        CAPTURE(t);
        bool const same = std::equal(&memory.logits()(t, 0), &memory.logits()(t, 0) + c.vocabulary,
                                     before.begin() + t * c.vocabulary);
        CHECK(same == (t < changed || t >= c.sequence));
      }
    }
  }

  TEST_CASE("scores depend on how far apart two positions are, not on where they are") {
    for (auto const pairs : {llama::rotary_pairs::half_split, llama::rotary_pairs::interleaved}) {
      auto c = wide();
      c.rotary = pairs;
      llama::activations<double> const memory{c, 1, c.sequence, llama::pass::inference};
      index_t const width = c.head_width();
      auto const score = [&](index_t i, index_t j) {
        std::vector<double> q, k;
        for (index_t e = 0; e < width; ++e) {
          q.push_back(static_cast<double>(lowrank::gaussian({.seed = 1}, static_cast<std::uint64_t>(e))));
          k.push_back(static_cast<double>(lowrank::gaussian({.seed = 2}, static_cast<std::uint64_t>(e))));
        }
        llama::rotate(q.data(), width, memory.cosines(i), memory.sines(i), pairs, llama::turning::forward);
        llama::rotate(k.data(), width, memory.cosines(j), memory.sines(j), pairs, llama::turning::forward);
        return llama::dot(q.data(), k.data(), width);
      };
      CHECK(score(9, 4) == doctest::Approx(score(40, 35)).epsilon(1e-12));
      CHECK(std::abs(score(9, 4) - score(9, 5)) > 1e-3);
    }
  }

  TEST_CASE("interleaved pairs are half-split pairs of reordered query and key rows") {
    auto c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const split = weights<double>(c);
    c.rotary = llama::rotary_pairs::interleaved;
    auto interleaved = weights<double>(c);
    index_t const width = c.head_width(), half = width / 2;
    for (index_t l = 0; l < c.layers; ++l)
      for (auto const what : {role::query, role::key}) {
        auto const to = interleaved.weight(llama::index_of(c, what, l));
        auto const from = split.weight(what, l);
        for (index_t row = 0; row < from.rows; ++row) {
          index_t const head = row / width, j = row % width / half, i = row % half;
          for (index_t e = 0; e < from.cols; ++e) to(head * width + 2 * i + j, e) = from(row, e);
        }
      }
    batch const data{c, 2, 9};
    llama::activations<double> a{split.config(), 2, 9, llama::pass::inference}, b{c, 2, 9, llama::pass::inference};
    double const expected = llama::mean_loss(exec, split, data.view(), a);
    CHECK(llama::mean_loss(exec, interleaved, data.view(), b) == doctest::Approx(expected).epsilon(1e-13));
  }

  TEST_CASE("inference memory is that of one layer and gives the same loss") {
    auto c = wide();
    c.layers = 5;
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c, 0.1);
    batch const data{c, 2, 30};
    llama::activations<float> training{c, 3, 45, llama::pass::training}, inference{c, 3, 45, llama::pass::inference};
    CHECK(inference.bytes() < training.bytes() / 3);
    CHECK(llama::mean_loss(exec, model, data.view(), inference) ==
          llama::mean_loss(exec, model, data.view(), training));
  }

  TEST_CASE("misuse is refused") {
    auto const refused = [](auto change) {
      llama::config c;
      change(c);
      CHECK_THROWS_AS(llama::validate(c), lowrank::argument_error);
    };
    refused([](auto& c) { c.kv_heads = 3; });
    refused([](auto& c) { c.width = 260; });
    refused([](auto& c) { c.layers = 0; });
    refused([](auto& c) { c.rope_base = std::nan(""); });
    refused([](auto& c) { c.epsilon = -1; });
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    batch data{c, 2, 9};
    llama::activations<float> memory{c, 2, 9, llama::pass::inference};
    CHECK_THROWS_AS((llama::activations<float>{c, 1, c.sequence + 1, llama::pass::inference}), lowrank::shape_error);
    CHECK_THROWS_AS(llama::forward(exec, model, {data.inputs, 3, 9}, memory), lowrank::shape_error);
    CHECK_THROWS_AS(llama::cross_entropy(exec, memory, std::span{data.targets}.first(3), {}), lowrank::shape_error);
    data.targets[4] = 11;
    CHECK_THROWS_AS(llama::mean_loss(exec, model, data.view(), memory), lowrank::argument_error);
    data.inputs[4] = 11;
    CHECK_THROWS_AS(llama::forward(exec, model, data.view().inputs, memory), lowrank::argument_error);
  }
}

}  // namespace forward_test
