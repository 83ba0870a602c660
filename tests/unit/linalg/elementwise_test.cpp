#include "lowrank/linalg/elementwise.hpp"

#include <doctest/doctest.h>

#include "lowrank/linalg/columns.hpp"
#include "support/matrices.hpp"

namespace elementwise_test {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE("elementwise") {
  TEST_CASE("copy goes between any layouts and leaves the gaps of a strided view alone") {
    host_executor exec{{.threads = 2}};
    for (extents const shape :
         {extents{1, 1}, extents{1, 7}, extents{7, 1}, extents{33, 65}, extents{300, 200}, extents{0, 3}}) {
      auto const a = random_matrix(shape, 1);
      strided_copy from{a.view()};
      matrix<float> rows{shape}, columns{shape.t()};
      copy(exec, from.view(), rows.view());
      CHECK(same_bits(a, rows));
      copy(exec, a.view(), columns.view().t());
      CHECK(largest_difference(columns.view().t(), a.view()) == 0);
      copy(exec, columns.view().t(), from.view());
      CHECK(largest_difference(from.view(), a.view()) == 0);
    }
    matrix<float> guard{4, 9};
    fill(exec, guard.view(), 5.0F);
    fill(exec, matrix_view<float>{guard.data(), 2, 3, 18, 3}, 1.0F);
    double sum = 0;
    for (index_t e = 0; e < 36; ++e) sum += static_cast<double>(guard.data()[e]);
    CHECK(sum == 36 * 5 - 6 * 4);
  }
  TEST_CASE("convert rounds once, to nearest even") {
    host_executor exec{{.threads = 1}};
    auto const a = random_matrix({13, 17}, 2);
    matrix<double> wide{a.shape()};
    matrix<bf16> half{a.shape()};
    matrix<fp16> ieee{a.shape()};
    matrix<float> back{a.shape()};
    convert(exec, a.view(), wide.view());
    CHECK(largest_difference(a.view(), wide.view()) == 0);
    convert(exec, a.view(), half.view());
    convert(exec, a.view(), ieee.view());
    for (index_t e = 0; e < a.shape().size(); ++e) {
      CHECK(half.data()[e] == to_bf16(a.data()[e]));
      CHECK(ieee.data()[e] == to_fp16(a.data()[e]));
    }
    convert(exec, half.view().t(), back.view().t());
    for (index_t e = 0; e < a.shape().size(); ++e) CHECK(back.data()[e] == half.data()[e].value());
    convert(exec, wide.view(), back.view());
    CHECK(same_bits(a, back));
  }
  TEST_CASE("scale, axpy and identity") {
    host_executor exec{{.threads = 2}};
    auto const a = random_matrix({70, 300}, 3);
    auto b = random_matrix({70, 300}, 4);
    auto const before = copy_of(b.view());
    axpy(exec, -2.0F, a.view(), b.view());
    float const three = 3.0F;
    add_scaled(exec, &three, a.view(), b.view());
    scale(exec, 0.5F, b.view().t());
    for (index_t e = 0; e < 70 * 300; ++e)
      CHECK(std::abs(b.data()[e] - 0.5F * (before.data()[e] + a.data()[e])) < 1e-6F);
    matrix<float> eye{3, 5};
    fill(exec, eye.view(), 9.0F);
    fill_identity(exec, eye.view());
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 5; ++j) CHECK(eye(i, j) == (i == j ? 1.0F : 0.0F));
  }
  TEST_CASE("shapes that differ are refused before anything is written") {
    host_executor exec{{.threads = 1}};
    auto const a = random_matrix({3, 4}, 1);
    matrix<float> b{4, 3};
    CHECK_THROWS_AS(copy(exec, a.view(), b.view()), shape_error);
    CHECK_THROWS_AS(axpy(exec, 1.0F, a.view(), b.view()), shape_error);
    float const one = 1.0F;
    CHECK_THROWS_AS(add_scaled(exec, &one, a.view(), b.view()), shape_error);
    CHECK(squared_norm_of(b.view()) == 0);
  }
  TEST_CASE("random fills depend on the element number only") {
    host_executor exec{{.threads = 2}};
    rng_key const key{.seed = 42, .step = 3, .tensor = 7, .purpose = rng_purpose::sketch};
    for (extents const shape : {extents{1, 1}, extents{5, 3}, extents{3, 127}, extents{200, 131}}) {
      matrix<float> signs{shape}, normal{shape}, flipped{shape.t()};
      fill_rademacher(exec, key, signs.view());
      fill_gaussian(exec, key, normal.view());
      bool right = true;
      for (index_t i = 0; i < shape.rows; ++i)
        for (index_t j = 0; j < shape.cols; ++j) {
          auto const element = static_cast<std::uint64_t>(i * shape.cols + j);
          right &= signs(i, j) == rademacher(key, element) && normal(i, j) == gaussian(key, element);
        }
      CHECK(right);
      fill_rademacher(exec, key, flipped.view().t());
      CHECK(largest_difference(flipped.view().t(), signs.view()) == 0);
      index_t const half = shape.rows / 2;
      fill_rademacher(exec, key, flipped.view().t().row_range(half, shape.rows),
                      static_cast<std::uint64_t>(half * shape.cols));
      CHECK(largest_difference(flipped.view().t(), signs.view()) == 0);
    }
  }
}

TEST_SUITE("columns") {
  TEST_CASE("balancing is exact and brings every column into [1, 2)") {
    host_executor exec{{.threads = 2}};
    auto y = random_matrix({50, 130}, 5);
    for (index_t j = 0; j < 130; ++j)
      for (index_t i = 0; i < 50; ++i)
        y(i, j) = static_cast<float>(std::ldexp(static_cast<double>(y(i, j)), static_cast<int>(2 * j) - 140));
    for (index_t i = 0; i < 50; ++i) y(i, 17) = 0;
    auto const before = copy_of(y.view());
    for (bool const turned : {false, true}) {
      auto now =
          copy_of(turned ? matrix_view<float const>(before.view()).t() : matrix_view<float const>(before.view()));
      auto const view = turned ? now.view().t() : now.view();
      std::int32_t bad = 9;
      balance_columns(exec, view, &bad);
      CHECK(bad == 0);
      for (index_t j = 0; j < 130; ++j) {
        float most = 0, ratio = 0;
        bool one_ratio = true;
        for (index_t i = 0; i < 50; ++i) {
          most = std::max(most, std::abs(view(i, j)));
          if (before(i, j) == 0) continue;
          double const r = static_cast<double>(view(i, j)) / static_cast<double>(before(i, j));
          if (ratio == 0) ratio = static_cast<float>(std::log2(r));
          one_ratio &= std::exp2(static_cast<double>(ratio)) == r;
        }
        if (j == 17) CHECK(most == 0);
        else CHECK((most >= 1 && most < 2 && one_ratio));
      }
    }
  }
  TEST_CASE("oriented columns have a positive largest entry") {
    host_executor exec{{.threads = 2}};
    auto y = random_matrix({40, 70}, 6);
    auto const before = copy_of(y.view());
    orient_columns(exec, y.view());
    for (index_t j = 0; j < 70; ++j) {
      index_t most = 0;
      for (index_t i = 1; i < 40; ++i)
        if (std::abs(y(i, j)) > std::abs(y(most, j))) most = i;
      CHECK(y(most, j) > 0);
      float const sign = before(most, j) > 0 ? 1.0F : -1.0F;
      for (index_t i = 0; i < 40; ++i) CHECK(y(i, j) == sign * before(i, j));
    }
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("one NaN or infinity anywhere is seen by balance_columns") {
    host_executor exec{{.threads = 2}};
    for (std::uint32_t const bits : {0x7FC00000U, 0xFFC00001U, 0x7F800000U, 0xFF800000U, 0x7F800001U})
      for (index_t const at : {0, 77, 50 * 130 - 1}) {
        auto y = random_matrix({50, 130}, 5);
        y.data()[at] = std::bit_cast<float>(bits);
        std::int32_t bad = 0;
        balance_columns(exec, y.view(), &bad);
        CHECK(bad == 1);
      }
  }
}

}  // namespace elementwise_test
