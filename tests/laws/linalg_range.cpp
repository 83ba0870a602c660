// What a randomized basis captures of matrices whose singular values are known because we chose them.
#include <doctest/doctest.h>

#include "lowrank/linalg/randomized_svd.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace linalg_range_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

template <class E>
double captured(E& exec, matrix_view<float const> g, index_t r, range_options const& options, std::uint64_t seed) {
  matrix<float> q{g.rows, r};
  find_range(exec, g, q.view(), options, {.seed = seed});
  CHECK(departure_from_orthonormal(q.view()) <= 20 * std::sqrt(static_cast<double>(r)) * eps);
  return captured_energy(q.view(), g);
}

}  // namespace

TEST_SUITE("range") {
  TEST_CASE_TEMPLATE("energy against the best rank-r basis", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{128, 344};
    index_t const r = 32;
    E exec{{.threads = 2, .scratch_bytes = find_range_bytes(shape, r)}};
    auto const flat = power_law(128, 0.5), steep = power_law(128, 1.0);
    auto const g_flat = with_spectrum(shape, flat, 1), g_steep = with_spectrum(shape, steep, 3);
    for (auto const sketch : {sketch_kind::rademacher, sketch_kind::gaussian})
      for (std::uint64_t const seed : {1, 2, 3}) {
        CHECK(captured(exec, g_flat.view(), r, {.power_iterations = 2, .sketch = sketch}, seed) >=
              0.99 * energy(flat, 0, r));
        CHECK(captured(exec, g_steep.view(), r, {.power_iterations = 1, .sketch = sketch}, seed) >=
              0.999 * energy(steep, 0, r));
        // On the other side too: the flipped gradient has the same singular values.
        CHECK(captured(exec, g_steep.view().t(), r, {.power_iterations = 1, .sketch = sketch}, seed) >=
              0.999 * energy(steep, 0, r));
      }
  }
  TEST_CASE_TEMPLATE("power iterations only help", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{96, 200};
    E exec{{.threads = 2, .scratch_bytes = find_range_bytes(shape, 16, {.power_iterations = 3})}};
    auto const g = with_spectrum(shape, power_law(96, 0.5), 5);
    double before = 0;
    for (index_t const power : {0, 1, 2, 3}) {
      double const now = captured(exec, g.view(), 16, {.power_iterations = power}, 4);
      CHECK(now > before);
      before = now;
    }
  }
  TEST_CASE_TEMPLATE("every block of a power iteration holds more than the last", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{160, 240};
    auto const s = power_law(160, 0.4);
    auto const g = with_spectrum(shape, s, 5);
    E exec{{.threads = 2}};
    for (index_t const r : {12, 40}) {
      double const best = energy(s, 0, r);
      auto const lost = [&](index_t steps, search_space space) {
        range_options const options{.power_iterations = steps, .space = space};
        exec.reserve(find_range_bytes(shape, r, options));
        double sum = 0;
        for (std::uint64_t seed = 1; seed <= 5; ++seed) sum += 1 - captured(exec, g.view(), r, options, seed) / best;
        return sum / 5;
      };
      double const last_1 = lost(1, search_space::last_block), last_2 = lost(2, search_space::last_block),
                   last_3 = lost(3, search_space::last_block), every_1 = lost(1, search_space::every_block),
                   every_2 = lost(2, search_space::every_block);
      CAPTURE(r);
      CAPTURE(last_1);
      CAPTURE(last_2);
      CAPTURE(every_1);
      CHECK(every_1 <= 0.6 * last_1);  // with the same products
      CHECK(every_1 <= 2.5 * last_2);  // with two fewer
      CHECK(every_2 <= 0.4 * last_3);
    }
  }
  TEST_CASE_TEMPLATE("a strong part does not hide a weak one from later blocks", E, LOWRANK_TEST_EXECUTORS) {
    // Squares of 3e-6 are far below the rounding of squares of 1: blocks have to be kept apart between products.
    extents const shape{120, 160};
    std::vector<double> s(8, 1.0);
    for (double const x : power_law(112, 0.4)) s.push_back(3e-6 * x);
    auto const g = with_spectrum(shape, s, 3);
    range_options const options{.space = search_space::every_block};
    E exec{{.threads = 1, .scratch_bytes = find_range_bytes(shape, 24, options)}};
    for (std::uint64_t const seed : {1, 2, 3}) {
      matrix<float> q{120, 24};
      find_range(exec, g.view(), q.view(), options, {.seed = seed});
      CHECK(captured_energy(q.view().col_range(8, 24), g.view()) >= 0.97 * energy(s, 8, 24));
    }
  }
  // E‖A - QQᵀA‖_F <= (1 + r / (p - 1))^(1/2) (tail energy)^(1/2); Halko, Martinsson, Tropp, theorem 10.5. It is about the
  // whole (r + p)-wide basis, so that is what is asked for, with nothing oversampled and cut off again.
  TEST_CASE_TEMPLATE("mean error of Gaussian sketches is within the theorem's bound", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{60, 80};
    index_t const r = 10, p = 4;
    auto const s = power_law(60, 0.7);
    auto const g = with_spectrum(shape, s, 7);
    E exec{{.threads = 1, .scratch_bytes = find_range_bytes(shape, r + p)}};
    double const all = squared_norm_of(g.view()), bound = std::sqrt((1 + 10.0 / 3) * energy(s, r, 60));
    double mean = 0;
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      double const error =
          std::sqrt(all - captured(exec, g.view(), r + p,
                                   {.oversampling = 0, .power_iterations = 0, .sketch = sketch_kind::gaussian}, seed));
      CHECK(error <= 3 * bound);
      mean += error / 30;
    }
    CHECK(mean <= bound);
    CHECK(mean >= std::sqrt(energy(s, r + p, 60)));  // nobody beats the best basis of that width
  }
  TEST_CASE_TEMPLATE("exact where the rank is not above r", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{90, 150};
    E exec{{.threads = 2, .scratch_bytes = find_range_bytes(shape, 12)}};
    for (index_t const rank : {1, 5, 12}) {
      auto const s = power_law(rank, 0.5);
      auto const g = with_spectrum(shape, s, 9);
      for (index_t const power : {0, 1})
        CHECK(captured(exec, g.view(), 12, {.power_iterations = power}, 1) ==
              doctest::Approx(energy(s, 0, rank)).epsilon(100 * eps));
    }
  }
  TEST_CASE_TEMPLATE("a factored gradient gives the basis of the dense one", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{70, 110};
    index_t const tokens = 48, r = 12;
    E exec{{.threads = 2, .scratch_bytes = find_range_bytes(shape, r, {}, tokens)}};
    auto const dy = with_spectrum({tokens, 70}, power_law(48, 1.0), 1), x = random_matrix({tokens, 110}, 2);
    auto const product = plain_product(dy.view().t(), x.view());
    matrix<float> g{shape}, p{70, r}, q{70, r};
    for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
    double e_dense[12], e_factored[12];
    find_range(exec, g.view(), p.view(), {}, {.seed = 1}, nullptr, e_dense);
    find_range(exec, outer_product<>{dy.view(), x.view()}, q.view(), {}, {.seed = 1}, nullptr, e_factored);
    for (int k = 0; k < 12; ++k) CHECK(e_factored[k] == doctest::Approx(e_dense[k]).epsilon(1e-4));
    auto const both = plain_product(p.view().t(), q.view());
    CHECK(squared_norm_of(both.view()) == doctest::Approx(r).epsilon(1e-4));
  }
  TEST_CASE_TEMPLATE("scale does not matter", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{50, 60};
    E exec{{.threads = 1, .scratch_bytes = find_range_bytes(shape, 8)}};
    auto const s = power_law(50, 1.0);
    auto const base = with_spectrum(shape, s, 3);
    for (double const factor : {1.0, 1e18, 1e-18, 1e-30}) {
      auto g = copy_of(base.view());
      for (index_t e = 0; e < shape.size(); ++e) g.data()[e] *= static_cast<float>(factor);
      matrix<float> q{50, 8};
      range_report report;
      find_range(exec, g.view(), q.view(), {}, {.seed = 2}, &report);
      CHECK(report.failed == 0);
      CHECK(report.captured / factor / factor >= 0.999 * energy(s, 0, 8));
      CHECK(captured_energy(q.view(), base.view()) >= 0.999 * energy(s, 0, 8));
    }
  }
  TEST_CASE_TEMPLATE("randomized_svd: U, s and V of known triplets", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{80, 60};
    index_t const r = 10;
    auto s = geometric(60, 1e6);
    auto const g = with_spectrum(shape, s, 11);
    matrix<float> u{80, r}, v{60, r};
    double values[10];
    E exec{{.threads = 2, .scratch_bytes = randomized_svd_bytes(shape, r, {.power_iterations = 2})}};
    range_report report;
    randomized_svd(exec, g.view(), r, {.u = u.view(), .values = values, .v = v.view()}, {.power_iterations = 2},
                   {.seed = 1}, &report);
    CHECK(report.failed == 0);
    CHECK(departure_from_orthonormal(u.view()) <= 20 * std::sqrt(10.0) * eps);
    CHECK(departure_from_orthonormal(v.view()) <= 20 * std::sqrt(10.0) * eps);
    for (int k = 0; k < 10; ++k) {
      CHECK(values[k] == doctest::Approx(s[static_cast<std::size_t>(k)]).epsilon(1e-3));
      auto const b = plain_product(u.view().col_range(k, k + 1).t(), g.view());
      CHECK(plain_product(b.view(), v.view().col_range(k, k + 1))(0, 0) == doctest::Approx(values[k]).epsilon(1e-4));
    }
  }
}

}  // namespace linalg_range_test
