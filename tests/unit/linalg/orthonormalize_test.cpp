#include "lowrank/linalg/orthonormalize.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace orthonormalize_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("orthonormalize") {
  TEST_CASE("the scratch asked for is the scratch taken, in any layout, and nothing is allocated") {
    for (extents const shape :
         {extents{1, 1}, extents{9, 1}, extents{40, 7}, extents{64, 64}, extents{300, 140}, extents{700, 300}}) {
      host_executor exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes(shape)}};
      auto y = random_matrix(shape, 1), turned = copy_of(y.view().t());
      strided_copy gaps{y.view()};
      orthonormal_report report;
      allocation_counter const allocations;
      orthonormalize(exec, y.view(), {.seed = 1}, &report);
      orthonormalize(exec, turned.view().t(), {.seed = 1});
      orthonormalize(exec, gaps.view(), {.seed = 1});
      CHECK(allocations.count() == 0);
      CHECK(exec.arena().peak() == orthonormalize_bytes(shape));
      CHECK(report.failed == 0);
      CHECK(report.replaced == 0);
      CHECK((report.passes == 2 || shape.cols == 1 || shape.cols == 64));
      CHECK(largest_difference(turned.view().t(), y.view()) <= 1e-5);
      CHECK(largest_difference(gaps.view(), y.view()) <= 1e-5);
    }
  }
  TEST_CASE("the triangular factor is positive: columns keep their order and direction") {
    for (extents const shape : {extents{50, 10}, extents{700, 300}}) {
      host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes(shape)}};
      auto const y = random_matrix(shape, 2);
      auto q = copy_of(y.view());
      orthonormal_report report;
      orthonormalize(exec, q.view(), {}, &report);
      CHECK(report.passes == 2);
      auto const r = plain_product(q.view().t(), y.view());
      for (index_t i = 0; i < shape.cols; ++i)
        for (index_t j = 0; j <= i; ++j) {
          if (i == j) CHECK(r(i, j) > 1);
          else CHECK(std::abs(r(i, j)) < 1e-5);
        }
    }
  }
  TEST_CASE_TEMPLATE("columns far apart that depend on each other are told from the others", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes({700, 300})}};
    auto y = random_matrix({700, 300}, 5);
    copy(exec, matrix_view<float const>(y.view().col_range(3, 4)), y.view().col_range(280, 281));
    fill(exec, y.view().col_range(10, 11), 0.0F);
    orthonormal_report report;
    orthonormalize(exec, y.view(), {.seed = 2}, &report);
    CHECK(report.failed == 0);
    CHECK(report.replaced == 2);
    CHECK(departure_from_orthonormal(y.view()) <= eps * std::sqrt(300.0));
  }
  TEST_CASE("orthonormal columns come back unchanged to rounding, in one pass") {
    host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({60, 20})}};
    auto q = random_matrix({60, 20}, 3);
    orthonormalize(exec, q.view(), {});
    auto const before = copy_of(q.view());
    orthonormal_report report;
    orthonormalize(exec, q.view(), {}, &report);
    CHECK(report.passes == 1);
    CHECK(largest_difference(q.view(), before.view()) <= 4 * eps);
  }
  TEST_CASE_TEMPLATE("columns near to orthonormal are corrected in one pass, whatever their lengths", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes({400, 90})}};
    for (orthonormal_options const& options :
         {orthonormal_options{}, {.first_gram = gram_kind::mixed, .last_gram = gram_kind::mixed}})
      for (float const length : {1.0F, 3.0F, 1e-20F, 1e25F}) {
        auto q = random_matrix({400, 90}, 3);
        auto const noise = random_matrix({400, 90}, 4);
        orthonormalize(exec, q.view(), {});
        axpy(exec, 1e-7F, noise.view(), q.view());  // departure 2e-5
        auto const before = copy_of(q.view());
        // Each column by another power of two as well: the result does not see it.
        scale_columns(exec, q.view(), [=](index_t k) { return std::ldexp(length, static_cast<int>(k % 7)); });
        orthonormal_report report;
        orthonormalize(exec, q.view(), {}, &report, options);
        CHECK(report.passes == 1);
        CHECK(report.failed == 0);
        CHECK(report.departure > 1e-5);
        CHECK(report.departure < 1e-4);
        CHECK(departure_from_orthonormal(q.view()) <= 2 * eps * std::sqrt(90.0));
        CHECK(largest_difference(q.view(), before.view()) <= 1e-4);
      }
  }
  TEST_CASE("columns are replaced by the caller's key, not by chance") {
    host_executor exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes({30, 6})}};
    matrix<float> a{30, 6}, b{30, 6}, c{30, 6};
    orthonormal_report report;
    orthonormalize(exec, a.view(), {.seed = 1}, &report);
    orthonormalize(exec, b.view(), {.seed = 1});
    orthonormalize(exec, c.view(), {.seed = 2});
    CHECK(report.replaced == 6);
    CHECK(same_bits(a, b));
    CHECK_FALSE(same_bits(a, c));
  }
  TEST_CASE("a single pass is asked for by name") {
    host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({60, 20})}};
    auto y = with_spectrum({60, 20}, geometric(20, 1e5), 3);
    orthonormal_report report;
    orthonormalize(exec, y.view(), {}, &report, roughly);
    CHECK(report.passes == 1);
    CHECK(report.failed == 0);
    CHECK(departure_from_orthonormal(y.view()) < 0.5);
  }
  TEST_CASE("too few passes are a failure that is reported") {
    host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({60, 20})}};
    auto y = with_spectrum({60, 20}, geometric(20, 1e5), 3);
    orthonormal_report report;
    orthonormalize(exec, y.view(), {}, &report, {.most_passes = 1});
    CHECK(report.failed == 1);
  }
  TEST_CASE("empty and wide matrices") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
    matrix<float> empty{5, 0}, wide{3, 4};
    orthonormal_report report{.passes = 9};
    orthonormalize(exec, empty.view(), {}, &report);
    CHECK(report.passes == 0);
    CHECK(exec.arena().peak() == 0);
    CHECK_THROWS_AS(orthonormalize(exec, wide.view(), {}), shape_error);
  }
  TEST_CASE("too little scratch is refused with the number of bytes") {
    host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({30, 6}) - 64}};
    auto y = random_matrix({30, 6}, 1);
    CHECK_THROWS_AS(orthonormalize(exec, y.view(), {}), state_error);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity anywhere is reported at once", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes({40, 12})}};
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U})
      for (index_t const at : {0, 251, 479}) {
        auto y = random_matrix({40, 12}, 1);
        y.data()[at] = std::bit_cast<float>(bits);
        orthonormal_report report;
        orthonormalize(exec, y.view(), {}, &report);
        CHECK(report.failed == 1);
        CHECK(report.passes == 0);
      }
  }
  TEST_CASE("columns of the largest floats and of subnormals stay finite") {
    host_executor exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({40, 12})}};
    auto y = random_matrix({40, 12}, 1);
    for (index_t i = 0; i < 40; ++i) {
      y(i, 3) = std::copysign(std::numeric_limits<float>::max(), y(i, 3));
      y(i, 5) *= 1e-42F;
    }
    orthonormal_report report;
    orthonormalize(exec, y.view(), {}, &report);
    CHECK(report.failed == 0);
    for (index_t e = 0; e < 480; ++e) CHECK(is_finite(y.data()[e]));
    CHECK(departure_from_orthonormal(y.view()) < 20 * std::sqrt(12.0) * eps);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of orthonormal columns do not depend on the number of threads") {
    extents const shape{700, 150};
    auto const run = [&](int threads) {
      host_executor exec{{.threads = threads, .scratch_bytes = orthonormalize_bytes(shape)}};
      auto y = random_matrix(shape, 1);
      for (index_t i = 0; i < shape.rows; ++i) y(i, 70) = y(i, 3), y(i, 71) = 0;
      orthonormalize(exec, y.view(), {.seed = 3});
      return y;
    };
    auto const one = run(1);
    for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
  }
}

}  // namespace orthonormalize_test
