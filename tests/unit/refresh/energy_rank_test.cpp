#include "lowrank/refresh/energy_rank.hpp"

#include <doctest/doctest.h>

#include "lowrank/refresh/captured_energy.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "support/optimizers.hpp"
#include "support/refresh_runs.hpp"

namespace energy_rank_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// The rank after hearing that `needed` columns of `rank` reached the share (0: not even all of them).
index_t rank_after(refresh::energy_rank<> const& policy, index_t capacity, index_t rank, index_t needed) {
  auto state = policy.init({.capacity = capacity});
  policy.observe(state, {.call = 1, .rank = rank, .needed_rank = needed, .attempted = 1, .accepted = 1});
  return policy.rank(state);
}

}  // namespace

TEST_SUITE("energy rank") {
  TEST_CASE("begins with all there may be") {
    CHECK(refresh::energy_rank<>{}.rank(refresh::energy_rank<>{}.init({.capacity = 40})) == 40);
  }
  TEST_CASE("as many columns as reached the share, in whole multiples, between least and capacity") {
    refresh::energy_rank<> const policy{};
    CHECK(rank_after(policy, 100, 100, 1) == 8);
    CHECK(rank_after(policy, 100, 100, 8) == 8);
    CHECK(rank_after(policy, 100, 100, 9) == 16);
    CHECK(rank_after(policy, 100, 100, 33) == 40);
    CHECK(rank_after(policy, 100, 100, 98) == 100);
    CHECK(rank_after(policy, 4, 4, 2) == 4);
    refresh::energy_rank<> const fine{.least = 3, .multiple = 1};
    CHECK(rank_after(fine, 100, 50, 1) == 3);
    CHECK(rank_after(fine, 100, 50, 17) == 17);
    refresh::energy_rank<> const coarse{.least = 20, .multiple = 16};
    CHECK(rank_after(coarse, 100, 50, 1) == 32);
  }
  TEST_CASE("where all of them were too few, half as many more, or a multiple") {
    refresh::energy_rank<> const policy{};
    CHECK(rank_after(policy, 100, 8, 0) == 16);
    CHECK(rank_after(policy, 100, 32, 0) == 48);
    CHECK(rank_after(policy, 100, 48, 0) == 72);
    CHECK(rank_after(policy, 100, 96, 0) == 100);
    CHECK(rank_after({.least = 1, .multiple = 1}, 100, 1, 0) == 2);
  }
  TEST_CASE("refusals and other calls leave the rank alone") {
    refresh::energy_rank<> const policy{};
    auto state = policy.init({.capacity = 64});
    policy.observe(state, {.call = 0, .rank = 64, .needed_rank = 20, .attempted = 1, .accepted = 1});
    policy.observe(state, {.call = 3, .rank = 24, .attempted = 1});
    policy.observe(state, {.call = 4, .rank = 24, .captured = 0.5});
    CHECK(policy.rank(state) == 24);
  }
  TEST_CASE("when to refresh is the inner policy's business") {
    auto const same = [](auto const& inner) {
      using policy_type = refresh::energy_rank<std::remove_cvref_t<decltype(inner)>>;
      policy_type policy;
      policy.when = inner;
      static_assert(policy_type::traits.needs_overlap == std::remove_cvref_t<decltype(inner)>::traits.needs_overlap);
      static_assert(policy_type::traits.needs_captured == std::remove_cvref_t<decltype(inner)>::traits.needs_captured);
      static_assert(policy_type::traits.changes_rank);
      auto const seen = [](index_t call, bool due) {
        auto report = due ? accepted(call) : refresh_report{.call = call};
        report.captured = call < 33 ? 0.6 : 0.2;
        report.overlap = report.first_cosine = due ? 0.9 : -2;
        report.needed_rank = due ? 5 : -1;
        return report;
      };
      return refreshes_of(policy, 200, seen) == refreshes_of(inner, 200, seen);
    };
    CHECK(same(refresh::every{7}));
    CHECK(same(refresh::lazy_overlap{.gap = 3}));
    CHECK(same(refresh::captured_energy{.longest = 40}));
  }
  TEST_CASE("settings that cannot be meant are named, the inner policy's too") {
    CHECK(refusal<argument_error>([] { refresh::energy_rank<>{.energy = 0}.check(); }) ==
          "lowrank::refresh::energy_rank: energy must be in (0, 1], got 0");
    CHECK(refusal<argument_error>([] { refresh::energy_rank<>{.energy = 1.1}.check(); }) ==
          "lowrank::refresh::energy_rank: energy must be in (0, 1], got 1.1");
    CHECK(refusal<argument_error>([] { refresh::energy_rank<>{.least = 0}.check(); }) ==
          "lowrank::refresh::energy_rank: least and multiple must be at least 1, got 0 and 8");
    CHECK(refusal<argument_error>([] { refresh::energy_rank<>{.when = {0}}.check(); }) ==
          "lowrank::refresh::every: period must be at least 1, got 0");
  }
}

}  // namespace energy_rank_test
