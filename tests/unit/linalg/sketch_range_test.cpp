#include "lowrank/linalg/sketch_range.hpp"

#include <doctest/doctest.h>

#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/warm_starts.hpp"

namespace sketch_range_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("sketch range") {
  TEST_CASE("a gradient of at most r directions is captured whole, in the scratch asked for") {
    for (auto const& [shape, tokens, r] :
         {std::tuple{extents{60, 90}, 7, 20}, std::tuple{extents{60, 90}, 20, 20}, std::tuple{extents{60, 40}, 12, 60},
          std::tuple{extents{9, 90}, 3, 4}, std::tuple{extents{1, 1}, 1, 1}}) {
      CAPTURE(shape);
      CAPTURE(tokens);
      CAPTURE(r);
      auto const dy = random_matrix({tokens, shape.rows}, 1), x = random_matrix({tokens, shape.cols}, 2);
      auto const product = plain_product(dy.view().t(), x.view());
      matrix<float> g{shape}, q{shape.rows, r};
      for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
      double const all = squared_norm_of(g.view());
      for (bool const factored : {true, false}) {
        index_t const bytes = sketch_range_bytes(shape, r, factored ? tokens : 0);
        host_executor exec{{.threads = 2, .scratch_bytes = bytes}};
        range_report report;
        allocation_counter const allocations;
        if (factored) sketch_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), {.seed = 1}, &report);
        else sketch_range(exec, matrix_view<float const>(g.view()), q.view(), {.seed = 1}, &report);
        CHECK(allocations.count() == 0);
        CHECK(exec.arena().peak() == bytes);
        CHECK(report.failed == 0);
        CHECK(report.captured == -1);
        CHECK(departure_from_orthonormal(q.view()) <= orthonormal_units{}.of(r));
        if (tokens <= r) CHECK(captured_energy(q.view(), g.view()) >= (1 - 1e-5) * all);
      }
    }
  }
  TEST_CASE("the columns behind the tokens are random from the start: none is replaced, none sees the gradient") {
    auto const dy = random_matrix({8, 100}, 1), x = random_matrix({8, 70}, 2);
    outer_product<> const g{dy.view(), x.view()};
    host_executor exec{{.threads = 2, .scratch_bytes = sketch_range_bytes({100, 70}, 40, 8)}};
    matrix<float> q{100, 40}, other{100, 40};
    range_report report;
    sketch_range(exec, g, q.view(), {.seed = 1}, &report);
    CHECK(report.replaced == 0);
    auto const rest = q.view().col_range(8, 40);
    CHECK(squared_norm_of(plain_product(rest.t(), dy.view().t()).view()) <= 1e-8);
    sketch_range(exec, g, other.view(), {.seed = 2});
    CHECK(shared_part(q, other) < 0.7);  // 8 columns of 40, and by chance 32 of 92
  }
  TEST_CASE("a gradient of zeros gives a basis all the same") {
    matrix<float> const none{30, 20};
    host_executor exec{{.threads = 1, .scratch_bytes = sketch_range_bytes({30, 20}, 10)}};
    matrix<float> q{30, 10};
    range_report report;
    sketch_range(exec, none.view(), q.view(), {.seed = 1}, &report);
    CHECK(report.failed == 0);
    CHECK(departure_from_orthonormal(q.view()) <= orthonormal_units{}.of(10));
    matrix<float> wide{30, 31};
    CHECK_THROWS_AS(sketch_range(exec, none.view(), wide.view(), {.seed = 1}), shape_error);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("a NaN in what a basis is sketched from is reported") {
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      auto g = random_matrix({30, 20}, 1);
      g(3, 4) = bad;
      host_executor exec{{.threads = 1, .scratch_bytes = sketch_range_bytes({30, 20}, 10)}};
      matrix<float> q{30, 10};
      range_report report;
      sketch_range(exec, g.view(), q.view(), {.seed = 1}, &report);
      CHECK(report.failed == 1);
    }
  }
}

}  // namespace sketch_range_test
