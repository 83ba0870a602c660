#include "lowrank/rank/allocation.hpp"

#include <doctest/doctest.h>

#include <tuple>

namespace allocation_test {

using namespace lowrank;

TEST_SUITE("allocation") {
  constexpr auto factors = factor_storage::factors, pivoted = factor_storage::pivoted;

  TEST_CASE("what ranks cost, and where factors stop being smaller") {
    CHECK(factored_parameters({10, 6}, 3, factors) == 48);
    CHECK(factored_parameters({10, 6}, 3, pivoted) == 39);
    CHECK(kept_parameters({10, 6}, 3, factors) == 48);
    CHECK(kept_parameters({10, 6}, 4, factors) == 60);
    CHECK(kept_parameters({10, 6}, 6, pivoted) == 60);
    // Square: half of the side. 4096 x 11008: 0.729 of the shorter one.
    CHECK(break_even_rank({576, 576}, factors) == 288);
    CHECK(break_even_rank({4096, 11008}, factors) == 2986);
    for (extents const w : {extents{10, 6}, extents{6, 10}, extents{7, 7}, extents{1, 9}, extents{100, 3}})
      for (auto const storage : {factors, pivoted}) {
        CAPTURE(w);
        index_t const even = break_even_rank(w, storage), length = std::min(w.rows, w.cols);
        CHECK(factored_parameters(w, even, storage) >= w.size());
        CHECK(factored_parameters(w, even - 1, storage) < w.size());
        for (index_t parameters = 0; parameters <= w.size(); ++parameters) {
          index_t const r = largest_rank(w, parameters, storage);
          if (parameters == w.size()) {
            CHECK(r == length);
            continue;
          }
          CHECK(factored_parameters(w, r, storage) <= parameters);
          CHECK((r + 1 >= even || factored_parameters(w, r + 1, storage) > parameters));
        }
      }
    CHECK(break_even_rank({0, 5}, factors) == 0);
  }
  TEST_CASE("low-rank components are cut by more than the gate") {
    CHECK(is_low_rank_component({192, 576}, 96));
    CHECK(!is_low_rank_component({192, 576}, 97));
    CHECK(is_low_rank_component({192, 576}, 191, 0));
    CHECK(!is_low_rank_component({192, 576}, 192, 0));
    CHECK(!is_low_rank_component({0, 576}, 0, 0));
  }
  TEST_CASE("ranks are rounded to multiples, not below the least, whole ones left alone") {
    rank_options const eights{.multiple = 8, .least = 3};
    extents const w{30, 50};
    CHECK(rounded_rank(w, 30, eights) == 30);
    CHECK(rounded_rank(w, 11, eights) == 8);
    CHECK(rounded_rank(w, 12, eights) == 16);
    CHECK(rounded_rank(w, 1, eights) == 8);
    CHECK(rounded_rank(w, 29, eights) == 30);
    CHECK(rounded_rank(w, 0, {}) == 1);
    CHECK(rounded_rank({4, 4}, 2, eights) == 4);
  }
  TEST_CASE("what ranks remove, counted both ways") {
    std::vector<spectrum> const spectra{{.shape = {10, 6}, .values = {6, 5, 4, 3, 2, 1}},
                                        {.shape = {4, 4}, .values = {4, 3, 2, 1}}};
    auto const out = summarize(spectra, {3, 4}, {.removal = 0.25}, {});
    CHECK(out.rank_reduction == 0.3);
    CHECK(out.reached == 0.3);
    CHECK(out.requested.removal == 0.25);
    CHECK(out.parameters == 48 + 16);
    CHECK(out.all_parameters == 76);
    CHECK(out.parameters_removed() == doctest::Approx(12.0 / 76));
    CHECK(std::isnan(out.threshold));
    auto const half =
        summarize(spectra, {5, 2}, {.removal = 0.1, .unit = budget_unit::parameters}, {.storage = pivoted});
    CHECK(half.parameters == 55 + 12);
    CHECK(half.reached == doctest::Approx(9.0 / 76));
    CHECK(summarize(spectra, {5, 2}, {}, {}).parameters == 60 + 16);  // dense, because factors are not smaller
    CHECK_THROWS_AS((std::ignore = summarize(spectra, {5}, {}, {})), shape_error);
    CHECK_THROWS_AS((std::ignore = summarize(spectra, {7, 1}, {}, {})), argument_error);
    CHECK(summarize({}, {}, {}, {}).reached == 0);
  }
}

}  // namespace allocation_test
