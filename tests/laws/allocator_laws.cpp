// What holds for every way to share ranks out. A new allocator joins with a line in `for_each_allocator`.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "lowrank/rank/energy_share.hpp"
#include "lowrank/rank/sensitivity.hpp"
#include "lowrank/rank/svd_llm_v2.hpp"
#include "lowrank/rank/uniform.hpp"
#include "lowrank/rank/water_filling.hpp"
#include "lowrank/rank/welore.hpp"
#include "support/matrices.hpp"

namespace allocator_laws {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// A small model of three kinds, no two spectra alike, all losses above 1.
std::vector<spectrum> model() {
  std::vector<spectrum> out;
  for (index_t block = 0; block < 4; ++block)
    for (index_t kind = 0; kind < 3; ++kind) {
      extents const shape = kind == 0 ? extents{32, 32} : kind == 1 ? extents{24, 48} : extents{60, 36};
      auto values = power_law(std::min(shape.rows, shape.cols), 0.2 + 0.17 * static_cast<double>(3 * kind + block));
      for (double& s : values) s = 50 * s + 3 + 0.01 * static_cast<double>(block);
      out.push_back({.shape = shape, .values = std::move(values)});
    }
  return out;
}
std::vector<index_t> kinds() {
  std::vector<index_t> out;
  for (index_t i = 0; i < 12; ++i) out.push_back(i % 3);
  return out;
}
sensitivity_table table() { return {.levels = {0.3, 0.6}, .increase = {{0.1, 0.5}, {0.05, 0.3}, {0.2, 0.4}}}; }

/// What an allocator may do to a budget.
enum class meets : std::uint8_t {
  always,   ///< removes at least what is asked for
  nearest,  ///< or half a value of each matrix less
};

struct entry {
  std::string name;
  meets budget;
  budget_unit unit;
  rank_options options;
};

/// f(allocator, entry) for all of them, both units, and storages that they count.
template <class F>
void for_each_allocator(F const& f) {
  for (auto const unit : {budget_unit::rank, budget_unit::parameters})
    for (index_t const multiple : {1, 4}) {
      auto const rounds = unit == budget_unit::rank ? meets::nearest : meets::always;
      for (auto const storage : {factor_storage::factors, factor_storage::pivoted}) {
        rank_options const options{.storage = storage, .multiple = multiple};
        f(ranks::uniform{}, entry{"uniform", rounds, unit, options});
        f(ranks::welore{}, entry{"welore", multiple == 1 ? rounds : meets::always, unit, options});
        f(ranks::welore{.gate = 0.4999}, entry{"welore, gated", meets::always, unit, options});
        f(ranks::welore{.search = threshold_search::published}, entry{"welore, grid", meets::always, unit, options});
        f(ranks::water_filling{}, entry{"water-filling", meets::always, unit, options});
        f(ranks::water_filling{.scale = tail_scale::absolute}, entry{"absolute", meets::always, unit, options});
        f(ranks::svd_llm_v2{.groups = kinds()}, entry{"V2", rounds, unit, options});
        f(ranks::sensitivity<>{.table = table(), .groups = kinds()}, entry{"sensitivity", rounds, unit, options});
      }
      rank_options const factors{.multiple = multiple};
      f(ranks::energy_share{}, entry{"energy", meets::always, unit, factors});
      f(ranks::energy_share{rank_objective::equal_share}, entry{"equal", meets::always, unit, factors});
    }
}

}  // namespace

TEST_SUITE("allocators") {
  TEST_CASE("the budget is met, ranks are ranks, the report is true") {
    auto const spectra = model();
    for_each_allocator([&](rank_allocator auto const& allocator, entry const& which) {
      for (double const removal : {0.05, 0.1, 0.3, 0.5}) {
        CAPTURE(which.name);
        CAPTURE(removal);
        CAPTURE(which.options.multiple);
        rank_budget const budget{.removal = removal, .unit = which.unit};
        auto const out = allocator.allocate(spectra, budget, which.options);
        double slack = 1e-9;
        if (which.budget == meets::nearest)
          slack += 0.5 * static_cast<double>(which.options.multiple * 12) / static_cast<double>(total_length(spectra));
        CHECK(out.reached >= removal - slack);
        REQUIRE(out.ranks.size() == spectra.size());
        for (std::size_t i = 0; i < spectra.size(); ++i) {
          CHECK(out.ranks[i] >= 1);
          CHECK(out.ranks[i] <= spectra[i].length());
          CHECK((out.ranks[i] % which.options.multiple == 0 || out.ranks[i] == spectra[i].length()));
        }
        auto const again = summarize(spectra, out.ranks, budget, which.options);
        CHECK(out.reached == again.reached);
        CHECK(out.parameters == again.parameters);
        CHECK(out.rank_reduction == again.rank_reduction);
        CHECK(out.requested.removal == removal);
      }
    });
  }
  TEST_CASE("nothing asked, nothing removed") {
    auto const spectra = model();
    for_each_allocator([&](rank_allocator auto const& allocator, entry const& which) {
      CAPTURE(which.name);
      auto const out = allocator.allocate(spectra, {.unit = which.unit}, which.options);
      for (std::size_t i = 0; i < spectra.size(); ++i) CHECK(out.ranks[i] == spectra[i].length());
      CHECK(out.parameters == out.all_parameters);
    });
  }
  TEST_CASE("more asked, no matrix's parameters grow in sum; the order of matrices does not matter") {
    auto const spectra = model();
    // Blocks in reverse, kinds where they were.
    std::vector<spectrum> turned;
    for (std::size_t i = 0; i < 12; ++i) turned.push_back(spectra[3 * (3 - i / 3) + i % 3]);
    for_each_allocator([&](rank_allocator auto const& allocator, entry const& which) {
      CAPTURE(which.name);
      index_t before = std::numeric_limits<index_t>::max();
      for (double const removal : {0.1, 0.2, 0.35, 0.5}) {
        rank_budget const budget{.removal = removal, .unit = which.unit};
        auto const out = allocator.allocate(spectra, budget, which.options);
        index_t const kept = which.unit == budget_unit::parameters
                                 ? out.parameters
                                 : static_cast<index_t>(std::round(1e6 * (1 - out.rank_reduction)));
        CHECK(kept <= before);
        before = kept;
        auto const other = allocator.allocate(turned, budget, which.options);
        for (std::size_t i = 0; i < 12; ++i) CHECK(other.ranks[i] == out.ranks[3 * (3 - i / 3) + i % 3]);
      }
    });
  }
  TEST_CASE("a budget beyond all ranks, a NaN, an incomplete spectrum: refused") {
    auto spectra = model();
    for_each_allocator([&](rank_allocator auto const& allocator, entry const& which) {
      CAPTURE(which.name);
      for (double const removal : {0.99, 1.0, -0.1, std::nan("")})
        CHECK_THROWS_AS(
            std::ignore = allocator.allocate(spectra, {.removal = removal, .unit = which.unit}, which.options),
            argument_error);
    });
    spectra[4].values[2] = std::nan("");
    for_each_allocator([&](rank_allocator auto const& allocator, entry const& which) {
      CHECK_THROWS_AS(std::ignore = allocator.allocate(spectra, {.removal = 0.2, .unit = which.unit}, which.options),
                      argument_error);
    });
  }
}

}  // namespace allocator_laws
