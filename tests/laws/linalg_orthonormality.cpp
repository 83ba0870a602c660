// Every orthonormaliser: ‖QᵀQ - I‖_F of rounding for every finite input, and nothing of the input's range is lost.
#include <doctest/doctest.h>

#include <bit>

#include "support/allocation_counter.hpp"
#include "support/matrices.hpp"
#include "support/orthonormalizers.hpp"

namespace linalg_orthonormality_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Part of the energy of Y outside of span(Q), with Y brought to scale so that its squares exist in fp64.
double lost_energy(matrix<float> const& y, matrix<float> const& q) {
  matrix<double> scaled{y.shape()};
  double most = 0, lost = 0, all = 0;
  for (index_t e = 0; e < y.shape().size(); ++e) most = std::max(most, std::abs(static_cast<double>(y.data()[e])));
  if (most == 0) return 0;
  for (index_t e = 0; e < y.shape().size(); ++e) scaled.data()[e] = static_cast<double>(y.data()[e]) / most;
  auto const inside = plain_product(q.view().t(), scaled.view());
  auto const back = plain_product(q.view(), inside.view());
  for (index_t e = 0; e < y.shape().size(); ++e) {
    lost += std::pow(scaled.data()[e] - back.data()[e], 2);
    all += std::pow(scaled.data()[e], 2);
  }
  return lost / all;
}

/// All orthonormalisers on all hard columns of one shape.
template <class E>
void check_hard_columns(extents shape) {
  auto cases = hard_cases(shape.rows, shape.cols);
  cases.push_back({"random", random_matrix(shape, 77)});
  // Rounding averages out over many columns, not over three.
  double const unit = (shape.cols < 16 ? 2 : 1) * std::sqrt(static_cast<double>(shape.cols)) * eps;
  for_each_orthonormalizer<E>([&](std::string const& policy, auto const& o, double bound) {
    CAPTURE(policy);
    CAPTURE(shape);
    E exec{{.threads = 2, .scratch_bytes = o.bytes(shape)}};
    for (auto const& hard : cases) {
      CAPTURE(hard.name);
      auto q = copy_of(hard.y.view());
      orthonormal_report report;
      o(exec, q.view(), rng_key{.seed = 1}, &report);
      CHECK(report.failed == 0);
      CHECK(report.passes <= 6);
      CHECK(departure_from_orthonormal(q.view()) <= bound * unit);
      CHECK(lost_energy(hard.y, q) <= 1e-11);
    }
  });
}

}  // namespace

TEST_SUITE("orthonormality") {
  TEST_CASE_TEMPLATE("hard columns become orthonormal ones that span them", E, LOWRANK_TEST_EXECUTORS) {
    static_assert(orthonormalizer<orthonormal::cholesky, E> && orthonormalizer<orthonormal::householder, E> &&
                  orthonormalizer<orthonormal::sketched_cholesky, E> && orthonormalizer<orthonormal::polar, E>);
    for (extents const shape : {extents{200, 16}, extents{300, 64}, extents{600, 128}, extents{16, 16}, extents{64, 64},
                                extents{128, 128}, extents{2, 2}, extents{3, 3}, extents{5, 1}})
      check_hard_columns<E>(shape);
  }
  TEST_CASE("so they do where the host cannot look") {
    for (extents const shape : {extents{200, 16}, extents{600, 128}, extents{64, 64}, extents{3, 3}})
      check_hard_columns<blind_executor>(shape);
  }
  TEST_CASE_TEMPLATE("every column's own direction survives, whatever its scale", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{120, 24};
    auto y = random_matrix(shape, 3);
    for (index_t j = 0; j < shape.cols; ++j)
      for (index_t i = 0; i < shape.rows; ++i)
        y(i, j) = static_cast<float>(std::ldexp(static_cast<double>(y(i, j)), static_cast<int>(10 * j) - 125));
    for_each_orthonormalizer<E>([&](std::string const& policy, auto const& o, double) {
      CAPTURE(policy);
      E exec{{.threads = 1, .scratch_bytes = o.bytes(shape)}};
      auto q = copy_of(y.view());
      o(exec, q.view(), rng_key{.seed = 1});
      for (index_t j = 0; j < shape.cols; ++j) {
        auto const element = [&](index_t i) {
          return std::ldexp(static_cast<double>(y(i, j)), 125 - static_cast<int>(10 * j));
        };
        double inside = 0, all = 0;
        for (index_t i = 0; i < shape.rows; ++i) all += std::pow(element(i), 2);
        for (index_t k = 0; k < shape.cols; ++k) {
          double dot = 0;
          for (index_t i = 0; i < shape.rows; ++i) dot += static_cast<double>(q(i, k)) * element(i);
          inside += dot * dot;
        }
        CHECK(inside == doctest::Approx(all).epsilon(1e-6));
      }
    });
  }
  TEST_CASE_TEMPLATE("triangular orthonormalisers agree: Q R with a positive diagonal is unique", E,
                     LOWRANK_TEST_EXECUTORS) {
    extents const shape{300, 40};
    auto const y = with_spectrum(shape, geometric(40, 30), 8);
    matrix<float> expected;
    for_each_orthonormalizer<E>([&](std::string const& policy, auto const& o, double) {
      if (policy == "polar") return;
      CAPTURE(policy);
      E exec{{.threads = 2, .scratch_bytes = o.bytes(shape)}};
      auto q = copy_of(y.view());
      o(exec, q.view(), rng_key{.seed = 1});
      if (policy == "cholesky") expected = copy_of(q.view());
      CHECK(largest_difference(q.view(), expected.view()) <= 30 * eps);
    });
  }
  TEST_CASE("a sketch makes any condition a small one") {
    for (double const condition : {1e1, 1e3, 1e6}) {
      extents const shape{900, 60};
      host_executor exec{{.threads = 2, .scratch_bytes = orthonormal::sketched_cholesky::bytes(shape)}};
      auto q = with_spectrum(shape, geometric(60, condition), 4);
      orthonormal_report report;
      orthonormal::sketched_cholesky{}(exec, q.view(), {.seed = 1}, &report);
      CHECK(report.passes == 3);
      CHECK(report.replaced == 0);
      CHECK(report.departure < 1e-3);
    }
  }
  TEST_CASE("no two rows share their signs in a sketch") {
    // With a period of 512 in the signs these columns, whose sums are exact, would be sketched to zero.
    extents const shape{1024, 20};
    host_executor exec{{.threads = 2, .scratch_bytes = orthonormal::sketched_cholesky::bytes(shape)}};
    matrix<float> q{shape};
    fill_rademacher(exec, {.seed = 6}, q.view());
    for (index_t i = 0; i < 512; ++i)
      for (index_t j = 0; j < 20; ++j) q(i + 512, j) = -q(i, j);
    orthonormal_report report;
    orthonormal::sketched_cholesky{}(exec, q.view(), {.seed = 1}, &report);
    CHECK(report.replaced == 0);
  }
  TEST_CASE("a Gram is mixed in the last pass, never in the first, and never where another pass follows") {
    extents const shape{400, 50};
    host_executor exec{{.threads = 2, .scratch_bytes = orthonormalize_bytes(shape)}};
    auto const differ = [&](double condition, std::int32_t most_passes) {
      auto const y = with_spectrum(shape, geometric(50, condition), 4);
      auto wide = copy_of(y.view()), mixed = copy_of(y.view());
      orthonormal_report a, b;
      orthonormalize(exec, wide.view(), {}, &a, {.most_passes = most_passes});
      orthonormalize(exec, mixed.view(), {}, &b, {.most_passes = most_passes, .last_gram = gram_kind::mixed});
      CHECK(a.passes == b.passes);
      CHECK(a.replaced == b.replaced);
      CHECK(a.failed == b.failed);
      CHECK(largest_difference(wide.view(), mixed.view()) <= 20 * eps);
      return !same_bits(wide, mixed);
    };
    CHECK_FALSE(differ(1, 8));  // one pass
    CHECK(differ(1e2, 8));      // two
    CHECK(differ(1e8, 8));      // three
    CHECK_FALSE(differ(1e8, 1));
    CHECK_FALSE(differ(1e8, 2));
  }
  TEST_CASE("a zero matrix becomes an orthonormal one, an empty one stays, a wide one is refused") {
    for_each_orthonormalizer<host_executor>([&](std::string const& policy, auto const& o, double) {
      CAPTURE(policy);
      host_executor exec{{.threads = 1, .scratch_bytes = o.bytes({50, 6})}};
      for (extents const shape : {extents{5, 0}, extents{0, 0}}) {
        matrix<float> empty{shape};
        orthonormal_report report{.passes = 9, .failed = 1};
        o(exec, empty.view(), rng_key{}, &report);
        o(exec, empty.view(), rng_key{});
        CHECK(report.passes == 0);
        CHECK(report.failed == 0);
        CHECK(o.bytes(shape) == 0);
      }
      CHECK(exec.arena().peak() == 0);
      matrix<float> a{50, 6}, b{50, 6}, c{50, 6}, wide{3, 4};
      orthonormal_report report;
      o(exec, a.view(), rng_key{.seed = 1}, &report);
      o(exec, b.view(), rng_key{.seed = 1});
      o(exec, c.view(), rng_key{.seed = 2});
      CHECK(departure_from_orthonormal(a.view()) <= 6 * eps);
      CHECK(same_bits(a, b));
      CHECK(report.replaced == (policy == "householder" ? 0 : 6));
      CHECK(same_bits(a, c) == (policy == "householder"));
      CHECK_THROWS_AS(o(exec, wide.view(), rng_key{}), shape_error);
    });
  }
  TEST_CASE("the scratch asked for is the scratch taken, in any layout, and nothing is allocated") {
    for (extents const shape : {extents{1, 1}, extents{9, 1}, extents{40, 7}, extents{64, 64}, extents{600, 140}})
      for_each_orthonormalizer<host_executor>([&](std::string const& policy, auto const& o, double) {
        CAPTURE(policy);
        CAPTURE(shape);
        host_executor exec{{.threads = 2, .scratch_bytes = o.bytes(shape)}};
        auto y = random_matrix(shape, 1), turned = copy_of(y.view().t());
        strided_copy gaps{y.view()};
        orthonormal_report report;
        allocation_counter const allocations;
        o(exec, y.view(), rng_key{.seed = 1}, &report);
        o(exec, turned.view().t(), rng_key{.seed = 1});
        o(exec, gaps.view(), rng_key{.seed = 1});
        CHECK((allocations.count() > 0) == (policy == "householder" && allocation_counter::watches()));
        CHECK(exec.arena().peak() == o.bytes(shape));
        CHECK(report.failed == 0);
        CHECK(report.replaced == 0);
        CHECK(largest_difference(turned.view().t(), y.view()) <= 2e-5);
        CHECK(largest_difference(gaps.view(), y.view()) <= 2e-5);
      });
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity anywhere is reported by every orthonormaliser", E, LOWRANK_TEST_EXECUTORS) {
    for (extents const shape : {extents{40, 12}, extents{90, 12}})
      for_each_orthonormalizer<E>([&](std::string const& policy, auto const& o, double) {
        CAPTURE(policy);
        CAPTURE(shape);
        E exec{{.threads = 2, .scratch_bytes = o.bytes(shape)}};
        for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U})
          for (index_t const at : {index_t{0}, index_t{251}, shape.size() - 1}) {
            auto y = random_matrix(shape, 1);
            y.data()[at] = std::bit_cast<float>(bits);
            orthonormal_report report;
            o(exec, y.view(), rng_key{}, &report);
            CHECK(report.failed == 1);
            o(exec, y.view(), rng_key{});  // whatever it holds now, nothing is trapped
          }
      });
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of every orthonormaliser do not depend on the number of threads") {
    extents const shape{700, 150};
    for_each_orthonormalizer<host_executor>([&](std::string const& policy, auto const& o, double) {
      CAPTURE(policy);
      auto const run = [&](int threads) {
        host_executor exec{{.threads = threads, .scratch_bytes = o.bytes(shape)}};
        auto y = random_matrix(shape, 1);
        for (index_t i = 0; i < shape.rows; ++i) y(i, 70) = y(i, 3), y(i, 71) = 0;
        o(exec, y.view(), rng_key{.seed = 3});
        return y;
      };
      auto const one = run(1);
      for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
    });
  }
}

}  // namespace linalg_orthonormality_test
