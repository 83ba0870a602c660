// Fine-tunings by every method, rule and format of the base, on a model small enough to do them all.
#include <doctest/doctest.h>

#include "../io/temporary_folder.hpp"
#include "../llama/fixture.hpp"
#include "adapt/trial_run.hpp"
#include "support/decompositions.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/named_optimizers.hpp"

namespace trial_test {

namespace {

using namespace lowrank_test;
namespace adapt = lowrank::adapt;
using llama::index_t;

/// A model that knows nothing, and a text that is easy to learn: every word is followed by the same one.
struct task {
  lowrank::host_executor exec{{.threads = 2}};
  llama::config config{
      .vocabulary = 11, .width = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48, .sequence = 256};
  llama::parameters<float> model{llama_test::weights<float>(config, 0.15)};
  std::vector<std::int32_t> text, other;
  std::map<std::string, smollm2::windows> none;
  temporary_folder folder;

  task() {
    for (std::int32_t i = 0; i < 1200; ++i) text.push_back(i * 3 % 11), other.push_back((i + 5) * 3 % 11);
  }
  adapting::trial_result run(adapting::trial const& t) {
    smollm2::windows const scored{"other", other, {3, 16, 0, 100}};
    adapting::trial_data const data{.name = "text",
                                    .text = text,
                                    .scored = scored,
                                    .also_scored = none,
                                    .base = 11,
                                    .measurements = 1,
                                    .adapters = folder / "adapters"};
    adapting::frozen_bases<lowrank::host_executor> bases{text, 4};
    return adapting::run_trial(exec, t, model, data, bases);
  }
};

adapting::trial small_trial() {
  adapting::trial t;
  t.rank = 4, t.samples = 32, t.steps = 40, t.length = 16, t.batch = 2, t.rate = 1e-2;
  return t;
}

}  // namespace

TEST_SUITE("adapt") {
  TEST_CASE("every method learns over every format, and the model stays as it was") {
    task it;
    auto const before = std::vector<float>(it.model.flat().begin(), it.model.flat().end());
    for (std::string const method : adapting::method_names)
      for (std::string const base : {"fp32", "bf16", "int8", "nf4", "nf4_gptq", "nf4_mixed"}) {
        if (method == "loftq" && !adapting::is_rounded(base)) continue;
        CAPTURE(method);
        CAPTURE(base);
        auto t = small_trial();
        t.method = method, t.base = base, t.embedding = base.starts_with("nf4") ? "int8" : base;
        t.base_bytes = 0.5;
        t.rate = 10 * adapting::usual_rate(method, t.samples);
        auto const out = it.run(t);
        CHECK(out.after < 0.9 * out.before);
        CHECK(out.file_bytes > 4 * (method == "nola" || method == "lora_xs" ? 0 : out.parameters));
        CHECK(std::ranges::equal(it.model.flat(), before));
      }
  }

  TEST_CASE("every rule moves them") {
    task it;
    for (auto const& [rule, options, rate] :
         {std::tuple{"adamw", "", 1e-2}, std::tuple{"lion", "", 3e-3}, std::tuple{"sgd", "momentum=0.9", 0.3},
          std::tuple{"adafactor", "", 1e-2}, std::tuple{"adamw_8bit", "", 1e-2},
          std::tuple{"galore_adamw", "rank=2", 3e-2}}) {
      CAPTURE(rule);
      auto t = small_trial();
      t.rule = rule, t.rule_options = options, t.rate = rate;
      auto const out = it.run(t);
      CHECK(out.after < 0.9 * out.before);
      CHECK(out.optimizer_bytes > 0);
    }
  }

  TEST_CASE("what LoftQ leaves on the disk is what it has learnt, for the model as published") {
    task it;
    auto t = small_trial();
    t.method = "loftq", t.base = "nf4", t.embedding = "int8", t.steps = 1, t.rate = 1e-9;  // nothing to speak of
    static_cast<void>(it.run(t));
    auto const read = adapt::read_peft(it.folder / "adapters" / name(t));
    REQUIRE(read.modules.size() == 14);
    for (auto const& module : read.modules) {
      CHECK(module.rank() == 8);
      CHECK(module.base.has_value());
      auto const lora = adapt::to_lora(it.exec, read.config, module);
      lowrank::matrix<float> change{module.shape()};
      lora.add_to(it.exec, 1.0F, change.view());
      CHECK(largest_difference(change.view(), lowrank::matrix<float>{module.shape()}.view()) < 1e-5);
    }
  }

  TEST_CASE("what cannot be adapted is refused by the name of its tensor") {
    task it;
    auto t = small_trial();
    t.rank = 20;  // wider than the keys
    CHECK_THROWS_WITH_AS(static_cast<void>(it.run(t)), doctest::Contains("k_proj"), lowrank::shape_error);
  }
}

}  // namespace trial_test
