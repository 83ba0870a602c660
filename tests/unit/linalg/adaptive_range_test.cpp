#include "lowrank/linalg/adaptive_range.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/allocation_counter.hpp"
#include "support/blind_executor.hpp"
#include "support/matrices.hpp"

namespace adaptive_range_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

struct adaptive_case {
  extents g;
  index_t cap;
};
constexpr adaptive_case adaptive_cases[] = {{{1, 1}, 1},    {{1, 9}, 1},    {{9, 1}, 1},   {{9, 1}, 4},
                                            {{20, 8}, 20},  {{8, 20}, 12},  {{40, 90}, 1}, {{64, 64}, 64},
                                            {{90, 40}, 30}, {{60, 170}, 20}};

}  // namespace

TEST_SUITE("adaptive range") {
  TEST_CASE("the scratch asked for is what the whole search takes, and nothing is allocated") {
    for (auto const [g, cap] : adaptive_cases)
      for (index_t const power : {0, 1})
        for (index_t const block : {1, 5, 16})
          for (double const tolerance : {2e-2, 1e-5})
            for (index_t const tokens : {0, 13}) {
              CAPTURE(g);
              CAPTURE(cap);
              CAPTURE(power);
              CAPTURE(block);
              CAPTURE(tolerance);
              CAPTURE(tokens);
              adaptive_options const options{.tolerance = tolerance, .block = block, .power_iterations = power};
              index_t const bytes = adaptive_range_bytes(g, cap, options, tokens);
              blind_executor exec{{.threads = 1, .scratch_bytes = bytes}};
              auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2),
                         x = random_matrix({13, g.cols}, 3);
              matrix<float> q{g.rows, cap};
              adaptive_report report;
              allocation_counter const allocations;
              if (tokens == 0) find_adaptive_range(exec, dense.view(), q.view(), options, {.seed = 1}, &report);
              else
                find_adaptive_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1},
                                    &report);
              CHECK(allocations.count() == 0);
              CHECK(exec.arena().peak() == bytes);
              CHECK(report.failed == 0);
              CHECK(report.searched == std::min({g.rows, g.cols, cap}));
              CHECK(departure_from_orthonormal(q.view().col_range(0, report.searched)) <=
                    std::sqrt(static_cast<double>(report.searched)) * eps);
            }
  }
  TEST_CASE("a search that ends early takes no more, and leaves zero columns") {
    auto const g = with_spectrum({60, 90}, power_law(60, 1.0), 4);
    for (double const tolerance : {0.3, 2e-3}) {
      adaptive_options const options{.tolerance = tolerance, .block = 4};
      host_executor exec{{.threads = 2, .scratch_bytes = adaptive_range_bytes({60, 90}, 60, options)}};
      matrix<float> q{60, 60};
      fill(exec, q.view(), 7.0F);
      adaptive_report report;
      allocation_counter const allocations;
      find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
      CHECK(allocations.count() == 0);
      CHECK(report.reached == 1);
      CHECK(report.rank <= report.searched);
      CHECK(squared_norm_of(q.view().col_range(report.searched, 60)) == 0);
      CHECK(report.energy == doctest::Approx(squared_norm_of(g.view())));
      auto const kept = q.view().col_range(0, report.rank);
      CHECK(report.captured == doctest::Approx(captured_energy(kept, g.view())).epsilon(1e-6));
      CHECK(report.error >= true_error(kept, g.view()));
      CHECK(report.error <= tolerance);
      // One column fewer would not do.
      CHECK(true_error(kept.col_range(0, report.rank - 1), g.view()) > tolerance * (1 - 1e-2));
      for (index_t k = 1; k < report.searched; ++k)
        CHECK(captured_energy(q.view().col_range(k, k + 1), g.view()) <=
              captured_energy(q.view().col_range(k - 1, k), g.view()) * (1 + 1e-5));
    }
  }
  TEST_CASE("a share of the energy is a tolerance by another name, and the looser of two ends the search") {
    auto const g = with_spectrum({50, 70}, power_law(50, 0.7), 4);
    auto const run = [&](adaptive_options options) {
      options.block = 8;
      host_executor exec{{.threads = 1, .scratch_bytes = adaptive_range_bytes({50, 70}, 50, options)}};
      matrix<float> q{50, 50};
      adaptive_report report;
      find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
      return report;
    };
    auto const by_share = run({.share = 0.91}), by_tolerance = run({.tolerance = 0.3});
    CHECK(by_share.rank == by_tolerance.rank);
    CHECK(by_share.captured >= 0.91 * by_share.energy);
    CHECK(run({.tolerance = 0.3, .share = 0.99}).rank == by_tolerance.rank);
    CHECK(run({.tolerance = 0.1, .share = 0.91}).rank == by_share.rank);
    CHECK(run({.share = 0.99}).rank > by_share.rank);
  }
  TEST_CASE("an executor that cannot look searches everything and keeps as little") {
    auto const g = with_spectrum({70, 90}, geometric(70, 1e5), 4);
    for (double const tolerance : {0.2, 0.02, 1e-3, 1e-4}) {
      adaptive_options const options{.tolerance = tolerance, .block = 8, .power_iterations = 2};
      index_t const bytes = adaptive_range_bytes({70, 90}, 70, options);
      host_executor exec{{.threads = 1, .scratch_bytes = bytes}};
      blind_executor blind{{.threads = 1, .scratch_bytes = bytes}};
      matrix<float> q{70, 70}, p{70, 70};
      adaptive_report seen, unseen;
      find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &seen);
      find_adaptive_range(blind, g.view(), p.view(), options, {.seed = 1}, &unseen);
      CHECK(unseen.searched == 70);
      CHECK(unseen.reached == 1);
      CHECK(unseen.measured == seen.measured);
      CHECK(unseen.rank <= seen.rank);
      CHECK(unseen.rank >= seen.rank - 2);
      CHECK(true_error(p.view().col_range(0, unseen.rank), g.view()) <= unseen.error);
      CHECK(unseen.error <= tolerance);
    }
  }
  TEST_CASE("nothing, one entry, rank below the block, numbers at the ends of fp32") {
    adaptive_options const options{.tolerance = 0.01};
    host_executor exec{{.threads = 1, .scratch_bytes = adaptive_range_bytes({40, 30}, 30, options)}};
    matrix<float> const zero{40, 30}, none{40, 0};
    matrix<float> q{40, 30}, no_basis{40, 0};
    adaptive_report report;
    find_adaptive_range(exec, zero.view(), q.view(), options, {.seed = 1}, &report);
    CHECK(report.failed == 0);
    CHECK(report.rank == 0);
    CHECK(report.error == 0);
    CHECK(report.reached == 1);
    find_adaptive_range(exec, none.view(), q.view(), options, {.seed = 1}, &report);
    CHECK(report.rank == 0);
    CHECK(report.reached == 1);
    CHECK(squared_norm_of(q.view()) == 0);
    find_adaptive_range(exec, random_matrix({40, 30}, 1).view(), no_basis.view(), options, {.seed = 1}, &report);
    CHECK(report.error == 1);
    CHECK(report.reached == 0);
    auto const rank_5 = with_spectrum({40, 30}, power_law(5, 0.5), 4);
    for (float const scale : {1.0F, 1e18F, 1e-25F}) {
      CAPTURE(scale);
      matrix<float> single{40, 30};
      single(7, 11) = -scale;
      find_adaptive_range(exec, single.view(), q.view(), options, {.seed = 1}, &report);
      CHECK(report.failed == 0);
      CHECK(report.rank == 1);
      CHECK(report.reached == 1);
      CHECK(q(7, 0) == doctest::Approx(1));
      CHECK(departure_from_orthonormal(q.view().col_range(0, report.searched)) <= std::sqrt(30.0) * eps);
      auto scaled = copy_of(rank_5.view());
      for (index_t e = 0; e < scaled.shape().size(); ++e) scaled.data()[e] *= scale;
      find_adaptive_range(exec, scaled.view(), q.view(), options, {.seed = 1}, &report);
      CHECK(report.rank == 5);
      CHECK(report.reached == 1);
      CHECK(true_error(q.view().col_range(0, 5), scaled.view()) < 1e-6);
    }
  }
  TEST_CASE("where rounding is all that is left, columns stay orthogonal and claims true") {
    // Blocks beyond the rank are noise. That of equal rows points into the span of what is there, however often it is
    // taken out of it.
    matrix<float> nearly_two{64, 64}, column{150, 64}, cross{48, 48};
    for (index_t i = 0; i < 64; ++i) nearly_two(i, 3) = 1.0F + 1e-6F * static_cast<float>(i % 5);
    for (index_t j = 0; j < 64; ++j) nearly_two(9, j) += 3e-4F * static_cast<float>(j % 3);
    for (index_t i = 0; i < 150; ++i) column(i, 3) = 1;
    for (index_t i = 0; i < 48; ++i) cross(i, 1) = cross(1, i) = 1;
    for (auto const* const g : {&nearly_two, &column, &cross})
      for (index_t const power : {0, 1})
        for (index_t const block : {1, 3}) {
          extents const shape = g->shape();
          CAPTURE(shape);
          CAPTURE(power);
          CAPTURE(block);
          adaptive_options const options{.tolerance = 1e-5, .block = block, .power_iterations = power};
          blind_executor exec{{.threads = 1, .scratch_bytes = adaptive_range_bytes(shape, 64, options)}};
          matrix<float> q{shape.rows, 64};
          adaptive_report report;
          find_adaptive_range(exec, g->view(), q.view(), options, {.seed = 1}, &report);
          CHECK(report.searched == std::min<index_t>(64, shape.cols));
          CHECK(departure_from_orthonormal(q.view().col_range(0, report.searched)) <= 8 * eps);
          CHECK(report.reached == 1);
          CHECK(report.rank <= 2);
          CHECK(true_error(q.view().col_range(0, report.rank), g->view()) <= report.error);
        }
  }
  TEST_CASE("misuse is refused before anything is written") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({10, 20}, 1);
    matrix<float> q{10, 4}, other{9, 4};
    adaptive_report report;
    auto const run = [&](matrix<float>& basis, adaptive_options const& options) {
      find_adaptive_range(exec, g.view(), basis.view(), options, {}, &report);
    };
    CHECK_THROWS_AS(run(other, {.tolerance = 0.1}), shape_error);
    CHECK_THROWS_AS(run(q, {.tolerance = 0.1, .block = 0}), argument_error);
    CHECK_THROWS_AS(run(q, {.tolerance = 0.1, .power_iterations = -1}), argument_error);
    CHECK_THROWS_AS(run(q, {.tolerance = -0.1}), argument_error);
    CHECK_THROWS_AS(run(q, {.share = 0}), argument_error);
    CHECK_THROWS_AS(run(q, {.share = 1.1}), argument_error);
    CHECK_THROWS_AS(run(q, {.tolerance = std::nan("")}), argument_error);
    CHECK_THROWS_AS(run(q, {.tolerance = 1}), argument_error);
    CHECK_THROWS_AS(run(q, {}), argument_error);
    CHECK_THROWS_WITH_AS(
        run(q, {.tolerance = 1e-7}),
        doctest::Contains("needs a relative error in [1e-06, 1), the least that fp32 residuals can tell"),
        argument_error);
    CHECK(squared_norm_of(q.view()) == 0);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity in the gradient is reported by the adaptive search", E, LOWRANK_TEST_EXECUTORS) {
    adaptive_options const options{.tolerance = 0.01};
    E exec{{.threads = 2, .scratch_bytes = adaptive_range_bytes({40, 60}, 40, options, 12)}};
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
      auto g = random_matrix({40, 60}, 1);
      matrix<float> q{40, 40};
      adaptive_report report;
      for (index_t const at : {0, 1234, 2399}) {
        float const before = std::exchange(g.data()[at], std::bit_cast<float>(bits));
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
        CHECK(report.failed == 1);
        CHECK(report.reached == 0);
        g.data()[at] = before;
      }
      auto dy = random_matrix({12, 40}, 1), x = random_matrix({12, 60}, 2);
      x(3, 3) = std::bit_cast<float>(bits);
      find_adaptive_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &report);
      CHECK(report.failed == 1);
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of an adaptive basis do not depend on the number of threads") {
    extents const shape{150, 300};
    auto const g = random_matrix(shape, 1);
    for (double const tolerance : {0.3, 1e-3}) {
      auto const run = [&](int threads) {
        adaptive_options const options{.tolerance = tolerance};
        host_executor exec{{.threads = threads, .scratch_bytes = adaptive_range_bytes(shape, 100, options)}};
        matrix<float> q{150, 100};
        adaptive_report report;
        find_adaptive_range(exec, g.view(), q.view(), options, {.seed = 3}, &report);
        return q;
      };
      auto const one = run(1);
      for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
    }
  }
}

}  // namespace adaptive_range_test
