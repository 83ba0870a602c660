#include "../../../examples/llama/decode.hpp"

#include <doctest/doctest.h>

#include "fixture.hpp"

namespace decode_test {

using namespace llama_test;

namespace {

/// Largest difference between the logits that a cache gives after each part of a text and those of the forward pass over
/// all of it, relative to the largest logit.
template <class T>
double worst_logit(llama::config const& c, llama::linear_plan const& plan, std::vector<index_t> const& parts) {
  lowrank::host_executor exec{{.threads = 2}};
  auto model = weights<T>(c, 0.25, plan);
  shuffle_orders(model);
  index_t const length = std::accumulate(parts.begin(), parts.end(), index_t{0});
  batch const text{c, 1, length};
  llama::activations<T> memory{c, 1, length, llama::pass::inference, plan};
  llama::forward(exec, model, text.view().inputs, memory);
  llama::kv_cache<T> cache{c, length, plan};
  double worst = 0, largest = 0;
  for (index_t const part : parts) {
    auto const next =
        std::span{text.inputs}.subspan(static_cast<std::size_t>(cache.length()), static_cast<std::size_t>(part));
    auto const logits = llama::advance(exec, model, cache, std::span<std::int32_t const>{next});
    REQUIRE(static_cast<index_t>(logits.size()) == c.vocabulary);
    for (index_t i = 0; i < c.vocabulary; ++i) {
      double const expected = static_cast<double>(memory.logits()(cache.length() - 1, i));
      worst = std::max(worst, std::abs(static_cast<double>(logits[static_cast<std::size_t>(i)]) - expected));
      largest = std::max(largest, std::abs(expected));
    }
  }
  CHECK(cache.length() == length);
  return worst / largest;
}

}  // namespace

TEST_SUITE("llama decode") {
  TEST_CASE("logits from the cache are those of the whole pass, however the text is cut") {
    for (auto const head : {llama::output_head::own, llama::output_head::tied})
      for (auto const pairs : {llama::rotary_pairs::half_split, llama::rotary_pairs::interleaved})
        for (auto const& parts : {std::vector<index_t>{9}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 1, 3, 1}, {1, 8}, {8, 1}}) {
          auto c = tiny(head);
          c.rotary = pairs;
          CHECK(worst_logit<double>(c, {}, parts) < 1e-12);
          CHECK(worst_logit<float>(c, {}, parts) < 2e-5);
        }
    auto c = wide();
    c.sequence = 150;
    CHECK(worst_logit<double>(c, {}, {150}) < 1e-12);  // more than the cache takes at once
    CHECK(worst_logit<double>(c, {}, {64, 1, 1, 65, 19}) < 1e-12);
  }

  TEST_CASE("and with weights in factors, pivoted, with biases") {
    auto const c = wide();
    CHECK(worst_logit<double>(c, mixed_plan(c), {45}) < 1e-12);
    CHECK(worst_logit<double>(c, mixed_plan(c), {40, 1, 1, 1, 2}) < 1e-12);
  }

  TEST_CASE("what the cache forgets can be read again") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    batch const text{c, 1, 6};
    std::span<std::int32_t const> const all{text.inputs};
    llama::kv_cache<float> cache{c, 9};
    auto const logits = [&](std::span<std::int32_t const> part) {
      auto const out = llama::advance(exec, model, cache, part);
      return std::vector<float>(out.begin(), out.end());
    };
    logits(all.first(3));
    auto const expected = logits(all.subspan(3, 1));
    logits(all.subspan(4, 2));
    cache.cut(3);
    CHECK(logits(all.subspan(3, 1)) == expected);
    cache.cut(0);
    CHECK(cache.length() == 0);
    CHECK_THROWS_AS(cache.cut(1), lowrank::argument_error);
  }

  TEST_CASE("the same text as without a cache, for the same seed") {
    auto c = wide();
    c.sequence = 60;
    lowrank::host_executor exec{{.threads = 2}};
    auto const model = weights<double>(c);
    llama::activations<double> memory{c, 1, c.sequence, llama::pass::inference};
    for (double const temperature : {0.0, 1.0}) {
      llama::sampling const draw{.count = 40, .temperature = temperature, .seed = 7};
      std::vector<std::int32_t> slow{3, 1, 4}, fast = slow;
      llama::generate(exec, model, memory, slow, draw);
      llama::kv_cache<double> cache{c, c.sequence};
      llama::generate(exec, model, cache, fast, {.draw = draw});
      CHECK(fast == slow);
      CHECK(cache.length() == 42);  // the last one was never read
      // A stop token ends the text, and the text can go on from there.
      auto const stop = slow[20];
      auto const first = std::ranges::find(slow.begin() + 3, slow.end(), stop) - slow.begin();
      std::vector<std::int32_t> ended{3, 1, 4};
      cache.cut(0);
      llama::generate(exec, model, cache, ended, {.draw = draw, .stop = stop});
      CHECK(ended == std::vector<std::int32_t>(slow.begin(), slow.begin() + first + 1));
    }
  }

  TEST_CASE("any number of threads gives the same bits") {
    auto const c = wide();
    auto const model = weights<float>(c);
    batch const text{c, 1, 20};
    std::vector<float> first;
    for (int const threads : {1, 2, 5}) {
      lowrank::host_executor exec{{.threads = threads}};
      llama::kv_cache<float> cache{c, 20};
      llama::advance(exec, model, cache, std::span<std::int32_t const>{text.inputs}.first(18));
      auto const logits = llama::advance(exec, model, cache, std::span<std::int32_t const>{text.inputs}.subspan(18));
      if (first.empty()) first.assign(logits.begin(), logits.end());
      CHECK(std::ranges::equal(logits, first));
    }
  }

  TEST_CASE("misuse is refused before anything is read") {
    auto const c = tiny();
    lowrank::host_executor exec{{.threads = 1}};
    auto const model = weights<float>(c);
    CHECK_THROWS_AS((llama::kv_cache<float>{c, 0}), lowrank::shape_error);
    CHECK_THROWS_AS((llama::kv_cache<float>{c, c.sequence + 1}), lowrank::shape_error);
    CHECK_THROWS_AS((llama::kv_cache<float>{c, -5}), lowrank::shape_error);
    llama::kv_cache<float> cache{c, 4};
    auto const read = [&](std::vector<std::int32_t> const& text) {
      llama::advance(exec, model, cache, std::span<std::int32_t const>{text});
    };
    CHECK_THROWS_AS(read({}), lowrank::argument_error);
    CHECK_THROWS_AS(read({1, 11}), lowrank::argument_error);
    CHECK_THROWS_AS(read({1, -1}), lowrank::argument_error);
    CHECK_THROWS_AS(read({1, 2, 3, 4, 5}), lowrank::shape_error);
    CHECK(cache.length() == 0);
    read({1, 2, 3});
    CHECK_THROWS_AS(read({1, 2}), lowrank::shape_error);
    CHECK(cache.length() == 3);
    auto const other = weights<float>(tiny(llama::output_head::tied));
    std::vector<std::int32_t> text{1, 2, 3, 4};
    CHECK_THROWS_AS(llama::advance(exec, other, cache, std::span<std::int32_t const>{text}.last(1)),
                    lowrank::argument_error);
    CHECK_THROWS_AS(llama::generate(exec, model, cache, text, {.draw = {.count = 1}}), lowrank::shape_error);
    text.pop_back();
    CHECK_THROWS_AS(llama::generate(exec, model, cache, text, {.draw = {.count = 1}}), lowrank::argument_error);
    cache.cut(0);
    CHECK_THROWS_AS(llama::generate(exec, model, cache, text, {.draw = {.count = 1, .temperature = -1}}),
                    lowrank::argument_error);
    CHECK(text.size() == 3);
    lowrank::host_executor narrow{{.threads = 1, .worker_bytes = 64}};
    auto longer = wide();
    auto const wide_model = weights<float>(longer);
    llama::kv_cache<float> long_cache{longer, 45};
    std::vector<std::int32_t> const one{1};
    CHECK_THROWS_AS(llama::advance(narrow, wide_model, long_cache, std::span<std::int32_t const>{one}),
                    lowrank::state_error);
  }
}

}  // namespace decode_test
