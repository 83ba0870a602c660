#include <doctest/doctest.h>

#include "../../../examples/llama/fading_adapters.hpp"
#include "../../../examples/llama/model.hpp"
#include "fixture.hpp"
#include "support/executors.hpp"

namespace fading_test {

using namespace llama_test;
using llama::role;
namespace adapt = lowrank::adapt;

namespace {

struct fading_case {
  llama::config c = tiny(llama::output_head::tied);
  lowrank::host_executor exec{{.threads = 1}};
  llama::parameters<double> teacher = weights<double>(c), model = weights<double>(c);
  batch data{c, 2, 8};
  llama::activations<double> memory{c, 2, 8, llama::pass::training};
  llama::fading_adapters<double> set{c};

  explicit fading_case(adapt::pc_lora const& settings) {
    for (index_t l = 0; l < c.layers; ++l)
      for (index_t i = 0; i < llama::linear_roles; ++i) {
        auto const what = static_cast<role>(i);
        if (what == role::key) continue;  // stays as it is
        auto const index = llama::index_of(c, what, l);
        set.set(what, l,
                adapt::make_adapter<double>(exec, settings, model.weight(index),
                                            {.seed = 2, .tensor = static_cast<std::uint32_t>(index)}));
      }
    set.reserve(16, 16);
    set.begin({.mode = adapt::pass::training});
    exec.reserve(set.workspace_bytes(16));
  }
  double loss(adapt::distillation const& how) {
    llama::forward(exec, teacher, data.view().inputs, memory);
    set.remember_teacher(exec, memory);
    llama::forward(exec, model, data.view().inputs, memory, set);
    double const features = set.distil(exec, memory, how);
    return features +
           how.task_weight() * llama::cross_entropy(exec, memory, data.targets, {.scale = how.task_weight()});
  }
};

}  // namespace

TEST_SUITE("llama fading") {
  TEST_CASE("gradients of task and features agree with finite differences while the base fades") {
    for (double const share : {1.0, 0.6, 0.0}) {
      CAPTURE(share);
      fading_case f{{.rank = 4, .alpha = 4}};
      f.set.set_share(share);
      for (auto const& t : f.set.tensors())
        for (index_t e = 0; e < t.values.size(); ++e)
          t.values.data[e] += 0.15 * static_cast<double>(lowrank::gaussian({.seed = 5}, static_cast<std::uint64_t>(e)));
      adapt::distillation const how{.task_share = 0.3F};
      f.loss(how);
      llama::gradients<double> none{f.model,
                                    std::vector(static_cast<std::size_t>(f.model.count()), llama::gradient_form::none)};
      llama::backward(f.exec, f.model, f.data.view().inputs, f.memory, none, llama::accumulation::overwrite,
                      llama::ignore_gradients{}, f.set);
      std::uint32_t number = 0;
      for (auto const& t : f.set.tensors()) {
        CAPTURE(t.name);
        double norm = 0, slope = 0;
        lowrank::rng_key const key{.seed = 17, .tensor = number++};
        auto const along = [&](index_t e) {
          return static_cast<double>(lowrank::gaussian(key, static_cast<std::uint64_t>(e)));
        };
        for (index_t e = 0; e < t.gradient.size(); ++e) {
          norm += t.gradient.data[e] * t.gradient.data[e];
          slope += t.gradient.data[e] * along(e);
        }
        CHECK(norm > 1e-12);
        auto const loss_at = [&](double step) {
          for (index_t e = 0; e < t.values.size(); ++e) t.values.data[e] += step * along(e);
          double const loss = f.loss(how);
          for (index_t e = 0; e < t.values.size(); ++e) t.values.data[e] -= step * along(e);
          return loss;
        };
        double const h = 2e-3 / std::sqrt(static_cast<double>(t.values.size()));
        double const numeric = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
        CHECK(std::abs(numeric - slope) <= 1e-6 * std::sqrt(norm));
      }
    }
  }

  TEST_CASE("with all of the base nothing has changed, and without it the pair is the layer") {
    fading_case f{{.rank = 10, .alpha = 10, .start = adapt::pc_lora_start::truncated_svd}};
    auto const logits = [&](auto&& adapters, auto const& model) {
      llama::forward(f.exec, model, f.data.view().inputs, f.memory, adapters);
      lowrank::matrix<double> out{f.memory.logits().shape()};
      std::copy_n(f.memory.logits().data, out.shape().size(), out.data());
      return out;
    };
    auto const base = logits(llama::no_adapters{}, f.teacher);
    CHECK(relative_distance(logits(f.set, f.model).view(), base.view()) < 1e-10);
    // Rank 10 is all there is of gate, up and down, and most of the others.
    f.set.set_share(0);
    auto const pair = logits(f.set, f.model);
    auto merged_model = weights<double>(f.c);
    f.set.each([&](role what, index_t l, adapt::lora_adapter<double> const& a) {
      auto const w = merged_model.weight(llama::index_of(f.c, what, l));
      std::fill_n(w.data, w.size(), 0.0);
      a.add_to(f.exec, 1.0, w);
    });
    CHECK(relative_distance(pair.view(), logits(llama::no_adapters{}, merged_model).view()) < 1e-12);
    CHECK(relative_distance(pair.view(), base.view()) > 1e-3);
    CHECK_THROWS_AS(f.set.set_share(1.5), lowrank::argument_error);
    llama::fading_adapters<double> fresh{f.c};
    CHECK_THROWS_AS((void)fresh.distil(f.exec, f.memory, {}), lowrank::state_error);
  }
}

}  // namespace fading_test
