// What a basis by way of G Gᵀ captures of matrices whose singular values are known because we chose them.
#include <doctest/doctest.h>

#include "lowrank/linalg/gram_range.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace linalg_gram_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

template <class E>
double captured(E& exec, matrix_view<float const> g, index_t r, gram_range_options const& options, std::uint64_t seed,
                std::vector<double> const& s) {
  matrix<float> q{g.rows, r};
  range_report report;
  std::vector<double> energies(static_cast<std::size_t>(r));
  exec.reserve(gram_range_bytes(g.shape(), r, options));
  find_range_by_gram(exec, g, q.view(), options, {.seed = seed}, &report, energies.data());
  CHECK(report.failed == 0);
  CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(static_cast<double>(r)) * eps);
  double const found = captured_energy(q.view(), g);
  CHECK(report.captured == doctest::Approx(found).epsilon(1e-6));
  if (options.solver == gram_solver::eigen)
    for (index_t k = 0; k < r; ++k) {
      auto const at = static_cast<std::size_t>(k);
      CHECK(std::abs(std::sqrt(energies[at]) - s[at]) <= 4 * eps * s[0]);  // the rounding of G itself
    }
  return found;
}
std::vector<double> exponential(index_t count, double decay) {
  std::vector<double> s;
  for (index_t i = 0; i < count; ++i) s.push_back(std::exp(-static_cast<double>(i) / decay));
  return s;
}

}  // namespace

TEST_SUITE("gram") {
  TEST_CASE_TEMPLATE("eigenvectors of the Gram capture what can be captured", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{128, 200};
    E exec{{.threads = 2}};
    std::vector<double> spikes = power_law(16, 0.5);
    spikes.resize(128, 0.1);
    for (auto const& s : {power_law(128, 0.4), power_law(128, 1.0), exponential(128, 32), exponential(128, 8), spikes,
                          geometric(128, 1e3), geometric(20, 1e2)}) {
      auto const g = with_spectrum(shape, s, 3);
      for (index_t const r : {1, 12, 36}) {
        auto const last = std::min<index_t>(r, static_cast<index_t>(s.size())) - 1;
        CAPTURE(r);
        if (last < r - 1) continue;
        CHECK(captured(exec, g.view(), r, {}, 1, s) >= (1 - 1e-6) * energy(s, 0, r));
        CHECK(captured(exec, g.view().t(), r, {}, 1, s) >= (1 - 1e-6) * energy(s, 0, r));
      }
    }
  }
  TEST_CASE_TEMPLATE("iterations on the Gram only help, and get there", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{128, 344};
    index_t const r = 32;
    E exec{{.threads = 2}};
    auto const flat = power_law(128, 0.5), steep = power_law(128, 1.0);
    auto const g_flat = with_spectrum(shape, flat, 1), g_steep = with_spectrum(shape, steep, 3);
    double before = 0;
    for (index_t const iterations : {0, 1, 2, 4, 8, 16}) {
      gram_range_options const options{.solver = gram_solver::subspace, .iterations = iterations};
      double const now = captured(exec, g_flat.view(), r, options, 4, flat);
      CHECK(now > before);
      before = now;
    }
    CHECK(before >= 0.9999 * energy(flat, 0, r));
    for (std::uint64_t const seed : {1, 2, 3}) {
      gram_range_options options{.solver = gram_solver::subspace, .iterations = 4};
      CHECK(captured(exec, g_flat.view(), r, options, seed, flat) >= 0.99 * energy(flat, 0, r));
      options.iterations = 3;
      CHECK(captured(exec, g_steep.view(), r, options, seed, steep) >= 0.999 * energy(steep, 0, r));
    }
  }
  TEST_CASE("an iteration on the Gram is a power step on the gradient") {
    // (G Gᵀ)^q G Omega lies between q and q + 1 applications of C to signs, in expectation.
    extents const shape{96, 200};
    index_t const r = 16;
    auto const s = power_law(96, 0.5);
    auto const g = with_spectrum(shape, s, 5);
    host_executor exec{{.threads = 1}};
    for (index_t const q : {1, 2}) {
      double direct = 0, fewer = 0, more = 0;
      for (std::uint64_t seed = 0; seed < 10; ++seed) {
        matrix<float> basis{96, r};
        exec.reserve(find_range_bytes(shape, r, {.power_iterations = q}));
        find_range(exec, g.view(), basis.view(), {.power_iterations = q}, {.seed = seed});
        direct += captured_energy(basis.view(), g.view());
        fewer += captured(exec, g.view(), r, {.solver = gram_solver::subspace, .iterations = q}, seed, s);
        more += captured(exec, g.view(), r, {.solver = gram_solver::subspace, .iterations = q + 1}, seed, s);
      }
      CHECK(fewer < direct);
      CHECK(more > direct);
    }
  }
  TEST_CASE("the basis before is as good a start as two cold iterations") {
    extents const shape{96, 200};
    index_t const r = 16;
    auto const s = power_law(96, 0.5);
    auto const g = with_spectrum(shape, s, 5);
    auto before = copy_of(g.view());
    auto const drift = with_spectrum(shape, s, 77);
    for (index_t e = 0; e < shape.size(); ++e) before.data()[e] += 0.3F * drift.data()[e];
    gram_range_options const options{.solver = gram_solver::subspace, .iterations = 1};
    host_executor exec{{.threads = 1, .scratch_bytes = gram_range_bytes(shape, r)}};
    matrix<float> old{96, r}, q{96, r};
    find_range_by_gram(exec, before.view(), old.view(), {}, {.seed = 1});
    exec.reserve(gram_range_bytes(shape, r, options));
    find_range_by_gram(exec, g.view(), matrix_view<float const>(old.view()), q.view(), options, {.seed = 1});
    double const warm = captured_energy(q.view(), g.view());
    CHECK(warm >= captured_energy(old.view(), g.view()));
    CHECK(warm >= captured(exec, g.view(), r, {.solver = gram_solver::subspace, .iterations = 2}, 1, s));
    CHECK(warm >= 0.99 * energy(s, 0, r));
  }
  TEST_CASE_TEMPLATE("a factored gradient gives the basis of the dense one", E, LOWRANK_TEST_EXECUTORS) {
    // More rows than are added to C at a time, more columns than are formed at a time.
    for (auto const& [shape, tokens] :
         {std::pair{extents{70, 610}, index_t{48}}, std::pair{extents{530, 300}, index_t{60}}}) {
      index_t const r = 12;
      auto const dy = with_spectrum({tokens, shape.rows}, power_law(40, 1.0), 1),
                 x = random_matrix({tokens, shape.cols}, 2);
      auto const product = plain_product(dy.view().t(), x.view());
      matrix<float> g{shape}, p{shape.rows, r}, q{shape.rows, r};
      for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
      for (gram_range_options const& options :
           {gram_range_options{}, gram_range_options{.solver = gram_solver::subspace, .iterations = 6}}) {
        E exec{{.threads = 2, .scratch_bytes = gram_range_bytes(shape, r, options, tokens)}};
        double e_dense[12], e_factored[12];
        find_range_by_gram(exec, g.view(), p.view(), options, {.seed = 1}, nullptr, e_dense);
        find_range_by_gram(exec, outer_product<>{dy.view(), x.view()}, q.view(), options, {.seed = 1}, nullptr,
                           e_factored);
        for (int k = 0; k < 12; ++k) CHECK(e_factored[k] == doctest::Approx(e_dense[k]).epsilon(1e-5));
        auto const both = plain_product(p.view().t(), q.view());
        CHECK(squared_norm_of(both.view()) == doctest::Approx(r).epsilon(1e-5));
      }
    }
  }
  TEST_CASE_TEMPLATE("orthonormal for every finite gradient", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{48, 64};
    index_t const r = 20;
    for (auto const& [name, columns] : hard_cases(shape.cols, shape.rows))
      for (gram_range_options const& options :
           {gram_range_options{}, gram_range_options{.solver = gram_solver::subspace}}) {
        CAPTURE(name);
        E exec{{.threads = 1, .scratch_bytes = gram_range_bytes(shape, r, options)}};
        matrix<float> q{shape.rows, r};
        range_report report;
        find_range_by_gram(exec, columns.view().t(), q.view(), options, {.seed = 1}, &report);
        CHECK(report.failed == 0);
        CHECK(departure_from_orthonormal(q.view()) <= std::sqrt(static_cast<double>(r)) * eps);
      }
  }
  TEST_CASE_TEMPLATE("scale does not matter to the Gram", E, LOWRANK_TEST_EXECUTORS) {
    extents const shape{50, 60};
    auto const s = power_law(50, 1.0);
    auto const base = with_spectrum(shape, s, 3);
    for (gram_range_options const& options :
         {gram_range_options{}, gram_range_options{.solver = gram_solver::subspace, .iterations = 4}})
      for (double const factor : {1.0, 1e18, 1e30, 1e-18, 1e-25, 1e-35}) {
        auto g = copy_of(base.view());
        for (index_t e = 0; e < shape.size(); ++e) g.data()[e] *= static_cast<float>(factor);
        E exec{{.threads = 1, .scratch_bytes = gram_range_bytes(shape, 8, options)}};
        matrix<float> q{50, 8};
        range_report report;
        find_range_by_gram(exec, g.view(), q.view(), options, {.seed = 2}, &report);
        CHECK(report.failed == 0);
        CHECK(report.captured / factor / factor >= 0.999 * energy(s, 0, 8));
        CHECK(captured_energy(q.view(), base.view()) >= 0.999 * energy(s, 0, 8));
      }
  }
}

}  // namespace linalg_gram_test
