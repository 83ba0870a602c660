// What holds for singular values by every route that finds all of them.
#include <doctest/doctest.h>

#include <cmath>

#include "lowrank/spectrum/singular_values.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace spectrum_laws {

using namespace lowrank;
using namespace lowrank_test;

namespace {

constexpr auto routes = {spectrum_route::automatic, spectrum_route::gram, spectrum_route::exact};

template <class E>
std::vector<double> values_of(E& exec, matrix_view<float const> w, spectrum_route route) {
  return singular_values(exec, w, {.route = route}).values;
}
double worst_difference(std::vector<double> const& a, std::vector<double> const& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace

TEST_SUITE("spectra") {
  TEST_CASE_TEMPLATE("energy is the squared norm; the transposed matrix has the same values", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const shape : {extents{3, 2}, extents{50, 50}, extents{130, 64}, extents{65, 129}})
      for (auto const route : routes) {
        auto const w = random_matrix(shape, 3);
        auto const s = singular_values(exec, w.view(), {.route = route});
        CHECK_NOTHROW(s.check());
        CHECK(s.energy() == doctest::Approx(squared_norm_of(w.view())).epsilon(1e-13));
        CHECK(worst_difference(s.values, values_of<E>(exec, w.view().t(), route)) <= 1e-12 * s.largest());
      }
  }
  TEST_CASE_TEMPLATE("scaling by a power of two scales the values exactly", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    auto w = random_matrix({70, 40}, 4);
    for (auto const route : routes) {
      auto const before = values_of<E>(exec, w.view(), route);
      auto scaled = copy_of(w.view());
      for (index_t e = 0; e < 2800; ++e) scaled.data()[e] *= 0x1p-40F;
      auto after = values_of<E>(exec, scaled.view(), route);
      for (double& s : after) s *= 0x1p40;
      CHECK(worst_difference(before, after) <= 1e-14 * before[0]);
    }
  }
  TEST_CASE_TEMPLATE("signs, order and zero padding of rows change nothing", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    auto const w = random_matrix({45, 33}, 5);
    matrix<float> other{50, 33};
    for (index_t i = 0; i < 45; ++i)
      for (index_t j = 0; j < 33; ++j) other(49 - i, 32 - j) = (i + j) % 2 == 0 ? w(i, j) : -w(i, j);
    for (auto const route : routes)
      CHECK(worst_difference(values_of<E>(exec, w.view(), route), values_of<E>(exec, other.view(), route)) <= 1e-12);
  }
  TEST_CASE_TEMPLATE("without a row, values interlace", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 1}};
    auto const w = random_matrix({40, 40}, 6);
    for (auto const route : routes) {
      auto const all = values_of<E>(exec, w.view(), route), less = values_of<E>(exec, w.view().row_range(0, 39), route);
      for (std::size_t i = 0; i < less.size(); ++i) {
        CHECK(less[i] <= all[i] * (1 + 1e-12));
        CHECK(less[i] >= all[i + 1] * (1 - 1e-12));
      }
    }
  }
  TEST_CASE_TEMPLATE("one value many times over: orthonormal columns, the identity, a permutation", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    matrix<float> identity{90, 90}, turned{90, 70};
    for (index_t i = 0; i < 90; ++i) identity(i, i) = 2;
    for (index_t j = 0; j < 70; ++j) turned((7 * j) % 90, j) = -3;
    for (auto const route : routes) {
      for (double const s : values_of<E>(exec, identity.view(), route)) CHECK(s == doctest::Approx(2).epsilon(1e-14));
      for (double const s : values_of<E>(exec, turned.view(), route)) CHECK(s == doctest::Approx(3).epsilon(1e-14));
    }
  }
}

}  // namespace spectrum_laws
