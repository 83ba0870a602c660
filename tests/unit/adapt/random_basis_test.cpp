#include "lowrank/adapt/random_basis.hpp"

#include <doctest/doctest.h>

#include "lowrank/adapt/random_combination.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace random_basis_test {

using namespace lowrank;
using namespace lowrank_test;
using adapt::random_basis;

namespace {

constexpr rng_key key{.seed = 11, .step = 1, .tensor = 2, .purpose = rng_purpose::initialisation};

std::vector<double> coefficients(index_t count) {
  std::vector<double> out;
  for (index_t i = 0; i < count; ++i) out.push_back(std::sin(1.0 + static_cast<double>(i)));
  return out;
}

}  // namespace

TEST_SUITE("random bases") {
  TEST_CASE("elements are exact: odd multiples of 2^-24 in (-1, 1), from both ends of the words") {
    CHECK(adapt::symmetric_uniform(0) == 0x1p-24F);
    CHECK(adapt::symmetric_uniform(255) == 0x1p-24F);
    CHECK(adapt::symmetric_uniform(0xFFFFFFFFU) == -0x1p-24F);
    CHECK(adapt::symmetric_uniform(0x7FFFFFFFU) == 1 - 0x1p-24F);
    CHECK(adapt::symmetric_uniform(0x80000000U) == -(1 - 0x1p-24F));
    CHECK(adapt::symmetric_uniform(0x12345678U) == -adapt::symmetric_uniform(~0x12345678U));
  }

  TEST_CASE("mean 0, variance 1/3, and no two matrices or elements alike") {
    random_basis const basis{key, 50, {40, 25}};
    double sum = 0, squares = 0, neighbours = 0, other = 0;
    for (index_t i = 0; i < basis.count; ++i)
      for (index_t e = 0; e < 1000; ++e) {
        auto const x = static_cast<double>(basis.element(i, e));
        sum += x, squares += x * x;
        neighbours += x * static_cast<double>(basis.element(i, (e + 1) % 1000));
        other += x * static_cast<double>(basis.element((i + 1) % 50, e));
      }
    CHECK(std::abs(sum) / 50000 < 0.01);
    CHECK(squares / 50000 == doctest::Approx(1.0 / 3).epsilon(0.01));
    CHECK(std::abs(neighbours) / 50000 < 0.006);
    CHECK(std::abs(other) / 50000 < 0.006);
  }

  TEST_CASE("tiles are the elements, also where a matrix ends within a block") {
    for (extents const shape : {extents{3, 5}, extents{16, 16}, extents{1, 1}, extents{7, 11}}) {
      random_basis const basis{key, 6, shape};
      index_t differing = 0;
      for (index_t i = 0; i < basis.count; ++i)
        for (index_t first = 0; first < shape.size(); first += 4)
          for (index_t length = 0; first + length <= shape.size(); ++length) {
            std::vector<float> tile(static_cast<std::size_t>(length) + 1, 9.0F);
            basis.tile(i, first, length, tile.data());
            for (index_t e = 0; e < length; ++e)
              differing += tile[static_cast<std::size_t>(e)] != basis.element(i, first + e) ? 1 : 0;
            differing += tile.back() != 9.0F ? 1 : 0;
          }
      CHECK(differing == 0);
    }
  }

  TEST_CASE("combinations and products with every matrix, in one pass or in two, against plain loops") {
    host_executor exec{{.threads = 2}};
    for (extents const shape : {extents{3, 5}, extents{40, 30}, extents{9, 257}, extents{64, 64}})
      for (index_t const count : {1, 5, 33}) {
        CAPTURE(shape);
        random_basis const basis{key, count, shape};
        auto const c = coefficients(count);
        matrix<double> g{shape}, sum{shape}, expected{shape};
        for (index_t e = 0; e < shape.size(); ++e)
          g.data()[e] = static_cast<double>(gaussian({.seed = 7}, static_cast<std::uint64_t>(e)));
        fill(exec, sum.view(), 0.5);
        fill(exec, expected.view(), 0.5);
        std::vector<double> products(static_cast<std::size_t>(count)), plain(products), alone(products);
        for (index_t i = 0; i < count; ++i)
          for (index_t e = 0; e < shape.size(); ++e) {
            auto const x = static_cast<double>(basis.element(i, e));
            expected.data()[e] += 0.25 * c[static_cast<std::size_t>(i)] * x;
            plain[static_cast<std::size_t>(i)] += 0.25 * g.data()[e] * x;
          }
        exec.reserve(adapt::project_bytes(basis));
        std::span<double> const to{products}, only{alone};
        adapt::combine_and_project(exec, basis, c, 0.25, sum.view(), std::as_const(g).view(), to);
        CHECK(largest_difference(sum.view(), expected.view()) <= 1e-14);
        for (std::size_t i = 0; i < plain.size(); ++i) CHECK(products[i] == doctest::Approx(plain[i]).epsilon(1e-12));
        adapt::combine_and_project(exec, basis, c, 0.25, {}, std::as_const(g).view(), only);
        CHECK(alone == products);
        fill(exec, expected.view(), 0.5);
        adapt::combine(exec, basis, c, 0.25, expected.view());
        CHECK(same_bits(sum, expected));
      }
  }

  TEST_CASE("shapes that do not fit are refused") {
    host_executor exec{{.threads = 1}};
    random_basis const basis{key, 3, {4, 5}};
    matrix<float> sum{4, 5}, other{5, 4};
    std::vector<float> const three(3), two(2);
    CHECK_THROWS_AS(adapt::combine(exec, basis, two, 1.0F, sum.view()), shape_error);
    CHECK_THROWS_AS(adapt::combine(exec, basis, three, 1.0F, other.view()), shape_error);
    CHECK_THROWS_AS(adapt::combine(exec, basis, three, 1.0F, other.view().t()), shape_error);  // not packed by rows
  }
}

}  // namespace random_basis_test
