#include "lowrank/refresh/staggered.hpp"

#include <doctest/doctest.h>

#include "lowrank/refresh/budget.hpp"
#include "support/optimizers.hpp"
#include "support/refresh_runs.hpp"

namespace staggered_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

refresh_report nothing(index_t call, bool due) { return due ? accepted(call) : refresh_report{.call = call}; }

}  // namespace

TEST_SUITE("staggered") {
  TEST_CASE("due once a period, always at the same phase, and at call 0") {
    for (index_t const period : {1, 2, 7, 200})
      for (std::uint32_t const tensor : {0U, 1U, 2U, 77U, (1U << 24) - 1}) {
        CAPTURE(period);
        CAPTURE(tensor);
        auto const calls = refreshes_of(refresh::staggered{period}, 5 * period, nothing, {.tensor = tensor});
        REQUIRE(calls.size() >= 5);
        CHECK(calls[0] == 0);
        CHECK(calls[1] <= period);
        for (std::size_t i = 2; i < calls.size(); ++i) CHECK(calls[i] - calls[i - 1] == period);
      }
  }
  TEST_CASE("any run of consecutive tensors is spread evenly over the phases") {
    for (index_t const period : {7, 50, 200})
      for (std::uint32_t const first : {0U, 1U, 123U, 1U << 20})
        for (index_t const tensors : {2, 5, 7, 50, 224, 1000}) {
          CAPTURE(period);
          CAPTURE(first);
          CAPTURE(tensors);
          std::vector<index_t> count(static_cast<std::size_t>(period));
          for (index_t t = 0; t < tensors; ++t) {
            index_t const phase = refresh::phase_of(first + static_cast<std::uint32_t>(t), period);
            REQUIRE(phase >= 0);
            REQUIRE(phase < period);
            ++count[static_cast<std::size_t>(phase)];
          }
          // Multiples of the golden ratio: no phase has more than two above its share, none of a full set is left out by much.
          index_t const most = *std::max_element(count.begin(), count.end()),
                        least = *std::min_element(count.begin(), count.end());
          CHECK(most <= (tensors + period - 1) / period + 1);
          if (tensors >= 3 * period) CHECK(least >= tensors / period - 2);
        }
  }
  TEST_CASE("neighbours in number are far apart in phase") {
    for (std::uint32_t t = 0; t < 100; ++t) {
      index_t const apart = std::abs(refresh::phase_of(t, 1000) - refresh::phase_of(t + 1, 1000));
      CHECK(std::min(apart, 1000 - apart) > 300);
    }
  }
  TEST_CASE("a phase is part of what a state is: a saved one of another tensor is refused") {
    int identities = 0;
    auto state = refresh::staggered{10}.init({.tensor = 3});
    read_state(state, [&](std::string_view name, auto const&, auto is_identity) {
      CHECK(name == "phase");
      identities += is_identity() ? 1 : 0;
    });
    CHECK(identities == 1);
  }
  TEST_CASE("settings that cannot be meant are named") {
    CHECK(refusal<argument_error>([] { refresh::staggered{0}.check(); }) ==
          "lowrank::refresh::staggered: period must be at least 1, got 0");
  }
}

TEST_SUITE("budget") {
  TEST_CASE("the flops of the refreshes are at most the share, and of a longer period less would do") {
    extents const g{512, 1376};
    for (auto const form : {refresh::budget::gradient_form::dense, refresh::budget::gradient_form::factored})
      for (double const share : {0.01, 0.05, 0.3})
        for (index_t const tokens : {256, 4096})
          for (double const work : {1e8, 3e9, 4e10})
            for (std::uint32_t const tensor : {0U, 1U, 9U}) {
              CAPTURE(share);
              CAPTURE(tokens);
              CAPTURE(work);
              refresh::budget const policy{.share = share, .tokens = tokens, .gradient = form};
              bool const factored = form == refresh::budget::gradient_form::factored;
              refresh_context const context{
                  .tensor = tensor, .facing = g, .capacity = 1, .refresh_flops = [&](index_t t) {
                    CHECK(t == (factored ? tokens : 0));
                    return work;
                  }};
              // Forward, and the gradients of input and weight; without the weight's where it stays factored.
              double const step = (factored ? 4.0 : 6.0) * static_cast<double>(tokens * g.size());
              auto const state = policy.init(context);
              index_t const periods = std::max<index_t>(1000 / state.period, 3), calls = periods * state.period;
              if (calls > 1'000'000) continue;
              auto const when = refreshes_of(policy, calls, nothing, context);
              // All but the first, which no policy has a say in unless its phase is there as well.
              double const spent = work * static_cast<double>(periods);
              CHECK(static_cast<index_t>(when.size()) <= periods + 1);
              CHECK(static_cast<index_t>(when.size()) >= periods);
              if (state.period > 1 || work <= share * step)
                CHECK(spent <= share * step * static_cast<double>(calls) * (1 + 1e-12));
              if (state.period > 1) CHECK(work > share * step * static_cast<double>(state.period - 1));
            }
  }
  TEST_CASE("a refresh dearer than training on the whole is done rarely, not never") {
    refresh::budget const policy{.share = 1e-3, .tokens = 1};
    auto const state = policy.init({.facing = {2, 2}, .capacity = 1, .refresh_flops = [](index_t) { return 1e30; }});
    CHECK(state.period == 1'000'000'000);
    CHECK(policy.init({.facing = {2, 2}, .capacity = 1, .refresh_flops = [](index_t) { return 0.0; }}).period == 1);
  }
  TEST_CASE("settings that cannot be meant are named, and a finder that does not count its flops") {
    CHECK(refusal<argument_error>([] { refresh::budget{.share = 0}.check(); }) ==
          "lowrank::refresh::budget: share must be in (0, 1], got 0");
    CHECK(refusal<argument_error>([] { refresh::budget{.share = 1.5}.check(); }) ==
          "lowrank::refresh::budget: share must be in (0, 1], got 1.5");
    CHECK(refusal<argument_error>([] { refresh::budget{.tokens = 0}.check(); }) ==
          "lowrank::refresh::budget: tokens must be at least 1, got 0");
    CHECK(refusal<argument_error>([] { std::ignore = refresh::budget{}.init({}); }) ==
          "lowrank::refresh::budget: needs a finder with `flops`");
  }
}

}  // namespace staggered_test
