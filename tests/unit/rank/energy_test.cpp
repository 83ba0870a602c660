#include "lowrank/rank/energy.hpp"

#include <doctest/doctest.h>

#include <array>
#include <numeric>

#include "support/optimizers.hpp"

namespace energy_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

std::vector<double> squares(index_t count, double power) {
  auto s = power_law(count, power);
  for (double& x : s) x *= x;
  return s;
}

/// The best sum of shares by trying everything.
double best_by_trial(std::span<rank_request const> requests, index_t budget, std::size_t from = 0) {
  if (from == requests.size()) return 0;
  auto const& one = requests[from];
  double const whole = std::accumulate(one.energies.begin(), one.energies.end(), 0.0);
  double best = -1e9, captured = 0;
  for (index_t r = 0; r <= static_cast<index_t>(one.energies.size()); ++r) {
    if (r > 0) captured += one.energies[static_cast<std::size_t>(r - 1)];
    if (r * one.bytes_per_column > budget) break;
    best = std::max(best, captured / whole + best_by_trial(requests, budget - r * one.bytes_per_column, from + 1));
  }
  return best;
}

}  // namespace

TEST_SUITE("ranks by energy") {
  auto const steep = squares(12, 1.5), flat = squares(12, 0.2), middle = squares(8, 0.7);

  TEST_CASE("the sum of shares is the best there is") {
    // Columns of one size: then greedy is exact, not only up to a step.
    std::array const requests{rank_request{steep, 0, 10}, rank_request{flat, 0, 10}, rank_request{middle, 0, 10}};
    for (index_t const budget : {0, 10, 50, 130, 200, 320, 1000}) {
      auto const got = allocate_ranks(requests, budget, rank_objective::most_energy, {.least = 0});
      CHECK(got.bytes <= budget);
      CHECK(3 * got.average_share == doctest::Approx(best_by_trial(requests, budget)).epsilon(1e-12));
    }
    // Columns of several sizes: no further column fits where it would gain more than what was taken last.
    std::array const sizes{rank_request{steep, 0, 7}, rank_request{flat, 0, 3}, rank_request{middle, 0, 11}};
    for (index_t const budget : {20, 60, 100, 170}) {
      auto const got = allocate_ranks(sizes, budget, rank_objective::most_energy, {.least = 0});
      CHECK(3 * got.average_share <= best_by_trial(sizes, budget) + 1e-12);
      CHECK(3 * got.average_share >= best_by_trial(sizes, budget - 10) - 1e-12);
      CHECK(budget - got.bytes < 11);
    }
  }
  TEST_CASE("equal shares: the worst matrix cannot be helped without making another the worst") {
    std::array const requests{rank_request{steep, 0, 4}, rank_request{flat, 0, 4}, rank_request{middle, 0, 4}};
    auto const got = allocate_ranks(requests, 60, rank_objective::equal_share);
    auto const most = allocate_ranks(requests, 60, rank_objective::most_energy);
    CHECK(got.bytes <= 60);
    CHECK(got.least_share >= most.least_share);
    CHECK(got.ranks[1] > got.ranks[0]);
  }
  TEST_CASE("limits, multiples, energy outside of what is offered, zero gradients") {
    std::array const requests{rank_request{steep, 0, 1}, rank_request{flat, 40, 1}};
    auto const got = allocate_ranks(requests, 20, rank_objective::most_energy, {.least = 4, .multiple = 4});
    CHECK(got.ranks == std::vector<index_t>{8, 12});
    auto const odd = allocate_ranks(requests, 1000, rank_objective::most_energy, {.least = 1, .multiple = 5});
    CHECK(odd.ranks == std::vector<index_t>{12, 12});
    CHECK(odd.least_share < 1);  // the second matrix has more energy than its 12 values
    std::vector<double> const nothing(3, 0.0);
    std::array const zero{rank_request{nothing, 0, 1}};
    auto const kept = allocate_ranks(zero, 3);
    CHECK(kept.least_share == 1);
    CHECK(allocate_ranks({}, 5).ranks.empty());
  }
  TEST_CASE("bad use is refused by name") {
    std::array requests{rank_request{steep, 0, 10}};
    CHECK(refusal<argument_error>([&] { std::ignore = allocate_ranks(requests, 9); }) ==
          "lowrank::allocate_ranks: the least ranks take 10 bytes, the budget is 9");
    CHECK_THROWS_AS(std::ignore = allocate_ranks(requests, -1), argument_error);
    CHECK_THROWS_AS(std::ignore = allocate_ranks(requests, 100, rank_objective::most_energy, {.multiple = 0}),
                    argument_error);
    requests[0].bytes_per_column = 0;
    CHECK_THROWS_AS(std::ignore = allocate_ranks(requests, 100), argument_error);
    std::vector<double> const rising{1, 2}, bad{1, std::nan("")};
    for (auto const* energies : {&rising, &bad}) {
      std::array const one{rank_request{*energies, 0, 1}};
      CHECK_THROWS_AS(std::ignore = allocate_ranks(one, 100), argument_error);
    }
  }
}

}  // namespace energy_test
