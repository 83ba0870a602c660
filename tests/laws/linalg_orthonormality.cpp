// ‖PᵀP - I‖_F <= 20 sqrt(r) eps for every finite input, and nothing of the input's range is lost.
#include <doctest/doctest.h>

#include "lowrank/linalg/orthonormalize.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("orthonormality") {
  TEST_CASE_TEMPLATE("hard columns become orthonormal ones that span them", E, LOWRANK_TEST_EXECUTORS) {
    for (extents const shape :
         {extents{200, 16}, extents{200, 64}, extents{16, 16}, extents{64, 64}, extents{2, 2}, extents{3, 3}}) {
      E exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes(shape)}};
      for (auto const& [name, y] : hard_cases(shape.rows, shape.cols)) {
        CAPTURE(shape);
        CAPTURE(name);
        auto q = copy_of(y.view());
        orthonormal_report report;
        orthonormalize(exec, q.view(), {.seed = 1}, &report);
        CHECK(report.failed == 0);
        CHECK(report.passes <= 5);
        CHECK(departure_from_orthonormal(q.view()) <= 2 * std::sqrt(static_cast<double>(shape.cols)) * eps);
        // Energy of Y outside of span(Q), with Y brought to scale so that its squares exist in fp64.
        matrix<double> scaled{shape};
        double most = 0, lost = 0, all = 0;
        for (index_t e = 0; e < shape.size(); ++e) most = std::max(most, std::abs(static_cast<double>(y.data()[e])));
        for (index_t e = 0; e < shape.size(); ++e)
          scaled.data()[e] = most > 0 ? static_cast<double>(y.data()[e]) / most : 0;
        auto const inside = plain_product(q.view().t(), scaled.view());
        auto const back = plain_product(q.view(), inside.view());
        for (index_t e = 0; e < shape.size(); ++e) {
          lost += std::pow(scaled.data()[e] - back.data()[e], 2);
          all += std::pow(scaled.data()[e], 2);
        }
        CHECK(lost <= 1e-12 * all);
      }
    }
  }
  TEST_CASE_TEMPLATE("every column's own direction survives, whatever its scale", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1, .scratch_bytes = orthonormalize_bytes({120, 24})}};
    auto y = random_matrix({120, 24}, 3);
    for (index_t j = 0; j < 24; ++j)
      for (index_t i = 0; i < 120; ++i)
        y(i, j) = static_cast<float>(std::ldexp(static_cast<double>(y(i, j)), static_cast<int>(10 * j) - 125));
    auto q = copy_of(y.view());
    orthonormalize(exec, q.view(), {.seed = 1});
    for (index_t j = 0; j < 24; ++j) {
      double inside = 0, all = 0;
      for (index_t i = 0; i < 120; ++i)
        all += std::pow(std::ldexp(static_cast<double>(y(i, j)), 125 - static_cast<int>(10 * j)), 2);
      for (index_t k = 0; k < 24; ++k) {
        double dot = 0;
        for (index_t i = 0; i < 120; ++i)
          dot +=
              static_cast<double>(q(i, k)) * std::ldexp(static_cast<double>(y(i, j)), 125 - static_cast<int>(10 * j));
        inside += dot * dot;
      }
      CHECK(inside == doctest::Approx(all).epsilon(1e-6));
    }
  }
}
