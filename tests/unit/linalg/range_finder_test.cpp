#include "lowrank/linalg/range_finder.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "lowrank/linalg/randomized_svd.hpp"
#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace range_finder_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

struct range_case {
  extents g;
  index_t r;
};
constexpr range_case range_cases[] = {{{1, 1}, 1},  {{1, 9}, 1},    {{9, 1}, 1},    {{9, 1}, 4},     {{20, 8}, 20},
                                      {{8, 20}, 8}, {{40, 100}, 1}, {{64, 64}, 64}, {{100, 40}, 30}, {{60, 170}, 20}};

constexpr range_options krylov(index_t steps) {
  return {.power_iterations = steps, .space = search_space::every_block};
}

}  // namespace

TEST_SUITE("range finder") {
  TEST_CASE("the scratch asked for is the scratch taken, and nothing is allocated") {
    for (auto const [g, r] : range_cases)
      for (auto const& options : {range_options{.power_iterations = 0}, range_options{.power_iterations = 1},
                                  range_options{.power_iterations = 2}, krylov(0), krylov(1), krylov(2), krylov(3)})
        for (index_t const tokens : {0, 13}) {
          CAPTURE(g);
          CAPTURE(r);
          CAPTURE(options.power_iterations);
          CAPTURE(tokens);
          host_executor exec{{.threads = 2, .scratch_bytes = find_range_bytes(g, r, options, tokens)}};
          auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2),
                     x = random_matrix({13, g.cols}, 3);
          matrix<float> q{g.rows, r};
          range_report report;
          std::vector<double> energies(static_cast<std::size_t>(r));
          allocation_counter const allocations;
          if (tokens == 0)
            find_range(exec, matrix_view<float const>(dense.view()), q.view(), options, {.seed = 1}, &report,
                       energies.data());
          else
            find_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &report,
                       energies.data());
          CHECK(allocations.count() == 0);
          CHECK(exec.arena().peak() == find_range_bytes(g, r, options, tokens));
          CHECK(report.failed == 0);
          CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(static_cast<double>(r)) * eps);
        }
  }
  TEST_CASE("energies are those of the columns, descending, and their sum is reported") {
    host_executor exec{{.threads = 2, .scratch_bytes = find_range_bytes({60, 90}, 12)}};
    auto const g = with_spectrum({60, 90}, power_law(60, 0.6), 4);
    matrix<float> q{60, 12};
    range_report report;
    double energies[12];
    find_range(exec, g.view(), q.view(), {}, {.seed = 1}, &report, energies);
    double sum = 0;
    for (index_t k = 0; k < 12; ++k) {
      CHECK(energies[k] == doctest::Approx(captured_energy(q.view().col_range(k, k + 1), g.view())).epsilon(1e-5));
      if (k > 0) CHECK(energies[k] <= energies[k - 1]);
      sum += energies[k];
    }
    CHECK(report.captured == doctest::Approx(sum));
    for (index_t k = 0; k < 12; ++k) {
      index_t most = 0;
      for (index_t i = 1; i < 60; ++i)
        if (std::abs(q(i, k)) > std::abs(q(most, k))) most = i;
      CHECK(q(most, k) > 0);
    }
  }
  TEST_CASE("without power steps, the last block is every block") {
    auto const g = random_matrix({60, 90}, 4);
    matrix<float> p{60, 12}, q{60, 12};
    range_report last, every;
    host_executor exec{{.threads = 2, .scratch_bytes = find_range_bytes({60, 90}, 12)}};
    find_range(exec, g.view(), p.view(), {.power_iterations = 0}, {.seed = 1}, &last);
    find_range(exec, g.view(), q.view(), krylov(0), {.seed = 1}, &every);
    CHECK(same_bits(p, q));
    CHECK(last.captured == every.captured);
    CHECK(find_range_bytes({60, 90}, 12, krylov(0)) == find_range_bytes({60, 90}, 12, {.power_iterations = 0}));
  }
  TEST_CASE("blocks that fill up the space find everything") {
    // 2 (20 + 8) and 3 (20 + 8) columns are more than 48.
    auto const s = power_law(48, 0.3);
    auto const g = with_spectrum({48, 90}, s, 4);
    for (index_t const steps : {1, 2})
      for (auto const& view : {matrix_view<float const>(g.view()), matrix_view<float const>(g.view()).t()}) {
        host_executor exec{{.threads = 2, .scratch_bytes = find_range_bytes(view.shape(), 20, krylov(steps))}};
        matrix<float> q{view.rows, 20};
        range_report report;
        find_range(exec, view, q.view(), krylov(steps), {.seed = 1}, &report);
        CHECK(captured_energy(q.view(), view) >= (1 - 1e-6) * energy(s, 0, 20));
        CHECK(report.captured == doctest::Approx(energy(s, 0, 20)).epsilon(1e-6));
      }
  }
  TEST_CASE("a basis wider than the rank is completed") {
    for (auto const& options : {range_options{}, krylov(1), krylov(2)}) {
      host_executor exec{{.threads = 1, .scratch_bytes = find_range_bytes({40, 30}, 20, options)}};
      auto const g = with_spectrum({40, 30}, power_law(5, 0.5), 4);
      matrix<float> q{40, 20};
      range_report report;
      double energies[20];
      find_range(exec, g.view(), q.view(), options, {.seed = 1}, &report, energies);
      CHECK(report.failed == 0);
      CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(20.0) * eps);
      CHECK(energies[4] > 0.1);
      CHECK(energies[5] < 1e-10);
      matrix<float> const zero{40, 30};
      find_range(exec, zero.view(), q.view(), options, {.seed = 1}, &report, energies);
      CHECK(report.failed == 0);
      CHECK(report.captured == 0);
      CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(20.0) * eps);
      matrix<float> wide{40, 40};
      exec.reserve(find_range_bytes({40, 30}, 40, options));
      find_range(exec, g.view(), wide.view(), options, {.seed = 1}, &report);
      CHECK(report.replaced == 10);
      CHECK(departure_from_orthonormal(wide.view()) <= 20 * std::sqrt(40.0) * eps);
    }
  }
  TEST_CASE("an empty gradient or basis is nothing to do") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
    matrix<float> const none{6, 0};
    matrix<float> q{6, 2}, no_basis{6, 0};
    range_report report{.failed = 1};
    find_range(exec, none.view(), q.view(), {}, {.seed = 1}, &report);
    CHECK(report.failed == 0);
    CHECK(departure_from_orthonormal(q.view()) < 1e-5);
    find_range(exec, random_matrix({6, 5}, 1).view(), no_basis.view(), {}, {.seed = 1}, &report);
    CHECK(report.captured == 0);
  }
  TEST_CASE("misuse is refused before anything is written") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({10, 20}, 1);
    matrix<float> q{10, 4}, wide{10, 11}, other{9, 4};
    CHECK_THROWS_AS(find_range(exec, g.view(), wide.view(), {}, {}), shape_error);
    CHECK_THROWS_AS(find_range(exec, g.view(), other.view(), {}, {}), shape_error);
    CHECK_THROWS_AS(find_range(exec, g.view(), q.view(), {.oversampling = -1}, {}), argument_error);
    CHECK_THROWS_AS(find_range(exec, g.view(), q.view(), {.power_iterations = -1}, {}), argument_error);
    CHECK_THROWS_AS(randomized_svd(exec, g.view(), 11, {}, {}, {}), shape_error);
    CHECK_THROWS_AS(randomized_svd(exec, g.view(), 3, {.u = q.view()}, {}, {}), shape_error);
    CHECK(squared_norm_of(q.view()) == 0);
  }
  TEST_CASE("randomized_svd takes the scratch it says, with either side or both") {
    extents const shape{50, 70};
    auto const g = random_matrix(shape, 1);
    matrix<float> u{50, 9}, v{70, 9}, u2{50, 9}, v2{70, 9};
    double values[9], values2[9];
    host_executor exec{{.threads = 2, .scratch_bytes = randomized_svd_bytes(shape, 9)}};
    allocation_counter const allocations;
    randomized_svd(exec, g.view(), 9, {.u = u.view(), .values = values, .v = v.view()}, {}, {.seed = 1});
    CHECK(exec.arena().peak() == randomized_svd_bytes(shape, 9));
    randomized_svd(exec, g.view(), 9, {.u = u2.view()}, {}, {.seed = 1});
    randomized_svd(exec, g.view(), 9, {.values = values2, .v = v2.view()}, {}, {.seed = 1});
    CHECK(allocations.count() == 0);
    CHECK(same_bits(u, u2));
    CHECK(same_bits(v, v2));
    CHECK(std::equal(values, values + 9, values2));
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity in the gradient is reported", E, LOWRANK_TEST_EXECUTORS) {
    for (auto const& options : {range_options{}, krylov(1)}) {
      E exec{{.threads = 2, .scratch_bytes = find_range_bytes({40, 60}, 8, options, 12)}};
      for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
        auto g = random_matrix({40, 60}, 1);
        matrix<float> q{40, 8};
        range_report report;
        for (index_t const at : {0, 1234, 2399}) {
          float const before = std::exchange(g.data()[at], std::bit_cast<float>(bits));
          find_range(exec, g.view(), q.view(), options, {.seed = 1}, &report);
          CHECK(report.failed == 1);
          g.data()[at] = before;
        }
        auto dy = random_matrix({12, 40}, 1), x = random_matrix({12, 60}, 2);
        x(3, 3) = std::bit_cast<float>(bits);
        find_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &report);
        CHECK(report.failed == 1);
      }
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of a found basis do not depend on the number of threads") {
    extents const shape{220, 400};
    auto const g = random_matrix(shape, 1);
    for (auto const& options : {range_options{}, krylov(1)}) {
      auto const run = [&](int threads) {
        host_executor exec{{.threads = threads, .scratch_bytes = find_range_bytes(shape, 60, options)}};
        matrix<float> q{220, 60};
        find_range(exec, g.view(), q.view(), options, {.seed = 3});
        return q;
      };
      auto const one = run(1);
      for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
    }
  }
}

}  // namespace range_finder_test
