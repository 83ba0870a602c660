// An adaptive basis has the error it was asked for, by as few columns as almost any basis could, and never claims more
// than is true.
#include <doctest/doctest.h>

#include "lowrank/linalg/adaptive_range.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace linalg_adaptive_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

constexpr extents shape{112, 160};

struct spectrum {
  char const* name;
  std::vector<double> values;
};
std::vector<spectrum> spectra() {
  index_t const k = shape.rows;
  std::vector<double> exponential, step, spikes;
  for (index_t i = 0; i < k; ++i) {
    auto const x = static_cast<double>(i);
    exponential.push_back(std::exp(-x / 32));
    step.push_back(i < k / 4 ? 1 : 1e-2);
    spikes.push_back(i < 12 ? 1 / std::sqrt(x + 1) : 0.12 * (1 - 0.6 * x / static_cast<double>(k)));
  }
  return {{"i^-0.5", power_law(k, 0.5)},
          {"i^-0.7", power_law(k, 0.7)},
          {"i^-1", power_law(k, 1.0)},
          {"exp(-i/32)", exponential},
          {"a quarter, then 1e-2", step},
          {"12 spikes and bulk", spikes},
          {"rank 8", power_law(8, 0.5)},
          {"flat", std::vector<double>(static_cast<std::size_t>(k), 1.0)},
          {"10 columns a digit", geometric(k, 1e11)}};
}
index_t fewest_columns(std::vector<double> const& s, double tolerance) {
  auto const all = static_cast<index_t>(s.size());
  index_t r = 0;
  while (r < all && energy(s, r, all) > tolerance * tolerance * energy(s, 0, all)) ++r;
  return r;
}
}  // namespace

TEST_SUITE("adaptive") {
  TEST_CASE_TEMPLATE("the error asked for, by hardly more columns than it takes", E, LOWRANK_TEST_EXECUTORS) {
    index_t const block = 16;
    for (auto const& [name, s] : spectra()) {
      auto const g = with_spectrum(shape, s, 3);
      for (double const tolerance : {0.4, 0.1, 0.02, 5e-3, 1e-3, 1e-5, 1e-6}) {
        CAPTURE(name);
        CAPTURE(tolerance);
        adaptive_options const options{.tolerance = tolerance, .block = block};
        E exec{{.threads = 2, .scratch_bytes = adaptive_range_bytes(shape, shape.rows, options)}};
        matrix<float> q{shape.rows, shape.rows};
        adaptive_report report;
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
        CHECK(report.failed == 0);
        CHECK(report.reached == 1);
        CHECK(departure_from_orthonormal(q.view().col_range(0, report.searched)) <=
              std::sqrt(static_cast<double>(report.searched)) * eps);
        double const error = true_error(q.view().col_range(0, report.rank), g.view());
        CHECK(error <= tolerance);
        CHECK(error <= report.error);
        CHECK(report.error <= tolerance);
        // What a difference of energies can tell from 0, and what a residual can.
        CHECK(report.measured == (tolerance < least_indicated_error ? 1 : 0));
        CHECK(report.error >= (report.measured != 0 ? 2 * eps : std::sqrt(16 * eps)));
        CHECK(report.rank >= fewest_columns(s, tolerance * (1 + 1e-6)));
        CHECK(report.rank <= fewest_columns(s, tolerance) + block / 2);
        CHECK(report.searched <= fewest_columns(s, tolerance) + 2 * block);
      }
    }
  }
  TEST_CASE("a cap that is too low is used up, and the claim stays true") {
    for (auto const& [name, s] : spectra()) {
      CAPTURE(name);
      auto const g = with_spectrum(shape, s, 3);
      for (double const tolerance : {0.02, 1e-6}) {
        if (fewest_columns(s, tolerance) <= 24) continue;
        adaptive_options const options{.tolerance = tolerance, .block = 10};
        host_executor exec{{.threads = 2, .scratch_bytes = adaptive_range_bytes(shape, 24, options)}};
        matrix<float> q{shape.rows, 24};
        adaptive_report report;
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
        CHECK(report.reached == 0);
        CHECK(report.rank == 24);
        double const error = true_error(q.view(), g.view());
        CHECK(report.error > tolerance);
        CHECK(report.error >= error);
        CHECK(report.error <= std::sqrt(error * error * 1.001 + 33 * eps));
      }
    }
  }
  TEST_CASE("the indicator is within 1 % from its floor on") {
    // The most that is added: 32 u on top of the squared error.
    CHECK(std::sqrt(least_indicated_error * least_indicated_error + 16 * eps) <= 1.01 * least_indicated_error);
    auto const s = geometric(shape.rows, 1e5);
    auto const g = with_spectrum(shape, s, 3);
    for (double const tolerance : {0.3, 0.03, least_indicated_error})
      for (std::uint64_t const seed : {1, 2, 3, 4, 5}) {
        adaptive_options const options{.tolerance = tolerance, .block = 4};
        host_executor exec{{.threads = 2, .scratch_bytes = adaptive_range_bytes(shape, shape.rows, options)}};
        matrix<float> q{shape.rows, shape.rows};
        adaptive_report report;
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = seed}, &report);
        double const error = true_error(q.view().col_range(0, report.rank), g.view());
        CHECK(report.measured == 0);
        CHECK(report.error >= error);
        CHECK(report.error <= std::sqrt(error * error + 20 * eps));
      }
  }
  TEST_CASE_TEMPLATE("energy in one column does not make claims false", E, LOWRANK_TEST_EXECUTORS) {
    // All of QᵀG is then one inner product a row, whose rounding nothing averages out.
    index_t const m = 512, n = 48;
    for (double const tolerance : {0.1, least_indicated_error, 1e-3, 1e-5})
      for (std::uint64_t const seed : {1, 2, 3, 4}) {
        matrix<float> g = random_matrix({m, n}, seed);
        for (index_t i = 0; i < m; ++i)
          for (index_t j = 0; j < n; ++j)
            if (j != 3) g(i, j) *= static_cast<float>(0.1 * tolerance * std::pow(0.9, static_cast<double>(j)));
            else g(i, j) = std::abs(g(i, j));
        adaptive_options const options{.tolerance = tolerance, .block = 4};
        E exec{{.threads = 1, .scratch_bytes = adaptive_range_bytes({m, n}, n, options)}};
        matrix<float> q{m, n};
        adaptive_report report;
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = seed}, &report);
        CHECK(report.reached == 1);
        CHECK(report.error >= true_error(q.view().col_range(0, report.rank), g.view()));
      }
  }
  TEST_CASE("a factored gradient takes as many columns as the dense one") {
    index_t const tokens = 70;
    auto const dy = with_spectrum({tokens, 60}, geometric(60, 1e3), 1), x = random_matrix({tokens, 90}, 2);
    auto const product = plain_product(dy.view().t(), x.view());
    matrix<float> g{60, 90}, p{60, 60}, q{60, 60};
    for (index_t e = 0; e < g.shape().size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
    for (double const tolerance : {0.3, 0.03, 3e-3}) {
      adaptive_options const options{.tolerance = tolerance, .block = 8, .power_iterations = 2};
      host_executor exec{{.threads = 1, .scratch_bytes = adaptive_range_bytes({60, 90}, 60, options, tokens)}};
      adaptive_report dense, factored;
      find_adaptive_range(exec, g.view(), p.view(), options, {.seed = 1}, &dense);
      find_adaptive_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &factored);
      CHECK(factored.rank == dense.rank);
      CHECK(factored.energy == doctest::Approx(dense.energy).epsilon(1e-5));
      CHECK(factored.error == doctest::Approx(dense.error).epsilon(1e-2));
      CHECK(true_error(q.view().col_range(0, factored.rank), g.view()) <= factored.error);
    }
  }
}

}  // namespace linalg_adaptive_test
