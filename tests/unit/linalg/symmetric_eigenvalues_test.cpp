#include "lowrank/linalg/host/symmetric_eigenvalues.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace symmetric_eigenvalues_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Eigenvalues of one matrix, which is left as it is.
template <class E>
std::vector<double> eigenvalues(E& exec, matrix<double> const& c, std::int32_t* failed = nullptr) {
  matrix<double> work{c.shape()};
  std::copy_n(c.data(), c.shape().size(), work.data());
  std::vector<double> values(static_cast<std::size_t>(c.shape().rows));
  eigenvalue_problem one{work.view(), values.data()};
  symmetric_eigenvalues(exec, std::span{&one, 1});
  if (failed != nullptr) *failed = one.failed;
  return values;
}
/// Q diag(values) Qᵀ.
matrix<double> with_eigenvalues(std::vector<double> const& values, std::uint64_t seed) {
  auto const n = static_cast<index_t>(values.size());
  auto const q = orthonormal_columns(n, n, seed);
  matrix<double> c{n, n};
  for (index_t k = 0; k < n; ++k)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) c(i, j) += values[static_cast<std::size_t>(k)] * q(k, i) * q(k, j);
  return c;
}
void check_values(std::vector<double> const& found, std::vector<double> expected, double tolerance) {
  std::ranges::sort(expected, std::greater<>{});
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(std::abs(found[i] - expected[i]) <= tolerance);
}

}  // namespace

TEST_SUITE("eigenvalues without vectors") {
  TEST_CASE_TEMPLATE("known ones come back", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (index_t const n : {1, 2, 3, 31, 32, 33, 64, 100, 150}) {
      CAPTURE(n);
      std::vector<double> mixed, graded = geometric(n, 1e12), equal(static_cast<std::size_t>(n), -2.5), pair;
      for (index_t k = 0; k < n; ++k) {
        mixed.push_back(std::cos(static_cast<double>(3 * k)) * 7);
        pair.push_back(k % 2 == 0 ? 1 : 1 + 1e-13);
      }
      for (auto const& values : {mixed, graded, equal, pair}) {
        auto const found = eigenvalues(exec, with_eigenvalues(values, 3));
        double const size = std::max(std::abs(found.front()), std::abs(found.back()));
        check_values(found, values, 40 * static_cast<double>(n + 10) * 1e-16 * size);
        CHECK(std::ranges::is_sorted(found, std::greater<>{}));
      }
    }
  }
  TEST_CASE_TEMPLATE("tridiagonal, diagonal, zero and broken-up matrices", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    index_t const n = 75;
    matrix<double> second{n, n}, diagonal{n, n}, blocks{n, n};
    std::vector<double> expected, of_diagonal, of_blocks;
    for (index_t i = 0; i < n; ++i) {
      second(i, i) = 2;
      if (i > 0) second(i, i - 1) = second(i - 1, i) = -1;
      expected.push_back(2 - 2 * std::cos(std::numbers::pi * static_cast<double>(i + 1) / static_cast<double>(n + 1)));
      diagonal(i, i) = static_cast<double>((i * 29) % 31);
      of_diagonal.push_back(diagonal(i, i));
      blocks(i, i) = 1;
      if (i % 3 == 1) blocks(i, i - 1) = blocks(i - 1, i) = 0.5;
      of_blocks.push_back(i % 3 == 2 ? 1.0 : i % 3 == 1 ? 1.5 : 0.5);
    }
    check_values(eigenvalues(exec, second), expected, 2e-14);
    check_values(eigenvalues(exec, diagonal), of_diagonal, 2e-14);
    check_values(eigenvalues(exec, blocks), of_blocks, 2e-14);
    check_values(eigenvalues(exec, matrix<double>{n, n}), std::vector<double>(75), 0);
    CHECK(eigenvalues(exec, matrix<double>{0, 0}).empty());
    for (double const scale : {1e-290, 1e290}) {
      matrix<double> scaled{n, n};
      for (index_t e = 0; e < n * n; ++e) scaled.data()[e] = scale * second.data()[e];
      auto found = eigenvalues(exec, scaled);
      for (double& x : found) x /= scale;
      check_values(found, expected, 2e-14);
    }
  }
  TEST_CASE_TEMPLATE("several at once: as each alone, the bad one marked", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 3}};
    std::vector<matrix<double>> work, kept;
    std::vector<std::vector<double>> values;
    for (index_t const n : {5, 60, 33, 0, 60}) {
      kept.push_back(with_eigenvalues(power_law(n, 1), static_cast<std::uint64_t>(n + 1)));
      auto& c = work.emplace_back(kept.back().shape());
      std::copy_n(kept.back().data(), n * n, c.data());
      values.emplace_back(static_cast<std::size_t>(n));
    }
    work[4](7, 3) = work[4](3, 7) = std::nan("");
    std::vector<eigenvalue_problem> problems;
    for (std::size_t i = 0; i < 5; ++i) problems.push_back({work[i].view(), values[i].data()});
    symmetric_eigenvalues(exec, std::span{problems});
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(problems[i].failed == (i == 4 ? 1 : 0));
      if (i < 4) CHECK(values[i] == eigenvalues(exec, kept[i]));
    }
    matrix<double> wide{2, 3};
    eigenvalue_problem wrong{wide.view(), values[0].data()};
    CHECK_THROWS_AS(symmetric_eigenvalues(exec, std::span{&wrong, 1}), shape_error);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("eigenvalues: the same bits for any number of threads") {
    auto const c = with_eigenvalues(geometric(120, 1e6), 9);
    host_executor one{{.threads = 1}}, two{{.threads = 2}}, five{{.threads = 5}};
    auto const expected = eigenvalues(one, c);
    CHECK(eigenvalues(two, c) == expected);
    CHECK(eigenvalues(five, c) == expected);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN and infinity anywhere are noticed", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    for (double const bad : {std::bit_cast<double>(0x7FF8000000000000U), std::bit_cast<double>(0x7FF0000000000000U)})
      for (index_t const place : {0, 20, 40}) {
        auto c = with_eigenvalues(power_law(41, 1), 2);
        c(place, 3) = c(3, place) = bad;
        std::int32_t failed = 0;
        static_cast<void>(eigenvalues(exec, c, &failed));
        CHECK(failed == 1);
      }
  }
}

}  // namespace symmetric_eigenvalues_test
