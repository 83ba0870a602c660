#include "lowrank/linalg/tracked_range.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/warm_starts.hpp"

namespace tracked_range_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// A basis, and the mean seen through it.
struct tracker {
  matrix<float> p, l;
  std::int64_t exponent{};

  tracker(matrix<float> basis, std::vector<double> const& energies)
      : p{std::move(basis)}, l{p.shape().cols, p.shape().cols} {
    for (index_t k = 0; k < p.shape().cols; ++k) l(k, k) = static_cast<float>(energies[static_cast<std::size_t>(k)]);
  }
  explicit tracker(matrix<float> basis) : p{std::move(basis)}, l{p.shape().cols, p.shape().cols} {}

  /// The mean as numbers.
  [[nodiscard]] double mean(index_t i, index_t j) const {
    return std::ldexp(static_cast<double>(l(i, j)), static_cast<int>(exponent));
  }
  [[nodiscard]] double trace() const {
    double sum = 0;
    for (index_t k = 0; k < l.shape().cols; ++k) sum += mean(k, k);
    return sum;
  }
  template <class E, class G>
  range_report step(E& exec, G const& g, tracking_options const& options, index_t r, std::uint64_t seed = 1) {
    matrix<float> q{p.shape().rows, r}, next{r, r};
    std::int64_t next_exponent = 0;
    range_report report;
    tracked_range(exec, g, matrix_view<float const>(p.view()), tracked_mean<>{l.view(), &exponent}, q.view(),
                  tracked_mean<>{next.view(), &next_exponent}, options, {.seed = seed}, &report);
    p = std::move(q), l = std::move(next), exponent = next_exponent;
    return report;
  }
  template <class E>
  range_report step(E& exec, matrix<float> const& g, tracking_options const& options) {
    return step(exec, matrix_view<float const>(g.view()), options, p.shape().cols);
  }
};

/// The same in fp64, from the formula: Y = b P L + (1 - b) G Gᵀ P, Q by Gram-Schmidt, L = sym(Qᵀ Y Pᵀ Q).
struct plain_tracker {
  matrix<double> p, l;

  explicit plain_tracker(tracker const& from) : p{from.p.shape()}, l{from.l.shape()} {
    for (index_t e = 0; e < p.shape().size(); ++e) p.data()[e] = static_cast<double>(from.p.data()[e]);
    for (index_t e = 0; e < l.shape().size(); ++e) l.data()[e] = static_cast<double>(from.l.data()[e]);
  }
  void step(matrix<float> const& g, double b) {
    auto y = plain_product(p.view(), l.view());
    auto const pass = plain_product(g.view(), plain_product(g.view().t(), p.view()).view());
    for (index_t e = 0; e < y.shape().size(); ++e) y.data()[e] = b * y.data()[e] + (1 - b) * pass.data()[e];
    matrix<double> q{y.shape()};
    for (index_t c = 0; c < q.shape().cols; ++c) {
      for (index_t i = 0; i < q.shape().rows; ++i) q(i, c) = y(i, c);
      for (int twice = 0; twice < 2; ++twice)
        for (index_t k = 0; k < c; ++k) {
          double dot = 0;
          for (index_t i = 0; i < q.shape().rows; ++i) dot += q(i, k) * q(i, c);
          for (index_t i = 0; i < q.shape().rows; ++i) q(i, c) -= dot * q(i, k);
        }
      double norm = 0;
      for (index_t i = 0; i < q.shape().rows; ++i) norm += q(i, c) * q(i, c);
      for (index_t i = 0; i < q.shape().rows; ++i) q(i, c) /= std::sqrt(norm);
    }
    auto const half =
        plain_product(plain_product(q.view().t(), y.view()).view(), plain_product(p.view().t(), q.view()).view());
    for (index_t i = 0; i < l.shape().rows; ++i)
      for (index_t j = 0; j < l.shape().cols; ++j) l(i, j) = (half(i, j) + half(j, i)) / 2;
    for (index_t e = 0; e < p.shape().size(); ++e) p.data()[e] = q.data()[e];
  }
};

/// What all gradients have in common, and noise of its own.
matrix<float> noisy(matrix<float> const& common, float noise, std::uint64_t step) {
  auto g = copy_of(common.view());
  auto const own = random_matrix(common.shape(), 700 + step);
  for (index_t e = 0; e < g.shape().size(); ++e) g.data()[e] += noise * own.data()[e];
  return g;
}
matrix<float> times(matrix<float> const& a, float factor) {
  auto out = copy_of(a.view());
  for (index_t e = 0; e < a.shape().size(); ++e) out.data()[e] *= factor;
  return out;
}

}  // namespace

TEST_SUITE("tracked range") {
  TEST_CASE("the scratch asked for is the scratch taken, and nothing is allocated") {
    for (auto const [g, k, r] : warm_cases) {
      auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2), x = random_matrix({13, g.cols}, 3);
      auto const p = orthonormal_basis(g.rows, k, 4);
      for (index_t const fresh : {0, 8})
        for (auto const align : {alignment::none, alignment::signs, alignment::nearest_frame})
          for (index_t const tokens : {0, 13}) {
            CAPTURE(g);
            CAPTURE(k);
            CAPTURE(r);
            CAPTURE(fresh);
            CAPTURE(tokens);
            tracking_options const options{.fresh = fresh, .align = align};
            host_executor exec{{.threads = 2, .scratch_bytes = tracked_range_bytes(g, k, r, options, tokens)}};
            matrix<float> q{g.rows, r}, l{k, k}, next{r, r};
            std::int64_t exponent = 0, next_exponent = 0;
            tracked_mean<> const from{l.view(), &exponent}, to{next.view(), &next_exponent};
            matrix_view<float const> const old = p.view();
            range_report report;
            allocation_counter const allocations;
            if (tokens == 0)
              tracked_range(exec, matrix_view<float const>(dense.view()), old, from, q.view(), to, options, {.seed = 1},
                            &report);
            else
              tracked_range(exec, outer_product<>{dy.view(), x.view()}, old, from, q.view(), to, options, {.seed = 1},
                            &report);
            CHECK(allocations.count() == 0);
            CHECK(exec.arena().peak() == tracked_range_bytes(g, k, r, options, tokens));
            CHECK(report.failed == 0);
            CHECK(report.captured == -1);
            CHECK(departure_from_orthonormal(q.view()) <= orthonormal_units{}.of(r));
            CHECK(largest_difference(next.view(), next.view().t()) == 0);
          }
    }
  }
  TEST_CASE_TEMPLATE("steps are those of the formula in fp64", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{48, 80};
    index_t const r = 6;
    auto const common = with_spectrum(shape, geometric(r, 5), 3);
    for (double const b : {0.0, 0.3, 0.5, 0.9}) {
      CAPTURE(b);
      E exec{{.threads = 2, .scratch_bytes = tracked_range_bytes(shape, r, r)}};
      matrix<float> start{48, r};
      double energies[6];
      exec.reserve(find_range_bytes(shape, r));
      find_range(exec, noisy(common, 0.05F, 0).view(), start.view(), {}, {.seed = 1}, nullptr, energies);
      tracker one{std::move(start), {energies, energies + 6}};
      plain_tracker reference{one};
      for (std::uint64_t step = 1; step <= 6; ++step) {
        CAPTURE(step);
        auto const g = noisy(common, 0.05F, step);
        CHECK(one.step(exec, g, {.forgetting = b}).failed == 0);
        reference.step(g, b);
        double const now = captured_energy(one.p.view(), g.view());
        auto const projected = plain_product(reference.p.view().t(), g.view());
        CHECK(now == doctest::Approx(squared_norm_of(projected.view())).epsilon(1e-3));
        double trace = 0;
        for (index_t k = 0; k < r; ++k) trace += reference.l(k, k);
        CHECK(one.trace() == doctest::Approx(trace).epsilon(1e-5));
        // Not only the same span, but the same frame and the same mean in it.
        CHECK(largest_difference(one.p.view(), reference.p.view()) <= 1e-4);
        for (index_t i = 0; i < r; ++i)
          for (index_t j = 0; j < r; ++j) CHECK(std::abs(one.mean(i, j) - reference.l(i, j)) <= 1e-4 * trace);
      }
    }
  }
  TEST_CASE("without memory and fresh columns it spans what one warm pass spans") {
    extents const shape{48, 80};
    auto const g = with_spectrum(shape, power_law(48, 0.5), 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (auto const align : {alignment::none, alignment::signs, alignment::nearest_frame}) {
      tracker one{orthonormal_basis(48, 6, 8), {9, 8, 7, 6, 5, 4}};
      matrix<float> q{48, 6};
      warm_range(exec, g.view(), matrix_view<float const>(one.p.view()), q.view(),
                 {.between = between_products::nothing, .align = align}, {.seed = 1});
      auto const p = copy_of(one.p.view());
      one.step(exec, g, {.forgetting = 0, .align = align});
      CHECK(largest_difference(one.p.view(), q.view()) <= 20 * eps);
      if (align == alignment::nearest_frame) check_nearest_frame(p, one.p);
      // L = sym(Qᵀ G Gᵀ P Pᵀ Q)
      auto const left = plain_product(plain_product(one.p.view().t(), g.view()).view(), g.view().t());
      auto const mean =
          plain_product(plain_product(left.view(), p.view()).view(), plain_product(p.view().t(), one.p.view()).view());
      for (index_t i = 0; i < 6; ++i)
        for (index_t j = 0; j < 6; ++j)
          CHECK(one.mean(i, j) == doctest::Approx((mean(i, j) + mean(j, i)) / 2).epsilon(1e-4).scale(1e-2));
    }
  }
  TEST_CASE("of a constant gradient it finds the exact basis, and the mean becomes the Ritz values") {
    extents const shape{48, 80};
    index_t const r = 6;
    auto s = power_law(48, 0.5);
    s[5] *= 1.5, s[4] *= 1.3;
    auto const g = with_spectrum(shape, s, 3);
    double const best = std::max(energy(s, 0, r), 0.0);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (double const b : {0.0, 0.5, 0.9})
      for (index_t const fresh : {0, 8}) {
        CAPTURE(b);
        CAPTURE(fresh);
        tracker one{orthonormal_basis(48, r, 8)};
        for (std::uint64_t step = 0; step < 150; ++step)
          one.step(exec, matrix_view<float const>(g.view()), {.forgetting = b, .fresh = fresh}, r, step);
        CHECK(captured_energy(one.p.view(), g.view()) >= (1 - 1e-4) * best);
        auto const z = plain_product(one.p.view().t(), g.view());
        auto const c = plain_product(z.view(), z.view().t());
        for (index_t i = 0; i < r; ++i)
          for (index_t j = 0; j < r; ++j) CHECK(std::abs(one.mean(i, j) - c(i, j)) <= 1e-3);
        CHECK(one.trace() == doctest::Approx(best).epsilon(1e-3));
      }
  }
  TEST_CASE("fresh columns let in what the basis is orthogonal to, and the mean does not count it twice") {
    extents const shape{48, 80};
    index_t const r = 5;
    auto s = power_law(48, 0.5);
    s[0] = 4;
    auto const g = with_spectrum(shape, s, 3);
    auto const left = orthonormal_basis(48, 48, 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (index_t const fresh : {0, 8}) {
      tracker one{copy_of(left.view().col_range(1, r + 1))};
      for (index_t k = 0; k < r; ++k)
        one.l(k, k) = static_cast<float>(s[static_cast<std::size_t>(k) + 1] * s[static_cast<std::size_t>(k) + 1]);
      // Without fresh columns, only before rounding has grown into one.
      for (std::uint64_t step = 0; step < (fresh > 0 ? 6 : 2); ++step) {
        one.step(exec, matrix_view<float const>(g.view()), {.fresh = fresh}, r, step);
        // The mean of GGᵀ over a constant G is at most GGᵀ, whatever has been forgotten.
        auto const z = plain_product(one.p.view().t(), g.view());
        CHECK(one.trace() <= 1.001 * squared_norm_of(z.view()));
      }
      double const found = captured_energy(one.p.view(), matrix_view<float const>(left.view()).col_range(0, 1));
      CHECK((fresh > 0 ? found > 0.99 : found < 1e-3));
    }
  }
  TEST_CASE("rank may grow and shrink from step to step") {
    extents const shape{48, 80};
    auto const s = geometric(48, 1e4);
    auto const g = with_spectrum(shape, s, 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    tracker one{orthonormal_basis(48, 4, 8)};
    for (index_t const r : {4, 9, 9, 9, 3, 3, 6, 6, 6}) {
      CAPTURE(r);
      CHECK(one.step(exec, matrix_view<float const>(g.view()), {.fresh = 2}, r).failed == 0);
      CHECK(one.p.shape().cols == r);
      CHECK(departure_from_orthonormal(one.p.view()) <= orthonormal_units{}.of(r));
    }
    CHECK(captured_energy(one.p.view(), g.view()) >= 0.99 * energy(s, 0, 6));
  }
  TEST_CASE("scale does not matter: powers of two change no bit, others only rounding") {
    extents const shape{48, 80};
    index_t const r = 6;
    auto const common = with_spectrum(shape, geometric(r, 5), 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (index_t const fresh : {0, 4})
      for (float const factor : {0x1p60F, 0x1p-83F, 1e18F, 1e-25F}) {
        CAPTURE(factor);
        tracker one{orthonormal_basis(48, r, 8)}, other{orthonormal_basis(48, r, 8)};
        bool const exact = factor == 0x1p60F || factor == 0x1p-83F;
        for (std::uint64_t step = 0; step < 6; ++step) {
          auto const g = noisy(common, 0.05F, step), scaled = times(g, factor);
          one.step(exec, matrix_view<float const>(g.view()), {.fresh = fresh}, r, step);
          other.step(exec, matrix_view<float const>(scaled.view()), {.fresh = fresh}, r, step);
          if (exact) CHECK(same_bits(one.p, other.p));
          if (exact) CHECK(same_bits(one.l, other.l));
          CHECK(shared_part(one.p, other.p) == doctest::Approx(1).epsilon(1e-4));
          CHECK(other.trace() == doctest::Approx(one.trace() * std::pow(static_cast<double>(factor), 2)).epsilon(1e-4));
        }
      }
  }
  TEST_CASE("a sudden change of scale: upwards the new gradients are what counts, downwards the old ones") {
    extents const shape{48, 80};
    index_t const r = 6;
    auto const common = with_spectrum(shape, geometric(r, 5), 3), later = with_spectrum(shape, geometric(r, 5), 30);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (float const before : {1.0F, 1e18F, 1e-25F})
      for (float const change : {1e20F, 1e-20F}) {
        float const after = before * change;
        if (!(after < 1e20F) || after < 1e-30F) continue;
        CAPTURE(before);
        CAPTURE(change);
        tracker one{orthonormal_basis(48, r, 8)};
        for (std::uint64_t step = 0; step < 8; ++step) {
          auto const g = times(noisy(common, 0.01F, step), before);
          REQUIRE(one.step(exec, g, {}).failed == 0);
        }
        auto const settled = copy_of(one.p.view());
        for (std::uint64_t step = 0; step < 8; ++step) {
          auto const g = times(noisy(later, 0.01F, step), after);
          REQUIRE(one.step(exec, g, {}).failed == 0);
          CHECK(departure_from_orthonormal(one.p.view()) <= orthonormal_units{}.of(r));
          CHECK(is_finite(static_cast<float>(std::abs(one.l(0, 0)))));
        }
        auto const share = [&](matrix<float> const& g) {
          return captured_energy(one.p.view(), g.view()) / squared_norm_of(g.view());
        };
        if (change > 1) CHECK(share(later) > 0.99);
        else CHECK(shared_part(settled, one.p) > 0.99);
      }
  }
  TEST_CASE("a zero gradient, or one that the basis is orthogonal to, fades the mean and moves nothing") {
    extents const shape{48, 80};
    index_t const r = 6;
    auto const common = with_spectrum(shape, geometric(r, 5), 3);
    matrix<float> const zero{shape};
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (float const factor : {1.0F, 1e18F, 1e-25F}) {
      CAPTURE(factor);
      tracker one{orthonormal_basis(48, r, 8)};
      for (std::uint64_t step = 0; step < 4; ++step) one.step(exec, times(noisy(common, 0.01F, step), factor), {});
      auto const p = copy_of(one.p.view());
      for (int step = 0; step < 3; ++step) {
        double const trace = one.trace();
        CHECK(one.step(exec, zero, {.forgetting = 0.25}).failed == 0);
        CHECK(shared_part(p, one.p) == doctest::Approx(1).epsilon(1e-5));
        CHECK(one.trace() == doctest::Approx(0.25 * trace).epsilon(1e-5));
      }
    }
    tracker nothing{orthonormal_basis(48, r, 8)};
    CHECK(nothing.step(exec, zero, {}).failed == 0);
    CHECK(departure_from_orthonormal(nothing.p.view()) <= orthonormal_units{}.of(r));
  }
  TEST_CASE("misuse is refused before anything is written") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({10, 20}, 1);
    matrix<float> q{10, 4}, wide{10, 11}, other{9, 4}, l{4, 4}, small{3, 3};
    auto const p = orthonormal_basis(10, 4, 1);
    std::int64_t e = 0, f = 0;
    auto const call = [&](matrix<float> const& old, matrix<float>& mean, matrix<float>& to, matrix<float>& next,
                          tracking_options const& options) {
      tracked_range(exec, matrix_view<float const>(g.view()), matrix_view<float const>(old.view()),
                    tracked_mean<>{mean.view(), &e}, to.view(), tracked_mean<>{next.view(), &f}, options, {});
    };
    matrix<float> next{4, 4};
    CHECK_THROWS_AS(call(p, l, wide, next, {}), shape_error);
    CHECK_THROWS_AS(call(p, l, other, next, {}), shape_error);
    CHECK_THROWS_AS(call(other, l, q, next, {}), shape_error);
    CHECK_THROWS_AS(call(p, small, q, next, {}), shape_error);
    CHECK_THROWS_AS(call(p, l, q, small, {}), shape_error);
    CHECK_THROWS_AS(call(p, l, q, next, {.forgetting = 1}), argument_error);
    CHECK_THROWS_AS(call(p, l, q, next, {.forgetting = -0.1}), argument_error);
    CHECK_THROWS_AS(call(p, l, q, next, {.fresh = -1}), argument_error);
    CHECK(squared_norm_of(q.view()) == 0);
    CHECK(squared_norm_of(next.view()) == 0);
    exec.reserve(64);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity in a tracked gradient is reported", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U})
      for (index_t const fresh : {0, 8}) {
        auto g = random_matrix({40, 60}, 1);
        for (index_t const at : {0, 1234, 2399}) {
          float const before = std::exchange(g.data()[at], std::bit_cast<float>(bits));
          tracker one{orthonormal_basis(40, 8, 3)};
          CHECK(one.step(exec, g, {.fresh = fresh}).failed == 1);
          g.data()[at] = before;
        }
        auto dy = random_matrix({12, 40}, 1), x = random_matrix({12, 60}, 2);
        x(3, 3) = std::bit_cast<float>(bits);
        tracker one{orthonormal_basis(40, 8, 3)};
        CHECK(one.step(exec, outer_product<>{dy.view(), x.view()}, {.fresh = fresh}, 8).failed == 1);
      }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of a tracked basis do not depend on the number of threads") {
    extents const shape{220, 400};
    for (index_t const fresh : {0, 8}) {
      auto const run = [&](int threads) {
        tracking_options const options{.fresh = fresh, .align = alignment::nearest_frame};
        host_executor exec{{.threads = threads, .scratch_bytes = tracked_range_bytes(shape, 60, 60, options)}};
        tracker one{orthonormal_basis(220, 60, 2)};
        for (std::uint64_t step = 0; step < 3; ++step) one.step(exec, random_matrix(shape, step), options);
        return one;
      };
      auto const one = run(1);
      for (int const threads : {2, 3, 8}) {
        auto const other = run(threads);
        CHECK(same_bits(one.p, other.p));
        CHECK(same_bits(one.l, other.l));
        CHECK(one.exponent == other.exponent);
      }
    }
  }
}

}  // namespace tracked_range_test
