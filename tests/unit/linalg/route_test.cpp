#include "lowrank/linalg/route.hpp"

#include <doctest/doctest.h>

namespace route_test {

using namespace lowrank;

namespace {

struct table_row {
  extents g;
  index_t r;
  double one_step, two_steps, eigen, one_pass;  // times cheaper than an exact SVD of 6 n m² + 20 m³ flops
};
// With 8 columns more than r, and none for the pass from an old basis.
constexpr table_row table[] = {
    {{512, 1376}, 128, 4.8, 3.2, 3.1, 12.3},    {{768, 2048}, 256, 3.4, 2.3, 3.1, 9.0},
    {{2048, 5461}, 512, 5.1, 3.4, 3.1, 12.3},   {{4096, 4096}, 1024, 8.4, 5.6, 2.6, 20.8},
    {{4096, 11008}, 1024, 5.1, 3.4, 3.1, 12.3}, {{4096, 11008}, 128, 49, 33, 3.1, 106},
    {{4096, 14336}, 512, 10.2, 6.7, 3.3, 22.6}, {{8192, 28672}, 512, 21.7, 14.4, 3.3, 46},
};

constexpr range_work work_of(extents g, index_t columns, index_t passes, index_t tokens = 0) {
  return {.g = g, .r = columns, .oversampling = 0, .passes = passes, .tokens = tokens};
}
static_assert(gram_saves_products(work_of({512, 1376}, 128, 2)));
static_assert(cheapest_route(work_of({4096, 11008}, 128, 2)) == range_route::direct);

}  // namespace

TEST_SUITE("route") {
  TEST_CASE("flops against an exact SVD, at the shapes of common models") {
    for (auto const& row : table) {
      CAPTURE(row.g);
      CAPTURE(row.r);
      auto const m = static_cast<double>(row.g.rows), n = static_cast<double>(row.g.cols);
      double const exact = 6 * n * m * m + 20 * m * m * m;
      range_work work{.g = row.g, .r = row.r, .passes = 1};
      CHECK(exact / find_range_flops(work).cost() == doctest::Approx(row.one_step).epsilon(0.06));
      CHECK(exact / gram_eigen_flops(work).cost() == doctest::Approx(row.eigen).epsilon(0.04));
      work.oversampling = 0;
      CHECK(exact / warm_range_flops(work).cost() == doctest::Approx(row.one_pass).epsilon(0.02));
      work = {.g = row.g, .r = row.r, .passes = 2};
      CHECK(exact / find_range_flops(work).cost() == doctest::Approx(row.two_steps).epsilon(0.09));
    }
  }
  TEST_CASE("the Gram saves products above a share of m that falls with passes and with n / m") {
    struct threshold {
      extents g;
      index_t passes;
      double share;
    };
    for (auto const [g, passes, share] : {threshold{{4000, 10800}, 2, 0.1534}, threshold{{4000, 4000}, 2, 0.25},
                                          threshold{{4000, 10800}, 3, 0.1023}, threshold{{4000, 4000}, 3, 0.1667}}) {
      CAPTURE(g);
      CAPTURE(passes);
      auto const l = static_cast<index_t>(share * static_cast<double>(g.rows));
      CHECK(!gram_saves_products(work_of(g, l - 2, passes)));
      CHECK(gram_saves_products(work_of(g, l + 2, passes)));
    }
    for (auto const& row : table)
      for (index_t const passes : {1, 2, 3}) {
        range_work const work{.g = row.g, .r = row.r, .passes = passes};
        auto const m = static_cast<double>(row.g.rows), n = static_cast<double>(row.g.cols),
                   l = static_cast<double>(row.r + 8), p = static_cast<double>(passes);
        CHECK(gram_saves_products(work) == (p * 4 * m * n * l > n * m * m + p * 2 * m * m * l));
        if (16 * row.r < row.g.rows) CHECK(!gram_saves_products(work));
      }
  }
  TEST_CASE("the cheapest route is that of least cost") {
    for (auto const& row : table)
      for (auto const start : {range_start::cold, range_start::warm})
        for (index_t const passes : {1, 2, 4, 64})
          for (index_t const tokens : {0, 100, 4096}) {
            range_work const work{.g = row.g, .r = row.r, .passes = passes, .tokens = tokens, .start = start};
            double const best = route_flops(cheapest_route(work), work).cost(2);
            for (auto const route : {range_route::direct, range_route::gram_subspace, range_route::gram_eigen})
              CHECK(best <= route_flops(route, work).cost(2));
          }
    CHECK(cheapest_route(work_of({2048, 5461}, 512, 1)) == range_route::direct);
    CHECK(cheapest_route(work_of({2048, 5461}, 512, 3)) == range_route::gram_subspace);
    CHECK(cheapest_route(work_of({2048, 5461}, 512, 100)) == range_route::gram_eigen);
  }
  TEST_CASE("a factored gradient costs by its tokens") {
    extents const g{1000, 3000};
    CHECK(product_flops(g, 10, 64).cost() == 2.0 * 64 * 10 * 4000);
    CHECK(product_flops(g, 10, 0).cost() == 2.0 * 1000 * 3000 * 10);
    CHECK(product_flops(g, 10, 750).cost() == product_flops(g, 10, 0).cost());  // T = m n / (m + n)
    // Forming C takes m n per token, products take (m + n) k: the fewer tokens, the longer products stay ahead.
    CHECK(!gram_saves_products(work_of(g, 400, 2, 64)));
    CHECK(gram_saves_products(work_of(g, 400, 4, 4096)));
    CHECK(gram_flops(g, 64).narrow == 2.0 * 64 * 1000 * 3000);
    CHECK(gram_flops(g, 64).wide == gram_flops(g, 0).wide);
    CHECK(narrow_gram_flops(g, 0) == flop_count{.narrow = 3000.0 * 1000 * 1000});
  }
}

}  // namespace route_test
