#include "lowrank/linalg/warm_range.hpp"

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <numeric>

#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/warm_starts.hpp"

namespace warm_range_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// What a pass left.
struct found {
  matrix<float> q;
  range_report report;
  std::vector<double> energies;
};
template <class E, class G>
found warm(E& exec, G const& g, matrix<float> const& p, index_t r, warm_options const& options,
           std::uint64_t seed = 1) {
  found out{matrix<float>{g.shape().rows, r}, {}, std::vector<double>(static_cast<std::size_t>(r), -2.0)};
  warm_range(exec, g, matrix_view<float const>(p.view()), out.q.view(), options, {.seed = seed}, &out.report,
             out.energies.data());
  return out;
}
template <class E, class G>
found sketched(E& exec, G const& g, matrix<float> const& s, matrix_view<float const> p, index_t r,
               warm_options const& options, std::uint64_t seed = 1) {
  found out{matrix<float>{g.shape().rows, r}, {}, std::vector<double>(static_cast<std::size_t>(r), -2.0)};
  sketched_range(exec, g, matrix_view<float const>(s.view()), p, out.q.view(), options, {.seed = seed}, &out.report,
                 out.energies.data());
  return out;
}
void check_basis(matrix<float> const& q, orthonormal_units const& bound) {
  CHECK(departure_from_orthonormal(q.view()) <= bound.of(q.shape().cols));
}
/// A gradient whose left singular vectors are known: column k of the basis below has singular value s[k].
struct known_gradient {
  matrix<float> g, left;
};
known_gradient with_known_left(extents shape, std::vector<double> const& s, std::uint64_t seed) {
  return {with_spectrum(shape, s, seed), orthonormal_basis(shape.rows, static_cast<index_t>(s.size()), seed)};
}

}  // namespace

TEST_SUITE("warm range") {
  TEST_CASE("the scratch asked for is the scratch taken, and nothing is allocated") {
    for (auto const [g, k, r] : warm_cases) {
      auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2), x = random_matrix({13, g.cols}, 3);
      auto const p = orthonormal_basis(g.rows, k, 4);
      for (auto const& options : every_warm_options())
        for (index_t const tokens : {0, 13}) {
          CAPTURE(g);
          CAPTURE(k);
          CAPTURE(r);
          CAPTURE(named(options));
          CAPTURE(tokens);
          host_executor exec{{.threads = 2, .scratch_bytes = warm_range_bytes(g, k, r, options, tokens)}};
          matrix<float> q{g.rows, r};
          range_report report;
          std::vector<double> energies(static_cast<std::size_t>(r), -2.0);
          allocation_counter const allocations;
          if (tokens == 0)
            warm_range(exec, matrix_view<float const>(dense.view()), matrix_view<float const>(p.view()), q.view(),
                       options, {.seed = 1}, &report, energies.data());
          else
            warm_range(exec, outer_product<>{dy.view(), x.view()}, matrix_view<float const>(p.view()), q.view(),
                       options, {.seed = 1}, &report, energies.data());
          CHECK(allocations.count() == 0);
          CHECK(exec.arena().peak() == warm_range_bytes(g, k, r, options, tokens));
          CHECK(report.failed == 0);
          check_basis(q, {});
        }
    }
  }
  TEST_CASE("the same for a basis from a sketch") {
    for (auto const [g, k, r] : warm_cases) {
      auto const dense = random_matrix(g, 1), dy = random_matrix({13, g.rows}, 2), x = random_matrix({13, g.cols}, 3);
      auto const s = random_matrix({g.cols, k}, 4);
      auto const p = orthonormal_basis(g.rows, r, 5);
      for (auto options : every_warm_options())
        for (index_t const tokens : {0, 13})
          for (index_t const old : {index_t{0}, r}) {
            if (options.passes != 1 || options.between == between_products::nothing) continue;
            CAPTURE(g);
            CAPTURE(k);
            CAPTURE(r);
            CAPTURE(named(options));
            CAPTURE(tokens);
            host_executor exec{{.threads = 2, .scratch_bytes = sketched_range_bytes(g, k, old, r, options, tokens)}};
            matrix<float> q{g.rows, r};
            range_report report;
            std::vector<double> energies(static_cast<std::size_t>(r), -2.0);
            auto const towards = old == 0 ? matrix_view<float const>{} : matrix_view<float const>(p.view());
            allocation_counter const allocations;
            if (tokens == 0)
              sketched_range(exec, matrix_view<float const>(dense.view()), matrix_view<float const>(s.view()), towards,
                             q.view(), options, {.seed = 1}, &report, energies.data());
            else
              sketched_range(exec, outer_product<>{dy.view(), x.view()}, matrix_view<float const>(s.view()), towards,
                             q.view(), options, {.seed = 1}, &report, energies.data());
            CHECK(allocations.count() == 0);
            CHECK(exec.arena().peak() == sketched_range_bytes(g, k, old, r, options, tokens));
            CHECK(report.failed == 0);
            check_basis(q, {});
          }
    }
  }
  TEST_CASE("scratch is 2 n l + 2 m l + O(l²) numbers, l = r + fresh, never an m x n copy") {
    for (extents const g : {extents{512, 512}, extents{512, 1376}, extents{128, 4096}})
      for (index_t const r : {8, 32, 128})
        for (auto const& options : every_warm_options()) {
          index_t const l = std::min(g.rows, r + options.fresh), blocks = 1024;
          index_t const bound = 4 * (2 * g.cols * l + 2 * g.rows * l + 14 * l * l) + blocks;
          CAPTURE(g);
          CAPTURE(r);
          CAPTURE(named(options));
          CHECK(warm_range_bytes(g, r, r, options) <= bound);
          CHECK(sketched_range_bytes(g, r, r, r, options) <= bound);
        }
  }
  TEST_CASE("what a gradient of low rank leaves open comes from the old basis") {
    extents const shape{80, 120};
    index_t const rank = 6, r = 24;
    auto const dy = random_matrix({rank, 80}, 1), x = random_matrix({rank, 120}, 2);
    outer_product<> const g{dy.view(), x.view()};
    auto const dense = plain_product(dy.view().t(), x.view());
    matrix<float> narrow{shape};
    for (index_t e = 0; e < shape.size(); ++e) narrow.data()[e] = static_cast<float>(dense.data()[e]);
    auto const p = orthonormal_basis(80, r, 3);
    double const all = squared_norm_of(narrow.view());
    for (index_t const fresh : {0, 4})
      for (auto const between : {between_products::nothing, between_products::orthonormalize})
        for (float const scale : {1.0F, 1e-12F, 1e12F}) {
          CAPTURE(fresh);
          CAPTURE(scale);
          auto y = random_matrix({rank, 80}, 1);
          for (index_t e = 0; e < y.shape().size(); ++e) y.data()[e] *= scale;
          warm_options options{.fresh = fresh, .between = between, .retained = 1e-4F};
          host_executor exec{{.threads = 2, .scratch_bytes = warm_range_bytes(shape, r, r, options, rank)}};
          auto const kept = warm(exec, outer_product<>{y.view(), x.view()}, p, r, options);
          CHECK(exec.arena().peak() == warm_range_bytes(shape, r, r, options, rank));
          check_basis(kept.q, {});
          CHECK(captured_energy(kept.q.view(), narrow.view()) >= (1 - 1e-5) * all);
          // r - rank columns of 24 stay, and rank ones are where the gradient is: rank / 80 of them in the old space.
          double const left = static_cast<double>(r - rank) / static_cast<double>(r);
          CHECK(shared_part(p, kept.q) >= left - (fresh > 0 ? 0.02 : 1e-4));
          options.retained = 0;
          CHECK(shared_part(p, warm(exec, g, p, r, options).q) < left - 0.1);
        }
    // Nothing at all to turn towards: the old basis.
    matrix<float> const none{80, 120};
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const same = warm(exec, matrix_view<float const>(none.view()), p, r, {.retained = 1e-4F});
    CHECK(shared_part(p, same.q) == doctest::Approx(1).epsilon(1e-6));
    CHECK_THROWS_AS(warm(exec, g, p, r, {.retained = -1.0F}), argument_error);
  }
  TEST_CASE("by energy: energies descend, are those of the columns, and their sum is reported") {
    extents const shape{60, 90};
    index_t const r = 12, tokens = 48;
    auto const dy = with_spectrum({tokens, 60}, power_law(48, 0.5), 1), x = random_matrix({tokens, 90}, 2);
    auto const product = plain_product(dy.view().t(), x.view());
    matrix<float> g{shape};
    for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
    auto const p = orthonormal_basis(60, r, 9);
    matrix<float> sketch{90, r};
    host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    multiply(exec, 1.0F, matrix_view<float const>(g.view()).t(), matrix_view<float const>(p.view()), 0.0F,
             sketch.view());
    for (auto const& options : every_warm_options())
      for (int const way : {0, 1, 2}) {
        if (options.align == alignment::nearest_frame) continue;  // turns the columns once more
        CAPTURE(named(options));
        CAPTURE(way);
        auto const [q, report, energies] =
            way == 0   ? warm(exec, matrix_view<float const>(g.view()), p, r, options)
            : way == 1 ? warm(exec, outer_product<>{dy.view(), x.view()}, p, r, options)
                       : sketched(exec, matrix_view<float const>(g.view()), sketch, p.view(), r, options);
        if (options.order == column_order::as_iterated) {
          CHECK(report.captured == -1);
          CHECK(energies == std::vector<double>(12, -2.0));
          continue;
        }
        double const all = captured_energy(q.view(), g.view());
        CHECK(report.captured == doctest::Approx(all).epsilon(1e-6));
        CHECK(std::accumulate(energies.begin(), energies.end(), 0.0) == doctest::Approx(report.captured));
        for (index_t k = 0; k < r; ++k) {
          auto const at = static_cast<std::size_t>(k);
          double const own = captured_energy(q.view().col_range(k, k + 1), g.view());
          CHECK(std::abs(energies[at] - own) <= 1e-6 * all);
          if (k > 0) CHECK(energies[at] <= energies[at - 1]);
        }
      }
  }
  TEST_CASE("by energy and without a frame to turn to, the largest entry of a column is positive") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 18}};
    auto const g = random_matrix({40, 60}, 1);
    auto const q = warm(exec, matrix_view<float const>(g.view()), orthonormal_basis(40, 6, 3), 6,
                        {.order = column_order::by_energy})
                       .q;
    for (index_t k = 0; k < 6; ++k) {
      index_t most = 0;
      for (index_t i = 1; i < 40; ++i)
        if (std::abs(q(i, k)) > std::abs(q(most, k))) most = i;
      CHECK(q(most, k) > 0);
    }
  }
  TEST_CASE("as iterated: column k is made of columns 0 ... k of the iterated block") {
    extents const shape{50, 80};
    auto const g = with_spectrum(shape, power_law(50, 0.4), 2);
    auto const p = orthonormal_basis(50, 9, 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 18}};
    auto const q = warm(exec, matrix_view<float const>(g.view()), p, 9, {.between = between_products::nothing}).q;
    auto const block = plain_product(g.view(), plain_product(g.view().t(), p.view()).view());
    auto const r = plain_product(q.view().t(), block.view());
    for (index_t a = 0; a < 9; ++a) {
      CHECK(r(a, a) > 0);
      for (index_t b = 0; b < a; ++b) CHECK(std::abs(r(a, b)) <= 20 * eps * std::sqrt(squared_norm_of(block.view())));
    }
  }
  TEST_CASE("alignment turns a basis within its span: signs exactly, frames as near as they come") {
    extents const shape{60, 90};
    index_t const r = 12;
    auto const g = with_spectrum(shape, power_law(60, 0.5), 1);
    auto const p = orthonormal_basis(60, r, 9);
    host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    for (auto options : every_warm_options()) {
      if (options.align != alignment::none) continue;
      CAPTURE(named(options));
      auto const plain = warm(exec, matrix_view<float const>(g.view()), p, r, options).q;
      options.align = alignment::signs;
      auto const flipped = warm(exec, matrix_view<float const>(g.view()), p, r, options).q;
      options.align = alignment::nearest_frame;
      auto const turned = warm(exec, matrix_view<float const>(g.view()), p, r, options).q;
      auto const likeness = [&](matrix<float> const& q) { return plain_product(p.view().t(), q.view()); };
      double trace_plain = 0, trace_flipped = 0, trace_turned = 0;
      for (index_t k = 0; k < r; ++k) {
        trace_plain += likeness(plain)(k, k);
        trace_flipped += likeness(flipped)(k, k);
        trace_turned += likeness(turned)(k, k);
        CHECK(likeness(flipped)(k, k) >= -1e-6);
        bool same = true, opposite = true;
        for (index_t i = 0; i < 60; ++i) same = same && flipped(i, k) == plain(i, k);
        for (index_t i = 0; i < 60; ++i) opposite = opposite && flipped(i, k) == -plain(i, k);
        CHECK((same || opposite));
      }
      CHECK(trace_flipped >= trace_plain - 1e-5);
      CHECK(trace_turned >= trace_flipped - 1e-5);
      check_nearest_frame(p, turned);
      check_basis(turned, {});
      CHECK(shared_part(plain, turned) == doctest::Approx(1).epsilon(1e-5));
      // A basis of another rank has no frame to turn to.
      auto const other = orthonormal_basis(60, 7, 3);
      auto const one = warm(exec, matrix_view<float const>(g.view()), other, r, options).q;
      options.align = alignment::none;
      CHECK(same_bits(one, warm(exec, matrix_view<float const>(g.view()), other, r, options).q));
    }
  }
  TEST_CASE("a basis that does not move keeps its frame: one product with an invariant subspace is the identity") {
    auto const [g, left] = with_known_left({50, 70}, geometric(10, 3), 5);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (auto const align : {alignment::signs, alignment::nearest_frame})
      for (index_t const fresh : {0, 8}) {
        warm_options options{.fresh = fresh, .align = align};
        auto const q = warm(exec, matrix_view<float const>(g.view()), left, 10, options).q;
        // Rank 10, so that fresh columns bring nothing; as iterated, singular vectors stay where they are.
        if (fresh == 0 || align == alignment::nearest_frame)
          CHECK(largest_difference(q.view(), left.view()) <= 100 * eps);
        CHECK(shared_part(q, left) == doctest::Approx(1).epsilon(1e-5));
      }
  }
  TEST_CASE("fresh columns find what the old basis is orthogonal to") {
    extents const shape{60, 100};
    index_t const r = 8;
    auto s = power_law(60, 0.3);
    s[0] = 3;
    auto const [g, left] = with_known_left(shape, s, 5);
    auto const p = copy_of(left.view().col_range(1, r + 1));  // all of the leading directions but the first
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    double const best = energy(s, 0, r), without = energy(s, 1, r + 1);
    for (std::uint64_t seed = 1; seed <= 10; ++seed)
      for (auto const order : {column_order::as_iterated, column_order::by_energy}) {
        auto const blind = warm(exec, matrix_view<float const>(g.view()), p, r, {.order = order}, seed).q;
        CHECK(captured_energy(blind.view(), g.view()) == doctest::Approx(without).epsilon(1e-4));
        for (index_t const passes : {1, 2, 3}) {
          auto const q =
              warm(exec, matrix_view<float const>(g.view()), p, r, {.fresh = 8, .passes = passes, .order = order}, seed)
                  .q;
          CAPTURE(passes);
          CHECK(captured_energy(q.view(), g.view()) >= (passes == 1 ? 0.95 : 0.995) * best);
          CHECK(captured_energy(q.view(), matrix_view<float const>(left.view()).col_range(0, 1)) >= 0.95);
        }
      }
  }
  TEST_CASE("so they do where the old basis has no part in the gradient at all") {
    // Rows 20 ... of G alone, columns of the identity as P: GᵀP = 0 exactly.
    extents const shape{50, 70};
    index_t const r = 8;
    auto const s = power_law(r, 0.5);
    auto const lower = with_spectrum({30, 70}, s, 3);
    matrix<float> g{shape}, p{50, r};
    for (index_t i = 0; i < 30; ++i)
      for (index_t j = 0; j < 70; ++j) g(20 + i, j) = lower(i, j);
    for (index_t k = 0; k < r; ++k) p(k, k) = 1;
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (auto const between : {between_products::orthonormalize, between_products::nothing}) {
      auto const q = warm(exec, matrix_view<float const>(g.view()), p, r, {.fresh = 8, .between = between}).q;
      CHECK(captured_energy(q.view(), g.view()) >= (1 - 1e-6) * energy(s, 0, r));
    }
  }
  TEST_CASE("the shift is where the outside keeps least of itself, and 0 where that is of few large eigenvalues") {
    // Lengths² 9, 4, 16 of the columns of Z, moments a and b of the outside: s = (1.5 4 a - b) / (1.5 4 - a), at most 2.
    host_executor exec{{.threads = 1}};
    matrix<float> p{4, 2};
    p(0, 0) = p(1, 1) = 1;
    auto const chosen = [&](double a, double b, int exponent, double probe) {
      double const unit = std::ldexp(1.0, 2 * exponent);
      matrix<float> z{4, 4}, image{4, 1}, inner{2, 1};
      z(0, 0) = 3, z(1, 1) = 2, z(3, 2) = 4;
      z(2, 3) = static_cast<float>(std::sqrt(a * probe / unit));
      image(1, 0) = 5;  // inside, and of no account
      image(3, 0) = static_cast<float>(std::sqrt(b * probe / unit));
      detail::tail_shift seen{.probe = probe};
      unit_scale const scaled{.exponent = exponent};
      std::array<double, 4> energies{};
      detail::choose_shift(exec, matrix_view<float const>(p.view()), matrix_view<float const>(z.view()),
                           matrix_view<float const>(image.view()), inner.view(), &scaled, energies.data(), &seen);
      return seen.value;
    };
    auto const about = [](double value) { return doctest::Approx(value).epsilon(1e-5); };
    for (double const probe : {1.0, 0.3}) {
      CHECK(chosen(1, 1.5, 0, probe) == about((6 * 1 - 1.5) / (6 - 1)));
      CHECK(chosen(1, 1, 0, probe) == about(1));    // all alike: right there
      CHECK(chosen(1, 0.5, 0, probe) == about(1));  // no numbers have such moments
      CHECK(chosen(3, 9.5, 0, probe) == 2);         // never more than half of the least
      CHECK(chosen(1, 6.5, 0, probe) == 0);
      CHECK(chosen(7, 49, 0, probe) == 0);  // more outside than inside
      CHECK(chosen(16, 400, 2, probe) == about((96.0 * 16 - 400) / (96 - 16)));
    }
    CHECK(chosen(std::nan(""), 1, 0, 1) == 0);
    CHECK(chosen(1, std::nan(""), 0, 1) == 0);
    CHECK(chosen(1, 1, 0, 0) == 0);
  }
  TEST_CASE("the probe sees the eigenvalues outside of P: all of them alike, exactly") {
    // A = GGᵀ has 9, 9 in P and 2, 2, ... outside, so that nothing of the outside is left of (A - 2 I) X.
    index_t const m = 24, n = 40;
    std::vector<double> s(static_cast<std::size_t>(m), std::sqrt(2.0));
    s[0] = s[1] = 3;
    auto const [g, left] = with_known_left({m, n}, s, 5);
    auto const p = copy_of(left.view().col_range(0, 2));
    matrix<float> x{m, 2};
    for (index_t i = 0; i < m; ++i)
      for (index_t k = 0; k < 2; ++k) x(i, k) = 0.8F * left(i, k) + 0.6F * left(i, 2 + k);
    host_executor exec{{.threads = 1, .scratch_bytes = detail::probing_bytes(m, 2, 2)}};
    for (int const exponent : {0, 50, -50}) {
      scratch_scope const scope{exec};
      auto scaled_g = copy_of(g.view());
      for (index_t e = 0; e < g.shape().size(); ++e) scaled_g.data()[e] = std::ldexp(scaled_g.data()[e], exponent);
      detail::tail_shift shift;
      detail::probing_block<host_executor> const probed{exec, m, 2, 2, &shift};
      auto const old = matrix_view<float const>(p.view());
      probed.fill(exec, x.view(), old, {.seed = 3});
      CHECK(exec.arena().peak() == exec.arena().reserved());
      matrix<float> z{n, 3};
      unit_scale scaled;
      multiply(exec, 1.0F, scaled_g.view().t(), matrix_view<float const>(probed.columns), 0.0F, z.view());
      scale_to_unit(exec, z.view(), &scaled);
      multiply(exec, 1.0F, scaled_g.view(), matrix_view<float const>(z.view()), 0.0F, probed.columns);
      auto turned = copy_of(x.view());  // in place, and from elsewhere
      matrix<float> elsewhere{m, 2};
      auto const products = copy_of(probed.columns);
      probed.subtract(exec, old, z.view(), &scaled, turned.view(), turned.view());
      copy(exec, products.view(), probed.columns);
      probed.subtract(exec, old, z.view(), &scaled, x.view(), elsewhere.view());
      CHECK(same_bits(turned, elsewhere));
      CHECK(shift.value == doctest::Approx(std::ldexp(2.0, 2 * exponent)).epsilon(1e-5));
      // 7 P PᵀX, in the units of a product with 2^-e Gᵀ X.
      auto const expected = plain_product(p.view(), plain_product(p.view().t(), x.view()).view());
      double const unit = std::ldexp(7.0, 2 * exponent - scaled.exponent);
      for (index_t i = 0; i < m; ++i)
        for (index_t k = 0; k < 2; ++k) CHECK(std::abs(turned(i, k) / unit - expected(i, k)) <= 1e-5);
    }
  }
  TEST_CASE("a shift forgets a flat tail faster, and one pass more for the weakest columns what is left of it") {
    extents const shape{128, 200};
    index_t const r = 32;
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 22}};
    for (double const power : {0.3, 0.5, 0.7}) {
      CAPTURE(power);
      auto const s = power_law(128, power);
      auto const g = with_spectrum(shape, s, 3);
      auto noisy = copy_of(g.view());
      auto const noise = random_matrix(shape, 9);
      auto const size = static_cast<float>(
          0.3 * std::sqrt(squared_norm_of(g.view()) / squared_norm_of(matrix_view<float const>(noise.view()))));
      for (index_t e = 0; e < shape.size(); ++e) noisy.data()[e] += size * noise.data()[e];
      matrix<float> p{shape.rows, r};
      find_range(exec, noisy.view(), p.view(), {.power_iterations = 6}, {.seed = 1});
      double const best = energy(s, 0, r);
      auto const missed = [&](warm_options const& options) {
        double mean = 0;
        for (std::uint64_t seed = 0; seed < 5; ++seed)
          mean += 1 - captured_energy(warm(exec, matrix_view<float const>(g.view()), p, r, options, seed).q.view(),
                                      g.view()) /
                          best;
        return mean / 5;
      };
      double const plain = missed({.between = between_products::nothing});
      double const shifted = missed({.between = between_products::shift});
      double const again = missed({.between = between_products::shift, .again = r / 4});
      CHECK(shifted < 0.8 * plain);
      CHECK(again < 0.9 * shifted);
      CHECK(missed({.between = between_products::nothing, .again = r / 4}) < 0.9 * plain);
      CHECK(missed({.between = between_products::shift, .again = 1000}) <
            0.6 * missed({.between = between_products::nothing, .again = 1000}));
      // The shift is in the units of products that may have been scaled.
      warm_options const both{.between = between_products::shift, .again = r / 4};
      auto const [unscaled, report, energies] = warm(exec, matrix_view<float const>(g.view()), p, r, both);
      CHECK(report.passes == 2);  // one before the pass more, and all that is left of it in the other
      for (float const factor : {0x1p60F, 0x1p-83F}) {
        auto scaled = copy_of(g.view());
        for (index_t e = 0; e < shape.size(); ++e) scaled.data()[e] *= factor;
        CHECK(same_bits(unscaled, warm(exec, matrix_view<float const>(scaled.view()), p, r, both).q));
      }
      // More columns than there are: a second pass for all.
      CHECK(missed({.between = between_products::nothing, .again = 1000}) < 0.7 * plain);
    }
  }
  TEST_CASE("what is dropped is what is weakest") {
    // All singular vectors as one block: whatever r, the first r of them must stay, in any order of the columns.
    index_t const m = 70, l = 20;
    std::vector<double> const s = geometric(l, 1e3);
    auto const y = with_spectrum({m, l}, s, 4);
    auto const left = orthonormal_basis(m, l, 4);
    for (index_t const r : {1, 7, 12, 19}) {
      host_executor exec{{.threads = 1, .scratch_bytes = detail::drop_weakest_bytes({m, l}, r)}};
      for (auto const factor : {1.0F, 1e18F, 1e-25F}) {
        auto work = copy_of(y.view());
        for (index_t e = 0; e < m * l; ++e) work.data()[e] *= factor;
        matrix<float> q{m, r};
        detail::drop_weakest(exec, work.view(), q.view(), {.seed = 1});
        CHECK(exec.arena().peak() == detail::drop_weakest_bytes({m, l}, r));
        // Roughly orthonormal, and the strongest: the first r singular vectors have a gap of 1.4 to the rest.
        CHECK(departure_from_orthonormal(q.view()) <= 1e-3);
        auto const share = plain_product(q.view().t(), left.view().col_range(0, r));
        CHECK(squared_norm_of(share.view()) >= static_cast<double>(r) - 1e-3);
      }
    }
  }
  TEST_CASE("columns that carry nothing are weaker than any that do") {
    index_t const m = 40, l = 12, r = 6;
    host_executor exec{{.threads = 1, .scratch_bytes = detail::drop_weakest_bytes({m, l}, r)}};
    auto const base = with_spectrum({m, r}, geometric(r, 1e4), 3);
    for (int const kind : {0, 1, 2}) {
      CAPTURE(kind);
      matrix<float> y{m, l};
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < l; ++j)
          y(i, j) = j % 2 == 0 ? base(i, j / 2) : kind == 0 ? 0.0F : kind == 1 ? base(i, j / 2) : base(i, 0);
      matrix<float> q{m, r};
      detail::drop_weakest(exec, y.view(), q.view(), {.seed = 1});
      // Every direction of the base is still there, also the one of 1e-4.
      auto const all = orthonormal_basis(m, r, 3);
      auto const share = plain_product(q.view().t(), all.view());
      CHECK(squared_norm_of(share.view()) >= static_cast<double>(r) - 1e-2);
    }
  }
  TEST_CASE("scale does not matter: powers of two change no bit, others only rounding") {
    extents const shape{60, 90};
    index_t const r = 10;
    auto const base = with_spectrum(shape, power_law(60, 0.7), 3);
    auto const p = orthonormal_basis(60, r, 4);
    auto const s = random_matrix({90, r}, 5);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (auto const& options : every_warm_options()) {
      CAPTURE(named(options));
      auto const q = warm(exec, matrix_view<float const>(base.view()), p, r, options);
      auto const t = sketched(exec, matrix_view<float const>(base.view()), s, p.view(), r, options);
      for (float const factor : {0x1p60F, 0x1p-83F, 1e18F, 1e-25F}) {
        CAPTURE(factor);
        auto g = copy_of(base.view());
        for (index_t e = 0; e < shape.size(); ++e) g.data()[e] *= factor;
        auto const other = warm(exec, matrix_view<float const>(g.view()), p, r, options);
        auto const other_t = sketched(exec, matrix_view<float const>(g.view()), s, p.view(), r, options);
        CHECK(other.report.failed == 0);
        CHECK(shared_part(q.q, other.q) == doctest::Approx(1).epsilon(1e-5));
        CHECK(shared_part(t.q, other_t.q) == doctest::Approx(1).epsilon(1e-5));
        if (factor == 0x1p60F || factor == 0x1p-83F) {
          CHECK(same_bits(q.q, other.q));
          CHECK(same_bits(t.q, other_t.q));
        }
        if (options.order == column_order::by_energy) {
          double const square = static_cast<double>(factor) * static_cast<double>(factor);
          CHECK(other.report.captured == doctest::Approx(square * q.report.captured).epsilon(1e-5));
        }
      }
    }
  }
  TEST_CASE("zero, rank below r, one entry, equal columns: still an orthonormal basis, with all there is in it") {
    extents const shape{30, 50};
    std::vector<matrix<float>> gradients;
    gradients.emplace_back(shape);
    gradients.push_back(with_spectrum(shape, {3, 1}, 5));
    gradients.push_back(with_spectrum(shape, {1, 1e-4, 1e-4}, 6));
    gradients.emplace_back(shape)(3, 4) = 2;
    for (index_t i = 0; i < 30; ++i)
      for (index_t j = 0; j < 50; ++j) gradients.emplace_back(i == 0 && j == 0 ? shape : extents{0, 0});
    gradients.erase(std::remove_if(gradients.begin(), gradients.end(),
                                   [](matrix<float> const& a) { return a.shape().size() == 0; }),
                    gradients.end());
    auto& equal = gradients.back();
    for (index_t i = 0; i < 30; ++i)
      for (index_t j = 0; j < 50; ++j) equal(i, j) = static_cast<float>(i % 7) - 3;
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const p = orthonormal_basis(30, 8, 4);
    for (std::size_t which = 0; which < gradients.size(); ++which)
      for (auto const& options : every_warm_options()) {
        CAPTURE(which);
        CAPTURE(named(options));
        auto const& g = gradients[which];
        double const all = squared_norm_of(g.view());
        auto const a = warm(exec, matrix_view<float const>(g.view()), p, 8, options);
        auto const b =
            sketched(exec, matrix_view<float const>(g.view()), random_matrix({50, 8}, 3), p.view(), 8, options);
        for (auto const* one : {&a, &b}) {
          CHECK(one->report.failed == 0);
          check_basis(one->q, {});
          // Nothing of a gradient of that rank is outside, because P is not orthogonal to it.
          CHECK(captured_energy(one->q.view(), g.view()) >= (1 - 1e-6) * all);
        }
      }
  }
  TEST_CASE("a sketch that is GᵀP gives the warm pass, bit for bit") {
    extents const shape{60, 90};
    index_t const r = 10;
    auto const g = with_spectrum(shape, power_law(60, 0.5), 3);
    auto const p = orthonormal_basis(60, r, 4);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    matrix<float> s{90, r};
    multiply(exec, 1.0F, matrix_view<float const>(g.view()).t(), matrix_view<float const>(p.view()), 0.0F, s.view());
    for (auto options : every_warm_options()) {
      if (options.passes != 1 || options.fresh != 0 || options.again != 0) continue;
      CAPTURE(named(options));
      auto const evened = warm(exec, matrix_view<float const>(g.view()), p, r, options).q;
      options.between = between_products::nothing;
      auto const whole = warm(exec, matrix_view<float const>(g.view()), p, r, options).q;
      auto const half = sketched(exec, matrix_view<float const>(g.view()), s, p.view(), r, options).q;
      CHECK(same_bits(whole, half));
      CHECK(captured_energy(half.view(), g.view()) ==
            doctest::Approx(captured_energy(evened.view(), g.view())).epsilon(1e-5));
    }
    // Its scale does not matter, beside fresh columns neither.
    for (auto const fresh : {0, 8}) {
      auto scaled = copy_of(s.view());
      for (index_t e = 0; e < 90 * r; ++e) scaled.data()[e] *= 0x1p-40F;
      auto const one = sketched(exec, matrix_view<float const>(g.view()), s, p.view(), r, {.fresh = fresh}).q;
      CHECK(
          same_bits(one, sketched(exec, matrix_view<float const>(g.view()), scaled, p.view(), r, {.fresh = fresh}).q));
      CHECK(captured_energy(one.view(), g.view()) >= 0.97 * captured_energy(p.view(), g.view()));
    }
  }
  TEST_CASE("a sketch of fewer or more columns, or of none") {
    extents const shape{40, 60};
    auto const s = power_law(40, 1.0);
    auto const g = with_spectrum(shape, s, 3);
    auto const v = orthonormal_basis(60, 40, 4);  // right singular vectors, the strongest first
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (index_t const k : {0, 3, 8, 20}) {
      CAPTURE(k);
      auto const [q, report, energies] =
          sketched(exec, matrix_view<float const>(g.view()), copy_of(v.view().col_range(0, k)), {}, 8,
                   {.fresh = 4, .order = column_order::by_energy});
      CHECK(report.failed == 0);
      check_basis(q, {});
      if (k >= 8) CHECK(captured_energy(q.view(), g.view()) >= (1 - 1e-5) * energy(s, 0, 8));
      if (k > 0) CHECK(captured_energy(q.view(), g.view()) >= 0.999 * energy(s, 0, std::min<index_t>(k, 8)));
    }
  }
  TEST_CASE("fewer old columns are completed by fresh ones, of more the weakest are dropped") {
    extents const shape{60, 90};
    auto const s = geometric(60, 1e4);
    auto const [g, left] = with_known_left(shape, s, 3);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    for (index_t const k : {0, 1, 5, 12, 20, 60})
      for (index_t const passes : {1, 2})
        for (index_t const fresh : {0, 8}) {
          CAPTURE(k);
          CAPTURE(passes);
          CAPTURE(fresh);
          auto const q = warm(exec, matrix_view<float const>(g.view()), copy_of(left.view().col_range(0, k)), 12,
                              {.fresh = fresh, .passes = passes})
                             .q;
          double const had = energy(s, 0, std::min<index_t>(k, 12)), now = captured_energy(q.view(), g.view());
          CHECK(now >= (1 - 1e-5) * had);
          if (k >= 12) CHECK(now >= (1 - 1e-5) * energy(s, 0, 12));
          if (k < 12) CHECK(now > (1 + 1e-4) * had);
        }
  }
  TEST_CASE("fresh columns come from the key") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({40, 60}, 1);
    auto const p = orthonormal_basis(40, 6, 3);
    matrix_view<float const> const view = g.view();
    auto const q = warm(exec, view, p, 6, {.fresh = 4}, 1).q;
    CHECK(same_bits(q, warm(exec, view, p, 6, {.fresh = 4}, 1).q));
    CHECK_FALSE(same_bits(q, warm(exec, view, p, 6, {.fresh = 4}, 2).q));
    CHECK(same_bits(warm(exec, view, p, 6, {}, 1).q, warm(exec, view, p, 6, {}, 2).q));
  }
  TEST_CASE("an empty gradient or basis is nothing to do") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
    matrix<float> const none{6, 0};
    auto const a = warm(exec, matrix_view<float const>(none.view()), orthonormal_basis(6, 2, 1), 2, {.fresh = 2});
    CHECK(a.report.failed == 0);
    CHECK(departure_from_orthonormal(a.q.view()) < 1e-5);
    auto const b = sketched(exec, matrix_view<float const>(none.view()), matrix<float>{0, 2}, {}, 2, {});
    CHECK(departure_from_orthonormal(b.q.view()) < 1e-5);
    auto const g = random_matrix({6, 5}, 1);
    CHECK(warm(exec, matrix_view<float const>(g.view()), orthonormal_basis(6, 2, 1), 0, {}).report.captured == -1);
    CHECK(sketched(exec, matrix_view<float const>(g.view()), random_matrix({5, 2}, 1), {}, 0, {}).report.captured ==
          -1);
    auto const no_tokens = outer_product<>{matrix<float>{0, 6}.view(), matrix<float>{0, 5}.view()};
    auto const c = warm(exec, no_tokens, orthonormal_basis(6, 2, 1), 2, {.fresh = 2});
    CHECK(c.report.failed == 0);
    CHECK(departure_from_orthonormal(c.q.view()) < 1e-5);
  }
  TEST_CASE("misuse is refused before anything is written") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const g = random_matrix({10, 20}, 1);
    matrix_view<float const> const view = g.view();
    matrix<float> q{10, 4}, wide{10, 11}, other{9, 4};
    auto const p = orthonormal_basis(10, 4, 1);
    auto const call = [&](matrix<float> const& old, matrix<float>& to, warm_options const& options) {
      warm_range(exec, view, matrix_view<float const>(old.view()), to.view(), options, {});
    };
    CHECK_THROWS_AS(call(p, wide, {}), shape_error);
    CHECK_THROWS_AS(call(p, other, {}), shape_error);
    CHECK_THROWS_AS(call(other, q, {}), shape_error);
    CHECK_THROWS_AS(call(p, q, {.fresh = -1}), argument_error);
    CHECK_THROWS_AS(call(p, q, {.passes = 0}), argument_error);
    auto const from_sketch = [&](extents sketch, matrix<float>& to, warm_options const& options) {
      auto const s = random_matrix(sketch, 1);
      sketched_range(exec, view, matrix_view<float const>(s.view()), {}, to.view(), options, {});
    };
    CHECK_THROWS_AS(from_sketch({10, 4}, q, {}), shape_error);
    CHECK_THROWS_AS(from_sketch({20, 4}, wide, {}), shape_error);
    CHECK_THROWS_AS(from_sketch({20, 4}, other, {}), shape_error);
    CHECK_THROWS_AS(from_sketch({20, 4}, q, {.fresh = -1}), argument_error);
    CHECK(squared_norm_of(q.view()) == 0);
    exec.reserve(64);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE_TEMPLATE("NaN or infinity in the gradient, or in the sketch, is reported", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    auto const p = orthonormal_basis(40, 8, 3);
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
      float const bad = std::bit_cast<float>(bits);
      for (auto const& options : every_warm_options()) {
        if (options.align != alignment::none) continue;
        CAPTURE(named(options));
        auto g = random_matrix({40, 60}, 1);
        auto s = random_matrix({60, 8}, 2);
        for (index_t const at : {0, 1234, 2399}) {
          float const before = std::exchange(g.data()[at], bad);
          CHECK(warm(exec, matrix_view<float const>(g.view()), p, 8, options).report.failed == 1);
          CHECK(sketched(exec, matrix_view<float const>(g.view()), s, p.view(), 8, options).report.failed == 1);
          g.data()[at] = before;
        }
        s(17, 3) = bad;
        CHECK(sketched(exec, matrix_view<float const>(g.view()), s, p.view(), 8, options).report.failed == 1);
        auto dy = random_matrix({12, 40}, 1), x = random_matrix({12, 60}, 2);
        x(3, 3) = bad;
        CHECK(warm(exec, outer_product<>{dy.view(), x.view()}, p, 8, options).report.failed == 1);
      }
    }
  }
  TEST_CASE("so is a product that overflows") {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    auto const p = orthonormal_basis(40, 8, 3);
    auto g = with_spectrum({40, 60}, {1}, 1);
    for (index_t e = 0; e < 40 * 60; ++e) g.data()[e] = std::copysign(3e38F, g.data()[e]);
    for (auto const& options : every_warm_options()) {
      CAPTURE(named(options));
      CHECK(warm(exec, matrix_view<float const>(g.view()), p, 8, options).report.failed == 1);
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("bits of a warm basis do not depend on the number of threads") {
    extents const shape{220, 400};
    auto const g = random_matrix(shape, 1);
    auto const p = orthonormal_basis(220, 60, 2);
    for (auto const& options : every_warm_options()) {
      if (options.passes == 3 || options.align == alignment::signs) continue;
      CAPTURE(named(options));
      auto const run = [&](int threads) {
        host_executor exec{{.threads = threads, .scratch_bytes = warm_range_bytes(shape, 60, 60, options)}};
        return warm(exec, matrix_view<float const>(g.view()), p, 60, options).q;
      };
      auto const one = run(1);
      for (int const threads : {2, 3, 8}) CHECK(same_bits(one, run(threads)));
    }
  }
}

}  // namespace warm_range_test
