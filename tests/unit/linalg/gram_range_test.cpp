#include "lowrank/linalg/gram_range.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/allocation_counter.hpp"
#include "support/blind_executor.hpp"
#include "support/matrices.hpp"

namespace gram_range_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

struct gram_case {
  extents g;
  index_t r;
};
constexpr gram_case gram_cases[] = {{{1, 1}, 1},  {{1, 9}, 1},    {{9, 1}, 1},    {{9, 1}, 4},    {{20, 8}, 20},
                                    {{8, 20}, 8}, {{40, 100}, 1}, {{64, 64}, 64}, {{30, 300}, 7}, {{60, 170}, 20}};
constexpr gram_range_options gram_variants[] = {{},
                                                {.solver = gram_solver::subspace},
                                                {.solver = gram_solver::subspace, .iterations = 0},
                                                {.solver = gram_solver::subspace, .iterations = 1, .oversampling = 0}};

std::vector<double> found_energies(matrix_view<float const> g, index_t r, gram_range_options const& options,
                                   matrix_view<float> q, range_report* report) {
  host_executor exec{{.threads = 2, .scratch_bytes = gram_range_bytes(g.shape(), r, options)}};
  std::vector<double> energies(static_cast<std::size_t>(r), -1);
  find_range_by_gram(exec, g, q, options, {.seed = 1}, report, energies.data());
  return energies;
}

}  // namespace

TEST_SUITE("gram range") {
  TEST_CASE("the scratch asked for is the scratch taken, and nothing is allocated") {
    for (auto const [g, r] : gram_cases)
      for (auto const& options : gram_variants)
        for (index_t const tokens : {0, 13}) {
          CAPTURE(g);
          CAPTURE(r);
          CAPTURE(tokens);
          CAPTURE(options.iterations);
          index_t const bytes = gram_range_bytes(g, r, options, tokens);
          host_executor exec{{.threads = 2, .scratch_bytes = bytes}};
          auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2),
                     x = random_matrix({13, g.cols}, 3);
          matrix<float> q{g.rows, r};
          range_report report;
          std::vector<double> energies(static_cast<std::size_t>(r));
          allocation_counter const allocations;
          if (tokens == 0)
            find_range_by_gram(exec, dense.view(), q.view(), options, {.seed = 1}, &report, energies.data());
          else
            find_range_by_gram(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &report,
                               energies.data());
          CHECK(allocations.count() == 0);
          CHECK(exec.arena().peak() == bytes);
          CHECK(report.failed == 0);
          CHECK(report.replaced >= r - std::min({g.rows, g.cols, tokens == 0 ? g.cols : tokens}));
          CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(static_cast<double>(r)) * eps);
        }
  }
  TEST_CASE("energies are those of the columns, descending, and their sum is reported") {
    auto const g = with_spectrum({60, 90}, power_law(60, 0.6), 4);
    for (auto const& options : gram_variants) {
      matrix<float> q{60, 12};
      range_report report;
      auto const energies = found_energies(g.view(), 12, options, q.view(), &report);
      double sum = 0;
      for (index_t k = 0; k < 12; ++k) {
        double const here = energies[static_cast<std::size_t>(k)];
        CHECK(here == doctest::Approx(captured_energy(q.view().col_range(k, k + 1), g.view())).epsilon(1e-5));
        if (k > 0) CHECK(here <= energies[static_cast<std::size_t>(k - 1)]);
        sum += here;
        index_t most = 0;
        for (index_t i = 1; i < 60; ++i)
          if (std::abs(q(i, k)) > std::abs(q(most, k))) most = i;
        CHECK(q(most, k) > 0);
      }
      CHECK(report.captured == doctest::Approx(sum));
      CHECK(report.replaced == 0);
    }
  }
  TEST_CASE("directions that the gradient does not have are counted, and completed") {
    matrix<float> const zero{40, 30};
    matrix<float> single{40, 30};
    single(7, 11) = -3e-20F;
    auto const rank_5 = with_spectrum({40, 30}, power_law(5, 0.5), 4);
    for (auto const& options : gram_variants) {
      matrix<float> q{40, 20};
      range_report report;
      auto energies = found_energies(zero.view(), 20, options, q.view(), &report);
      CHECK(report.failed == 0);
      CHECK(report.captured == 0);
      CHECK(report.replaced == 20);
      CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(20.0) * eps);
      if (options.solver == gram_solver::subspace && options.iterations == 0) continue;  // signs hit nothing exactly
      energies = found_energies(single.view(), 20, options, q.view(), &report);
      CHECK(report.replaced == 19);
      CHECK(report.captured == doctest::Approx(9e-40).epsilon(1e-6));
      CHECK(q(7, 0) == doctest::Approx(1));
      CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(20.0) * eps);
      energies = found_energies(rank_5.view(), 20, options, q.view(), &report);
      CHECK(energies[4] == doctest::Approx(0.2).epsilon(1e-5));
      CHECK(energies[5] < 1e-10);
      CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(20.0) * eps);
    }
  }
  TEST_CASE("an empty gradient or basis is nothing to do") {
    for (auto const& options : gram_variants) {
      host_executor exec{{.threads = 1, .scratch_bytes = gram_range_bytes({6, 5}, 2, options, 3)}};
      matrix<float> const none{6, 0}, no_dy{0, 6}, no_x{0, 5};
      matrix<float> q{6, 2}, no_basis{6, 0};
      range_report report{.failed = 1};
      find_range_by_gram(exec, none.view(), q.view(), options, {.seed = 1}, &report);
      CHECK(report.failed == 0);
      CHECK(report.replaced == 2);
      CHECK(departure_from_orthonormal(q.view()) < 1e-6);
      find_range_by_gram(exec, outer_product<>{no_dy.view(), no_x.view()}, q.view(), options, {.seed = 1}, &report);
      CHECK(report.replaced == 2);
      find_range_by_gram(exec, random_matrix({6, 5}, 1).view(), no_basis.view(), options, {.seed = 1}, &report);
      CHECK(report.captured == 0);
      CHECK(gram_range_bytes({6, 5}, 0, options) == 0);
    }
  }
  TEST_CASE("a start is iterated on, and fresh columns stand beside it") {
    extents const shape{80, 120};
    auto const s = power_law(80, 0.4);
    auto const g = with_spectrum(shape, s, 6);
    matrix<float> exact{80, 10}, q{80, 10}, cold{80, 10};
    range_report report;
    found_energies(g.view(), 10, {}, exact.view(), &report);
    for (index_t const iterations : {0, 1}) {
      gram_range_options const options{.solver = gram_solver::subspace, .iterations = iterations, .oversampling = 4};
      host_executor exec{{.threads = 1, .scratch_bytes = gram_range_bytes(shape, 10, options)}};
      allocation_counter const allocations;
      find_range_by_gram(exec, g.view(), matrix_view<float const>(exact.view()), q.view(), options, {.seed = 2},
                         &report);
      CHECK(allocations.count() == 0);
      CHECK(exec.arena().peak() == gram_range_bytes(shape, 10, options));
      CHECK(captured_energy(q.view(), g.view()) >= (1 - 1e-6) * energy(s, 0, 10));
      // A start that misses the strongest direction gets it from the fresh columns, iteration by iteration.
      find_range_by_gram(exec, g.view(), matrix_view<float const>(exact.view()).col_range(1, 10), cold.view(), options,
                         {.seed = 2}, &report);
      CHECK(captured_energy(cold.view(), g.view()) >= energy(s, 1, 10));
      if (iterations == 1) CHECK(captured_energy(cold.view(), g.view()) >= 0.95 * energy(s, 0, 10));
    }
  }
  TEST_CASE("narrowing reads the lower triangle and leaves nothing outside of fp32") {
    host_executor exec{{.threads = 2}};
    matrix<double> a{70, 70};
    matrix<float> b{70, 70};
    for (double const scale : {1.0, 0x1p-290, 0x1p250}) {
      for (index_t i = 0; i < 70; ++i)
        for (index_t j = 0; j < 70; ++j)
          a(i, j) = j <= i ? scale * static_cast<double>((i * 7 + j * 3) % 100 - 50) / 16 : std::nan("");
      unit_scale seen;
      narrow_symmetric(exec, a.view(), b.view(), &seen);
      CHECK(seen.nonfinite == 0);
      float most = 0;
      for (index_t i = 0; i < 70; ++i)
        for (index_t j = 0; j < 70; ++j) {
          most = std::max(most, std::abs(b(i, j)));
          CHECK(std::ldexp(static_cast<double>(b(i, j)), seen.exponent) == a(std::max(i, j), std::min(i, j)));
        }
      CHECK(most >= 1);
      CHECK(most < 2);
    }
    fill(exec, a.view(), 0.0);
    unit_scale seen;
    narrow_symmetric(exec, a.view(), b.view(), &seen);
    CHECK(squared_norm_of(b.view()) == 0);
    CHECK(seen.nonfinite == 0);
  }
  TEST_CASE("an executor that cannot look finds the same") {
    extents const shape{50, 80};
    auto const g = with_spectrum(shape, power_law(50, 0.7), 3);
    for (auto const& options : gram_variants)
      for (float const scale : {1.0F, 1e-25F}) {
        auto scaled = copy_of(g.view());
        for (index_t e = 0; e < shape.size(); ++e) scaled.data()[e] *= scale;
        matrix<float> q{50, 9}, p{50, 9};
        range_report seen, unseen;
        found_energies(scaled.view(), 9, options, q.view(), &seen);
        blind_executor blind{{.threads = 1, .scratch_bytes = gram_range_bytes(shape, 9, options)}};
        find_range_by_gram(blind, scaled.view(), p.view(), options, {.seed = 1}, &unseen);
        CHECK(unseen.failed == 0);
        CHECK(unseen.captured == doctest::Approx(seen.captured).epsilon(1e-5));
        CHECK(departure_from_orthonormal(p.view()) <= 3 * eps);
        auto const both = plain_product(p.view().t(), q.view());
        CHECK(squared_norm_of(both.view()) == doctest::Approx(9).epsilon(1e-4));
      }
  }
  TEST_CASE("misuse is refused before anything is written") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({10, 20}, 1);
    matrix<float> q{10, 4}, wide{10, 11}, other{9, 4};
    matrix<float> const start{10, 13}, lower{9, 2};
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), wide.view(), {}, {}), shape_error);
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), other.view(), {}, {}), shape_error);
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), q.view(), {.oversampling = -1}, {}), argument_error);
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), q.view(), {.iterations = -1}, {}), argument_error);
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), start.view(), q.view(), {}, {}), shape_error);
    CHECK_THROWS_AS(find_range_by_gram(exec, g.view(), lower.view(), q.view(), {}, {}), shape_error);
    CHECK(squared_norm_of(q.view()) == 0);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity in the gradient is reported by way of its Gram", E, LOWRANK_TEST_EXECUTORS) {
    for (auto const& options : gram_variants) {
      E exec{{.threads = 2, .scratch_bytes = gram_range_bytes({40, 60}, 8, options, 12)}};
      for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
        auto g = random_matrix({40, 60}, 1);
        matrix<float> q{40, 8};
        range_report report;
        for (index_t const at : {0, 1234, 2399}) {
          float const before = std::exchange(g.data()[at], std::bit_cast<float>(bits));
          find_range_by_gram(exec, g.view(), q.view(), options, {.seed = 1}, &report);
          CHECK(report.failed == 1);
          g.data()[at] = before;
        }
        auto dy = random_matrix({12, 40}, 1), x = random_matrix({12, 60}, 2);
        x(3, 3) = std::bit_cast<float>(bits);
        find_range_by_gram(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, &report);
        CHECK(report.failed == 1);
      }
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of a basis by way of the Gram do not depend on the number of threads") {
    extents const shape{150, 400};
    auto const g = random_matrix(shape, 1), dy = random_matrix({90, 150}, 2), x = random_matrix({90, 400}, 3);
    for (auto const& options : gram_variants)
      for (index_t const tokens : {0, 90}) {
        auto const run = [&](int threads) {
          host_executor exec{{.threads = threads, .scratch_bytes = gram_range_bytes(shape, 40, options, tokens)}};
          matrix<float> q{150, 40};
          if (tokens == 0) find_range_by_gram(exec, g.view(), q.view(), options, {.seed = 3});
          else find_range_by_gram(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 3});
          return q;
        };
        auto const one = run(1);
        for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
      }
  }
}

}  // namespace gram_range_test
