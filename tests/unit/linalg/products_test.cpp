#include <doctest/doctest.h>

#include <bit>
#include <limits>
#include <utility>

#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/multiply_upper.hpp"
#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace products_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

struct product_shape {
  index_t m, k, n;
};
constexpr product_shape product_shapes[] = {{1, 1, 1},
                                            {1, 9, 5},
                                            {9, 1, 1},
                                            {17, 33, 5},
                                            {64, 64, 64},
                                            {5, 0, 3},
                                            {0, 4, 4},
                                            {400, 7, 390},
                                            {130, 500, 129},
                                            {3, 700, 1},
                                            {1, 3, 700},
                                            // few columns, or few rows, of many
                                            {513, 64, 1},
                                            {600, 150, 5},
                                            {2049, 70, 48},
                                            {530, 131, 49},
                                            {40, 200, 517},
                                            {64, 67, 1024}};

}  // namespace

TEST_SUITE("products") {
  TEST_CASE_TEMPLATE("multiply equals fp64 loops in every layout", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const [m, k, n] : product_shapes) {
      auto const a = random_matrix({m, k}, 1), b = random_matrix({k, n}, 2), c0 = random_matrix({m, n}, 3);
      auto const at = copy_of(a.view().t()), bt = copy_of(b.view().t());
      strided_copy a_gaps{a.view()}, b_gaps{b.view()};
      auto const plain = plain_product(a.view(), b.view());
      double const bound = 4 * eps * std::sqrt(static_cast<double>(k) + 1) * 8;
      matrix_view<float const> const lefts[] = {a.view(), at.view().t(), a_gaps.view()};
      matrix_view<float const> const rights[] = {b.view(), bt.view().t(), b_gaps.view()};
      for (auto const left : lefts)
        for (auto const right : rights)
          for (int layout = 0; layout < 3; ++layout) {
            matrix<float> rows = copy_of(c0.view()), columns = copy_of(c0.view().t());
            strided_copy gaps{c0.view()};
            auto const c = layout == 0 ? rows.view() : layout == 1 ? columns.view().t() : gaps.view();
            multiply(exec, -0.5F, left, right, 2.0F, c);
            double worst = 0;
            for (index_t i = 0; i < m; ++i)
              for (index_t j = 0; j < n; ++j)
                worst = std::max(worst, std::abs(static_cast<double>(c(i, j)) -
                                                 (2.0 * static_cast<double>(c0(i, j)) - 0.5 * plain(i, j))));
            CHECK(worst <= bound);
          }
    }
  }
  TEST_CASE_TEMPLATE("multiply and gram in fp64", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const [m, k, n] : product_shapes) {
      auto const a = random_matrix({m, k}, 4), b = random_matrix({k, n}, 5);
      matrix<double> wide_a{m, k}, wide_b{k, n}, c{m, n}, g{k, k};
      convert(exec, a.view(), wide_a.view());
      convert(exec, b.view(), wide_b.view());
      multiply(exec, 1.0, wide_a.view(), wide_b.view(), 0.0, c.view());
      CHECK(largest_difference(c.view(), plain_product(a.view(), b.view()).view()) <= 1e-12);
      auto const plain = plain_product(a.view().t(), a.view());
      double const bound = 1e-14 * static_cast<double>(std::max<index_t>(m, 1000));
      gram(exec, a.view(), g.view());
      CHECK(largest_difference(g.view(), plain.view()) <= bound);
      auto const turned = copy_of(a.view().t());
      fill(exec, g.view(), -1.0);
      gram(exec, turned.view().t(), g.view());
      CHECK(largest_difference(g.view(), plain.view()) <= bound);
    }
  }
  TEST_CASE_TEMPLATE("a mixed Gram is good to fp32, on its diagonal to fp64", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape : {extents{1, 1}, extents{1, 5}, extents{5, 0}, extents{0, 4}, extents{700, 3},
                                extents{256, 129}, extents{600, 300}}) {
      auto const y = random_matrix(shape, 4), turned = copy_of(y.view().t());
      strided_copy gaps{y.view()};
      auto const plain = plain_product(y.view().t(), y.view());
      matrix_view<float const> const layouts[] = {y.view(), turned.view().t(), gaps.view()};
      for (auto const v : layouts) {
        matrix<double> g{shape.cols, shape.cols};
        fill(exec, g.view(), -1.0);
        gram_mixed(exec, v, g.view());
        double off = 0, diagonal = 0;
        for (index_t i = 0; i < shape.cols; ++i)
          for (index_t j = 0; j < shape.cols; ++j) {
            auto& worst = i == j ? diagonal : off;
            worst = std::max(worst, std::abs(g(i, j) - plain(i, j)));
          }
        CHECK(off <= 4 * eps * static_cast<double>(shape.rows));
        CHECK((off > 0) == (shape.rows > 0 && shape.cols > 1));
        CHECK(diagonal <= 1e-11);
      }
    }
    matrix<double> g{4, 4};
    CHECK_THROWS_AS(gram_mixed(exec, random_matrix({4, 3}, 1).view(), g.view()), shape_error);
  }
  TEST_CASE_TEMPLATE("a factored gradient multiplies as the dense one", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    auto const dy = random_matrix({24, 40}, 1), x = random_matrix({24, 56}, 2), b = random_matrix({56, 9}, 3);
    outer_product<> const g{dy.view(), x.view()};
    auto const dense = plain_product(dy.view().t(), x.view());
    auto const expected = plain_product(dense.view(), b.view());
    matrix<float> c{40, 9};
    exec.arena().reset_peak();
    multiply(exec, 1.0F, g, b.view(), 0.0F, c.view());
    CHECK(largest_difference(c.view(), expected.view()) <= 2e-3);
    CHECK(exec.arena().peak() == gradient_product_bytes(24, 9));
    auto const left = random_matrix({40, 7}, 4);
    matrix<float> d{56, 7};
    multiply(exec, 1.0F, g.t(), left.view(), 0.0F, d.view());
    CHECK(largest_difference(d.view(), plain_product(dense.view().t(), left.view()).view()) <= 2e-3);
    double norm = 0, bound = 0;
    squared_norm(exec, g, &norm);
    energy_bound(exec, g, &bound);
    CHECK(norm == doctest::Approx(squared_norm_of(dense.view())).epsilon(1e-5));
    CHECK(bound >= norm);
  }
  TEST_CASE_TEMPLATE("beta = 0 never reads the output", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    auto const a = random_matrix({40, 30}, 1), b = random_matrix({30, 20}, 2);
    matrix<float> c{40, 20};
    fill(exec, c.view(), std::bit_cast<float>(0x7FC00000U));
    multiply(exec, 1.0F, a.view(), b.view(), 0.0F, c.view());
    CHECK(largest_difference(c.view(), plain_product(a.view(), b.view()).view()) <= 1e-4);
  }
  TEST_CASE_TEMPLATE("shapes that do not fit are refused before anything is written", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    auto const a = random_matrix({4, 3}, 1);
    matrix<float> c{4, 4};
    CHECK_THROWS_AS(multiply(exec, 1.0F, a.view(), a.view(), 0.0F, c.view()), shape_error);
    CHECK_THROWS_AS(multiply(exec, 1.0F, a.view(), a.view().t(), 0.0F, c.view().row_range(0, 3)), shape_error);
    matrix<double> g{4, 4};
    CHECK_THROWS_AS(gram(exec, a.view(), g.view()), shape_error);
    CHECK(squared_norm_of(c.view()) == 0);
  }
  TEST_CASE_TEMPLATE("a product with a triangle equals fp64 loops in every layout", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const [m, l] : {extents{1, 1}, extents{9, 5}, extents{0, 4}, extents{700, 130}, extents{1100, 321}}) {
      auto const a = random_matrix({m, l}, 1);
      auto w = random_matrix({l, l}, 2);
      for (index_t i = 0; i < l; ++i)
        for (index_t j = 0; j < i; ++j) w(i, j) = 0;
      auto const at = copy_of(a.view().t()), wt = copy_of(w.view().t());
      strided_copy w_gaps{w.view()};
      auto const plain = plain_product(a.view(), w.view());
      matrix_view<float const> const lefts[] = {a.view(), at.view().t()};
      matrix_view<float const> const triangles[] = {w.view(), wt.view().t(), w_gaps.view()};
      for (auto const left : lefts)
        for (auto const triangle : triangles)
          for (int layout = 0; layout < 3; ++layout) {
            auto rows = random_matrix({m, l}, 3), columns = random_matrix({l, m}, 3);
            strided_copy gaps{rows.view()};
            auto const c = layout == 0 ? rows.view() : layout == 1 ? columns.view().t() : gaps.view();
            multiply_upper(exec, left, triangle, c);
            CHECK(largest_difference(c, plain.view()) <= 32 * eps * std::sqrt(static_cast<double>(l)));
          }
    }
    matrix<float> c{3, 4};
    CHECK_THROWS_AS(multiply_upper(exec, matrix_view<float const>(c.view()), matrix_view<float const>(c.view()),
                                   matrix<float>{3, 4}.view()),
                    shape_error);
  }
  TEST_CASE_TEMPLATE("bits of a product of few columns do not depend on the number of threads", E,
                     LOWRANK_TEST_EXECUTORS) {
    auto const a = random_matrix({1300, 300}, 1), b = random_matrix({300, 21}, 2), d = random_matrix({1300, 21}, 3);
    auto const product = [&](int threads) {
      E exec{{.threads = threads}};
      std::pair<matrix<float>, matrix<float>> out{matrix<float>{1300, 21}, matrix<float>{21, 300}};
      multiply(exec, 1.0F, a.view(), b.view(), 0.0F, out.first.view());
      multiply(exec, 1.0F, d.view().t(), a.view(), 0.0F, out.second.view());
      return out;
    };
    auto const one = product(1), three = product(3);
    CHECK(same_bits(one.first, three.first));
    CHECK(same_bits(one.second, three.second));
  }
  TEST_CASE_TEMPLATE("infinities in a product of few columns stay in their row and column", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    auto a = random_matrix({700, 90}, 1);
    auto const b = random_matrix({90, 5}, 2);
    a(699, 89) = std::numeric_limits<float>::infinity();
    matrix<float> c{700, 5};
    for (auto const& left : {copy_of(a.view()), copy_of(a.view().t())}) {
      multiply(exec, 1.0F, left.shape().rows == 700 ? left.view() : left.view().t(), b.view(), 0.0F, c.view());
      for (index_t i = 0; i < 700; ++i)
        for (index_t j = 0; j < 5; ++j) {
          CAPTURE(i);
          CHECK(is_finite(c(i, j)) == (i < 699));
          if (i == 699) CHECK(c(i, j) == std::copysign(std::numeric_limits<float>::infinity(), b(89, j)));
        }
    }
  }
  TEST_CASE("products do not allocate") {
    host_executor exec{{.threads = 2}};
    auto const a = random_matrix({300, 200}, 1), tall = random_matrix({600, 200}, 2);
    matrix<float> c{300, 300}, few{600, 9};
    matrix<double> g{200, 200};
    allocation_counter const allocations;
    multiply(exec, 1.0F, a.view(), a.view().t(), 0.0F, c.view());
    multiply(exec, 1.0F, tall.view(), a.view().row_range(0, 200).col_range(0, 9), 0.0F, few.view());
    gram(exec, a.view(), g.view());
    gram_mixed(exec, a.view(), g.view());
    CHECK(allocations.count() == 0);
    matrix<float> const one_more{2, 2};
    CHECK((allocations.count() > 0) == allocation_counter::watches());
  }
#if defined(LOWRANK_HAS_BLAS)
  TEST_CASE("OpenBLAS has its threads back when the last executor ends") {
    if (openblas_set_num_threads == nullptr) return;
    int const before = openblas_get_num_threads();
    openblas_set_num_threads(2);
    {
      blas_executor const first{{.threads = 1}};
      {
        blas_executor const second{{.threads = 1}};
        CHECK(openblas_get_num_threads() == 1);
      }
      CHECK(openblas_get_num_threads() == 1);
    }
    CHECK(openblas_get_num_threads() == 2);
    openblas_set_num_threads(before);
  }
#endif
}

TEST_SUITE("threads") {
  TEST_CASE("bits of products do not depend on the number of threads") {
    host_executor one{{.threads = 1}};
    auto const a = random_matrix({700, 411}, 1), b = random_matrix({411, 260}, 2);
    matrix<float> c{700, 260}, d{411, 411};
    matrix<double> g{411, 411}, x{411, 411};
    multiply(one, 1.0F, a.view(), b.view(), 0.0F, c.view());
    multiply(one, 1.0F, a.view().t(), a.view(), 0.0F, d.view());
    gram(one, a.view(), g.view());
    gram_mixed(one, a.view(), x.view());
    for (int const threads : {2, 3, 8}) {
      host_executor many{{.threads = threads}};
      matrix<float> c2{700, 260}, d2{411, 411};
      matrix<double> g2{411, 411}, x2{411, 411};
      multiply(many, 1.0F, a.view(), b.view(), 0.0F, c2.view());
      multiply(many, 1.0F, a.view().t(), a.view(), 0.0F, d2.view());
      gram(many, a.view(), g2.view());
      gram_mixed(many, a.view(), x2.view());
      CHECK(same_bits(c, c2));
      CHECK(same_bits(d, d2));
      CHECK(same_bits(g, g2));
      CHECK(same_bits(x, x2));
    }
  }
}

}  // namespace products_test
