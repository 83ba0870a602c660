#include "lowrank/refresh/lazy_overlap.hpp"

#include <doctest/doctest.h>

#include <deque>
#include <functional>
#include <numeric>

#include "lowrank/core/rng.hpp"
#include "support/optimizers.hpp"
#include "support/refresh_runs.hpp"

namespace lazy_overlap_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// The cosine of refresh number `count` (from 1: the first has nothing to be compared with).
using cosines = std::function<double(index_t count)>;

/// Q-GaLore's loop: a queue, a gap, and k mod gap.
std::vector<index_t> published(index_t calls, index_t gap, double threshold, double factor, std::size_t history,
                               cosines const& cosine) {
  std::deque<double> queue;
  std::vector<index_t> out;
  for (index_t k = 0; k < calls; ++k) {
    if (k % gap != 0) continue;
    out.push_back(k);
    if (out.size() == 1) continue;
    if (queue.size() == history) queue.pop_front();
    queue.push_back(cosine(static_cast<index_t>(out.size()) - 1));
    if (queue.size() == history &&
        std::accumulate(queue.begin(), queue.end(), 0.0) / static_cast<double>(history) >= threshold)
      gap = static_cast<index_t>(static_cast<double>(gap) * factor);
  }
  return out;
}
std::vector<index_t> ours(index_t calls, refresh::lazy_overlap const& policy, cosines const& cosine) {
  index_t count = 0;
  return refreshes_of(policy, calls, [&](index_t call, bool due) {
    if (!due) return refresh_report{.call = call};
    auto report = accepted(call);
    if (count > 0) {
      double const now = cosine(count);
      report.overlap = policy.of == refresh::likeness::subspace ? now : 0.123;
      report.first_cosine = policy.of == refresh::likeness::subspace ? -0.5 : now;
    }
    ++count;
    return report;
  });
}

}  // namespace

TEST_SUITE("lazy overlap") {
  TEST_CASE("a subspace that stands still: the gap doubles first at the 6th refresh, call 5 gaps, then at each") {
    for (index_t const gap : {1, 4, 200}) {
      auto const calls = ours(40 * gap, {.gap = gap}, [](index_t) { return 0.9; });
      // 0 ... 5 gaps; the next multiples of 2, 4, 8, 16, 32 gaps.
      std::vector<index_t> expected{0, 1, 2, 3, 4, 5, 6, 8, 16, 32};
      for (auto& k : expected) k *= gap;
      CHECK(calls == expected);
    }
  }
  TEST_CASE("the published loop, call for call") {
    auto const random = [](double low, double high, std::uint64_t seed) {
      return [=](index_t count) {
        return low + (high - low) * uniform({.seed = seed}, static_cast<std::uint64_t>(count));
      };
    };
    for (auto const of : {refresh::likeness::subspace, refresh::likeness::first_vectors})
      for (std::uint64_t seed = 0; seed < 20; ++seed)
        for (auto const& cosine :
             {cosines{random(0, 1, seed)}, cosines{random(0.2, 0.6, seed)}, cosines{random(0, 0.8, seed)}}) {
          CHECK(ours(4000, {.gap = 10, .of = of}, cosine) == published(4000, 10, 0.4, 2, 5, cosine));
          CHECK(ours(4000, {.gap = 7, .threshold = 0.3, .factor = 1.5, .history = 3, .of = of}, cosine) ==
                published(4000, 7, 0.3, 1.5, 3, cosine));
        }
  }
  TEST_CASE("a mean of exactly the threshold counts, one below does not") {
    CHECK(ours(100, {.gap = 2, .threshold = 0.5}, [](index_t) { return 0.5; }).size() < 12);
    CHECK(ours(100, {.gap = 2, .threshold = 0.5}, [](index_t) { return 0.4999; }).size() == 50);
    // One outlier, and it waits until that has left the queue of five.
    auto const dip = [](index_t count) { return count == 4 ? 0.0 : 1.0; };
    auto const calls = ours(40, {.gap = 2, .threshold = 0.9}, dip);
    CHECK(calls == published(40, 2, 0.9, 2, 5, dip));
    CHECK(calls == std::vector<index_t>{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 32});
  }
  TEST_CASE("the gap never exceeds the longest") {
    auto const calls = ours(200, {.gap = 2, .longest = 10}, [](index_t) { return 1.0; });
    index_t widest = 0;
    for (std::size_t i = 1; i < calls.size(); ++i) widest = std::max(widest, calls[i] - calls[i - 1]);
    CHECK(widest == 10);
    refresh::lazy_overlap const policy{.gap = 1000, .factor = 1e6};
    auto state = policy.init({});
    for (int k = 0; k < 20; ++k) {
      auto report = accepted(k);
      report.overlap = 1;
      policy.observe(state, report);
    }
    CHECK(state.gap == policy.longest);
  }
  TEST_CASE("refusals, and refreshes with nothing to compare with, say nothing") {
    refresh::lazy_overlap const policy{.gap = 3};
    auto state = policy.init({});
    auto const before = saved(state);
    policy.observe(state, accepted(0));
    policy.observe(state, {.call = 3, .overlap = 1, .first_cosine = 1, .attempted = 1, .bad_gradient = 1});
    policy.observe(state, {.call = 6, .attempted = 1, .unchanged = 1});
    CHECK(saved(state) == before);
  }
  TEST_CASE("settings that cannot be meant are named") {
    CHECK(refusal<argument_error>([] { refresh::lazy_overlap{.gap = 0}.check(); }) ==
          "lowrank::refresh::lazy_overlap: needs 1 <= gap <= longest, got 0 and 1000000");
    CHECK(refusal<argument_error>([] { refresh::lazy_overlap{.gap = 9, .longest = 8}.check(); }) ==
          "lowrank::refresh::lazy_overlap: needs 1 <= gap <= longest, got 9 and 8");
    CHECK(refusal<argument_error>([] { refresh::lazy_overlap{.history = 17}.check(); }) ==
          "lowrank::refresh::lazy_overlap: history must be in [1, 16], got 17");
    CHECK(refusal<argument_error>([] { refresh::lazy_overlap{.factor = 0.5}.check(); }) ==
          "lowrank::refresh::lazy_overlap: factor must be in [1, 1e6], got 0.5");
    CHECK(refusal<argument_error>([] { refresh::lazy_overlap{.threshold = 1.5}.check(); }) ==
          "lowrank::refresh::lazy_overlap: threshold must be in [-1, 1], got 1.5");
  }
}

}  // namespace lazy_overlap_test
