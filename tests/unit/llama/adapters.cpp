#include <doctest/doctest.h>

#include <cstring>

#include "../../../examples/llama/adapter_set.hpp"
#include "../../../examples/llama/any_adapter.hpp"
#include "../../../examples/llama/decode.hpp"
#include "../../../examples/llama/frozen_model.hpp"
#include "fixture.hpp"
#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/adapt/mora.hpp"
#include "lowrank/adapt/nola.hpp"
#include "lowrank/adapt/olora.hpp"
#include "support/executors.hpp"

namespace adapters_test {

using namespace llama_test;
using llama::role;
namespace adapt = lowrank::adapt;

namespace {

template <class T>
using any = llama::any_adapter<adapt::lora_adapter<T>, adapt::olora_adapter<T>, adapt::lora_xs_adapter<T>,
                               adapt::mora_adapter<T>, adapt::nola_adapter<T>, adapt::deep_lora_adapter<T>>;

/// An adapter by the settings on every linear weight that `on(what, layer)` takes; a base that changes is changed.
template <class T, class Settings>
llama::adapter_set<any<T>> adapters(lowrank::host_executor& exec, llama::parameters<T>& model, Settings const& settings,
                                    auto const& on) {
  auto const& c = model.config();
  llama::adapter_set<any<T>> out{c};
  for (index_t l = 0; l < c.layers; ++l)
    for (index_t i = 0; i < llama::linear_roles; ++i) {
      auto const what = static_cast<role>(i);
      if (!on(what, l)) continue;
      auto const index = llama::index_of(c, what, l);
      out.set(what, l,
              adapt::make_adapter<T>(exec, settings, model.weight(index),
                                     {.seed = 9, .tensor = static_cast<std::uint32_t>(index)}));
    }
  return out;
}
auto const everywhere = [](role, index_t) { return true; };

/// As if it had been trained: every tensor far from where it began.
template <class T>
void disturb(llama::adapter_set<any<T>>& set) {
  std::uint32_t number = 0;
  for (auto const& t : set.tensors()) {
    lowrank::rng_key const key{.seed = 4, .tensor = number++};
    auto const scale = 0.4 / std::sqrt(static_cast<double>(std::max(t.values.rows, t.values.cols)));
    for (index_t e = 0; e < t.values.size(); ++e)
      t.values.data[e] +=
          static_cast<T>(scale * static_cast<double>(lowrank::gaussian(key, static_cast<std::uint64_t>(e))));
  }
}

std::vector<llama::gradient_form> nothing(auto const& model) {
  return std::vector(static_cast<std::size_t>(model.count()), llama::gradient_form::none);
}

/// Gradients of all tensors against fourth-order differences of the loss, along random directions.
template <class Settings>
void check_gradients(Settings const& settings, auto const& on) {
  auto const c = tiny(llama::output_head::tied);
  lowrank::host_executor exec{{.threads = 1}};
  auto model = weights<double>(c);
  auto set = adapters<double>(exec, model, settings, on);
  set.reserve(16, 16);
  exec.reserve(set.workspace_bytes(16));
  disturb(set);
  set.begin({.mode = adapt::pass::training, .step = 3});
  batch const data{c, 2, 8};
  llama::activations<double> memory{c, 2, 8, llama::pass::training};
  llama::gradients<double> none{model, nothing(model)};
  std::vector<double> const before(model.flat().begin(), model.flat().end());
  llama::loss_and_gradients(exec, model, data.view(), memory, none, {}, llama::ignore_gradients{}, set);
  CHECK(none.bytes() == 0);
  CHECK(std::ranges::equal(model.flat(), before));
  std::uint32_t number = 0;
  for (auto const& t : set.tensors()) {
    CAPTURE(t.name);
    if (t.rate == 0) continue;
    double norm = 0, slope = 0;
    for (index_t e = 0; e < t.gradient.size(); ++e) norm += t.gradient.data[e] * t.gradient.data[e];
    CHECK(norm > 1e-14);
    lowrank::rng_key const key{.seed = 17, .tensor = number++};
    auto const along = [&](index_t e) {
      return static_cast<double>(lowrank::gaussian(key, static_cast<std::uint64_t>(e)));
    };
    for (index_t e = 0; e < t.gradient.size(); ++e) slope += t.gradient.data[e] * along(e);
    auto const loss_at = [&](double step) {
      for (index_t e = 0; e < t.values.size(); ++e) t.values.data[e] += step * along(e);
      double const loss = llama::mean_loss(exec, model, data.view(), memory, set);
      for (index_t e = 0; e < t.values.size(); ++e) t.values.data[e] -= step * along(e);
      return loss;
    };
    double const h = 2e-3 / std::sqrt(static_cast<double>(t.values.size()));
    double const numeric = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
    CHECK(std::abs(numeric - slope) <= 2e-7 * std::max(std::sqrt(norm), 1e-3));
  }
}

}  // namespace

TEST_SUITE("llama adapters") {
  TEST_CASE("gradients agree with finite differences, for every method on every linear weight") {
    check_gradients(adapt::lora{.rank = 3}, everywhere);
    check_gradients(adapt::lora{.rank = 4, .scale = adapt::scaling::rank_root, .dropout = 0.25F}, everywhere);
    check_gradients(adapt::olora{.rank = 4}, everywhere);
    check_gradients(adapt::lora_xs{.rank = 4, .alpha = 1}, everywhere);
    check_gradients(adapt::mora{.rank = 2}, everywhere);
    check_gradients(adapt::mora{.rank = 2, .type = adapt::mora_type::shared}, everywhere);
    check_gradients(adapt::nola{.rank = 3, .right_count = 5, .left_count = 4}, everywhere);
    check_gradients(adapt::deep_lora{.rank = 4}, everywhere);
  }
  TEST_CASE("gradients agree with finite differences where some weights have no adapter") {
    check_gradients(adapt::lora{.rank = 2}, [](role what, index_t l) {
      return (what == role::value && l == 1) || (what == role::gate && l == 0);
    });
  }

  TEST_CASE("at the start the model's output is the base's, bit for bit, where methods start from zero") {
    auto const c = wide(llama::output_head::tied);
    lowrank::host_executor exec{{.threads = 2}};
    batch const data{c, 2, 40};
    llama::activations<float> memory{c, 2, 40, llama::pass::training};
    auto model = weights<float>(c);
    llama::forward(exec, model, data.view().inputs, memory);
    std::vector<float> const logits(memory.logits().data, memory.logits().data + memory.logits().size());
    auto const deviation = [&](auto const& settings) {
      auto base = weights<float>(c);
      auto set = adapters<float>(exec, base, settings, everywhere);
      set.reserve(80, 80);
      exec.reserve(set.workspace_bytes(80));
      llama::forward(exec, base, data.view().inputs, memory, set);
      double most = 0;
      for (std::size_t i = 0; i < logits.size(); ++i)
        most = std::max(most, std::abs(static_cast<double>(memory.logits().data[i]) - static_cast<double>(logits[i])));
      return most;
    };
    CHECK(deviation(adapt::lora{}) == 0);
    CHECK(deviation(adapt::lora{.scale = adapt::scaling::rank_root, .rate_ratio = 16}) == 0);
    CHECK(deviation(adapt::mora{}) == 0);
    CHECK(deviation(adapt::nola{.right_count = 8, .left_count = 8}) == 0);
    CHECK(deviation(adapt::olora{}) < 1e-3);
    CHECK(deviation(adapt::lora_xs{.alpha = 1}) < 1e-2);
    CHECK(deviation(adapt::deep_lora{}) < 1e-4);
  }

  TEST_CASE("a merged model computes what base and adapters do, token by token too") {
    auto const c = wide();
    lowrank::host_executor exec{{.threads = 2}};
    batch const data{c, 1, 30};
    llama::activations<float> memory{c, 1, 30, llama::pass::inference};
    auto const check = [&](auto const& settings) {
      auto model = weights<float>(c, 0.1);
      auto set = adapters<float>(exec, model, settings, everywhere);
      set.reserve(30, 30);
      exec.reserve(set.workspace_bytes(30));
      disturb(set);
      auto merged_model = weights<float>(c, 0.1);
      std::ranges::copy(model.flat(), merged_model.flat().begin());
      double const base = llama::mean_loss(exec, model, data.view(), memory);
      double const adapted = llama::mean_loss(exec, model, data.view(), memory, set);
      llama::forward(exec, model, data.view().inputs, memory, set);
      std::vector<float> const logits(memory.logits().data, memory.logits().data + memory.logits().size());
      CHECK(std::abs(adapted - base) > 1e-4);
      set.each([&](role what, index_t l, any<float> const& a) {
        a.add_to(exec, 1.0F, merged_model.weight(llama::index_of(c, what, l)));
      });
      CHECK(llama::mean_loss(exec, merged_model, data.view(), memory) == doctest::Approx(adapted).epsilon(1e-5));
      llama::kv_cache<float> cache{c, 30};
      std::span<std::int32_t const> const text{data.inputs};
      llama::advance(exec, model, cache, text.first(20), set);
      for (std::size_t t = 20; t < 30; ++t) {
        auto const next = llama::advance(exec, model, cache, text.subspan(t, 1), set);
        auto const expected = std::span{logits}.subspan(t * static_cast<std::size_t>(c.vocabulary), next.size());
        CHECK(relative_distance(lowrank::row_major(next.data(), {1, c.vocabulary}),
                                lowrank::row_major(static_cast<float const*>(expected.data()), {1, c.vocabulary})) <
              1e-4);
      }
    };
    check(adapt::lora{});
    check(adapt::olora{});
    check(adapt::mora{});
    check(adapt::deep_lora{});
  }

  TEST_CASE("over codes the adapters' gradients are those over the numbers of the codes") {
    auto const c = wide(llama::output_head::tied);
    lowrank::host_executor exec{{.threads = 2}};
    batch const data{c, 2, 40};
    auto model = weights<float>(c);
    auto set = adapters<float>(exec, model, adapt::lora{}, everywhere);
    auto const codes = llama::frozen_in(
        exec, model, [](llama::parameter const&) { return llama::frozen_choice{adapt::frozen_format::nf4}; });
    exec.reserve(codes.workspace_bytes() + set.workspace_bytes(80));
    llama::parameters<float> plain{c};
    for (index_t i = 0; i < plain.count(); ++i) {
      auto const& p = codes[i];
      if (p.is_norm()) std::copy_n(codes.weight(i).data, p.shape.size(), plain.weight(i).data);
      else codes.frozen(p.what, std::max<index_t>(p.layer, 0)).dense(exec, plain.weight(i));
    }
    set.reserve(80, 80);
    disturb(set);
    set.begin({.mode = adapt::pass::training});
    llama::activations<float> memory{c, 2, 40, llama::pass::training};
    llama::gradients<float> none{codes, nothing(codes)};
    llama::gradients<float> none_either{plain, nothing(plain)};
    auto const gradients = [&] {
      std::vector<lowrank::matrix<float>> out;
      for (auto const& t : set.tensors()) {
        out.emplace_back(t.gradient.shape());
        std::copy_n(t.gradient.data, t.gradient.size(), out.back().data());
      }
      return out;
    };
    llama::loss_and_gradients(exec, plain, data.view(), memory, none_either, {}, llama::ignore_gradients{}, set);
    auto const expected = gradients();
    llama::loss_and_gradients(exec, codes, data.view(), memory, none, {}, llama::ignore_gradients{}, set);
    auto const got = gradients();
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(relative_distance(got[i].view(), expected[i].view()) < 1e-3);
  }

  TEST_CASE(
      "names and counts; wrong shapes, too many tokens and backward passes that nothing was kept for are refused") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto model = weights<float>(c);
    auto set = adapters<float>(exec, model, adapt::lora{.rank = 2, .rate_ratio = 16}, everywhere);
    set.reserve(16, 8);
    exec.reserve(set.workspace_bytes(16));
    auto const tensors = set.tensors();
    CHECK(tensors.size() == 28);
    CHECK(tensors[0].name == "model.layers.0.self_attn.q_proj.lora_A");
    CHECK(tensors[27].name == "model.layers.1.mlp.down_proj.lora_B");
    CHECK(tensors[1].rate == 16);
    index_t count = 0;
    for (auto const& t : tensors) count += t.values.size();
    CHECK(set.parameter_count() == count);
    CHECK(set.gradient_bytes() == count * index_t{sizeof(float)});
    CHECK(set.find(role::key, 0) != nullptr);
    llama::adapter_set<any<float>> fresh{c};
    CHECK_THROWS_WITH_AS(
        fresh.set(role::key, 1, any<float>{adapt::lora_adapter<float>{adapt::lora{.rank = 1}, {3, 4}}}),
        doctest::Contains("layers.1.self_attn.k_proj"), lowrank::shape_error);
    CHECK_THROWS_AS(
        fresh.set(role::embedding, 0, any<float>{adapt::lora_adapter<float>{adapt::lora{.rank = 1}, {3, 4}}}),
        lowrank::argument_error);
    batch const data{c, 2, 8};
    llama::activations<float> memory{c, 2, 8, llama::pass::training};
    llama::gradients<float> none{model, nothing(model)};
    CHECK_THROWS_AS(llama::forward(exec, model, data.view().inputs, memory, set), lowrank::state_error);
    batch const shorter{c, 1, 8};
    CHECK_THROWS_AS(
        llama::loss_and_gradients(exec, model, shorter.view(), memory, none, {}, llama::ignore_gradients{}, set),
        lowrank::state_error);
  }
}

}  // namespace adapters_test
