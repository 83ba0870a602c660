#include "lowrank/deep/observations.hpp"

#include <doctest/doctest.h>

#include <cmath>

namespace observations_test {

namespace {

using lowrank::argument_error;
using lowrank::shape_error;
using list = std::vector<lowrank::deep::observation<float>>;
using known = lowrank::deep::observations<float>;

TEST_CASE("observations are found by row and by column") {
  known const o{{3, 4}, list{{2, 1, 5}, {0, 3, 2}, {2, 0, 4}, {0, 1, 1}}};
  CHECK(o.count() == 4);
  CHECK(o.mean() == doctest::Approx(3));
  CHECK(o.row_begin(0) == 0);
  CHECK(o.row_begin(1) == 2);
  CHECK(o.row_begin(2) == 2);
  CHECK(o.row_begin(3) == 4);
  for (lowrank::index_t k = 0; k < 4; ++k)
    CHECK(o.values()[static_cast<std::size_t>(k)] == static_cast<float>(k + 1 == 3 ? 4 : k + 1 == 4 ? 5 : k + 1));
  CHECK(o.col(0) == 1);
  CHECK(o.col(2) == 0);
  CHECK(o.col_begin(1) == 1);
  CHECK(o.col_begin(2) == 3);
  CHECK(o.row(1) == 0);
  CHECK(o.entry(1) == 0);
  CHECK(o.row(2) == 2);
  CHECK(o.entry(2) == 3);
  CHECK(o.weight(3) == 1);
}

TEST_CASE("weights are kept where one differs from 1") {
  known const o{{2, 2}, list{{1, 1, 3, 0.5F}, {0, 0, 1}}};
  CHECK(o.weight(0) == 1);
  CHECK(o.weight(1) == 0.5F);
}

TEST_CASE("bad observations are refused by name") {
  CHECK_THROWS_WITH_AS((known{{3, 4}, list{{3, 0, 1}}}), doctest::Contains("must lie in 3x4, got (3, 0)"),
                       argument_error);
  CHECK_THROWS_AS((known{{3, 4}, list{{0, -1, 1}}}), argument_error);
  CHECK_THROWS_WITH_AS((known{{3, 4}, list{{1, 2, 1}, {0, 0, 1}, {1, 2, 2}}}), doctest::Contains("(1, 2) twice"),
                       argument_error);
  CHECK_THROWS_AS((known{{0, 4}, list{}}), shape_error);
}

TEST_SUITE("nonfinite") {
  TEST_CASE("NaN and infinity are no observations") {
    CHECK_THROWS_WITH_AS((known{{2, 2}, list{{0, 1, NAN}}}), doctest::Contains("at (0, 1)"), argument_error);
    CHECK_THROWS_AS((known{{2, 2}, list{{0, 1, INFINITY}}}), argument_error);
    CHECK_THROWS_AS((known{{2, 2}, list{{0, 1, 1, NAN}}}), argument_error);
    CHECK_THROWS_AS((known{{2, 2}, list{{0, 1, 1, -1}}}), argument_error);
  }
}

}  // namespace

}  // namespace observations_test
