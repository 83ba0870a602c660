#include "lowrank/refresh/captured_energy.hpp"

#include <doctest/doctest.h>

#include <functional>

#include "support/optimizers.hpp"
#include "support/refresh_runs.hpp"

namespace captured_energy_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Refreshes when the basis, `age` calls old (0: just found, on the gradient at hand), captures `share(call, age)`.
std::vector<index_t> refreshes_at(refresh::captured_energy const& policy, index_t calls,
                                  std::function<double(index_t call, index_t age)> const& share) {
  index_t last = 0;
  return refreshes_of(policy, calls, [&](index_t call, bool due) {
    if (due) last = call;
    refresh_report report = due ? accepted(call) : refresh_report{.call = call};
    report.captured = share(call, call - last);
    return report;
  });
}

}  // namespace

TEST_SUITE("captured energy") {
  TEST_CASE("the gradient that the basis was fitted to is no yardstick: what falls at once and stays is no loss") {
    auto const calls = refreshes_at({.longest = 50}, 101, [](index_t, index_t age) { return age == 0 ? 0.95 : 0.35; });
    CHECK(calls == std::vector<index_t>{0, 50, 100});
  }
  TEST_CASE("a fall below (1 - tolerance) of the yardstick is one, as soon as the running mean is there") {
    // From call 20 on, 0.3: the running mean after n calls is 0.3 + 0.8^n 0.3, first below 0.48 for n = 3.
    refresh::captured_energy const policy{};
    auto const falls = [](index_t call, index_t age) { return age == 0 ? 0.95 : call < 20 ? 0.6 : 0.3; };
    auto const calls = refreshes_at(policy, 40, falls);
    REQUIRE(calls.size() == 2);
    // Calls 20, 21, 22 saw the fall; 23 hears of the third.
    CHECK(calls[1] == 23);
    CHECK(0.3 + std::pow(0.8, 2) * 0.3 > 0.48);
    CHECK(0.3 + std::pow(0.8, 3) * 0.3 < 0.48);
    // A fall to just above is none.
    CHECK(refreshes_at(policy, 400, [](index_t call, index_t age) {
            return age == 0 ? 0.95 : call < 20 ? 0.6 : 0.4801;
          }) == std::vector<index_t>{0});
    CHECK(refreshes_at({.tolerance = 0.19}, 400, [](index_t call, index_t age) {
            return age == 0 ? 0.95 : call < 20 ? 0.6 : 0.4801;
          }).size() > 1);
  }
  TEST_CASE("the yardstick is the mean of the first `settle` gradients after the refresh, and nothing fires before") {
    for (index_t const settle : {1, 5, 9}) {
      refresh::captured_energy const policy{.settle = settle, .smoothing = 0};
      // From low to high while it settles, with a mean of 0.5; then `later`.
      auto const run = [&](double later) {
        return refreshes_at(policy, settle + 4, [&](index_t, index_t age) {
          double const from_middle = static_cast<double>(age) - static_cast<double>(settle + 1) / 2;
          return age == 0 ? 1.0 : age <= settle ? 0.5 + 0.1 * from_middle : later;
        });
      };
      CAPTURE(settle);
      CHECK(run(0.399).at(1) == settle + 2);
      CHECK(run(0.401).size() == 1);
    }
  }
  TEST_CASE("after `longest` calls whatever it captures, counted from the refresh") {
    CHECK(refreshes_at({.longest = 10}, 35, [](index_t, index_t) { return 0.9; }) ==
          std::vector<index_t>{0, 10, 20, 30});
    // A fall starts the count anew.
    auto const calls =
        refreshes_at({.smoothing = 0, .longest = 20}, 50, [](index_t call, index_t) { return call < 12 ? 0.9 : 0.2; });
    CHECK(calls == std::vector<index_t>{0, 13, 33});
  }
  TEST_CASE("after a refusal it waits for a new yardstick") {
    refresh::captured_energy const policy{.settle = 3, .smoothing = 0, .longest = 100};
    auto state = policy.init({});
    auto const see = [&](index_t call, double share) { policy.observe(state, {.call = call, .captured = share}); };
    policy.observe(state, accepted(0));
    for (index_t k = 1; k <= 3; ++k) see(k, 0.8);
    see(4, 0.1);
    CHECK(policy.due(state, 5));
    policy.observe(state, {.call = 5, .captured = 0.1, .attempted = 1});
    CHECK_FALSE(policy.due(state, 6));
    for (index_t k = 6; k <= 8; ++k) see(k, 0.1);
    CHECK_FALSE(policy.due(state, 9));
    see(9, 0.11);
    CHECK_FALSE(policy.due(state, 10));
    see(10, 0.05);
    CHECK(policy.due(state, 11));
  }
  TEST_CASE("calls without a measurement do not count") {
    refresh::captured_energy const policy{.settle = 2, .smoothing = 0};
    auto state = policy.init({});
    policy.observe(state, accepted(0));
    policy.observe(state, {.call = 1, .captured = 0.5});
    auto const before = saved(state);
    policy.observe(state, {.call = 2, .captured = -1});
    CHECK(saved(state) == before);
  }
  TEST_CASE("settings that cannot be meant are named") {
    CHECK(refusal<argument_error>([] { refresh::captured_energy{.tolerance = 0}.check(); }) ==
          "lowrank::refresh::captured_energy: tolerance must be in (0, 1), got 0");
    CHECK(refusal<argument_error>([] { refresh::captured_energy{.tolerance = 1}.check(); }) ==
          "lowrank::refresh::captured_energy: tolerance must be in (0, 1), got 1");
    CHECK(refusal<argument_error>([] { refresh::captured_energy{.smoothing = 1}.check(); }) ==
          "lowrank::refresh::captured_energy: smoothing must be in [0, 1), got 1");
    CHECK(refusal<argument_error>([] { refresh::captured_energy{.settle = 0}.check(); }) ==
          "lowrank::refresh::captured_energy: needs 1 <= settle < longest, got 0 and 1000");
    CHECK(refusal<argument_error>([] { refresh::captured_energy{.settle = 5, .longest = 5}.check(); }) ==
          "lowrank::refresh::captured_energy: needs 1 <= settle < longest, got 5 and 5");
  }
}

}  // namespace captured_energy_test
