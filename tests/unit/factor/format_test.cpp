#include "lowrank/factor/format.hpp"

#include <doctest/doctest.h>

#include "lowrank/factor/pivoted.hpp"

namespace format_test {

using namespace lowrank;

TEST_SUITE("storage forms") {
  TEST_CASE("the smallest form is the smallest, at every rank") {
    for (extents const w : {extents{576, 576}, extents{192, 576}, extents{1536, 576}, extents{7, 5}, extents{1, 9}})
      for (auto const storage : {factor_storage::factors, factor_storage::pivoted})
        for (index_t r = 0; r <= std::min(w.rows, w.cols); ++r) {
          auto const form = smallest_form(w, r, storage);
          index_t const other = stored_parameters(w, r, form_of(storage));
          CAPTURE(w);
          CAPTURE(r);
          CHECK(stored_parameters(w, r, form) == std::min(other, w.size()));
          CHECK((form == storage_form::dense) == (other >= w.size()));
        }
    CHECK(smallest_form({576, 576}, 287, factor_storage::factors) == storage_form::factors);
    CHECK(smallest_form({576, 576}, 288, factor_storage::factors) == storage_form::dense);
    CHECK(smallest_form({576, 576}, 575, factor_storage::pivoted) == storage_form::pivoted);
    CHECK_THROWS_AS(std::ignore = smallest_form({576, 576}, 577, factor_storage::pivoted), shape_error);
  }
  TEST_CASE("counts are those of what holds the numbers") {
    extents const w{40, 30};
    factor_pair pair{w, 12};
    CHECK(stored_parameters(w, 12, storage_form::factors) == pair.parameters());
    CHECK(stored_bytes(w, 12, storage_form::factors) == pair.bytes());
    pair.bias.resize(40);
    CHECK(stored_bytes(w, 12, storage_form::factors, 40) == pair.bytes());
    CHECK(pair.bytes() == pair.u.bytes() + pair.v.bytes() + 4 * 40);
    CHECK(stored_parameters(w, 12, storage_form::pivoted) == 12 * 70 - 144);
    CHECK(stored_bytes<bf16>(w, 12, storage_form::pivoted) == 2 * (12 * 70 - 144) + 4 * 12);
    CHECK(stored_bytes<bf16>(w, 12, storage_form::dense) == 2 * 1200);
    CHECK(stored_indices(12, storage_form::factors) == 0);
  }
}

}  // namespace format_test
