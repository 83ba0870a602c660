#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "lowrank/rank/energy_share.hpp"
#include "lowrank/rank/sensitivity.hpp"
#include "lowrank/rank/svd_llm_v2.hpp"
#include "lowrank/rank/uniform.hpp"
#include "lowrank/rank/water_filling.hpp"
#include "support/optimizers.hpp"

namespace allocators_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

constexpr auto by_rank = budget_unit::rank, by_parameters = budget_unit::parameters;

spectrum falling(extents shape, double power, double scale = 1) {
  auto values = power_law(std::min(shape.rows, shape.cols), power);
  for (double& s : values) s *= scale;
  return {.shape = shape, .values = std::move(values)};
}

/// The least loss within `kept` numbers, by trying all ranks.
double best_by_trial(std::span<spectrum const> spectra, index_t kept, factor_storage storage, std::size_t from = 0) {
  if (from == spectra.size()) return 0;
  auto const& one = spectra[from];
  double best = 1e9;
  for (index_t r = 1; r <= one.length(); ++r) {
    index_t const cost = r == one.length() ? one.shape.size() : factored_parameters(one.shape, r, storage);
    if (cost > kept) continue;
    best = std::min(best, one.tail(r) / one.energy() + best_by_trial(spectra, kept - cost, storage, from + 1));
  }
  return best;
}
double loss_of(std::span<spectrum const> spectra, std::span<index_t const> ranks) {
  double sum = 0;
  for (std::size_t i = 0; i < spectra.size(); ++i) sum += spectra[i].tail(ranks[i]) / spectra[i].energy();
  return sum;
}

}  // namespace

TEST_SUITE("uniform ranks") {
  TEST_CASE("the share of the values to the nearest number, or of the parameters from below") {
    std::vector<spectrum> const spectra{falling({576, 576}, 1), falling({192, 576}, 1), falling({5, 9}, 1)};
    auto const ranks30 = ranks::uniform{}.allocate(spectra, {.removal = 0.3});
    CHECK(ranks30.ranks == std::vector<index_t>{403, 134, 3});  // cut 172.8, 57.6, 1.5
    CHECK(ranks30.rank_reduction == doctest::Approx((173 + 58 + 2) / 773.0));
    auto const numbers = ranks::uniform{}.allocate(spectra, {.removal = 0.3, .unit = by_parameters});
    CHECK(numbers.ranks == std::vector<index_t>{201, 100, 2});
    CHECK(numbers.reached >= 0.3);
    auto const compact = ranks::uniform{}.allocate(spectra, {.removal = 0.3, .unit = by_parameters},
                                                   {.storage = factor_storage::pivoted});
    // r = ((m + n) - sqrt((m + n)² - 4 keep m n)) / 2
    CHECK(compact.ranks == std::vector<index_t>{260, 119, 2});
    CHECK(ranks::uniform{}.allocate(spectra, {.unit = by_parameters}).ranks == std::vector<index_t>{576, 192, 5});
    CHECK(ranks::uniform{}.allocate(spectra, {.removal = 0.3, .unit = by_parameters}, {.multiple = 16}).ranks ==
          std::vector<index_t>{192, 96, 5});
  }
  TEST_CASE("a budget that cannot be met says what can") {
    std::vector<spectrum> const spectra{falling({4, 4}, 1)};
    CHECK(refusal<argument_error>([&] {
            std::ignore = ranks::uniform{}.allocate(spectra, {.removal = 0.6, .unit = by_parameters});
          }) == "lowrank::ranks::uniform: a parameter removal of 0.6 cannot be met, the most is 0.5");
    CHECK_THROWS_AS(std::ignore = ranks::uniform{}.allocate(spectra, {.removal = 0.8}), argument_error);
  }
}

TEST_SUITE("water-filling") {
  std::vector<spectrum> const spectra{falling({9, 7}, 1.2), falling({6, 6}, 0.3), falling({5, 12}, 0.7)};

  TEST_CASE("nothing removes as much and loses less, but for the last step") {
    for (auto const storage : {factor_storage::factors, factor_storage::pivoted})
      for (double const removal : {0.0, 0.1, 0.2, 0.35, 0.5, 0.6}) {
        CAPTURE(removal);
        auto const found =
            ranks::water_filling{}.allocate(spectra, {.removal = removal, .unit = by_parameters}, {.storage = storage});
        CHECK(found.reached >= removal - 1e-12);
        index_t const kept = detail::units_kept({.removal = removal}, found.all_parameters);
        CHECK(loss_of(spectra, found.ranks) >= best_by_trial(spectra, kept, storage) - 1e-12);
        CHECK(loss_of(spectra, found.ranks) <= best_by_trial(spectra, kept - 17, storage) + 1e-12);
      }
  }
  TEST_CASE("pivoted: a flat matrix whose first steps are dear is worth going all the way") {
    // Steps of the flat one cost 13, 11, ..., 1 and save an eighth each; the one step of the other saves 0.16 for 13.
    std::vector<double> two(8, 0.0);
    two[0] = std::sqrt(0.84), two[1] = std::sqrt(0.16);
    std::vector<spectrum> const pair{{.shape = {8, 8}, .values = std::vector<double>(8, 1.0)},
                                     {.shape = {8, 8}, .values = two}};
    auto const found = ranks::water_filling{}.allocate(pair, {.removal = 1 - 79.0 / 128, .unit = by_parameters},
                                                       {.storage = factor_storage::pivoted});
    CHECK(found.ranks == std::vector<index_t>{8, 1});
    CHECK(found.parameters == 79);
  }
  TEST_CASE("counting ranks it is exact: the smallest of all shares go") {
    for (double const removal : {0.1, 0.3, 0.5, 0.8}) {
      auto const found = ranks::water_filling{}.allocate(spectra, {.removal = removal});
      auto const kept = static_cast<index_t>(std::floor((1 - removal) * 18 + 1e-3));
      CHECK(std::accumulate(found.ranks.begin(), found.ranks.end(), index_t{}) == kept);
      double least_kept = 1, most_cut = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (index_t k = 0; k < spectra[i].length(); ++k) {
          double const s = spectra[i].values[static_cast<std::size_t>(k)], share = s * s / spectra[i].energy();
          if (k >= found.ranks[i]) most_cut = std::max(most_cut, share);
          else if (k > 0) least_kept = std::min(least_kept, share);
        }
      CHECK(most_cut <= least_kept);
    }
  }
  TEST_CASE("weights and units of energy") {
    std::vector<spectrum> const scaled{falling({8, 8}, 1), falling({8, 8}, 1, 100)};
    auto const relative = ranks::water_filling{}.allocate(scaled, {.removal = 0.5});
    CHECK(relative.ranks == std::vector<index_t>{4, 4});
    auto const absolute = ranks::water_filling{.scale = tail_scale::absolute}.allocate(scaled, {.removal = 0.5});
    CHECK(absolute.ranks == std::vector<index_t>{1, 7});
    // A weight of 1e-4 takes the scale of 100 back.
    auto const weighted =
        ranks::water_filling{.scale = tail_scale::absolute, .weights = {1, 1e-4}}.allocate(scaled, {.removal = 0.5});
    CHECK(weighted.ranks == relative.ranks);
    CHECK_THROWS_AS((std::ignore = ranks::water_filling{.weights = {1}}.allocate(scaled, {})), shape_error);
    CHECK_THROWS_AS((std::ignore = ranks::water_filling{.weights = {1, -1}}.allocate(scaled, {})), argument_error);
  }
  TEST_CASE("matrices that are not worth their factors stay dense; least ranks; what cannot be met") {
    auto const found = ranks::water_filling{}.allocate(spectra, {.removal = 0.2, .unit = by_parameters});
    for (std::size_t i = 0; i < 3; ++i)
      CHECK((found.ranks[i] == spectra[i].length() ||
             found.ranks[i] < break_even_rank(spectra[i].shape, factor_storage::factors)));
    auto const most = ranks::water_filling{}.allocate(spectra, {.removal = 0.71, .unit = by_parameters});
    CHECK(most.ranks == std::vector<index_t>{1, 1, 1});
    CHECK_THROWS_AS((std::ignore = ranks::water_filling{}.allocate(spectra, {.removal = 0.75, .unit = by_parameters})),
                    argument_error);
    std::vector<spectrum> const zero{{.shape = {4, 4}, .values = {0, 0, 0, 0}}};
    CHECK(ranks::water_filling{}.allocate(zero, {.removal = 0.5}).reached == 0.5);
  }
}

TEST_SUITE("ranks by captured shares") {
  std::vector<spectrum> const spectra{falling({40, 40}, 1.2), falling({30, 60}, 0.3), falling({60, 25}, 0.7)};
  TEST_CASE("as allocate_ranks gives them, in columns of m + n numbers") {
    for (auto const unit : {by_rank, by_parameters}) {
      auto const found = ranks::energy_share{}.allocate(spectra, {.removal = 0.6, .unit = unit});
      CHECK(found.reached >= 0.6);
      CHECK(found.reached <= 0.62);
      std::vector<std::vector<double>> squares;
      std::vector<rank_request> requests;
      for (auto const& one : spectra) {
        auto& e = squares.emplace_back(one.values);
        for (double& x : e) x *= x;
        requests.push_back({e, 0, unit == by_rank ? 1 : one.shape.rows + one.shape.cols});
      }
      auto const plain = allocate_ranks(requests, unit == by_rank ? 38 : 1960);
      CHECK(found.ranks == plain.ranks);
    }
    auto const equal = ranks::energy_share{rank_objective::equal_share}.allocate(spectra, {.removal = 0.5});
    CHECK(equal.ranks[1] > equal.ranks[2]);
    CHECK(equal.ranks[2] > equal.ranks[0]);
  }
  TEST_CASE("little removed: the rest of the budget makes matrices dense") {
    auto const found = ranks::energy_share{}.allocate(spectra, {.removal = 0.1, .unit = by_parameters});
    CHECK(found.reached >= 0.1 - 1e-12);
    CHECK(std::ranges::count_if(std::vector{0U, 1U, 2U},
                                [&](auto i) { return found.ranks[i] == spectra[i].length(); }) >= 1);
    CHECK_THROWS_AS((std::ignore = ranks::energy_share{}.allocate(spectra, {.removal = 0.5, .unit = by_parameters},
                                                                  {.storage = factor_storage::pivoted})),
                    argument_error);
    CHECK_THROWS_AS((std::ignore = ranks::energy_share{}.allocate(spectra, {.removal = 0.99, .unit = by_parameters})),
                    argument_error);
  }
}

TEST_SUITE("SVD-LLM V2's ranks") {
  TEST_CASE("by hand: removal in proportion to 1 / ln L within a group") {
    // Two 20 x 20 at ERR 1/2: tails of 10 equal values. L = sqrt(10) s: s² = e⁴/10 and e⁸/10 give ln L = 2 and 4.
    auto const with = [](double log_loss) {
      spectrum out{.shape = {20, 20}, .values = std::vector<double>(20, std::exp(log_loss) / std::sqrt(10))};
      return out;
    };
    std::vector<spectrum> const spectra{with(2), with(4), with(3)};
    auto const found = ranks::svd_llm_v2{.groups = {0, 0, 1}}.allocate(spectra, {.removal = 0.5});
    // Weights 1/2 : 1/4, mean 1/2: removals 2/3 and 1/3, so cut 13.33 and 6.67; the group of one is uniform.
    CHECK(found.ranks == std::vector<index_t>{7, 13, 10});
    auto const numbers = ranks::svd_llm_v2{.groups = {0, 0, 1}, .weighting = loss_weighting::shifted}.allocate(
        spectra, {.removal = 0.5, .unit = by_parameters});
    CHECK(numbers.ranks[0] < numbers.ranks[1]);
    CHECK(numbers.ranks[2] == 5);
    CHECK(numbers.reached >= 0.5);
  }
  TEST_CASE("what exceeds the least rank goes to the others; losses that have no weight are refused") {
    // At a removal of 0.6 six equal values are the tail.
    auto const with = [](double loss) {
      return spectrum{.shape = {10, 10}, .values = std::vector<double>(10, loss / std::sqrt(6))};
    };
    std::vector<spectrum> const uneven{with(1.01), with(1e6)};  // ln: 0.01 and 13.8
    auto const found = ranks::svd_llm_v2{}.allocate(uneven, {.removal = 0.6});
    CHECK(found.ranks[0] == 1);
    CHECK(found.rank_reduction == doctest::Approx(0.6));
    std::vector<spectrum> const low{with(0.9), with(2)};
    CHECK_THROWS_AS(std::ignore = ranks::svd_llm_v2{}.allocate(low, {.removal = 0.6}), argument_error);
    auto const shifted = ranks::svd_llm_v2{.weighting = loss_weighting::shifted}.allocate(low, {.removal = 0.6});
    CHECK(shifted.rank_reduction == doctest::Approx(0.6));
    CHECK_THROWS_AS(std::ignore = ranks::svd_llm_v2{}.allocate(uneven, {.removal = 0.95}), argument_error);
    CHECK(ranks::svd_llm_v2{}.allocate(low, {}).reached == 0);
    CHECK_THROWS_AS((std::ignore = ranks::svd_llm_v2{.groups = {1}}.allocate(low, {})), shape_error);
  }
}

TEST_SUITE("ranks by measured sensitivity") {
  sensitivity_table const table{.levels = {0.2, 0.4}, .increase = {{0.1, 0.4}, {0.2, 0.3}, {-1, 0.5}}};

  TEST_CASE("between levels the logarithm is linear, below the first the increase is quadratic") {
    ranks::sensitivity<> const rule{.table = table, .groups = {0, 1, 2}};
    CHECK(rule.increase(0, 0) == 0);
    CHECK(rule.increase(0, 0.1) == doctest::Approx(0.025));
    CHECK(rule.increase(0, 0.2) == doctest::Approx(0.1));
    CHECK(rule.increase(0, 0.3) == doctest::Approx(0.2));
    CHECK(rule.increase(0, 0.4) == doctest::Approx(0.4));
    CHECK(rule.increase(0, 0.5) == doctest::Approx(0.8));  // the last slope goes on
    CHECK(rule.increase(2, 0.2) == doctest::Approx(1e-5));
  }
  TEST_CASE("steps go to whom they cost least a parameter") {
    // Quadratic a x² and b x² share a removal so that the slopes are equal: x1 / x2 = b / a.
    sensitivity_table const squares{.levels = {0.6}, .increase = {{0.36}, {0.72}}};
    ranks::sensitivity<> const rule{.table = squares, .groups = {0, 1}};
    auto const shares = rule.removals(std::vector<double>{1000, 1000}, 0.3);
    CHECK(shares[0] == doctest::Approx(0.4));
    CHECK(shares[1] == doctest::Approx(0.2));
    // Twice the size at the same increase: half the price.
    sensitivity_table const same{.levels = {0.6}, .increase = {{0.36}, {0.36}}};
    auto const sized =
        ranks::sensitivity<>{.table = same, .groups = {0, 1}}.removals(std::vector<double>{2000, 1000}, 0.3);
    CHECK(sized[0] == doctest::Approx(0.36).epsilon(0.04));
    CHECK(sized[1] == doctest::Approx(0.18).epsilon(0.06));
    auto const capped = rule.removals(std::vector<double>{1000, 1000}, 0.55);
    CHECK(capped[0] == doctest::Approx(0.6));
    CHECK(capped[1] == doctest::Approx(0.5));
  }
  TEST_CASE("ranks within groups are uniform, or as another allocator says") {
    std::vector<spectrum> const spectra{falling({40, 40}, 1.5), falling({40, 40}, 0.1), falling({20, 40}, 1)};
    sensitivity_table const squares{.levels = {0.5}, .increase = {{0.1}, {0.4}}};
    rank_budget const budget{.removal = 0.3, .unit = by_parameters};
    ranks::sensitivity<> const rule{.table = squares, .groups = {0, 0, 1}};
    auto const found = rule.allocate(spectra, budget);
    CHECK(found.reached >= 0.3);
    CHECK(found.ranks[0] == found.ranks[1]);
    ranks::sensitivity<ranks::water_filling> const uneven{.table = squares, .groups = {0, 0, 1}};
    auto const filled = uneven.allocate(spectra, budget);
    CHECK(filled.reached >= 0.3);
    CHECK(filled.ranks[0] < filled.ranks[1]);
    CHECK(refusal<argument_error>([&] { std::ignore = rule.allocate(spectra, {.removal = 0.7}); }) ==
          "lowrank::ranks::sensitivity: a rank reduction of 0.7 cannot be met, the most is 0.6");
    CHECK_THROWS_AS(
        (std::ignore = ranks::sensitivity<>{.table = squares, .groups = {0, 2, 1}}.allocate(spectra, budget)),
        argument_error);
    CHECK_THROWS_AS((std::ignore = ranks::sensitivity<>{.table = squares, .groups = {0}}.allocate(spectra, budget)),
                    shape_error);
  }
  TEST_CASE("measured by calls of the model") {
    std::vector<std::pair<index_t, double>> asked;
    auto const measured = measure_sensitivity(2, {0.2, 0.4}, 3.0, [&](index_t group, double level) {
      asked.emplace_back(group, level);
      return 3.0 + static_cast<double>(group) + level;
    });
    CHECK(asked == std::vector<std::pair<index_t, double>>{{0, 0.2}, {0, 0.4}, {1, 0.2}, {1, 0.4}});
    CHECK(measured.increase[1][0] == doctest::Approx(1.2));
    CHECK_THROWS_AS((std::ignore = measure_sensitivity(1, {0.2}, 3.0, [](index_t, double) { return std::nan(""); })),
                    argument_error);
    CHECK_THROWS_AS((std::ignore = measure_sensitivity(1, {0.4, 0.2}, 3.0, [](index_t, double) { return 1.0; })),
                    argument_error);
  }
}

}  // namespace allocators_test
