#include "lowrank/rank/welore.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

#include "lowrank/core/rng.hpp"
#include "support/optimizers.hpp"

namespace welore_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

spectrum of(std::vector<double> values) {
  auto const n = static_cast<index_t>(values.size());
  return {.shape = {n, n + 2}, .values = std::move(values)};
}

/// Some spectra, flat to steep, with values that are equal here and there.
std::vector<spectrum> random_spectra(std::uint64_t seed) {
  std::vector<spectrum> out;
  for (std::uint64_t k = 0; k < 6; ++k) {
    std::vector<double> values;
    for (std::uint64_t i = 0; i < 5 + 3 * k; ++i) {
      double const x = std::abs(static_cast<double>(gaussian({.seed = seed}, 100 * k + i)));
      values.push_back(i % 4 == 3 ? values.back() : std::pow(x, static_cast<double>(k + 1)));
    }
    std::ranges::sort(values, std::greater<>{});
    out.push_back(of(std::move(values)));
  }
  return out;
}

/// Published rule, written down once more: cuts of one threshold, and the ERR that counts.
std::pair<std::vector<index_t>, double> published(std::vector<spectrum> const& spectra, double k, double gate) {
  std::vector<index_t> ranks;
  index_t cut_in_all = 0, all = 0;
  for (auto const& one : spectra) {
    double const least = one.values.back(), spread = one.values.front() - least;
    index_t cut = 0;
    for (double const s : one.values) cut += (s - least) / spread < k ? 1 : 0;
    index_t const length = one.length();
    bool const counts = static_cast<double>(cut) / static_cast<double>(length) > gate;
    cut_in_all += counts ? cut : 0;
    all += length;
    ranks.push_back(counts ? length - cut : length);
  }
  return {ranks, static_cast<double>(cut_in_all) / static_cast<double>(all)};
}

}  // namespace

TEST_SUITE("WeLore's ranks") {
  // Normalised: 1, .5, .25, 0 and 1, .9, .8, 0.
  std::vector<spectrum> const two{of({5, 3, 2, 1}), of({11, 10, 9, 1})};

  TEST_CASE("by hand: the quantile of the pooled normalised values") {
    // Pool: 0 0 .25 .5 .8 .9 1 1. ERR 1/2: the element of rank 4 is .8, below it lie 0 .25 .5 and 0.
    auto const half = ranks::welore{}.allocate(two, {.removal = 0.5});
    CHECK(half.threshold == doctest::Approx(0.8));
    CHECK(half.ranks == std::vector<index_t>{1, 3});
    CHECK(half.reached == 0.5);
    CHECK(half.rank_reduction == 0.5);
    // Round(.3 * 8) = 2, .25: one of each.
    CHECK(ranks::welore{}.allocate(two, {.removal = 0.3}).ranks == std::vector<index_t>{3, 3});
    // Rank 1 is a 0, of which there are two: nothing lies below.
    auto const tie = ranks::welore{}.allocate(two, {.removal = 0.125});
    CHECK(tie.ranks == std::vector<index_t>{4, 4});
    CHECK(tie.reached == 0);
    CHECK(ranks::welore{}.allocate(two, {}).ranks == std::vector<index_t>{4, 4});
  }
  TEST_CASE("by hand: only matrices cut by more than the gate count, and they jump") {
    // k = .5 cuts two of the first, just over .4999; of the second one.
    auto const gated = ranks::welore{.gate = 0.4999}.allocate(two, {.removal = 0.2});
    CHECK(gated.threshold == doctest::Approx(0.5));
    CHECK(gated.ranks == std::vector<index_t>{2, 4});
    CHECK(gated.reached == 0.25);
    // At gate .5 two of four do not count yet.
    auto const strict = ranks::welore{.gate = 0.5}.allocate(two, {.removal = 0.2});
    CHECK(strict.threshold == doctest::Approx(0.8));
    CHECK(strict.ranks == std::vector<index_t>{1, 4});
    CHECK(strict.reached == 0.375);
  }
  TEST_CASE("the published steps of 0.005") {
    auto const grid = ranks::welore{.search = threshold_search::published}.allocate(two, {.removal = 0.5});
    CHECK(grid.threshold == doctest::Approx(0.505));  // the first on the grid above .5
    CHECK(grid.reached == 0.5);
    auto const gated = ranks::welore{.gate = 0.4999, .search = threshold_search::published};
    CHECK(gated.allocate(two, {.removal = 0.2}).threshold == doctest::Approx(0.255));
    CHECK(ranks::welore{}.at_threshold(two, 0.255).ranks == std::vector<index_t>{2, 3});
    CHECK(ranks::welore{.gate = 0.4999}.at_threshold(two, 0.255).ranks == std::vector<index_t>{2, 4});
    CHECK_THROWS_AS(std::ignore = ranks::welore{}.at_threshold(two, 1.5), argument_error);
  }
  TEST_CASE("against every threshold there is") {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
      auto const spectra = random_spectra(seed);
      std::vector<double> pool;
      for (auto const& one : spectra) {
        auto const values = one.normalised();
        pool.insert(pool.end(), values.begin(), values.end());
      }
      std::ranges::sort(pool);
      for (double const removal : {0.05, 0.1, 0.25, 0.4, 0.5, 0.7, 0.85}) {
        CAPTURE(seed);
        CAPTURE(removal);
        auto const plain = ranks::welore{}.allocate(spectra, {.removal = removal});
        double const k = pool[static_cast<std::size_t>(std::floor(removal * static_cast<double>(pool.size()) + 0.5))];
        CHECK(plain.threshold == k);
        CHECK(std::pair{plain.ranks, plain.reached} == published(spectra, k, 0));
        for (double const gate : {0.3, 0.4999}) {
          auto const gated = ranks::welore{.gate = gate}.allocate(spectra, {.removal = removal});
          auto const least = std::ranges::find_if(
              pool, [&](double x) { return published(spectra, x, gate).second >= removal - 1e-12; });
          REQUIRE(least != pool.end());
          CHECK(gated.threshold == *least);
          CHECK(std::pair{gated.ranks, gated.reached} == published(spectra, *least, gate));
        }
        auto const grid = ranks::welore{.search = threshold_search::published}.allocate(spectra, {.removal = removal});
        double const step = grid.threshold * 200;
        CHECK(step == doctest::Approx(std::round(step)).epsilon(1e-12));
        CHECK(published(spectra, grid.threshold, 0).second >= removal - 1e-12);
        CHECK(published(spectra, (std::round(step) - 1) / 200, 0).second < removal);
        // By parameters: the least threshold that removes enough of them.
        rank_budget const numbers{.removal = 0.5 * removal, .unit = budget_unit::parameters};
        auto const removed = [&](double x) {
          return summarize(spectra, published(spectra, x, 0).first, numbers, {}).reached;
        };
        auto const by_parameters = ranks::welore{}.allocate(spectra, numbers);
        CHECK(by_parameters.reached >= numbers.removal - 1e-12);
        auto const before = std::ranges::lower_bound(pool, by_parameters.threshold);
        if (before != pool.begin()) CHECK(removed(*std::prev(before)) < numbers.removal);
      }
    }
  }
  TEST_CASE("constant spectra and vectors stay whole") {
    std::vector<spectrum> const odd{of({5, 3, 2, 1}), of({7, 7, 7}), of({2}), of({0, 0})};
    for (double const gate : {0.0, 0.4999}) {
      auto const out = ranks::welore{.gate = gate}.allocate(odd, {.removal = 0.3});
      CHECK(out.ranks == std::vector<index_t>{1, 3, 1, 2});
      CHECK(out.reached == 0.3);
    }
    CHECK(refusal<argument_error>([&] { std::ignore = ranks::welore{}.allocate(odd, {.removal = 0.4}); }) ==
          "lowrank::ranks::welore: a rank reduction of 0.4 cannot be met, the most is 0.3");
    CHECK(ranks::welore{}.allocate({}, {}).ranks.empty());
  }
  TEST_CASE("multiples and least ranks") {
    auto const spectra = random_spectra(3);
    auto const out = ranks::welore{}.allocate(spectra, {.removal = 0.5}, {.multiple = 4, .least = 2});
    CHECK(out.reached >= 0.5);
    for (std::size_t i = 0; i < spectra.size(); ++i)
      CHECK((out.ranks[i] % 4 == 0 || out.ranks[i] == spectra[i].length()));
  }
  TEST_CASE("bad use is refused by name") {
    CHECK(refusal<argument_error>([&] { std::ignore = ranks::welore{}.allocate(two, {.removal = 0.9}); }) ==
          "lowrank::ranks::welore: a rank reduction of 0.9 cannot be met, the most is 0.75");
    CHECK_THROWS_AS(std::ignore = ranks::welore{}.allocate(two, {.removal = 1}), argument_error);
    CHECK_THROWS_AS(std::ignore = ranks::welore{}.allocate(two, {.removal = std::nan("")}), argument_error);
    CHECK_THROWS_AS((std::ignore = ranks::welore{.gate = 1}.allocate(two, {})), argument_error);
    CHECK_THROWS_AS(std::ignore = ranks::welore{}.allocate(two, {}, {.multiple = 0}), argument_error);
    std::vector<spectrum> const partial{{.shape = {3, 3}, .values = {1}, .whole = 2}};
    CHECK_THROWS_AS(std::ignore = ranks::welore{}.allocate(partial, {.removal = 0.1}), argument_error);
  }
}

}  // namespace welore_test
