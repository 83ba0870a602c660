// Grams with more columns than a tile, in every layout.
#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace wide_gram_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("wide Grams") {
  TEST_CASE_TEMPLATE("both triangles, rows or columns contiguous or neither", E, LOWRANK_TEST_EXECUTORS) {
    for (index_t const bytes : {4 << 20, 2 << 20}) {
      E exec{{.threads = 2, .worker_bytes = bytes}};
      for (auto const shape : {extents{1, 129}, extents{385, 130}, extents{90, 300}, extents{800, 577}}) {
        CAPTURE(shape);
        auto const y = random_matrix(shape, 2);
        auto const turned = copy_of(y.view().t());
        strided_copy apart{y.view()};
        auto const expected = plain_product(y.view().t(), y.view());
        // In the middle of a larger matrix, which holds NaN where the result goes.
        std::array<matrix_view<float const>, 3> const layouts{y.view(), turned.view().t(), apart.view()};
        for (auto const view : layouts) {
          matrix<double> around{shape.cols + 5, shape.cols + 9};
          auto const c = around.view().sub({2, shape.cols + 2, 3, shape.cols + 3});
          for (index_t i = 0; i < c.rows; ++i)
            for (index_t j = 0; j < c.cols; ++j) c(i, j) = std::nan("");
          gram(exec, view, c);
          CHECK(largest_difference(c, expected.view()) <= 1e-15 * static_cast<double>(shape.rows + 20) * 30);
          double outside = 0;
          for (index_t i = 0; i < around.shape().rows; ++i)
            for (index_t j = 0; j < around.shape().cols; ++j)
              if (i < 2 || i >= shape.cols + 2 || j < 3 || j >= shape.cols + 3) outside += std::abs(around(i, j));
          CHECK(outside == 0);
        }
      }
    }
  }
}

}  // namespace wide_gram_test
