#include "lowrank/linalg/host/small_factorizations.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "lowrank/linalg/elementwise.hpp"
#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace small_factorizations_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

matrix<double> wide(matrix<double> const& a) {
  matrix<double> b{a.shape()};
  std::copy_n(a.data(), a.shape().size(), b.data());
  return b;
}
/// A random positive definite matrix, smallest eigenvalue about 1.
matrix<double> positive_definite(index_t n, std::uint64_t seed) {
  auto const a = random_matrix({n, n}, seed);
  auto c = plain_product(a.view().t(), a.view());
  for (index_t i = 0; i < n; ++i) c(i, i) += 1;
  return c;
}
matrix<double> lower_part(matrix<double> const& a) {
  auto b = wide(a);
  for (index_t i = 0; i < b.shape().rows; ++i)
    for (index_t j = i + 1; j < b.shape().cols; ++j) b(i, j) = 0;
  return b;
}
matrix<double> with_eigenvalues(std::vector<double> const& values, std::uint64_t seed) {
  auto const n = static_cast<index_t>(values.size());
  auto const q = orthonormal_columns(n, n, seed);  // rows
  matrix<double> c{n, n};
  for (index_t k = 0; k < n; ++k)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) c(i, j) += q(k, i) * values[static_cast<std::size_t>(k)] * q(k, j);
  return c;
}
template <class E>
void check_eigen(E& exec, matrix<double> const& c, double scale, std::vector<double> const* expected = nullptr) {
  index_t const n = c.shape().rows;
  auto v = wide(c);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = i + 1; j < n; ++j) v(i, j) = 1e30;  // only the lower triangle may be read
  std::vector<double> values(static_cast<std::size_t>(n), -1);
  std::int32_t failed = 9;
  symmetric_eigen(exec, v.view(), values.data(), &failed);
  REQUIRE(failed == 0);
  double const tolerance = 4e-15 * static_cast<double>(n + 8);
  CHECK(departure_from_orthonormal(v.view()) <= tolerance);
  auto const cv = plain_product(c.view(), v.view());
  double worst = 0;
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      worst = std::max(worst, std::abs(cv(i, j) - v(i, j) * values[static_cast<std::size_t>(j)]));
  CHECK(worst <= tolerance * scale);
  CHECK(std::is_sorted(values.rbegin(), values.rend()));
  if (expected != nullptr)
    for (std::size_t k = 0; k < expected->size(); ++k) CHECK(std::abs(values[k] - (*expected)[k]) <= tolerance * scale);
}

}  // namespace

TEST_SUITE("small factorizations") {
  TEST_CASE_TEMPLATE("L Lᵀ = C and L⁻¹ L = I", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (index_t const n : {0, 1, 2, 5, 63, 64, 65, 130, 200}) {
      auto const c = positive_definite(n, 3);
      auto l = wide(c);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = i + 1; j < n; ++j) l(i, j) = 1e30;  // only the lower triangle may be read
      std::int32_t failed = 9;
      factor_cholesky(exec, l.view(), &failed);
      CHECK(failed == 0);
      auto const lower = lower_part(l);
      CHECK(largest_difference(plain_product(lower.view(), lower.view().t()).view(), c.view()) <=
            1e-12 * static_cast<double>(n + 1));
      invert_lower(exec, l.view());
      auto const product = plain_product(l.view(), lower.view());
      double worst = 0;
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j) {
          worst = std::max(worst, std::abs(product(i, j) - (i == j ? 1 : 0)));
          if (j > i) CHECK(l(i, j) == 0);
        }
      CHECK(worst <= 1e-13 * static_cast<double>(n + 1));
    }
  }
  TEST_CASE("a bad pivot is reported, its column is zero below, and the rest goes on") {
    host_executor exec{{.threads = 1}};
    for (index_t const bad : {0, 10, 70}) {
      auto c = positive_definite(100, 4);
      for (index_t i = 0; i < 100; ++i) c(bad, i) = c(i, bad) = 0;
      auto l = wide(c);
      std::int32_t failed = 0;
      factor_cholesky(exec, l.view(), &failed);
      CHECK(failed == 1);
      for (index_t i = bad; i < 100; ++i) CHECK(l(i, bad) == (i == bad ? 1e-150 : 0.0));
      auto const lower = lower_part(l);
      CHECK(largest_difference(plain_product(lower.view(), lower.view().t()).view(), c.view()) <= 1e-10);
    }
    auto c = positive_definite(5, 4);
    c(2, 2) = -1;
    std::int32_t failed = 0;
    factor_cholesky(exec, c.view(), &failed);
    CHECK(failed == 1);
  }
  TEST_CASE_TEMPLATE("eigenvectors of all kinds of symmetric matrices", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = symmetric_eigen_bytes(200)}};
    for (index_t const n : {1, 2, 3, 4, 15, 16, 17, 33, 100, 200}) {
      CAPTURE(n);
      auto const random = positive_definite(n, 8);
      check_eigen(exec, random, 5.0 * static_cast<double>(n));
      check_eigen(exec, matrix<double>{n, n}, 1e-300);  // zero
      matrix<double> identity{n, n};
      for (index_t i = 0; i < n; ++i) identity(i, i) = 3;
      check_eigen(exec, identity, 3);
      matrix<double> ones{n, n};
      std::fill_n(ones.data(), n * n, 1.0);
      check_eigen(exec, ones, static_cast<double>(n));
      std::vector<double> clustered, graded, indefinite;
      for (index_t i = 0; i < n; ++i) {
        clustered.push_back(i < n / 2 ? 1.0 : 1e-3);
        graded.push_back(std::pow(10.0, -static_cast<double>(i)));
        indefinite.push_back(1.0 - 2.0 * static_cast<double>(i) / static_cast<double>(n));
      }
      check_eigen(exec, with_eigenvalues(clustered, 1), 1, &clustered);
      check_eigen(exec, with_eigenvalues(graded, 2), 1, &graded);
      check_eigen(exec, with_eigenvalues(indefinite, 3), 1, &indefinite);
      auto huge = wide(random), tiny = wide(random);
      for (index_t e = 0; e < n * n; ++e) huge.data()[e] *= 1e290, tiny.data()[e] *= 1e-290;
      check_eigen(exec, huge, 5e290 * static_cast<double>(n));
      check_eigen(exec, tiny, 5e-290 * static_cast<double>(n));
    }
  }
  TEST_CASE("scratch of symmetric_eigen is exact, and it does not allocate") {
    for (index_t const n : {1, 7, 64, 100}) {
      host_executor exec{{.threads = 2, .scratch_bytes = symmetric_eigen_bytes(n)}};
      auto c = positive_definite(n, 2);
      std::vector<double> values(static_cast<std::size_t>(n));
      std::int32_t failed = 0;
      allocation_counter const allocations;
      symmetric_eigen(exec, c.view(), values.data(), &failed);
      CHECK(allocations.count() == 0);
      CHECK(exec.arena().peak() == symmetric_eigen_bytes(n));
    }
  }
  TEST_CASE("matrices that are not square are refused") {
    host_executor exec{{.threads = 1}};
    matrix<double> c{3, 4};
    double values[4];
    std::int32_t failed = 0;
    CHECK_THROWS_AS(factor_cholesky(exec, c.view(), &failed), shape_error);
    CHECK_THROWS_AS(invert_lower(exec, c.view()), shape_error);
    CHECK_THROWS_AS(symmetric_eigen(exec, c.view(), values, &failed), shape_error);
    CHECK_THROWS_AS(factor_cholesky(exec, c.view().col_range(0, 3).t(), &failed), shape_error);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN and infinity are failures, not aborts or endless loops", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = symmetric_eigen_bytes(80)}};
    for (std::uint64_t const bits : {0x7FF8000000000000U, 0x7FF0000000000000U, 0xFFF0000000000000U})
      for (index_t const at : {0, 40, 79}) {
        auto c = positive_definite(80, 2);
        c(79, at) = std::bit_cast<double>(bits);
        auto l = wide(c);
        std::vector<double> values(80);
        std::int32_t failed = 0;
        symmetric_eigen(exec, c.view(), values.data(), &failed);
        CHECK(failed == 1);
        failed = 0;
        factor_cholesky(exec, l.view(), &failed);
        CHECK(failed == 1);
      }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of small factorizations do not depend on the number of threads") {
    auto const c = positive_definite(190, 2);
    auto const run = [&](int threads) {
      host_executor exec{{.threads = threads, .scratch_bytes = symmetric_eigen_bytes(190)}};
      matrix<double> all{3 * 190 + 1, 190};
      std::int32_t failed = 0;
      auto const part = [&](index_t k) { return all.view().row_range(k * 190, (k + 1) * 190); };
      for (index_t k = 0; k < 3; ++k) copy(exec, c.view(), part(k));
      factor_cholesky(exec, part(0), &failed);
      copy(exec, part(0), part(1));
      invert_lower(exec, part(1));
      symmetric_eigen(exec, part(2), &all(3 * 190, 0), &failed);
      return all;
    };
    auto const one = run(1);
    for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
  }
}

}  // namespace small_factorizations_test
