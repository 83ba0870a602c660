#include "lowrank/spectrum/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

#include "lowrank/spectrum/singular_values.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace random_matrix_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Integral of the density of s² / m up to x, by the midpoint rule in an angle that takes the square roots away.
double integrated(double beta, double x) {
  double const root = std::sqrt(beta), centre = 1 + beta, radius = 2 * root;
  double const end = std::acos(std::clamp((centre - x) / radius, -1.0, 1.0));  // x = centre - radius cos(t)
  constexpr int steps = 20000;
  double sum = 0;
  for (int k = 0; k < steps; ++k) {
    double const t = end * (k + 0.5) / steps, at = centre - radius * std::cos(t), height = radius * std::sin(t);
    sum += height * height / at;
  }
  return sum * end / steps / (2 * std::numbers::pi * beta);
}

}  // namespace

TEST_SUITE("Marchenko-Pastur") {
  TEST_CASE("distribution, quantiles and edges") {
    for (auto const shape : {extents{900, 300}, extents{300, 900}, extents{400, 400}, extents{1000, 10}}) {
      CAPTURE(shape);
      marchenko_pastur const law{shape, 0.5};
      double const m = static_cast<double>(std::max(shape.rows, shape.cols)),
                   n = static_cast<double>(std::min(shape.rows, shape.cols));
      CHECK(law.sigma() == doctest::Approx(0.5));
      CHECK(law.upper_edge() == doctest::Approx(0.5 * (std::sqrt(m) + std::sqrt(n))));
      CHECK(law.lower_edge() == doctest::Approx(0.5 * (std::sqrt(m) - std::sqrt(n))));
      for (double const p : {0.01, 0.1, 0.5, 0.77, 0.99}) {
        double const s = law.quantile(p);
        CHECK(law.cdf(s) == doctest::Approx(p).epsilon(1e-10));
        CHECK(integrated(n / m, s * s / (0.25 * m)) == doctest::Approx(p).epsilon(1e-6));
      }
      CHECK(law.quantile(0) == doctest::Approx(law.lower_edge()));
      CHECK(law.quantile(1) == doctest::Approx(law.upper_edge()));
      CHECK(law.cdf(0.99 * law.lower_edge()) == 0);
      CHECK(law.cdf(1.01 * law.upper_edge()) == 1);
    }
    CHECK_THROWS_AS((marchenko_pastur{{0, 3}}), argument_error);
    CHECK_THROWS_AS((marchenko_pastur{{2, 3}, -1}), argument_error);
    CHECK_THROWS_AS((std::ignore = marchenko_pastur{{2, 3}}.quantile(2)), argument_error);
  }
  TEST_CASE("random matrices look random, planted directions do not") {
    host_executor exec{{.threads = 1}};
    for (auto const shape : {extents{240, 80}, extents{100, 100}}) {
      auto w = random_matrix(shape, 3);
      auto const noise = singular_values(exec, std::as_const(w).view());
      auto const fit = marchenko_pastur::fitted(noise);
      CHECK(fit.sigma() == doctest::Approx(1).epsilon(0.05));
      CHECK(fit.outliers(noise) <= 2);
      CHECK(fit.energy_above(noise) < 0.05);
      auto const typical = fit.typical();
      for (std::size_t i = 0; i < typical.values.size(); ++i)
        CHECK(std::abs(typical.values[i] - noise.values[i]) < 0.06 * noise.largest());
      // Three directions of 60, twice the edge.
      auto const planted = with_spectrum(shape, {70, 65, 60}, 9);
      for (index_t e = 0; e < shape.size(); ++e) w.data()[e] += planted.data()[e];
      auto const both = singular_values(exec, std::as_const(w).view());
      auto const again = marchenko_pastur::fitted(both);
      CHECK(again.sigma() == doctest::Approx(fit.sigma()).epsilon(0.06));
      CHECK(again.outliers(both) >= 3);
      CHECK(again.outliers(both) <= 5);
      CHECK(again.energy_above(both) == doctest::Approx((70 * 70 + 65 * 65 + 60 * 60) / both.energy()).epsilon(0.15));
    }
  }
  TEST_CASE("more than half of the directions missing: everything is above the edge") {
    spectrum const few{.shape = {5, 9}, .values = {3, 2, 0, 0, 0}};
    auto const fit = marchenko_pastur::fitted(few);
    CHECK(fit.upper_edge() == 0);
    CHECK(fit.energy_above(few) == 1);
    spectrum const zero{.shape = {2, 2}, .values = {0, 0}};
    CHECK(marchenko_pastur::fitted(zero).energy_above(zero) == 0);
    CHECK_THROWS_AS((std::ignore = marchenko_pastur::fitted({.shape = {2, 2}, .values = {1}})), argument_error);
  }
}

}  // namespace random_matrix_test
