#include "lowrank/spectrum/singular_values.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <tuple>

#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/optimizers.hpp"

namespace singular_values_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Singular values in fp64 by one-sided Jacobi rotations: slow, independent of everything else here.
std::vector<double> jacobi_values(matrix_view<float const> a) {
  if (a.rows < a.cols) a = a.t();
  matrix<double> w{a.cols, a.rows};
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) w(j, i) = static_cast<double>(a(i, j));
  auto const dot = [&](index_t p, index_t q) {
    double sum = 0;
    for (index_t i = 0; i < a.rows; ++i) sum += w(p, i) * w(q, i);
    return sum;
  };
  for (bool turned = true; turned;) {
    turned = false;
    for (index_t p = 0; p < a.cols; ++p)
      for (index_t q = p + 1; q < a.cols; ++q) {
        double const x = dot(p, p), y = dot(q, q), z = dot(p, q);
        if (std::abs(z) <= 1e-15 * std::sqrt(x * y) || z == 0) continue;
        turned = true;
        double const zeta = (y - x) / (2 * z);
        double const t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
        double const c = 1 / std::hypot(1.0, t), s = c * t;
        for (index_t i = 0; i < a.rows; ++i) {
          double const u = w(p, i);
          w(p, i) = c * u - s * w(q, i);
          w(q, i) = s * u + c * w(q, i);
        }
      }
  }
  std::vector<double> out;
  for (index_t p = 0; p < a.cols; ++p) out.push_back(std::sqrt(dot(p, p)));
  std::ranges::sort(out, std::greater<>{});
  return out;
}

double worst_error(spectrum const& found, std::vector<double> const& expected) {
  REQUIRE(found.values.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::abs(found.values[i] - expected[i]) / std::max(expected[0], 1e-300));
  return worst;
}

}  // namespace

TEST_SUITE("singular values") {
  TEST_CASE_TEMPLATE("every route as accurate as it says", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const shape : {extents{1, 1}, extents{1, 9}, extents{40, 40}, extents{70, 33}, extents{33, 70}})
      for (double const condition : {1e1, 1e3, 1e6}) {
        CAPTURE(shape);
        CAPTURE(condition);
        auto const a = with_spectrum(shape, geometric(std::min(shape.rows, shape.cols), condition), 4);
        auto const expected = jacobi_values(a.view());
        auto const exact = singular_values(exec, a.view(), {.route = spectrum_route::exact});
        CHECK(exact.shape == shape);
        CHECK(exact.complete());
        CHECK(worst_error(exact, expected) <= 1e-14);
        auto const by_gram = singular_values(exec, a.view(), {.route = spectrum_route::gram});
        CHECK(worst_error(by_gram, expected) <= gram_error(by_gram));
        // ... and the large ones relatively, which is what the Gram is for.
        CHECK(by_gram.values[0] == doctest::Approx(expected[0]).epsilon(1e-14));
        for (double const accuracy : {1e-4, 1e-8, 1e-12, 0.0}) {
          auto const found = singular_values(exec, a.view(), {.accuracy = accuracy});
          CHECK_NOTHROW(found.check());
          CHECK(worst_error(found, expected) <= std::max(accuracy, 1e-14));
          if (gram_error(by_gram) <= accuracy) CHECK(found.values == by_gram.values);
          else CHECK(found.values == exact.values);
        }
      }
  }
  TEST_CASE_TEMPLATE("deficient, zero, empty, strided and extreme matrices", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    auto const a = with_spectrum({30, 50}, power_law(7, 1.0), 5);
    auto const expected = jacobi_values(a.view());
    auto const found = singular_values(exec, a.view());
    CHECK(worst_error(found, expected) <= 1e-8);
    CHECK(found.values[7] <= 1e-6);  // rounding of the elements to fp32 is all that is there
    strided_copy apart{a.view()};
    CHECK(worst_error(singular_values<E>(exec, apart.view()), expected) <= 1e-8);
    CHECK(worst_error(singular_values<E>(exec, a.view().t()), expected) <= 1e-8);
    matrix<float> const zero{6, 4}, none{0, 4};
    CHECK(singular_values(exec, zero.view()).values == std::vector<double>(4));
    CHECK(singular_values(exec, zero.view(), {.route = spectrum_route::gram}).values == std::vector<double>(4));
    CHECK(singular_values(exec, none.view()).values.empty());
    for (float const scale : {1e30F, 1e-30F}) {
      auto b = with_spectrum({20, 12}, geometric(12, 10), 6);
      for (index_t e = 0; e < b.shape().size(); ++e) b.data()[e] *= scale;
      CHECK(worst_error(singular_values(exec, std::as_const(b).view()), jacobi_values(b.view())) <= 1e-8);
    }
  }
  TEST_CASE_TEMPLATE("randomized: the leading values and all of the energy", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    auto const a = with_spectrum({60, 48}, power_law(48, 1.0), 7);
    auto const expected = jacobi_values(a.view());
    auto const found = singular_values(exec, a.view(), {.route = spectrum_route::randomized, .leading = 10});
    CHECK_NOTHROW(found.check());
    CHECK(found.held() == 10);
    for (std::size_t i = 0; i < 10; ++i) {
      CHECK(found.values[i] <= expected[i] * (1 + 1e-5));
      CHECK(found.values[i] >= expected[i] * 0.97);
    }
    CHECK(found.energy() == doctest::Approx(energy(expected, 0, 48)).epsilon(1e-6));
    CHECK(singular_values(exec, a.view(), {.route = spectrum_route::randomized}).held() == 12);
    CHECK(singular_values(exec, a.view(), {.route = spectrum_route::randomized, .leading = 99}).complete());
  }
  TEST_CASE("bad options are refused") {
    host_executor exec{{.threads = 1}};
    matrix<float> const a{2, 2};
    CHECK_THROWS_AS(std::ignore = singular_values(exec, a.view(), {.accuracy = -1}), argument_error);
    CHECK_THROWS_AS(std::ignore = singular_values(exec, a.view(), {.accuracy = std::nan("")}), argument_error);
    CHECK_THROWS_AS(std::ignore = singular_values(exec, a.view(), {.leading = -1}), argument_error);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("singular values: the same bits for any number of threads") {
    auto const a = random_matrix({300, 170}, 8);
    host_executor one{{.threads = 1}}, three{{.threads = 3}};
    CHECK(singular_values(one, a.view()).values == singular_values(three, a.view()).values);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN and infinity are refused by the matrix's name", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U})
      for (auto const route :
           {spectrum_route::automatic, spectrum_route::gram, spectrum_route::exact, spectrum_route::randomized}) {
        auto a = random_matrix({12, 20}, 1);
        a.data()[77] = std::bit_cast<float>(bits);
        CHECK(refusal<argument_error>([&] {
                std::ignore = singular_values(exec, std::as_const(a).view(), {.route = route}, "blk.3.attn_q");
              }) == "lowrank::singular_values: blk.3.attn_q: input not finite");
      }
  }
}

}  // namespace singular_values_test
