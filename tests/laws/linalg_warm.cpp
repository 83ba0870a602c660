// What a warm-started basis captures: never less than the basis it came from, and of the next gradient more than the exact
// basis of this one, where the tracker remembers.
#include <doctest/doctest.h>

#include "lowrank/linalg/tracked_range.hpp"
#include "support/executors.hpp"
#include "support/orthonormalizers.hpp"
#include "support/warm_starts.hpp"

namespace linalg_warm_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Spectra from one decade to many, with and without gaps.
std::vector<std::vector<double>> spectra(index_t count) {
  std::vector<double> spikes(static_cast<std::size_t>(count), 0.1), cliff(static_cast<std::size_t>(count), 1e-5);
  for (std::size_t i = 0; i < 5; ++i) spikes[i] = 3.0 - static_cast<double>(i) / 4, cliff[i] = 1;
  return {power_law(count, 0.0),
          power_law(count, 0.4),
          power_law(count, 1.0),
          geometric(count, 1e3),
          geometric(count, 1e8),
          spikes,
          cliff,
          power_law(4, 0.5)};
}
matrix<float> sum_of(matrix<float> const& a, float weight, matrix<float> const& b) {
  auto out = copy_of(a.view());
  for (index_t e = 0; e < a.shape().size(); ++e) out.data()[e] += weight * b.data()[e];
  return out;
}
/// ‖PᵀG‖² / ‖G‖².
double share(matrix<float> const& p, matrix<float> const& g) {
  return captured_energy(p.view(), g.view()) / squared_norm_of(g.view());
}

}  // namespace

TEST_SUITE("warm start") {
  // Ritz values of an iterated subspace do not fall; fp32 adds a few eps. The orthonormalisation changes nothing in that.
  TEST_CASE_TEMPLATE("a pass never captures less than the basis it came from", E, LOWRANK_TEST_EXECUTORS,
                     blind_executor) {
    for (extents const shape : {extents{48, 80}, extents{80, 48}, extents{40, 6}}) {
      index_t const least = std::min(shape.rows, shape.cols);
      std::uint64_t seed = 0;
      for (auto const& s : spectra(least)) {
        ++seed;
        auto const g = with_spectrum(shape, s, seed);
        auto const before = sum_of(g, 0.3F, with_spectrum(shape, s, seed + 50));
        for (index_t const r : {1, 5, 12}) {
          E exec{{.threads = 1, .scratch_bytes = 1 << 20}};
          // From nothing in common with the gradient to nearly its own basis.
          matrix<float> fitted{shape.rows, r}, random = orthonormal_basis(shape.rows, r, seed + 99);
          find_range(exec, before.view(), fitted.view(), {}, {.seed = seed});
          for (matrix<float> const* p : {&fitted, &random})
            for (auto const& options : every_warm_options()) {
              if (options.fresh != 0) continue;
              CAPTURE(shape);
              CAPTURE(seed);
              CAPTURE(r);
              CAPTURE(named(options));
              matrix<float> q{shape.rows, r};
              range_report report;
              warm_range(exec, g.view(), matrix_view<float const>(p->view()), q.view(), options, {.seed = seed},
                         &report);
              CHECK(report.failed == 0);
              CHECK(share(q, g) >= share(*p, g) - 10 * eps);
              CHECK(departure_from_orthonormal(q.view()) <= orthonormal_units{}.of(r));
            }
        }
      }
    }
  }
  TEST_CASE_TEMPLATE("whatever makes the columns orthonormal", E, LOWRANK_TEST_EXECUTORS, blind_executor) {
    extents const shape{60, 90};
    index_t const r = 16;
    auto const g = with_spectrum(shape, power_law(60, 0.6), 1);
    auto const p = orthonormal_basis(60, r, 7);
    double const before = share(p, g);
    for_each_orthonormalizer<E>([&]<class O>(std::string const& policy, O const& o, double bound) {
      for (auto const& options : every_warm_options()) {
        CAPTURE(policy);
        CAPTURE(named(options));
        E exec{{.threads = 2, .scratch_bytes = warm_range_bytes<O>(shape, r, r, options)}};
        matrix<float> q{60, r};
        range_report report;
        warm_range(exec, g.view(), matrix_view<float const>(p.view()), q.view(), options, {.seed = 1}, &report, nullptr,
                   o);
        CHECK(report.failed == 0);
        CHECK(exec.arena().peak() <= exec.arena().reserved());
        CHECK(departure_from_orthonormal(q.view()) <= orthonormal_units{bound}.of(r));
        CHECK(share(q, g) >= before);
      }
    });
  }
  TEST_CASE_TEMPLATE("passes approach the best basis, fresh columns faster", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{128, 200};
    index_t const r = 16;
    auto const s = power_law(128, 0.5);
    auto const g = with_spectrum(shape, s, 3);
    auto const before = sum_of(g, 0.3F, random_matrix(shape, 9));
    E exec{{.threads = 2, .scratch_bytes = 1 << 22}};
    matrix<float> p{128, r};
    find_range(exec, before.view(), p.view(), {.power_iterations = 2}, {.seed = 1});
    double const best = energy(s, 0, r), stale = captured_energy(p.view(), g.view()) / best;
    double narrow = stale, wide = stale;
    for (index_t const passes : {1, 2, 3, 6}) {
      double mean_narrow = 0, mean_wide = 0;
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        matrix<float> q{128, r};
        warm_options options{.passes = passes};
        warm_range(exec, g.view(), matrix_view<float const>(p.view()), q.view(), options, {.seed = seed});
        mean_narrow += captured_energy(q.view(), g.view()) / best / 5;
        options.fresh = 8;
        warm_range(exec, g.view(), matrix_view<float const>(p.view()), q.view(), options, {.seed = seed});
        mean_wide += captured_energy(q.view(), g.view()) / best / 5;
      }
      CAPTURE(passes);
      CHECK(mean_narrow > narrow);
      CHECK(mean_wide > wide);
      CHECK(mean_wide >= mean_narrow - 1e-3);
      narrow = mean_narrow, wide = mean_wide;
    }
    CHECK(narrow >= 0.99);
    CHECK(wide >= 0.995);
  }
  TEST_CASE_TEMPLATE("a factored gradient gives the basis of the dense one", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{70, 110};
    index_t const tokens = 48, r = 12;
    auto const dy = with_spectrum({tokens, 70}, power_law(48, 1.0), 1), x = random_matrix({tokens, 110}, 2);
    auto const product = plain_product(dy.view().t(), x.view());
    matrix<float> g{shape};
    for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
    auto const p = orthonormal_basis(70, r, 3);
    E exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    for (auto const& options : every_warm_options()) {
      CAPTURE(named(options));
      matrix<float> a{70, r}, b{70, r};
      warm_range(exec, g.view(), matrix_view<float const>(p.view()), a.view(), options, {.seed = 1});
      warm_range(exec, outer_product<>{dy.view(), x.view()}, matrix_view<float const>(p.view()), b.view(), options,
                 {.seed = 1});
      CHECK(shared_part(a, b) == doctest::Approx(1).epsilon(1e-4));
      // As iterated, columns are unique; by energy, up to the gaps between energies.
      if (options.order == column_order::as_iterated && options.passes == 1 && options.align == alignment::none &&
          options.fresh == 0)
        CHECK(largest_difference(a.view(), b.view()) <= 1e-3);
    }
  }
  // The gradient of a mini-batch is what all have in common and noise; the exact basis of one fits its noise.
  TEST_CASE_TEMPLATE("the tracker predicts the next gradient better than the exact basis of the last one", E,
                     LOWRANK_TEST_EXECUTORS) {
    extents const shape{96, 160};
    index_t const r = 12;
    E exec{{.threads = 2, .scratch_bytes = 1 << 22}};
    for (std::uint64_t const seed : {1, 2, 3}) {
      auto const common = with_spectrum(shape, geometric(r, 4), seed);
      auto const gradient = [&](std::uint64_t step) {
        // Noise of the size of the weakest common direction: its largest singular value is about 0.03 (√96 + √160).
        return sum_of(common, 0.03F, random_matrix(shape, 1000 * seed + step));
      };
      for (double const forgetting : {0.5, 0.8, 0.9}) {
        matrix<float> p{96, r}, q{96, r}, exact{96, r}, l{r, r}, next_l{r, r};
        std::int64_t exponent = 0, next_exponent = 0;
        find_range(exec, gradient(0).view(), p.view(), {.power_iterations = 8}, {.seed = 1});
        double tracked = 0, fitted = 0, warm = 0;
        auto once = copy_of(p.view());
        index_t const steps = 12;
        for (index_t step = 1; step <= steps; ++step) {
          auto const g = gradient(static_cast<std::uint64_t>(step)),
                     next = gradient(static_cast<std::uint64_t>(step) + 1);
          range_report report;
          tracked_range(exec, g.view(), matrix_view<float const>(p.view()), tracked_mean<>{l.view(), &exponent},
                        q.view(), tracked_mean<>{next_l.view(), &next_exponent}, {.forgetting = forgetting},
                        {.seed = 1, .step = static_cast<std::uint32_t>(step)}, &report);
          REQUIRE(report.failed == 0);
          std::swap(p, q);
          std::swap(l, next_l);
          exponent = next_exponent;
          find_range(exec, g.view(), exact.view(), {.power_iterations = 8}, {.seed = 1});
          matrix<float> passed{96, r};
          warm_range(exec, g.view(), matrix_view<float const>(once.view()), passed.view(), {}, {.seed = 1});
          once = std::move(passed);
          if (step <= 4) continue;
          tracked += share(p, next) / (steps - 4);
          fitted += share(exact, next) / (steps - 4);
          warm += share(once, next) / (steps - 4);
        }
        CAPTURE(seed);
        CAPTURE(forgetting);
        CHECK(tracked > fitted + 0.01);
        CHECK(tracked > warm);
      }
    }
  }
}

}  // namespace linalg_warm_test
